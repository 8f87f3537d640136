//! Sleeping: on the provider's queue and on the sockets, with one epoll.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::DatagramEndpoint;
use super::device::Device;
use super::meeting::Meeting;
use crate::Address;
use crate::accept::Acceptor;
use crate::member::Member;

impl Member for DatagramEndpoint {
    fn reaches(&self, address: &Address) -> bool {
        matches!(address, Address::Datagrams { .. })
    }

    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.poller.fd()
    }

    fn ready(&mut self) -> bool {
        // Without a connection the descriptors tell all.
        if self.events.is_empty() && !self.peers.is_empty() {
            self.progress();
        }
        !self.events.is_empty() || std::mem::take(&mut self.room)
    }

    fn is_quiet(&self) -> bool {
        self.peers.is_empty() && self.events.is_empty() && self.dials.is_empty() && self.meetings.is_empty()
    }

    fn before_sleep(&mut self) -> bool {
        if self.poller.take_woken() || !self.events.is_empty() {
            return false;
        }
        if self.device.as_ref().is_none_or(Device::may_sleep) {
            return true;
        }
        // Something waits in the queue, and its descriptor will not tell of it again.
        self.progress();
        false
    }

    fn sleep(&mut self, timeout_ns: u64) -> bool {
        self.collect(timeout_ns);
        self.progress();
        self.poller.take_woken()
    }

    fn after_sleep(&mut self) {}

    fn timer_ns(&self) -> u64 {
        let dials = self.dials.values().map(|(dial, _)| dial.timer_ns());
        let meetings = self.meetings.values().map(|meeting: &Meeting| meeting.deadline_ns);
        let acceptor = self.acceptor.iter().map(Acceptor::timer_ns);
        dials.chain(meetings).chain(acceptor).min().unwrap_or(u64::MAX)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let listener = self.acceptor.iter().map(|acceptor| acceptor.listener().as_raw_fd());
        listener.chain(self.peers.values().map(|peer| peer.socket.as_raw_fd())).collect()
    }
}
