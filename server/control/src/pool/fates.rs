//! How long the fates of closed transactions are kept (rule 7).
//!
//! The newest always are, by when they closed and not by their numbers: an epoch that was open for a day is told of as long as
//! any other. When a server is lost, so are those kept at that time, and those of the transactions that are open then, whenever they close:
//! its targets may hold versions of them. That lasts until they have followed the log beyond the loss.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use talea_model::{Position, ServerId, TxId};
use talea_wire::control::Reply;

use super::{FATES_AT_ONCE, MAX_FATES, MAX_FATES_BEHIND, Outcome, Pool};

/// Which fates are kept, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fates {
    /// In the order of their closing.
    closing: VecDeque<TxId>,
    /// Servers that were lost, where in the log, and have not confirmed that they followed it up to there.
    behind: BTreeMap<ServerId, Position>,
    /// So many of the oldest are kept for them.
    pinned: usize,
    /// The last transaction that had begun when a server was lost last.
    begun: TxId,
}

impl Pool {
    /// Where a server was lost, if it may not know yet what happened before.
    pub(crate) fn is_behind(&self, server: ServerId) -> Option<Position> {
        self.fates.behind.get(&server).copied()
    }

    /// A transaction has closed.
    pub(super) fn note_closing(&mut self, tx: TxId) {
        if !self.fates.behind.is_empty() && tx <= self.fates.begun {
            self.fates.closing.insert(self.fates.pinned, tx);
            self.fates.pinned += 1;
            return self.bound_pinned();
        }
        self.fates.closing.push_back(tx);
        let kept = self.fates.closing.len() - self.fates.pinned;
        if kept >= MAX_FATES + FATES_AT_ONCE {
            self.forget_fates(self.fates.pinned, kept - MAX_FATES);
        }
    }

    /// A server was lost: what closed so far is news to it if it comes back.
    pub(super) fn note_lost(&mut self, server: ServerId) {
        self.fates.behind.insert(server, self.position);
        self.fates.pinned = self.fates.closing.len();
        self.fates.begun = self.last_tx;
        self.bound_pinned();
    }

    fn bound_pinned(&mut self) {
        if let Some(excess @ 1..) = self.fates.pinned.checked_sub(MAX_FATES_BEHIND) {
            self.forget_fates(0, excess);
            self.fates.pinned -= excess;
        }
    }

    /// A server's targets know every fate up to a position.
    pub(super) fn confirmed(&mut self, server: ServerId, durable: Position) -> Outcome {
        if self.fates.behind.get(&server).is_some_and(|lost| *lost <= durable) {
            self.fates.behind.remove(&server);
        }
        if self.fates.behind.is_empty() {
            self.fates.pinned = 0;
            if let Some(excess @ 1..) = self.fates.closing.len().checked_sub(MAX_FATES) {
                self.forget_fates(0, excess);
            }
        }
        Ok(Reply::Done)
    }

    fn forget_fates(&mut self, from: usize, count: usize) {
        for tx in self.fates.closing.drain(from..from + count) {
            self.closed.remove(&tx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(pool: &mut Pool, numbers: std::ops::Range<u64>) {
        for tx in numbers {
            pool.note_closing(TxId(tx));
        }
    }

    fn holds(pool: &Pool, tx: u64) -> bool {
        pool.fates.closing.contains(&TxId(tx))
    }

    #[test]
    fn the_newest_fates_are_kept_and_those_that_a_lost_server_may_lack() {
        let all = (MAX_FATES + FATES_AT_ONCE) as u64;
        let mut pool = Pool { position: Position(5), ..Pool::default() };
        closed(&mut pool, 10..20);
        pool.note_lost(ServerId(1));
        closed(&mut pool, 100..100 + 2 * all);
        assert!(holds(&pool, 10) && !holds(&pool, 100) && holds(&pool, 99 + 2 * all));
        assert_eq!(pool.is_behind(ServerId(1)), Some(Position(5)));
        pool.confirmed(ServerId(1), Position(4)).unwrap();
        assert!(holds(&pool, 10), "it does not know them yet");
        pool.confirmed(ServerId(1), Position(5)).unwrap();
        assert!(!holds(&pool, 10));
        assert_eq!((pool.fates.closing.len(), pool.is_behind(ServerId(1))), (MAX_FATES, None));
    }

    #[test]
    fn what_was_open_when_a_server_was_lost_is_kept_for_it_whenever_it_closes() {
        let all = (MAX_FATES + FATES_AT_ONCE) as u64;
        let mut pool = Pool { position: Position(5), last_tx: TxId(20), ..Pool::default() };
        pool.note_lost(ServerId(1));
        closed(&mut pool, 100..200);
        closed(&mut pool, 20..21);
        closed(&mut pool, 200..200 + 2 * all);
        assert!(holds(&pool, 20) && !holds(&pool, 100));
        pool.confirmed(ServerId(1), Position(5)).unwrap();
        assert!(!holds(&pool, 20));
    }

    #[test]
    fn what_is_kept_for_servers_that_come_and_go_has_a_bound() {
        let mut pool = Pool::default();
        for flap in 0..8 {
            let first = 1 + flap * MAX_FATES as u64;
            closed(&mut pool, first..first + MAX_FATES as u64);
            pool.note_lost(ServerId(1));
        }
        assert_eq!(pool.fates.closing.len(), MAX_FATES_BEHIND);
        assert!(holds(&pool, 8 * MAX_FATES as u64));
    }
}
