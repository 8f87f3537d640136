//! A stack: the versions of one thing (a value, a column of an array, a punch), each whole. Eight bytes while there is one.
//!
//! Settled ones come first, sorted, so that a view is found by bisection; those that wait for a fate follow in the order of
//! arrival.

use smallvec::SmallVec;
use talea_model::{Fate, Ledger, Stamp};

use super::lens::{Lens, Rank, settled};
use super::slab::Slab;
use super::version::{Slots, VersionId, Versions};

/// A part of a version: all of its bytes from `skip` on, as far as the holder of the piece reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The version.
    pub version: VersionId,
    /// Bytes of it before this piece.
    pub skip: u32,
}

/// No version.
const EMPTY: Piece = Piece { version: u32::MAX, skip: 0 };
/// In place of a version: the number of a [`Many`].
const MANY: u32 = 1 << 31;

/// Versions of one thing. What it holds is given back by [`clear`](Self::clear), not by dropping it.
#[derive(Debug)]
pub(crate) struct Stack {
    one: Piece,
}

const _: () = assert!(size_of::<Stack>() == 8);

/// More than one version.
#[derive(Debug, Default)]
pub(crate) struct Many {
    settled: u32,
    pieces: Vec<Piece>,
}

impl Default for Stack {
    fn default() -> Self {
        Self { one: EMPTY }
    }
}

/// A stack while it is changed.
struct Open {
    settled: usize,
    pieces: SmallVec<[Piece; 4]>,
}

impl Open {
    fn insert_settled(&mut self, piece: Piece, slots: &Slots) {
        let order = |p: &Piece| (slots.tag(p.version).stamp, slots.tag(p.version).minor);
        let own = order(&piece);
        let prefix = &self.pieces[..self.settled];
        let at = match prefix.last() {
            Some(last) if order(last) > own => prefix.partition_point(|p| order(p) <= own),
            _ => prefix.len(),
        };
        self.pieces.insert(at, piece);
        self.settled += 1;
    }

    /// Sorts in what stands behind the settled ones; among equals those that came first stay first. Returns how many may have moved.
    fn sort_in(&mut self, slots: &Slots) -> usize {
        let order = |p: &Piece| (slots.tag(p.version).stamp, slots.tag(p.version).minor);
        let (before, new) = self.pieces.split_at_mut(self.settled);
        new.sort_by_key(order);
        let from = match (before.last(), new.first().map(order)) {
            (Some(last), Some(first)) if order(last) > first => before.partition_point(|p| order(p) <= first),
            _ => self.settled,
        };
        // Two runs in order, which the sort finds and merges.
        if from < self.settled {
            self.pieces[from..].sort_by_key(order);
        }
        self.settled = self.pieces.len();
        self.settled - from
    }
}

/// So many of the versions that came last are looked at for one that another replaces.
const LOOK_BACK: usize = 8;

/// Whether nobody can see a version any more once another one of the same place is there: both wait, for the same fate alone, and
/// whoever sees one sees the other above it.
fn is_replaced(old: VersionId, by: VersionId, versions: &Versions) -> bool {
    let (old, by) = (versions.tag(old), versions.tag(by));
    old.tx.0 != 0 && old.tx == by.tx && !old.tied && !by.tied && old.minor <= by.minor
}

