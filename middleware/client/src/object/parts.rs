//! Data in several pieces of the caller's memory: gathered into a message as they are, and scattered from one.
//!
//! Must never put pieces together in memory of its own: checksums go over the pieces, too.

use smallvec::SmallVec;
use talea_model::Extent;
use talea_wire::data::{Condition, More, ValueKind};

use super::fetch::{EntryFetch, Found};
use super::{CACHED_BYTES, EntryUpdate};

/// One (dkey, akey) to update from several pieces of memory.
#[derive(Clone, Copy, Debug)]
pub struct PartsUpdate<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// Kind of value.
    pub kind: ValueKind,
    /// Condition.
    pub condition: Condition,
    /// Extents of an array in the order of the data; empty for single values.
    pub extents: &'a [Extent],
    /// The extents' records in order, or the value. A piece may end within an extent, or a record.
    pub parts: &'a [&'a [u8]],
}

/// One (dkey, akey) to fetch, and the pieces of memory where to.
#[derive(Debug)]
pub struct PartsFetch<'a, 'm> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// Kind of value.
    pub kind: ValueKind,
    /// Extents of an array; empty for single values.
    pub extents: &'a [Extent],
    /// Get the extents' records in order, whose size they must have together, or as much of a value as fits.
    pub parts: &'a mut [&'m mut [u8]],
    /// Result: whether there is a value, or any record in the extents.
    pub found: bool,
    /// Result: whether there was no hole in the extents.
    pub filled: bool,
    /// Result: bytes of the value, also if the pieces are smaller; of an array the bytes asked for.
    pub bytes: usize,
}

/// An entry to update, wherever its data lies.
pub(super) trait Gathered: Sync {
    /// The entry with the first piece of its data, and the others.
    fn gathered(&self) -> (EntryUpdate<'_>, More<'_>);
}

impl Gathered for EntryUpdate<'_> {
    fn gathered(&self) -> (EntryUpdate<'_>, More<'_>) {
        (*self, More::default())
    }
}

impl Gathered for PartsUpdate<'_> {
    fn gathered(&self) -> (EntryUpdate<'_>, More<'_>) {
        let PartsUpdate { dkey, akey, kind, condition, extents, parts } = *self;
        let (data, whole) = parts.split_first().map_or((&[][..], &[][..]), |(first, others)| (*first, others));
        (EntryUpdate { dkey, akey, kind, condition, extents, data }, More { whole, last: &[] })
    }
}

/// Data of which the front is taken, piece by piece.
pub(super) struct Front<'a> {
    data: &'a [u8],
    whole: &'a [&'a [u8]],
}

impl<'a> Front<'a> {
    /// `more` is an entry's, which has no last piece.
    pub(super) fn of(data: &'a [u8], more: More<'a>) -> Self {
        Self { data, whole: more.whole }
    }

    /// The next `bytes`, or all that there is.
    pub(super) fn take(&mut self, bytes: usize) -> (&'a [u8], More<'a>) {
        let (front, rest) = self.data.split_at(bytes.min(self.data.len()));
        self.data = rest;
        let (mut left, mut count) = (bytes - front.len(), 0);
        while left > 0 && self.whole.get(count).is_some_and(|part| part.len() <= left) {
            left -= self.whole[count].len();
            count += 1;
        }
        let (whole, others) = self.whole.split_at(count);
        self.whole = others;
        let mut last: &[u8] = &[];
        if left > 0
            && let Some((next, others)) = others.split_first()
        {
            (last, self.data) = next.split_at(left);
            self.whole = others;
        }
        (front, More { whole, last })
    }
}

/// The pieces of memory of one message's entry; most have one, which needs no allocation.
pub(super) type Out<'o> = SmallVec<[&'o mut [u8]; 1]>;

/// What is asked of an entry.
pub(super) struct Asked<'k> {
    pub(super) dkey: &'k [u8],
    pub(super) akey: &'k [u8],
    pub(super) kind: ValueKind,
    pub(super) extents: &'k [Extent],
}

