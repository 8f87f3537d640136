//! The pool against a tiny model of it, under arbitrary logs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use talea_model::Fate;

use super::*;

/// One step of an arbitrary history; numbers are taken modulo what exists.
#[derive(Clone, Debug)]
enum Do {
    Begin(bool),
    Commit { tx: u64, touch: bool, failed: bool, next: bool },
    Abort(u64),
    Snapshot,
    Step(u64),
    Again(usize),
    EndSession(Vec<u64>),
    TargetDown(u32),
    ServerUp(u32, u64),
}

fn history() -> impl Strategy<Value = Vec<(Do, u64)>> {
    let tx = 1u64..12;
    let one = prop_oneof![
        4 => any::<bool>().prop_map(Do::Begin),
        6 => (tx.clone(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(tx, touch, failed, next)| Do::Commit { tx, touch, failed, next }),
        2 => tx.clone().prop_map(Do::Abort),
        3 => Just(Do::Snapshot),
        2 => (1u64..8).prop_map(Do::Step),
        3 => any::<prop::sample::Index>().prop_map(|index| Do::Again(index.index(1 << 16))),
        1 => prop::collection::vec(tx, 0..3).prop_map(Do::EndSession),
        1 => (0u32..4).prop_map(Do::TargetDown),
        1 => ((0u32..2), (1u64..3)).prop_map(|(server, incarnation)| Do::ServerUp(server, incarnation)),
    ];
    prop::collection::vec((one, 0u64..5000), 0..60)
}

/// What must hold whatever the history.
#[derive(Default)]
struct Model {
    fates: BTreeMap<TxId, Fate>,
    issued: Vec<Stamp>,
    steps: u64,
    results: Vec<(Record, Outcome)>,
}

impl Model {
    fn observe(&mut self, changes: &[TargetChange], outcome: &Outcome) {
        for change in changes {
            match change {
                TargetChange::Begin { tx, .. } => {
                    let last = self.fates.last_key_value().map_or(0, |(tx, _)| tx.0);
                    assert_eq!(tx.0, last + 1, "numbers are dense and in order");
                    self.fates.insert(*tx, Fate::Open);
                }
                TargetChange::Commit { tx, stamp } => {
                    let before = self.fates.insert(*tx, Fate::Committed(*stamp));
                    assert_eq!(before, Some(Fate::Open), "the first fate wins");
                    self.issue(*stamp);
                }
                TargetChange::Abort { tx } => {
                    assert_eq!(self.fates.insert(*tx, Fate::Aborted), Some(Fate::Open), "the first fate wins");
                }
                TargetChange::Map(map) => self.issue(map.stamp),
                TargetChange::State(_) | TargetChange::Sessions { .. } => panic!("a record says what it changes"),
                TargetChange::Floor { floor, .. } => assert!(self.issued.iter().chain([floor]).max() >= Some(floor)),
                TargetChange::Container { .. }
                | TargetChange::OpenSession { .. }
                | TargetChange::EndSession { .. }
                | TargetChange::DestroyContainer { .. } => {}
            }
        }
        match outcome {
            Ok(Reply::Begun(begun)) => self.issue(begun.base),
            Ok(Reply::Committed(committed)) => {
                self.steps += u64::from(committed.made_step);
                assert_eq!(committed.step, Step(self.steps), "steps are dense");
                committed.next.iter().for_each(|next| self.issue(next.base));
            }
            Ok(Reply::CommitFailed { next, .. }) => self.issue(next.base),
            _ => {}
        }
    }

    fn issue(&mut self, stamp: Stamp) {
        assert!(self.issued.iter().all(|issued| *issued < stamp), "each stamp is above all issued before");
        self.issued.push(stamp);
    }
}

fn entry(bench: &Bench, action: &Do) -> Option<Entry> {
    Some(match action {
        Do::Begin(collective) => Entry::Begin { container: ContainerId(1), collective: *collective },
        Do::Commit { tx, touch, failed, next } => {
            let summary = Summary { failed: *failed, ..bench.touched(if *touch { &[1, 2] } else { &[] }) };
            commit(TxId(*tx), summary, *next)
        }
        Do::Abort(tx) => Entry::Abort { tx: TxId(*tx), reason: "asked".into() },
        Do::Snapshot => Entry::SnapshotOpen { container: ContainerId(1), at: SnapshotAt::Latest },
        Do::Step(step) => Entry::SnapshotOpen { container: ContainerId(1), at: SnapshotAt::Step(Step(*step)) },
        Do::EndSession(joined) => Entry::SessionEnd {
            home: None,
            session: bench.session,
            joined: joined.iter().map(|tx| TxId(*tx)).collect(),
            orderly: false,
        },
        Do::TargetDown(target) => Entry::Targets { targets: vec![TargetId(*target)], state: TargetState::Down },
        Do::ServerUp(id, incarnation) => {
            let targets = (0..2).map(|n| target(id * 2 + n, *id, *incarnation)).collect();
            Entry::ServerUp { server: server(*id), targets, boot: 1, remembers: true }
        }
        Do::Again(_) => return None,
    })
}

fn run(history: &[(Do, u64)]) -> Pool {
    let mut bench = Bench::new();
    let mut model = Model { issued: vec![bench.pool.ceiling()], ..Model::default() };
    let mut copy = bench.pool.clone();
    for (index, (action, proposed)) in history.iter().enumerate() {
        bench.proposed = Stamp(*proposed);
        let is_end = matches!(action, Do::EndSession(_));
        let (session, sequence) = if is_end { (SessionId(0), 0) } else { (bench.session, index as u64 + 1) };
        let again = match action {
            Do::Again(n) if !model.results.is_empty() => model.results.get(n % model.results.len()).cloned(),
            _ => None,
        };
        let record = match (&again, entry(&bench, action)) {
            (Some((first, _)), _) => Record { position: Position(bench.pool.position().0 + 1), ..first.clone() },
            (None, Some(entry)) => bench.record(session, sequence, entry),
            (None, None) => continue,
        };
        let outcome = bench.apply(&record);
        let ceiling = bench.pool.ceiling();
        if let Some((_, result)) = &again {
            assert_eq!(&outcome, result, "exactly once");
            assert!(bench.last.changes.is_empty());
        } else {
            model.observe(&bench.last.changes, &outcome);
            if let (Do::Snapshot, Ok(Reply::Snapshot(snapshot))) = (action, &outcome) {
                model.issue(snapshot.stamp);
            }
            if !is_end {
                model.results.push((record.clone(), outcome));
            }
        }
        assert!(model.issued.iter().all(|issued| *issued <= ceiling));
        for (tx, fate) in &model.fates {
            assert_eq!(bench.pool.fate(*tx), Some(*fate));
        }
        copy.apply(&record).unwrap();
        if is_end {
            model.results.clear();
            bench.session = bench.open_session(0);
            let reopen = Entry::SessionOpen { home: ServerId(0), name: "test".into(), secret: 0, process: None };
            let position = bench.pool.position();
            copy.apply(&Record {
                position,
                proposed: bench.proposed,
                session: SessionId(0),
                sequence: 0,
                entry: reopen,
            })
            .unwrap();
        }
    }
    assert_eq!(copy, bench.pool, "applying is deterministic");
    bench.pool
}

proptest! {
    #[test]
    fn holds_under_any_history(history in history()) {
        let pool = run(&history);
        let bytes = talea_wire::codec::encode(&pool).unwrap();
        prop_assert_eq!(talea_wire::codec::decode::<Pool>(&bytes).unwrap(), pool);
    }
}