impl Stack {
    fn many<'a>(&self, stacks: &'a Slab<Many>) -> Option<&'a Many> {
        match self.one.version {
            version if version & MANY == 0 || version == EMPTY.version => None,
            version => stacks.get(version & !MANY),
        }
    }

    /// True without versions.
    pub(crate) fn is_empty(&self) -> bool {
        self.one == EMPTY
    }

    /// All pieces: the settled in order, then the others.
    pub(crate) fn pieces<'a>(&'a self, versions: &'a Versions) -> &'a [Piece] {
        match self.many(&versions.stacks) {
            Some(many) => &many.pieces,
            None if self.is_empty() => &[],
            None => std::slice::from_ref(&self.one),
        }
    }

    fn settled(&self, versions: &Versions) -> usize {
        match self.many(&versions.stacks) {
            Some(many) => many.settled as usize,
            None => usize::from(!self.is_empty() && versions.is_settled(self.one.version)),
        }
    }

    /// Takes the pieces out, to be put back by [`close`](Self::close).
    fn open(&mut self, versions: &mut Versions) -> Open {
        let settled = self.settled(versions);
        let pieces = match self.many(&versions.stacks) {
            Some(_) => match versions.stacks.remove(self.one.version & !MANY) {
                Some(many) => SmallVec::from_vec(many.pieces),
                None => SmallVec::new(),
            },
            None if self.is_empty() => SmallVec::new(),
            None => SmallVec::from_slice(&[self.one]),
        };
        self.one = EMPTY;
        Open { settled, pieces }
    }

    fn close(&mut self, open: Open, versions: &mut Versions) {
        self.one = match open.pieces[..] {
            [] => EMPTY,
            [one] => one,
            _ => {
                let many = Many { settled: open.settled as u32, pieces: open.pieces.into_vec() };
                Piece { version: versions.stacks.add(many) | MANY, skip: 0 }
            }
        };
    }

    /// Whether one more look may find something to merge or to settle.
    pub(crate) fn is_restless(&self, versions: &Versions) -> bool {
        match self.pieces(versions) {
            [] => false,
            [one] => !versions.is_settled(one.version) || versions.is_hole(one.version),
            _ => true,
        }
    }

    /// Whether any version waits for a fate.
    pub(crate) fn has_unsettled(&self, versions: &Versions) -> bool {
        self.settled(versions) < self.pieces(versions).len()
    }

    /// Whether any version waits for a fate, or is seen only from a stamp above the floor on that is later than its own.
    pub(crate) fn has_late(&self, floor: Stamp, versions: &Versions) -> bool {
        self.pieces(versions).iter().any(|piece| {
            let tag = versions.tag(piece.version);
            tag.tx.0 != 0 || tag.from > tag.stamp && tag.from > floor
        })
    }

    /// Puts a piece in the place of an earlier one of the same transaction; false if there is none among the last.
    fn replace(&mut self, piece: Piece, versions: &mut Versions) -> bool {
        let pieces = self.pieces(versions);
        let last = pieces.len().saturating_sub(LOOK_BACK).max(self.settled(versions));
        let replaced = |p: &Piece| is_replaced(p.version, piece.version, versions);
        let Some(at) = pieces[last..].iter().rposition(replaced).map(|at| last + at) else { return false };
        let id = self.many(&versions.stacks).map(|_| self.one.version & !MANY);
        let place = match id.and_then(|id| versions.stacks.get_mut(id)) {
            Some(many) => &mut many.pieces[at],
            None => &mut self.one,
        };
        let old = std::mem::replace(place, piece);
        versions.drop_ref(old.version);
        true
    }

    /// Adds a piece; the caller's hold on the version becomes the stack's.
    pub(crate) fn push(&mut self, piece: Piece, versions: &mut Versions) {
        if self.is_empty() {
            self.one = piece;
            return;
        }
        if !versions.is_settled(piece.version) && self.replace(piece, versions) {
            return;
        }
        let waits = !versions.is_settled(piece.version);
        if let Some(id) = self.many(&versions.stacks).map(|_| self.one.version & !MANY)
            && let Some(many) = versions.stacks.get_mut(id)
        {
            // The common cases in place: one more that waits, or the newest of all.
            let newest = waits
                || many.settled as usize == many.pieces.len() && {
                    let order = |p: &Piece| (versions.slots.tag(p.version).stamp, versions.slots.tag(p.version).minor);
                    many.pieces.last().is_none_or(|last| order(last) <= order(&piece))
                };
            if newest {
                many.pieces.push(piece);
                many.settled += u32::from(!waits);
                return;
            }
        }
        let mut open = self.open(versions);
        if waits {
            open.pieces.push(piece);
        } else {
            open.insert_settled(piece, versions);
        }
        self.close(open, versions);
    }

    /// The piece that a view sees, with its rank.
    #[inline]
    pub(crate) fn top(&self, lens: &Lens, versions: &Versions) -> Option<(Rank, Piece)> {
        let seen = |p: &Piece| lens.rank(&versions.tag(p.version)).map(|rank| (rank, *p));
        let Some(many) = self.many(&versions.stacks) else {
            return if self.is_empty() { None } else { seen(&self.one) };
        };
        let (prefix, tail) = many.pieces.split_at(many.settled as usize);
        let stamp = |p: &Piece| versions.tag(p.version).stamp;
        let reached = match prefix.last() {
            Some(last) if stamp(last) > lens.stamp() => prefix.partition_point(|p| stamp(p) <= lens.stamp()),
            _ => prefix.len(),
        };
        let base = prefix[..reached].iter().rev().find_map(seen);
        if tail.is_empty() {
            return base;
        }
        base.into_iter().chain(tail.iter().filter_map(seen)).max_by_key(|(rank, _)| *rank)
    }

    /// Drops versions of aborted transactions and sorts in those of committed ones. Returns how many it looked at or moved.
    pub(crate) fn settle(&mut self, ledger: &Ledger, versions: &mut Versions) -> usize {
        if !self.has_unsettled(versions) {
            return 1;
        }
        let mut open = self.open(versions);
        let tail: SmallVec<[Piece; 4]> = open.pieces.drain(open.settled..).collect();
        let looked = tail.len();
        let mut waiting: SmallVec<[Piece; 4]> = SmallVec::new();
        // Pieces of one version settle together: whoever comes second finds the tag settled, but not its own place.
        for piece in tail {
            let tag = versions.tag(piece.version);
            match (tag.tx.0 != 0).then(|| ledger.fate(tag.tx)) {
                Some(None | Some(Fate::Open)) => waiting.push(piece),
                Some(Some(Fate::Aborted)) => versions.drop_ref(piece.version),
                fate => {
                    if let Some(Some(Fate::Committed(commit))) = fate {
                        versions.slots.set_tag(piece.version, settled(tag, commit));
                    }
                    open.pieces.push(piece);
                }
            }
        }
        let moved = open.sort_in(&versions.slots);
        open.pieces.extend(waiting);
        self.close(open, versions);
        looked + moved
    }

    /// Drops settled versions that no view at `views` (ascending, the last is the floor) or above the floor sees. Each view
    /// comes with the rank at or below which everything is punched for it.
    pub(crate) fn thin(&mut self, views: &[(Lens, Option<Rank>)], floor: Stamp, versions: &mut Versions) {
        let settled = self.settled(versions);
        let pieces = self.pieces(versions);
        let mut keep: SmallVec<[bool; 32]> =
            pieces[..settled].iter().map(|piece| versions.tag(piece.version).from > floor).collect();
        for (lens, hidden) in views {
            let ranks = pieces[..settled].iter().enumerate().rev();
            let seen = ranks.into_iter().find_map(|(at, p)| Some((at, lens.rank(&versions.tag(p.version))?)));
            if let Some((at, rank)) = seen
                && Some(rank) > *hidden
            {
                keep[at] = true;
            }
        }
        if keep.iter().all(|keep| *keep) {
            return;
        }
        let mut open = self.open(versions);
        let mut at = 0;
        open.pieces.retain(|piece| {
            let stays = keep.get(at).copied().unwrap_or(true);
            at += 1;
            if !stays {
                versions.drop_ref(piece.version);
                open.settled -= 1;
            }
            stays
        });
        self.close(open, versions);
    }

    /// Drops the oldest version if it is a punch at or below the floor with nothing under it: it shows what is shown without it.
    pub(crate) fn drop_bottom_hole(&mut self, floor: Stamp, versions: &mut Versions) {
        while let Some(bottom) = self.pieces(versions).first().copied() {
            let droppable = versions.is_hole(bottom.version) && versions.tag(bottom.version).from <= floor;
            if !droppable || self.has_unsettled(versions) {
                return;
            }
            let mut open = self.open(versions);
            open.pieces.remove(0);
            open.settled -= 1;
            self.close(open, versions);
            versions.drop_ref(bottom.version);
        }
    }

    /// A second stack of the same versions, `bytes` further into each.
    pub(crate) fn split(&self, bytes: u64, versions: &mut Versions) -> Stack {
        let settled = self.settled(versions);
        let mut pieces: SmallVec<[Piece; 4]> = SmallVec::from_slice(self.pieces(versions));
        for piece in &mut pieces {
            versions.hold(piece.version);
            if !versions.is_hole(piece.version) {
                piece.skip = (u64::from(piece.skip) + bytes) as u32;
            }
        }
        let mut right = Stack::default();
        right.close(Open { settled, pieces }, versions);
        right
    }

    /// Whether `right`, `bytes` further on, shows the continuation of each of this stack's pieces.
    pub(crate) fn continues_in(&self, right: &Stack, bytes: u64, versions: &Versions) -> bool {
        let (here, there) = (self.pieces(versions), right.pieces(versions));
        here.len() == there.len()
            && self.settled(versions) == right.settled(versions)
            && here.iter().zip(there).all(|(a, b)| {
                let hole = versions.is_hole(a.version);
                a.version == b.version && (hole || u64::from(a.skip) + bytes == u64::from(b.skip))
            })
    }

    /// Lets go of all versions.
    pub(crate) fn clear(&mut self, versions: &mut Versions) {
        for piece in self.open(versions).pieces {
            versions.drop_ref(piece.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use talea_model::{Position, TxId, View};

    use super::*;
    use crate::index::version::{Place, Tag};

    fn push(stack: &mut Stack, minor: u64, tx: u64, tied: bool, versions: &mut Versions) -> VersionId {
        let stamp = Stamp(if tied { minor } else { 0 });
        let tag = Tag { stamp, from: stamp, minor, tx: TxId(tx), tied };
        let version = versions.add(tag, &Place { offset: minor, len: 1, ..Place::default() });
        versions.hold(version);
        stack.push(Piece { version, skip: 0 }, versions);
        version
    }

    fn minors(stack: &Stack, versions: &Versions) -> Vec<u64> {
        stack.pieces(versions).iter().map(|piece| versions.tag(piece.version).minor).collect()
    }

    fn ledger(open: std::ops::RangeInclusive<u64>) -> Ledger {
        let mut ledger = Ledger::default();
        open.for_each(|tx| ledger.begin(TxId(tx)));
        ledger.advance(Position(1));
        ledger
    }

    #[test]
    fn a_rewrite_in_a_transaction_takes_the_place_of_what_nobody_sees_any_more() {
        const COUNT: u64 = 10_000;
        let (ledger, mut versions, mut stack) = (ledger(1..=3), Versions::default(), Stack::default());
        push(&mut stack, 1, 0, false, &mut versions);
        push(&mut stack, 2, 3, true, &mut versions);
        for minor in 3..COUNT {
            // Two at a time, and one that is tied: it may be seen by others, so that it stays.
            let last = push(&mut stack, minor, 1 + minor % 2, false, &mut versions);
            let view = View::Inside { tx: TxId(1 + minor % 2), base: Stamp(9), position: Position(0) };
            let seen = stack.top(&Lens::new(&ledger, view, false), &versions);
            assert_eq!(seen.map(|(_, piece)| piece.version), Some(last));
        }
        assert_eq!(minors(&stack, &versions), [1, 2, COUNT - 1, COUNT - 2]);
        assert_eq!((versions.len(), versions.take_freed().len() as u64), (4, COUNT - 5));
        // One that is older by its order, whenever it comes, takes nothing's place.
        push(&mut stack, 5, 1, false, &mut versions);
        assert_eq!(stack.pieces(&versions).len(), 5);
    }

    #[test]
    fn settling_looks_at_each_version_a_few_times_however_many_there_are() {
        const COUNT: u64 = 10_000;
        for abort in [false, true] {
            let (mut ledger, mut versions, mut stack) = (ledger(1..=COUNT), Versions::default(), Stack::default());
            let order = |n: u64| 1 + n * 7919 % COUNT;
            (0..COUNT).for_each(|n| _ = push(&mut stack, n, order(n), false, &mut versions));
            // Half of them first, in another order than they were written, then all.
            for tx in 1..=COUNT {
                let fate = if abort && tx % 2 == 0 { Fate::Aborted } else { Fate::Committed(Stamp(100 + tx)) };
                ledger.close(TxId(tx), fate);
                if tx == COUNT / 2 || tx == COUNT {
                    let looked = stack.settle(&ledger, &mut versions) as u64;
                    assert!(looked <= 3 * COUNT, "{looked} for {COUNT}");
                }
            }
            let stamps: Vec<u64> = stack.pieces(&versions).iter().map(|p| versions.tag(p.version).stamp.0).collect();
            let step = if abort { 2 } else { 1 };
            assert!(stamps.iter().copied().eq((101..=100 + COUNT).step_by(step)));
            assert!(!stack.has_unsettled(&versions));
        }
    }
}
