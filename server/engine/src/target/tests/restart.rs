//! What a target keeps over a crash: what it acknowledged, its clock's ceiling, its horizon.

use std::sync::Arc;

use talea_model::{ContainerState, Extent, Fate, Order, PoolState, SessionId, Stamp, TxId, View};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition};

use super::bench::*;
use crate::target::PoolChange;

fn crash(bench: &Bench, back_us: u64) -> Bench {
    let mut n = 0u64;
    let survives = bench.medium.crash(&mut || {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        n >> 33
    });
    if let Some(share) = talea_tier::Medium::share(&bench.medium) {
        survives.share_as(share.inode);
    }
    let mut after = Bench::on(survives, bench.now.unix_us - back_us);
    // The clients did not restart.
    after.sequence = bench.sequence;
    after
}

#[test]
fn the_acknowledged_survives_and_later_stamps_are_above_what_was_served() {
    let mut bench = Bench::new();
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"one"), Some(Answer::Done));
    let served = snapshot(Stamp::from_unix_us(bench.now.unix_us + 500_000), bench.position);
    assert_eq!(bench.get(served, b"k"), value(b"one"));
    // The machine comes back with a clock that went backwards.
    let mut bench = crash(&bench, 5_000_000);
    assert!(!bench.recovered.fresh && !bench.recovered.lost);
    assert!(bench.recovered.ceiling >= Stamp::from_unix_us(START_US + 500_000));
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
        match bench.ask(head, Body::Locate { dkey: b"k", akey: b"a", extent: Extent { index: 0, count: u64::MAX } }) {
            Some(Answer::Located(located)) => located.generation,
            other => panic!("{other:?}"),
        }
    };
    let before = generation(&mut bench);
    assert_eq!(generation(&mut bench), before, "nothing was given back");
    // The clock went backwards meanwhile.
    let mut bench = crash(&bench, 5_000_000);
    assert!(generation(&mut bench) > before, "places from before the restart hold no longer");
}

const KEYS: u8 = 60;
const VALUE_BYTES: usize = 60_000;

/// Asks to write a large value.
fn write(bench: &mut Bench, key: u8, fill: u8) -> u64 {
    let extent = Extent::new(0, VALUE_BYTES as u64).unwrap();
    let head = talea_wire::data::request::Head { deadline_ms: 5000, ..bench.head(Some(AUTO), View::Latest) };
    bench.send(head, Body::Update(vec![array(&[key], extent, &vec![fill; VALUE_BYTES])]))
}

