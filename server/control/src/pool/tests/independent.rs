//! Rule 15, the log's part: which independent transactions may commit, and at which stamp.

use super::*;

const RUN: ContainerId = ContainerId(1);

impl Bench {
    fn open_tx(&mut self) -> Begun {
        match self.ok(Entry::Begin { container: RUN, collective: false }) {
            Reply::Begun(begun) => begun,
            other => panic!("{other:?}"),
        }
    }

    fn commit_independent(&mut self, tx: TxId, until: u64, named: &[TxId]) -> Result<Committed, Refusal> {
        let summary = Summary { hlc: Stamp(5), ..self.touched(&[0]) };
        let named = named.to_vec();
        match self.put(Entry::CommitIndependent { tx, summary, until: Stamp(until), named })? {
            Reply::Committed(committed) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rule_15_c_is_below_the_bound_and_above_everything_issued() {
    let mut bench = Bench::new();
    let begun = bench.open_tx();
    let ceiling = bench.pool.ceiling();
    bench.proposed = Stamp(1_000_000);
    let committed = bench.commit_independent(begun.tx, ceiling.0 + 1, &[]).unwrap();
    assert_eq!(committed.stamp, ceiling.next(), "whatever the leader's clock proposes");
    assert!(!committed.made_step);
    let again = bench.commit_independent(begun.tx, u64::MAX, &[]).unwrap_err();
    assert_eq!(again.code, RefusalCode::Closed, "the first fate wins");
}

#[test]
fn rule_15_an_overtaken_bound_only_asks_for_another_preparation() {
    let mut bench = Bench::new();
    let begun = bench.open_tx();
    let until = bench.pool.ceiling().0 + 50;
    bench.proposed = Stamp(until + 1);
    bench.snapshot(SnapshotAt::Latest).unwrap();
    assert_eq!(bench.commit_independent(begun.tx, until, &[]).unwrap_err().code, RefusalCode::Restart);
    let committed = bench.commit_independent(begun.tx, u64::MAX, &[]).unwrap();
    assert!(committed.stamp > Stamp(until));
}

#[test]
fn rule_15_c_is_above_the_writes_own_stamps() {
    let mut bench = Bench::new();
    let begun = bench.open_tx();
    let seen = Stamp(bench.pool.ceiling().0 + 1_000);
    let summary = Summary { hlc: seen, ..bench.touched(&[0]) };
    let entry = |until| Entry::CommitIndependent { tx: begun.tx, summary: summary.clone(), until, named: vec![] };
    assert_eq!(bench.refused(entry(seen)), RefusalCode::Restart);
    match bench.ok(entry(seen.next())) {
        Reply::Committed(committed) => assert_eq!(committed.stamp, seen.next()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_15_a_named_transaction_decides_by_what_became_of_it() {
    let mut bench = Bench::new();
    let early = bench.open_tx();
    bench.commit_independent(early.tx, u64::MAX, &[]).unwrap();
    let begun = bench.open_tx();
    let (open, aborted) = (bench.open_tx(), bench.open_tx());
    bench.ok(Entry::Abort { tx: aborted.tx, reason: "no more".into() });
    let named = [early.tx, open.tx, aborted.tx];
    assert!(bench.commit_independent(begun.tx, u64::MAX, &named).is_ok(), "in the base, open still, and gone");
    // The one that was named saw this one's writes neither: if it names it in turn, it comes too late.
    let refusal = bench.commit_independent(open.tx, u64::MAX, &[begun.tx]).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Conflict);
    assert_eq!(bench.pool.fate(open.tx), Some(talea_model::Fate::Aborted), "and leaves nothing");
    assert!(bench.last.changes.contains(&TargetChange::Abort { tx: open.tx }));
}

#[test]
fn rule_15_a_fate_that_nobody_knows_any_more_is_a_conflict() {
    let mut bench = Bench::new();
    let first = bench.open_tx();
    let begun = bench.open_tx();
    bench.ok(Entry::Abort { tx: first.tx, reason: "no more".into() });
    bench.pool.closed.clear();
    assert_eq!(bench.commit_independent(begun.tx, u64::MAX, &[first.tx]).unwrap_err().code, RefusalCode::Conflict);
}

#[test]
fn rule_15_another_map_is_a_conflict() {
    let mut bench = Bench::new();
    let begun = bench.open_tx();
    let summary = bench.touched(&[0]);
    let mut moved = server(1);
    moved.host = "elsewhere".into();
    bench.ok(Entry::ServerUp {
        server: moved,
        targets: vec![target(2, 1, 1), target(3, 1, 1)],
        boot: 1,
        remembers: true,
    });
    let entry = Entry::CommitIndependent { tx: begun.tx, summary, until: Stamp::MAX, named: vec![] };
    assert_eq!(bench.refused(entry), RefusalCode::Conflict);
}

#[test]
fn rule_15_is_not_for_collective_epochs() {
    let mut bench = Bench::new();
    let epoch = bench.begin();
    assert_eq!(bench.commit_independent(epoch.tx, u64::MAX, &[]).unwrap_err().code, RefusalCode::Argument);
    assert_eq!(bench.pool.fate(epoch.tx), Some(talea_model::Fate::Open));
}
