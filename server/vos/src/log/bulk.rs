//! The header of a bulk tier: whose it is (docs/formats.md). It holds no state, so it is written once.

use talea_model::{PoolId, TargetId};

use super::header::{FORMAT_VERSION, Superblock};
use crate::checksum::crc32c;

/// Bytes of the header.
pub(crate) const BULK_HEADER_BYTES: usize = 64;
const BULK_MAGIC: [u8; 8] = *b"TALEBULK";

/// Whose a bulk tier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BulkHeader {
    /// The pool.
    pub(crate) pool: PoolId,
    /// The target.
    pub(crate) target: TargetId,
    /// The store's salt: the same as in its superblock.
    pub(crate) nonce: u64,
    /// Size in bytes when it was made.
    pub(crate) capacity_bytes: u64,
}

/// What lies where a bulk tier's header should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundBulk {
    /// An undamaged header.
    Whole(BulkHeader),
    /// Zeros.
    Nothing,
    /// A header of ours that is damaged or of another version.
    Damaged,
    /// Something else.
    Foreign,
}

impl BulkHeader {
    /// That of the bulk tier that belongs to a superblock.
    pub(crate) fn of(superblock: &Superblock) -> Self {
        let (pool, target) = (superblock.pool, superblock.target);
        Self { pool, target, nonce: superblock.nonce, capacity_bytes: superblock.bulk_bytes }
    }

    /// The header as bytes.
    pub(crate) fn encode(&self) -> [u8; BULK_HEADER_BYTES] {
        let mut bytes = [0; BULK_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&BULK_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.target.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.pool.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.capacity_bytes.to_le_bytes());
        let crc = crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What lies in these bytes.
    pub(crate) fn decode(bytes: &[u8; BULK_HEADER_BYTES]) -> FoundBulk {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes.iter().all(|byte| *byte == 0) {
            return FoundBulk::Nothing;
        }
        if bytes[0..8] != BULK_MAGIC {
            return FoundBulk::Foreign;
        }
        if crc32c(&bytes[..60]) != short(60) || short(8) != FORMAT_VERSION {
            return FoundBulk::Damaged;
        }
        FoundBulk::Whole(Self {
            pool: PoolId(u128::from_le_bytes(std::array::from_fn(|i| bytes[16 + i]))),
            target: TargetId(short(12)),
            nonce: number(32),
            capacity_bytes: number(40),
        })
    }
}
