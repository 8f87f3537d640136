//! The image of a pool: its state as bytes, with a version and a checksum, for a log that is cut behind it (docs/formats.md).
//!
//! Must never yield a state that is not, bit for bit, what was written.

use talea_model::{ContainerState, PoolState, Position};
use thiserror::Error;

use super::Pool;

const MAGIC: [u8; 8] = *b"TALEAIMG";
const VERSION: u32 = 4;
const HEAD_BYTES: usize = 32;
const SUM_BYTES: usize = 8;
/// Largest image in bytes: who claims that one is larger is not believed.
pub(crate) const MAX_IMAGE_BYTES: u64 = 1 << 32;

/// Why bytes are no image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ImageError {
    #[error("it is no image of a pool, or is cut off")]
    NoImage,
    #[error("it is of version {0}, and this release reads {VERSION}: use servers of one release")]
    Version(u32),
    #[error("its checksum does not match")]
    Checksum,
    #[error("its state cannot be read")]
    State,
}

impl Pool {
    /// The state as bytes.
    pub(crate) fn to_image(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.position.0.to_le_bytes());
        bytes.extend([0; 8]);
        let mut bytes = postcard::to_extend(self, bytes)?;
        let state_bytes = (bytes.len() - HEAD_BYTES) as u64;
        bytes[24..HEAD_BYTES].copy_from_slice(&state_bytes.to_le_bytes());
        bytes.extend(xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// The position that an image is of.
    pub(crate) fn image_position(bytes: &[u8]) -> Option<Position> {
        Some(Position(u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?)))
    }

    /// The state that an image holds.
    pub(crate) fn from_image(bytes: &[u8]) -> Result<Self, ImageError> {
        let word = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        if bytes.len() < HEAD_BYTES + SUM_BYTES || bytes[..8] != MAGIC {
            return Err(ImageError::NoImage);
        }
        let version = word(8) as u32;
        if version != VERSION {
            return Err(ImageError::Version(version));
        }
        let end = bytes.len() - SUM_BYTES;
        if word(24) != (end - HEAD_BYTES) as u64 {
            return Err(ImageError::NoImage);
        }
        if word(end) != xxhash_rust::xxh3::xxh3_64(&bytes[..end]) {
            return Err(ImageError::Checksum);
        }
        match postcard::take_from_bytes::<Pool>(&bytes[HEAD_BYTES..end]) {
            Ok((pool, [])) if pool.position == Position(word(16)) => Ok(pool),
            _ => Err(ImageError::State),
        }
    }

    /// What the targets must know at this position, for those that did not follow the log up to here.
    pub(crate) fn state(&self) -> PoolState {
        let containers = self.containers.iter().map(|(id, container)| ContainerState {
            container: *id,
            floor: container.floor,
            kept: container.kept_below_floor(),
        });
        PoolState {
            ceiling: self.ceiling,
            last_tx: self.last_tx,
            open: self.open.keys().copied().collect(),
            closed: self.closed.iter().map(|(tx, closed)| (*tx, closed.fate)).collect(),
            last_container: self.last_container,
            containers: containers.collect(),
            lost: self.lost(),
            last_session: self.last_session,
            sessions: self.sessions.keys().copied().collect(),
            map: self.map.clone(),
        }
    }
}
