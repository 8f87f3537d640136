//! What files of tiers have in common: room taken from the file system ahead of use, and one user at a time.

use std::fs::File;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use crate::TierError;

/// Room is taken in steps of this many bytes, so that a full file system is an error and not a signal.
const STEP_BYTES: u64 = 64 << 20;

/// How far the file system below a file has promised room.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: u64,
    capacity_bytes: u64,
}

impl Room {
    /// Nothing yet, of a file of `capacity_bytes`.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self { bytes: 0, capacity_bytes }
    }

    /// All of it: a device.
    pub(crate) fn whole(capacity_bytes: u64) -> Self {
        Self { bytes: capacity_bytes, capacity_bytes }
    }

    /// There is room for all bytes below it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes room for everything below `end`.
    pub(crate) fn ensure(&mut self, file: &File, end: u64) -> Result<(), TierError> {
        if end <= self.bytes {
            return Ok(());
        }
        let generous = end.next_multiple_of(STEP_BYTES).min(self.capacity_bytes);
        for to in [generous, end] {
            match fallocate(file, FallocateFlags::empty(), self.bytes, to - self.bytes) {
                Ok(()) => {
                    self.bytes = to;
                    return Ok(());
                }
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    // No such call there: writing takes the room as well, but only as it goes.
                    self.bytes = self.capacity_bytes;
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) if to == end => {
                    return Err(TierError::NoRoom { offset: end, source: errno.into() });
                }
                Err(_) => {}
            }
        }
        Err(TierError::NoRoom { offset: end, source: std::io::ErrorKind::Interrupted.into() })
    }
}

/// One process at a time: two would write one log.
pub(crate) fn lock(file: &File) -> std::io::Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => std::io::Error::other("another process has it open"),
        other => other.into(),
    })
}

/// Lets the next user in, though other handles to the file may still be open.
pub(crate) fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}
