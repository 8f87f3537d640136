//! The machine's clocks behind the seam's [`Clock`]. Simulations use [`crate::sim::SimClock`] instead.

use rustix::time::{ClockId, clock_gettime};

use crate::Clock;

/// `CLOCK_MONOTONIC` and `CLOCK_REALTIME` of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

impl Clock for RealClock {
    fn monotonic_ns(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn unix_us(&self) -> u64 {
        let now = clock_gettime(ClockId::Realtime);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
    }
}

/// A look at the wall clock serves so long, in nanoseconds.
const WALL_NS: u64 = 10_000_000;

/// Wall time for who has read the monotonic clock anyway: a look at either costs as much as any other part of a small request.
/// A jump of the wall clock is seen 10 ms late, which hybrid logical clocks bear.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wall {
    looked_ns: u64,
    unix_us: u64,
}

impl Wall {
    /// Microseconds since the Unix epoch at `now_ns` of the monotonic clock.
    pub fn unix_us(&mut self, clock: &dyn Clock, now_ns: u64) -> u64 {
        let since_ns = now_ns.wrapping_sub(self.looked_ns);
        if self.unix_us > 0 && since_ns < WALL_NS {
            return self.unix_us + since_ns / 1000;
        }
        *self = Wall { looked_ns: now_ns, unix_us: clock.unix_us() };
        self.unix_us
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    struct Counted(AtomicU64);

    impl Clock for Counted {
        fn monotonic_ns(&self) -> u64 {
            unreachable!("the caller has read it")
        }

        fn unix_us(&self) -> u64 {
            1_000_000 * self.0.fetch_add(1, Relaxed) + 7
        }
    }

    #[test]
    fn the_wall_clock_is_looked_at_once_in_a_while_and_goes_on_between() {
        let (clock, mut wall) = (Counted(AtomicU64::new(1)), Wall::default());
        assert_eq!(wall.unix_us(&clock, 5_000), 1_000_007);
        assert_eq!(wall.unix_us(&clock, 9_000), 1_000_011);
        assert_eq!(wall.unix_us(&clock, 5_000 + WALL_NS), 2_000_007);
        assert_eq!(wall.unix_us(&clock, 4_000), 3_000_007, "a time before the last look");
    }
}
