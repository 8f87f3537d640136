//! A descriptor that a forked child must not keep: noted while it is open, closed in every child of fork(3).
//!
//! Owns nothing but the order of things: noted after it was opened, forgotten before it is closed, so that a number which the system
//! gives to somebody else is never closed by us. Must never close anything in a forked child by being dropped there: the child's copy
//! was closed as the child began, and its number may be another's by now.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::fork;

/// An open descriptor of this process alone.
pub(crate) struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    /// The process that opened it, as a count of forks.
    forks: u64,
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Self {
        let forks = fork::generation();
        fork::close_in_children(fd.as_raw_fd());
        Descriptor { fd: ManuallyDrop::new(fd), forks }
    }
}

impl Descriptor {
    /// Whether this process was forked from the one that opened it.
    pub(crate) fn is_foreign(&self) -> bool {
        fork::generation() != self.forks
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_foreign() {
            return;
        }
        fork::keep_in_children(self.fd.as_raw_fd());
        // SAFETY: taken once, as `self` ends.
        drop(unsafe { ManuallyDrop::take(&mut self.fd) });
    }
}
