//! Blocks behind a queue: a file or block device, around the page cache, through io_uring; or a namespace's character device, past the
//! block layer.
//!
//! Owns group commit: writes leave as they come, side by side, and one `persist` waits for them and ends with the device's own
//! flush. Must never acknowledge what the device only has in its cache.

mod aligned;
mod commands;
mod pipeline;
mod queue;
mod tails;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::medium::check_range;
use crate::room::{FILE_STEP_BYTES, Room, lock, only_if_old, put_back};
use crate::{Medium, MediumKind, TierError};
use commands::Commands;
use pipeline::Pipeline;
use queue::Queue;
pub use queue::QueueKind;

/// Unit of input and output in bytes.
const PAGE_BYTES: u64 = 4096;

/// A file or device.
pub struct NvmeMedium {
    path: PathBuf,
    capacity_bytes: u64,
    found_bytes: u64,
    room: Room,
    /// A second handle to the file, for taking room.
    file: File,
    /// Reading takes buffers, too; never borrowed across calls.
    pipeline: RefCell<Pipeline>,
}

impl NvmeMedium {
    /// Opens a device, or opens or makes a file, which nobody else may be able to read.
    pub fn open(path: &Path, capacity_bytes: u64) -> Result<Self, TierError> {
        let failed = |source| TierError::Path { path: path.to_owned(), source };
        let capacity_bytes = capacity_bytes / PAGE_BYTES * PAGE_BYTES;
        if std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_char_device()) {
            return Self::open_namespace(path, capacity_bytes);
        }
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
        };
        // Some file systems know no O_DIRECT; there the flush at the end does all the work.
        let file = open(libc::O_DIRECT).or_else(|_| open(0)).map_err(failed)?;
        lock(&file).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let device = meta.file_type().is_block_device();
        if device {
            let size = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|errno| failed(errno.into()))?;
            if size < capacity_bytes {
                return Err(failed(std::io::Error::other("the device is smaller than the size configured")));
            }
        } else if meta.len() < capacity_bytes {
            file.set_len(capacity_bytes).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        let found_bytes = if device { capacity_bytes } else { meta.len() };
        let room = if device {
            Room::whole(capacity_bytes)
        } else {
            let mut room = Room::new(capacity_bytes, FILE_STEP_BYTES);
            room.take_all(&file).or_else(|error| only_if_old(error, path, &file, meta.len(), capacity_bytes))?;
            room
        };
        let queue = Queue::new(file.try_clone().map_err(failed)?);
        Ok(Self::new(path, capacity_bytes, found_bytes, room, file, queue))
    }

    fn new(path: &Path, capacity_bytes: u64, found_bytes: u64, room: Room, file: File, queue: Queue) -> Self {
        let pipeline = RefCell::new(Pipeline::new(queue));
        Self { path: path.to_owned(), capacity_bytes, found_bytes, room, file, pipeline }
    }

    /// Opens `/dev/ng*`, whose commands go past the block layer.
    fn open_namespace(path: &Path, capacity_bytes: u64) -> Result<Self, TierError> {
        let failed = |source| TierError::Path { path: path.to_owned(), source };
        if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ng")) {
            return Err(TierError::Unsupported(
                "a character device that is no NVMe namespace (/dev/ng*): name a file, a block device, or one of these",
            ));
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        lock(&file).map_err(failed)?;
        let commands = Commands::open(path, file.try_clone().map_err(failed)?).map_err(failed)?;
        if commands.capacity_bytes() < capacity_bytes {
            return Err(failed(std::io::Error::other("the device is smaller than the size configured")));
        }
        let queue = Queue::of_commands(commands, file.try_clone().map_err(failed)?);
        let room = Room::whole(capacity_bytes);
        Ok(Self::new(path, capacity_bytes, capacity_bytes, room, file, queue))
    }

    /// How the queue works on this system.
    pub fn queue_kind(&self) -> QueueKind {
        self.pipeline.borrow().queue().kind()
    }

    fn write_as(&mut self, offset: u64, data: &[u8], padded: bool) -> Result<(), TierError> {
        check_range(offset, data.len(), self.capacity_bytes)?;
        self.room.ensure(&self.file, offset + data.len() as u64)?;
        self.pipeline.get_mut().write(offset, data, padded)
    }
}

impl Medium for NvmeMedium {
    fn kind(&self) -> MediumKind {
        MediumKind::Nvme
    }
    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    fn found_bytes(&self) -> u64 {
        self.found_bytes
    }

    fn undo_open(&mut self) {
        put_back(&self.path, &self.file, self.found_bytes, self.capacity_bytes);
    }

