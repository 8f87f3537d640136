//! Same-node rings: messages through memory that client and server share (docs/design.md §6).
//!
//! Owns, for each connection, one sealed memfd that the server made, two doorbells and the Unix socket on which both sides
//! proved themselves; the socket stays open as the sign of life. Must never trust what lies in the shared memory: a peer
//! that lies there is disconnected. Must never wait for a peer: one that does not read fills only its own rings.

mod consumer;
mod doorbell;
mod layout;
mod link;
mod mapping;
mod pass;
mod producer;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::accept::{Accepted, Acceptor};
use crate::descriptor::Descriptor;
use crate::dial::{Dial, Terms, take_outcome};
use crate::endpoint::{MAX_MESSAGE_BYTES, Waker};
use crate::handshake::Credentials;
use crate::member::{Member, Patience, Spin};
use crate::poller::{Poller, Ready};
use crate::stream::unreachable;
use crate::{Address, Begun, Clock, Endpoint, Event, FabricError, Hello, PeerId, RealClock, SendError};
use doorbell::fence_sleep;
use layout::{CORES_FREE_WORD, Geometry, Side};
use link::Link;
use mapping::Mapping;
use pass::Parts;
use producer::PushError;
use sync::Bell;

/// The handshake's channel on sockets that hand out rings.
const RING_CHANNEL: &[u8] = b"ring";
/// A doorbell's token is its connection's token with this bit.
const BELL_BIT: u64 = 1;
/// After so many calls of `recv` the sockets are looked at, however busy the rings are.
const CALLS_PER_LOOK: u32 = 64;
/// Messages taken from one connection before it is another's turn: what a client has sent together is answered together, and
/// wakes it once.
const MESSAGES_A_TURN: u32 = 8;

/// The other side wrote something into the shared memory that no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lied;

/// What an endpoint's rings have done so far: what tests assert instead of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Doorbells rung: each is a system call here and a wake-up there.
    pub doorbells: u64,
    /// Times this endpoint's thread slept.
    pub sleeps: u64,
}

struct Connection {
    token: u64,
    socket: Descriptor,
    /// Rung by the other side.
    bell: Descriptor,
    link: Link,
    mapping: Arc<Mapping>,
    side: Side,
    /// The other side is gone; what it sent before is still to be taken.
    hung_up: bool,
}

/// An endpoint over same-node rings. See the module's description.
pub struct RingEndpoint {
    credentials: Credentials,
    node: String,
    poller: Poller,
    acceptor: Option<Acceptor>,
    geometry: Geometry,
    /// In the order of their tokens.
    connections: Vec<Connection>,
    /// Connections that are being made.
    dials: BTreeMap<u64, Dial>,
    /// Whose turn it is to be read.
    turn: usize,
    /// Messages that this one has given in its turn.
    given: u32,
    events: VecDeque<Event>,
    /// What the last look at the descriptors found; kept for its room.
    ready: Vec<Ready>,
    next_token: u64,
    calls: u32,
    counters: RingCounters,
    /// Doorbells rung by connections that have ended.
    ended_doorbells: u64,
    spin: Spin,
    patience: Patience,
    /// Threads that serve this server's targets.
    targets: usize,
    /// Cores that the process may use.
    cores: usize,
}

impl RingEndpoint {
    /// An endpoint that can connect.
    pub fn new(credentials: &Credentials, spin: Spin) -> Result<Self, FabricError> {
        let context = "making an epoll descriptor".to_owned();
        Ok(RingEndpoint {
            credentials: credentials.clone(),
            node: crate::node::node_id(),
            poller: Poller::new().map_err(|source| FabricError::Io { context, source })?,
            acceptor: None,
            geometry: Geometry::default(),
            connections: Vec::new(),
            dials: BTreeMap::new(),
            turn: 0,
            given: 0,
            events: VecDeque::new(),
            ready: Vec::new(),
            next_token: 2,
            calls: 0,
            counters: RingCounters::default(),
            ended_doorbells: 0,
            spin,
            patience: Patience::default(),
            targets: 1,
            cores: crate::member::cores(),
        })
    }

