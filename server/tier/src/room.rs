//! What files of tiers have in common: room taken from the file system ahead of use, and one user at a time.
//!
//! On a disk (and on DAX) room costs nothing but a note of it, so all of it is taken at the start. On tmpfs it is memory, cleared by
//! the kernel as it is given, so it is taken in steps: others may fill the file system meanwhile. Must never let a write through a
//! mapping find no room: that is a signal, not an error.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstat, fstatvfs};

use crate::TierError;

/// Room is taken ahead in steps of this many bytes, so that a full file system is an error and not a signal. On memory (tmpfs, DAX)
/// the kernel clears what it gives, a megabyte in about a third of a millisecond: a step must not hold its caller up for longer.
pub(crate) const MEMORY_STEP_BYTES: u64 = 1 << 20;
/// The same on files behind a queue, where room is only noted.
pub(crate) const FILE_STEP_BYTES: u64 = 64 << 20;

/// How long the user before may take to go.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);

/// How far the file system below a file has promised room.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: u64,
    capacity_bytes: u64,
    step_bytes: u64,
}

impl Room {
    /// Nothing yet, of a file of `capacity_bytes`; it is taken in steps.
    pub(crate) fn new(capacity_bytes: u64, step_bytes: u64) -> Self {
        Self { bytes: 0, capacity_bytes, step_bytes }
    }

    /// All of it: a device.
    pub(crate) fn whole(capacity_bytes: u64) -> Self {
        Self { bytes: capacity_bytes, capacity_bytes, step_bytes: FILE_STEP_BYTES }
    }

    /// Takes all of it at once.
    pub(crate) fn take_all(&mut self, file: &File) -> Result<(), TierError> {
        // Trying alone would fill the file system first.
        self.check(file)?;
        self.ensure(file, self.capacity_bytes)
    }

    /// Whether the file system could hold all of it, as far as one can know before it is taken.
    pub(crate) fn check(&self, file: &File) -> Result<(), TierError> {
        match room_bytes(file) {
            Some(bytes) if bytes < self.capacity_bytes => {
                Err(TierError::NoRoom { offset: bytes, source: std::io::ErrorKind::StorageFull.into() })
            }
            _ => Ok(()),
        }
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
        let generous = end.next_multiple_of(self.step_bytes).min(self.capacity_bytes);
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

/// Bytes that a file may come to, as far as its file system has a limit and says it.
fn room_bytes(file: &File) -> Option<u64> {
    let (system, own) = (fstatvfs(file).ok()?, fstat(file).ok()?);
    // One without a limit says 0 of all.
    (system.f_blocks > 0)
        .then(|| system.f_bavail.saturating_mul(system.f_frsize).saturating_add(own.st_blocks as u64 * 512))
}

/// One process at a time: two would write one log. That of a process that was killed goes a moment after it, when the kernel has
/// taken its ring apart.
pub(crate) fn lock(file: &File) -> std::io::Result<()> {
    let asked = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if asked.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(std::io::Error::other("another process has it open")),
            result => return Ok(result?),
        }
    }
}

/// There is no room for all of a file. One that had its size before may hold data, and is opened even so: what finds no room later is
/// refused. One that was made now, or made longer, is as it was before.
pub(crate) fn only_if_old(
    error: TierError,
    path: &Path,
    file: &File,
    len_before: u64,
    capacity_bytes: u64,
) -> Result<(), TierError> {
    if len_before >= capacity_bytes {
        return Ok(());
    }
    let room_bytes = room_bytes(file).unwrap_or(0);
    put_back(path, file, len_before, capacity_bytes);
    match error {
        TierError::NoRoom { .. } => {
            Err(TierError::TooLarge { path: path.to_owned(), bytes: capacity_bytes, room_bytes })
        }
        other => Err(other),
    }
}

/// Takes back what opening did to a file: one that was made goes, one that was made longer is as long as it was.
pub(crate) fn put_back(path: &Path, file: &File, len_before: u64, capacity_bytes: u64) {
    if len_before == 0 {
        let _ = std::fs::remove_file(path);
    } else if len_before < capacity_bytes {
        let _ = file.set_len(len_before);
    }
}

/// Lets the next user in, though other handles to the file may still be open.
pub(crate) fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn room_is_taken_in_short_steps_on_memory() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(64 << 20).unwrap();
        let mut room = Room::new(64 << 20, MEMORY_STEP_BYTES);
        let mut before = 0;
        for end in (0..16u64).map(|n| (n + 1) << 20) {
            room.ensure(&file, end).unwrap();
            let taken = file.metadata().unwrap().blocks() * 512;
            assert!(room.bytes() >= end && taken >= end, "{end} bytes were promised, {taken} are there");
            assert!(taken - before <= MEMORY_STEP_BYTES, "{} bytes were cleared at once", taken - before);
            before = taken;
        }
    }
}
