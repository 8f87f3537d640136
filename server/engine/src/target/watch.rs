//! How long requests take, for those who look.
//!
//! Must never read a clock: the driver does, and only while somebody looks.

use talea_wire::data::Histogram;

use super::Now;
use crate::outbox::Kind;

/// How long a look lasts, in nanoseconds.
const LOOK_NS: u64 = 30_000_000_000;

#[derive(Default)]
pub(super) struct Watch {
    until_ns: u64,
    pub(super) updates: Times,
    pub(super) fetches: Times,
}

/// Durations of one kind of request.
#[derive(Default)]
pub(super) struct Times {
    pub(super) counts: Histogram,
    pub(super) sum_ns: u64,
}

impl Times {
    fn add(&mut self, took_ns: u64) {
        let place = (u64::BITS - took_ns.leading_zeros()) as usize;
        self.counts[place.min(self.counts.len() - 1)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(took_ns);
    }
}

impl Watch {
    /// Somebody looks.
    pub(super) fn look(&mut self, now: Now) {
        self.until_ns = now.monotonic_ns.saturating_add(LOOK_NS);
    }

    pub(super) fn is_on(&self, now: Now) -> bool {
        now.monotonic_ns < self.until_ns
    }

    /// A request was answered so long after it arrived.
    pub(super) fn answered(&mut self, kind: Kind, took_ns: u64) {
        match kind {
            Kind::Update => self.updates.add(took_ns),
            Kind::Fetch => self.fetches.add(took_ns),
            Kind::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_by_their_binary_order_while_somebody_looks() {
        let mut watch = Watch::default();
        let at = |monotonic_ns| Now { monotonic_ns, unix_us: 0 };
        assert!(!watch.is_on(at(1)));
        watch.look(at(1));
        assert!(watch.is_on(at(LOOK_NS)) && !watch.is_on(at(LOOK_NS + 1)));
        (0..3).for_each(|_| watch.answered(Kind::Update, 1000));
        watch.answered(Kind::Other, 1000);
        assert_eq!((watch.updates.counts[10], watch.updates.counts.iter().sum::<u64>()), (3, 3));
        assert_eq!(watch.updates.sum_ns, 3000);
        (0..2).for_each(|_| watch.answered(Kind::Fetch, u64::MAX));
        assert_eq!((watch.fetches.counts[31], watch.fetches.counts.iter().sum::<u64>()), (2, 2));
        watch.answered(Kind::Update, 0);
        assert_eq!(watch.updates.counts[0], 1);
    }
}
