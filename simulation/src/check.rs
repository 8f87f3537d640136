//! The checker: do the histories of a run keep the invariants of docs/design.md §3?
//!
//! I1: what a snapshot at S shows is made of whole transactions with C ≤ S. I2: a snapshot never changes. I6: what a lost
//! writer wrote in is gone, and nothing stays open. I8: no call hangs. Followers get every step once, in order. Independent
//! transactions are serializable. Nothing is executed twice, and of all who create one thing one does. Knows nothing of how the
//! system works.

mod serial;

use std::collections::BTreeMap;
use std::fmt;

use talea_model::{Stamp, Step, TxId};

use crate::history::{Cell, History, Inside, Outcome, Told, Value};
use crate::program::CELLS;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which: `I1`, `I2`, `I4`, `I6`, `I8`, `steps`, `serial`, `once`, `told`, `kept`, `lease`, `names`, `place`.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Every violation in a history.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let fates = fates(history, &mut found);
    atomic(history, &fates, &mut found);
    stable(history, &mut found);
    followed(history, &mut found);
    serial::serial(&history.optimistic, &mut found);
    once(history, &mut found);
    told(history, &fates, &mut found);
    own(history, &fates, &mut found);
    if !history.open_at_end.is_empty() {
        found.push(Violation { invariant: "I6", what: format!("left open: {:?}", history.open_at_end) });
    }
    if history.lost_reads > 0 && !history.media_lost {
        let what = format!("{} reads were told that what they ask for is lost, and nothing was", history.lost_reads);
        found.push(Violation { invariant: "I4", what });
    }
    found.extend(history.served_late.iter().map(|what| Violation { invariant: "lease", what: what.clone() }));
    found.extend(history.misnamed.iter().map(|what| Violation { invariant: "names", what: what.clone() }));
    found.extend(history.foreign.iter().map(|what| Violation { invariant: "place", what: what.clone() }));
    for call in &history.hanging {
        found.push(Violation { invariant: "I8", what: format!("{call} never ended") });
    }
    found
}

/// A writer sees what it wrote, in transactions that were not aborted under it (rule 4).
fn own(history: &History, fates: &BTreeMap<TxId, Stamp>, found: &mut Vec<Violation>) {
    let wrong = history.inside.iter().filter(|one| one.seen != one.written && fates.contains_key(&one.tx));
    found.extend(wrong.map(|Inside { tx, cell, written, seen }| {
        let what = format!("{tx}: its writer wrote {written:#x} to cell {cell} and read {seen:#x} there");
        Violation { invariant: "own", what }
    }));
}

/// C of every committed transaction. The pool's word settles unknown outcomes, and must agree with the known ones.
fn fates(history: &History, found: &mut Vec<Violation>) -> BTreeMap<TxId, Stamp> {
    let said: BTreeMap<TxId, Stamp> = history.steps.values().copied().collect();
    for (tx, transaction) in &history.transactions {
        let pool = said.get(tx);
        let wrong = match transaction.outcome {
            Outcome::Committed { stamp, .. } => !transaction.writes.is_empty() && pool != Some(&stamp),
            Outcome::Aborted => pool.is_some(),
            Outcome::Unknown => false,
        };
        if wrong {
            let what = format!("{tx}: its writer was told {:?}, the pool says {pool:?}", transaction.outcome);
            found.push(Violation { invariant: "I1", what });
        }
    }
    said
}

