//! When a replica cuts its log: it keeps an image of the pool in place of the entries before it.
//!
//! A replica makes one when what it has applied since the last one passes a bound. The entries go that the image before that
//! one covers: a replica or a server that is a little slow still gets entries, and only one that is far behind the image.

use std::collections::VecDeque;
use std::sync::Arc;

use openraft::SnapshotMeta;
use talea_model::Position;

use super::Replica;
use super::shelf::Kept;
use crate::pool::Pool;

/// How much of the log a replica lets grow behind its last image. It keeps at most about twice as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBound {
    /// Records, and entries of Raft's log.
    pub records: u64,
    /// Bytes; an image that is larger than that is not made anew before as much has come.
    pub bytes: u64,
}

impl Default for LogBound {
    fn default() -> Self {
        LogBound { records: 16_384, bytes: 8 << 20 }
    }
}

/// An image that stands for the log up to some place.
#[derive(Clone, Copy, Debug)]
struct Cut {
    index: u64,
    position: Position,
}

/// What was cut, and what is being.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// The last images that are durable, two at most.
    made: VecDeque<Cut>,
    /// One that openraft makes now.
    making: Option<Cut>,
    /// Since the last one was begun.
    records: u64,
    bytes: u64,
}

impl Replica {
    /// Adds up what was applied.
    pub(in crate::node) fn count_applied(&mut self, bytes: usize) {
        self.cuts.records += 1;
        self.cuts.bytes += bytes as u64;
    }

    /// Whether an image of the pool as it is after all that was applied should be made.
    pub(in crate::node) fn wants_image(&self, bound: LogBound) -> bool {
        if self.cuts.making.is_some() {
            return false;
        }
        let (applied, image_bytes) = self.shelf.with(|inner| {
            let applied = inner.last_applied.map_or(0, |id| id.index);
            (applied, inner.snapshot.as_ref().map_or(0, |kept| kept.image.len()))
        });
        let last = self.cuts.made.back().map_or(0, |cut| cut.index);
        let is_long = self.cuts.records >= bound.records || applied - last.min(applied) >= bound.records;
        applied > last && (is_long || self.cuts.bytes >= bound.bytes.max(image_bytes as u64))
    }

    /// Makes an image of the pool the newest snapshot; it is of the state after all that was applied.
    pub(in crate::node) fn make_image(&mut self, image: Vec<u8>) {
        let index = self.shelf.with(|inner| {
            let last_log_id = inner.last_applied;
            let snapshot_id = format!("{}", self.position.0);
            let meta = SnapshotMeta { last_log_id, last_membership: inner.membership.clone(), snapshot_id };
            inner.ready = Some(Kept { meta, image: Arc::new(image) });
            last_log_id.map_or(0, |id| id.index)
        });
        self.cuts.making = Some(Cut { index, position: self.position });
        (self.cuts.records, self.cuts.bytes) = (0, 0);
        let raft = self.raft.clone();
        self.executor.spawn(async move { drop(raft.trigger().snapshot().await) });
    }

    /// An image is durable: what the one before it covers goes.
    pub(super) fn note_cut(&mut self) {
        let Some(making) = self.cuts.making else { return };
        let made = self.metrics.borrow().snapshot.map_or(0, |id| id.index);
        if made < making.index {
            return;
        }
        self.cuts.making = None;
        self.cuts.made.push_back(making);
        if self.cuts.made.len() > 2 {
            self.cuts.made.pop_front();
        }
        let Some(before) = self.cuts.made.front().copied().filter(|before| before.index < making.index) else { return };
        self.tail.forget(before.position);
        let raft = self.raft.clone();
        self.executor.spawn(async move { drop(raft.trigger().purge_log(before.index).await) });
    }

    /// A snapshot stands for all that was applied so far: the pool at this position.
    pub(in crate::node) fn restart(&mut self, position: Position) {
        self.position = position;
        self.tail.restart(position);
        let last = |kept: &Kept| kept.meta.last_log_id.map_or(0, |id| id.index);
        let index = self.shelf.with(|inner| inner.snapshot.as_ref().map_or(0, last));
        self.cuts = Cuts { made: VecDeque::from([Cut { index, position }]), ..Cuts::default() };
    }

    /// The newest image, and of which position.
    pub(in crate::node) fn image(&self) -> Option<(Position, Arc<Vec<u8>>)> {
        let image = self.shelf.with(|inner| inner.snapshot.as_ref().map(|kept| kept.image.clone()))?;
        Some((Pool::image_position(&image)?, image))
    }

    /// What is kept in memory: records for followers, entries of the log, bytes of these.
    #[cfg(test)]
    pub(in crate::node) fn kept(&self) -> (usize, usize, usize) {
        let (entries, bytes) = self.shelf.with(|inner| inner.size());
        (self.tail.len(), entries, bytes)
    }
}
