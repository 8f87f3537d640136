//! One epoll and one waker for an endpoint: what its thread sleeps on.
//!
//! Owns the epoll descriptor, its tokens and the waker. Must never lose a wake-up that came before the sleep.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::endpoint::Waker;

/// Token of the poller's own waker; no other descriptor may have it.
const WAKE_TOKEN: u64 = u64::MAX;
/// Token of an endpoint's listening socket.
pub(crate) const LISTEN_TOKEN: u64 = u64::MAX - 1;
const EVENTS_MAX: usize = 64;

/// Readiness of one descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The other side has hung up, or the descriptor failed.
    pub(crate) hung_up: bool,
}

pub(crate) struct Poller {
    epoll: OwnedFd,
    waker: Arc<EventWaker>,
    woken: bool,
}

/// An eventfd that ends a sleep; written at most once a sleep.
pub(crate) struct EventWaker {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Waker for EventWaker {
    fn wake(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            ring(self.fd.as_fd());
        }
    }
}

/// Adds one to an eventfd. It fails only when the counter is full, and then its reader has been told long ago.
pub(crate) fn ring(fd: BorrowedFd<'_>) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// A close-on-exec, nonblocking eventfd.
pub(crate) fn new_eventfd() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let poller = Poller {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            waker: Arc::new(EventWaker { fd: new_eventfd()?, rung: AtomicBool::new(false) }),
            woken: false,
        };
        poller.add(poller.waker.fd.as_fd(), WAKE_TOKEN)?;
        Ok(poller)
    }

    /// Watches `fd`, edge-triggered in both directions and for hang-up.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        use epoll::EventFlags as F;
        let flags = F::IN | F::OUT | F::RDHUP | F::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Watches another epoll (or libfabric wait descriptor) for readability, level-triggered.
    pub(crate) fn add_level(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    pub(crate) fn waker(&self) -> Arc<EventWaker> {
        self.waker.clone()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Collects what is ready, sleeping for up to `timeout_ns` if nothing is. An interrupted sleep ends early.
    pub(crate) fn poll(&mut self, timeout_ns: u64, out: &mut Vec<Ready>) {
        let timeout = crate::socket::timespec(timeout_ns);
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut buffer, Some(&timeout)) else { return };
        for event in events {
            let (flags, token) = (event.flags, event.data.u64());
            if token == WAKE_TOKEN {
                self.waker.rung.swap(false, Ordering::SeqCst);
                self.woken = true;
                continue;
            }
            use epoll::EventFlags as F;
            out.push(Ready {
                token,
                readable: flags.contains(F::IN),
                writable: flags.contains(F::OUT),
                hung_up: flags.intersects(F::RDHUP | F::HUP | F::ERR),
            });
        }
    }

    /// Whether the waker was used since the last call.
    pub(crate) fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_sleep_is_kept_and_counts_once() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker();
        waker.wake();
        waker.wake();
        let mut ready = Vec::new();
        poller.poll(u64::MAX, &mut ready);
        assert!(poller.take_woken() && ready.is_empty());
        poller.poll(0, &mut ready);
        assert!(!poller.take_woken());
        waker.wake();
        poller.poll(u64::MAX, &mut ready);
        assert!(poller.take_woken());
    }
}