    /// Says how many threads serve this server's targets: each wants a core.
    pub fn set_targets(&mut self, targets: usize) {
        self.targets = targets;
    }

    /// Also listens, on a Unix socket at `path`; gives the address to publish.
    pub fn listen(&mut self, path: &str) -> Result<Address, FabricError> {
        self.acceptor = Some(Acceptor::unix(path, &self.credentials, RING_CHANNEL, &self.poller)?);
        Ok(Address::Ring { node: self.node.clone(), path: path.to_owned() })
    }

    /// What was done so far.
    pub fn counters(&self) -> RingCounters {
        let live: u64 = self.connections.iter().map(|connection| connection.link.doorbell().rung()).sum();
        RingCounters { doorbells: self.ended_doorbells + live, ..self.counters }
    }

    fn find(&mut self, peer: PeerId) -> Option<&mut Connection> {
        let index = self.index(peer.0)?;
        self.connections.get_mut(index)
    }

    fn index(&self, token: u64) -> Option<usize> {
        self.connections.binary_search_by_key(&token, |connection| connection.token).ok()
    }

    fn adopt(&mut self, token: u64, socket: Descriptor, parts: Parts, side: Side) -> io::Result<()> {
        let (theirs, ours) = match side {
            Side::Client => (parts.server_bell, parts.client_bell),
            Side::Server => (parts.client_bell, parts.server_bell),
        };
        self.poller.add(&socket, token)?;
        self.poller.add(&ours, token | BELL_BIT)?;
        let mapping = Arc::new(parts.mapping);
        let link = Link::new(&mapping, parts.geometry, side, Bell::new(theirs));
        let connection = Connection { token, socket, bell: ours, link, mapping, side, hung_up: false };
        let at = self.connections.partition_point(|other| other.token < token);
        self.connections.insert(at, connection);
        self.tell_cores_free();
        Ok(())
    }

    fn remove(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        self.ended_doorbells += connection.link.doorbell().rung();
        // Loans may live on, and with them the doorbell; the descriptors in the poller must not.
        self.poller.remove(&connection.bell);
        (self.turn, self.given) = (0, 0);
        self.tell_cores_free();
    }

    /// Tells clients whether they may spin: a client and a target each want a core while they work.
    fn tell_cores_free(&self) {
        let clients = self.connections.iter().filter(|connection| connection.side == Side::Server);
        let free = clients.clone().count() + self.targets < self.cores;
        clients.for_each(|connection| connection.mapping.word(CORES_FREE_WORD).store(free.into(), Ordering::Relaxed));
    }

    /// Looks at the sockets and doorbells, sleeping for up to `timeout_ns`.
    fn collect(&mut self, timeout_ns: u64) {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.poll(timeout_ns, &mut ready);
        ready.drain(..).for_each(|one| self.handle(one));
        self.ready = ready;
        if !self.dials.is_empty() {
            let now_ns = RealClock.monotonic_ns();
            let due = self.dials.iter().filter(|(_, dial)| dial.timer_ns() <= now_ns);
            let due: Vec<u64> = due.map(|(token, _)| *token).collect();
            due.into_iter().for_each(|token| self.go_on(token));
        }
        if let Some(acceptor) = &mut self.acceptor {
            let next_token = &mut self.next_token;
            acceptor.expire(RealClock.monotonic_ns(), &self.poller, &mut || take(next_token));
        }
    }

