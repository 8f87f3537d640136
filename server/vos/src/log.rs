//! The log and the blocks: everything that a store has on its medium (docs/formats.md).
//!
//! Owns the order in which bytes become durable: values before the records that name them, records before anything is
//! acknowledged. Must never know what versions mean.

pub(crate) mod arena;
pub(crate) mod bulk;
pub(crate) mod bytes;
pub(crate) mod chain;
pub(crate) mod header;
mod place;
pub(crate) mod record;
pub(crate) mod scan;

use std::collections::BTreeMap;

use smallvec::SmallVec;
use talea_tier::{Media, Medium, Tier, TierError};

use crate::space::whole_blocks;
use crate::spaces::Spaces;
use crate::{Plant, StoreError};
use arena::Arenas;
use bytes::Writer;
use header::{RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes};
use record::kind;

/// A run of the medium that holds records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Its number; never used twice in a store.
    pub number: u64,
}

/// What is known of a segment in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentUse {
    /// The segment.
    pub segment: Segment,
    /// Bytes of values in it that versions still name.
    pub live_bytes: u64,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Its number.
    pub lsn: u64,
    /// Where its data begins on the medium.
    pub data_at: u64,
}

/// The bytes of values that go into a record.
#[derive(Debug, Default)]
pub(crate) struct Data<'a> {
    /// The values, one after the other.
    pub parts: SmallVec<[&'a [u8]; 4]>,
    /// CRC-32C of all of them.
    pub crc: u32,
}

impl Data<'_> {
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

/// Meta bytes of the record that leads to the next segment.
const NEXT_META_BYTES: usize = 24;

/// The record that leads to a segment.
fn next_record(next: Segment) -> Writer {
    let mut record = Writer::default();
    record.begin_record();
    record.u64(next.start);
    record.u64(next.len);
    record.u64(next.number);
    record
}

/// The tiers with the log and the blocks.
pub(crate) struct Log {
    medium: Media,
    /// Free blocks.
    pub space: Spaces,
    /// Segments in use, by their start.
    pub segments: BTreeMap<u64, SegmentUse>,
    /// Segments of the log, in order; those before them belong to checkpoints or only hold values.
    pub chain: Vec<Segment>,
    nonce: u64,
    segment_bytes: u64,
    current: Segment,
    /// Bytes of the current segment that hold records, staged ones included.
    filled: u64,
    /// Records not yet written to the medium; they end at `filled`. Stays empty where flushes cost nothing: there, records go to
    /// their place at once.
    staged: Vec<u8>,
    stages: bool,
    /// Nothing outlives the process: see [`arena`].
    volatile: bool,
    arenas: Arenas,
    /// Values carry checksums.
    pub sums: bool,
    /// Bytes of values in the current segment that versions still name; it counts as none in `segments`.
    current_live: u64,
    next_lsn: u64,
    next_segment: u64,
    /// Everything below it is durable.
    flushed_lsn: u64,
    values_dirty: bool,
    /// Records in their place wait for a flush.
    records_dirty: bool,
    /// Values that a planted bug holds back.
    late_values: Vec<(u64, Vec<u8>)>,
    broken: bool,
    plant: Plant,
    /// Blocks are refused when less would stay free: punches and checkpoints need room, too.
    pub reserve_bytes: u64,
    /// The same of punches, which make room.
    pub punch_reserve_bytes: u64,
    /// The same of punches that fit into the current segment.
    pub punch_least_bytes: u64,
    /// Bytes of records since the last checkpoint.
    pub since_checkpoint_bytes: u64,
    /// Bytes of values in records that nothing shows any more, since the last checkpoint ended: the next one gives them back.
    pub garbage_bytes: u64,
    records: u64,
    last_kind: u8,
}

