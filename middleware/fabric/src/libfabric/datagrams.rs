//! Messages between nodes through libfabric's reliable datagrams (`FI_EP_RDM`), for networks whose providers have no connected endpoints.
//!
//! Whoever knows a datagram address can send to it, and nobody says when a peer dies. So a connection is a TCP socket of ours beside: on it
//! both sides prove themselves ([`crate::handshake`], as on `tcp:`) and tell their datagram addresses and a random tag each
//! ([`meeting`]); its end is the connection's. Only buffers with a proved peer's tag are posted: what strangers send matches none.
//! One endpoint of the provider serves all peers. It must never be asked to use a buffer again that it may still have: what ended
//! connections leave behind stays until it is given up ([`Rest`]), and when no connection is left the endpoint ends with it.

pub(crate) mod device;
mod joining;
mod meeting;
mod member;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use super::Came;
use super::peer::Context;
use super::receives::{Broken, Returns};
use super::sends::Spares;
use super::ways::{Kind, Way, Ways, ways};
use crate::accept::Acceptor;
use crate::dial::Dial;
use crate::endpoint::{Given, Waker};
use crate::handshake::Credentials;
use crate::member::{Member, Patience, Spin};
use crate::poller::{Poller, Ready};
use crate::{Address, Begun, Clock, Endpoint, Event, FabricError, Hello, PeerId, RealClock, SendError};
use device::Device;
use meeting::Meeting;
use peer::{Peer, Rest};

/// The handshake's channel on the sockets of datagrams.
const DATAGRAM_CHANNEL: &[u8] = b"datagram";
/// The poller's token of the provider's queue; connections count from 1.
const QUEUE_TOKEN: u64 = 0;
/// Of so many looks at the provider's queue that found nothing one looks at the sockets, too: those tell of ends.
const LOOKS_PER_POLL: u32 = 16;
/// After so many connections the provider's endpoint ends with the last of them: it keeps what came too late for each.
const CONNECTIONS_MAX: u32 = 64;

/// An endpoint over reliable datagrams. See the module's description.
pub struct DatagramEndpoint {
    // First: when it has ended, nothing uses the buffers below any more.
    device: Option<Device>,
    peers: BTreeMap<u64, Peer>,
    /// What the provider still has of connections that have ended.
    rests: BTreeMap<u64, Rest>,
    acceptor: Option<Acceptor>,
    /// The address of the interface that we listen on.
    interface: Option<String>,
    /// Connections that are being made, until they are proved, and when they are too late.
    dials: BTreeMap<u64, (Dial, u64)>,
    /// Connections that are proved, until both sides know where to send.
    meetings: BTreeMap<u64, Meeting>,
    credentials: Credentials,
    poller: Poller,
    events: VecDeque<Came>,
    /// What is chosen for the device's provider.
    ways: Option<&'static Ways>,
    spares: Spares,
    returns: Arc<Returns>,
    /// Bytes of messages that were copied out of where they arrived.
    copied_bytes: u64,
    next_token: u64,
    /// Connections that have ended since the device was opened.
    ended: u32,
    looks: u32,
    room: bool,
    spin: Spin,
    patience: Patience,
}

impl DatagramEndpoint {
    /// An endpoint that can connect. libfabric is loaded by the first connection.
    pub fn new(credentials: &Credentials, spin: Spin) -> Result<Self, FabricError> {
        let context = "making an epoll descriptor".to_owned();
        Ok(DatagramEndpoint {
            device: None,
            peers: BTreeMap::new(),
            rests: BTreeMap::new(),
            acceptor: None,
            interface: None,
            dials: BTreeMap::new(),
            meetings: BTreeMap::new(),
            credentials: credentials.clone(),
            poller: Poller::new().map_err(|source| FabricError::Io { context, source })?,
            events: VecDeque::new(),
            ways: None,
            spares: Spares::default(),
            returns: Arc::default(),
            copied_bytes: 0,
            next_token: 1,
            ended: 0,
            looks: 0,
            room: false,
            spin,
            patience: Patience::default(),
        })
    }

    /// Whether `provider` is one whose datagrams this release uses.
    pub fn knows(provider: &str) -> bool {
        ways(provider).is_some_and(|ways| ways.kind == Kind::Datagrams)
    }

    /// Also listens, on the interface with this address; gives the address to publish.
    pub fn listen(&mut self, provider: &str, interface: &str) -> Result<Address, FabricError> {
        self.choose(provider)?;
        // Tells now what is not to be had.
        self.open(interface)?;
        let host_port = if interface.contains(':') { format!("[{interface}]:0") } else { format!("{interface}:0") };
        let (acceptor, host_port) = Acceptor::tcp(&host_port, &self.credentials, DATAGRAM_CHANNEL, &self.poller)?;
        self.acceptor = Some(acceptor);
        self.interface = Some(interface.to_owned());
        Ok(Address::Datagrams { provider: provider.to_owned(), host_port })
    }

