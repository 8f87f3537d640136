//! Stamps, fates, sessions, the producer's word.

use super::*;
use talea_model::{Cause, Fate};
use talea_wire::control::Waited;
use talea_wire::log::ProducerState;

const RUN: ContainerId = ContainerId(1);

#[test]
fn rule_2_stamps_are_above_all_issued_ones_whatever_was_proposed() {
    let mut bench = Bench::new();
    let tx = bench.begin().tx;
    bench.proposed = Stamp(1_000_000);
    let snapshot = bench.snapshot(SnapshotAt::Latest).unwrap();
    assert!(snapshot.stamp >= Stamp(1_000_000), "a snapshot includes what its asker was told of");
    bench.proposed = Stamp(5);
    let summary = bench.touched(&[0]);
    let committed = bench.commit(tx, summary).unwrap();
    assert_eq!(committed.stamp, snapshot.stamp.next(), "C = ceiling + 1 when the proposal is lower");
    let later = bench.snapshot(SnapshotAt::Latest).unwrap();
    assert!(later.stamp > committed.stamp);
    assert_eq!(later.step, Step(1));
}

#[test]
fn rule_5_a_commit_is_a_step_and_the_first_fate_wins() {
    let mut bench = Bench::new();
    let begun = bench.begin();
    assert_eq!(
        bench.last.changes,
        vec![
            TargetChange::Begin { tx: begun.tx, container: RUN },
            TargetChange::Floor { container: RUN, floor: begun.base, kept: vec![] },
        ]
    );
    let summary = bench.touched(&[0, 3]);
    let committed = bench.commit(begun.tx, summary.clone()).unwrap();
    assert_eq!((committed.step, committed.made_step), (Step(1), true));
    assert!(bench.last.changes.contains(&TargetChange::Commit { tx: begun.tx, stamp: committed.stamp }));
    assert_eq!(bench.last.touched, vec![RUN]);
    assert_eq!(bench.commit(begun.tx, summary).unwrap_err().code, RefusalCode::Closed);
    assert_eq!(bench.refused(Entry::Abort { tx: begun.tx, reason: "late".into() }), RefusalCode::Closed);
    assert_eq!(bench.pool.fate(begun.tx), Some(Fate::Committed(committed.stamp)));

    let tx = bench.begin().tx;
    bench.ok(Entry::Abort { tx, reason: "no more".into() });
    assert_eq!(bench.last.changes[0], TargetChange::Abort { tx });
    bench.ok(Entry::Abort { tx, reason: "again".into() });
    assert!(bench.last.changes.is_empty());
    let summary = bench.touched(&[0]);
    let refusal = bench.commit(tx, summary).unwrap_err();
    assert!(refusal.code == RefusalCode::Closed && refusal.text.contains("no more"), "{refusal}");
    assert_eq!(bench.step().step, Step(2), "an aborted epoch leaves no hole in the steps");
    assert_eq!(bench.refused(Entry::Abort { tx: TxId(99), reason: String::new() }), RefusalCode::NotFound);
}

#[test]
fn rule_5_without_updates_no_step() {
    let mut bench = Bench::new();
    bench.step();
    let tx = bench.begin().tx;
    let committed = bench.commit(tx, Summary::default()).unwrap();
    assert_eq!((committed.step, committed.made_step), (Step(1), false));
    let Reply::Begun(begun) = bench.ok(Entry::Begin { container: RUN, collective: false }) else { panic!() };
    let summary = bench.touched(&[0]);
    let committed = bench.commit(begun.tx, summary).unwrap();
    assert_eq!((committed.step, committed.made_step), (Step(1), false), "only collective epochs make steps");
}

