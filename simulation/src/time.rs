//! Virtual time for programs: sleeping, and knowing that something moved.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use talea_fabric::sim::SimNetwork;

/// The world's time, as its programs see it. Clones share it.
#[derive(Clone)]
pub(crate) struct Timeline {
    network: SimNetwork,
    wakes: Arc<Mutex<BTreeSet<u64>>>,
    moves: Arc<AtomicU64>,
}

impl Timeline {
    pub(crate) fn new(network: &SimNetwork) -> Self {
        Self { network: network.clone(), wakes: Arc::default(), moves: Arc::default() }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.network.now_ns()
    }

    /// Sleeps for some virtual microseconds.
    pub(crate) async fn sleep_us(&self, us: u64) {
        let until_ns = self.now_ns() + us * 1_000;
        lock(&self.wakes).insert(until_ns);
        poll_fn(|_| if self.now_ns() >= until_ns { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The next time at which a sleeper wakes.
    pub(crate) fn next_wake_ns(&self) -> u64 {
        let now_ns = self.now_ns();
        let mut wakes = lock(&self.wakes);
        while wakes.first().is_some_and(|wake_ns| *wake_ns <= now_ns) {
            wakes.pop_first();
        }
        wakes.first().copied().unwrap_or(u64::MAX)
    }

    /// Says that something changed that another program may wait for.
    pub(crate) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Waits until `ready` gives something.
    pub(crate) async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        poll_fn(|_| match ready() {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        })
        .await
    }
}

/// Locks; one thread runs all of it, so nobody can have died holding the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