/// An entry to fetch, wherever its data goes.
pub(super) trait Scattered<'k>: Send {
    fn asked(&self) -> Asked<'k>;
    fn bytes(&self) -> usize;
    fn places<'o>(&'o mut self) -> impl Iterator<Item = &'o mut [u8]>
    where
        'k: 'o;
    fn tell(&mut self, found: Found);
}

impl<'k> Scattered<'k> for EntryFetch<'k> {
    fn asked(&self) -> Asked<'k> {
        Asked { dkey: self.dkey, akey: self.akey, kind: self.kind, extents: self.extents }
    }

    fn bytes(&self) -> usize {
        self.out.len()
    }

    fn places<'o>(&'o mut self) -> impl Iterator<Item = &'o mut [u8]>
    where
        'k: 'o,
    {
        std::iter::once(&mut *self.out)
    }

    fn tell(&mut self, Found { found, filled, bytes }: Found) {
        (self.found, self.filled, self.bytes) = (found, filled, bytes);
    }
}

impl<'k> Scattered<'k> for PartsFetch<'k, '_> {
    fn asked(&self) -> Asked<'k> {
        Asked { dkey: self.dkey, akey: self.akey, kind: self.kind, extents: self.extents }
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    fn places<'o>(&'o mut self) -> impl Iterator<Item = &'o mut [u8]>
    where
        'k: 'o,
    {
        self.parts.iter_mut().map(|part| &mut **part)
    }

    fn tell(&mut self, Found { found, filled, bytes }: Found) {
        (self.found, self.filled, self.bytes) = (found, filled, bytes);
    }
}

/// Pieces of memory for which room is made at once.
const AT_ONCE: usize = 64;

/// Hands out places in order, `bytes` of memory at a time.
pub(super) struct Places<'o, I> {
    open: &'o mut [u8],
    others: I,
}

impl<'o, I: Iterator<Item = &'o mut [u8]>> Places<'o, I> {
    pub(super) fn new(others: I) -> Self {
        Self { open: &mut [], others }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Out<'o> {
        let (mut out, mut left) = (Out::new(), bytes);
        if left > self.open.len() {
            let others = self.others.size_hint().0 + usize::from(!self.open.is_empty());
            out.reserve_exact(others.min(AT_ONCE));
        }
        while left > 0 {
            if self.open.is_empty() {
                match self.others.next() {
                    Some(next) => self.open = next,
                    None => break,
                }
                continue;
            }
            let at = left.min(self.open.len());
            let (front, rest) = std::mem::take(&mut self.open).split_at_mut(at);
            out.push(front);
            (self.open, left) = (rest, left - at);
        }
        out
    }
}

/// Bytes of places together.
pub(super) fn room(out: &[&mut [u8]]) -> usize {
    out.iter().map(|part| part.len()).sum()
}

/// Fills places with zeros.
pub(super) fn clear(out: &mut [&mut [u8]]) {
    out.iter_mut().for_each(|part| part.fill(0));
}

/// Copies the front of `data` to the places, as far as they go, and gives the checksum of all of it: of the copies as they are in the
/// places, in one pass over memory.
pub(super) fn copy_and_sum(data: &[u8], out: &mut [&mut [u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut rest = data;
    for place in out {
        let (front, others) = rest.split_at(place.len().min(rest.len()));
        for (from, to) in front.chunks(CACHED_BYTES).zip(place.chunks_mut(CACHED_BYTES)) {
            let to = &mut to[..from.len()];
            to.copy_from_slice(from);
            digest.update(to);
        }
        rest = others;
    }
    digest.update(rest);
    digest.finalize() as u32
}

/// The checksum of data in pieces.
pub(super) fn checksum_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    parts.for_each(|part| digest.update(part));
    digest.finalize() as u32
}
