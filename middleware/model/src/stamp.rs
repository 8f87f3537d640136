//! Stamps and the hybrid logical clock that makes them (docs/design.md §4 rule 1).

use std::fmt;

use serde::{Deserialize, Serialize};

const LOGICAL_BITS: u32 = 12;

/// A hybrid logical clock value: microseconds since the Unix epoch in the upper 52 bits, a counter in the lower 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Before everything.
    pub const ZERO: Self = Stamp(0);
    /// After everything: the stamp of a *latest* read.
    pub const MAX: Self = Stamp(u64::MAX);

    /// The first stamp of a microsecond.
    pub const fn from_unix_us(unix_us: u64) -> Self {
        Stamp(unix_us << LOGICAL_BITS)
    }

    /// Microseconds since the Unix epoch.
    pub const fn unix_us(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The stamp right after this one.
    pub const fn next(self) -> Self {
        Stamp(self.0.saturating_add(1))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03x}", self.unix_us(), self.0 & ((1 << LOGICAL_BITS) - 1))
    }
}

/// A hybrid logical clock: never goes back, stays close to physical time, and is past everything it observed.
///
/// Kulkarni et al., "Logical Physical Clocks", OPODIS 2014. Physical time is passed in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hlc {
    last: Stamp,
}

impl Hlc {
    /// A clock that will only give stamps above `floor`.
    pub const fn after(floor: Stamp) -> Self {
        Hlc { last: floor }
    }

    /// A new stamp, above all that this clock gave or observed.
    pub fn tick(&mut self, unix_us: u64) -> Stamp {
        self.last = Stamp::from_unix_us(unix_us).max(self.last.next());
        self.last
    }

    /// Advances past a stamp that a message carried.
    pub fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }

    /// The largest stamp given or observed.
    pub const fn last(&self) -> Stamp {
        self.last
    }

    /// Whether a proposed stamp lies no further ahead of physical time than `ahead_ms` allows.
    pub const fn is_plausible(stamp: Stamp, unix_us: u64, ahead_ms: u64) -> bool {
        stamp.unix_us() <= unix_us.saturating_add(ahead_ms * 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back() {
        let mut clock = Hlc::default();
        let a = clock.tick(1_000_000);
        let b = clock.tick(999_999);
        assert!(b > a);
        clock.observe(Stamp::from_unix_us(2_000_000));
        assert!(clock.tick(1_000_001) > Stamp::from_unix_us(2_000_000));
        assert_eq!(clock.tick(3_000_000), Stamp::from_unix_us(3_000_000));
    }
}
