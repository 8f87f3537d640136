//! loom's atomics, and a bell that behaves like an eventfd in an edge-triggered epoll.

pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
pub(crate) use loom::sync::{Arc, Condvar, Mutex};
pub(crate) use std::sync::PoisonError;

/// The side that rings.
pub(crate) struct Bell(Arc<Edge>);

impl Bell {
    pub(crate) fn new(edge: Arc<Edge>) -> Self {
        Bell(edge)
    }

    pub(crate) fn ring(&self) {
        let mut rings = self.0.rings.lock().unwrap();
        *rings += 1;
        self.0.changed.notify_one();
    }
}

/// The side that sleeps: an epoll that tells of each ring once, several of them together.
pub(crate) struct Edge {
    rings: Mutex<u64>,
    changed: Condvar,
}

impl Edge {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Edge { rings: Mutex::new(0), changed: Condvar::new() })
    }

    /// Sleeps until a ring was not told yet, and tells of all.
    pub(crate) fn sleep(&self) {
        let mut rings = self.rings.lock().unwrap();
        while *rings == 0 {
            rings = self.changed.wait(rings).unwrap();
        }
        *rings = 0;
    }

    /// Tells of all rings without sleeping.
    pub(crate) fn look(&self) {
        *self.rings.lock().unwrap() = 0;
    }
}
