//! The newest records, for those who follow.
//!
//! Owns how long a record is kept for them: until a snapshot, and then another one, has been made behind it. Who lacks an older
//! one gets the image of a pool.

use std::collections::VecDeque;

use talea_model::Position;
use talea_wire::log::Record;

/// The newest records.
#[derive(Debug)]
pub(in crate::node) struct Tail {
    /// Position of the first one that is kept, or will be.
    first: u64,
    records: VecDeque<(Record, usize)>,
}

impl Default for Tail {
    fn default() -> Self {
        Tail { first: 1, records: VecDeque::new() }
    }
}

impl Tail {
    /// One whose first record will be the one after this position.
    pub(in crate::node) fn behind(position: Position) -> Self {
        Tail { first: position.0 + 1, records: VecDeque::new() }
    }

    /// Forgets the oldest record; gives its bytes.
    pub(in crate::node) fn forget_oldest(&mut self) -> usize {
        let oldest = self.records.pop_front();
        self.first += u64::from(oldest.is_some());
        oldest.map_or(0, |(_, bytes)| bytes)
    }

    /// Adds the record that follows.
    pub(in crate::node) fn push(&mut self, record: Record, bytes: usize) {
        self.records.push_back((record, bytes));
    }

    /// Forgets all: the next record is the one after this position.
    pub(super) fn restart(&mut self, after: Position) {
        self.records.clear();
        self.first = after.0 + 1;
    }

    /// Forgets the records up to this position.
    pub(super) fn forget(&mut self, through: Position) {
        let gone = (through.0 + 1).saturating_sub(self.first).min(self.records.len() as u64);
        self.records.drain(..gone as usize);
        self.first += gone;
    }

    /// Records that are kept.
    pub(in crate::node) fn len(&self) -> usize {
        self.records.len()
    }

    /// The records after a position; `None` if some of them are no longer here.
    pub(in crate::node) fn after(&self, position: Position) -> Option<impl Iterator<Item = &(Record, usize)>> {
        let skip = (position.0 + 1).checked_sub(self.first)?;
        Some(self.records.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talea_model::{ServerId, SessionId, Stamp};
    use talea_wire::log::Entry;

    fn record(position: u64) -> Record {
        let entry = Entry::Leader { server: ServerId(0) };
        Record { position: Position(position), proposed: Stamp(0), session: SessionId(0), sequence: 0, entry }
    }

    fn after(tail: &Tail, position: u64) -> Option<Vec<u64>> {
        Some(tail.after(Position(position))?.map(|(record, _)| record.position.0).collect())
    }

    #[test]
    fn what_is_kept_is_told_and_what_is_gone_is_known_to_be() {
        let mut tail = Tail::default();
        assert_eq!(after(&tail, 0), Some(vec![]));
        (1..6).for_each(|position| tail.push(record(position), 1));
        assert_eq!(after(&tail, 3), Some(vec![4, 5]));
        tail.forget(Position(2));
        assert_eq!((after(&tail, 1), after(&tail, 2)), (None, Some(vec![3, 4, 5])));
        tail.forget(Position(1));
        assert_eq!(after(&tail, 2), Some(vec![3, 4, 5]));
        tail.forget(Position(9));
        assert_eq!((after(&tail, 4), after(&tail, 5)), (None, Some(vec![])));
        tail.restart(Position(20));
        assert_eq!((after(&tail, 19), after(&tail, 20)), (None, Some(vec![])));
    }
}