    /// Settles on a provider: one device an endpoint, and so one provider.
    fn choose(&mut self, provider: &str) -> Result<(), FabricError> {
        let known = ways(provider).filter(|ways| ways.kind == Kind::Datagrams);
        let why = || format!("this release sends no datagrams by the provider {provider}");
        let known = known.ok_or_else(|| FabricError::Unsupported("libfabric", why()))?;
        match self.ways {
            Some(ways) if ways.provider != known.provider => {
                let why = format!("this process sends datagrams by {} already, not by {provider}", ways.provider);
                Err(FabricError::Unsupported("libfabric", why))
            }
            _ => {
                self.ways = Some(known);
                Ok(())
            }
        }
    }

    /// The provider's endpoint, opened if it is not.
    fn open(&mut self, interface: &str) -> Result<&Device, FabricError> {
        if self.device.is_none() {
            let ways = self.ways.ok_or(FabricError::Unsupported("libfabric", "no provider is chosen".into()))?;
            let device = Device::open(ways, interface)?;
            let context = |source| FabricError::Io { context: "watching libfabric's descriptor".into(), source };
            self.poller.add_level(device.wait_fd(), QUEUE_TOKEN).map_err(context)?;
            self.device = Some(device);
        }
        self.device.as_ref().ok_or(FabricError::Unsupported("libfabric", "not open".into()))
    }

    /// Lets libfabric work and takes all that it has to say.
    fn progress(&mut self) {
        if self.device.is_none() {
            return;
        }
        self.take_back();
        self.complete();
        let backlogs: Vec<u64> =
            self.peers.iter().filter(|(_, peer)| peer.sends.has_backlog()).map(|(t, _)| *t).collect();
        for token in backlogs {
            let Some(device) = &self.device else { break };
            if self.peers.get_mut(&token).is_some_and(|peer| peer.flush(device, &mut self.spares).is_err()) {
                self.lose(token);
            }
        }
        if self.peers.is_empty()
            && self.meetings.is_empty()
            && (!self.rests.is_empty() || self.ended >= CONNECTIONS_MAX)
        {
            self.close();
        }
    }

    /// Ends the provider's endpoint, and with it what it keeps for peers that may be stopped or dead. The next connection opens another.
    fn close(&mut self) {
        if let Some(device) = self.device.take() {
            self.poller.remove(device.wait_fd());
        }
        self.rests.clear();
        self.ended = 0;
    }

    fn complete(&mut self) {
        let mut completions = Vec::new();
        while self.device.as_ref().is_some_and(|device| device.completions(&mut completions)) {}
        for completion in completions {
            let Context { token, send, index } = Context::parse(completion.context);
            let Some(device) = &self.device else { return };
            if send && token != 0 {
                device.sent();
            }
            let Some(peer) = self.peers.get_mut(&token) else {
                self.left(token, send, index);
                continue;
            };
            let outcome = if completion.failed {
                // Whoever waits for it here would wait for ever: it has completed.
                if send {
                    peer.sends.sent(index, &mut self.spares);
                } else {
                    peer.failed(index);
                }
                Err(Broken)
            } else if send {
                self.room |= peer.sends.sent(index, &mut self.spares);
                peer.flush(device, &mut self.spares)
            } else {
                peer.arrived(index, completion.bytes).map(|told| {
                    let came = |(index, bytes)| Came::Message { token, index, bytes };
                    self.events.extend(told.into_iter().map(came));
                })
            };
            if outcome.is_err() {
                self.lose(token);
            }
        }
    }

    /// An operation of a connection that has ended has completed.
    fn left(&mut self, token: u64, send: bool, index: usize) {
        let Some(rest) = self.rests.get_mut(&token) else { return };
        if send {
            rest.sends.sent(index, &mut self.spares);
        }
        rest.operations -= 1;
        if rest.operations == 0 {
            self.rests.remove(&token);
        }
    }

    /// Posts the buffers again that nobody reads any more.
    fn take_back(&mut self) {
        for (token, index, buffer) in self.returns.take() {
            let (Some(device), Some(peer)) = (&self.device, self.peers.get_mut(&token)) else { continue };
            if peer.give_back(device, index, buffer).is_err() {
                self.lose(token);
            }
        }
    }

