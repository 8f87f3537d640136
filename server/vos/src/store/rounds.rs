//! Rounds: how far a store that was found full has come with all that could make room.
//!
//! One round is everything that there was to free when it began: transactions settled, a whole pass of aggregation, a checkpoint (or a
//! pass over sparse segments) begun after that, its blocks given back, the leases of that time ended. Others may go on making work
//! for ever; who found no room before a whole round and finds none after it need not wait for a third. Must never do any of the work.

use super::Store;

/// Rounds, and what they go by.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Rounds that have ended.
    ended: u64,
    stage: Stage,
    /// Closed transactions that were settled.
    pub(super) settled: u64,
    /// Passes of aggregation that were begun.
    pub(super) passes: u64,
    /// Checkpoints and compactions that were begun.
    pub(super) begun: u64,
}

/// What a round waits for.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// Its beginning.
    #[default]
    Ended,
    /// So many settled transactions, and aggregation to begin such a pass (or to have nothing left).
    Reclaim { settled: u64, passes: u64 },
    /// A checkpoint or compaction beyond this number to come to its end, if one is wanted.
    Write { begun: u64 },
    /// Leases to end.
    Leases { until: u64 },
}

impl Store {
    /// Rounds that have ended. Who found no room when there were `n`, and finds none when there are `n + 2`, has seen a whole one.
    pub fn room_rounds(&self) -> u64 {
        self.rounds.ended
    }

    /// When room can be had at the earliest, in the caller's time, if leases are all that is in the way; `None` if there is work to
    /// do for it (or nothing to hope for).
    pub fn room_at(&self) -> Option<u64> {
        if self.is_room_worked_for() { None } else { self.log.space.first_held_until() }
    }

    /// After a portion of background work: whether the round has come on.
    pub(super) fn advance_round(&mut self) {
        // Each stage once at most: a round takes a few calls even if there is nothing to do.
        self.rounds.stage = match self.rounds.stage {
            Stage::Ended => {
                let settled = self.rounds.settled + self.memory.closed.len() as u64;
                Stage::Reclaim { settled, passes: self.rounds.passes + 2 }
            }
            Stage::Reclaim { settled, passes }
                if self.rounds.settled >= settled
                    && self.memory.index.doomed.is_empty()
                    && (self.rounds.passes >= passes || !self.has_to_sweep()) =>
            {
                Stage::Write { begun: self.rounds.begun }
            }
            Stage::Write { begun } if self.is_written_since(begun) && self.returning.is_empty() => {
                Stage::Leases { until: self.log.space.leased_until() }
            }
            Stage::Leases { until } if self.log.space.held_bytes() == 0 || self.log.space.is_past(until) => {
                self.rounds.ended += 1;
                Stage::Ended
            }
            stage => stage,
        };
    }

    fn is_written_since(&self, begun: u64) -> bool {
        let (under_way, wanted) = if self.log.is_volatile() {
            (self.compaction.is_some(), self.wants_compaction())
        } else {
            (self.checkpoint.is_some(), self.may_checkpoint() && self.wants_checkpoint())
        };
        // The one under way may be the next of those that follow each other without an end.
        match self.rounds.begun - begun {
            0 => !under_way && !wanted,
            1 => !under_way,
            _ => true,
        }
    }
}
