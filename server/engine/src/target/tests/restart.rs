//! What a target keeps over a crash: what it acknowledged, its clock's ceiling, its horizon.

use talea_model::{Extent, Order, TxId, View};
use talea_vos::Change;
use talea_wire::data::{Body, Condition};

use super::bench::*;

fn crash(bench: &Bench, back_us: u64) -> Bench {
    let mut n = 0u64;
    let survives = bench.medium.crash(&mut || {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        n >> 33
    });
    let mut after = Bench::on(survives, bench.now.unix_us - back_us);
    // The clients did not restart.
    after.sequence = bench.sequence;
    after
}

#[test]
fn the_acknowledged_survives_and_later_stamps_are_above_what_was_served() {
    let mut bench = Bench::new();
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"one"), Some(Answer::Done));
    let served = snapshot(talea_model::Stamp::from_unix_us(bench.now.unix_us + 500_000), bench.position);
    assert_eq!(bench.get(served, b"k"), value(b"one"));
    // The machine comes back with a clock that went backwards.
    let mut bench = crash(&bench, 5_000_000);
    assert!(!bench.recovered.fresh && !bench.recovered.lost);
    assert!(bench.recovered.ceiling >= talea_model::Stamp::from_unix_us(START_US + 500_000));
    assert_eq!(bench.get(View::Latest, b"k"), value(b"one"));
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"two"), Some(Answer::Done));
    assert_eq!(bench.get(View::Latest, b"k"), value(b"two"));
    assert_eq!(bench.get(served, b"k"), value(b"one"), "the snapshot changed after a restart");
}

#[test]
fn exactly_once_also_over_a_restart_and_fates_are_kept() {
    let mut bench = Bench::new();
    let position = bench.log(&[Change::Begin(TxId(1)), Change::Begin(TxId(2))]);
    let base = bench.stamp();
    bench.put(Order::Pending(TxId(1)), inside(1, base, position), b"a", b"committed");
    bench.put(Order::Pending(TxId(2)), inside(2, base, position), b"b", b"aborted");
    let first = bench.head(Some(AUTO), View::Latest);
    bench.ask(first, Body::Update(vec![single(b"c", b"once", Condition::Insert)]));
    bench.later_us(5);
    let commit = bench.stamp();
    let end = bench.log(&[Change::Commit(TxId(1), commit), Change::Abort(TxId(2))]);
    bench.finish();
    let mut bench = crash(&bench, 0);
    assert_eq!(bench.recovered.horizon, end);
    assert_eq!(bench.get(View::Latest, b"a"), value(b"committed"));
    assert_eq!(bench.get(View::Latest, b"b"), nothing());
    let again = bench.ask(first, Body::Update(vec![single(b"c", b"once", Condition::Insert)]));
    assert_eq!(again, Some(Answer::Done));
}

/// A reader takes places to be valid as long as the number that comes with them stays the same.
#[test]
fn the_count_of_blocks_given_back_does_not_begin_anew() {
    let mut bench = Bench::new();
    bench.medium.share_as(1);
    let extent = Extent::new(0, 3).unwrap();
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Update(vec![array(b"k", extent, b"abc")]));
    let generation = |bench: &mut Bench| {
        let stamp = bench.stamp();
        let head = bench.head(None, snapshot(stamp, bench.position));
        match bench.ask(head, Body::Locate { dkey: b"k", akey: b"a", from: 0 }) {
            Some(Answer::Located(located)) => located.generation,
            other => panic!("{other:?}"),
        }
    };
    let before = generation(&mut bench);
    assert_eq!(generation(&mut bench), before, "nothing was given back");
    // The clock went backwards meanwhile.
    let mut bench = crash(&bench, 5_000_000);
    bench.medium.share_as(1);
    assert!(generation(&mut bench) > before, "places from before the restart hold no longer");
}
