//! Small values of a store whose log's tier does not outlive the process: there is nothing to replay, so no record is written.
//! Segments hold values alone, and come back as soon as nothing in them is named.
//!
//! Must never be used where anything persists.

use talea_tier::Tier;

use super::{Appended, Data, Log, Segment};
use crate::StoreError;

/// Values begin at multiples of this many bytes.
const ALIGNMENT_BYTES: u64 = 8;

/// Full segments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arenas {
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Bytes of values in them that versions name.
    pub(crate) live_bytes: u64,
}

impl Log {
    /// Nothing outlives the process, and so nothing is written that would be read again.
    pub(crate) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// Full segments, and what of them is in use.
    pub(crate) fn arenas(&self) -> Arenas {
        self.arenas
    }

    /// Gives what would be a record its number, and keeps the values that it would hold.
    pub(super) fn keep(&mut self, data: &Data) -> Result<Appended, StoreError> {
        let data_at = self.take(data.len() as u64, self.reserve_bytes)?;
        let mut at = data_at;
        for part in &data.parts {
            self.write_raw(at, part)?;
            at += part.len() as u64;
        }
        let lsn = self.next_lsn;
        self.next_lsn += 1;
        self.flushed_lsn = self.next_lsn;
        self.records += 1;
        Ok(Appended { lsn, data_at })
    }

    /// Keeps a value at another place, which it gives.
    pub(crate) fn keep_again(&mut self, value: &[u8]) -> Result<u64, StoreError> {
        let at = self.take(value.len() as u64, 0)?;
        self.write_raw(at, value)?;
        Ok(at)
    }

    /// Takes bytes of the current segment, or of a new one if as many as `reserve_bytes` stay free without it.
    fn take(&mut self, bytes: u64, reserve_bytes: u64) -> Result<u64, StoreError> {
        if self.filled + bytes > self.current.len {
            let free_bytes = self.space.free_in(Tier::Log);
            if free_bytes < bytes + reserve_bytes {
                let free_bytes = free_bytes.saturating_sub(reserve_bytes);
                return Err(StoreError::NoSpace { needed_bytes: bytes, free_bytes });
            }
            let next = self.new_segment(bytes)?;
            let full = self.current;
            self.enter(next);
            self.filled = 0;
            let live_bytes = self.segments.get(&full.start).map_or(0, |used| used.live_bytes);
            self.arenas.bytes += full.len;
            self.arenas.live_bytes += live_bytes;
            if live_bytes == 0 {
                self.drop_arena(full.start);
            }
        }
        let at = self.current.start + self.filled;
        self.filled = (self.filled + bytes).next_multiple_of(ALIGNMENT_BYTES);
        Ok(at)
    }

    pub(super) fn drop_arena(&mut self, start: u64) {
        if let Some(used) = self.segments.remove(&start) {
            self.arenas.bytes -= used.segment.len;
            self.space.release(start, used.segment.len);
        }
    }

    /// Whether enough of the segment of an address is not in use any more that moving the rest makes room. Segments from
    /// number `before` on are left alone.
    pub(crate) fn is_sparse(&self, address: u64, before: u64) -> bool {
        self.segments.range(..=address).next_back().is_some_and(|(_, used)| {
            let Segment { len, number, .. } = used.segment;
            number < before && used.live_bytes * 4 < len * 3
        })
    }
}
