//! Who waits for the log, who does not, and for how long.

use talea_model::{Extent, Order, Position, Stamp, TxId, View};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition, EnumerateKind, QueryKind, ValueKind};

use super::bench::*;
use crate::Effect;

const TX: Order = Order::Pending(TxId(1));

/// A target with transaction 1 open and a pending version of it under "k", over an autocommitted "old".
fn with_pending() -> (Bench, View) {
    let mut bench = Bench::new();
    bench.put(AUTO, View::Latest, b"k", b"old");
    bench.later_us(10);
    let position = bench.log(&[Change::Begin(TxId(1))]);
    let view = inside(1, bench.stamp(), position);
    assert_eq!(bench.put(TX, view, b"k", b"new"), Some(Answer::Done));
    bench.effects();
    (bench, view)
}

#[test]
fn a_snapshot_is_served_when_the_horizon_has_reached_it_and_not_before() {
    let (mut bench, _) = with_pending();
    bench.later_us(10);
    // The pool committed at C, then issued S; both are still on their way here.
    let commit = bench.stamp();
    let issued = Position(bench.position.0 + 2);
    let view = snapshot(commit.next(), issued);
    assert_eq!(bench.get(view, b"k"), None);
    assert_eq!(bench.target.parked(), 1);
    assert_eq!(bench.effects(), vec![Effect::CatchUp { position: issued }]);
    bench.log(&[Change::Commit(TxId(1), commit)]);
    assert!(bench.finish().is_empty(), "the horizon is still below the position");
    bench.log(&[]);
    let answers = bench.finish();
    assert_eq!(answers.len(), 1);
    assert_eq!(Some(answers[0].1.clone()), value(b"new"));
    assert_eq!(bench.target.parked(), 0);
    assert!(bench.effects().contains(&Effect::Durable { horizon: issued }));
}

#[test]
fn a_snapshot_before_the_commit_never_changes() {
    let (mut bench, _) = with_pending();
    let before = snapshot(bench.stamp(), bench.position);
    assert_eq!(bench.get(before, b"k"), value(b"old"));
    bench.later_us(10);
    let commit = bench.stamp();
    bench.log(&[Change::Commit(TxId(1), commit)]);
    assert_eq!(bench.get(before, b"k"), value(b"old"));
    assert_eq!(bench.get(snapshot(commit, bench.position), b"k"), value(b"new"));
    // An autocommit after a served snapshot is never below it.
    let ahead = Stamp::from_unix_us(bench.now.unix_us + 3_000_000);
    assert_eq!(bench.get(snapshot(ahead, bench.position), b"k"), value(b"new"));
    bench.put(AUTO, View::Latest, b"k", b"newest");
    assert_eq!(bench.get(snapshot(ahead, bench.position), b"k"), value(b"new"));
    assert_eq!(bench.get(View::Latest, b"k"), value(b"newest"));
}

#[test]
fn latest_reads_learn_the_fate_of_what_they_meet_but_never_wait_for_the_writer() {
    let (mut bench, _) = with_pending();
    // Still open at the log's end: the old value, without waiting for the transaction.
    assert_eq!(bench.get(View::Latest, b"k"), None);
    let end = bench.position;
    bench.answer_log_end(end);
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), value(b"old"));
    // What it does not meet costs it nothing.
    assert_eq!(bench.get(View::Latest, b"other"), nothing());
    // Committed at the log's end, but that is still on its way here.
    assert_eq!(bench.get(View::Latest, b"k"), None);
    let end = Position(bench.position.0 + 1);
    bench.answer_log_end(end);
    assert!(bench.finish().is_empty());
    let commit = bench.stamp();
    bench.log(&[Change::Commit(TxId(1), commit)]);
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), value(b"new"));
}

#[test]
fn who_comes_while_the_end_is_asked_for_needs_a_later_answer() {
    let (mut bench, _) = with_pending();
    assert_eq!(bench.get(View::Latest, b"k"), None);
    // The leader has read its end; the transaction commits; only then the second read arrives.
    let first_end = bench.position;
    assert_eq!(bench.get(View::Latest, b"k"), None);
    bench.answer_log_end(first_end);
    assert_eq!(bench.finish().len(), 1, "the second read must not be served by the first answer");
    bench.answer_log_end(Position(first_end.0 + 1));
    let commit = bench.stamp();
    bench.log(&[Change::Commit(TxId(1), commit)]);
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), value(b"new"));
}

#[test]
fn listings_and_queries_meet_pending_versions_too() {
    for which in 0..4 {
        let (mut bench, _) = with_pending();
        let head = bench.head(None, View::Latest);
        let enumerate = |kind, dkey| Body::Enumerate { kind, dkey, akey: b"", after: b"", limit: 10 };
        let body = match which {
            0 => enumerate(EnumerateKind::Dkeys, b""),
            1 => enumerate(EnumerateKind::Objects, b""),
            2 => enumerate(EnumerateKind::Akeys, b"k"),
            _ => Body::Query { kind: QueryKind::MaxDkey, dkey: b"", akey: b"" },
        };
        assert_eq!(bench.ask(head, body), None, "kind {which}");
        let end = bench.position;
        bench.answer_log_end(end);
        assert_eq!(bench.finish().len(), 1);
    }
}

