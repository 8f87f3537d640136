//! The target's clock: stamps for autocommits, and the ceiling that no stamp may pass before it is durable (rule 10).
//!
//! Must never give a stamp at or below one that was served, given or applied before, restarts included.

use talea_model::{Hlc, Stamp};

/// How far ahead of what is needed the ceiling is raised, in microseconds: one log record a second at most.
const BLOCK_US: u64 = 1_000_000;

pub(crate) struct TargetClock {
    hlc: Hlc,
    /// In the store's log, durable with the flush of this turn at the latest.
    ceiling: Stamp,
    /// Largest stamp that a snapshot was served at, that was given, or that an applied entry took.
    used: Stamp,
    /// Largest stamp that an applied entry took: such stamps are accepted however far ahead they are (rule 1).
    applied: Stamp,
}

impl TargetClock {
    pub(crate) fn after(ceiling: Stamp) -> Self {
        TargetClock { hlc: Hlc::after(ceiling), ceiling, used: Stamp::ZERO, applied: ceiling }
    }

    /// A message carried this stamp.
    pub(crate) fn observe(&mut self, stamp: Stamp) {
        self.hlc.observe(stamp);
    }

    /// An entry of the log took this stamp.
    pub(crate) fn applied(&mut self, stamp: Stamp) {
        self.applied = self.applied.max(stamp);
        self.serve(stamp);
    }

    /// A snapshot is served at this stamp: no later autocommit may be at or below it.
    pub(crate) fn serve(&mut self, stamp: Stamp) {
        self.hlc.observe(stamp);
        self.used = self.used.max(stamp);
    }

    /// A stamp for an autocommit.
    pub(crate) fn stamp(&mut self, unix_us: u64) -> Stamp {
        let stamp = self.hlc.tick(unix_us);
        self.used = self.used.max(stamp);
        stamp
    }

    /// No stamp above it was given or served, in Unix microseconds.
    pub(crate) fn last_us(&self) -> u64 {
        self.hlc.last().unix_us()
    }

    /// A clock value for a reply.
    pub(crate) fn tick(&mut self, unix_us: u64) -> Stamp {
        self.hlc.tick(unix_us)
    }

    /// Whether a stamp is close enough to physical time, or known from the log.
    pub(crate) fn is_plausible(&self, stamp: Stamp, unix_us: u64, ahead_ms: u64) -> bool {
        stamp <= self.applied || Hlc::is_plausible(stamp, unix_us, ahead_ms)
    }

    /// Where the ceiling must be raised to before this turn ends, if it must.
    pub(crate) fn wanted_ceiling(&self) -> Option<Stamp> {
        (self.used > self.ceiling).then(|| Stamp::from_unix_us(self.used.unix_us() + 1 + BLOCK_US))
    }

    pub(crate) fn raised(&mut self, to: Stamp) {
        self.ceiling = self.ceiling.max(to);
    }
}
