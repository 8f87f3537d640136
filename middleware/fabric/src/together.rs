//! One wait for several endpoints that one thread serves.
//!
//! Owns the epoll over theirs, and how patient the thread is. Must never sleep while any of them has something.

use crate::member::{Patience, Spin, Waits};
use crate::poller::{Poller, Ready};
use crate::{Clock, FabricError, Member, MuxEndpoint, RealClock};

/// What a thread that serves several endpoints waits with. They are told by their places in the order in which they were joined.
pub struct Together {
    poller: Poller,
    spin: Spin,
    patience: Patience,
    ready: Vec<Ready>,
}

impl Together {
    /// Joins endpoints, which stay where they are: each call below is given them all, in this order.
    pub fn new<'a>(endpoints: impl Iterator<Item = &'a MuxEndpoint>, spin: Spin) -> Result<Self, FabricError> {
        let context = |source| FabricError::Io { context: "making an epoll descriptor".to_owned(), source };
        let poller = Poller::new().map_err(context)?;
        for (token, endpoint) in endpoints.enumerate() {
            poller.add_level(endpoint.wait_fd(), token as u64).map_err(context)?;
        }
        Ok(Together { poller, spin, patience: Patience::default(), ready: Vec::new() })
    }

    /// Lets those collect what only their descriptors tell of; to be called now and then where nobody waits for long.
    pub fn look<M: AsRef<MuxEndpoint> + AsMut<MuxEndpoint>>(&mut self, endpoints: &mut [M]) {
        All { of: self, endpoints }.sleep(0);
    }

    /// Sleeps until one of them may have an event, or the deadline has passed. May return early.
    pub fn wait<M: AsRef<MuxEndpoint> + AsMut<MuxEndpoint>>(&mut self, endpoints: &mut [M], deadline_ns: u64) {
        let (spin, mut patience) = (self.spin, self.patience);
        crate::member::wait(&mut All { of: self, endpoints }, spin, &mut patience, deadline_ns);
        self.patience = patience;
    }
}

struct All<'a, M> {
    of: &'a mut Together,
    endpoints: &'a mut [M],
}

impl<M: AsRef<MuxEndpoint> + AsMut<MuxEndpoint>> Waits for All<'_, M> {
    fn ready(&mut self) -> bool {
        self.endpoints.iter_mut().any(|endpoint| Member::ready(endpoint.as_mut()))
    }

    fn cores_free(&self) -> bool {
        self.endpoints.iter().any(|endpoint| Member::cores_free(endpoint.as_ref()))
    }

    fn before_sleep(&mut self) -> bool {
        self.endpoints.iter_mut().all(|endpoint| Member::before_sleep(endpoint.as_mut()))
    }

    fn sleep(&mut self, timeout_ns: u64) {
        let mut ready = std::mem::take(&mut self.of.ready);
        self.of.poller.poll(timeout_ns, &mut ready);
        for one in ready.drain(..) {
            if let Some(endpoint) = self.endpoints.get_mut(one.token as usize) {
                Member::sleep(endpoint.as_mut(), 0);
            }
        }
        self.of.ready = ready;
        if Waits::timer_ns(self) < u64::MAX {
            let now_ns = RealClock.monotonic_ns();
            let endpoints = self.endpoints.iter_mut().map(AsMut::as_mut);
            endpoints
                .filter(|endpoint| Member::timer_ns(&**endpoint) <= now_ns)
                .for_each(|due| _ = Member::sleep(due, 0));
        }
    }

    fn after_sleep(&mut self) {
        self.endpoints.iter_mut().for_each(|endpoint| Member::after_sleep(endpoint.as_mut()));
    }

    fn timer_ns(&self) -> u64 {
        self.endpoints.iter().map(|endpoint| Member::timer_ns(endpoint.as_ref())).min().unwrap_or(u64::MAX)
    }
}