    /// The event to tell; `None` if it came to nothing.
    fn told(&mut self, came: Came) -> Option<Event> {
        let (token, index, bytes) = match came {
            Came::Event(event) => return Some(event),
            Came::Message { token, index, bytes } => (token, index, bytes),
        };
        let told = self.peers.get_mut(&token)?.message(self.device.as_ref()?, &self.returns, (index, bytes));
        let Ok((message, copied_bytes)) = told else {
            self.lose(token);
            return None;
        };
        self.copied_bytes += copied_bytes as u64;
        Some(Event::Message { peer: PeerId(token), message })
    }

    /// Ends a connection. What the provider has of it stays with us.
    fn remove(&mut self, token: u64) {
        let (Some(peer), Some(device)) = (self.peers.remove(&token), &self.device) else { return };
        self.poller.remove(&peer.socket);
        let rest = peer.end(device);
        self.ended += 1;
        if rest.operations > 0 {
            self.rests.insert(token, rest);
        }
    }

    /// A connection has ended from the other side.
    fn lose(&mut self, token: u64) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        // What has arrived on it stays to be told.
        for came in &mut self.events {
            if let Came::Message { token: of, index, bytes } = *came
                && of == token
                && let Some(message) = peer.last_message((index, bytes))
            {
                *came = Came::Event(Event::Message { peer: PeerId(token), message });
            }
        }
        self.remove(token);
        self.events.push_back(Came::Event(Event::Down { peer: PeerId(token) }));
    }

    fn peer(&mut self, peer: PeerId) -> Option<(&mut Peer, &Device, &mut Spares)> {
        Some((self.peers.get_mut(&peer.0)?, self.device.as_ref()?, &mut self.spares))
    }

    fn way(&self, bytes: usize) -> Option<Way> {
        self.ways.and_then(|ways| ways.of(bytes))
    }
}

impl Endpoint for DatagramEndpoint {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let peer = self.dial(address, hello, deadline_ns)?;
        loop {
            if let Some(outcome) = self.take_outcome(peer) {
                return outcome.map(|()| peer);
            }
            // Two endpoints may dial each other: all that comes is looked at meanwhile.
            let may_sleep = self.device.as_ref().is_none_or(Device::may_sleep);
            let timeout_ns = self.timer_ns().saturating_sub(RealClock.monotonic_ns());
            self.collect(if may_sleep { timeout_ns } else { 0 });
            self.progress();
        }
    }

    fn begin_connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<Begun, FabricError> {
        self.dial(address, hello, deadline_ns).map(Begun::Pending)
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let way = self.way(parts.iter().map(|part| part.len()).sum());
        let (known, device, spares) = self.peer(peer).ok_or(SendError::Gone)?;
        let sent = match way {
            Some(Way::Message) => known.copy(device, parts, spares),
            None => Err(SendError::TooLarge),
        };
        if sent == Err(SendError::Gone) {
            self.lose(peer.0);
        }
        sent
    }

    fn give(&mut self, peer: PeerId, given: Given) -> Result<Option<Given>, (SendError, Option<Given>)> {
        let way = self.way(given.iter().map(Vec::len).sum());
        let Some((known, device, spares)) = self.peer(peer) else { return Err((SendError::Gone, Some(given))) };
        let sent = match way {
            Some(Way::Message) => known.give(device, given, spares),
            None => Err((SendError::TooLarge, Some(given))),
        };
        if let Err((SendError::Gone, _)) = sent {
            self.lose(peer.0);
        }
        sent.map(|()| None)
    }

    fn given_back(&mut self) -> Option<Vec<u8>> {
        self.spares.given.pop()
    }

    fn recv(&mut self) -> Option<Event> {
        self.take_back();
        loop {
            if self.events.is_empty() {
                self.progress();
            }
            if self.events.is_empty() {
                self.looks = self.looks.wrapping_add(1);
                if self.looks.is_multiple_of(LOOKS_PER_POLL) {
                    self.collect(0);
                }
            }
            let came = self.events.pop_front()?;
            if let Some(event) = self.told(came) {
                return Some(event);
            }
        }
    }

    fn wait(&mut self, deadline_ns: u64) {
        let (spin, mut patience) = (self.spin, self.patience);
        crate::member::wait(self, spin, &mut patience, deadline_ns);
        self.patience = patience;
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.remove(peer.0);
        self.dials.remove(&peer.0);
        self.meetings.remove(&peer.0);
        self.events.retain(|came| came.peer() != peer.0);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.poller.waker()
    }
}

#[cfg(test)]
impl DatagramEndpoint {
    pub(crate) fn spares(&self) -> &Spares {
        &self.spares
    }

    pub(crate) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    pub(crate) fn untold(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn outbox_bytes(&self, peer: PeerId) -> usize {
        self.peers[&peer.0].sends.bytes
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.peers.is_empty() && self.dials.is_empty() && self.meetings.is_empty()
    }
}
