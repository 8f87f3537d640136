//! Background work, in portions: settling closed transactions, aggregation, checkpoints, giving blocks back.

use talea_tier::TierError;

use super::Store;
use crate::StoreError;
use crate::index::reclaim::{ObjectSweep, Sweep};

impl Store {
    /// Does about `budget_items` of background work: settles closed transactions, takes destroyed containers apart, aggregates
    /// below floors, writes checkpoints. Each gets a share, so that none waits for another. Returns whether more is left.
    pub fn background(&mut self, budget_items: usize) -> Result<bool, StoreError> {
        self.work(budget_items)?;
        // A checkpoint that aggregation has made worth its while is begun by the next portion, whoever else comes or not.
        if self.has_work() || self.may_checkpoint() && self.wants_checkpoint() {
            return Ok(true);
        }
        if self.log.needs_mark() {
            match self.log.append_mark() {
                // It can do without one for now: the next record says the same.
                Err(StoreError::NoSpace { .. } | StoreError::Tier(TierError::NoRoom { .. })) => {}
                marked => marked.and_then(|_| self.log.flush())?,
            }
        }
        Ok(false)
    }

    /// A portion of all that there is to do.
    pub(super) fn work(&mut self, budget_items: usize) -> Result<(), StoreError> {
        let done = self.work_some(budget_items);
        self.advance_round();
        done
    }

    fn work_some(&mut self, budget_items: usize) -> Result<(), StoreError> {
        let share = budget_items.div_ceil(4);
        let mut left = budget_items;
        let idle = !self.has_work();
        if !idle {
            left = left.saturating_sub(self.settle_some(share));
            left = left.saturating_sub(self.bury_some(share));
            left = left.saturating_sub(self.sweep_some(share));
            left = left.saturating_sub(self.give_back_some(share));
        }
        self.free_gone();
        if self.log.is_volatile() {
            left = self.compact_some(left)?;
        } else {
            self.begin_wanted_checkpoint()?;
            left = self.write_checkpoint(left)?;
        }
        if idle {
            return Ok(());
        }
        // What these do not need.
        left = left.saturating_sub(self.settle_some(left));
        left = left.saturating_sub(self.give_back_some(left));
        self.sweep_some(left);
        self.free_gone();
        Ok(())
    }

    /// Whether background work is left.
    pub(super) fn has_work(&self) -> bool {
        !self.memory.closed.is_empty()
            || self.memory.settling.is_some()
            || !self.memory.index.doomed.is_empty()
            || self.has_to_sweep()
            || self.checkpoint.is_some()
            || self.compaction.is_some()
            || !self.returning.is_empty()
    }

    /// Whether aggregation has something left to look at.
    pub(super) fn has_to_sweep(&self) -> bool {
        let memory = &self.memory;
        let restless = !(memory.index.restless.is_empty() && memory.index.restless_objects.is_empty());
        let paused = memory.sweeping.is_some() || memory.sweeping_object.is_some();
        paused || !memory.sweep.is_empty() || !memory.sweep_objects.is_empty() || memory.sweep_wanted && restless
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
                self.rounds.settled += 1;
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
                self.rounds.passes += 1;
                memory.sweep = std::mem::take(&mut memory.index.restless);
                memory.sweep_objects = std::mem::take(&mut memory.index.restless_objects);
            } else {
                break;
            }
        }
        self.items += work as u64;
        work
    }

    /// Gives back blocks that a checkpoint made free; returns how many runs.
    fn give_back_some(&mut self, limit: usize) -> usize {
        let first = self.returning.len().saturating_sub(limit);
        let mut work = 0;
        for (start, bytes) in self.returning.drain(first..) {
            self.log.space.release(start, bytes);
            work += 1;
        }
        self.items += work as u64;
        work
    }
}
