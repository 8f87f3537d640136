//! What a restart rebuilds: all of a store but the medium.
//!
//! Replay and live calls change it through the same functions.

use std::collections::{HashMap, VecDeque};

use talea_model::{Fate, Ledger, Position, SessionId, Stamp, TxId};

use super::recover::Named;
use crate::index::Index;
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
    /// Closed transactions that are to be settled and forgotten.
    pub(super) closed: VecDeque<TxId>,
    /// Dkeys that the aggregation pass under way has still to look at.
    pub(super) sweep: Vec<u32>,
    /// A floor rose or a kept stamp ended since the last aggregation pass began.
    pub(super) sweep_wanted: bool,
    /// During recovery: values in blocks that the log names.
    pub(super) named: Named,
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
                Change::DestroyContainer(container) => self.index.destroy(container),
                Change::EndSession(session) => {
                    self.done.remove(&session);
                }
            }
        }
        self.ledger.advance(horizon);
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
