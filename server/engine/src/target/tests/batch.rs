//! One flush a turn, acknowledgements after it, each request once.

use talea_fabric::PeerId;
use talea_model::{Extent, TxId, View};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition};

use super::bench::*;
use crate::Effect;
use crate::outbox::MAX_QUEUED;

#[test]
fn a_turn_of_updates_is_one_flush_and_no_answer_leaves_before_it() {
    let mut bench = Bench::new();
    bench.finish();
    let (flushes, persists) = (bench.target.flushes(), bench.medium.persists());
    for n in 0..20u8 {
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![single(&[n + 1], &[n; 8192], Condition::None)]));
    }
    assert!(bench.medium.unflushed_bytes() > 0, "values are written before the log names them");
    assert!(bench.out.take().is_empty(), "an answer left before the flush");
    let answers = bench.finish();
    assert_eq!(answers.len(), 20);
    assert!(answers.iter().all(|(_, answer)| *answer == Answer::Done));
    assert_eq!(bench.target.flushes(), flushes + 1);
    assert!(bench.medium.persists() > persists);
    assert_eq!(bench.medium.unflushed_bytes(), 0);
}

#[test]
fn a_turn_that_only_reads_flushes_nothing() {
    let mut bench = Bench::new();
    bench.put(AUTO, View::Latest, b"k", b"v");
    while bench.target.next_deadline() == 0 {
        bench.finish();
    }
    let flushes = bench.target.flushes();
    assert_eq!(bench.get(View::Latest, b"k"), value(b"v"));
    assert_eq!(bench.target.flushes(), flushes);
    let sleeps_ns = bench.target.next_deadline() - bench.now.monotonic_ns;
    assert!(sleeps_ns >= 2_000_000_000, "an idle target wakes up for nothing but the scrubber, and seldom");
}

#[test]
fn a_request_sent_again_is_answered_again_but_not_done_again() {
    let mut bench = Bench::new();
    let first = bench.head(Some(AUTO), View::Latest);
    assert_eq!(bench.ask(first, Body::Update(vec![single(b"k", b"one", Condition::Insert)])), Some(Answer::Done));
    bench.put(AUTO, View::Latest, b"k", b"two");
    let records = bench.target.store().stats().records;
    assert_eq!(bench.ask(first, Body::Update(vec![single(b"k", b"one", Condition::Insert)])), Some(Answer::Done));
    assert_eq!(bench.target.store().stats().records, records);
    assert_eq!(bench.get(View::Latest, b"k"), value(b"two"));
    // Another request that asks the same is refused.
    let other = bench.head(Some(AUTO), View::Latest);
    let again = bench.ask(other, Body::Update(vec![single(b"k", b"one", Condition::Insert)]));
    assert_eq!(again, refused(RefusalCode::Exists));
}

#[test]
fn one_client_gets_its_share_and_who_does_not_read_is_dropped() {
    let mut bench = Bench::new();
    bench.up(2);
    for _ in 0..MAX_QUEUED {
        let head = bench.head(None, View::Latest);
        bench.send(head, Body::Fetch(vec![single(b"k", &[], Condition::None)]));
    }
    assert!(bench.effects().is_empty());
    let head = bench.head(None, View::Latest);
    bench.send(head, Body::Stat { read_in_place: 0 });
    assert_eq!(bench.effects(), vec![Effect::Drop { peer: PeerId(1) }]);
    // The other one does not notice.
    let mut head = bench.head(Some(AUTO), View::Latest);
    head.session = talea_model::SessionId(2);
    bench.send(head, Body::Update(vec![single(b"k", b"v", Condition::None)]));
    let answers = bench.finish();
    assert_eq!(answers, vec![(head.id, Answer::Done)]);
}

#[test]
fn more_than_the_share_in_flight_is_busy() {
    let mut bench = Bench::new();
    let ids: Vec<u64> = (0..70)
        .map(|_| {
            let head = bench.head(None, View::Latest);
            bench.send(head, Body::Stat { read_in_place: 0 })
        })
        .collect();
    let answers = bench.finish();
    let busy = |answer: &Answer| *answer == Answer::Refused(RefusalCode::Busy);
    assert_eq!(answers.len(), ids.len(), "everybody is answered");
    assert_eq!(answers.iter().filter(|(_, answer)| busy(answer)).count(), 6);
}

#[test]
fn a_megabyte_goes_in_and_out() {
    let mut bench = Bench::new();
    let data: Vec<u8> = (0..1u32 << 20).map(|n| ((n * 7) >> 3) as u8).collect();
    let extent = Extent::new(4096, data.len() as u64).unwrap();
    let head = bench.head(Some(AUTO), View::Latest);
    assert_eq!(bench.ask(head, Body::Update(vec![array(b"d", extent, &data)])), Some(Answer::Done));
    let head = bench.head(None, View::Latest);
    let mut entry = array(b"d", extent, &[]);
    entry.checksum = 0;
    assert_eq!(bench.ask(head, Body::Fetch(vec![entry])), value(&data));
    let head = bench.head(None, View::Latest);
    let Some(Answer::Stat(stat)) = bench.ask(head, Body::Stat { read_in_place: 0 }) else { panic!("no figures") };
    assert_eq!((stat.updates, stat.fetches, stat.bytes_in, stat.bytes_out), (1, 1, 1 << 20, 1 << 20));
    assert_eq!(stat.container_bytes_in, 1 << 20);
}

#[test]
fn pending_versions_are_counted_until_the_fate_is_known() {
    let mut bench = Bench::new();
    let position = bench.log(&[Change::Begin(TxId(1))]);
    let base = bench.stamp();
    bench.put(talea_model::Order::Pending(TxId(1)), inside(1, base, position), b"k", b"v");
    let pending = |bench: &mut Bench| {
        let head = bench.head(None, View::Latest);
        match bench.ask(head, Body::Stat { read_in_place: 0 }) {
            Some(Answer::Stat(stat)) => stat.pending_updates,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pending(&mut bench), 1);
    bench.log(&[Change::Abort(TxId(1))]);
    assert_eq!(pending(&mut bench), 0);
}
