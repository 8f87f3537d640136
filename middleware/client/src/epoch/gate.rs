//! Whether updates of a transaction may begin, and how many are in flight.
//!
//! One word for both, so that of a commit and an update that begins at the same moment in another thread only one goes on. Must
//! never let a commit pass while an update has not ended: its summary would not say what was written.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

const OVER: usize = 1 << (usize::BITS - 1);

/// Why a transaction cannot be committed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It was committed, aborted or left.
    Over,
    /// So many updates are in flight.
    InFlight(usize),
}

/// A transaction's gate: shared with its updates in flight, which may be held by whoever starts them.
#[derive(Debug, Default)]
pub(crate) struct Gate(Arc<AtomicUsize>);

/// An update or punch of an epoch that has not ended. While there is one the epoch is not committed.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicUsize>);

impl Gate {
    /// An update begins; `None`: it is too late for that.
    pub(crate) fn enter(&self) -> Option<InFlight> {
        let more = |word| (word & OVER == 0).then_some(word + 1);
        self.0.fetch_update(SeqCst, SeqCst, more).ok()?;
        Some(InFlight(self.0.clone()))
    }

    /// Ends the transaction for updates if none is in flight.
    pub(crate) fn close(&self) -> Result<(), Held> {
        self.0.compare_exchange(0, OVER, SeqCst, SeqCst).map(drop).map_err(held)
    }

    /// Ends it whatever is in flight; false if it was over.
    pub(crate) fn shut(&self) -> bool {
        self.0.fetch_or(OVER, SeqCst) & OVER == 0
    }

    /// What is in the way of a commit.
    pub(crate) fn check(&self) -> Result<(), Held> {
        match self.0.load(SeqCst) {
            0 => Ok(()),
            word => Err(held(word)),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.load(SeqCst) & OVER != 0
    }

    /// Updates in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.load(SeqCst) & !OVER
    }
}

fn held(word: usize) -> Held {
    if word & OVER != 0 { Held::Over } else { Held::InFlight(word) }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_closes_while_something_is_in_flight_and_nothing_begins_afterwards() {
        let gate = Gate::default();
        let (one, two) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert_eq!(gate.close(), Err(Held::InFlight(2)));
        drop(one);
        assert_eq!((gate.close(), gate.check(), gate.in_flight()), (Err(Held::InFlight(1)), Err(Held::InFlight(1)), 1));
        assert!(!gate.is_over(), "a refusal changes nothing");
        drop(two);
        assert_eq!((gate.check(), gate.close(), gate.close()), (Ok(()), Ok(()), Err(Held::Over)));
        assert!(gate.enter().is_none() && gate.is_over() && !gate.shut());
    }

    #[test]
    fn an_abort_waits_for_nobody() {
        let gate = Gate::default();
        let flight = gate.enter().unwrap();
        assert!(gate.shut());
        drop(flight);
        assert_eq!((gate.in_flight(), gate.close(), gate.enter().is_none()), (0, Err(Held::Over), true));
    }
}
