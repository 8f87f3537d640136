//! The in-process fabric of simulations: seeded, on virtual time, in one thread.
//!
//! Owns the network, its virtual clock and every message in flight. Must never block, read the machine's clock, or draw
//! randomness other than what it was given: the same seed and the same calls give the same history, which
//! [`SimNetwork::digest`] sums up.
//!
//! A simulation's driver lets its nodes run until none has anything to do, then advances the clock to
//! [`SimNetwork::next_event_ns`] (or to a node's own timer if that is earlier) and lets them run again.

mod state;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::endpoint::{MAX_MESSAGE_BYTES, Waker};
use crate::{Address, Clock, Endpoint, Event, FabricError, Hello, PeerId, SendError};
use state::State;

/// Where virtual time begins, in microseconds since the Unix epoch.
pub const SIM_START_US: u64 = 1_800_000_000_000_000;

/// How messages fare from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Least delay in nanoseconds.
    pub delay_min_ns: u64,
    /// Largest delay in nanoseconds; each message draws its own.
    pub delay_max_ns: u64,
    /// How many of a million messages are lost.
    pub loss_ppm: u32,
    /// How many of a million messages arrive twice.
    pub duplicate_ppm: u32,
    /// Whether a message may overtake another of the same connection.
    pub reorder: bool,
    /// Messages of one connection and direction that may be sent and not yet received; more are refused as full.
    pub in_flight_max: usize,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            delay_min_ns: 1_000,
            delay_max_ns: 20_000,
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder: false,
            in_flight_max: 4096,
        }
    }
}

/// The network that all nodes of one simulation share; clones are the same network.
#[derive(Clone)]
pub struct SimNetwork {
    now_ns: Arc<AtomicU64>,
    state: Arc<Mutex<State>>,
}

/// A node's clocks. Clones are the same clock.
#[derive(Clone)]
pub struct SimClock {
    now_ns: Arc<AtomicU64>,
    offset_us: Arc<AtomicI64>,
}

/// A node's endpoint. Dropping it is the end of the node's process: its peers get a `Down`.
pub struct SimEndpoint {
    network: SimNetwork,
    node: u32,
    incarnation: u64,
}

impl SimNetwork {
    /// A network that draws from `random`, which the simulation seeds.
    pub fn new(random: impl FnMut() -> u64 + Send + 'static) -> Self {
        SimNetwork { now_ns: Arc::new(AtomicU64::new(0)), state: Arc::new(Mutex::new(State::new(Box::new(random)))) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `node`, or starts it again: an earlier endpoint of it crashes.
    pub fn endpoint(&self, node: u32) -> SimEndpoint {
        let incarnation = self.state().start(node, self.now_ns());
        SimEndpoint { network: self.clone(), node, incarnation }
    }

    /// The clocks of `node`: monotonic time is the network's, wall time has an offset of its own.
    pub fn clock(&self, node: u32) -> SimClock {
        SimClock { now_ns: self.now_ns.clone(), offset_us: self.state().clock_offset(node) }
    }

    /// Sets how far `node`'s wall clock is off, in microseconds, from now on. A change is a jump, also backwards.
    pub fn set_clock_offset(&self, node: u32, offset_us: i64) {
        self.state().clock_offset(node).store(offset_us, Ordering::SeqCst);
    }

    /// Virtual time in nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    /// When the next message (or other event) arrives.
    pub fn next_event_ns(&self) -> Option<u64> {
        self.state().next_event_ns()
    }

    /// Moves time to `to_ns`, never backwards, and delivers all that arrives up to then.
    pub fn advance(&self, to_ns: u64) {
        let to_ns = to_ns.max(self.now_ns());
        self.state().deliver(to_ns);
        self.now_ns.store(to_ns, Ordering::SeqCst);
    }

    /// Sets how messages fare between nodes that have no link of their own.
    pub fn set_default_link(&self, link: Link) {
        self.state().default_link = link;
    }

    /// Sets how messages fare from `from` to `to`.
    pub fn set_link(&self, from: u32, to: u32, link: Link) {
        self.state().links.insert((from, to), link);
    }

    /// Puts `node` on a machine; nodes of one machine are local to each other. Without, each is on its own.
    pub fn set_host(&self, node: u32, host: u32) {
        self.state().hosts.insert(node, host);
    }

    /// Stops everything from `from` to `to`: messages are lost, ends are not noticed, connections are not made.
    pub fn block(&self, from: u32, to: u32) {
        self.state().blocked.insert((from, to));
    }

    /// Blocks both directions between every node of `left` and every node of `right`.
    pub fn partition(&self, left: &[u32], right: &[u32]) {
        for a in left {
            for b in right {
                self.block(*a, *b);
                self.block(*b, *a);
            }
        }
    }

    /// Ends every block. What was lost stays lost; ends that were not noticed are noticed now.
    pub fn heal(&self) {
        self.state().heal(self.now_ns());
    }

    /// Ends `node`'s process at once: what it had sent still arrives, what was on the way to it is lost, its peers get a
    /// `Down`. Its endpoint stays dead until [`endpoint`](Self::endpoint) starts the node again.
    pub fn crash(&self, node: u32) {
        self.state().crash(node, self.now_ns());
    }

    /// Breaks every connection between two nodes that go on living; both get a `Down`.
    pub fn sever(&self, a: u32, b: u32) {
        self.state().sever(a, b, self.now_ns());
    }

    /// Messages sent so far, by all nodes: what tests count instead of time.
    pub fn messages_sent(&self) -> u64 {
        self.state().messages_sent
    }

    /// A sum of all that was delivered, when, to whom: equal for equal histories.
    pub fn digest(&self) -> [u8; 32] {
        self.state().digest()
    }
}

impl Clock for SimClock {
    fn monotonic_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    fn unix_us(&self) -> u64 {
        let now_us = SIM_START_US + self.monotonic_ns() / 1000;
        now_us.saturating_add_signed(self.offset_us.load(Ordering::SeqCst))
    }
}

impl SimEndpoint {
    /// The address that peers connect to.
    pub fn address(&self) -> Address {
        Address::Sim(self.node)
    }

    /// The network that this endpoint is on.
    pub fn network(&self) -> &SimNetwork {
        &self.network
    }
}

impl Drop for SimEndpoint {
    fn drop(&mut self) {
        let now_ns = self.network.now_ns();
        self.network.state().end(self.node, self.incarnation, now_ns);
    }
}

impl Endpoint for SimEndpoint {
    fn connect(&mut self, address: &Address, hello: &Hello, _deadline_ns: u64) -> Result<PeerId, FabricError> {
        let unreachable = |why: &str| FabricError::Unreachable(address.to_string(), why.to_owned());
        let Address::Sim(to) = *address else { return Err(unreachable("it is not a node of this simulation")) };
        let now_ns = self.network.now_ns();
        let connected = self.network.state().connect((self.node, self.incarnation), to, hello, now_ns);
        connected.map(PeerId).map_err(unreachable)
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(SendError::TooLarge);
        }
        let now_ns = self.network.now_ns();
        self.network.state().send((self.node, self.incarnation), peer.0, bytes, now_ns)
    }

    fn recv(&mut self) -> Option<Event> {
        self.network.state().recv(self.node, self.incarnation)
    }

    /// Returns at once: in a simulation only the driver moves time.
    fn wait(&mut self, _deadline_ns: u64) {}

    fn disconnect(&mut self, peer: PeerId) {
        let now_ns = self.network.now_ns();
        self.network.state().disconnect((self.node, self.incarnation), peer.0, now_ns);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::new(NoWaker)
    }
}

/// Nothing sleeps here.
struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}
