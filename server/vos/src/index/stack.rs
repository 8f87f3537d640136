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

    /// Adds a piece; the caller's hold on the version becomes the stack's.
    pub(crate) fn push(&mut self, piece: Piece, versions: &mut Versions) {
        if self.is_empty() {
            self.one = piece;
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

    /// Drops versions of aborted transactions and sorts in those of committed ones.
    pub(crate) fn settle(&mut self, ledger: &Ledger, versions: &mut Versions) {
        if !self.has_unsettled(versions) {
            return;
        }
        let mut open = self.open(versions);
        // Pieces of one version settle together: whoever comes second finds the tag settled, but not its own place.
        let mut at = open.settled;
        while at < open.pieces.len() {
            let piece = open.pieces[at];
            let tag = versions.tag(piece.version);
            match (tag.tx.0 != 0).then(|| ledger.fate(tag.tx)) {
                Some(None | Some(Fate::Open)) => at += 1,
                Some(Some(Fate::Aborted)) => {
                    open.pieces.remove(at);
                    versions.drop_ref(piece.version);
                }
                fate => {
                    if let Some(Some(Fate::Committed(commit))) = fate {
                        versions.slots.set_tag(piece.version, settled(tag, commit));
                    }
                    open.pieces.remove(at);
                    open.insert_settled(piece, versions);
                    at += 1;
                }
            }
        }
        self.close(open, versions);
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
