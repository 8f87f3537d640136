//! A board: one number in memory that other processes of this user can map and look at (docs/design.md §6, the short way).
//!
//! Owns a page of its own. Must never hold more than the number: who looks at it must not need to ask.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::map::{Mapping, share_of};
use crate::{Share, TierError};

const PAGE_BYTES: u64 = 4096;

/// A number for others to look at.
#[derive(Debug)]
pub(crate) struct Board {
    map: Mapping,
    file: OwnedFd,
}

impl Board {
    /// A board that says 0.
    pub(crate) fn new() -> Result<Self, TierError> {
        let (file, map) = Mapping::memory("talea-board", PAGE_BYTES, true)?;
        Ok(Self { map, file })
    }

    /// Shows another number. What this process wrote before is seen by who sees it.
    pub(crate) fn post(&self, number: u64) {
        // SAFETY: the mapping begins on a page, which is aligned for a u64, is at least as long as one, and lives as long as `self`;
        // this process reaches these bytes only here, and as atomics.
        let word = unsafe { AtomicU64::from_ptr(self.map.address(0).cast()) };
        word.store(number, Ordering::Release);
    }

    /// Where others find it.
    pub(crate) fn share(&self) -> Option<Share> {
        share_of(&self.file)
    }
}
