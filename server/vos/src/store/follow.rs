//! Following the pool's log: fates, floors, kept stamps, and the ceiling.

use talea_model::{Position, Stamp};

use super::Store;
use crate::log::record::{encode_follow, kind};
use crate::{Change, StoreError};

impl Store {
    /// Applies log entries up to `horizon`, in order; durable with the next flush. O(1) for each begin, commit and abort.
    pub fn follow(&mut self, changes: &[Change], horizon: Position) -> Result<(), StoreError> {
        if changes.is_empty() && horizon <= self.memory.ledger.horizon() {
            return Ok(());
        }
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        encode_follow(changes, horizon, &mut payload);
        let mut appended = self.log.append(kind::FOLLOW, payload.as_slice());
        if matches!(appended, Err(StoreError::NoSpace { .. })) && self.make_room()? {
            appended = self.log.append(kind::FOLLOW, payload.as_slice());
        }
        self.scratch = payload;
        appended?;
        self.memory.apply_changes(changes, horizon);
        self.free_gone();
        Ok(())
    }

    /// Raises the ceiling (docs/design.md §4 rule 10); durable with the next flush.
    pub fn raise_ceiling(&mut self, to: Stamp) -> Result<(), StoreError> {
        if to <= self.memory.ceiling {
            return Ok(());
        }
        let mut appended = self.log.append(kind::CEILING, &to.0.to_le_bytes());
        if matches!(appended, Err(StoreError::NoSpace { .. })) && self.make_room()? {
            appended = self.log.append(kind::CEILING, &to.0.to_le_bytes());
        }
        appended?;
        self.memory.ceiling = to;
        Ok(())
    }
}