/// Each read must show the committed write with the largest C ≤ S.
fn atomic(history: &History, fates: &BTreeMap<TxId, Stamp>, found: &mut Vec<Violation>) {
    let mut versions: BTreeMap<Cell, BTreeMap<Stamp, (TxId, Option<Value>)>> = BTreeMap::new();
    for (tx, transaction) in &history.transactions {
        let Some(stamp) = fates.get(tx) else { continue };
        for (cell, value) in &transaction.writes {
            let known = (!transaction.uncertain.contains(cell)).then_some(*value);
            versions.entry(*cell).or_default().insert(*stamp, (*tx, known));
        }
        for cell in &transaction.uncertain {
            versions.entry(*cell).or_default().insert(*stamp, (*tx, None));
        }
    }
    for read in history.reads.iter().filter(|read| read.cell < CELLS) {
        let expected = versions.get(&read.cell).and_then(|cell| cell.range(..=read.stamp).next_back());
        let (from, value) = match expected {
            None => (String::from("nothing"), Some(0)),
            Some((stamp, (tx, value))) => (format!("{tx} at {stamp}"), *value),
        };
        if value.is_some_and(|value| value != read.value) {
            let what = format!(
                "snapshot {} shows cell {} = {:#x} to reader {}, but {from} made it {:#x}",
                read.stamp,
                read.cell,
                read.value,
                read.reader,
                value.unwrap_or_default()
            );
            found.push(Violation { invariant: "I1", what });
        }
    }
}

/// Two reads of a cell at one S agree, whoever reads.
fn stable(history: &History, found: &mut Vec<Violation>) {
    let mut seen: BTreeMap<(Stamp, Cell), Value> = BTreeMap::new();
    for read in &history.reads {
        let first = *seen.entry((read.stamp, read.cell)).or_insert(read.value);
        if first != read.value {
            let what =
                format!("snapshot {} showed cell {} = {first:#x}, then {:#x}", read.stamp, read.cell, read.value);
            found.push(Violation { invariant: "I2", what });
        }
    }
}

/// Of all who create a row one does, and no request has two effects.
fn once(history: &History, found: &mut Vec<Violation>) {
    let mut bad = |what: String| found.push(Violation { invariant: "once", what });
    for insert in &history.inserts {
        let holds = history.rows.get(&insert.row);
        if history.lost_rows.contains(&insert.row) {
            continue;
        }
        match insert.told {
            Told::Done if holds != Some(&insert.value) => {
                bad(format!("row {} holds {holds:x?}, but {:#x} was created", insert.row, insert.value));
            }
            Told::Refused if holds == Some(&insert.value) => {
                bad(format!(
                    "row {} holds {:#x}, whose creator was told that there is another",
                    insert.row, insert.value
                ));
            }
            _ => {}
        }
    }
    if history.last_tx > history.begins_asked {
        bad(format!("{} transactions were begun and {} asked for", history.last_tx, history.begins_asked));
    }
}

/// What a process was told of is what it sees, or something later.
fn told(history: &History, fates: &BTreeMap<TxId, Stamp>, found: &mut Vec<Violation>) {
    let mut bad = |invariant, what: String| found.push(Violation { invariant, what });
    for (wrote, saw) in history.told.iter().filter(|(wrote, saw)| wrote != saw) {
        bad("told", format!("a process wrote {wrote:#x}, was told so, and saw {saw:#x} in a new snapshot"));
    }
    for (stamp, value) in &history.latest {
        let of = fates.get(&TxId(value >> 24));
        if of.is_none_or(|of| of < stamp) {
            bad("told", format!("after a commit at {stamp} the latest state shows {value:#x}, committed at {of:?}"));
        }
    }
    for (tx, outcome) in &history.orphaned {
        if *outcome == Told::Done || fates.contains_key(tx) {
            bad("I6", format!("{tx} committed although a process that wrote in it was dead"));
        }
    }
    for read in &history.refused_reads {
        bad("kept", read.clone());
    }
}