/// What a log continues with.
pub(crate) struct Resume {
    /// Free blocks.
    pub space: Spaces,
    /// Segments in use, the current one included.
    pub segments: BTreeMap<u64, SegmentUse>,
    /// Segments of the log, in order.
    pub chain: Vec<Segment>,
    /// Segments of the checkpoint.
    pub checkpoint: Vec<Segment>,
    /// The segment that is written now.
    pub current: Segment,
    /// Bytes of it that hold records.
    pub filled: u64,
    /// Number of the next record.
    pub next_lsn: u64,
    /// Number of the next segment.
    pub next_segment: u64,
    /// Bytes of records since the last checkpoint.
    pub since_checkpoint_bytes: u64,
}

impl Log {
    /// A log that goes on where `resume` says.
    pub(crate) fn new(medium: Media, nonce: u64, segment_bytes: u64, plant: Plant, resume: Resume) -> Self {
        let (stages, volatile) = (medium.is_persist_costly(), !medium.is_persistent());
        let mut segments = resume.segments;
        let current = segments.get_mut(&resume.current.start);
        let current_live = current.map_or(0, |used| std::mem::take(&mut used.live_bytes));
        Self {
            medium,
            stages,
            volatile,
            arenas: Arenas::default(),
            sums: true,
            current_live,
            space: resume.space,
            segments,
            chain: if volatile { Vec::new() } else { resume.chain },
            nonce,
            segment_bytes,
            current: resume.current,
            filled: resume.filled,
            staged: Vec::new(),
            next_lsn: resume.next_lsn,
            next_segment: resume.next_segment,
            flushed_lsn: resume.next_lsn,
            values_dirty: false,
            records_dirty: false,
            late_values: Vec::new(),
            broken: false,
            plant,
            reserve_bytes: 0,
            punch_reserve_bytes: 0,
            punch_least_bytes: 0,
            since_checkpoint_bytes: resume.since_checkpoint_bytes,
            garbage_bytes: 0,
            records: 0,
            last_kind: kind::MARK,
        }
    }

    /// Number that the next record will have.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Records written since the store was opened.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of an ordinary segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The segment that is written now.
    pub(crate) fn current(&self) -> Segment {
        self.current
    }

    /// Bytes of a segment that may hold records on the medium.
    pub(crate) fn written(&self, segment: Segment) -> u64 {
        if segment == self.current { self.filled - self.staged.len() as u64 } else { segment.len }
    }

    /// The store's salt of checksums.
    pub(crate) fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Writes a value into blocks of its own and gives their address; durable when any record that is appended later is, or found
    /// out to be torn together with it.
    pub(crate) fn write_blocks(&mut self, data: &[u8]) -> Result<u64, StoreError> {
        self.check_usable()?;
        let tier = self.medium.bulk_tier();
        let reserve_bytes = if tier == Tier::Log { self.reserve_bytes } else { 0 };
        let needed_bytes = whole_blocks(data.len() as u64);
        let free_bytes = self.space.free_in(tier);
        let no_space = StoreError::NoSpace { needed_bytes, free_bytes: free_bytes.saturating_sub(reserve_bytes) };
        if needed_bytes + reserve_bytes > free_bytes {
            return Err(no_space);
        }
        let start = self.allocate(tier, needed_bytes)?.ok_or(no_space)?;
        self.values_dirty = true;
        if self.plant == Plant::LogBeforeData {
            self.late_values.push((start, data.to_vec()));
            return Ok(start);
        }
        // It may be an earlier one that failed: what is acknowledged with this turn's flush may be among what is lost.
        let result = self.medium.write_padded(start, data);
        self.note_result(result).inspect_err(|_| self.space.untake(start, needed_bytes))?;
        Ok(start)
    }

    /// Appends a record; durable with the next flush.
    pub(crate) fn append(&mut self, kind: u8, record: &mut Writer, data: &Data) -> Result<Appended, StoreError> {
        self.check_usable()?;
        if self.volatile {
            return self.keep(data);
        }
        let needed = record_bytes(record.meta_bytes() + data.len()) as u64;
        let rolls = self.filled + needed + record_bytes(NEXT_META_BYTES) as u64 > self.current.len;
        self.check_reserve(kind, needed, rolls)?;
        if rolls {
            self.roll(needed)?;
        }
        self.put(kind, record, data)
    }

