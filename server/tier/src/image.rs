//! A medium's file as it lies there, for reading alone: nothing is locked, made or changed.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::medium::check_range;
use crate::{Medium, MediumKind, TierError};

/// A file or device that is only looked at.
#[derive(Debug)]
pub struct ImageMedium {
    file: File,
    capacity_bytes: u64,
}

impl ImageMedium {
    /// Opens it for reading.
    pub fn open(path: &Path) -> Result<Self, TierError> {
        let failed = |source| TierError::Path { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let capacity_bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { file, capacity_bytes })
    }
}

impl Medium for ImageMedium {
    fn kind(&self) -> MediumKind {
        MediumKind::Sim
    }
    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
    fn is_persistent(&self) -> bool {
        true
    }
    fn write(&mut self, _offset: u64, _data: &[u8]) -> Result<(), TierError> {
        Err(TierError::Unsupported("writing to a medium that is only looked at"))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        check_range(offset, out.len(), self.capacity_bytes)?;
        self.file.read_exact_at(out, offset).map_err(|source| TierError::Io { what: "read", offset, source })
    }
    fn persist(&mut self) -> Result<(), TierError> {
        Err(TierError::Unsupported("writing to a medium that is only looked at"))
    }
}
