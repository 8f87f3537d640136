//! Headers on the medium: superblock, segments, records (docs/formats.md). All numbers are little-endian.

use smallvec::SmallVec;
use talea_model::{PoolId, TargetId};

use super::Segment;
use super::bytes::Writer;
use crate::checksum::crc32c;

/// Version of the format on the medium.
pub(crate) const FORMAT_VERSION: u32 = 4;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 32;
/// Bytes in memory before a record's meta bytes while it is made: its header, and most of the salt.
pub(crate) const RECORD_PREFIX_BYTES: usize = 44;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 128;
/// Bytes of a superblock.
pub(crate) const SUPERBLOCK_BYTES: usize = 128;
/// Where the two superblocks lie.
pub(crate) const SUPERBLOCK_AT: [u64; 2] = [0, 4096];
/// First byte that is neither.
pub(crate) const FIRST_BLOCK: u64 = 8192;
/// First byte of a bulk tier's blocks: its header lies below.
pub(crate) const FIRST_BULK_BLOCK: u64 = 4096;

const RECORD_MAGIC: [u8; 3] = *b"TAL";
const SEGMENT_MAGIC: u64 = 0x4745_5341_454c_4154;
const SUPERBLOCK_MAGIC: u64 = 0x5245_5053_454c_4154;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes.get(at + i).copied().unwrap_or(0)))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes.get(at + i).copied().unwrap_or(0)))
}

/// Bytes of a record with `payload` bytes behind its header, up to the next multiple of 8.
pub(crate) const fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(8)
}

/// Header of a record. What follows are *meta* bytes, which say what the record means, and *data*, the bytes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Kind of the record.
    pub kind: u8,
    /// Bytes behind the header, meta and data.
    pub len: u32,
    /// Bytes of meta.
    pub meta_len: u32,
    /// Number of the record.
    pub lsn: u64,
    /// All records below it were durable when this one was made; 0 proves nothing.
    pub flushed: u64,
    /// CRC-32C of the data; 0 without any.
    pub data_crc: u32,
}

impl RecordHeader {
    fn fields(&self) -> [u8; 28] {
        let unflushed = match self.flushed {
            0 => u32::MAX,
            flushed => u32::try_from(self.lsn.saturating_sub(flushed)).unwrap_or(u32::MAX),
        };
        let mut bytes = [0; 28];
        bytes[0..3].copy_from_slice(&RECORD_MAGIC);
        bytes[3] = self.kind;
        bytes[4..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.meta_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&unflushed.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.data_crc.to_le_bytes());
        bytes
    }

    /// Puts the header before the meta bytes of `record` and gives both as they go to the medium. The checksum covers a salt
    /// (so that records of an earlier life of the same blocks never pass), the header, and the meta bytes.
    pub(crate) fn seal<'a>(&self, record: &'a mut Writer, nonce: u64, segment: u64) -> &'a [u8] {
        let all = record.as_mut_slice();
        all[..16].copy_from_slice(&salt(nonce, segment));
        all[16..RECORD_PREFIX_BYTES].copy_from_slice(&self.fields());
        let crc = crc32c(all);
        all[12..16].copy_from_slice(&crc.to_le_bytes());
        &all[12..]
    }

    /// Bytes of the record whose header is at the start of `bytes`, if it is one; nothing is verified.
    pub(crate) fn announced(bytes: &[u8]) -> Option<u64> {
        let ours = bytes.len() >= RECORD_HEADER_BYTES && bytes[4..7] == RECORD_MAGIC;
        ours.then(|| RECORD_HEADER_BYTES as u64 + u64::from(u32_at(bytes, 8)))
    }

    /// The record at the start of `bytes`, with its meta bytes and its data, if there is a whole and undamaged one.
    pub(crate) fn find(bytes: &[u8], nonce: u64, segment: u64) -> Option<(Self, &[u8], &[u8])> {
        if bytes.len() < RECORD_HEADER_BYTES || bytes[4..7] != RECORD_MAGIC {
            return None;
        }
        let (lsn, unflushed) = (u64_at(bytes, 20), u32_at(bytes, 16));
        let header = Self {
            kind: bytes[7],
            len: u32_at(bytes, 8),
            meta_len: u32_at(bytes, 12),
            lsn,
            flushed: if unflushed == u32::MAX { 0 } else { lsn.saturating_sub(unflushed.into()) },
            data_crc: u32_at(bytes, 28),
        };
        let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES.checked_add(header.len as usize)?)?;
        let (meta, data) = payload.split_at_checked(header.meta_len as usize)?;
        let mut salted: SmallVec<[u8; 512]> = SmallVec::new();
        salted.extend_from_slice(&salt(nonce, segment));
        salted.extend_from_slice(&bytes[4..RECORD_HEADER_BYTES + meta.len()]);
        let whole = crc32c(&salted) == u32_at(bytes, 0) && (data.is_empty() || crc32c(data) == header.data_crc);
        whole.then_some((header, meta, data))
    }
}

fn salt(nonce: u64, segment: u64) -> [u8; 16] {
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&nonce.to_le_bytes());
    salt[8..].copy_from_slice(&segment.to_le_bytes());
    salt
}