#[test]
fn rule_5_a_commit_refused_for_an_update_says_why_that_failed() {
    let mut bench = Bench::new();
    let fail = |bench: &mut Bench, causes: &[Cause]| {
        let tx = bench.begin().tx;
        let mut summary = bench.touched(&[0]);
        causes.iter().for_each(|cause| summary.merge(&Summary { failed: true, cause: *cause, ..Summary::default() }));
        let refusal = bench.commit(tx, summary).unwrap_err();
        assert_eq!(bench.pool.fate(tx), Some(Fate::Aborted));
        (refusal.code, refusal.text)
    };
    let (code, text) = fail(&mut bench, &[Cause::Lost(Some(ServerId(1))), Cause::Full, Cause::Other]);
    assert!(code == RefusalCode::ServerLost && text.contains("server 1 was lost"), "{text}");
    let (code, text) = fail(&mut bench, &[Cause::Other, Cause::Full]);
    assert!(code == RefusalCode::NoSpace && text.contains("a target is full"), "{text}");
    let (code, _) = fail(&mut bench, &[Cause::Other]);
    assert_eq!(code, RefusalCode::Closed);
    // Who met it did not know which server it was; the pool does.
    bench.ok(Entry::Targets { targets: vec![TargetId(0)], state: TargetState::Down });
    let (code, text) = fail(&mut bench, &[Cause::Lost(None)]);
    assert!(code == RefusalCode::ServerLost && text.contains("server 0 was lost"), "{text}");
}

#[test]
fn rule_5_a_failed_update_or_lost_target_fails_the_commit_and_aborts() {
    let mut bench = Bench::new();
    let tx = bench.begin().tx;
    let summary = Summary { failed: true, ..bench.touched(&[0]) };
    assert_eq!(bench.commit(tx, summary).unwrap_err().code, RefusalCode::Closed);
    assert_eq!(bench.pool.fate(tx), Some(Fate::Aborted));

    let before = bench.touched(&[0]);
    bench.ok(Entry::Targets { targets: vec![TargetId(0)], state: TargetState::Down });
    let tx = bench.begin().tx;
    assert_eq!(bench.commit(tx, before.clone()).unwrap_err().code, RefusalCode::ServerLost, "down now");
    bench.ok(Entry::ServerUp {
        server: server(0),
        targets: vec![target(0, 0, 1), target(1, 0, 1)],
        boot: 1,
        remembers: true,
    });
    let tx = bench.begin().tx;
    bench.commit(tx, before.clone()).unwrap();
    bench.ok(Entry::ServerUp {
        server: server(0),
        targets: vec![target(0, 0, 2), target(1, 0, 1)],
        boot: 1,
        remembers: true,
    });
    let tx = bench.begin().tx;
    assert_eq!(bench.commit(tx, before).unwrap_err().code, RefusalCode::ServerLost, "what it held is gone");
    let tx = bench.begin().tx;
    let now = bench.touched(&[0, 1]);
    bench.commit(tx, now).unwrap();
}

#[test]
fn rule_12_a_lost_server_takes_nothing_with_it_until_its_sessions_end() {
    let mut bench = Bench::new();
    let writer = bench.open_session(1);
    let tx = bench.begin().tx;
    bench.ok(Entry::Targets { targets: vec![TargetId(2), TargetId(3)], state: TargetState::Down });
    let later = bench.begin().tx;
    assert_eq!([tx, later].map(|tx| bench.pool.fate(tx)), [Some(Fate::Open); 2]);
    let mut other = bench.pool.clone();
    // It stays away: nobody else knows what that session had joined.
    bench.put(end(writer, &[])).unwrap();
    assert_eq!([tx, later].map(|tx| bench.pool.fate(tx)), [Some(Fate::Aborted), Some(Fate::Open)]);
    // It comes back, with another process that has its notes: it knows.
    std::mem::swap(&mut bench.pool, &mut other);
    let targets = vec![target(2, 1, 1), target(3, 1, 1)];
    let version = bench.pool.map().unwrap().version;
    bench.ok(Entry::ServerUp { server: server(1), targets: targets.clone(), boot: 2, remembers: true });
    assert!(bench.pool.map().unwrap().version > version);
    bench.put(end(writer, &[later])).unwrap();
    assert_eq!([tx, later].map(|tx| bench.pool.fate(tx)), [Some(Fate::Open), Some(Fate::Aborted)]);
    // The map is another one even if all is where it was: what was prepared in the process before is not (rule 15).
    let version = bench.pool.map().unwrap().version;
    bench.ok(Entry::ServerUp { server: server(1), targets: targets.clone(), boot: 3, remembers: true });
    assert!(bench.pool.map().unwrap().version > version && bench.pool.fate(tx) == Some(Fate::Open));
    bench.ok(Entry::ServerUp { server: server(1), targets, boot: 4, remembers: false });
    assert_eq!(bench.pool.fate(tx), Some(Fate::Aborted), "without its notes any writer may be lost");
}

