//! Retention: what stays readable, and what the targets are told of it (rule 13).

use super::*;
use talea_wire::control::Waited;
use talea_wire::log::Lagging;

const RUN: ContainerId = ContainerId(1);

/// The floor that the last entry told the targets, with the kept stamps below it.
fn told(bench: &Bench) -> Option<(Stamp, Vec<Stamp>)> {
    bench.last.changes.iter().rev().find_map(|change| match change {
        TargetChange::Floor { container: RUN, floor, kept } => Some((*floor, kept.clone())),
        _ => None,
    })
}

fn subscribe(bench: &mut Bench, after: Option<u64>) -> Outcome {
    bench.put(Entry::Subscription { container: RUN, after: after.map(Step) })
}

#[test]
fn the_last_steps_stay_and_the_floor_never_goes_back() {
    let mut bench = Bench::new();
    let stamps: Vec<Stamp> = (0..5).map(|_| bench.step().stamp).collect();
    assert_eq!(told(&bench), Some((stamps[2], vec![])));
    assert_eq!(bench.snapshot(SnapshotAt::Step(Step(3))).unwrap().stamp, stamps[2]);
    assert_eq!(bench.snapshot(SnapshotAt::Step(Step(2))).unwrap_err().code, RefusalCode::Retention);
    assert_eq!(bench.snapshot(SnapshotAt::Step(Step(6))).unwrap_err().code, RefusalCode::NotFound);
    assert_eq!(bench.snapshot(SnapshotAt::Step(Step(0))).unwrap_err().code, RefusalCode::NotFound);
    let Some(Ok(Reply::Waited(waited))) = bench.pool.waited(RUN, Step(0), 9) else { panic!() };
    assert_eq!(waited, Waited::Gap { through: Step(2) });
}

#[test]
fn leases_names_and_bases_are_kept_below_the_floor_until_released() {
    let mut bench = Bench::new();
    let stamp = bench.step().stamp;
    let lease = bench.snapshot(SnapshotAt::Step(Step(1))).unwrap();
    bench.ok(Entry::SnapshotName { container: RUN, name: "first".into(), at: SnapshotAt::Step(Step(1)) });
    let base = bench.begin();
    for _ in 0..4 {
        bench.step();
    }
    let (floor, kept) = told(&bench).unwrap();
    assert_eq!(kept, vec![stamp, base.base]);
    assert!(floor > base.base);
    assert_eq!(bench.snapshot(SnapshotAt::Named("first".into())).unwrap().stamp, stamp, "a new lease on a kept stamp");

    bench.ok(Entry::Abort { tx: base.tx, reason: "x".into() });
    assert_eq!(told(&bench), Some((floor, vec![stamp])));
    bench.ok(Entry::SnapshotClose { lease: lease.lease });
    assert_eq!(told(&bench), None, "others still need it");
    assert_eq!(bench.refused(Entry::SnapshotClose { lease: lease.lease }), RefusalCode::NotFound);
    bench.ok(Entry::SnapshotDestroy { container: RUN, name: "first".into() });
    let session = bench.session;
    bench.ok_as(SessionId(0), end(session, &[]));
    assert_eq!(told(&bench), Some((floor, vec![])), "the session's end ended its lease");
}

#[test]
fn a_subscription_holds_what_it_has_not_received() {
    let mut bench = Bench::new();
    bench.step();
    subscribe(&mut bench, Some(0)).unwrap();
    for _ in 0..6 {
        bench.step();
    }
    let Some(Ok(Reply::Waited(Waited::Steps { steps, latest }))) = bench.pool.waited(RUN, Step(0), 100) else {
        panic!()
    };
    assert_eq!(steps.iter().map(|record| record.step.0).collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
    assert_eq!(latest, Step(7));
    subscribe(&mut bench, Some(3)).unwrap();
    assert_eq!(told(&bench).unwrap().0, steps[3].stamp);
    assert_eq!(subscribe(&mut bench, Some(2)).unwrap_err().code, RefusalCode::Retention);
    assert_eq!(subscribe(&mut bench, Some(8)).unwrap_err().code, RefusalCode::Argument);
    subscribe(&mut bench, None).unwrap();
    assert_eq!(told(&bench).unwrap().0, steps[4].stamp, "the container's own three remain");
}

#[test]
fn a_container_of_autocommits_does_not_grow_for_ever() {
    let mut bench = Bench::new();
    let first = bench.snapshot(SnapshotAt::Latest).unwrap();
    assert_eq!(told(&bench), Some((first.stamp, vec![])));
    let second = bench.snapshot(SnapshotAt::Latest).unwrap();
    assert_eq!(told(&bench), Some((second.stamp, vec![first.stamp])));
    bench.ok(Entry::SnapshotClose { lease: first.lease });
    assert_eq!(told(&bench), Some((second.stamp, vec![])));
}

/// The bench's container with another policy.
fn lagging(bench: &mut Bench, lagging: Lagging) {
    bench.pool.container_mut(RUN).unwrap().properties.lagging = lagging;
}

#[test]
fn a_container_that_drops_keeps_nothing_for_a_follower() {
    let mut bench = Bench::new();
    lagging(&mut bench, Lagging::Drop);
    subscribe(&mut bench, Some(0)).unwrap();
    let stamps: Vec<Stamp> = (0..5).map(|_| bench.step().stamp).collect();
    assert_eq!(told(&bench), Some((stamps[2], vec![])));
    let Some(Ok(Reply::Waited(waited))) = bench.pool.waited(RUN, Step(0), 9) else { panic!() };
    assert_eq!(waited, Waited::Gap { through: Step(2) });
}

#[test]
fn a_container_that_blocks_holds_its_producer_up_until_the_follower_moves_or_goes() {
    let mut bench = Bench::new();
    lagging(&mut bench, Lagging::Block);
    let wrote = bench.touched(&[0]);
    let tx = bench.begin().tx;
    assert_eq!(bench.pool.held_up(tx, &wrote), None, "nobody follows");
    bench.ok(Entry::Abort { tx, reason: "x".into() });
    subscribe(&mut bench, Some(0)).unwrap();
    for _ in 0..3 {
        let tx = bench.begin().tx;
        assert_eq!(bench.pool.held_up(tx, &wrote), None, "three steps are kept");
        bench.commit(tx, wrote.clone()).unwrap();
    }
    let tx = bench.begin().tx;
    let refusal = bench.pool.held_up(tx, &wrote).unwrap();
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert_eq!(bench.pool.held_up(tx, &Summary::default()), None, "a commit that makes no step waits for nobody");
    assert_eq!(bench.pool.held_up(tx, &Summary { failed: true, ..wrote.clone() }), None, "nor does one that fails");
    subscribe(&mut bench, Some(1)).unwrap();
    assert_eq!(bench.pool.held_up(tx, &wrote), None, "the follower has moved on");
    bench.commit(tx, wrote.clone()).unwrap();
    let tx = bench.begin().tx;
    assert!(bench.pool.held_up(tx, &wrote).is_some());
    subscribe(&mut bench, None).unwrap();
    assert_eq!(bench.pool.held_up(tx, &wrote), None, "the follower has gone");
}