/// Header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The segment.
    pub segment: Segment,
    /// The one that follows, once there is one, and the number of its first record.
    pub next: Option<(Segment, u64)>,
}

impl SegmentHeader {
    /// The header as bytes.
    pub(crate) fn encode(&self, nonce: u64) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let (next, first_lsn) = self.next.unwrap_or((Segment { start: 0, len: 0, number: 0 }, 0));
        let numbers =
            [SEGMENT_MAGIC, self.segment.number, self.segment.len, next.start, next.len, next.number, first_lsn, nonce];
        for (slot, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c(&bytes[..64]);
        bytes[64..68].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header of a segment, if it is undamaged and of this store and segment.
    pub(crate) fn decode(bytes: &[u8], segment: Segment, nonce: u64) -> Option<Self> {
        let whole = bytes.len() >= SEGMENT_HEADER_BYTES && crc32c(&bytes[..64]) == u32_at(bytes, 64);
        let ours =
            u64_at(bytes, 0) == SEGMENT_MAGIC && u64_at(bytes, 8) == segment.number && u64_at(bytes, 56) == nonce;
        if !whole || !ours {
            return None;
        }
        let next = Segment { start: u64_at(bytes, 24), len: u64_at(bytes, 32), number: u64_at(bytes, 40) };
        Some(Self { segment, next: (next.len > 0).then_some((next, u64_at(bytes, 48))) })
    }
}

/// The root of everything on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The newer of the two superblocks has the larger one.
    pub generation: u64,
    /// The pool.
    pub pool: PoolId,
    /// The target.
    pub target: TargetId,
    /// Salt of the checksums.
    pub nonce: u64,
    /// Size of the medium in bytes.
    pub capacity_bytes: u64,
    /// First segment of the log to replay.
    pub log: Segment,
    /// Number of the first record in it.
    pub first_lsn: u64,
    /// First segment of the checkpoint that the log continues; length 0 if there is none.
    pub checkpoint: Segment,
    /// Size of the bulk tier in bytes; 0 if there is none.
    pub bulk_bytes: u64,
    /// Values carry no checksums: for measurements, and never read again.
    pub unsummed: bool,
}

/// What lies where a superblock should.
pub(crate) enum FoundSuperblock {
    /// An undamaged one.
    Whole(Superblock),
    /// One of another version.
    Version(u32),
    /// One that is damaged.
    Damaged,
    /// Zeros.
    Nothing,
    /// Something else.
    Foreign,
}

impl Superblock {
    /// The superblock as bytes; the magic number comes first.
    pub(crate) fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[0..8].copy_from_slice(&SUPERBLOCK_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.target.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.pool.0.to_le_bytes());
        let (log, checkpoint) = (self.log, self.checkpoint);
        let numbers = [
            self.generation,
            self.nonce,
            self.capacity_bytes,
            log.start,
            log.len,
            log.number,
            self.first_lsn,
            checkpoint.start,
            checkpoint.len,
            checkpoint.number,
            self.bulk_bytes,
        ];
        for (slot, number) in bytes[32..120].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes[120..124].copy_from_slice(&u32::from(self.unsummed).to_le_bytes());
        let crc = crc32c(&bytes[..124]);
        bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What lies in the first bytes of a superblock's place.
    pub(crate) fn decode(bytes: &[u8]) -> FoundSuperblock {
        let magic = u64_at(bytes, 0);
        if magic == 0 && bytes.iter().all(|byte| *byte == 0) {
            return FoundSuperblock::Nothing;
        }
        if magic == 0 && bytes.len() >= SUPERBLOCK_BYTES {
            // A first superblock whose magic number, written last, never came: nothing was ever acknowledged on it.
            let ours = u32_at(bytes, 8) == FORMAT_VERSION || u32_at(bytes, 8) == 0;
            return if ours { FoundSuperblock::Nothing } else { FoundSuperblock::Foreign };
        }
        if magic != SUPERBLOCK_MAGIC || bytes.len() < SUPERBLOCK_BYTES {
            return FoundSuperblock::Foreign;
        }
        if crc32c(&bytes[..124]) != u32_at(bytes, 124) {
            return FoundSuperblock::Damaged;
        }
        if u32_at(bytes, 8) != FORMAT_VERSION {
            return FoundSuperblock::Version(u32_at(bytes, 8));
        }
        let pool = u128::from_le_bytes(std::array::from_fn(|i| bytes[16 + i]));
        let segment =
            |at| Segment { start: u64_at(bytes, at), len: u64_at(bytes, at + 8), number: u64_at(bytes, at + 16) };
        FoundSuperblock::Whole(Self {
            generation: u64_at(bytes, 32),
            pool: PoolId(pool),
            target: TargetId(u32_at(bytes, 12)),
            nonce: u64_at(bytes, 40),
            capacity_bytes: u64_at(bytes, 48),
            log: segment(56),
            first_lsn: u64_at(bytes, 80),
            checkpoint: segment(88),
            bulk_bytes: u64_at(bytes, 112),
            unsummed: u32_at(bytes, 120) & 1 != 0,
        })
    }
}
