//! A shared mapping of a file: the only place that turns offsets into memory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::{Share, TierError};

/// Where other processes find a file of [`Mapping::memory`].
pub(crate) fn share_of(file: &OwnedFd) -> Option<Share> {
    let stat = fstat(file).ok()?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Some(Share { path, device: stat.st_dev, inode: stat.st_ino })
}

/// Bytes of a file in memory, shared with every other process that maps it.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: u64,
    synchronous: bool,
}

// SAFETY: the mapping is owned by this value alone; its memory is reached only through borrows of it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file, which must not be truncated below that afterwards.
    pub(crate) fn shared(file: impl AsFd, len: u64) -> Result<Self, TierError> {
        let failed = |source: std::io::Error| TierError::Map { bytes: len, source };
        let size = usize::try_from(len).map_err(|_| failed(std::io::ErrorKind::OutOfMemory.into()))?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let map = |flags| {
            // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
            unsafe { mmap(std::ptr::null_mut(), size, prot, flags, &file, 0) }
        };
        // Only a DAX file system grants this: then the file's blocks are as durable as the bytes in them.
        let (start, synchronous) = match map(MapFlags::SHARED_VALIDATE | MapFlags::SYNC) {
            Ok(start) => (start, true),
            Err(_) => {
                let plain = map(MapFlags::SHARED | MapFlags::NORESERVE);
                (plain.map_err(|errno| failed(errno.into()))?, false)
            }
        };
        // SAFETY: the range was just mapped; advice about page sizes changes no contents, and may be refused.
        let _ = unsafe { madvise(start, size, Advice::LinuxHugepage) };
        let start = NonNull::new(start.cast()).ok_or_else(|| failed(std::io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self { start, len, synchronous })
    }

    /// Memory of this process that others can be given to map: a file without a name, mapped, that can be opened for reading alone and keeps
    /// its size; with `read_only` no other mapping can write to it, and neither can `write`.
    pub(crate) fn memory(name: &str, bytes: u64, read_only: bool) -> Result<(OwnedFd, Self), TierError> {
        let failed = |source: Errno| TierError::Map { bytes, source: source.into() };
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
        ftruncate(&file, bytes).map_err(failed)?;
        let map = Self::shared(&file, bytes)?;
        fchmod(&file, Mode::RUSR).map_err(failed)?;
        let mut seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        seals.set(SealFlags::FUTURE_WRITE, read_only);
        fcntl_add_seals(&file, seals).map_err(failed)?;
        Ok((file, map))
    }

    /// A flush of cache lines is enough: the file lies on persistent memory.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.synchronous
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Address of an offset, for libraries that take one.
    pub(crate) fn address(&self, offset: u64) -> *mut u8 {
        assert!(offset <= self.len, "offset {offset} lies outside the mapping");
        // SAFETY: the offset lies inside the mapping (or one past it), checked above.
        unsafe { self.start.as_ptr().add(offset as usize) }
    }

    /// Panics outside the mapping: callers check ranges first.
    pub(crate) fn slice(&self, offset: u64, len: u64) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "range outside the mapping");
        // SAFETY: inside the mapping, checked above; written only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(offset), len as usize) }
    }

    /// Panics outside the mapping: callers check ranges first.
    pub(crate) fn slice_mut(&mut self, offset: u64, len: u64) -> &mut [u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "range outside the mapping");
        // SAFETY: inside the mapping, checked above; `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.address(offset), len as usize) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that mmap returned; no borrow of it is left when its owner is dropped.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len as usize) };
    }
}