#[test]
fn an_autocommit_that_overlaps_learns_the_fate_first_and_is_above_it() {
    let (mut bench, _) = with_pending();
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"auto"), None);
    let end = Position(bench.position.0 + 1);
    bench.answer_log_end(end);
    // C is ahead of this target's clock.
    let commit = Stamp::from_unix_us(bench.now.unix_us + 2_000_000);
    bench.log(&[Change::Commit(TxId(1), commit)]);
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), Some(Answer::Done));
    assert_eq!(bench.get(View::Latest, b"k"), value(b"auto"), "the last commit wins");
    assert_eq!(bench.get(snapshot(commit, bench.position), b"k"), value(b"new"));
}

#[test]
fn plain_writes_of_a_transaction_wait_for_nothing_but_conditions_wait_for_the_base() {
    let mut bench = Bench::new();
    // Begun at a position that is still on its way here.
    let view = inside(1, bench.stamp(), Position(5));
    assert_eq!(bench.put(TX, view, b"k", b"v"), Some(Answer::Done));
    let head = bench.head(Some(TX), view);
    assert_eq!(bench.ask(head, Body::Update(vec![single(b"c", b"v", Condition::Insert)])), None);
    let head = bench.head(Some(TX), view);
    let mut largest = single(b"m", b"00000001", Condition::None);
    largest.kind = ValueKind::SingleMax;
    assert_eq!(bench.ask(head, Body::Update(vec![largest])), None);
    bench.target.follow(vec![crate::PoolChange::Store(Change::Begin(TxId(1)))], Position(5)).unwrap();
    let answers = bench.finish();
    assert_eq!(answers.iter().map(|(_, answer)| answer.clone()).collect::<Vec<_>>(), [Answer::Done, Answer::Done]);
    assert_eq!(bench.get(view, b"k"), value(b"v"), "readers inside see their own writes");
}

#[test]
fn zombies_are_refused() {
    let (mut bench, view) = with_pending();
    bench.log(&[Change::Abort(TxId(1))]);
    assert_eq!(bench.put(TX, view, b"k", b"late"), refused(RefusalCode::Closed));
    let tied = Order::Auto { tied: Some(TxId(1)) };
    assert_eq!(bench.put(tied, View::Latest, b"name", b"late"), refused(RefusalCode::Closed));
    assert_eq!(bench.get(View::Latest, b"k"), value(b"old"));
}

#[test]
fn what_waits_too_long_is_answered_at_its_deadline() {
    let (mut bench, _) = with_pending();
    assert_eq!(bench.get(View::Latest, b"k"), None);
    let deadline = bench.target.next_deadline();
    assert!(deadline <= bench.now.monotonic_ns + 1_000_000_000);
    bench.later_us(999_000);
    assert!(bench.finish().is_empty());
    bench.later_us(2_000);
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), refused(RefusalCode::Deadline));
    assert_eq!(bench.target.parked(), 0);
}

#[test]
fn a_lost_question_for_the_end_is_asked_again() {
    let (mut bench, _) = with_pending();
    let mut head = bench.head(None, View::Latest);
    head.deadline_ms = 10_000;
    assert_eq!(bench.ask(head, Body::Fetch(vec![single(b"k", &[], Condition::None)])), None);
    assert_eq!(bench.effects().len(), 1);
    bench.later_us(1_000_000);
    bench.finish();
    let end = bench.position;
    bench.answer_log_end(end);
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), value(b"old"));
}

#[test]
fn what_a_vanished_peer_waited_for_is_forgotten() {
    let (mut bench, _) = with_pending();
    assert_eq!(bench.get(View::Latest, b"k"), None);
    bench.target.peer_down(talea_fabric::PeerId(1), &mut bench.out);
    assert_eq!(bench.target.parked(), 0);
    let end = bench.position;
    bench.answer_log_end(end);
    assert!(bench.finish().is_empty());
}

#[test]
fn arrays_inside_and_outside() {
    let mut bench = Bench::new();
    let position = bench.log(&[Change::Begin(TxId(1))]);
    let view = inside(1, bench.stamp(), position);
    let extent = Extent::new(0, 4).unwrap();
    let head = bench.head(Some(TX), view);
    assert_eq!(bench.ask(head, Body::Update(vec![array(b"d", extent, b"abcd")])), Some(Answer::Done));
    let head = bench.head(None, view);
    let query = || Body::Query { kind: QueryKind::ArrayEnd, dkey: b"d", akey: b"a" };
    assert_eq!(bench.ask(head, query()), Some(Answer::Numbers(1, 4)));
    let before = snapshot(bench.stamp(), position);
    let head = bench.head(None, before);
    assert_eq!(bench.ask(head, query()), Some(Answer::Numbers(0, 0)));
    bench.later_us(10);
    let commit = bench.stamp();
    bench.log(&[Change::Commit(TxId(1), commit)]);
    let head = bench.head(None, snapshot(commit, bench.position));
    let body = Body::Enumerate { kind: EnumerateKind::Extents, dkey: b"d", akey: b"a", after: b"", limit: 10 };
    let name = [0u64.to_be_bytes(), 4u64.to_be_bytes()].concat();
    assert_eq!(bench.ask(head, body), Some(Answer::Names(vec![name], false)));
}
