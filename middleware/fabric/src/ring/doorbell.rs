//! Waking the other side, only if it said that it sleeps.
//!
//! Owns the two words of sleep. The sleeper stores its word, fences, and looks once more before it sleeps; the other side
//! publishes, fences, and then looks at the word. So at least one of them sees the other, and no wake-up is lost.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::poller;
use crate::ring::layout::Side;
use crate::ring::mapping::Mapping;

/// Our end of both doorbells of a connection.
pub(crate) struct Doorbell {
    mapping: Arc<Mapping>,
    side: Side,
    /// Wakes the other side.
    bell: OwnedFd,
    rung: AtomicU64,
}

impl Doorbell {
    pub(crate) fn new(mapping: Arc<Mapping>, side: Side, bell: OwnedFd) -> Self {
        Doorbell { mapping, side, bell, rung: AtomicU64::new(0) }
    }

    /// Called after something was published that a side sleeping for `what` waits for.
    pub(crate) fn published(&self, what: u64) {
        fence(Ordering::SeqCst);
        let word = self.mapping.word(self.side.other().sleep_word());
        if word.load(Ordering::Relaxed) & what == 0 {
            return;
        }
        // Cleared so that a burst rings once. Whoever cleared it rings, so a sleep that began meanwhile ends early at worst.
        if word.fetch_and(!what, Ordering::SeqCst) & what != 0 {
            self.rung.fetch_add(1, Ordering::Relaxed);
            poller::ring(self.bell.as_fd());
        }
    }

    /// Says that we are about to sleep for `what`; [`fence_sleep`] must follow before the last look.
    pub(crate) fn sleep_for(&self, what: u64) {
        self.mapping.word(self.side.sleep_word()).store(what, Ordering::Relaxed);
    }

    /// Says that we are awake.
    pub(crate) fn awake(&self) {
        self.mapping.word(self.side.sleep_word()).store(0, Ordering::Relaxed);
    }

    pub(crate) fn rung(&self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

/// Orders our words of sleep before our last look at the rings.
pub(crate) fn fence_sleep() {
    fence(Ordering::SeqCst);
}
