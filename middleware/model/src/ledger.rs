//! The ledger: what a target knows of the pool's log, up to its horizon (docs/design.md §4 rules 6 to 8).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Position, Stamp, TxId};

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// Neither committed nor aborted, as far as the horizon knows.
    Open,
    /// Committed at stamp C.
    Committed(Stamp),
    /// Aborted.
    Aborted,
}

/// Fates of transactions up to a horizon. A transaction the ledger does not know has not begun as far as the horizon knows,
/// or was forgotten after its versions were stamped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    horizon: Position,
    fates: BTreeMap<TxId, Fate>,
    /// Every number below it that `fates` does not hold is closed (forgotten).
    begun_below: TxId,
}

impl Ledger {
    /// The position up to which every fate is known.
    pub fn horizon(&self) -> Position {
        self.horizon
    }

    /// Fate of a transaction; `None` if it has not begun up to the horizon. A forgotten one reads as aborted: whatever still
    /// names it has no business any more (rule 7).
    pub fn fate(&self, tx: TxId) -> Option<Fate> {
        match self.fates.get(&tx) {
            Some(fate) => Some(*fate),
            None if tx < self.begun_below => Some(Fate::Aborted),
            None => None,
        }
    }

    /// Notes that a transaction began. Numbers are given in log order, so begins arrive in the order of their numbers.
    pub fn begin(&mut self, tx: TxId) {
        if tx >= self.begun_below {
            self.fates.insert(tx, Fate::Open);
            self.begun_below = TxId(tx.0 + 1);
        }
    }

    /// Notes a fate; the first one wins. Returns whether it was news.
    pub fn close(&mut self, tx: TxId, fate: Fate) -> bool {
        match self.fates.get_mut(&tx) {
            Some(known @ Fate::Open) => {
                *known = fate;
                true
            }
            _ => false,
        }
    }

    /// Moves the horizon forward; it never goes back.
    pub fn advance(&mut self, horizon: Position) {
        self.horizon = self.horizon.max(horizon);
    }

    /// Forgets a closed transaction whose versions are stamped or gone.
    pub fn forget(&mut self, tx: TxId) {
        if self.fates.get(&tx).is_some_and(|fate| *fate != Fate::Open) {
            self.fates.remove(&tx);
        }
    }

    /// All that a checkpoint needs beside the horizon: the fates known, and the number below which all others are closed.
    pub fn parts(&self) -> (impl ExactSizeIterator<Item = (TxId, Fate)>, TxId) {
        (self.fates.iter().map(|(tx, fate)| (*tx, *fate)), self.begun_below)
    }

    /// The ledger that had these [`parts`](Self::parts).
    pub fn restore(horizon: Position, fates: impl IntoIterator<Item = (TxId, Fate)>, begun_below: TxId) -> Self {
        Self { horizon, fates: fates.into_iter().collect(), begun_below }
    }

    /// Transactions that are open at the horizon.
    pub fn open(&self) -> impl Iterator<Item = TxId> {
        self.fates.iter().filter(|(_, fate)| **fate == Fate::Open).map(|(tx, _)| *tx)
    }

    /// Whether a target may take a write of the transaction: not closed as far as it knows. One that has not begun up to the
    /// horizon may have begun since.
    pub fn admits(&self, tx: TxId) -> bool {
        matches!(self.fate(tx), None | Some(Fate::Open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_fate_wins_and_the_forgotten_are_closed() {
        let mut ledger = Ledger::default();
        assert!(ledger.admits(TxId(3)));
        ledger.begin(TxId(3));
        ledger.begin(TxId(4));
        assert!(ledger.close(TxId(3), Fate::Committed(Stamp(9))));
        assert!(!ledger.close(TxId(3), Fate::Aborted));
        assert_eq!(ledger.fate(TxId(3)), Some(Fate::Committed(Stamp(9))));
        ledger.forget(TxId(3));
        assert!(!ledger.admits(TxId(3)), "a zombie's write is refused");
        ledger.forget(TxId(4));
        assert!(ledger.admits(TxId(4)), "open ones are never forgotten");
        ledger.advance(Position(7));
        ledger.advance(Position(5));
        assert_eq!(ledger.horizon(), Position(7));
    }
}
