//! Background work, in portions: settling closed transactions, aggregation, checkpoints.

use super::Store;
use crate::StoreError;

/// A budget that nothing exhausts: for when room is needed now.
const NO_LIMIT: usize = usize::MAX;

impl Store {
    /// Does about `budget_items` of background work: settles closed transactions, aggregates below floors, writes
    /// checkpoints. Returns whether more is left.
    pub fn background(&mut self, budget_items: usize) -> Result<bool, StoreError> {
        let mut left = budget_items;
        if self.checkpoint.is_none() {
            left = self.settle_closed(left);
            left = self.sweep_some(left);
            self.free_gone();
            if left > 0 && self.wants_checkpoint() {
                self.begin_checkpoint()?;
            }
        }
        left = self.write_checkpoint(left)?;
        if left > 0 && self.log.needs_mark() {
            self.log.append_mark()?;
            self.log.flush()?;
        }
        Ok(left == 0)
    }

    /// Settles transactions that are closed; returns what is left of the budget.
    fn settle_closed(&mut self, mut budget: usize) -> usize {
        let memory = &mut self.memory;
        while budget > 0 {
            let Some(tx) = memory.closed.front().copied() else { break };
            let next = memory.index.touched.get_mut(&tx).map(|touched| (touched.dkeys.pop(), touched.objects.pop()));
            match next {
                None | Some((None, None)) => {
                    memory.index.touched.remove(&tx);
                    memory.ledger.forget(tx);
                    memory.closed.pop_front();
                }
                Some((dkey, object)) => {
                    dkey.into_iter().for_each(|id| memory.index.settle_dkey(id, &memory.ledger));
                    object.into_iter().for_each(|id| memory.index.settle_object(id, &memory.ledger));
                }
            }
            budget -= 1;
        }
        budget
    }

    /// Aggregates; returns what is left of the budget.
    fn sweep_some(&mut self, mut budget: usize) -> usize {
        let memory = &mut self.memory;
        if memory.sweep.is_empty() && memory.sweep_wanted && budget > 0 {
            memory.sweep_wanted = false;
            memory.sweep = std::mem::take(&mut memory.index.restless);
            let mut objects = std::mem::take(&mut memory.index.restless_objects);
            objects.sort_unstable();
            objects.dedup();
            for id in objects {
                memory.index.aggregate_object(id, &memory.ledger);
                if memory.index.objects.get(id).is_some_and(|object| !object.punches.is_empty()) {
                    memory.index.restless_objects.push(id);
                }
            }
        }
        while budget > 0 {
            let Some(id) = memory.sweep.pop() else { break };
            let (work, restless) = memory.index.aggregate_dkey(id, &memory.ledger);
            if restless {
                memory.index.restless.push(id);
            }
            budget = budget.saturating_sub(work);
        }
        budget
    }

    /// Gives back all space that can be had. Returns whether that was any.
    pub(super) fn make_room(&mut self) -> Result<bool, StoreError> {
        let before = self.log.space.free_bytes();
        if self.checkpoint.is_some() {
            self.write_checkpoint(NO_LIMIT)?;
        }
        self.settle_closed(NO_LIMIT);
        self.sweep_some(NO_LIMIT);
        self.free_gone();
        if self.log.space.waiting_bytes() > 0 || self.log.since_checkpoint_bytes > 4 * self.log.segment_bytes() {
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
        let nodes = u64::from(index.dkeys.bound()) + index.versions.len() as u64;
        self.log.reserve_bytes = 3 * self.log.segment_bytes() + 160 * nodes;
    }
}