    fn handle(&mut self, ready: Ready) {
        if let Some(index) = self.index(ready.token & !BELL_BIT) {
            let is_socket = ready.token & BELL_BIT == 0;
            if is_socket && (ready.readable || ready.hung_up) {
                // Nothing is ever said on the socket after the offer: a word is as good as its end.
                let connection = &mut self.connections[index];
                let got = rustix::net::recv(&connection.socket, &mut [0; 1], RecvFlags::empty());
                connection.hung_up |= !matches!(got, Err(Errno::AGAIN | Errno::INTR));
            }
            return;
        }
        if self.dials.contains_key(&ready.token) {
            return self.go_on(ready.token);
        }
        let Some(acceptor) = &mut self.acceptor else { return };
        let (mut accepted, next_token) = (Vec::new(), &mut self.next_token);
        acceptor.handle(ready, &self.poller, &mut || take(next_token), &mut accepted);
        for (token, Accepted { socket, hello, local }) in accepted {
            let adopted =
                pass::offer(&socket, self.geometry).and_then(|parts| self.adopt(token, socket, parts, Side::Server));
            if adopted.is_ok() {
                self.events.push_back(Event::Up { peer: PeerId(token), hello, local });
            }
        }
    }

    /// The next message or end in the rings.
    fn look(&mut self) -> Option<Event> {
        let count = self.connections.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let connection = &mut self.connections[index];
            let peer = PeerId(connection.token);
            // Read before the ring, so that what came before the end is taken before it.
            let hung_up = connection.hung_up;
            match connection.link.pop() {
                Ok(Some(message)) => {
                    self.given = if step == 0 { self.given + 1 } else { 1 };
                    self.turn = index;
                    if self.given >= MESSAGES_A_TURN {
                        (self.turn, self.given) = (index + 1, 0);
                    }
                    self.counters.received += 1;
                    return Some(Event::Message { peer, message });
                }
                Ok(None) if !hung_up => {}
                Ok(None) | Err(Lied) => {
                    self.remove(index);
                    return Some(Event::Down { peer });
                }
            }
        }
        None
    }

    /// Goes on with a connection that is being made: after the proof the rings come.
    fn go_on(&mut self, token: u64) {
        let Some(mut dial) = self.dials.remove(&token) else { return };
        let parts = match dial.advance(&self.poller, token) {
            Ok(true) => pass::take(&dial).and_then(|parts| match parts {
                Some(parts) => Ok(Some(parts)),
                None => dial.check_deadline().map(|()| None),
            }),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let outcome = match parts {
            Ok(None) => {
                self.dials.insert(token, dial);
                return;
            }
            Ok(Some(parts)) => {
                let name = dial.name.clone();
                let socket = dial.into_socket(&self.poller);
                let adopted = socket.map_or(Ok(()), |socket| self.adopt(token, socket, parts, Side::Client));
                adopted.map_err(|source| FabricError::Io { context: format!("watching {name}"), source })
            }
            Err(error) => Err(error),
        };
        self.events.push_back(Event::Connected { peer: PeerId(token), outcome });
    }

    fn dial(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let path = match address {
            Address::Ring { node, path } if *node == self.node => path,
            Address::Ring { .. } => return Err(unreachable(address, "it is on another node")),
            _ => return Err(unreachable(address, "it has no rings")),
        };
        let (name, channel) = (address.to_string(), RING_CHANNEL);
        let dial = Dial::unix(path, Terms { name, credentials: &self.credentials, channel, hello, deadline_ns })?;
        let token = take(&mut self.next_token);
        self.dials.insert(token, dial);
        self.go_on(token);
        Ok(PeerId(token))
    }
}

/// Takes `bytes` for the contents of a ring whose other side is hostile, and reads it to the end.
pub(crate) fn fuzz(bytes: &[u8]) {
    let geometry = Geometry { ring_bytes: 4 * 8192, area_bytes: 4096 };
    let Ok((mapping, _memory)) = Mapping::create(geometry.total_bytes()) else { return };
    let Ok(bell) = crate::poller::new_eventfd() else { return };
    let mapping = Arc::new(mapping);
    let lane = geometry.lane_from(Side::Client);
    let written = mapping.write(lane.ring, &bytes[..bytes.len().min(geometry.ring_bytes)]);
    assert!(written, "the ring lies inside its mapping");
    mapping.word(lane.tail).store(bytes.len() as u64 & !63, Ordering::Release);
    let mut link = Link::new(&mapping, geometry, Side::Server, Bell::new(bell.into()));
    while let Ok(Some(message)) = link.pop() {
        assert!(message.len() <= MAX_MESSAGE_BYTES, "a message is larger than any");
    }
}

