//! A lens: which versions a view sees, and in what order (docs/design.md §4 rules 4, 6, 8).

use talea_model::{Fate, Ledger, Stamp, TxId, View};

use super::version::Tag;

/// Order of a version in one view; the largest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// The view's own transaction wrote it: above all of its base.
    own: bool,
    stamp: Stamp,
    minor: u64,
}

/// A view with the fates that it needs.
#[derive(Clone, Copy)]
pub(crate) struct Lens<'a> {
    ledger: &'a Ledger,
    /// Views from this stamp on.
    stamp: Stamp,
    latest: bool,
    own: Option<TxId>,
    /// Planted bug: pending versions are visible to everyone.
    leaky: bool,
}

impl<'a> Lens<'a> {
    /// The lens of a view.
    pub(crate) fn new(ledger: &'a Ledger, view: View, leaky: bool) -> Self {
        let (stamp, latest, own) = match view {
            View::Latest => (Stamp::MAX, true, None),
            View::Snapshot { stamp, .. } => (stamp, false, None),
            View::Inside { tx, base, .. } => (base, false, (ledger.fate(tx) != Some(Fate::Aborted)).then_some(tx)),
        };
        Self { ledger, stamp, latest, own, leaky }
    }

    /// A snapshot's lens.
    pub(crate) fn at(ledger: &'a Ledger, stamp: Stamp) -> Self {
        Self { ledger, stamp, latest: false, own: None, leaky: false }
    }

    /// The view's stamp; [`Stamp::MAX`] for the latest.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Rank of a version, if the view sees it.
    #[inline]
    pub(crate) fn rank(&self, tag: &Tag) -> Option<Rank> {
        if tag.tx.0 == 0 {
            return (tag.from <= self.stamp).then_some(Rank { own: false, stamp: tag.stamp, minor: tag.minor });
        }
        self.rank_unsettled(tag)
    }

    fn rank_unsettled(&self, tag: &Tag) -> Option<Rank> {
        if self.own == Some(tag.tx) {
            let stamp = if tag.tied { tag.stamp } else { Stamp::ZERO };
            return Some(Rank { own: !tag.tied, stamp, minor: tag.minor });
        }
        match self.ledger.fate(tag.tx) {
            Some(Fate::Aborted) => None,
            Some(Fate::Committed(commit)) => {
                let tag = settled(*tag, commit);
                (tag.from <= self.stamp).then_some(Rank { own: false, stamp: tag.stamp, minor: tag.minor })
            }
            Some(Fate::Open) | None if tag.tied && self.latest => {
                Some(Rank { own: false, stamp: tag.stamp, minor: tag.minor })
            }
            Some(Fate::Open) | None if self.leaky => Some(Rank { own: false, stamp: self.stamp, minor: tag.minor }),
            Some(Fate::Open) | None => None,
        }
    }
}

/// A tag after its transaction committed.
pub(crate) fn settled(tag: Tag, commit: Stamp) -> Tag {
    let stamp = if tag.tied { tag.stamp } else { commit };
    Tag { stamp, from: stamp.max(commit), tx: TxId(0), tied: false, ..tag }
}
