//! How long turns take, for those who look.
//!
//! Must never read a clock: the driver does, and only while somebody looks.

use talea_wire::data::Histogram;

use super::Now;

/// How long a look lasts, in nanoseconds.
const LOOK_NS: u64 = 30_000_000_000;

#[derive(Default)]
pub(super) struct Watch {
    until_ns: u64,
    /// Updates and fetches before this turn.
    before: (u64, u64),
    pub(super) update_turns: Histogram,
    pub(super) fetch_turns: Histogram,
}

impl Watch {
    /// Somebody looks.
    pub(super) fn look(&mut self, now: Now) {
        self.until_ns = now.monotonic_ns.saturating_add(LOOK_NS);
    }

    pub(super) fn is_on(&self, now: Now) -> bool {
        now.monotonic_ns < self.until_ns
    }

    pub(super) fn begin(&mut self, updates: u64, fetches: u64) {
        self.before = (updates, fetches);
    }

    pub(super) fn end(&mut self, updates: u64, fetches: u64, took_ns: u64) {
        let last = self.update_turns.len() - 1;
        let place = (u64::BITS - took_ns.leading_zeros()) as usize;
        let place = place.min(last);
        self.update_turns[place] += updates - self.before.0;
        self.fetch_turns[place] += fetches - self.before.1;
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
        watch.begin(5, 7);
        watch.end(8, 7, 1000);
        assert_eq!((watch.update_turns[10], watch.update_turns.iter().sum::<u64>()), (3, 3));
        watch.begin(8, 7);
        watch.end(8, 9, u64::MAX);
        assert_eq!((watch.fetch_turns[31], watch.fetch_turns.iter().sum::<u64>()), (2, 2));
        watch.begin(8, 9);
        watch.end(9, 9, 0);
        assert_eq!(watch.update_turns[0], 1);
    }
}