fn take(next_token: &mut u64) -> u64 {
    *next_token += 2;
    *next_token - 2
}

impl Endpoint for RingEndpoint {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let peer = self.dial(address, hello, deadline_ns)?;
        loop {
            if let Some(outcome) = take_outcome(&mut self.events, peer) {
                return outcome.map(|()| peer);
            }
            // Two endpoints may dial each other: all that comes is looked at meanwhile.
            self.collect(self.timer_ns().saturating_sub(RealClock.monotonic_ns()));
        }
    }

    fn begin_connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<Begun, FabricError> {
        self.dial(address, hello, deadline_ns).map(Begun::Pending)
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let connection = self.find(peer).ok_or(SendError::Gone)?;
        if connection.hung_up {
            return Err(SendError::Gone);
        }
        match connection.link.push(parts) {
            Ok(()) => {
                self.counters.sent += 1;
                Ok(())
            }
            Err(PushError::Full) => Err(SendError::Full),
            Err(PushError::TooLarge) => Err(SendError::TooLarge),
            Err(PushError::Lied) => {
                connection.hung_up = true;
                Err(SendError::Gone)
            }
        }
    }

    fn recv(&mut self) -> Option<Event> {
        self.calls = self.calls.wrapping_add(1);
        if self.calls.is_multiple_of(CALLS_PER_LOOK) || self.connections.is_empty() || !self.dials.is_empty() {
            self.collect(0);
        }
        self.events.pop_front().or_else(|| self.look())
    }

    fn wait(&mut self, deadline_ns: u64) {
        let (spin, mut patience) = (self.spin, self.patience);
        crate::member::wait(self, spin, &mut patience, deadline_ns);
        self.patience = patience;
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some(index) = self.index(peer.0) {
            self.remove(index);
        }
        self.dials.remove(&peer.0);
        take_outcome(&mut self.events, peer);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.poller.waker()
    }
}

impl Member for RingEndpoint {
    fn reaches(&self, address: &Address) -> bool {
        matches!(address, Address::Ring { .. })
    }

    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.poller.fd()
    }

    fn ready(&mut self) -> bool {
        let mut live = self.connections.iter_mut();
        !self.events.is_empty() || live.any(|connection| connection.hung_up || connection.link.is_ready())
    }

    fn is_quiet(&self) -> bool {
        self.connections.is_empty() && self.events.is_empty() && self.dials.is_empty()
    }

    fn before_sleep(&mut self) -> bool {
        if self.poller.take_woken() {
            return false;
        }
        self.connections.iter().for_each(|connection| connection.link.say_asleep());
        fence_sleep();
        !self.ready()
    }

    fn sleep(&mut self, timeout_ns: u64) -> bool {
        self.counters.sleeps += u64::from(timeout_ns > 0);
        self.collect(timeout_ns);
        self.poller.take_woken()
    }

    fn after_sleep(&mut self) {
        self.connections.iter().for_each(|connection| connection.link.say_awake());
    }

    fn timer_ns(&self) -> u64 {
        let dials = self.dials.values().map(Dial::timer_ns).min().unwrap_or(u64::MAX);
        self.acceptor.as_ref().map_or(u64::MAX, Acceptor::timer_ns).min(dials)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let listener = self.acceptor.iter().map(|acceptor| acceptor.listener().as_raw_fd());
        let live = self.connections.iter();
        listener
            .chain(live.flat_map(|c| [c.socket.as_raw_fd(), c.bell.as_raw_fd(), c.link.doorbell().bell().raw_fd()]))
            .collect()
    }

    fn cores_free(&self) -> bool {
        let told = |connection: &Connection| connection.mapping.word(CORES_FREE_WORD).load(Ordering::Relaxed) != 0;
        !self.connections.is_empty() && self.connections.iter().all(told)
    }
}
