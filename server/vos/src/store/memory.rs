//! What a restart rebuilds: all of a store but the medium.
//!
//! Replay and live calls change it through the same functions.

use std::collections::{HashMap, VecDeque};

use talea_model::{Fate, Ledger, Position, SessionId, Stamp, TxId};

use super::dump::Restoring;
use super::past::Past;
use super::recover::Named;
use crate::index::reclaim::{ObjectSweep, Sweep};
use crate::index::{Index, Touch};
use crate::log::record::Done;
use crate::{Caller, Change};

/// The memory of a store.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) index: Index,
    pub(super) ledger: Ledger,
    pub(super) done: HashMap<SessionId, Done>,
    pub(super) ceiling: Stamp,
    /// Part of the log is lost: nothing that is read can be trusted to be the newest.
    pub(super) lost: bool,
    /// What earlier media of this target held.
    pub(super) past: Past,
    /// Closed transactions that are to be settled and forgotten.
    pub(super) closed: VecDeque<TxId>,
    /// The closed transaction's place that is being settled.
    pub(super) settling: Option<Touch>,
    /// Dkeys and objects that the aggregation pass under way has still to look at.
    pub(super) sweep: Vec<u32>,
    pub(super) sweep_objects: Vec<u32>,
    /// The dkey and the object that it is in the middle of.
    pub(super) sweeping: Option<Sweep>,
    pub(super) sweeping_object: Option<ObjectSweep>,
    /// A floor rose or a kept stamp ended since the last aggregation pass began.
    pub(super) sweep_wanted: bool,
    /// During recovery: values in blocks that the log names.
    pub(super) named: Named,
    /// During replay: the log record up to which the checkpoint describes each dkey, and each object's punches.
    pub(super) as_of: AsOf,
    /// During replay: the dkey whose parts are being read.
    pub(super) restoring: Option<Restoring>,
}

/// Log records up to which a checkpoint describes nodes, by their number.
#[derive(Debug, Default)]
pub(super) struct AsOf {
    pub(super) dkeys: HashMap<u32, u64>,
    pub(super) objects: HashMap<u32, u64>,
}

impl Memory {
    /// Applies changes.
    pub(super) fn apply_changes(&mut self, changes: &[Change], horizon: Position) {
        for change in changes {
            match *change {
                Change::Begin(tx) => self.ledger.begin(tx),
                Change::Commit(tx, stamp) => {
                    self.ceiling = self.ceiling.max(stamp);
                    self.close(tx, Fate::Committed(stamp));
                }
                Change::Abort(tx) => self.close(tx, Fate::Aborted),
                Change::Floor(container, stamp) => {
                    let floor = &mut self.index.containers.entry(container).or_default().floor;
                    self.sweep_wanted |= stamp > *floor;
                    *floor = stamp.max(*floor);
                }
                Change::Keep(container, stamp) => {
                    let kept = &mut self.index.containers.entry(container).or_default().kept;
                    *kept.entry(stamp).or_insert(0) += 1;
                }
                Change::Release(container, stamp) => {
                    let kept = &mut self.index.containers.entry(container).or_default().kept;
                    if let Some(count) = kept.get_mut(&stamp) {
                        *count -= 1;
                        if *count == 0 {
                            kept.remove(&stamp);
                        }
                        self.sweep_wanted = true;
                    }
                }
                Change::DestroyContainer(container) => {
                    self.past.forget(container);
                    self.index.destroy(container);
                }
                Change::EndSession(session) => {
                    self.done.remove(&session);
                }
                Change::Container(container) => _ = self.past.made.insert(container),
                Change::Incarnation(incarnation) => self.past.came_back(incarnation),
            }
        }
        self.ledger.advance(horizon);
    }

    /// Forgets what only replay needs.
    pub(super) fn end_replay(&mut self) {
        self.end_restoring();
        self.as_of = AsOf::default();
        self.index.versions.take_freed();
    }

    /// The dkey whose parts were read is whole.
    pub(super) fn end_restoring(&mut self) {
        if let Some(restoring) = self.restoring.take() {
            restoring.finish(&mut self.index);
        }
    }

    fn close(&mut self, tx: TxId, fate: Fate) {
        if self.ledger.fate(tx).is_none() {
            self.ledger.begin(tx);
        }
        if self.ledger.close(tx, fate) {
            self.closed.push_back(tx);
        }
    }

    /// Remembers a request that is done, and forgets those whose answers the caller has seen.
    pub(super) fn note_done(&mut self, caller: &Caller) {
        if caller.session.0 == 0 {
            return;
        }
        let done = self.done.entry(caller.session).or_default();
        done.acknowledged_below = done.acknowledged_below.max(caller.acknowledged_below);
        if caller.sequence >= done.acknowledged_below {
            done.sequences.insert(caller.sequence);
        }
        if done.sequences.first().is_some_and(|first| *first < done.acknowledged_below) {
            done.sequences = done.sequences.split_off(&done.acknowledged_below);
        }
    }
}
