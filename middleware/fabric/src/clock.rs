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
