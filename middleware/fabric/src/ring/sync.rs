//! What the rings take from the standard library and the system to agree with another thread or process, in one place: the
//! model check of their memory ordering (`middleware/fabric/loom`) compiles the same sources over another one.
//!
//! Must never do more than name things and ring.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use crate::descriptor::Descriptor;

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Arc, Mutex, PoisonError};

/// What wakes the other side: an eventfd in its epoll.
pub(crate) struct Bell(Descriptor);

impl Bell {
    pub(crate) fn new(fd: Descriptor) -> Self {
        Bell(fd)
    }

    pub(crate) fn ring(&self) {
        crate::poller::ring(self.0.as_fd());
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
