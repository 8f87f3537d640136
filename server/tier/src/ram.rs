//! Memory as a medium: nothing survives the process, and it says so.
//!
//! The memory is a memfd, so that another process can be given it to map. Pages that nobody has used yet are written by `pwrite`: the
//! kernel fills them as it takes them, where a first touch through the mapping is a fault a page and a page of zeros first
//! (docs/performance.md, "Pages").

use std::os::fd::OwnedFd;

use rustix::io::{Errno, pwrite};

use crate::board::Board;
use crate::map::{Mapping, share_of};
use crate::medium::check_range;
use crate::{Medium, MediumKind, Share, TierError, stream};

const PAGE_BYTES: u64 = 4096;
/// Pages that the kernel maps at a read fault if they are there (`fault_around_bytes`).
const AROUND_PAGES: u64 = 16;
/// From this size on `pwrite` pays.
const LEAST_BYTES: usize = PAGE_BYTES as usize;

/// Memory of this process.
#[derive(Debug)]
pub struct RamMedium {
    map: Mapping,
    file: OwnedFd,
    board: Board,
    /// Pages that the file has.
    present: Bits,
    /// Groups of [`AROUND_PAGES`] that the mapping was made to show.
    shown: Bits,
}

/// A set of small numbers.
#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn none(count: u64) -> Self {
        Self(vec![0; count.div_ceil(64) as usize])
    }

    fn has(&self, at: u64) -> bool {
        self.0[(at / 64) as usize] >> (at % 64) & 1 == 1
    }

    fn add(&mut self, at: u64) {
        self.0[(at / 64) as usize] |= 1 << (at % 64);
    }
}

impl RamMedium {
    /// Zeros; pages are taken from the machine when they are first written.
    pub fn new(capacity_bytes: u64) -> Result<Self, TierError> {
        // Not sealed against writing: `fill` writes past the mapping.
        let (file, map) = Mapping::memory("talea-ram", capacity_bytes, false)?;
        let pages = capacity_bytes.div_ceil(PAGE_BYTES);
        let (present, shown) = (Bits::none(pages), Bits::none(pages.div_ceil(AROUND_PAGES)));
        Ok(Self { map, file, board: Board::new()?, present, shown })
    }

    /// Writes to a range that is not all in use yet, past the mapping. What it wrote stands in the file before anybody is told of it.
    fn fill(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        let mut done = 0;
        while done < data.len() {
            match pwrite(&self.file, &data[done..], offset + done as u64) {
                Ok(0) => return Err(failed(offset, Errno::NOSPC)),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(offset, errno)),
            }
        }
        pages_of(offset, data.len()).for_each(|page| self.present.add(page));
        Ok(())
    }

    /// Lets the kernel map what a range has, before it is written to: a fault for sixteen pages in place of one for each.
    fn show(&mut self, offset: u64, len: usize) {
        let pages = pages_of(offset, len);
        for group in pages.start / AROUND_PAGES..pages.end.div_ceil(AROUND_PAGES) {
            if !self.shown.has(group) {
                self.shown.add(group);
                let at = (group * AROUND_PAGES).max(pages.start) * PAGE_BYTES;
                std::hint::black_box(self.map.slice(at, 1)[0]);
            }
        }
    }
}

/// Why a write past the mapping failed. A machine that has no memory left refuses an update and loses nothing.
fn failed(offset: u64, errno: Errno) -> TierError {
    let source = errno.into();
    match errno {
        Errno::NOMEM | Errno::NOSPC => TierError::NoRoom { offset, source },
        _ => TierError::Io { what: "write", offset, source },
    }
}

/// The pages of a range that is not empty.
fn pages_of(offset: u64, len: usize) -> std::ops::Range<u64> {
    offset / PAGE_BYTES..(offset + len as u64).div_ceil(PAGE_BYTES)
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
        if data.len() >= LEAST_BYTES {
            if !pages_of(offset, data.len()).all(|page| self.present.has(page)) {
                return self.fill(offset, data);
            }
            self.show(offset, data.len());
        }
        stream::copy(self.map.slice_mut(offset, data.len() as u64), data);
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
        share_of(&self.file)
    }
    fn board(&self) -> Option<Share> {
        self.board.share()
    }
    fn post(&mut self, number: u64) {
        self.board.post(number);
    }
    fn persist(&mut self) -> Result<(), TierError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_same_whichever_way_it_was_written() {
        let mut ram = RamMedium::new(1 << 20).unwrap();
        let mut model = vec![0; 1 << 20];
        // Fresh and used pages, whole ones and parts, the same ranges again and again.
        let places =
            [(4096, 8192), (100, 9000), (5000, 70_000), (0, 4095), (4096, 8192), (1 << 19, 1 << 19), (65_530, 12)];
        for (number, (offset, len)) in places.into_iter().cycle().take(21).enumerate() {
            let data: Vec<u8> = (0..len).map(|at| (at * 7 + number) as u8).collect();
            ram.write(offset as u64, &data).unwrap();
            model[offset..offset + len].copy_from_slice(&data);
            assert!(ram.bytes(0, 1 << 20).unwrap() == model, "after write {number}");
        }
        let mut out = vec![0; 1 << 20];
        ram.read(0, &mut out).unwrap();
        assert!(out == model);
        assert_eq!(rustix::fs::fstat(&ram.file).unwrap().st_mode & 0o777, 0o400, "others do not open it for writing");
    }

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
