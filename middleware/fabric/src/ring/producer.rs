//! The sending end of one direction.
//!
//! Owns the tail and the blocks of the area. Must never overwrite what the other side has not released, and must never
//! trust the head that the other side writes.

use std::collections::VecDeque;
use std::io::IoSlice;

use zerocopy::IntoBytes;

use crate::endpoint::MAX_MESSAGE_BYTES;
use crate::ring::Lied;
use crate::ring::layout::{
    ALIGN_BYTES, INLINE_MAX_BYTES, KIND_BLOCK, KIND_INLINE, KIND_PAD, Lane, RECORD_BYTES, Record, round_up,
};
use crate::ring::mapping::Mapping;
use crate::ring::sync::{Arc, Ordering};

pub(crate) struct Producer {
    mapping: Arc<Mapping>,
    lane: Lane,
    tail: u64,
    /// The head as we last saw it.
    head: u64,
    blocks: VecDeque<Block>,
}

/// A block of the area that is in flight.
struct Block {
    start: usize,
    end: usize,
    /// Free when the head has reached this position.
    until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Full,
    TooLarge,
    Lied,
}

impl From<Lied> for PushError {
    fn from(_: Lied) -> Self {
        PushError::Lied
    }
}

impl Producer {
    pub(crate) fn new(mapping: Arc<Mapping>, lane: Lane) -> Self {
        Producer { mapping, lane, tail: 0, head: 0, blocks: VecDeque::new() }
    }

    /// Publishes one message.
    pub(crate) fn push(&mut self, parts: &[IoSlice<'_>]) -> Result<(), PushError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > MAX_MESSAGE_BYTES {
            return Err(PushError::TooLarge);
        }
        let inline = len <= INLINE_MAX_BYTES;
        let record_bytes = if inline { round_up(RECORD_BYTES + len, ALIGN_BYTES) } else { ALIGN_BYTES };
        let (at, pad_bytes) = self.place(record_bytes)?;
        let tail = self.tail + pad_bytes as u64 + record_bytes as u64;
        let message_at;
        let record = if inline {
            message_at = at + RECORD_BYTES;
            record(KIND_INLINE, len, 0)
        } else {
            let start = self.allocate(len)?;
            self.blocks.push_back(Block { start, end: start + round_up(len, ALIGN_BYTES), until: tail });
            message_at = self.lane.area + start;
            record(KIND_BLOCK, len, start)
        };
        let mut to = message_at;
        let mut inside = true;
        for part in parts {
            inside &= self.mapping.write(to, part);
            to += part.len();
        }
        if pad_bytes > 0 {
            let pad_at = self.lane.ring + self.position(self.tail);
            inside &= self.mapping.write(pad_at, self::record(KIND_PAD, 0, 0).as_bytes());
        }
        inside &= self.mapping.write(at, record.as_bytes());
        debug_assert!(inside, "our own offsets lie inside");
        self.tail = tail;
        self.mapping.word(self.lane.tail).store(tail, Ordering::Release);
        Ok(())
    }

    /// The head as it is now, for telling whether anything changed since.
    pub(crate) fn head_now(&self) -> u64 {
        self.mapping.word(self.lane.head).load(Ordering::Acquire)
    }

    /// The head as the last push saw it.
    pub(crate) fn head_seen(&self) -> u64 {
        self.head
    }

    fn position(&self, count: u64) -> usize {
        (count % self.lane.geometry.ring_bytes as u64) as usize
    }

    /// Where a record of `bytes` goes, and how much padding before it.
    fn place(&mut self, bytes: usize) -> Result<(usize, usize), PushError> {
        let ring_bytes = self.lane.geometry.ring_bytes;
        let position = self.position(self.tail);
        let to_end = ring_bytes - position;
        let pad_bytes = if bytes > to_end { to_end } else { 0 };
        let fits = |head: u64, tail: u64| (tail - head) as usize + pad_bytes + bytes <= ring_bytes;
        if !fits(self.head, self.tail) {
            self.refresh()?;
            if !fits(self.head, self.tail) {
                return Err(PushError::Full);
            }
        }
        let position = if pad_bytes > 0 { 0 } else { position };
        Ok((self.lane.ring + position, pad_bytes))
    }

    /// Takes over the other side's head, if it can be true, and frees what it released.
    fn refresh(&mut self) -> Result<(), Lied> {
        let head = self.head_now();
        if head < self.head || head > self.tail {
            return Err(Lied);
        }
        self.head = head;
        while self.blocks.front().is_some_and(|block| block.until <= head) {
            self.blocks.pop_front();
        }
        Ok(())
    }

    fn allocate(&mut self, len: usize) -> Result<usize, PushError> {
        // Always with a fresh head: an area that has become empty starts again at its beginning, which is in the cache.
        self.refresh()?;
        self.find(round_up(len, ALIGN_BYTES)).ok_or(PushError::Full)
    }

    fn find(&self, bytes: usize) -> Option<usize> {
        let area_bytes = self.lane.geometry.area_bytes;
        let (Some(oldest), Some(newest)) = (self.blocks.front(), self.blocks.back()) else {
            return (bytes <= area_bytes).then_some(0);
        };
        let wrapped = newest.start < oldest.start;
        if wrapped {
            return (bytes <= oldest.start - newest.end).then_some(newest.end);
        }
        if bytes <= area_bytes - newest.end {
            return Some(newest.end);
        }
        (bytes <= oldest.start).then_some(0)
    }
}

fn record(kind: u32, len: usize, offset: usize) -> Record {
    Record { kind: kind.into(), len: (len as u32).into(), offset: (offset as u64).into() }
}
