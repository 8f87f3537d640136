//! A chain of segments beside the log: what a checkpoint is written into.
//!
//! Its records go to the medium at once and are durable only after the log's next persist; nothing points to the chain before.

use super::bytes::Writer;
use super::header::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, record_bytes};
use super::{Appended, Log, NEXT_META_BYTES, Segment, next_record, record::kind};
use crate::StoreError;
use crate::checksum::crc32c;

/// Numbers of a checkpoint's records begin here, so that none is ever taken for one of the log.
pub(crate) const CHECKPOINT_LSN: u64 = 1 << 63;

/// A chain being written.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Its first segment.
    pub(crate) first: Segment,
    /// All its segments.
    pub(crate) segments: Vec<Segment>,
    /// Bytes of its records.
    pub(crate) bytes: u64,
    current: Segment,
    filled: u64,
    next_lsn: u64,
}

impl Chain {
    /// Takes a first segment.
    pub(crate) fn start(log: &mut Log) -> Result<Self, StoreError> {
        let first = log.new_segment(0)?;
        let chain = Self {
            first,
            segments: vec![first],
            bytes: 0,
            current: first,
            filled: SEGMENT_HEADER_BYTES as u64,
            next_lsn: CHECKPOINT_LSN,
        };
        log.write_first_header(first)?;
        Ok(chain)
    }

    /// Appends a record.
    pub(crate) fn append(
        &mut self,
        log: &mut Log,
        kind: u8,
        record: &mut Writer,
        data: &[u8],
    ) -> Result<Appended, StoreError> {
        let needed = record_bytes(record.meta_bytes() + data.len()) as u64;
        if self.filled + needed + record_bytes(NEXT_META_BYTES) as u64 > self.current.len {
            let next = log.new_segment(needed)?;
            self.segments.push(next);
            log.write_first_header(next)?;
            self.write(log, kind::NEXT, &mut next_record(next), &[])?;
            let first_lsn = self.next_lsn;
            log.write_segment_header(self.current, Some((next, first_lsn)))?;
            self.current = next;
            self.filled = SEGMENT_HEADER_BYTES as u64;
        }
        self.write(log, kind, record, data)
    }

    fn write(&mut self, log: &mut Log, kind: u8, record: &mut Writer, data: &[u8]) -> Result<Appended, StoreError> {
        let (lsn, meta) = (self.next_lsn, record.meta_bytes());
        let (len, meta_len) = ((meta + data.len()) as u32, meta as u32);
        let data_crc = if data.is_empty() { 0 } else { crc32c(data) };
        let header = RecordHeader { kind, len, meta_len, lsn, flushed: 0, data_crc };
        let (at, data_at) = (self.current.start + self.filled, (RECORD_HEADER_BYTES + meta) as u64);
        log.write_raw(at, header.seal(record, log.nonce(), self.current.number))?;
        log.write_raw(at + data_at, data)?;
        let bytes = record_bytes(len as usize) as u64;
        self.filled += bytes;
        self.bytes += bytes;
        self.next_lsn += 1;
        Ok(Appended { lsn, data_at: at + data_at })
    }
}