#[test]
fn a_new_incarnation_aborts_what_is_open_and_a_mere_return_does_not() {
    let mut bench = Bench::new();
    let tx = bench.begin().tx;
    let version = bench.pool.map().unwrap().version;
    bench.ok(Entry::ServerUp {
        server: server(1),
        targets: vec![target(2, 1, 1), target(3, 1, 1)],
        boot: 1,
        remembers: true,
    });
    assert_eq!(bench.pool.fate(tx), Some(Fate::Open));
    assert_eq!(bench.pool.map().unwrap().version, version, "nothing changed");
    bench.ok(Entry::ServerUp {
        server: server(1),
        targets: vec![target(2, 1, 2), target(3, 1, 2)],
        boot: 1,
        remembers: true,
    });
    assert_eq!(bench.pool.fate(tx), Some(Fate::Aborted));
    let map: &PoolMap = bench.pool.map().unwrap();
    assert_eq!(map.version, MapVersion(version.0 + 1));
    assert_eq!(map.stamp, bench.pool.ceiling(), "a map entry takes a stamp");
    assert!(matches!(bench.last.changes[0], TargetChange::Map(_)), "known before the aborts that follow from it");
    let foreign = Entry::ServerUp { server: server(1), targets: vec![target(0, 1, 1)], boot: 1, remembers: true };
    assert_eq!(bench.refused(foreign), RefusalCode::Unsupported);
}

#[test]
fn commit_with_next_begins_in_the_same_entry_also_when_it_fails() {
    let mut bench = Bench::new();
    let tx = bench.begin().tx;
    let summary = bench.touched(&[0]);
    let Reply::Committed(committed) = bench.ok(commit(tx, summary.clone(), true)) else { panic!() };
    let next = committed.next.unwrap();
    assert_eq!((next.base_step, next.position), (Step(1), committed.position));
    assert!(next.base > committed.stamp, "the next epoch sees this one");

    let failed = Summary { failed: true, ..summary.clone() };
    let Reply::CommitFailed { refusal, next } = bench.ok(commit(next.tx, failed, true)) else { panic!() };
    assert_eq!(refusal.code, RefusalCode::Closed);
    assert_eq!(bench.pool.fate(next.tx), Some(Fate::Open));

    bench.ok(Entry::Abort { tx: next.tx, reason: "somebody was faster".to_owned() });
    let reply = bench.ok(commit(next.tx, summary, true));
    let Reply::CommitFailed { next, .. } = reply else { panic!("aborted before: {reply:?}") };
    assert_eq!(bench.pool.fate(next.tx), Some(Fate::Open));
}

