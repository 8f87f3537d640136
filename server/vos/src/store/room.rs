//! Room: what an update of a full store does about it, how much stays free for what must always go on, and values that move so
//! that memory comes back.
//!
//! Must never look through all that there is at once: whoever finds the store full does a portion, and is told whether more may
//! come of it.

use talea_tier::{Tier, TierError};

use super::Store;
use crate::StoreError;
use crate::index::version::{Bytes, VersionId};

/// Items of background work that a request does which finds the store full.
const ROOM_ITEMS: usize = 1024;
/// Segments that stay free for punches and the pool's log, beside room for a checkpoint; and for the latter alone: two are filled
/// before a checkpoint is due (see [`Store::is_tight`]), it begins a new one, its own last one is not filled, and the log goes on
/// while it is written.
const RESERVED: u64 = 5;
const RESERVED_FROM_PUNCHES: u64 = 3;
const LEAST_FOR_CHECKPOINT: u64 = 1;
/// Segments that stay free beside a checkpoint that is written while leases last, and beside values that move into it.
const LEFT_UNDER_LEASES: u64 = 3;
pub(super) const LEFT_BY_MOVING: u64 = 2;
/// What a version or a dkey takes of a checkpoint, in bytes, about.
const NODE_BYTES: u64 = 160;

/// Values on their way out of segments of which little is left.
pub(super) struct Compaction {
    next: VersionId,
    /// Segments from this number on stay.
    before: u64,
}

impl Store {
    /// After a request found the store full: a portion of what makes room. Fails with `full` if nothing can be had.
    pub(super) fn make_room(&mut self, full: StoreError) -> Result<(), StoreError> {
        self.room_wanted = true;
        // Others may have made room on the file system below.
        if !self.log.space.restore() && !self.is_room_coming() {
            return Err(full);
        }
        self.work(ROOM_ITEMS)
    }

    /// What says that there is no room, and why.
    pub fn no_space(&self, needed_bytes: u64) -> StoreError {
        if self.log.space.is_cut() {
            let (offset, source) = (self.log.promised_bytes(), std::io::ErrorKind::StorageFull.into());
            return TierError::NoRoom { offset, source }.into();
        }
        StoreError::NoSpace { needed_bytes, free_bytes: self.log.space.free_bytes() }
    }

