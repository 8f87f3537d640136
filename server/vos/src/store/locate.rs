//! The short way for reads (docs/design.md §6): where bytes lie, for a process that maps the medium itself.
//!
//! Must never name a place that is not on the medium, and never let a block that was named be used again while a lease lasts.

use talea_model::{Extent, View};

use super::Store;
use crate::checksum::GRANULE_BYTES;
use crate::{Located, ObjectRef, Span, StoreError, ValueKind};

/// What one answer's spans and checksums may take, in bytes.
const ANSWER_BYTES: usize = 128 << 10;
/// A span without its checksums, in bytes, generously.
const SPAN_BYTES: usize = 48;
/// Columns that one answer looks at, at most: it goes no further.
const LOOKED_AT: usize = 8192;

impl Store {
    /// How another process maps the medium; `None` if it cannot be mapped.
    pub fn share(&self) -> Option<talea_tier::Share> {
        self.log.share()
    }

    /// The medium's board, if others can look at it.
    pub fn board(&self) -> Option<talea_tier::Share> {
        self.log.board()
    }

    /// Shows a number on the medium's board.
    pub fn post(&mut self, number: u64) {
        self.log.post(number);
    }

    /// Bytes of the medium that can be mapped.
    pub fn shared_bytes(&self) -> u64 {
        self.log.capacity_bytes()
    }

    /// Whoever was told of places may read them until then: no block that is in use now is used for anything else before.
    /// Times are the caller's and only grow.
    pub fn lease_blocks(&mut self, until_ns: u64) {
        if self.options.plant == crate::Plant::ForgetLeases {
            return;
        }
        self.log.space.lease(until_ns);
    }

    /// For a store that was just opened: readers may still hold leases that the process before this one granted, until then at the
    /// latest. What is free now may have been theirs, and is used from then on only. Nothing is held on a medium that nobody can
    /// map.
    pub fn hold_free(&mut self, until_ns: u64) {
        if self.share().is_some() {
            self.log.space.hold_free(until_ns);
        }
    }

    /// Blocks whose leases have ended can be used again.
    pub fn end_leases(&mut self, now_ns: u64) {
        self.log.space.end_leases(now_ns);
    }

    /// Changes whenever any block is given back: places named under the same number are still valid.
    pub fn generation(&self) -> u64 {
        self.log.space.generation()
    }

    /// Where the records of an array lie, as a view sees them now, as far as one answer goes. A snapshot sees the same later, other
    /// views may not; the bytes stay where they are as long as blocks are leased.
    pub fn locate(
        &self,
        at: ObjectRef,
        view: View,
        dkey: &[u8],
        akey: &[u8],
        extent: Extent,
    ) -> Result<Located, StoreError> {
        let (from, to) = (extent.index, extent.index.saturating_add(extent.count));
        let lens = self.lens(at.container, view)?;
        let mut located = Located { record_bytes: 0, end: to, spans: Vec::new() };
        let Some((object, node)) = self.memory.index.dkey(at, dkey) else { return Ok(located) };
        let Some(found) = node.akey(akey) else { return Ok(located) };
        if found.kind() == ValueKind::Single {
            return Err(StoreError::Bad("only arrays have places"));
        }
        located.record_bytes = found.record_bytes();
        let hidden = self.memory.index.hidden_dkey(node, &lens, self.memory.index.hidden_object(object, &lens));
        let hidden = self.memory.index.hidden_akey(found, &lens, hidden);
        let record_bytes = u64::from(located.record_bytes);
        let mut room = ANSWER_BYTES;
        let extent = Extent::new(from, to - from).ok_or(StoreError::Bad("no record has that index"))?;
        let columns = found.array.iter().flat_map(|array| array.overlapping(extent));
        for (looked, (start, column)) in columns.enumerate() {
            if looked >= LOOKED_AT {
                located.end = start;
                break;
            }
            let Some(piece) = self.memory.index.seen(&column.stack, &lens, hidden) else { continue };
            let place = self.memory.index.versions.bytes(piece.version);
            let (first, last) = (start.max(from), column.end.min(to));
            let skip = u64::from(piece.skip) + (first - start) * record_bytes;
            let bytes = (last - first) * record_bytes;
            let granules = skip / GRANULE_BYTES as u64..(skip + bytes).div_ceil(GRANULE_BYTES as u64);
            let checksums =
                self.memory.index.versions.granules(piece.version).get(granules.start as usize..granules.end as usize);
            let cost = SPAN_BYTES + 4 * checksums.map_or(0, <[u32]>::len);
            let (Some(checksums), true) = (checksums, self.log.is_placed(place.offset, place.len.into())) else {
                located.end = first;
                break;
            };
            if cost > room {
                located.end = first;
                break;
            }
            room -= cost;
            located.spans.push(Span {
                index: first,
                count: last - first,
                offset: place.offset,
                bytes: place.len,
                skip_bytes: skip as u32,
                checksums: checksums.to_vec(),
            });
        }
        Ok(located)
    }
}