/// Steps are dense with growing stamps; each follower gets a gapless run of them, each once.
fn followed(history: &History, found: &mut Vec<Violation>) {
    let mut bad = |what: String| found.push(Violation { invariant: "steps", what });
    let mut last = (Step(0), Stamp::ZERO);
    for (step, (_, stamp)) in &history.steps {
        if step.0 != last.0.0 + 1 || *stamp <= last.1 {
            bad(format!("step {step} at {stamp} follows step {} at {}", last.0, last.1));
        }
        last = (*step, *stamp);
    }
    for (follower, steps) in &history.followed {
        for (index, (step, stamp)) in steps.iter().enumerate() {
            if step.0 != index as u64 + 1 {
                bad(format!("follower {follower} got step {step} as its number {}", index + 1));
            }
            if history.steps.get(step).map(|(_, stamp)| stamp) != Some(stamp) {
                bad(format!("follower {follower} got step {step} at {stamp}, which the pool does not have"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Read, Transaction};

    fn history() -> History {
        let transaction = |value, stamp, step| Transaction {
            writes: BTreeMap::from([(1, value), (2, value)]),
            uncertain: vec![],
            outcome: Outcome::Committed { stamp: Stamp(stamp), step: Step(step) },
        };
        let read = |stamp, cell, value| Read { reader: 0, stamp: Stamp(stamp), cell, value };
        History {
            transactions: BTreeMap::from([(TxId(1), transaction(11, 10, 1)), (TxId(2), transaction(22, 20, 2))]),
            reads: vec![read(5, 1, 0), read(15, 1, 11), read(15, 2, 11), read(25, 1, 22), read(25, 2, 22)],
            followed: BTreeMap::from([(0, vec![(Step(1), Stamp(10)), (Step(2), Stamp(20))])]),
            steps: BTreeMap::from([(Step(1), (TxId(1), Stamp(10))), (Step(2), (TxId(2), Stamp(20)))]),
            ..History::default()
        }
    }

    fn violations(change: impl Fn(&mut History)) -> Vec<&'static str> {
        let mut changed = history();
        change(&mut changed);
        check(&changed).into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(violations(|_| {}), Vec::<&str>::new());
    }

    #[test]
    fn each_kind_of_lie_is_found() {
        assert_eq!(violations(|h| h.reads[2].value = 22), ["I1"], "half a transaction");
        assert_eq!(violations(|h| h.reads[0].value = 11), ["I1"], "from the future");
        let again = |h: &mut History| {
            let mut read = h.reads[4].clone();
            read.value = 11;
            h.reads.push(read);
        };
        assert_eq!(violations(again), ["I1", "I2"], "a snapshot that changes");
        assert_eq!(violations(|h| h.open_at_end.push(TxId(3))), ["I6"]);
        assert_eq!(violations(|h| h.hanging.push("read".into())), ["I8"]);
        assert_eq!(violations(|h| h.foreign.push("cell 3".into())), ["place"]);
        assert_eq!(violations(|h| h.misnamed.push("step 3".into())), ["names"]);
        let inside = |tx| {
            move |h: &mut History| {
                h.inside.push(Inside { tx: TxId(tx), cell: 1, written: 11, seen: 12 });
            }
        };
        assert_eq!(
            (violations(inside(1)), violations(inside(9))),
            (vec!["own"], vec![]),
            "of a transaction that is one"
        );
        assert_eq!(violations(|h| h.served_late.push("target 3".into())), ["lease"]);
        let aborted = |h: &mut History| {
            if let Some(transaction) = h.transactions.get_mut(&TxId(2)) {
                transaction.outcome = Outcome::Aborted;
            }
        };
        assert_eq!(violations(aborted), ["I1"], "committed behind its writer's back");
        assert_eq!(violations(|h| h.followed.get_mut(&0).unwrap().truncate(1)), Vec::<&str>::new(), "behind is no gap");
        assert_eq!(violations(|h| _ = h.followed.get_mut(&0).unwrap().remove(0)), ["steps"], "a gap is");
    }

    #[test]
    fn an_uncertain_write_may_be_there_or_not() {
        let uncertain = |h: &mut History| {
            h.transactions.get_mut(&TxId(2)).unwrap().uncertain.push(2);
            h.reads[4].value = 11;
        };
        assert_eq!(violations(uncertain), Vec::<&str>::new());
    }
}
