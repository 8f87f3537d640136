//! Following the pool's log: fates, floors, kept stamps, and the ceiling.

use talea_model::{Fate, Position, Stamp, TxId};

use super::Store;
use crate::log::record::{encode_follow, kind};
use crate::{Change, StoreError};

impl Store {
    /// Applies log entries up to `horizon`, in order; durable with the next flush. O(1) for each begin, commit and abort.
    pub fn follow(&mut self, changes: &[Change], horizon: Position) -> Result<(), StoreError> {
        if changes.is_empty() && horizon <= self.ledger.horizon() {
            return Ok(());
        }
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        encode_follow(changes, horizon, &mut payload);
        let mut appended = self.log.append(kind::FOLLOW, payload.as_slice());
        if matches!(appended, Err(StoreError::NoSpace { .. })) && self.make_room()? {
            appended = self.log.append(kind::FOLLOW, payload.as_slice());
        }
        self.scratch = payload;
        appended?;
        self.apply_changes(changes, horizon);
        Ok(())
    }

    /// Raises the ceiling (docs/design.md §4 rule 10); durable with the next flush.
    pub fn raise_ceiling(&mut self, to: Stamp) -> Result<(), StoreError> {
        if to <= self.ceiling {
            return Ok(());
        }
        let mut appended = self.log.append(kind::CEILING, &to.0.to_le_bytes());
        if matches!(appended, Err(StoreError::NoSpace { .. })) && self.make_room()? {
            appended = self.log.append(kind::CEILING, &to.0.to_le_bytes());
        }
        appended?;
        self.ceiling = to;
        Ok(())
    }

    /// Applies changes to memory.
    pub(super) fn apply_changes(&mut self, changes: &[Change], horizon: Position) {
        for change in changes {
            match *change {
                Change::Begin(tx) => self.ledger.begin(tx),
                Change::Commit(tx, stamp) => self.close(tx, Fate::Committed(stamp)),
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
                    self.index.destroy(container);
                    self.free_gone();
                }
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
}
