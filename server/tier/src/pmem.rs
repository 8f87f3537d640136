//! Persistent memory: a mapped file, written by streaming copies, made durable by a fence.
//!
//! On a DAX mapping and on tmpfs (whose bytes live exactly as long as the machine) cache lines are flushed as they are written
//! and `persist` is a fence. On any other file system the page cache lies between, so `persist` syncs the ranges written.

mod library;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::fstatfs;

use crate::map::Mapping;
use crate::medium::check_range;
use crate::room::{FILE_STEP_BYTES, MEMORY_STEP_BYTES, Room, lock, only_if_old, put_back};
use crate::{Medium, MediumKind, Share, TierError, stream};
use library::Library;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const PAGE_BYTES: u64 = 4096;

/// A mapped file.
pub struct PmemMedium {
    map: Mapping,
    file: File,
    path: PathBuf,
    library: Library,
    /// Flushing cache lines is enough.
    direct: bool,
    room: Room,
    found_bytes: u64,
    /// Written since the last sync: start and end.
    dirty: Vec<(u64, u64)>,
}

impl PmemMedium {
    /// Opens or makes the file, which nobody else may be able to read.
    pub fn open(path: &Path, capacity_bytes: u64) -> Result<Self, TierError> {
        let library = Library::load()?;
        let failed = |source| TierError::Path { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        lock(&file).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if len < capacity_bytes {
            file.set_len(capacity_bytes).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        let tmpfs = fstatfs(&file).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC);
        let step_bytes = if tmpfs { MEMORY_STEP_BYTES } else { FILE_STEP_BYTES };
        let mut room = Room::new(capacity_bytes, step_bytes);
        let taken = if tmpfs { room.check(&file) } else { room.take_all(&file) };
        taken.or_else(|error| only_if_old(error, path, &file, len, capacity_bytes))?;
        let map = Mapping::shared(&file, capacity_bytes)?;
        let direct = tmpfs || map.is_synchronous() || library.is_pmem(&map);
        Ok(Self { map, file, path: path.to_owned(), library, direct, room, found_bytes: len, dirty: Vec::new() })
    }

    /// Whether flushing cache lines is enough (DAX, tmpfs).
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Medium for PmemMedium {
    fn kind(&self) -> MediumKind {
        MediumKind::Pmem
    }
    fn capacity_bytes(&self) -> u64 {
        self.map.len()
    }
    fn found_bytes(&self) -> u64 {
        self.found_bytes
    }
    fn undo_open(&mut self) {
        put_back(&self.path, &self.file, self.found_bytes, self.map.len());
    }
    fn is_persistent(&self) -> bool {
        true
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        check_range(offset, data.len(), self.map.len())?;
        self.room.ensure(&self.file, offset + data.len() as u64)?;
        if self.direct {
            self.library.copy(&mut self.map, offset, data);
            return Ok(());
        }
        stream::copy(self.map.slice_mut(offset, data.len() as u64), data);
        let end = offset + data.len() as u64;
        match self.dirty.last_mut() {
            Some(last) if last.1 == offset => last.1 = end,
            _ => self.dirty.push((offset, end)),
        }
        Ok(())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        check_range(offset, out.len(), self.map.len())?;
        if offset + out.len() as u64 <= self.room.bytes() {
            out.copy_from_slice(self.map.slice(offset, out.len() as u64));
            return Ok(());
        }
        // Not through the mapping: a hole of the file must not take room just because it is read.
        self.file.read_exact_at(out, offset).map_err(|source| TierError::Io { what: "read", offset, source })
    }
    fn bytes(&self, offset: u64, len: u64) -> Option<&[u8]> {
        (offset.checked_add(len)? <= self.map.len()).then(|| self.map.slice(offset, len))
    }
    fn reserve(&mut self, offset: u64, len: u64) -> Result<(), TierError> {
        check_range(offset, len as usize, self.map.len())?;
        self.room.ensure(&self.file, offset + len)
    }
    fn promised_bytes(&self) -> u64 {
        self.room.bytes()
    }
    fn persist(&mut self) -> Result<(), TierError> {
        self.library.drain();
        for (start, end) in self.dirty.drain(..) {
            let start = start / PAGE_BYTES * PAGE_BYTES;
            self.library.sync(&self.map, start, end - start).map_err(|source| TierError::Io {
                what: "sync",
                offset: start,
                source,
            })?;
        }
        Ok(())
    }
    fn is_persist_costly(&self) -> bool {
        !self.direct
    }
    fn share(&self) -> Option<Share> {
        let meta = self.file.metadata().ok()?;
        let path = self.path.to_str()?.to_owned();
        Some(Share { path, device: meta.dev(), inode: meta.ino() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> PmemMedium {
        match PmemMedium::open(path, 4 << 20) {
            Ok(medium) => medium,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn bytes_outlive_the_process_that_wrote_them() {
        for dir in ["/dev/shm", "/var/tmp"] {
            let dir = tempfile::tempdir_in(dir).unwrap();
            let path = dir.path().join("target");
            let mut medium = open(&path);
            assert_eq!(medium.bytes(0, 8).unwrap(), [0; 8]);
            medium.write(4090, b"over a page").unwrap();
            medium.write(1 << 20, &[7; 100_000]).unwrap();
            medium.persist().unwrap();
            assert!(matches!(medium.write((4 << 20) - 1, b"xx"), Err(TierError::OutOfRange { .. })));
            drop(medium);
            let medium = open(&path);
            assert_eq!(medium.bytes(4090, 11).unwrap(), b"over a page");
            let mut out = vec![0; 100_000];
            medium.read(1 << 20, &mut out).unwrap();
            assert_eq!(out, [7; 100_000]);
        }
    }

    #[test]
    fn tmpfs_needs_no_sync_and_ext4_does() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(open(&dir.path().join("t")).is_direct());
    }

    #[test]
    fn a_second_user_of_the_file_is_refused() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("target");
        let _first = open(&path);
        assert!(matches!(PmemMedium::open(&path, 4 << 20), Err(TierError::Path { .. })));
    }

    #[test]
    fn a_path_that_is_not_there_says_so() {
        let missing = PmemMedium::open(Path::new("/no/such/dir/target"), 1 << 20);
        assert!(matches!(missing, Err(TierError::Path { .. })));
    }
}
