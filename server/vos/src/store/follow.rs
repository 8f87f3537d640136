//! Following the pool's log: fates, floors, kept stamps, and the ceiling.

use talea_model::{Position, Stamp};

use super::Store;
use crate::log::Data;
use crate::log::bytes::Writer;
use crate::log::record::{encode_follow, kind};
use crate::{Change, StoreError};

impl Store {
    /// Applies log entries up to `horizon`, in order; durable with the next flush. O(1) for each begin, commit and abort.
    pub fn follow(&mut self, changes: &[Change], horizon: Position) -> Result<(), StoreError> {
        if changes.is_empty() && horizon <= self.memory.ledger.horizon() {
            return Ok(());
        }
        let mut payload = std::mem::take(&mut self.scratch);
        payload.begin_record();
        if !self.log.is_volatile() {
            encode_follow(changes, horizon, &mut payload);
        }
        let appended = self.append_anyway(kind::FOLLOW, &mut payload);
        self.scratch = payload;
        appended?;
        self.memory.apply_changes(changes, horizon);
        self.free_gone();
        Ok(())
    }

    /// Under which incarnation the pool knew this target when it was told last ([`Change::Incarnation`]); 0 before.
    pub fn incarnation(&self) -> u64 {
        self.memory.past.incarnation()
    }

    /// Raises the ceiling (docs/design.md §4 rule 10); durable with the next flush.
    pub fn raise_ceiling(&mut self, to: Stamp) -> Result<(), StoreError> {
        if to <= self.memory.ceiling {
            return Ok(());
        }
        let mut record = std::mem::take(&mut self.scratch);
        record.begin_record();
        record.u64(to.0);
        let appended = self.append_anyway(kind::CEILING, &mut record);
        self.scratch = record;
        appended?;
        self.memory.ceiling = to;
        Ok(())
    }

    /// Appends a record that must not fail: room for it is kept, and made ahead of time by checkpoints. What is left when even
    /// that is gone, for the medium turned out smaller than it says, is to make room to the end. Right after a restart all room may
    /// be held (see [`hold_free`](Self::hold_free)): then it is [`StoreError::RoomToCome`], and nothing was changed.
    fn append_anyway(&mut self, kind: u8, record: &mut Writer) -> Result<(), StoreError> {
        let mut may_restore = true;
        loop {
            let appended = self.log.append(kind, record, &Data::default());
            self.room_wanted |= appended.is_err();
            match appended {
                Err(StoreError::NoSpace { needed_bytes, .. }) if self.log.space.held_since_open_bytes() > 0 => {
                    return Err(StoreError::RoomToCome { needed_bytes });
                }
                Err(StoreError::NoSpace { .. }) if std::mem::take(&mut may_restore) && self.log.space.restore() => {}
                Err(full) if matches!(full, StoreError::NoSpace { .. }) && !self.is_room_worked_for() => {
                    return Err(full);
                }
                Err(full @ StoreError::NoSpace { .. }) => self.make_room(full)?,
                appended => return appended.map(drop),
            }
        }
    }
}
