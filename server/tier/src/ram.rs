//! Memory as a medium: nothing survives the process, and it says so.
//!
//! The memory is a memfd, so that another process can be given it to map.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

use crate::map::Mapping;
use crate::medium::check_range;
use crate::{Medium, MediumKind, Share, TierError};

/// Memory of this process.
#[derive(Debug)]
pub struct RamMedium {
    map: Mapping,
    file: OwnedFd,
}

impl RamMedium {
    /// Zeros; pages are taken from the machine when they are first written.
    pub fn new(capacity_bytes: u64) -> Result<Self, TierError> {
        let failed = |source: rustix::io::Errno| TierError::Map { bytes: capacity_bytes, source: source.into() };
        let file = memfd_create("talea-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
        ftruncate(&file, capacity_bytes).map_err(failed)?;
        let map = Mapping::shared(&file, capacity_bytes)?;
        // Whoever maps it too can neither write nor change its size, whatever it opens the file for.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(failed)?;
        Ok(Self { map, file })
    }
}

impl Medium for RamMedium {
    fn kind(&self) -> MediumKind {
        MediumKind::Ram
    }
    fn capacity_bytes(&self) -> u64 {
        self.map.len()
    }
    fn is_persistent(&self) -> bool {
        false
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        check_range(offset, data.len(), self.map.len())?;
        self.map.slice_mut(offset, data.len() as u64).copy_from_slice(data);
        Ok(())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        check_range(offset, out.len(), self.map.len())?;
        out.copy_from_slice(self.map.slice(offset, out.len() as u64));
        Ok(())
    }
    fn bytes(&self, offset: u64, len: u64) -> Option<&[u8]> {
        (offset.checked_add(len)? <= self.map.len()).then(|| self.map.slice(offset, len))
    }
    fn share(&self) -> Option<Share> {
        let stat = fstat(&self.file).ok()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        Some(Share { path, device: stat.st_dev, inode: stat.st_ino })
    }
    fn persist(&mut self) -> Result<(), TierError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_bytes_and_refuses_what_lies_outside() {
        let mut ram = RamMedium::new(1 << 20).unwrap();
        assert_eq!(ram.bytes(5, 3).unwrap(), [0; 3]);
        ram.write(5, b"abc").unwrap();
        assert_eq!(ram.bytes(5, 3).unwrap(), b"abc");
        assert!(!ram.is_persistent());
        assert!(matches!(ram.write((1 << 20) - 2, b"abc"), Err(TierError::OutOfRange { .. })));
        assert!(matches!(ram.read(u64::MAX, &mut [0; 2]), Err(TierError::OutOfRange { .. })));
        assert!(ram.bytes(u64::MAX, 2).is_none());
    }
}
