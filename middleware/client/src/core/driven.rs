//! What goes on only while somebody waits in the client: the clock of deadlines, and operations in queues.
//!
//! A deadline says how long a server may take, not how long a program may compute between two calls. So this clock stands still while
//! operations are in queues and nobody drives the client. It makes good a little of that when somebody only looks, so that a program
//! that never waits hears of a dead server all the same. What the outside world measures with, as leases, must never go by it.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use super::{Shared, State};

/// The clock goes.
const GOES: u64 = u64::MAX;
/// How much of a time that the clock stood a look makes good at most. Who looks so often has deadlines in real time; who computes for a
/// minute between two looks loses this much of a deadline, after what has come meanwhile was taken.
pub(super) const LOOK_NS: u64 = 100_000_000;

/// Operations that go on in whatever thread waits in the client.
pub(crate) trait Carried: Send + Sync {
    /// Polls what can go on; what happens to it later wakes `waker`.
    fn go_on(&self, waker: &Waker);
    /// `waker` is not to be woken any more.
    fn leave(&self, waker: &Waker);
}

pub(crate) struct Driven {
    /// How long it has stood still so far.
    skipped_ns: AtomicU64,
    /// What it shows while it stands still. This and `skipped_ns` are changed under the state's lock.
    stands_at_ns: AtomicU64,
    /// Operations in queues. Without any the clock is any other.
    queued: AtomicUsize,
    carried: Mutex<Vec<Weak<dyn Carried>>>,
}

impl Driven {
    pub(super) fn new() -> Self {
        let (skipped_ns, stands_at_ns) = (AtomicU64::new(0), AtomicU64::new(GOES));
        Self { skipped_ns, stands_at_ns, queued: AtomicUsize::new(0), carried: Mutex::default() }
    }

    fn carried(&self) -> MutexGuard<'_, Vec<Weak<dyn Carried>>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Monotonic nanoseconds of the clock of deadlines.
    pub(crate) fn now_ns(&self) -> u64 {
        match self.driven.stands_at_ns.load(Acquire) {
            GOES => self.clock.monotonic_ns() - self.driven.skipped_ns.load(Relaxed),
            stands_at_ns => stands_at_ns,
        }
    }

    /// Monotonic nanoseconds of the machine's clock, for what others count by.
    pub(crate) fn machine_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    /// A time of the clock of deadlines as one of the machine's, if nobody stops driving until then.
    pub(crate) fn machine_time_ns(&self, at_ns: u64) -> u64 {
        let behind_ns = match self.driven.stands_at_ns.load(Acquire) {
            GOES => self.driven.skipped_ns.load(Relaxed),
            stands_at_ns => self.clock.monotonic_ns() - stands_at_ns,
        };
        at_ns.saturating_add(behind_ns)
    }

    /// Somebody drives: the clock goes on.
    pub(super) fn go(&self, state: &State) {
        self.go_after(state, 0);
    }

    /// The same, with so much made good at most of the time that it stood.
    pub(super) fn go_after(&self, _state: &State, most_ns: u64) {
        let stands_at_ns = self.driven.stands_at_ns.load(Relaxed);
        if stands_at_ns != GOES {
            let behind_ns = self.clock.monotonic_ns() - stands_at_ns;
            let stood_ns = behind_ns.saturating_sub(self.driven.skipped_ns.load(Relaxed));
            self.driven.skipped_ns.store(behind_ns - stood_ns.min(most_ns), Relaxed);
            self.driven.stands_at_ns.store(GOES, Release);
        }
    }

    /// The same for who has not the lock.
    pub(super) fn begin_driving(&self) {
        if self.driven.stands_at_ns.load(Relaxed) != GOES {
            self.go(&self.lock());
        }
    }

    /// A thread leaves the client: unless another one waits in the endpoint the clock stands still. One that is about to wait there
    /// starts it again.
    pub(crate) fn stand(&self) {
        if self.driven.queued.load(Relaxed) == 0 || self.is_foreign() {
            return;
        }
        let state = self.lock();
        if state.endpoint.is_some() && self.driven.stands_at_ns.load(Relaxed) == GOES {
            self.driven.stands_at_ns.store(self.now_ns(), Release);
        }
    }

    /// So many more operations are in queues.
    pub(crate) fn queued(&self, more: usize) {
        self.driven.queued.fetch_add(more, SeqCst);
    }

    /// So many less.
    pub(crate) fn unqueued(&self, less: usize) {
        self.driven.queued.fetch_sub(less, SeqCst);
    }

    /// These operations go on in all threads that wait.
    pub(crate) fn carry(&self, operations: Weak<dyn Carried>) {
        let mut carried = self.driven.carried();
        carried.retain(|other| other.strong_count() > 0);
        carried.push(operations);
    }

    fn each_carried(&self, act: impl Fn(&dyn Carried)) {
        if self.driven.queued.load(Relaxed) == 0 || self.is_foreign() {
            return;
        }
        // Not under the lock: an operation that goes on may start another one.
        let all: Vec<_> = self.driven.carried().iter().filter_map(Weak::upgrade).collect();
        all.iter().for_each(|one| act(&**one));
    }

    /// Lets them go on in this thread.
    pub(super) fn carry_on(&self, waker: &Waker) {
        self.each_carried(|operations| operations.go_on(waker));
    }

    /// This thread does not wait any more.
    pub(super) fn carry_no_more(&self, waker: &Waker) {
        self.each_carried(|operations| operations.leave(waker));
    }
}