    /// What an attempt says that found no room even so.
    pub(super) fn room_to_come(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::NoSpace { needed_bytes, .. } if self.is_room_coming() => {
                StoreError::RoomToCome { needed_bytes }
            }
            StoreError::NoSpace { needed_bytes, .. } if self.log.space.is_cut() => self.no_space(needed_bytes),
            other => other,
        }
    }

    fn is_room_coming(&self) -> bool {
        self.is_room_worked_for() || self.log.space.held_bytes() > 0
    }

    /// Whether there is work that may make room.
    pub(super) fn is_room_worked_for(&self) -> bool {
        self.has_work() || self.may_checkpoint() && self.wants_checkpoint() || self.wants_compaction()
    }

    /// How much must stay free for punches, the pool's log, and a checkpoint.
    pub(super) fn refresh_reserve(&mut self) {
        let segment_bytes = self.log.segment_bytes();
        if self.log.is_volatile() {
            (self.log.reserve_bytes, self.log.punch_reserve_bytes) = (2 * segment_bytes, 0);
            return;
        }
        let dump_bytes = self.checkpoint_bytes();
        // The next one takes more than the last one did and gives back: the one after it must find its room, too.
        let growth_bytes = dump_bytes.saturating_sub(self.dump_bytes);
        self.log.reserve_bytes = RESERVED * segment_bytes + dump_bytes + growth_bytes;
        // A checkpoint that is under way has taken some of its room, and gives that of the one before back when it ends.
        let dump_bytes = if self.checkpoint.is_some() { 0 } else { dump_bytes };
        self.log.punch_reserve_bytes = RESERVED_FROM_PUNCHES * segment_bytes + dump_bytes;
        self.log.punch_least_bytes = LEAST_FOR_CHECKPOINT * segment_bytes + dump_bytes;
    }

    /// Whether another checkpoint could be written now and the pool's log be followed after it. What a checkpoint gives back is of
    /// no use before the leases on it have ended: one after the other would take all that is free and make no room.
    pub(super) fn leases_leave_room(&self) -> bool {
        let space = &self.log.space;
        space.held_in(Tier::Log) == 0
            || space.free_in(Tier::Log) > self.checkpoint_bytes() + LEFT_UNDER_LEASES * self.log.segment_bytes()
    }

    /// What a checkpoint would take, in bytes, without values that move into it.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        let index = &self.memory.index;
        let nodes = u64::from(index.dkeys.bound()) + index.versions.len();
        (NODE_BYTES * nodes + 4 * index.versions.listed()).max(self.dump_bytes + self.dump_bytes / 8)
    }

    /// Whether so little is free that the log itself must be cut.
    pub(super) fn is_tight(&self) -> bool {
        self.log.space.free_in(Tier::Log) < self.log.reserve_bytes
            && self.log.since_checkpoint_bytes > 2 * self.log.segment_bytes()
    }

    /// Whether moving what is left in sparse segments gives much room back.
    pub(super) fn wants_compaction(&self) -> bool {
        if !self.log.is_volatile() {
            return false;
        }
        let arenas = self.log.arenas();
        let garbage_bytes = arenas.bytes - arenas.live_bytes;
        let capacity_bytes = self.log.capacity_bytes();
        // What the pass before could not help does not count again.
        let more_bytes = garbage_bytes.saturating_sub(self.garbage_left_bytes);
        let scarce = self.room_wanted || self.log.space.free_in(Tier::Log) < capacity_bytes / 8;
        more_bytes > 8 * self.log.segment_bytes() && garbage_bytes > arenas.bytes / 2
            || scarce && more_bytes > (capacity_bytes / 64).min(2 * self.log.segment_bytes())
    }

    /// Moves values out of sparse segments, in the order of their numbers; returns what is left of the budget.
    pub(super) fn compact_some(&mut self, budget: usize) -> Result<usize, StoreError> {
        if self.compaction.is_none() && budget > 0 && self.wants_compaction() {
            self.rounds.begun += 1;
            self.compaction = Some(Compaction { next: 0, before: self.log.current().number });
            self.room_wanted = false;
        }
        let Some(mut compaction) = self.compaction.take() else { return Ok(budget) };
        let bound = self.memory.index.versions.bound();
        let mut left = budget;
        while left > 0 && compaction.next < bound {
            let id = compaction.next;
            let value = self.memory.index.versions.live(id).filter(|value| value.inline);
            if let Some(value) = value.filter(|value| self.log.is_sparse(value.offset, compaction.before)) {
                match self.move_value(id, value) {
                    Err(StoreError::NoSpace { .. }) => compaction.next = bound,
                    result => result?,
                }
            }
            compaction.next = compaction.next.saturating_add(1);
            left -= 1;
        }
        self.items += (budget - left) as u64;
        if compaction.next < bound {
            self.compaction = Some(compaction);
        } else {
            let arenas = self.log.arenas();
            self.garbage_left_bytes = arenas.bytes - arenas.live_bytes;
        }
        Ok(left)
    }

    fn move_value(&mut self, id: VersionId, value: Bytes) -> Result<(), StoreError> {
        let mut bytes = std::mem::take(&mut self.moving);
        bytes.resize(value.len as usize, 0);
        let moved = self.log.read(value.offset, &mut bytes).and_then(|()| self.log.keep_again(&bytes));
        self.moving = bytes;
        self.memory.index.versions.set_offset(id, moved?);
        let to = self.memory.index.versions.bytes(id).offset;
        self.log.count_live(to, value.len.into(), true);
        self.log.count_live(value.offset, value.len.into(), false);
        Ok(())
    }
}
