//! Memory that another process maps too.
//!
//! Owns the mapping and every access to it. Must never touch a byte outside it, whatever offset it is asked for, and never
//! hand out a reference through which the compiler may assume that a control word stays as it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::ring::sync::AtomicU64;

/// A shared mapping of a sealed memfd.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain shared memory, accessed through atomics and copies; it may be used and unmapped on any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; several threads may access it at once, as another process does anyway.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are of the mmap in `map`; all borrows of the mapping have ended.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The seals without which the other side could make our accesses fault.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

impl Mapping {
    /// Makes a memfd of `len` zero bytes that nobody can resize any more, and maps it.
    pub(crate) fn create(len: usize) -> io::Result<(Self, OwnedFd)> {
        let fd = rustix::fs::memfd_create("talea-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SEALS | SealFlags::SEAL)?;
        Ok((Self::map(&fd, len)?, fd))
    }

    /// Maps a memfd that somebody else made, if it has the size and the seals that make it safe to touch.
    pub(crate) fn open(fd: &OwnedFd, len: usize) -> io::Result<Self> {
        let size = rustix::fs::fstat(fd)?.st_size;
        if !rustix::fs::fcntl_get_seals(fd)?.contains(SEALS) || usize::try_from(size) != Ok(len) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the ring's memory has a wrong size or no seals"));
        }
        Self::map(fd, len)
    }

    fn map(fd: &OwnedFd, len: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours; the seals keep it from
        // shrinking under us.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                fd.as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    fn inside(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// The control word at `offset`, which is one of the layout's constants.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && self.inside(offset, 8), "a control word outside the mapping");
        // SAFETY: in bounds and aligned (the mapping starts at a page); the memory lives as long as `self`; atomics may be
        // written by others at any time.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Copies `bytes` to `offset`; false, and nothing copied, if that is outside.
    #[must_use]
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        if !self.inside(offset, bytes.len()) {
            return false;
        }
        // SAFETY: in bounds; the source is ours and cannot overlap the mapping. Another process may write the same bytes at
        // the same time only if it breaks the protocol, and then only its own messages suffer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) };
        true
    }

    /// Copies out to `bytes` from `offset`; false, and nothing copied, if that is outside.
    #[must_use]
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        if !self.inside(offset, bytes.len()) {
            return false;
        }
        // SAFETY: in bounds; the target is ours. What another process scribbles meanwhile may arrive torn: callers judge
        // only the copy.
        unsafe { std::ptr::copy_nonoverlapping(self.base.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// Copies out `len` bytes from `offset`, or `None` if they are outside.
    pub(crate) fn copy(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        if !self.inside(offset, len) {
            return None;
        }
        let mut bytes = Vec::with_capacity(len);
        // SAFETY: in bounds; the vector has room for `len` bytes, all of which are written before its length says so.
        unsafe {
            std::ptr::copy_nonoverlapping(self.base.as_ptr().add(offset), bytes.as_mut_ptr(), len);
            bytes.set_len(len);
        }
        Some(bytes)
    }

    /// The bytes at `offset` in place, or `None` if they are outside.
    ///
    /// A peer that breaks the protocol can change them while they are looked at. Readers must not depend on reading the same
    /// value twice: copy, then judge the copy.
    pub(crate) fn slice(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if !self.inside(offset, len) {
            return None;
        }
        // SAFETY: in bounds and alive as long as `self`. An honest peer does not write a block before its release; one that
        // does changes plain bytes, every value of which is valid.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_touched() {
        let (mapping, _fd) = Mapping::create(8192).unwrap();
        assert!(mapping.write(8190, &[1, 2]) && !mapping.write(8191, &[1, 2]) && !mapping.write(usize::MAX, &[1]));
        assert_eq!(mapping.slice(8190, 2), Some(&[1u8, 2][..]));
        assert!(mapping.slice(8190, 3).is_none() && mapping.slice(usize::MAX, 2).is_none());
        assert_eq!(mapping.copy(8190, 2), Some(vec![1, 2]));
        assert!(mapping.copy(1, usize::MAX).is_none());
    }

    #[test]
    fn the_memory_cannot_be_shrunk_by_the_other_side() {
        let (_mapping, fd) = Mapping::create(8192).unwrap();
        assert!(rustix::fs::ftruncate(&fd, 4096).is_err());
        assert!(Mapping::open(&fd, 4096).is_err());
        assert!(Mapping::open(&fd, 8192).is_ok());
        let loose = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&loose, 8192).unwrap();
        assert!(Mapping::open(&loose, 8192).is_err());
    }
}