/// A target after a crash, all of whose free space was named to readers not long before; where these values lie.
fn restarted_under_readers() -> (Bench, Vec<u64>) {
    let mut bench = Bench::new();
    bench.medium.share_as(1);
    (0..KEYS).for_each(|key| _ = write(&mut bench, key, 1));
    bench.finish();
    bench.later_us(1000);
    let view = snapshot(bench.stamp(), bench.position);
    let mut places = Vec::new();
    for key in 0..KEYS {
        let head = bench.head(None, view);
        match bench.ask(head, Body::Locate { dkey: &[key], akey: b"a", extent: Extent { index: 0, count: u64::MAX } }) {
            Some(Answer::Located(located)) => places.extend(located.spans.iter().map(|span| span.offset)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(places.len(), KEYS as usize);
    // All of it is overwritten and given back, and a checkpoint says so: after a restart it is free.
    bench.later_us(1000);
    (0..KEYS).for_each(|key| _ = write(&mut bench, key, 2));
    bench.finish();
    let floor = Stamp(bench.stamp().0 + (1 << 20));
    bench.log(&[Change::Floor(RUN, floor)]);
    (0..1000).for_each(|_| _ = bench.finish());
    let held = bench.target.store().stats().leased_bytes;
    assert!(held >= u64::from(KEYS) * VALUE_BYTES as u64, "{held} bytes wait for the leases' end");
    let mut bench = crash(&bench, 0);
    bench.later_us(100_000);
    (bench, places)
}

/// Puts more of the pool's log into it than the rest of its segment holds: aborted transactions 1 to 5999.
fn overtake(bench: &mut Bench) {
    for tx in 1..6_000 {
        bench.log(&[Change::Begin(TxId(tx)), Change::Abort(TxId(tx))]);
    }
    assert!(bench.target.store().ledger().horizon() < bench.position, "all of it found room");
}

/// A reader of a process that is gone goes on for as long as its lease lasts: what it reads may lie in blocks that were given back
/// before the crash, and a restarted target knows of no lease.
#[test]
fn a_restarted_target_leaves_alone_what_readers_may_still_hold() {
    let (mut bench, places) = restarted_under_readers();
    let untouched = |bench: &Bench| {
        let image = bench.medium.image();
        places.iter().filter(|at| image[**at as usize..][..VALUE_BYTES].iter().all(|byte| *byte == 1)).count()
    };
    assert_eq!(untouched(&bench), places.len());
    // Writes wait, reads and the pool's log go on.
    let waiting: Vec<u64> = (0..KEYS).map(|key| write(&mut bench, 100 + key, 3)).collect();
    let mut answers = bench.finish();
    let served = bench.stamp();
    assert_eq!(bench.get(snapshot(served, bench.position), b"k"), nothing());
    // More of the log than the rest of its segment holds: it is caught up with when there is room.
    let reached = bench.position;
    overtake(&mut bench);
    assert!(bench.target.store().ledger().horizon() > reached);
    let turns = (0..1000).take_while(|_| {
        answers.extend(bench.finish());
        bench.target.next_deadline() == 0
    });
    assert!(turns.count() < 1000, "it goes on and on");
    let deadline_ns = bench.target.next_deadline();
    assert!((1..=1_250_000_001).contains(&deadline_ns), "{deadline_ns}: it sleeps until the leases have ended");
    answers.extend(bench.finish());
    bench.later_us(1_149_000);
    answers.extend(bench.finish());
    assert_eq!(answers.len(), 0, "not before the time");
    assert_eq!(untouched(&bench), places.len(), "what a reader may hold is as it was");
    bench.later_us(2_000);
    for _ in 0..200 {
        answers.extend(bench.finish());
    }
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!(answers, waiting.iter().map(|id| (*id, Answer::Done)).collect::<Vec<_>>());
    assert!(untouched(&bench) < places.len(), "the test sees blocks being used again");
    assert_eq!(bench.target.store().ledger().horizon(), bench.position);
}

/// What waits for room is overtaken by the pool's state, which stands for it, too.
#[test]
fn a_state_replaces_what_a_restarted_target_has_no_room_to_follow_yet() {
    let (mut bench, _) = restarted_under_readers();
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"kept"), Some(Answer::Done));
    // Whatever was read at stays: later writes go above.
    let kept = Stamp::from_unix_us(bench.now.unix_us + 900_000);
    assert_eq!(bench.get(snapshot(kept, bench.position), b"k"), value(b"kept"));
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"last"), Some(Answer::Done));
    overtake(&mut bench);
    let floor = Stamp(kept.0 + (1 << 20));
    let follow = |bench: &mut Bench, change: PoolChange| {
        bench.position.0 += 1;
        bench.target.follow(vec![change], bench.position).unwrap();
    };
    follow(&mut bench, PoolChange::Floor { container: RUN, floor, kept: vec![kept] });
    let state = PoolState {
        ceiling: floor,
        last_tx: TxId(6_001),
        closed: vec![(TxId(6_001), Fate::Aborted)],
        last_container: RUN,
        containers: vec![ContainerState { container: RUN, floor, kept: vec![kept] }],
        last_session: SessionId(1),
        sessions: vec![SessionId(1)],
        map: Some(map(1)),
        ..PoolState::default()
    };
    follow(&mut bench, PoolChange::State(Arc::new(state)));
    bench.later_us(1_300_000);
    (0..200).for_each(|_| _ = bench.finish());
    assert_eq!(bench.target.store().ledger().horizon(), bench.position);
    assert_eq!(bench.get(snapshot(kept, bench.position), b"k"), value(b"kept"), "the store was not told to keep it");
    assert_eq!(bench.get(snapshot(Stamp(kept.0 - 1), bench.position), b"k"), refused(RefusalCode::Retention));
    for tx in [3_000, 6_001] {
        let view = inside(tx, floor, bench.position);
        assert_eq!(
            bench.put(Order::Pending(TxId(tx)), view, b"z", b"late"),
            refused(RefusalCode::Closed),
            "zombie {tx}"
        );
    }
}
