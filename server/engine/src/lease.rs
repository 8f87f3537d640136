//! The membership lease of a server (rule 11), as its targets are told of it.
//!
//! Owns the one thing that the control plane and the targets of a server share: until when they may serve. It is a number that
//! a target compares with its own clock for each request, so the end needs nobody to say it: not a control plane that hangs,
//! nor a thread that would have to be woken each time that the lease is renewed. Must never let a target go on over a gap: what
//! was decided without this server comes by mail, and a renewal would overtake it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The time for which a server serves without interruption. Once over it is over: the next one is another lease.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<AtomicU64>);

impl Lease {
    /// One that ends then, in monotonic nanoseconds, unless it is renewed.
    pub fn until(until_ns: u64) -> Self {
        Lease(Arc::new(AtomicU64::new(until_ns)))
    }

    /// Whether it holds. No order with other memory is needed: all that a target must have heard before comes by mail.
    pub fn holds(&self, now_ns: u64) -> bool {
        now_ns < self.0.load(Ordering::Relaxed)
    }

    fn set(&self, until_ns: u64) {
        self.0.store(until_ns, Ordering::Relaxed);
    }
}

/// The lease that a server has now, on the side of who grants it to the targets.
#[derive(Debug, Default)]
pub struct Tenure(Option<Lease>);

impl Tenure {
    /// The server may serve until then; `None`: not any more. Gives a lease that all targets have to be told of, with
    /// [`Mail::Lease`](crate::Mail::Lease), after everything that they were told before.
    pub fn set(&mut self, until_ns: Option<u64>) -> Option<Lease> {
        match (until_ns, &self.0) {
            (Some(until_ns), Some(lease)) => lease.set(until_ns),
            (Some(until_ns), None) => {
                self.0 = Some(Lease::until(until_ns));
                return self.0.clone();
            }
            (None, _) => {
                if let Some(lease) = self.0.take() {
                    lease.set(0);
                }
            }
        }
        None
    }
}
