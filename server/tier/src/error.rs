//! What can go wrong with a medium.

use std::path::PathBuf;

use talea_model::size::Iec;
use thiserror::Error;

/// Why a tier cannot be used.
#[derive(Debug, Error)]
pub enum TierError {
    /// The text is no tier.
    #[error(
        "'{text}' is not a tier ({why}): write ram:SIZE, pmem:PATH:SIZE or nvme:PATH:SIZE, as in pmem:/dev/shm/talea:8G"
    )]
    BadConfig {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A path cannot be used.
    #[error("cannot use {} as a tier: {source}: check that the directory exists, is writable and has room", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Memory cannot be mapped.
    #[error("cannot map {bytes} bytes for a tier: {source}: use a smaller size")]
    Map {
        /// Bytes wanted.
        bytes: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The medium itself ran out of room below its configured size. Nothing was written.
    #[error(
        "no room to write at offset {offset}: {source}: free space on the file system below the tier, or configure a smaller one"
    )]
    NoRoom {
        /// Offset in the medium.
        offset: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file system below cannot hold it. Nothing was changed.
    #[error(
        "a tier of {} does not fit {}: the file system has room for {}; free some, or configure a smaller tier", Iec(*bytes), path.display(), Iec(*room_bytes)
    )]
    TooLarge {
        /// Where it was to be.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// What there is room for, in bytes.
        room_bytes: u64,
    },
    /// Reading or writing failed.
    #[error("{what} at offset {offset} failed: {source}: the device may be failing; see the kernel's log")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Offset in the medium.
        offset: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A range that is not there.
    #[error("{len} bytes at offset {offset} lie outside the medium of {capacity_bytes} bytes")]
    OutOfRange {
        /// Offset in the medium.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the medium in bytes.
        capacity_bytes: u64,
    },
    /// A library is missing.
    #[error(
        "libpmem is needed for a pmem tier and could not be loaded ({why}): install libpmem1, or use a ram or nvme tier"
    )]
    NoLibrary {
        /// The loader's reason.
        why: String,
    },
    /// This build or machine cannot do it.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}
