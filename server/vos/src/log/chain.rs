//! A chain of segments beside the log: what a checkpoint is written into.
//!
//! Its records go to the medium at once and are durable only after the log's next persist; nothing points to the chain before.

use super::header::{RecordHeader, SEGMENT_HEADER_BYTES, record_bytes};
use super::{Appended, Log, NEXT_PAYLOAD_BYTES, Segment, next_payload, record::kind};
use crate::StoreError;

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
    buffer: Vec<u8>,
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
            buffer: Vec::new(),
        };
        log.write_segment_header(first, None)?;
        Ok(chain)
    }

    /// Appends a record.
    pub(crate) fn append(&mut self, log: &mut Log, kind: u8, payload: &[u8]) -> Result<Appended, StoreError> {
        let needed = record_bytes(payload.len()) as u64;
        if self.filled + needed + record_bytes(NEXT_PAYLOAD_BYTES) as u64 > self.current.len {
            let next = log.new_segment(needed)?;
            self.segments.push(next);
            log.write_segment_header(next, None)?;
            self.write(log, kind::NEXT, &next_payload(next))?;
            let first_lsn = self.next_lsn;
            log.write_segment_header(self.current, Some((next, first_lsn)))?;
            self.current = next;
            self.filled = SEGMENT_HEADER_BYTES as u64;
        }
        self.write(log, kind, payload)
    }

    fn write(&mut self, log: &mut Log, kind: u8, payload: &[u8]) -> Result<Appended, StoreError> {
        let lsn = self.next_lsn;
        let header = RecordHeader { len: payload.len() as u32, lsn, flushed: 0, kind };
        self.buffer.clear();
        header.append(payload, log.nonce(), self.current.number, &mut self.buffer);
        let at = self.current.start + self.filled;
        log.write_raw(at, &self.buffer)?;
        self.filled += self.buffer.len() as u64;
        self.bytes += self.buffer.len() as u64;
        self.next_lsn += 1;
        Ok(Appended { lsn, payload_at: at + super::header::RECORD_HEADER_BYTES as u64 })
    }
}