    fn is_persistent(&self) -> bool {
        true
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        self.write_as(offset, data, false)
    }
    fn write_padded(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        self.write_as(offset, data, offset.is_multiple_of(PAGE_BYTES))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        check_range(offset, out.len(), self.capacity_bytes)?;
        if out.is_empty() { Ok(()) } else { self.pipeline.borrow_mut().read(offset, out) }
    }
    fn reads_wait(&self) -> bool {
        true
    }
    fn read_ahead(&self, offset: u64, len: u64) -> bool {
        let inside = check_range(offset, len as usize, self.capacity_bytes).is_ok();
        inside && len > 0 && self.pipeline.borrow_mut().read_ahead(offset, len)
    }
    fn forget_ahead(&self) {
        self.pipeline.borrow_mut().forget_ahead();
    }
    fn reserve(&mut self, offset: u64, len: u64) -> Result<(), TierError> {
        check_range(offset, len as usize, self.capacity_bytes)?;
        self.room.ensure(&self.file, offset + len)
    }
    fn promised_bytes(&self) -> u64 {
        self.room.bytes()
    }
    fn persist(&mut self) -> Result<(), TierError> {
        self.pipeline.get_mut().persist()
    }
    fn is_persist_costly(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_and_file_are_registered_where_the_system_allows_a_ring() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let kind = NvmeMedium::open(&dir.path().join("target"), 1 << 20).unwrap().queue_kind();
        assert!(!kind.ring || kind.registered_file, "{kind:?}");
        assert!(kind.ring || !kind.polled, "{kind:?}");
    }

    #[test]
    fn what_was_begun_ahead_is_what_is_read_and_never_old() {
        const PAGES: u64 = 64;
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut medium = NvmeMedium::open(&dir.path().join("target"), PAGES * PAGE_BYTES).unwrap();
        let page = |number: u64, of: u8| vec![number as u8 ^ of; PAGE_BYTES as usize];
        (0..PAGES).for_each(|number| medium.write(number * PAGE_BYTES, &page(number, 0)).unwrap());
        medium.persist().unwrap();
        let read = |medium: &NvmeMedium, number: u64| {
            let mut out = vec![0xee; 5000];
            medium.read(number * PAGE_BYTES + 10, &mut out).unwrap();
            out
        };
        let expected = |number: u64, of: u8| {
            let both = [page(number, of), page(number + 1, of)].concat();
            both[10..5010].to_vec()
        };
        // As many as there is room for; the others are read when they are asked for, and so is a large one beside them.
        let begun = (0..30).filter(|number| medium.read_ahead(2 * number * PAGE_BYTES + 10, 5000)).count();
        assert!((1..30).contains(&begun), "{begun}");
        let mut all = vec![0; (PAGES * PAGE_BYTES) as usize];
        medium.read(0, &mut all).unwrap();
        assert!(all.chunks(PAGE_BYTES as usize).enumerate().all(|(number, bytes)| bytes == page(number as u64, 0)));
        (0..30).for_each(|number| assert_eq!(read(&medium, 2 * number), expected(2 * number, 0), "{number}"));
        // What is written after a read was begun is what is read, also before it is flushed.
        assert!(medium.read_ahead(10, 5000));
        (0..2).for_each(|number| medium.write(number * PAGE_BYTES, &page(number, 0x55)).unwrap());
        assert!(!medium.read_ahead(10, 5000), "that is on its way");
        assert_eq!(read(&medium, 0), expected(0, 0x55));
        // Nobody has to read it.
        for _ in 0..20 {
            assert!(medium.read_ahead(20 * PAGE_BYTES, 100));
            medium.forget_ahead();
        }
        assert_eq!(read(&medium, 20), expected(20, 0));
    }

    #[test]
    fn a_read_that_fails_ahead_of_its_time_is_nobody_else_s_failure() {
        const PAGES: u64 = 16;
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("target");
        let mut medium = NvmeMedium::open(&path, PAGES * PAGE_BYTES).unwrap();
        (0..PAGES).for_each(|number| medium.write(number * PAGE_BYTES, &[7; PAGE_BYTES as usize]).unwrap());
        medium.persist().unwrap();
        // Half of it cannot be read any more.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(PAGES / 2 * PAGE_BYTES).unwrap();
        let lost = (PAGES - 1) * PAGE_BYTES;
        let mut out = [0; 100];
        let begin = |medium: &NvmeMedium| assert!(medium.read_ahead(lost, 100) && medium.read_ahead(PAGE_BYTES, 100));
        // Neither another read, begun or not, nor a flush is told of it; who wants those bytes is.
        begin(&medium);
        medium.read(0, &mut out).unwrap();
        begin(&medium);
        medium.read(PAGE_BYTES, &mut out).unwrap();
        assert!(medium.read(lost, &mut out).is_err());
        begin(&medium);
        assert!(medium.read(lost, &mut out).is_err());
        medium.read(PAGE_BYTES, &mut out).unwrap();
        begin(&medium);
        medium.forget_ahead();
        medium.read(0, &mut out).unwrap();
        begin(&medium);
        medium.write(0, &[8; PAGE_BYTES as usize]).unwrap();
        medium.persist().unwrap();
        medium.read(0, &mut out).unwrap();
        assert_eq!(out, [8; 100]);
    }

    #[test]
    fn a_character_device_that_is_no_namespace_is_refused() {
        let refused = NvmeMedium::open(Path::new("/dev/null"), 1 << 20);
        assert!(matches!(refused, Err(TierError::Unsupported(_))));
    }

    #[test]
    fn a_full_file_system_is_an_error_that_says_so() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        // More than any file may have there: taking room fails at once.
        let medium = NvmeMedium::open(&dir.path().join("target"), 1 << 50);
        let full = medium.and_then(|mut medium| medium.write((1 << 50) - 4096, &[1; 4096]));
        assert!(matches!(full, Err(TierError::TooLarge { .. } | TierError::Path { .. })), "{full:?}");
    }
}
