//! One endpoint over several: rings, streams and libfabric behind one wait.
//!
//! Owns its members; a [`PeerId`] carries the member's number in its highest byte. Must never sleep while any member has
//! something, and wakes for all of them through one epoll of their epolls.

use std::io::IoSlice;
use std::sync::Arc;

use crate::endpoint::{Given, Waker};
use crate::member::{Member, Patience, Spin};
use crate::poller::{Poller, Ready};
use crate::{Address, Begun, Clock, Endpoint, Event, FabricError, Hello, PeerId, RealClock, SendError};
use std::os::fd::BorrowedFd;

const MEMBER_SHIFT: u32 = 56;
/// After so many calls of `recv` the descriptors of quiet members are looked at, however busy the others are.
const CALLS_PER_LOOK: u32 = 64;

/// Several endpoints as one. See the module's description.
pub struct MuxEndpoint {
    members: Vec<Box<dyn Member>>,
    poller: Poller,
    /// Whose turn it is to be read first.
    turn: usize,
    spin: Spin,
    patience: Patience,
    /// Calls of `recv`, for looking at the descriptors now and then.
    calls: u32,
    /// What the last look found; kept for its room.
    ready: Vec<Ready>,
}

impl MuxEndpoint {
    /// Joins `members`, of which there are at most 256.
    pub fn new(members: Vec<Box<dyn Member>>, spin: Spin) -> Result<Self, FabricError> {
        let context = |source| FabricError::Io { context: "making an epoll descriptor".to_owned(), source };
        let poller = Poller::new().map_err(context)?;
        for (token, member) in members.iter().enumerate() {
            poller.add_level(member.wait_fd(), token as u64).map_err(context)?;
        }
        Ok(MuxEndpoint { members, poller, turn: 0, spin, patience: Patience::default(), calls: 0, ready: Vec::new() })
    }

    /// Looks at the members' descriptors, sleeping for up to `timeout_ns`, and lets those that have something collect it.
    fn collect(&mut self, timeout_ns: u64) {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.poll(timeout_ns, &mut ready);
        for one in ready.drain(..) {
            if let Some(member) = self.members.get_mut(one.token as usize) {
                member.sleep(0);
            }
        }
        self.ready = ready;
        // A time that comes is on no descriptor.
        if self.members.iter().any(|member| member.timer_ns() < u64::MAX) {
            let now_ns = RealClock.monotonic_ns();
            let due = self.members.iter_mut().filter(|member| member.timer_ns() <= now_ns);
            due.for_each(|member| _ = member.sleep(0));
        }
    }

    /// The member that reaches an address.
    fn reaching(&mut self, address: &Address) -> Result<(usize, &mut Box<dyn Member>), FabricError> {
        let found = self.members.iter_mut().enumerate().find(|(_, member)| member.reaches(address));
        found.ok_or_else(|| {
            let why = "no fabric of this process reaches such an address".to_owned();
            FabricError::Unreachable(address.to_string(), why)
        })
    }

    fn member(&mut self, peer: PeerId) -> Option<(&mut Box<dyn Member>, PeerId)> {
        let index = (peer.0 >> MEMBER_SHIFT) as usize;
        Some((self.members.get_mut(index)?, PeerId(peer.0 & ((1 << MEMBER_SHIFT) - 1))))
    }
}

fn outer(index: usize, peer: PeerId) -> PeerId {
    PeerId((index as u64) << MEMBER_SHIFT | peer.0)
}

fn renamed(index: usize, event: Event) -> Event {
    match event {
        Event::Up { peer, hello, local } => Event::Up { peer: outer(index, peer), hello, local },
        Event::Connected { peer, outcome } => Event::Connected { peer: outer(index, peer), outcome },
        Event::Message { peer, message } => Event::Message { peer: outer(index, peer), message },
        Event::Down { peer } => Event::Down { peer: outer(index, peer) },
    }
}

impl Endpoint for MuxEndpoint {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let (index, member) = self.reaching(address)?;
        member.connect(address, hello, deadline_ns).map(|peer| outer(index, peer))
    }

    fn begin_connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<Begun, FabricError> {
        let (index, member) = self.reaching(address)?;
        Ok(match member.begin_connect(address, hello, deadline_ns)? {
            Begun::Up(peer) => Begun::Up(outer(index, peer)),
            Begun::Pending(peer) => Begun::Pending(outer(index, peer)),
        })
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let (member, inner) = self.member(peer).ok_or(SendError::Gone)?;
        member.send(inner, parts)
    }

    fn give(&mut self, peer: PeerId, given: Given) -> Result<Option<Given>, (SendError, Option<Given>)> {
        match self.member(peer) {
            Some((member, inner)) => member.give(inner, given),
            None => Err((SendError::Gone, Some(given))),
        }
    }

    fn given_back(&mut self) -> Option<Vec<u8>> {
        self.members.iter_mut().find_map(|member| member.given_back())
    }

    fn recv(&mut self) -> Option<Event> {
        self.calls = self.calls.wrapping_add(1);
        if self.calls.is_multiple_of(CALLS_PER_LOOK) {
            self.collect(0);
        }
        let count = self.members.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            if self.members[index].is_quiet() {
                continue;
            }
            if let Some(event) = self.members[index].recv() {
                self.turn = index + 1;
                return Some(renamed(index, event));
            }
        }
        None
    }

    fn wait(&mut self, deadline_ns: u64) {
        let (spin, mut patience) = (self.spin, self.patience);
        crate::member::wait(self, spin, &mut patience, deadline_ns);
        self.patience = patience;
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some((member, inner)) = self.member(peer) {
            member.disconnect(inner);
        }
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.poller.waker()
    }
}

impl Member for MuxEndpoint {
    fn reaches(&self, address: &Address) -> bool {
        self.members.iter().any(|member| member.reaches(address))
    }

    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.poller.fd()
    }

    fn ready(&mut self) -> bool {
        self.members.iter_mut().any(|member| member.ready())
    }

    fn is_quiet(&self) -> bool {
        self.members.iter().all(|member| member.is_quiet())
    }

    fn before_sleep(&mut self) -> bool {
        !self.poller.take_woken() && self.members.iter_mut().all(|member| member.before_sleep())
    }

    fn sleep(&mut self, timeout_ns: u64) -> bool {
        self.collect(timeout_ns);
        self.poller.take_woken()
    }

    fn after_sleep(&mut self) {
        self.members.iter_mut().for_each(|member| member.after_sleep());
    }

    fn timer_ns(&self) -> u64 {
        self.members.iter().map(|member| member.timer_ns()).min().unwrap_or(u64::MAX)
    }

    fn cores_free(&self) -> bool {
        self.members.iter().any(|member| member.cores_free())
    }

    fn descriptors(&self) -> Vec<std::os::fd::RawFd> {
        self.members.iter().flat_map(|member| member.descriptors()).collect()
    }
}
