//! A target that gets the pool's state in the place of records: it must answer as one that was told each of them.

use std::sync::Arc;

use talea_model::{
    ContainerId, ContainerState, Extent, Fate, Order, PoolState, Position, SessionId, Stamp, TxId, View,
};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition};

use super::bench::*;
use crate::Fatal;
use crate::target::PoolChange;

const OTHER: ContainerId = ContainerId(2);

/// What happens in the gap, as records.
struct Gap {
    changes: Vec<PoolChange>,
    state: PoolState,
    end: Position,
    /// A kept stamp below the floor.
    kept: Stamp,
}

/// Before the gap: transactions 1 to 3 have begun, all have written; 4 has written too, and the target has not heard of it.
/// 5 writes only when it is over. The gap commits 1, 4 and 6, aborts 2, 5 and 7, and 3 stays open.
fn before(bench: &mut Bench) -> (Stamp, Position) {
    let position = bench.log(&[Change::Begin(TxId(1)), Change::Begin(TxId(2)), Change::Begin(TxId(3))]);
    bench.put(AUTO, View::Latest, b"old", b"one");
    bench.later_us(10);
    let base = bench.stamp();
    for tx in 1..=4 {
        let key = format!("tx{tx}");
        let put = bench.put(Order::Pending(TxId(tx)), inside(tx, base, position), key.as_bytes(), b"written");
        assert_eq!(put, Some(Answer::Done), "{tx}");
    }
    bench.put(AUTO, View::Latest, b"old", b"two");
    bench.up(2);
    (base, position)
}

fn gap(bench: &mut Bench, base: Stamp) -> Gap {
    bench.later_us(1_000);
    let at = |n: u64| Stamp(bench.stamp().0 + n);
    let store = |change| PoolChange::Store(change);
    let (first, fourth, sixth, floor) = (at(1), at(2), at(3), at(4));
    let mut changes: Vec<PoolChange> = (4..=7).map(|tx| store(Change::Begin(TxId(tx)))).collect();
    changes.extend([
        store(Change::Commit(TxId(1), first)),
        store(Change::Abort(TxId(2))),
        store(Change::Commit(TxId(4), fourth)),
        store(Change::Abort(TxId(5))),
        store(Change::Commit(TxId(6), sixth)),
        store(Change::Abort(TxId(7))),
        store(Change::EndSession(SessionId(2))),
        PoolChange::Container(ContainerId(3)),
        store(Change::DestroyContainer(OTHER)),
        PoolChange::Floor { container: RUN, floor, kept: vec![base] },
        PoolChange::Map(Arc::new(map(2))),
    ]);
    let closed = vec![
        (TxId(1), Fate::Committed(first)),
        (TxId(2), Fate::Aborted),
        (TxId(4), Fate::Committed(fourth)),
        (TxId(5), Fate::Aborted),
        (TxId(6), Fate::Committed(sixth)),
        (TxId(7), Fate::Aborted),
    ];
    let known = |container, floor, kept| ContainerState { container, floor, kept };
    let state = PoolState {
        ceiling: at(5),
        last_tx: TxId(7),
        open: vec![TxId(3)],
        closed,
        last_container: ContainerId(3),
        containers: vec![known(RUN, floor, vec![base]), known(ContainerId(3), Stamp::ZERO, vec![])],
        lost: vec![],
        last_session: SessionId(2),
        sessions: vec![SessionId(1)],
        map: Some(map(2)),
    };
    Gap { changes, state, end: Position(bench.position.0 + 10), kept: base }
}

/// All that can be seen of a target after the gap.
fn seen(bench: &mut Bench, gap: &Gap) -> Vec<Option<Answer>> {
    bench.map = map(2);
    bench.later_us(10);
    let mut seen = Vec::new();
    let now = snapshot(Stamp(gap.state.ceiling.0), gap.end);
    for view in [now, snapshot(gap.kept, gap.end), View::Latest, snapshot(Stamp(gap.kept.0 - 1), gap.end)] {
        for key in [&b"old"[..], b"tx1", b"tx2", b"tx3", b"tx4"] {
            seen.push(bench.get(view, key));
        }
    }
    // Zombies of every kind, and one that may go on.
    for tx in 1..=8 {
        let inside = inside(tx, gap.kept, gap.end);
        seen.push(bench.put(Order::Pending(TxId(tx)), inside, format!("late{tx}").as_bytes(), b"late"));
    }
    for container in [OTHER, ContainerId(3), RUN] {
        let mut head = bench.head(None, now);
        head.container = container;
        let asked = bench.ask(head, Body::Fetch(vec![single(b"old", &[], Condition::None)]));
        seen.push(asked);
    }
    let mut head = bench.head(None, now);
    head.session = SessionId(2);
    seen.push(bench.ask(head, Body::Fetch(vec![single(b"old", &[], Condition::None)])));
    seen
}

