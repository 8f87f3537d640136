//! The two patterns of ior: easy (2 MiB transfers, a file per process) and hard (47008 bytes, interleaved in one file).
//!
//! Both write with sync and close inside the time, and read what another rank wrote, comparing every byte. With a stonewall all
//! ranks write as many transfers as the fastest one, as IOR does, so that the last ones count too.

use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
use thiserror::Error;

use crate::data;
use crate::file::{File, FileError, Group, Mode};

/// Transfers between two looks at the clock.
const TRANSFERS_PER_LOOK: u64 = 4;

/// One access pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// ior-easy.
    Easy,
    /// ior-hard.
    Hard,
}

impl Pattern {
    /// IO500's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::Easy => "ior-easy",
            Pattern::Hard => "ior-hard",
        }
    }

    fn transfer_bytes(self) -> usize {
        match self {
            Pattern::Easy => 2 << 20,
            Pattern::Hard => 47008,
        }
    }

    fn group(self) -> Group {
        match self {
            Pattern::Easy => Group::Own,
            Pattern::Hard => Group::World,
        }
    }

    fn path(self, base: &str, writer: i32) -> String {
        match self {
            Pattern::Easy => format!("{base}/talea-ior-easy.{writer}"),
            Pattern::Hard => format!("{base}/talea-ior-hard"),
        }
    }

    /// Byte offset of a rank's transfer.
    fn offset(self, ranks: i32, writer: i32, transfer: u64) -> u64 {
        let bytes = self.transfer_bytes() as u64;
        match self {
            Pattern::Easy => transfer * bytes,
            Pattern::Hard => (transfer * u64::from(ranks.cast_unsigned()) + u64::from(writer.cast_unsigned())) * bytes,
        }
    }
}

/// When to stop writing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// After this many bytes of each rank.
    Bytes(u64),
    /// After this many seconds.
    Seconds(f64),
}

/// Figures of one pattern in one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases {
    /// Bytes of all ranks, written once and read once.
    pub(crate) bytes: u64,
    /// The slowest rank's seconds.
    pub(crate) write_s: f64,
    /// The slowest rank's seconds.
    pub(crate) read_s: f64,
}

/// Why there are no figures.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// A call failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Read something else than what was written.
    #[error("{path}: wrong data at byte {at} (transfer {transfer} of rank {writer}): the figures are void")]
    Wrong {
        /// The file.
        path: String,
        /// Byte in the file.
        at: u64,
        /// Which transfer.
        transfer: u64,
        /// Who wrote it.
        writer: i32,
    },
    /// The figures could not be written.
    #[error("{}: {source}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes, reads back and deletes. Collective.
pub(crate) fn run(world: &SimpleCommunicator, pattern: Pattern, base: &str, limit: Limit) -> Result<Phases, Error> {
    world.barrier();
    let start = Instant::now();
    let transfers = write(world, pattern, base, limit)?;
    let write_s = slowest(world, start.elapsed().as_secs_f64());
    world.barrier();
    let start = Instant::now();
    read(world, pattern, base, transfers)?;
    let read_s = slowest(world, start.elapsed().as_secs_f64());
    world.barrier();
    if pattern.group() == Group::Own || world.rank() == 0 {
        File::delete(&pattern.path(base, world.rank()))?;
    }
    let bytes = transfers * pattern.transfer_bytes() as u64 * u64::from(world.size().cast_unsigned());
    Ok(Phases { bytes, write_s, read_s })
}

/// Returns the transfers that each rank has written.
fn write(world: &SimpleCommunicator, pattern: Pattern, base: &str, limit: Limit) -> Result<u64, Error> {
    let (rank, ranks) = (world.rank(), world.size());
    let file = File::open(&pattern.path(base, rank), pattern.group(), Mode::Write)?;
    let mut buffer = vec![0_u8; pattern.transfer_bytes()];
    let mut put = |transfer: u64| {
        data::fill(&mut buffer, rank, transfer);
        file.write_at(pattern.offset(ranks, rank, transfer), &buffer)
    };
    let start = Instant::now();
    let mut done = 0;
    let more = |done: u64| match limit {
        Limit::Bytes(bytes) => done * (pattern.transfer_bytes() as u64) < bytes,
        Limit::Seconds(seconds) => !done.is_multiple_of(TRANSFERS_PER_LOOK) || start.elapsed().as_secs_f64() < seconds,
    };
    while more(done) {
        put(done)?;
        done += 1;
    }
    let mut most = 0_u64;
    world.all_reduce_into(&done, &mut most, SystemOperation::max());
    while done < most {
        put(done)?;
        done += 1;
    }
    file.sync()?;
    file.close()?;
    Ok(done)
}

/// Reads what the next rank wrote.
fn read(world: &SimpleCommunicator, pattern: Pattern, base: &str, transfers: u64) -> Result<(), Error> {
    let ranks = world.size();
    let writer = (world.rank() + 1) % ranks;
    let path = pattern.path(base, writer);
    let file = File::open(&path, pattern.group(), Mode::Read)?;
    let mut buffer = vec![0_u8; pattern.transfer_bytes()];
    for transfer in 0..transfers {
        let offset = pattern.offset(ranks, writer, transfer);
        file.read_at(offset, &mut buffer)?;
        if let Some(at) = data::wrong_at(&buffer, writer, transfer) {
            return Err(Error::Wrong { path, at: offset + at as u64, transfer, writer });
        }
    }
    file.close()?;
    Ok(())
}

fn slowest(world: &SimpleCommunicator, seconds: f64) -> f64 {
    let mut most = 0.0;
    world.all_reduce_into(&seconds, &mut most, SystemOperation::max());
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transfers_of_all_ranks_cover_the_shared_file_once() {
        let mut offsets: Vec<u64> =
            (0..3).flat_map(|rank| (0..5).map(move |t| Pattern::Hard.offset(3, rank, t))).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, (0..15).map(|i| i * 47008).collect::<Vec<_>>());
    }
}
