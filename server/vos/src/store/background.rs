//! Background work, in portions: settling closed transactions, aggregation.

use super::Store;
use crate::StoreError;

/// Items of work that nothing stops: for when room is needed now.
const NO_BUDGET: usize = usize::MAX;

impl Store {
    /// Does about `budget_items` of background work: settles closed transactions, aggregates below floors, writes
    /// checkpoints. Returns whether more is left.
    pub fn background(&mut self, budget_items: usize) -> Result<bool, StoreError> {
        let left = self.settle_closed(budget_items);
        let left = self.sweep_some(left);
        self.free_gone();
        Ok(left == 0)
    }

    /// Settles transactions that are closed; returns what is left of the budget.
    fn settle_closed(&mut self, mut budget: usize) -> usize {
        while budget > 0 {
            let Some(tx) = self.closed.front().copied() else { break };
            let next = self.index.touched.get_mut(&tx).map(|touched| (touched.dkeys.pop(), touched.objects.pop()));
            match next {
                None | Some((None, None)) => {
                    self.index.touched.remove(&tx);
                    self.ledger.forget(tx);
                    self.closed.pop_front();
                }
                Some((dkey, object)) => {
                    dkey.into_iter().for_each(|id| self.index.settle_dkey(id, &self.ledger));
                    object.into_iter().for_each(|id| self.index.settle_object(id, &self.ledger));
                }
            }
            budget -= 1;
        }
        budget
    }

    /// Aggregates; returns what is left of the budget.
    fn sweep_some(&mut self, mut budget: usize) -> usize {
        if self.sweep.is_empty() && self.sweep_wanted && budget > 0 {
            self.sweep_wanted = false;
            self.sweep = std::mem::take(&mut self.index.restless);
            let mut objects = std::mem::take(&mut self.index.restless_objects);
            objects.sort_unstable();
            objects.dedup();
            for id in objects {
                self.index.aggregate_object(id, &self.ledger);
                if self.index.objects.get(id).is_some_and(|object| !object.punches.is_empty()) {
                    self.index.restless_objects.push(id);
                }
            }
        }
        while budget > 0 {
            let Some(id) = self.sweep.pop() else { break };
            let (work, restless) = self.index.aggregate_dkey(id, &self.ledger);
            if restless {
                self.index.restless.push(id);
            }
            budget = budget.saturating_sub(work);
        }
        budget
    }

    /// Gives back all space that can be had. Returns whether that was any.
    pub(super) fn make_room(&mut self) -> Result<bool, StoreError> {
        let before = self.log.space.free_bytes();
        self.settle_closed(NO_BUDGET);
        self.sweep_some(NO_BUDGET);
        self.free_gone();
        Ok(self.log.space.free_bytes() > before)
    }

    /// How much must stay free for punches and a checkpoint.
    pub(super) fn refresh_reserve(&mut self) {
        self.log.reserve_bytes = 0;
    }
}
