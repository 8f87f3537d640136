//! Versions: what was written at once under one order, held by the pieces that show parts of it. 48 bytes each.

use talea_model::{Stamp, TxId};

use super::slab::Slab;
use super::stack::Many;
use crate::checksum::Granules;

/// Index of a version in [`Versions`]; below 2^31.
pub(crate) type VersionId = u32;

/// How a version is ordered and when it is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Its place among versions: its own stamp, or its transaction's C once settled.
    pub stamp: Stamp,
    /// Views from this stamp on see it (later than `stamp` for what was tied to a transaction).
    pub from: Stamp,
    /// Order among equal stamps, and inside a transaction.
    pub minor: u64,
    /// The transaction whose fate it shares; 0 once that is settled, or if there never was one.
    pub tx: TxId,
    /// An autocommit tied to `tx`, not a pending version.
    pub tied: bool,
}

/// Where the bytes of a version lie on the medium.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// First byte.
    pub offset: u64,
    /// Bytes; 0 for holes, punches and empty values.
    pub len: u32,
    /// In a log record, not in blocks of its own.
    pub inline: bool,
    /// Shows as nothing: a punch.
    pub hole: bool,
    /// Checksums of the bytes.
    pub granules: Granules,
}

impl Place {
    /// A punch.
    pub(crate) fn hole() -> Self {
        Self { hole: true, ..Self::default() }
    }
}

/// The bytes of a version, without their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// First byte on the medium.
    pub offset: u64,
    /// Number of bytes.
    pub len: u32,
    /// In a log record.
    pub inline: bool,
}

const INLINE: u32 = 1;
const HOLE: u32 = 2;
const TIED: u32 = 4;
/// `link` is a transaction.
const IN_TX: u32 = 8;
/// `link` is the stamp from which on it is seen.
const LATE: u32 = 16;
/// `crc` is the number of a list of checksums.
const LISTED: u32 = 32;

/// There are none.
const UNSUMMED: u32 = 64;

/// A version as it is kept.
#[derive(Clone, Copy, Debug)]
struct Slot {
    stamp: Stamp,
    minor: u64,
    link: u64,
    offset: u64,
    len: u32,
    crc: u32,
    refs: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Slot>() == 48);

/// Versions of a block: growing copies nothing.
const BLOCK: usize = 1024;

/// The versions alone, so that stacks can be changed while versions are looked at.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    blocks: Vec<Vec<Slot>>,
    vacant: Vec<VersionId>,
    lists: Slab<Box<[u32]>>,
    /// Checksums in them.
    listed: u64,
    count: u64,
}

impl Slots {
    #[inline]
    fn slot(&self, id: VersionId) -> &Slot {
        &self.blocks[id as usize / BLOCK][id as usize % BLOCK]
    }

    fn slot_mut(&mut self, id: VersionId) -> &mut Slot {
        &mut self.blocks[id as usize / BLOCK][id as usize % BLOCK]
    }

    /// Its order.
    #[inline]
    pub(crate) fn tag(&self, id: VersionId) -> Tag {
        let slot = self.slot(id);
        let tx = TxId(if slot.flags & IN_TX != 0 { slot.link } else { 0 });
        let from = if slot.flags & LATE != 0 { Stamp(slot.link) } else { slot.stamp };
        Tag { stamp: slot.stamp, from, minor: slot.minor, tx, tied: slot.flags & TIED != 0 }
    }

    /// Whether it waits for no fate.
    #[inline]
    pub(crate) fn is_settled(&self, id: VersionId) -> bool {
        self.slot(id).flags & IN_TX == 0
    }

    /// Whether it is a punch.
    #[inline]
    pub(crate) fn is_hole(&self, id: VersionId) -> bool {
        self.slot(id).flags & HOLE != 0
    }

    /// Its bytes.
    pub(crate) fn bytes(&self, id: VersionId) -> Bytes {
        let slot = self.slot(id);
        Bytes { offset: slot.offset, len: slot.len, inline: slot.flags & INLINE != 0 }
    }

    /// Checksums of its bytes.
    pub(crate) fn granules(&self, id: VersionId) -> &[u32] {
        let slot = self.slot(id);
        match slot.flags & LISTED {
            0 if slot.len == 0 || slot.flags & UNSUMMED != 0 => &[],
            0 => std::slice::from_ref(&slot.crc),
            _ => self.lists.get(slot.crc).map_or(&[], |list| list),
        }
    }

