//! The receiving end of one direction.
//!
//! Owns the head. Must never believe a tail, a length or an offset of the other side before it has copied and checked it,
//! and releases what it lent in order, whatever the order in which the loans come back.

use std::collections::VecDeque;
use std::ops::Deref;

use zerocopy::{FromZeros, IntoBytes};

use crate::Message;
use crate::endpoint::MAX_MESSAGE_BYTES;
use crate::ring::Lied;
use crate::ring::doorbell::Doorbell;
use crate::ring::layout::{
    ALIGN_BYTES, INLINE_MAX_BYTES, KIND_BLOCK, KIND_INLINE, KIND_PAD, Lane, RECORD_BYTES, Record, SLEEPS_FOR_ROOM,
    round_up,
};
use crate::ring::mapping::Mapping;
use crate::ring::sync::{Arc, AtomicU64, Mutex, Ordering, PoisonError};

pub(crate) struct Consumer {
    shared: Arc<Shared>,
    /// Up to where messages were taken.
    next: u64,
}

struct Shared {
    mapping: Arc<Mapping>,
    lane: Lane,
    doorbell: Arc<Doorbell>,
    /// Our own copy of the head: the word in the mapping is for the other side, which may scribble on it.
    released: AtomicU64,
    loans: Mutex<Loans>,
}

#[derive(Default)]
struct Loans {
    /// Number of the first of `open`.
    first: u64,
    /// Where each loan that is not yet released ends, and whether it has come back.
    open: VecDeque<(u64, bool)>,
}

/// A message in place, in the area.
struct LentBlock {
    shared: Arc<Shared>,
    number: u64,
    offset: usize,
    len: usize,
}

impl Consumer {
    pub(crate) fn new(mapping: Arc<Mapping>, lane: Lane, doorbell: Arc<Doorbell>) -> Self {
        let loans = Mutex::new(Loans::default());
        let shared = Shared { mapping, lane, doorbell, released: AtomicU64::new(0), loans };
        Consumer { shared: Arc::new(shared), next: 0 }
    }

    /// Whether something was published that was not taken.
    pub(crate) fn has_data(&self) -> bool {
        self.shared.mapping.word(self.shared.lane.tail).load(Ordering::Acquire) != self.next
    }

    /// Takes the next message.
    pub(crate) fn pop(&mut self) -> Result<Option<Message>, Lied> {
        let tail = self.shared.mapping.word(self.shared.lane.tail).load(Ordering::Acquire);
        if tail == self.next {
            return Ok(None);
        }
        let ring_bytes = self.shared.lane.geometry.ring_bytes;
        let released = self.shared.released.load(Ordering::Relaxed);
        let true_tail = tail > self.next && tail.is_multiple_of(ALIGN_BYTES as u64);
        if !true_tail || tail - released > ring_bytes as u64 {
            return Err(Lied);
        }
        let mut from = self.next;
        let mut record = self.record(from)?;
        if record.kind.get() == KIND_PAD {
            from += (ring_bytes - self.position(from)) as u64;
            if from >= tail {
                return Err(Lied);
            }
            record = self.record(from)?;
        }
        let len = record.len.get() as usize;
        match record.kind.get() {
            KIND_INLINE => self.take_inline(from, tail, len).map(Some),
            KIND_BLOCK => self.lend_block(from, len, record.offset.get()).map(Some),
            _ => Err(Lied),
        }
    }

    fn position(&self, count: u64) -> usize {
        (count % self.shared.lane.geometry.ring_bytes as u64) as usize
    }

    /// A copy of the record's header at `count`, which is aligned, so that it lies inside the ring.
    fn record(&self, count: u64) -> Result<Record, Lied> {
        let mut record = Record::new_zeroed();
        let at = self.shared.lane.ring + self.position(count);
        if self.shared.mapping.read(at, record.as_mut_bytes()) { Ok(record) } else { Err(Lied) }
    }

    /// Small messages are copied: that costs less than keeping a loan, and nobody can change them any more.
    fn take_inline(&mut self, from: u64, tail: u64, len: usize) -> Result<Message, Lied> {
        let position = self.position(from);
        let bytes = round_up(RECORD_BYTES + len.min(INLINE_MAX_BYTES), ALIGN_BYTES);
        let in_ring = position + bytes <= self.shared.lane.geometry.ring_bytes;
        if len > INLINE_MAX_BYTES || !in_ring || from + bytes as u64 > tail {
            return Err(Lied);
        }
        let message = self.shared.mapping.copy(self.shared.lane.ring + position + RECORD_BYTES, len).ok_or(Lied)?;
        self.next = from + bytes as u64;
        self.shared.lend(self.next, true);
        Ok(Message::Owned(message))
    }

    fn lend_block(&mut self, from: u64, len: usize, offset: u64) -> Result<Message, Lied> {
        let area_bytes = self.shared.lane.geometry.area_bytes;
        let offset = usize::try_from(offset).map_err(|_| Lied)?;
        let inside = offset.checked_add(len).is_some_and(|end| end <= area_bytes);
        if len > MAX_MESSAGE_BYTES || !inside {
            return Err(Lied);
        }
        let offset = self.shared.lane.area + offset;
        // Looked at once here, so that the loan's deref cannot fail.
        self.shared.mapping.slice(offset, len).ok_or(Lied)?;
        self.next = from + ALIGN_BYTES as u64;
        let number = self.shared.lend(self.next, false);
        Ok(Message::Lent(Box::new(LentBlock { shared: self.shared.clone(), number, offset, len })))
    }
}

impl Shared {
    /// Notes a loan that ends at `end`, or one that came back at once; gives its number.
    fn lend(&self, end: u64, back: bool) -> u64 {
        let mut loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        loans.open.push_back((end, back));
        let number = loans.first + loans.open.len() as u64 - 1;
        if back {
            self.release(&mut loans);
        }
        number
    }

    fn come_back(&self, number: u64) {
        let mut loans = self.loans.lock().unwrap_or_else(PoisonError::into_inner);
        let index = number.wrapping_sub(loans.first) as usize;
        if let Some((_, back)) = loans.open.get_mut(index) {
            *back = true;
        }
        self.release(&mut loans);
    }

    /// Moves the head over all loans that have come back, up to the first that has not.
    fn release(&self, loans: &mut Loans) {
        let mut head = None;
        while let Some(&(end, true)) = loans.open.front() {
            loans.open.pop_front();
            loans.first += 1;
            head = Some(end);
        }
        if let Some(head) = head {
            self.released.store(head, Ordering::Relaxed);
            self.mapping.word(self.lane.head).store(head, Ordering::Release);
            self.doorbell.published(SLEEPS_FOR_ROOM);
        }
    }
}

impl Deref for LentBlock {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.shared.mapping.slice(self.offset, self.len).unwrap_or_default()
    }
}

impl Drop for LentBlock {
    fn drop(&mut self) {
        self.shared.come_back(self.number);
    }
}
