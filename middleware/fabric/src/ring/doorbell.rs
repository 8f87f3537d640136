//! Waking the other side, only if it said that it sleeps.
//!
//! Owns the two words of sleep. The sleeper stores its word, fences, and looks once more before it sleeps; the other side
//! publishes, fences, and then looks at the word. So at least one of them sees the other, and no wake-up is lost.

use crate::ring::layout::Side;
use crate::ring::mapping::Mapping;
use crate::ring::sync::{Arc, AtomicU64, Bell, Ordering, fence};

/// Our end of both doorbells of a connection.
pub(crate) struct Doorbell {
    mapping: Arc<Mapping>,
    side: Side,
    /// Wakes the other side.
    bell: Bell,
    rung: AtomicU64,
}

impl Doorbell {
    pub(crate) fn new(mapping: Arc<Mapping>, side: Side, bell: Bell) -> Self {
        Doorbell { mapping, side, bell, rung: AtomicU64::new(0) }
    }

    /// Called after something was published that a side sleeping for `what` waits for.
    pub(crate) fn published(&self, what: u64) {
        fence(Ordering::SeqCst);
        let word = self.mapping.word(self.side.other().sleep_word());
        let mut seen = word.load(Ordering::Relaxed);
        while seen & what != 0 {
            // Cleared so that a burst rings once. Whoever cleared it rings, so a sleep that began meanwhile ends early at worst.
            // Written only if that bit was there: a store of ours over the sleeper's own "awake" could stand above its next
            // "asleep" wherever the order of both is not known to be that of this exchange (the model check found it so).
            match word.compare_exchange_weak(seen, seen & !what, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => {
                    self.rung.fetch_add(1, Ordering::Relaxed);
                    self.bell.ring();
                    return;
                }
                Err(now) => seen = now,
            }
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

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }
}

/// Orders our words of sleep before our last look at the rings.
pub(crate) fn fence_sleep() {
    fence(Ordering::SeqCst);
}
