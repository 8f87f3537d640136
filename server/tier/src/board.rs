//! A board: one number in memory that other processes of this user can map and look at (docs/design.md §6, the short way).
//!
//! Owns a page of its own. Must never hold more than the number: who looks at it must not need to ask.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;

use crate::map::Mapping;
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
        let failed = |source: Errno| TierError::Map { bytes: PAGE_BYTES, source: source.into() };
        let file = memfd_create("talea-board", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
        ftruncate(&file, PAGE_BYTES).map_err(failed)?;
        let map = Mapping::shared(&file, PAGE_BYTES)?;
        fchmod(&file, Mode::RUSR).map_err(failed)?;
        // Whoever maps it too can neither write nor change its size, whatever it opens the file for.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(failed)?;
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
        let stat = fstat(&self.file).ok()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        Some(Share { path, device: stat.st_dev, inode: stat.st_ino })
    }
}
