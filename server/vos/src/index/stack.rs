//! A stack: the versions of one thing (a value, a column of an array, a punch), each whole.
//!
//! Settled ones come first, sorted, so that a view is found by bisection; those that wait for a fate follow in the order of
//! arrival.

use smallvec::SmallVec;
use talea_model::{Fate, Ledger, Stamp};

use super::lens::{Lens, Rank, settled};
use super::version::{VersionId, Versions};

/// A part of a version: all of its bytes from `skip` on, as far as the holder of the piece reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The version.
    pub version: VersionId,
    /// Bytes of it before this piece.
    pub skip: u32,
}

/// Versions of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stack {
    settled: u32,
    pieces: SmallVec<[Piece; 2]>,
}

impl Stack {
    /// True without versions.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// All pieces: the settled in order, then the others.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether one more look may find something to merge or to settle.
    pub(crate) fn is_restless(&self, versions: &Versions) -> bool {
        self.pieces.len() > 1
            || self.settled == 0
            || self.pieces.first().is_some_and(|piece| versions.get(piece.version).place.hole)
    }

    /// Whether any version waits for a fate.
    pub(crate) fn has_unsettled(&self) -> bool {
        (self.settled as usize) < self.pieces.len()
    }

    /// Adds a piece; the caller's hold on the version becomes the stack's.
    pub(crate) fn push(&mut self, piece: Piece, versions: &Versions) {
        if versions.get(piece.version).tag.tx.0 == 0 {
            self.insert_settled(piece, versions);
        } else {
            self.pieces.push(piece);
        }
    }

    fn insert_settled(&mut self, piece: Piece, versions: &Versions) {
        let order = |p: &Piece| (versions.get(p.version).tag.stamp, versions.get(p.version).tag.minor);
        let own = order(&piece);
        let prefix = &self.pieces[..self.settled as usize];
        let at = match prefix.last() {
            Some(last) if order(last) > own => prefix.partition_point(|p| order(p) <= own),
            _ => prefix.len(),
        };
        self.pieces.insert(at, piece);
        self.settled += 1;
    }

    /// The piece that a view sees, with its rank.
    pub(crate) fn top(&self, lens: &Lens, versions: &Versions) -> Option<(Rank, Piece)> {
        let (prefix, tail) = self.pieces.split_at(self.settled as usize);
        let tag = |p: &Piece| &versions.get(p.version).tag;
        let reached = match prefix.last() {
            Some(last) if tag(last).stamp > lens.stamp() => prefix.partition_point(|p| tag(p).stamp <= lens.stamp()),
            _ => prefix.len(),
        };
        let seen = |p: &Piece| lens.rank(tag(p)).map(|rank| (rank, *p));
        let base = prefix[..reached].iter().rev().find_map(seen);
        if tail.is_empty() {
            return base;
        }
        base.into_iter().chain(tail.iter().filter_map(seen)).max_by_key(|(rank, _)| *rank)
    }

    /// Drops versions of aborted transactions and sorts in those of committed ones. Calls `gone` for each version that waits
    /// no more.
    pub(crate) fn settle(&mut self, ledger: &Ledger, versions: &mut Versions) {
        let mut at = self.settled as usize;
        while at < self.pieces.len() {
            let piece = self.pieces[at];
            let tag = versions.get(piece.version).tag;
            match (tag.tx.0 != 0).then(|| ledger.fate(tag.tx)).flatten() {
                None if tag.tx.0 != 0 => at += 1,
                Some(Fate::Open) => at += 1,
                Some(Fate::Aborted) => {
                    self.pieces.remove(at);
                    versions.drop_ref(piece.version);
                }
                fate => {
                    if let Some(Fate::Committed(commit)) = fate {
                        *versions.tag_mut(piece.version) = settled(tag, commit);
                    }
                    self.pieces.remove(at);
                    self.insert_settled(piece, versions);
                    at += 1;
                }
            }
        }
    }

    /// Drops settled versions that no view at `stamps` (ascending, the last is the floor) or above the floor sees. `hidden`
    /// gives, for the n-th of the stamps, the rank at or below which everything is punched.
    pub(crate) fn thin(&mut self, views: &[(Lens, Option<Rank>)], floor: Stamp, versions: &mut Versions) -> bool {
        let prefix = self.settled as usize;
        if prefix == 0 {
            return false;
        }
        let mut keep: SmallVec<[bool; 32]> = SmallVec::from_elem(false, prefix);
        for (at, piece) in self.pieces[..prefix].iter().enumerate() {
            keep[at] = versions.get(piece.version).tag.from > floor;
        }
        for (lens, hidden) in views {
            let seen = self.pieces[..prefix]
                .iter()
                .enumerate()
                .rev()
                .find_map(|(at, piece)| lens.rank(&versions.get(piece.version).tag).map(|rank| (at, rank)));
            if let Some((at, rank)) = seen
                && Some(rank) > *hidden
            {
                keep[at] = true;
            }
        }
        let mut at = 0;
        let mut dropped = 0;
        self.pieces.retain(|piece| {
            let stays = at >= prefix || keep[at];
            at += 1;
            if !stays {
                dropped += 1;
                versions.drop_ref(piece.version);
            }
            stays
        });
        self.settled -= dropped;
        dropped > 0
    }

    /// Drops the oldest version if it is a punch at or below the floor with nothing under it: it shows what is shown without it.
    pub(crate) fn drop_bottom_hole(&mut self, floor: Stamp, versions: &mut Versions) {
        while !self.has_unsettled() && self.settled > 0 {
            let bottom = self.pieces[0];
            let version = versions.get(bottom.version);
            if !version.place.hole || version.tag.from > floor {
                return;
            }
            self.pieces.remove(0);
            self.settled -= 1;
            versions.drop_ref(bottom.version);
        }
    }

    /// A second stack of the same versions, `bytes` further into each.
    pub(crate) fn split(&self, bytes: u64, versions: &mut Versions) -> Stack {
        let mut right = self.clone();
        for piece in &mut right.pieces {
            versions.hold(piece.version);
            if !versions.get(piece.version).place.hole {
                piece.skip = (u64::from(piece.skip) + bytes) as u32;
            }
        }
        right
    }

    /// Whether `right`, `bytes` further on, shows the continuation of each of this stack's pieces.
    pub(crate) fn continues_in(&self, right: &Stack, bytes: u64, versions: &Versions) -> bool {
        self.settled == right.settled
            && self.pieces.len() == right.pieces.len()
            && self.pieces.iter().zip(&right.pieces).all(|(a, b)| {
                let hole = versions.get(a.version).place.hole;
                a.version == b.version && (hole || u64::from(a.skip) + bytes == u64::from(b.skip))
            })
    }

    /// Lets go of all versions.
    pub(crate) fn clear(&mut self, versions: &mut Versions) {
        for piece in self.pieces.drain(..) {
            versions.drop_ref(piece.version);
        }
        self.settled = 0;
    }
}