fn run(told_all: bool, restarts: bool) -> Vec<Option<Answer>> {
    let mut bench = Bench::new();
    bench.target.set_containers([OTHER]);
    let mut head = bench.head(Some(AUTO), View::Latest);
    head.container = OTHER;
    let extent = Extent::new(0, 3).unwrap();
    assert_eq!(bench.ask(head, Body::Update(vec![array(b"k", extent, b"abc")])), Some(Answer::Done));
    let (base, _) = before(&mut bench);
    let gap = gap(&mut bench, base);
    let changes = if told_all { gap.changes.clone() } else { vec![PoolChange::State(Arc::new(gap.state.clone()))] };
    if restarts {
        let sequence = bench.sequence;
        bench.finish();
        let mut n = 0u64;
        let survives = bench.medium.crash(&mut || {
            n += 7;
            n
        });
        bench = Bench::on(survives, bench.now.unix_us);
        bench.target.set_containers([OTHER]);
        bench.sequence = sequence;
        bench.up(2);
    }
    bench.target.follow(changes, gap.end).unwrap();
    bench.position = gap.end;
    bench.finish();
    let mut seen = seen(&mut bench, &gap);
    let stat = bench.target.store().ledger().open().collect::<Vec<_>>();
    assert_eq!(stat, [TxId(3)]);
    // A stamp that is given now is above all that the log has issued.
    let put = bench.put(AUTO, View::Latest, b"new", b"new");
    seen.push(put);
    let issued = snapshot(Stamp(gap.state.ceiling.0 + 1), gap.end);
    seen.push(bench.get(issued, b"new"));
    seen
}

#[test]
fn it_answers_as_one_that_was_told_every_record() {
    for restarts in [false, true] {
        let (all, state) = (run(true, restarts), run(false, restarts));
        assert_eq!(all, state, "restarted: {restarts}");
        // And what they say is right.
        assert_eq!(state[0], value(b"two"));
        assert_eq!((&state[1], &state[2], &state[4]), (&value(b"written"), &nothing(), &value(b"written")));
        assert_eq!((&state[5], &state[6]), (&value(b"one"), &nothing()), "the kept stamp");
        assert_eq!(state[15], refused(RefusalCode::Retention), "below the floor and not kept");
        let late: Vec<bool> = state[20..28].iter().map(|answer| *answer == Some(Answer::Done)).collect();
        assert_eq!(late, [false, false, true, false, false, false, false, true], "zombies, the open one, a new one");
        assert_eq!(state[31], refused(RefusalCode::SessionExpired));
    }
}

#[test]
fn a_kept_stamp_that_ends_in_the_gap_keeps_nothing_any_more() {
    let mut bench = Bench::new();
    let (base, _) = before(&mut bench);
    let mut gap = gap(&mut bench, base);
    let lower = Stamp(gap.state.containers[0].floor.0 - 1);
    let first = vec![PoolChange::Floor { container: RUN, floor: lower, kept: vec![base] }];
    let position = Position(bench.position.0 + 1);
    bench.target.follow(first, position).unwrap();
    assert_eq!(bench.get(snapshot(base, position), b"old"), value(b"one"));
    // Also one that an earlier process of this server was told to keep.
    bench.finish();
    let mut bench = Bench::on(bench.medium.crash(&mut || 1), bench.now.unix_us);
    gap.state.containers[0].kept.clear();
    bench.target.follow(vec![PoolChange::State(Arc::new(gap.state.clone()))], gap.end).unwrap();
    bench.map = map(2);
    assert_eq!(bench.get(snapshot(base, gap.end), b"old"), refused(RefusalCode::Retention));
}

#[test]
fn a_state_that_is_older_than_what_the_target_knows_changes_nothing() {
    let mut bench = Bench::new();
    let (base, position) = before(&mut bench);
    let gap = gap(&mut bench, base);
    bench.target.follow(gap.changes.clone(), gap.end).unwrap();
    let old = PoolState { open: vec![TxId(1)], last_tx: TxId(1), map: Some(map(1)), ..PoolState::default() };
    bench.target.follow(vec![PoolChange::State(Arc::new(old))], position).unwrap();
    bench.position = gap.end;
    assert_eq!(bench.target.store().ledger().horizon(), gap.end);
    let seen = seen(&mut bench, &gap);
    assert_eq!((&seen[1], &seen[5]), (&value(b"written"), &value(b"one")), "its kept stamp is kept");
}

#[test]
fn a_fate_that_nobody_knows_any_more_is_not_guessed() {
    let mut bench = Bench::new();
    let (base, _) = before(&mut bench);
    let mut gap = gap(&mut bench, base);
    gap.state.closed.retain(|(tx, _)| tx.0 > 4);
    let told = bench.target.follow(vec![PoolChange::State(Arc::new(gap.state))], gap.end);
    assert!(matches!(told, Err(Fatal::Behind { tx: TxId(1), .. })), "{told:?}");
}
