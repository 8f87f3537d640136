//! Where things lie in the memory that two processes share, byte by byte.
//!
//! ```text
//! 0      control page: words of 8 bytes, each on its own pair of cache lines
//!          128 tail, 256 head          of the ring from client to server
//!          384 tail, 512 head          of the ring from server to client
//!          640 what the client sleeps for, 768 what the server sleeps for
//!          896 not 0: the server says that cores are free, so that waits may spin
//! 4096   ring from client to server    (ring_bytes)
//!        ring from server to client    (ring_bytes)
//!        area from client to server    (area_bytes)
//!        area from server to client    (area_bytes)
//! ```
//!
//! Tail and head count bytes since the beginning and never wrap; a position's place in its ring is it modulo `ring_bytes`.
//! A ring holds records aligned to 64 bytes, each with a header of 16: kind, length, offset (little-endian u32, u32, u64).
//! An *inline* record is followed by its message; a *block* record names one that lies in the area; *pad* skips to the
//! ring's end. The side that sends chooses blocks as it likes: the other only bounds-checks them.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::endpoint::MAX_MESSAGE_BYTES;

const PAGE_BYTES: usize = 4096;
/// Records and blocks start at multiples of this, so that no two share a cache line.
pub(crate) const ALIGN_BYTES: usize = 64;
/// Messages up to this size travel in the ring itself, so that a stream of small ones stays in the cache.
pub(crate) const INLINE_MAX_BYTES: usize = 8192;
/// A word of sleep: new messages shall ring the doorbell.
pub(crate) const SLEEPS_FOR_DATA: u64 = 1;
/// A word of sleep: room in a full ring shall ring the doorbell.
pub(crate) const SLEEPS_FOR_ROOM: u64 = 2;

/// The server's word for its client: cores are free.
pub(crate) const CORES_FREE_WORD: usize = 896;

pub(crate) const KIND_INLINE: u32 = 1;
pub(crate) const KIND_BLOCK: u32 = 2;
pub(crate) const KIND_PAD: u32 = 3;

/// Header of a record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct Record {
    pub(crate) kind: U32,
    pub(crate) len: U32,
    pub(crate) offset: U64,
}

pub(crate) const RECORD_BYTES: usize = size_of::<Record>();
const _: () = assert!(RECORD_BYTES == 16);

/// Sizes of one pair of rings and areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) ring_bytes: usize,
    pub(crate) area_bytes: usize,
}

/// Five of the largest messages: so four are in flight wherever the free room begins.
const AREA_BYTES: usize = round_up(5 * (MAX_MESSAGE_BYTES + ALIGN_BYTES), PAGE_BYTES);

impl Default for Geometry {
    fn default() -> Self {
        Geometry { ring_bytes: 256 * 1024, area_bytes: AREA_BYTES }
    }
}

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Where one direction's parts lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub(crate) tail: usize,
    pub(crate) head: usize,
    pub(crate) ring: usize,
    pub(crate) area: usize,
    pub(crate) geometry: Geometry,
}

pub(crate) const fn round_up(value: usize, to: usize) -> usize {
    value.div_ceil(to) * to
}

impl Geometry {
    /// Sizes that the other side announced, if they are ones that we can work with.
    pub(crate) fn checked(ring_bytes: u64, area_bytes: u64) -> Option<Geometry> {
        const LIMIT_BYTES: u64 = 1 << 30;
        let within = |bytes: u64, min: usize| bytes >= min as u64 && bytes <= LIMIT_BYTES;
        let whole = ring_bytes.is_multiple_of(PAGE_BYTES as u64) && area_bytes.is_multiple_of(PAGE_BYTES as u64);
        if !whole || !within(ring_bytes, 4 * INLINE_MAX_BYTES) || !within(area_bytes, MAX_MESSAGE_BYTES) {
            return None;
        }
        Some(Geometry { ring_bytes: usize::try_from(ring_bytes).ok()?, area_bytes: usize::try_from(area_bytes).ok()? })
    }

    /// Bytes of the whole mapping.
    pub(crate) fn total_bytes(&self) -> usize {
        PAGE_BYTES + 2 * self.ring_bytes + 2 * self.area_bytes
    }

    /// The direction in which `side` sends.
    pub(crate) fn lane_from(&self, side: Side) -> Lane {
        let second = usize::from(side == Side::Server);
        Lane {
            tail: 128 + second * 256,
            head: 256 + second * 256,
            ring: PAGE_BYTES + second * self.ring_bytes,
            area: PAGE_BYTES + 2 * self.ring_bytes + second * self.area_bytes,
            geometry: *self,
        }
    }
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// Offset of the word that says what this side sleeps for.
    pub(crate) fn sleep_word(self) -> usize {
        match self {
            Side::Client => 640,
            Side::Server => 768,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_lie_side_by_side_and_end_with_the_mapping() {
        let geometry = Geometry::default();
        let (to_server, to_client) = (geometry.lane_from(Side::Client), geometry.lane_from(Side::Server));
        assert_eq!((to_server.ring, to_client.ring), (4096, 4096 + geometry.ring_bytes));
        assert_eq!(to_server.area, to_client.ring + geometry.ring_bytes);
        assert_eq!(to_client.area + geometry.area_bytes, geometry.total_bytes());
        assert_eq!((to_client.tail, to_client.head), (384, 512));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let fine = Geometry::default();
        assert_eq!(Geometry::checked(fine.ring_bytes as u64, fine.area_bytes as u64), Some(fine));
        for (ring, area) in
            [(0, 1 << 22), (1 << 18, 0), (u64::MAX, 1 << 22), (1 << 18, 1 << 40), ((1 << 18) + 1, 1 << 22)]
        {
            assert_eq!(Geometry::checked(ring, area), None);
        }
    }
}