#[test]
fn rule_12_a_session_that_ends_aborts_what_it_began_or_joined() {
    let mut bench = Bench::new();
    let writer = bench.open_session(1);
    let Reply::Begun(own) = bench.ok_as(writer, Entry::Begin { container: RUN, collective: true }) else { panic!() };
    let joined = bench.begin().tx;
    let other = bench.begin().tx;
    bench.put(end(writer, &[joined])).unwrap();
    assert_eq!(bench.last.ended, vec![writer]);
    let fates = [own.tx, joined, other].map(|tx| bench.pool.fate(tx));
    assert_eq!(fates, [Some(Fate::Aborted), Some(Fate::Aborted), Some(Fate::Open)]);
    let record = bench.record(writer, 9, Entry::Begin { container: RUN, collective: true });
    assert_eq!(bench.apply(&record).unwrap_err().code, RefusalCode::SessionExpired);
    assert_eq!(bench.pool.open_transactions(), 1);
    bench.put(end(writer, &[other])).unwrap();
    assert_eq!(bench.pool.fate(other), Some(Fate::Aborted), "also when the session is known no more");
}

#[test]
fn rule_14_a_request_sent_again_has_the_same_result_and_no_effect() {
    let mut bench = Bench::new();
    let first = bench.record(bench.session, 5, Entry::Begin { container: RUN, collective: true });
    let result = bench.apply(&first).unwrap();
    let again = bench.record(bench.session, 5, Entry::Begin { container: RUN, collective: true });
    assert_eq!(bench.apply(&again).unwrap(), result);
    assert!(bench.last.changes.is_empty());
    assert_eq!(bench.pool.open_transactions(), 1);

    let refused = bench.record(bench.session, 6, Entry::Begin { container: ContainerId(9), collective: true });
    assert_eq!(bench.apply(&refused).unwrap_err().code, RefusalCode::NoContainer);
    for sequence in 7..7 + MAX_RESULTS as u64 {
        let record =
            bench.record(bench.session, sequence, Entry::Producer { container: None, state: ProducerState::Active });
        bench.apply(&record).unwrap();
    }
    let late = bench.record(bench.session, 5, Entry::Begin { container: RUN, collective: true });
    assert_eq!(bench.apply(&late).unwrap_err().code, RefusalCode::SessionExpired, "never executed again");
    assert_eq!(bench.pool.open_transactions(), 1);
}

#[test]
fn rule_17_outcomes_of_a_wait() {
    let mut bench = Bench::new();
    let waited = |bench: &Bench, after| match bench.pool.waited(RUN, Step(after), 10) {
        Some(Ok(Reply::Waited(waited))) => Some(waited),
        None => None,
        other => panic!("{other:?}"),
    };
    let say = |bench: &mut Bench, session, state| bench.ok_as(session, Entry::Producer { container: None, state });
    assert_eq!(waited(&bench, 0), None, "nobody has said anything");
    let producer = bench.open_session(0);
    say(&mut bench, producer, ProducerState::Active);
    assert_eq!(waited(&bench, 0), None);
    bench.step();
    assert!(matches!(waited(&bench, 0), Some(Waited::Steps { steps, latest: Step(1) }) if steps.len() == 1));
    assert_eq!(waited(&bench, 1), None);
    bench.put(end(producer, &[])).unwrap();
    assert_eq!(waited(&bench, 1), Some(Waited::ProducerLost));
    assert_eq!(bench.last.touched, vec![RUN], "who waits is told");
    assert!(matches!(waited(&bench, 0), Some(Waited::Steps { .. })), "steps come before the end");
    let producer = bench.open_session(0);
    say(&mut bench, producer, ProducerState::Active);
    assert_eq!(waited(&bench, 1), None, "the next producer goes on");
    say(&mut bench, producer, ProducerState::Ended);
    bench.put(end(producer, &[])).unwrap();
    assert_eq!(waited(&bench, 1), Some(Waited::End));
    bench.ok(Entry::ContainerDestroy { container: RUN });
    assert!(
        matches!(bench.pool.waited(RUN, Step(1), 1), Some(Err(refusal)) if refusal.code == RefusalCode::NoContainer)
    );
}