    /// Gives it another order: its transaction's fate is known.
    pub(crate) fn set_tag(&mut self, id: VersionId, tag: Tag) {
        let slot = self.slot_mut(id);
        slot.flags &= !(IN_TX | LATE | TIED);
        (slot.stamp, slot.minor) = (tag.stamp, tag.minor);
        let (link, flags) = match (tag.tx.0, tag.from == tag.stamp) {
            (0, true) => (0, 0),
            (0, false) => (tag.from.0, LATE),
            (tx, _) => (tx, IN_TX | if tag.tied { TIED } else { 0 }),
        };
        slot.link = link;
        slot.flags |= flags;
    }
}

/// All versions of a store, counted by the pieces that show them.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    /// The versions.
    pub slots: Slots,
    /// Stacks of more than one.
    pub stacks: Slab<Many>,
    /// Bytes of versions that no piece shows any more.
    freed: Vec<Bytes>,
}

impl std::ops::Deref for Versions {
    type Target = Slots;
    fn deref(&self) -> &Slots {
        &self.slots
    }
}

impl Versions {
    /// A version that no piece shows yet: hold it with [`hold`](Self::hold) while pieces are made.
    pub(crate) fn add(&mut self, tag: Tag, place: &Place) -> VersionId {
        let (crc, listed) = match place.granules.len() {
            0 => (0, UNSUMMED),
            1 => (place.granules[0], 0),
            many => {
                self.slots.listed += many as u64;
                (self.slots.lists.add(place.granules.as_slice().into()), LISTED)
            }
        };
        let flags = if place.inline { INLINE } else { 0 } | if place.hole { HOLE } else { 0 } | listed;
        let (stamp, offset, len) = (tag.stamp, place.offset, place.len);
        let slot = Slot { stamp, minor: tag.minor, link: 0, offset, len, crc, refs: 0, flags };
        let slots = &mut self.slots;
        slots.count += 1;
        let id = match slots.vacant.pop() {
            Some(id) => {
                *slots.slot_mut(id) = slot;
                id
            }
            None => {
                if slots.blocks.last().is_none_or(|block| block.len() == BLOCK) {
                    let room = if slots.blocks.is_empty() { 4 } else { BLOCK };
                    slots.blocks.push(Vec::with_capacity(room));
                }
                let before = (slots.blocks.len() - 1) * BLOCK;
                slots.blocks.last_mut().map_or(0, |block| {
                    block.push(slot);
                    (before + block.len() - 1) as VersionId
                })
            }
        };
        slots.set_tag(id, tag);
        id
    }

    /// Gives its bytes another place.
    pub(crate) fn set_offset(&mut self, id: VersionId, offset: u64) {
        self.slots.slot_mut(id).offset = offset;
    }

    /// One more piece shows it.
    pub(crate) fn hold(&mut self, id: VersionId) {
        self.slots.slot_mut(id).refs += 1;
    }

    /// One piece less shows it.
    pub(crate) fn drop_ref(&mut self, id: VersionId) {
        let slot = self.slots.slot_mut(id);
        slot.refs -= 1;
        if slot.refs > 0 {
            return;
        }
        let slot = *slot;
        if slot.len > 0 {
            self.freed.push(Bytes { offset: slot.offset, len: slot.len, inline: slot.flags & INLINE != 0 });
        }
        if slot.flags & LISTED != 0 {
            let list = self.slots.lists.remove(slot.crc);
            self.slots.listed -= list.map_or(0, |list| list.len() as u64);
        }
        self.slots.vacant.push(id);
        self.slots.count -= 1;
    }

    /// Bytes freed since the last call.
    pub(crate) fn take_freed(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.freed)
    }

    /// Whether bytes wait to be taken.
    pub(crate) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Number of versions.
    pub(crate) fn len(&self) -> u64 {
        self.slots.count
    }

    /// Checksums of versions that have more than one.
    pub(crate) fn listed(&self) -> u64 {
        self.slots.listed
    }

    /// One past the largest number of a version.
    pub(crate) fn bound(&self) -> VersionId {
        self.slots.blocks.last().map_or(0, |last| ((self.slots.blocks.len() - 1) * BLOCK + last.len()) as VersionId)
    }

    /// The place of a version, if it is there.
    pub(crate) fn place(&self, id: VersionId) -> Option<Place> {
        let there = id < self.bound() && self.slots.slot(id).refs > 0;
        there.then(|| {
            let Bytes { offset, len, inline } = self.slots.bytes(id);
            Place { offset, len, inline, hole: self.slots.is_hole(id), granules: self.slots.granules(id).into() }
        })
    }

    /// The bytes of a version, if it is there and has any.
    pub(crate) fn live(&self, id: VersionId) -> Option<Bytes> {
        (id < self.bound() && self.slots.slot(id).refs > 0).then(|| self.slots.bytes(id)).filter(|bytes| bytes.len > 0)
    }
}
