//! The board: inside of a transaction, places hold as long as it shows the same.

use talea_model::{Extent, Order, Position, Stamp, TxId, View};
use talea_tier::{SimMedium, Torn};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::Body;

use super::bench::{Answer, Bench, array, inside, refused};
use crate::target::PoolChange;

const TX: Order = Order::Pending(TxId(1));

/// A target in memory that readers of its node look into, and that has been part of the pool from the log's first entry on.
fn shared() -> Bench {
    let medium = SimMedium::new(64 << 20, Torn::Lines);
    medium.is_memory();
    medium.share_as(1);
    let mut bench = Bench::on(medium, 1_000_000);
    bench.target.set_incarnation(1);
    let map = std::sync::Arc::new(bench.map.clone());
    bench.position = Position(1);
    bench.target.follow(vec![PoolChange::Map(map)], Position(1)).unwrap();
    bench
}

fn write(bench: &mut Bench, view: View) -> Option<Answer> {
    let head = bench.head(Some(TX), view);
    bench.ask(head, Body::Update(vec![array(b"k", Extent::new(0, 3).unwrap(), b"abc")]))
}

/// The number that comes with places.
fn named(bench: &mut Bench, view: View) -> u64 {
    let head = bench.head(None, view);
    match bench.ask(head, Body::Locate { dkey: b"k", akey: b"a", extent: Extent { index: 0, count: u64::MAX } }) {
        Some(Answer::Located(located)) if located.board.is_some() => located.change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_shows_that_places_may_have_changed_before_that_is_answered() {
    let mut bench = shared();
    bench.later_us(2_000_000);
    let view = inside(1, Stamp::ZERO, Position(1));
    assert_eq!(write(&mut bench, view), Some(Answer::Done));
    let first = named(&mut bench, view);
    assert_eq!((bench.medium.posted(), named(&mut bench, view)), (first, first), "nothing has changed");
    // In the turn in which the write is applied, and before its answer leaves.
    let head = bench.head(Some(TX), view);
    bench.send(head, Body::Update(vec![array(b"other", Extent::new(0, 1).unwrap(), b"x")]));
    assert_ne!(bench.medium.posted(), first);
    bench.finish();
    let shown = bench.medium.posted();
    assert_eq!(write(&mut bench, view), Some(Answer::Done));
    assert_eq!(bench.medium.posted(), shown, "nobody has asked since");
    assert_eq!(named(&mut bench, view), shown);
    assert_eq!(write(&mut bench, view), Some(Answer::Done));
    // What snapshots were told holds for ever.
    let shown = bench.medium.posted();
    let snapshot = super::bench::snapshot(bench.stamp(), Position(1));
    assert_eq!(named(&mut bench, snapshot), shown);
    assert_eq!(write(&mut bench, view), Some(Answer::Done));
    assert_eq!(bench.medium.posted(), shown);
    assert_eq!(named(&mut bench, view), shown);
    bench.log(&[Change::Abort(TxId(2))]);
    assert_ne!(bench.medium.posted(), shown, "a fate may be of what is seen");
}

#[test]
fn a_transaction_older_than_the_process_waits_for_readers_of_the_board_before() {
    let mut bench = shared();
    let (old, new) = (inside(1, Stamp::ZERO, Position(0)), inside(1, Stamp::ZERO, Position(1)));
    assert_eq!(write(&mut bench, old), refused(RefusalCode::Busy));
    assert_eq!(write(&mut bench, new), Some(Answer::Done), "nobody can have seen it in the process before");
    bench.later_us(1_300_000);
    assert_eq!(write(&mut bench, old), Some(Answer::Done));
}
