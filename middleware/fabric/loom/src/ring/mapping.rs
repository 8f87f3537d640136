//! A mapping whose control words are loom's atomics, and whose bytes notice accesses that nothing orders.

use std::cell::UnsafeCell;

use loom::cell;

use crate::ring::layout::{ALIGN_BYTES, Geometry};
use crate::ring::sync::AtomicU64;

/// Control words lie this far apart.
const WORD_STRIDE: usize = 128;
const WORDS: usize = 8;

pub(crate) struct Mapping {
    words: Vec<AtomicU64>,
    bytes: UnsafeCell<Vec<u8>>,
    /// One for each line that records and blocks are aligned to.
    lines: Vec<cell::UnsafeCell<()>>,
}

// SAFETY: the bytes are reached after their lines' cells, which fail the test when two threads are not ordered.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let len = geometry.total_bytes();
        Mapping {
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            bytes: UnsafeCell::new(vec![0; len]),
            lines: (0..len / ALIGN_BYTES).map(|_| cell::UnsafeCell::new(())).collect(),
        }
    }

    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(WORD_STRIDE), "no control word");
        &self.words[offset / WORD_STRIDE]
    }

    fn lines(&self, offset: usize, len: usize) -> &[cell::UnsafeCell<()>] {
        let end = (offset + len).div_ceil(ALIGN_BYTES).max(offset / ALIGN_BYTES);
        &self.lines[offset / ALIGN_BYTES..end]
    }

    fn inside(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.lines.len() * ALIGN_BYTES)
    }

    #[must_use]
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        if !self.inside(offset, bytes.len()) {
            return false;
        }
        self.lines(offset, bytes.len()).iter().for_each(|line| line.with_mut(|_| ()));
        // SAFETY: loom runs one thread at a time, and no reference into the bytes outlives a call but a loan's, whose lines
        // the check above would have found in use.
        unsafe { (&mut *self.bytes.get())[offset..offset + bytes.len()].copy_from_slice(bytes) };
        true
    }

    #[must_use]
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        match self.slice(offset, bytes.len()) {
            Some(found) => bytes.copy_from_slice(found),
            None => return false,
        }
        true
    }

    pub(crate) fn copy(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        self.slice(offset, len).map(<[u8]>::to_vec)
    }

    pub(crate) fn slice(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if !self.inside(offset, len) {
            return None;
        }
        self.lines(offset, len).iter().for_each(|line| line.with(|_| ()));
        // SAFETY: in bounds; as in `write`.
        Some(unsafe { &(&*self.bytes.get())[offset..offset + len] })
    }
}