    /// Leaves what is kept for records that must not fail. They take segments of it; what is left of such a segment is theirs as
    /// well, or small updates would use the reserve up, one segment after the other.
    fn check_reserve(&self, kind: u8, needed_bytes: u64, rolls: bool) -> Result<(), StoreError> {
        let wanted_bytes = match (kind, rolls) {
            (kind::UPDATE, true) if self.reserve_bytes > 0 => self.reserve_bytes + needed_bytes,
            (kind::UPDATE, _) => self.reserve_bytes,
            (kind::PUNCH, true) if self.punch_reserve_bytes > 0 => self.punch_reserve_bytes + needed_bytes,
            (kind::PUNCH, _) => self.punch_least_bytes,
            _ => 0,
        };
        // What is held since the store was opened is there in time: no checkpoint begins before.
        let free_bytes = self.space.free_in(Tier::Log) + self.space.held_since_open_bytes();
        if free_bytes < wanted_bytes {
            let free_bytes = free_bytes.saturating_sub(wanted_bytes);
            return Err(StoreError::NoSpace { needed_bytes, free_bytes });
        }
        Ok(())
    }

    /// Appends a record that has nothing to say.
    pub(crate) fn append_mark(&mut self) -> Result<Appended, StoreError> {
        let mut record = Writer::default();
        record.begin_record();
        self.append(kind::MARK, &mut record, &Data::default())
    }

    fn put(&mut self, kind: u8, record: &mut Writer, data: &Data) -> Result<Appended, StoreError> {
        let (lsn, meta) = (self.next_lsn, record.meta_bytes());
        let (len, meta_len) = ((meta + data.len()) as u32, meta as u32);
        let header = RecordHeader { kind, len, meta_len, lsn, flushed: self.flushed_lsn, data_crc: data.crc };
        let sealed = header.seal(record, self.nonce, self.current.number);
        let data_at = self.current.start + self.filled + sealed.len() as u64;
        if self.stages {
            let begin = self.staged.len();
            self.staged.extend_from_slice(sealed);
            data.parts.iter().for_each(|part| self.staged.extend_from_slice(part));
            self.staged.resize(begin + record_bytes(len as usize), 0);
        } else {
            self.put_in_place(data_at, sealed, data)?;
        }
        let bytes = record_bytes(len as usize) as u64;
        self.filled += bytes;
        self.since_checkpoint_bytes += bytes;
        self.next_lsn += 1;
        self.records += 1;
        self.last_kind = kind;
        Ok(Appended { lsn, data_at })
    }

    /// Writes a record to where it belongs. It may become durable before the values in blocks that it names: see
    /// [`flush`](Self::flush).
    fn put_in_place(&mut self, data_at: u64, sealed: &[u8], data: &Data) -> Result<(), StoreError> {
        let mut at = data_at;
        for part in &data.parts {
            self.write_raw(at, part)?;
            at += part.len() as u64;
        }
        self.write_raw(data_at - sealed.len() as u64, sealed)?;
        self.records_dirty = true;
        Ok(())
    }

