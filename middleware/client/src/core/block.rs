//! Blocking on the core: whoever waits drives it.
//!
//! One of the threads that wait holds the endpoint and sleeps in it; the others park. A thread that leaves hands the driving
//! to a parked one. Must never sleep with the lock held, nor between a wake-up and the next poll.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use super::Shared;

/// A thread that waits.
pub(crate) struct Parker {
    thread: Thread,
    /// Its future wants to be polled.
    notified: AtomicBool,
    /// It should look whether it can drive.
    handed: AtomicBool,
    /// It sleeps (or is about to) in the endpoint.
    driving: AtomicBool,
    endpoint: Arc<dyn talea_fabric::Waker>,
}

impl Parker {
    /// Asks a parked thread to look whether it can drive.
    pub(crate) fn hand(&self) {
        self.handed.store(true, SeqCst);
        self.thread.unpark();
    }

    fn park(&self) {
        while !self.notified.load(SeqCst) && !self.handed.swap(false, SeqCst) {
            std::thread::park();
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notified.store(true, SeqCst);
        if self.driving.load(SeqCst) {
            self.endpoint.wake();
        } else {
            self.thread.unpark();
        }
    }
}

impl Shared {
    /// Runs a future to its end, driving the client meanwhile or letting another waiting thread drive. The future stays where it
    /// is: moving one of some KiB costs more than a small request.
    pub(crate) fn block_on<F: Future>(&self, mut future: Pin<&mut F>) -> F::Output {
        let parker = Arc::new(Parker {
            thread: std::thread::current(),
            notified: AtomicBool::new(true),
            handed: AtomicBool::new(false),
            driving: AtomicBool::new(false),
            endpoint: self.waker.clone(),
        });
        let waker = Waker::from(parker.clone());
        self.begin_driving();
        let _leaving = Leaving(self, &waker);
        loop {
            while parker.notified.swap(false, SeqCst) {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
                self.carry_on(&waker);
            }
            self.turn(&parker);
        }
    }

    /// Drives once, or parks.
    fn turn(&self, parker: &Arc<Parker>) {
        let mut state = self.lock();
        if state.endpoint.is_none() {
            state.parked.push(parker.clone());
            self.any_parked.store(true, Relaxed);
            drop(state);
            parker.park();
            let mut state = self.lock();
            state.parked.retain(|other| !Arc::ptr_eq(other, parker));
            self.any_parked.store(!state.parked.is_empty(), Relaxed);
            return;
        }
        if state.wanted > 0 {
            drop(self.wait_for_endpoint(state));
            return;
        }
        self.go(&state);
        let wakers = state.receive(self, false);
        if !wakers.is_empty() {
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
            return;
        }
        let deadline_ns = state.next_deadline_ns();
        state.sleeping_until_ns = Some(deadline_ns);
        let mut endpoint = state.endpoint.take();
        drop(state);
        // Either the waker sees that we drive and wakes the endpoint, or we see that we are notified.
        parker.driving.store(true, SeqCst);
        if !parker.notified.load(SeqCst)
            && let Some(endpoint) = &mut endpoint
        {
            endpoint.wait(self.machine_time_ns(deadline_ns));
        }
        parker.driving.store(false, SeqCst);
        let mut state = self.lock();
        state.sleeping_until_ns = None;
        state.endpoint = endpoint;
        let wakers = state.receive(self, true);
        if state.wanted > 0 {
            self.endpoint_back.notify_all();
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Hands the driving on when a thread leaves, also by unwinding.
struct Leaving<'a>(&'a Shared, &'a Waker);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.carry_no_more(self.1);
        self.0.stand();
        // Who parked while we had the endpoint did so under the lock that we have had since, to give it back.
        if !self.0.any_parked.load(Relaxed) || self.0.is_foreign() {
            return;
        }
        let next = self.0.lock().next_driver();
        if let Some(parker) = next {
            parker.hand();
        }
    }
}
