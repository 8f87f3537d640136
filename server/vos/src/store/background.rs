//! Background work, in portions: settling closed transactions, aggregation, checkpoints.

use super::Store;
use crate::StoreError;
use crate::index::reclaim::{ObjectSweep, Sweep};

/// A budget that nothing exhausts: for when room is needed now.
const NO_LIMIT: usize = usize::MAX;

impl Store {
    /// Does about `budget_items` of background work: settles closed transactions, takes destroyed containers apart, aggregates
    /// below floors, writes checkpoints. Each gets a share, so that none waits for another. Returns whether more is left.
    pub fn background(&mut self, budget_items: usize) -> Result<bool, StoreError> {
        let share = budget_items.div_ceil(4);
        let mut left = budget_items.saturating_sub(self.settle_some(share));
        left = left.saturating_sub(self.bury_some(share));
        left = left.saturating_sub(self.sweep_some(share));
        self.free_gone();
        if self.checkpoint.is_none() && self.wants_checkpoint() {
            self.begin_checkpoint()?;
        }
        left = self.write_checkpoint(left)?;
        // What the checkpoint does not need.
        left = left.saturating_sub(self.settle_some(left));
        self.sweep_some(left);
        self.free_gone();
        if self.has_work() {
            return Ok(true);
        }
        if self.log.needs_mark() {
            self.log.append_mark()?;
            self.log.flush()?;
        }
        Ok(false)
    }

    /// Whether background work is left.
    fn has_work(&self) -> bool {
        let memory = &self.memory;
        let swept = memory.sweep.is_empty() && memory.sweep_objects.is_empty();
        let wanted =
            memory.sweep_wanted && !(memory.index.restless.is_empty() && memory.index.restless_objects.is_empty());
        let paused = memory.sweeping.is_some() || memory.sweeping_object.is_some() || memory.settling.is_some();
        !memory.closed.is_empty()
            || !memory.index.doomed.is_empty()
            || !swept
            || wanted
            || paused
            || self.checkpoint.is_some()
    }

    /// Settles transactions that are closed; returns how much it looked at.
    fn settle_some(&mut self, limit: usize) -> usize {
        let memory = &mut self.memory;
        let mut work = 0;
        while work < limit {
            let Some(tx) = memory.closed.front().copied() else { break };
            let touch = memory.settling.take().or_else(|| memory.index.touched.get_mut(&tx)?.all.pop());
            let Some(touch) = touch else {
                memory.index.touched.remove(&tx);
                memory.ledger.forget(tx);
                memory.closed.pop_front();
                work += 1;
                continue;
            };
            let (done, left) = memory.index.settle(touch, &memory.ledger, limit - work);
            work += done;
            memory.settling = left;
        }
        self.items += work as u64;
        work
    }

    fn bury_some(&mut self, limit: usize) -> usize {
        let work = self.memory.index.bury_some(limit);
        self.items += work as u64;
        work
    }

    /// Aggregates; returns how much it looked at.
    fn sweep_some(&mut self, limit: usize) -> usize {
        let memory = &mut self.memory;
        let mut work = 0;
        while work < limit {
            if let Some(mut sweep) = memory.sweeping_object.take() {
                let (more, done) = memory.index.sweep_object(&mut sweep, &memory.ledger, limit - work);
                work += more;
                memory.sweeping_object = (!done).then_some(sweep);
            } else if let Some(mut sweep) = memory.sweeping.take() {
                let (more, done) = memory.index.sweep(&mut sweep, &memory.ledger, limit - work);
                work += more;
                memory.sweeping = (!done).then_some(sweep);
            } else if let Some(id) = memory.sweep_objects.pop() {
                memory.index.objects.get_mut(id).into_iter().for_each(|object| object.restless = false);
                memory.sweeping_object = Some(ObjectSweep::of(id));
            } else if let Some(id) = memory.sweep.pop() {
                memory.index.dkeys.get_mut(id).into_iter().for_each(|node| node.restless = false);
                memory.sweeping = Some(Sweep::of(id));
            } else if std::mem::take(&mut memory.sweep_wanted) {
                memory.sweep = std::mem::take(&mut memory.index.restless);
                memory.sweep_objects = std::mem::take(&mut memory.index.restless_objects);
            } else {
                break;
            }
        }
        self.items += work as u64;
        work
    }

    /// Gives back all space that can be had. Returns whether that was any.
    pub(super) fn make_room(&mut self) -> Result<bool, StoreError> {
        let before = self.log.space.free_bytes();
        if self.checkpoint.is_some() {
            self.write_checkpoint(NO_LIMIT)?;
        }
        self.settle_some(NO_LIMIT);
        self.bury_some(NO_LIMIT);
        self.sweep_some(NO_LIMIT);
        self.free_gone();
        let back = self.log.space.waiting_bytes() + self.log.garbage_bytes;
        if back > 0 || self.log.since_checkpoint_bytes > 4 * self.log.segment_bytes() {
            match self.begin_checkpoint().and_then(|()| self.write_checkpoint(NO_LIMIT).map(drop)) {
                Ok(()) | Err(StoreError::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.log.space.free_bytes() > before)
    }

    /// How much must stay free for punches and a checkpoint.
    pub(super) fn refresh_reserve(&mut self) {
        let index = &self.memory.index;
        let nodes = u64::from(index.dkeys.bound()) + index.versions.len();
        self.log.reserve_bytes = 3 * self.log.segment_bytes() + 160 * nodes;
    }
}