    /// Goes on in a new segment that has room for a record of `needed` bytes.
    pub(crate) fn roll(&mut self, needed: u64) -> Result<(), StoreError> {
        let next = self.new_segment(needed)?;
        if let Err(error) = self.write_first_header(next) {
            self.segments.remove(&next.start);
            self.space.untake(next.start, next.len);
            return Err(error);
        }
        // With the first header: what lay there may be a header of an earlier life, which leads elsewhere, and nothing must lead
        // to it.
        self.flush()?;
        self.put(kind::NEXT, &mut next_record(next), &Data::default())?;
        self.write_segment_header(self.current, Some((next, self.next_lsn)))?;
        self.flush()?;
        self.chain.push(next);
        self.enter(next);
        self.filled = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// The current segment is full; `next` takes its place.
    fn enter(&mut self, next: Segment) {
        if let Some(used) = self.segments.get_mut(&self.current.start) {
            used.live_bytes = std::mem::take(&mut self.current_live);
        }
        self.current = next;
    }

    /// Takes blocks for a segment that has room for a record of `needed` bytes.
    pub(crate) fn new_segment(&mut self, needed: u64) -> Result<Segment, StoreError> {
        let least = SEGMENT_HEADER_BYTES as u64 + needed + record_bytes(NEXT_META_BYTES) as u64;
        let len = whole_blocks(least.max(self.segment_bytes));
        let free_bytes = self.space.free_in(Tier::Log);
        let no_space = StoreError::NoSpace { needed_bytes: least, free_bytes };
        let (start, len) = match self.allocate(Tier::Log, len)? {
            Some(start) => (start, len),
            None => (self.allocate(Tier::Log, least)?.ok_or(no_space)?, whole_blocks(least)),
        };
        let segment = Segment { start, len, number: self.next_segment };
        self.next_segment += 1;
        self.segments.insert(start, SegmentUse { segment, live_bytes: 0 });
        Ok(segment)
    }

    /// Writes the header of a segment that holds nothing yet.
    pub(crate) fn write_first_header(&mut self, segment: Segment) -> Result<(), StoreError> {
        self.check_usable()?;
        let bytes = SegmentHeader { segment, next: None }.encode(self.nonce);
        let result = self.medium.write_padded(segment.start, &bytes);
        self.note_result(result)
    }

    /// Writes a segment's header.
    pub(crate) fn write_segment_header(
        &mut self,
        segment: Segment,
        next: Option<(Segment, u64)>,
    ) -> Result<(), StoreError> {
        let bytes = SegmentHeader { segment, next }.encode(self.nonce);
        self.write_raw(segment.start, &bytes)
    }

    /// Writes bytes that the caller has taken blocks for.
    pub(crate) fn write_raw(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_usable()?;
        let result = self.medium.write(offset, bytes);
        self.note_result(result)
    }

    /// After a failed write nobody knows what the medium holds; one that found no room changed nothing.
    fn note_result(&mut self, result: Result<(), TierError>) -> Result<(), StoreError> {
        self.broken |= matches!(&result, Err(error) if !matches!(error, TierError::NoRoom { .. }));
        Ok(result?)
    }

    /// Makes everything written and appended before durable: one flush for values and records. A power loss before its end may
    /// leave a record without its values; recovery finds that out, for nothing later says that the record was flushed.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        if self.plant == Plant::SkipFlush {
            (self.values_dirty, self.records_dirty) = (false, false);
            return self.write_staged();
        }
        self.write_staged()?;
        self.persist()?;
        (self.values_dirty, self.records_dirty) = (false, false);
        self.flushed_lsn = self.next_lsn;
        for (start, data) in std::mem::take(&mut self.late_values) {
            self.write_raw(start, &data)?;
        }
        Ok(())
    }

    fn write_staged(&mut self) -> Result<(), StoreError> {
        self.check_usable()?;
        if self.staged.is_empty() {
            return Ok(());
        }
        let staged = std::mem::take(&mut self.staged);
        let result = self.write_raw(self.current.start + self.filled - staged.len() as u64, &staged);
        self.staged = staged;
        self.staged.clear();
        result
    }

    /// Flushes the medium alone.
    pub(crate) fn persist(&mut self) -> Result<(), StoreError> {
        let result = self.medium.persist();
        self.broken |= result.is_err();
        Ok(result?)
    }

    /// Whether anything waits for a flush.
    pub(crate) fn is_dirty(&self) -> bool {
        self.values_dirty || self.records_dirty || !self.staged.is_empty()
    }

    /// Whether the last records are durable without any later record that says so.
    pub(crate) fn needs_mark(&self) -> bool {
        self.flushed_lsn == self.next_lsn && self.last_kind != kind::MARK && !self.volatile
    }

    fn check_usable(&self) -> Result<(), StoreError> {
        if self.broken { Err(StoreError::Broken) } else { Ok(()) }
    }
}