#[test]
fn rule_17_the_end_of_one_stage_of_a_pipeline_is_not_that_of_the_next() {
    let mut bench = Bench::new();
    bench.ok(Entry::ContainerCreate { name: "second".into(), properties: properties(1) });
    let second = bench.pool.container_list().iter().find(|info| info.name == "second").unwrap().container;
    let waited = |bench: &Bench, container| match bench.pool.waited(container, Step(0), 10) {
        Some(Ok(Reply::Waited(waited))) => Some(waited),
        _ => None,
    };
    let (first_stage, second_stage) = (bench.open_session(0), bench.open_session(0));
    let say = |bench: &mut Bench, session, container, state| {
        bench.ok_as(session, Entry::Producer { container, state });
    };
    say(&mut bench, first_stage, None, ProducerState::Active);
    say(&mut bench, second_stage, Some(second), ProducerState::Active);
    say(&mut bench, first_stage, None, ProducerState::Ended);
    assert_eq!(waited(&bench, RUN), Some(Waited::End));
    assert_eq!(waited(&bench, second), None, "its producer lives");
    bench.put(end(second_stage, &[])).unwrap();
    assert_eq!(waited(&bench, second), Some(Waited::ProducerLost));
    assert_eq!(waited(&bench, RUN), Some(Waited::End), "a consumer's end is not the producer's");
    say(&mut bench, first_stage, None, ProducerState::Active);
    assert_eq!(waited(&bench, second), None, "a word on all holds where nobody else writes");
}

#[test]
fn containers_come_and_go() {
    let mut bench = Bench::new();
    let create = |name: &str| Entry::ContainerCreate { name: name.into(), properties: properties(1) };
    assert_eq!(bench.refused(create("run")), RefusalCode::Exists);
    for bad in ["", "a/b", ".talea", "a\nb"] {
        assert_eq!(bench.refused(create(bad)), RefusalCode::Argument, "{bad:?}");
    }
    assert_eq!(bench.refused(create(&"x".repeat(128))), RefusalCode::TooLong);
    let unsupported = ContainerProperties { class: (2 << 28) | (2 << 22) | 1, ..ContainerProperties::default() };
    let entry = Entry::ContainerCreate { name: "two".into(), properties: unsupported };
    assert_eq!(bench.refused(entry), RefusalCode::Unsupported);
    let tx = bench.begin().tx;
    bench.snapshot(SnapshotAt::Latest).unwrap();
    bench.ok(Entry::ContainerDestroy { container: RUN });
    assert!(bench.last.changes.contains(&TargetChange::Abort { tx }));
    assert_eq!(bench.last.changes.last(), Some(&TargetChange::DestroyContainer { container: RUN }));
    let Reply::Container(again) = bench.ok(create("run")) else { panic!() };
    assert_eq!(again.container, ContainerId(2), "numbers are never used again");
}

#[test]
fn commits_that_name_unknown_targets_or_carry_too_much_leave_the_transaction_open() {
    let mut bench = Bench::new();
    let tx = bench.begin().tx;
    let summary = bench.touched(&[4]);
    assert_eq!(bench.commit(tx, summary).unwrap_err().code, RefusalCode::Argument);
    let attributes = vec![0; talea_model::limit::MAX_ATTRIBUTES_BYTES + 1];
    let entry = Entry::Commit { tx, summary: Summary::default(), attributes, manifest: None, next: false };
    assert_eq!(bench.refused(entry), RefusalCode::TooLong);
    assert_eq!(bench.pool.fate(tx), Some(Fate::Open));
}

#[test]
fn a_gap_in_the_log_is_an_error_and_an_old_record_nothing() {
    let mut bench = Bench::new();
    let mut record = bench.record(bench.session, 0, Entry::Begin { container: RUN, collective: true });
    bench.apply(&record).unwrap();
    let state = bench.pool.clone();
    assert_eq!(bench.pool.apply(&record), Ok(Applied::default()));
    assert_eq!(bench.pool, state);
    record.position = Position(record.position.0 + 2);
    assert!(bench.pool.apply(&record).is_err());
    assert_eq!(bench.pool, state);
}
