//! Blocks behind a queue: a file or block device, around the page cache, through io_uring.
//!
//! Group commit: writes gather in aligned memory and go out together, at the next `persist` at the latest; `persist` ends with the
//! device's own flush.

mod aligned;
mod queue;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::medium::check_range;
use crate::{Medium, MediumKind, TierError};
use aligned::Aligned;
use queue::Queue;

/// Unit of input and output in bytes.
const PAGE_BYTES: u64 = 4096;
/// Gathered pages go out when they are this many.
const GATHERED_PAGES: usize = 2048;
/// The longest single write, in pages.
const RUN_PAGES: usize = 256;

/// A file or device.
pub struct NvmeMedium {
    file: File,
    capacity_bytes: u64,
    queue: Option<Queue>,
    /// Pages written and not yet sent, whole.
    gathered: BTreeMap<u64, Aligned>,
    /// The page that was sent last: where a log is appended, it is the next to be written again.
    last: Option<(u64, Aligned)>,
    /// Sent, and not flushed since.
    unflushed: bool,
}

impl NvmeMedium {
    /// Opens a device, or opens or makes a file, which nobody else may be able to read.
    pub fn open(path: &Path, capacity_bytes: u64) -> Result<Self, TierError> {
        let failed = |source| TierError::Path { path: path.to_owned(), source };
        let capacity_bytes = capacity_bytes / PAGE_BYTES * PAGE_BYTES;
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
        };
        // Some file systems know no O_DIRECT; there the flush at the end does all the work.
        let file = open(libc::O_DIRECT).or_else(|_| open(0)).map_err(failed)?;
        crate::pmem::lock(&file).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if meta.file_type().is_block_device() {
            let size = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).map_err(|errno| failed(errno.into()))?;
            if size < capacity_bytes {
                return Err(failed(std::io::Error::other("the device is smaller than the size configured")));
            }
        } else if meta.len() < capacity_bytes {
            file.set_len(capacity_bytes).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
        let queue = Queue::new().ok();
        Ok(Self { file, capacity_bytes, queue, gathered: BTreeMap::new(), last: None, unflushed: false })
    }

    /// Whether writes go through io_uring (where the system forbids it, they are plain calls).
    pub fn is_queued(&self) -> bool {
        self.queue.is_some()
    }

    /// The page to write into.
    fn page(&mut self, number: u64, whole: bool) -> Result<&mut Aligned, TierError> {
        if !self.gathered.contains_key(&number) {
            let mut page = match self.last.take() {
                Some((last, page)) if last == number => page,
                other => {
                    self.last = other;
                    let mut page = Aligned::zeroed(PAGE_BYTES as usize);
                    if !whole {
                        read_exact(&self.file, page.as_mut(), number * PAGE_BYTES)?;
                    }
                    page
                }
            };
            if whole {
                page.as_mut().fill(0);
            }
            self.gathered.insert(number, page);
        }
        self.gathered.get_mut(&number).ok_or(TierError::Unsupported("a page that was just gathered is gone"))
    }

    /// Sends all gathered pages, joined into runs.
    fn send(&mut self) -> Result<(), TierError> {
        let mut runs: Vec<(u64, Aligned)> = Vec::new();
        let pages: Vec<u64> = self.gathered.keys().copied().collect();
        for run in pages.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks(RUN_PAGES)) {
            let mut buffer = Aligned::zeroed(run.len() * PAGE_BYTES as usize);
            for (slot, number) in buffer.as_mut().chunks_exact_mut(PAGE_BYTES as usize).zip(run) {
                if let Some(page) = self.gathered.get(number) {
                    slot.copy_from_slice(page.as_ref());
                }
            }
            runs.push((run[0] * PAGE_BYTES, buffer));
        }
        let failed = |offset, source| TierError::Io { what: "write", offset, source };
        match &mut self.queue {
            Some(queue) => queue.write_all(&self.file, &runs).map_err(|(offset, source)| failed(offset, source))?,
            None => {
                for (offset, buffer) in &runs {
                    self.file.write_all_at(buffer.as_ref(), *offset).map_err(|source| failed(*offset, source))?;
                }
            }
        }
        self.unflushed |= !runs.is_empty();
        self.last = self.gathered.pop_last().or(self.last.take());
        self.gathered.clear();
        Ok(())
    }
}

fn read_exact(file: &File, out: &mut [u8], offset: u64) -> Result<(), TierError> {
    file.read_exact_at(out, offset).map_err(|source| TierError::Io { what: "read", offset, source })
}

impl Medium for NvmeMedium {
    fn kind(&self) -> MediumKind {
        MediumKind::Nvme
    }
    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
    fn is_persistent(&self) -> bool {
        true
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        check_range(offset, data.len(), self.capacity_bytes)?;
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let inside = (at % PAGE_BYTES) as usize;
            let part;
            (part, rest) = rest.split_at(rest.len().min(PAGE_BYTES as usize - inside));
            let page = self.page(at / PAGE_BYTES, part.len() == PAGE_BYTES as usize)?;
            page.as_mut()[inside..inside + part.len()].copy_from_slice(part);
            at += part.len() as u64;
        }
        if self.gathered.len() >= GATHERED_PAGES { self.send() } else { Ok(()) }
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        check_range(offset, out.len(), self.capacity_bytes)?;
        if out.is_empty() {
            return Ok(());
        }
        let end = offset + out.len() as u64;
        let (first, last) = (offset / PAGE_BYTES, (end - 1) / PAGE_BYTES);
        let mut buffer = Aligned::zeroed(((last - first + 1) * PAGE_BYTES) as usize);
        read_exact(&self.file, buffer.as_mut(), first * PAGE_BYTES)?;
        for (number, page) in self.gathered.range(first..=last) {
            let at = ((number - first) * PAGE_BYTES) as usize;
            buffer.as_mut()[at..at + PAGE_BYTES as usize].copy_from_slice(page.as_ref());
        }
        let skip = (offset - first * PAGE_BYTES) as usize;
        out.copy_from_slice(&buffer.as_ref()[skip..skip + out.len()]);
        Ok(())
    }
    fn persist(&mut self) -> Result<(), TierError> {
        self.send()?;
        if self.unflushed {
            self.file.sync_data().map_err(|source| TierError::Io { what: "flush", offset: 0, source })?;
            self.unflushed = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(path: &Path) -> NvmeMedium {
        NvmeMedium::open(path, 1 << 20).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn holds_what_was_written(
            steps in prop::collection::vec((0usize..1 << 20, 1usize..20_000, any::<u8>(), 0u8..4), 1..24),
        ) {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            let path = dir.path().join("target");
            let (mut medium, mut model) = (open(&path), vec![0u8; 1 << 20]);
            for (offset, len, value, then) in steps {
                let len = len.min(model.len() - offset);
                medium.write(offset as u64, &vec![value; len]).unwrap();
                model[offset..offset + len].fill(value);
                match then {
                    0 => medium.persist().unwrap(),
                    1 => {
                        medium.persist().unwrap();
                        drop(medium);
                        medium = open(&path);
                    }
                    _ => {}
                }
                let mut out = vec![0; model.len()];
                medium.read(0, &mut out).unwrap();
                prop_assert!(out == model);
            }
        }
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut medium = open(&dir.path().join("target"));
        assert!(matches!(medium.write((1 << 20) - 1, b"xx"), Err(TierError::OutOfRange { .. })));
        assert!(matches!(medium.read(1 << 20, &mut [0; 1]), Err(TierError::OutOfRange { .. })));
        assert!(matches!(NvmeMedium::open(Path::new("/no/such/file"), 1 << 20), Err(TierError::Path { .. })));
    }
}
