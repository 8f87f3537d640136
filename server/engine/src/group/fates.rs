//! Transactions that closed and of which updates may still come: those that no mark has passed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use talea_model::{Fate, Position, TxId};

#[derive(Default)]
pub(super) struct Fates {
    by_tx: BTreeMap<TxId, (Position, Fate)>,
    by_position: BTreeSet<(Position, TxId)>,
    through: Position,
}

impl Fates {
    /// All closures up to this position were told.
    pub(super) fn through(&self) -> Position {
        self.through
    }

    pub(super) fn close(&mut self, tx: TxId, position: Position, fate: Fate) {
        // The first one wins.
        if let Entry::Vacant(vacant) = self.by_tx.entry(tx) {
            vacant.insert((position, fate));
            self.by_position.insert((position, tx));
        }
    }

    pub(super) fn advance(&mut self, through: Position) {
        self.through = self.through.max(through);
    }

    pub(super) fn of(&self, tx: TxId) -> Option<Fate> {
        self.by_tx.get(&tx).map(|(_, fate)| *fate)
    }

    pub(super) fn closed_at(&self, tx: TxId) -> Option<Position> {
        self.by_tx.get(&tx).map(|(position, _)| *position)
    }

    /// A mark has passed this position: no update of what closed up to there will come.
    pub(super) fn forget(&mut self, through: Position) {
        while let Some((position, tx)) = self.by_position.first().copied().filter(|(position, _)| *position <= through)
        {
            self.by_position.remove(&(position, tx));
            self.by_tx.remove(&tx);
        }
    }
}
