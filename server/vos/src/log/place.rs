//! Where bytes lie: taking room, finding them, giving it back.
//!
//! Must never hand out a run that the medium may have no room for.

use talea_tier::{Address, Medium, Tier, TierError};

use super::Log;
use crate::space::{BLOCK_BYTES, whole_blocks};
use crate::{Plant, StoreError};

impl Log {
    /// Takes a run that holds `bytes`, with room for it below the medium. Where a file system is full, what lies beyond the room that it
    /// has given is not free.
    pub(super) fn allocate(&mut self, tier: Tier, bytes: u64) -> Result<Option<u64>, StoreError> {
        while let Some(start) = self.space.allocate(tier, bytes) {
            let Err(error) = self.medium.reserve(start, whole_blocks(bytes)) else { return Ok(Some(start)) };
            self.space.untake(start, bytes);
            let promised_bytes = self.medium.medium(tier).map_or(0, |medium| medium.promised_bytes());
            let from = Address::new(tier, promised_bytes).0;
            // Below it there is room, whatever the error says.
            if !matches!(error, TierError::NoRoom { .. }) || start + whole_blocks(bytes) <= from {
                return Err(error.into());
            }
            self.space.withdraw(tier, from);
        }
        Ok(None)
    }

    /// Bytes in place, staged ones included; `None` if they must be read with [`read`](Self::read).
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Option<&[u8]> {
        match self.staged_range(offset, len) {
            Some(range) => Some(&self.staged[range]),
            None => self.medium.bytes(offset, len),
        }
    }

    /// Reads bytes, staged ones included. No value lies half in the stage.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), StoreError> {
        match self.staged_range(offset, out.len() as u64) {
            Some(range) => out.copy_from_slice(&self.staged[range]),
            None => self.medium.read(offset, out)?,
        }
        Ok(())
    }

    /// Whether reads wait for a device.
    pub(crate) fn reads_wait(&self) -> bool {
        self.medium.reads_wait()
    }

    /// Begins to read bytes that are read soon; false: no more of that now.
    pub(crate) fn read_ahead(&self, offset: u64, len: u64) -> bool {
        self.staged_range(offset, len).is_some()
            || self.medium.bytes(offset, len).is_some()
            || self.medium.read_ahead(offset, len)
    }

    /// Nothing of what was begun so is read any more.
    pub(crate) fn forget_ahead(&self) {
        self.medium.forget_ahead();
    }

    /// How another process maps the medium.
    pub(crate) fn share(&self) -> Option<talea_tier::Share> {
        self.medium.share()
    }

    /// Where another process finds what [`post`](Self::post) shows.
    pub(crate) fn board(&self) -> Option<talea_tier::Share> {
        self.medium.board()
    }

    /// Shows a number on the medium's board.
    pub(crate) fn post(&mut self, number: u64) {
        self.medium.post(number);
    }

    /// Whether these bytes lie on the medium that [`share`](Self::share) names, already.
    pub(crate) fn is_placed(&self, offset: u64, len: u64) -> bool {
        Address(offset).tier() == Some(Tier::Log) && self.staged_range(offset, len).is_none()
    }

    fn staged_range(&self, offset: u64, len: u64) -> Option<std::ops::Range<usize>> {
        let end = self.current.start + self.filled;
        let begin = end - self.staged.len() as u64;
        let inside = offset >= begin && offset.checked_add(len)? <= end && !self.staged.is_empty();
        inside.then(|| (offset - begin) as usize..(offset - begin + len) as usize)
    }

    /// Counts value bytes inside a segment, or takes them away.
    pub(crate) fn count_live(&mut self, offset: u64, bytes: u64, add: bool) {
        let count = |live: &mut u64| *live = if add { *live + bytes } else { live.saturating_sub(bytes) };
        if offset.wrapping_sub(self.current.start) < self.current.len {
            count(&mut self.current_live);
        } else if let Some((start, used)) = self.segments.range_mut(..=offset).next_back() {
            count(&mut used.live_bytes);
            if self.volatile {
                count(&mut self.arenas.live_bytes);
            }
            if self.volatile && used.live_bytes == 0 {
                let start = *start;
                self.drop_arena(start);
            }
        }
    }

    /// Gives back the bytes of a value that no version names any more.
    pub(crate) fn free_value(&mut self, offset: u64, len: u64, inline: bool) {
        if inline {
            self.garbage_bytes += if self.volatile { 0 } else { len };
            self.count_live(offset, len, false);
        } else if self.volatile || self.plant == Plant::ReuseEarly {
            self.space.release(offset, len);
        } else {
            self.space.retire(offset, len);
        }
    }

    /// Bytes of the tiers for which their media have room for sure, from the beginning of each on.
    pub(crate) fn promised_bytes(&self) -> u64 {
        let bulk = self.medium.medium(Tier::Bulk).map_or(0, |bulk| bulk.promised_bytes());
        self.medium.medium(Tier::Log).map_or(0, |log| log.promised_bytes()) + bulk
    }

    /// Size of the log's medium in whole blocks, in bytes.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.medium.capacity_bytes() / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Size of the medium for bulk in whole blocks, in bytes; 0 if there is none.
    pub(crate) fn bulk_bytes(&self) -> u64 {
        let bulk = if self.medium.bulk_tier() == Tier::Bulk { self.medium.medium(Tier::Bulk) } else { None };
        bulk.map_or(0, |bulk| bulk.capacity_bytes() / BLOCK_BYTES * BLOCK_BYTES)
    }
}
