//! Windows: memory of another process of this node and user, mapped read-only (docs/design.md §6, the short way).
//!
//! Owns the mapping. Must never write to it, hand out a reference into it (its owner may change it at any time), or know what
//! the bytes mean: whoever copies out of it verifies what came.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, Mode, OFlags, SealFlags, fcntl_get_seals, fstat, open};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Memory that others write to.
pub trait Memory: Send + Sync {
    /// Copies what lies at `offset`; false if that is outside.
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool;

    /// The number that memory begins with. Whatever its owner wrote before it wrote that is seen after this.
    fn word(&self) -> Option<u64> {
        None
    }
}

/// A file in memory, mapped read-only.
#[derive(Debug)]
pub struct Window {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is owned by this value alone, is never written through it, and is valid in every thread until dropped.
unsafe impl Send for Window {}
// SAFETY: as above; `copy` reads through a raw pointer and makes no reference.
unsafe impl Sync for Window {}

impl Window {
    /// Maps the first `bytes` of the file at `path`, if it is the one with these numbers, a regular file, and as long as that.
    ///
    /// Memory without a name (a memfd) must be sealed against shrinking. A file with a name, as of a tier in persistent memory, cannot be
    /// sealed: whoever cuts it off while it is mapped takes the memory from its server and from all readers, who are ended by SIGBUS.
    pub fn open(path: &str, device: u64, inode: u64, bytes: u64) -> io::Result<Self> {
        // Nonblocking: what the path leads to may be a FIFO that nobody writes to.
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty())?;
        let stat = fstat(&file)?;
        let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_regular || stat.st_dev != device || stat.st_ino != inode || (stat.st_size as u64) < bytes {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the path leads to another file"));
        }
        if stat.st_nlink == 0 && !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the memory is not sealed against shrinking"));
        }
        Self::map(&file, bytes)
    }

    fn map(file: impl AsFd, bytes: u64) -> io::Result<Self> {
        let size = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), size, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes: size })
    }
}

impl Memory for Window {
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        let inside =
            usize::try_from(offset).is_ok_and(|from| from.checked_add(out.len()).is_some_and(|end| end <= self.bytes));
        if inside {
            // SAFETY: the range lies inside the mapping, which the file's owner never shrinks (a memfd is sealed against it; that
            // a file with a name is cut off ends the process by SIGBUS, and is no undefined behaviour);
            // `out` is ours alone and cannot overlap a read-only mapping. The owner may write meanwhile: the bytes are plain
            // data, and the caller verifies them before it believes them.
            unsafe {
                std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset as usize), out.as_mut_ptr(), out.len());
            }
        }
        inside
    }

    fn word(&self) -> Option<u64> {
        // SAFETY: the mapping begins on a page, so it is aligned for a u64, is at least that long where this is true, and is valid as
        // long as `self`. The owner writes to it as an atomic; it is only loaded here, which a read-only mapping allows.
        (self.bytes >= size_of::<u64>())
            .then(|| unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast()) }.load(Ordering::Acquire))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: exactly the range that mmap returned; no reference into it was ever handed out.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn shows_what_the_owner_writes_and_nothing_else() {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("window", flags).unwrap();
        rustix::io::write(&file, &[7; 8192]).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        let stat = fstat(&file).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(Window::open(&path, stat.st_dev, stat.st_ino + 1, 8192).is_err(), "another file");
        assert!(Window::open(&path, stat.st_dev, stat.st_ino, 8193).is_err(), "too small a file");
        let window = Window::open(&path, stat.st_dev, stat.st_ino, 8192).unwrap();
        rustix::io::pwrite(&file, b"news", 100).unwrap();
        let mut out = [0; 6];
        assert!(window.copy(99, &mut out));
        assert_eq!(&out, b"\x07news\x07");
        assert!(window.copy(8186, &mut out));
        assert!(!window.copy(8187, &mut out));
        assert!(!window.copy(u64::MAX, &mut out));
    }

    #[test]
    fn what_could_be_shrunk_or_would_block_is_not_opened() {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("window", flags).unwrap();
        rustix::fs::ftruncate(&file, 8192).unwrap();
        let stat = fstat(&file).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let kind = |path: &str, stat: &rustix::fs::Stat, bytes| {
            Window::open(path, stat.st_dev, stat.st_ino, bytes).map(drop).map_err(|error| error.kind())
        };
        assert_eq!(kind(&path, &stat, 8192), Err(io::ErrorKind::PermissionDenied));
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        assert_eq!(kind(&path, &stat, 8192), Err(io::ErrorKind::PermissionDenied), "another seal");
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        assert_eq!(kind(&path, &stat, 8192), Ok(()));
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo").to_str().unwrap().to_owned();
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(kind(&fifo, &rustix::fs::stat(&fifo).unwrap(), 0), Err(io::ErrorKind::NotFound));
        let named = place.path().join("pmem").to_str().unwrap().to_owned();
        std::fs::write(&named, [1; 4096]).unwrap();
        assert_eq!(kind(&named, &rustix::fs::stat(&named).unwrap(), 4096), Ok(()));
    }
}
