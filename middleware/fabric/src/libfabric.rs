//! Messages between nodes through libfabric: connected endpoints of its `tcp` provider.
//!
//! Owns one libfabric domain with one event queue and one completion queue, and the proof that each connection gives:
//! the hello travels as the parameter of the connection request, the answer as that of its acceptance, the confirmation is
//! the first message. Must never accept, or answer other than by libfabric's bare refusal, a request whose MAC is wrong.
//!
//! A message of ours is one of the provider's, which [`ways`] chooses for each size. It is read where it arrived, and sent from where
//! it lies if it was given to us. The provider never sees a caller's memory: an operation whose deadline passes leaves nothing behind
//! that could still be read or written.
//!
//! Connected endpoints (`FI_EP_MSG`) where there are any, rather than reliable datagrams (`FI_EP_RDM`, [`datagrams`]): their end is an event,
//! so that a peer's death is noticed, and a stranger can address nothing but the listener. Nothing is loaded before the first use, and one
//! blocks on the queues' descriptors only after `fi_trywait` allowed it.

mod carrier;
mod connecting;
pub(crate) mod datagrams;
mod device;
mod peer;
mod receives;
mod sends;
mod signals;
#[cfg(test)]
mod tests;
mod ways;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::endpoint::Given;
use crate::endpoint::Waker;
use crate::handshake::{Connecting, Credentials, HandshakeError, fresh_nonce};
use crate::member::{Member, Patience, Spin};
use crate::poller::Poller;
use crate::stream::unreachable;
use crate::{Address, Begun, Clock, Endpoint, Event, FabricError, Hello, PeerId, RealClock, SendError};
use device::{Device, Info, Listener, Want, loaded};
use peer::{Context, Peer, State};
use receives::{Broken, Returns};
use sends::Spares;
use ways::{TCP, Way, Ways, ways};

/// The handshake's channel in libfabric's connection requests.
const LIBFABRIC_CHANNEL: &[u8] = b"libfabric";
/// How long a connection may take to prove itself, in nanoseconds.
const PROOF_NS: u64 = 5_000_000_000;
/// How many may be at it at a time.
const PROVING_MAX: usize = 64;

/// An endpoint over libfabric. See the module's description.
pub struct LibfabricEndpoint {
    // The order of these matters: connections end before the listener, and both before the device.
    peers: BTreeMap<u64, Peer>,
    listener: Option<Listener>,
    device: Option<Device>,
    /// Names of connections by what libfabric calls them.
    tokens: BTreeMap<usize, u64>,
    credentials: Credentials,
    poller: Poller,
    /// Connections of ours that are being made, by name and deadline: their end is an event.
    dials: BTreeMap<u64, (String, u64)>,
    events: VecDeque<Came>,
    /// What is chosen for the device's provider.
    ways: &'static Ways,
    spares: Spares,
    returns: Arc<Returns>,
    /// Bytes of messages that were copied out of where they arrived.
    copied_bytes: u64,
    next_token: u64,
    room: bool,
    spin: Spin,
    patience: Patience,
}

/// What is to be told.
enum Came {
    Event(Event),
    /// A message, in a buffer of its connection.
    Message {
        token: u64,
        index: usize,
        bytes: usize,
    },
}

impl Came {
    fn peer(&self) -> u64 {
        match self {
            Came::Message { token, .. } => *token,
            Came::Event(
                Event::Up { peer, .. }
                | Event::Connected { peer, .. }
                | Event::Message { peer, .. }
                | Event::Down { peer },
            ) => peer.0,
        }
    }
}

impl LibfabricEndpoint {
    /// An endpoint that can connect. libfabric is loaded by the first connection.
    pub fn new(credentials: &Credentials, spin: Spin) -> Result<Self, FabricError> {
        let context = "making an epoll descriptor".to_owned();
        Ok(LibfabricEndpoint {
            peers: BTreeMap::new(),
            listener: None,
            device: None,
            tokens: BTreeMap::new(),
            credentials: credentials.clone(),
            poller: Poller::new().map_err(|source| FabricError::Io { context, source })?,
            dials: BTreeMap::new(),
            events: VecDeque::new(),
            ways: &TCP,
            spares: Spares::default(),
            returns: Arc::default(),
            copied_bytes: 0,
            next_token: 1,
            room: false,
            spin,
            patience: Patience::default(),
        })
    }

    /// Also listens, on the interface with this address; gives the address to publish.
    pub fn listen(&mut self, interface: &str) -> Result<Address, FabricError> {
        let provider = self.ways.provider;
        let info = Info::get(loaded()?, provider, &Want::Listen(interface)).map_err(|error| {
            let why =
                format!("its provider {provider} does not serve {interface} ({error}); FI_PROVIDER may exclude it");
            FabricError::Unsupported("libfabric", why)
        })?;
        self.open(&info)?;
        let device = self.device.as_ref().ok_or(FabricError::Unsupported("libfabric", "not open".into()))?;
        let listener = Listener::open(device, &info)?;
        let name = listener.name()?;
        self.listener = Some(listener);
        Ok(Address::Libfabric { provider: provider.to_owned(), name })
    }

    fn open(&mut self, info: &Info) -> Result<(), FabricError> {
        if self.device.is_some() {
            return Ok(());
        }
        let device = Device::open(info)?;
        for (token, fd) in device.wait_fds().into_iter().enumerate() {
            let context = |source| FabricError::Io { context: "watching libfabric's descriptors".into(), source };
            self.poller.add_level(fd, token as u64).map_err(context)?;
        }
        self.device = Some(device);
        Ok(())
    }

    /// Lets libfabric work and takes all that it has to say.
    fn progress(&mut self) {
        if self.peers.is_empty() && self.listener.is_none() {
            return;
        }
        self.take_back();
        self.complete();
        while let Some(event) = self.device.as_ref().and_then(Device::event) {
            self.connection_event(event);
        }
        self.complete();
        let backlogs: Vec<u64> =
            self.peers.iter().filter(|(_, peer)| peer.sends.has_backlog()).map(|(t, _)| *t).collect();
        for token in backlogs {
            if self.peers.get_mut(&token).is_some_and(|peer| peer.flush(&mut self.spares).is_err()) {
                self.lose(token);
            }
        }
        if self.peers.values().any(|peer| matches!(peer.state, State::Proving { .. })) {
            let now_ns = RealClock.monotonic_ns();
            self.drop_proving(|deadline_ns| deadline_ns <= now_ns);
        }
        if !self.dials.is_empty() {
            self.report_dials();
        }
    }

    fn complete(&mut self) {
        let mut completions = Vec::new();
        while self.device.as_ref().is_some_and(|device| device.completions(&mut completions)) {}
        for completion in completions {
            let Context { token, send, index } = Context::parse(completion.context);
            let Some(peer) = self.peers.get_mut(&token) else { continue };
            let outcome = if completion.failed {
                Err(Broken)
            } else if send {
                self.room |= peer.sends.sent(index, &mut self.spares);
                peer.flush(&mut self.spares)
            } else {
                self.received(token, index, completion.bytes)
            };
            if outcome.is_err() {
                self.lose(token);
            }
        }
    }

    fn received(&mut self, token: u64, index: usize, bytes: usize) -> Result<(), Broken> {
        let peer = self.peers.get_mut(&token).ok_or(Broken)?;
        match std::mem::replace(&mut peer.state, State::Up) {
            // The other side may speak as soon as it has our confirmation, before our own caller has seen that we are up.
            state @ (State::Up | State::Settled(Ok(()))) => {
                peer.state = state;
                self.events.push_back(Came::Message { token, index, bytes });
            }
            State::Proving { accepting, deadline_ns, proof } => {
                let whole = if bytes == proof.len() { Ok(()) } else { Err(HandshakeError::Refused) };
                match whole.and_then(|()| accepting.clone().confirm(&proof)) {
                    Ok(hello) => {
                        let peer_id = PeerId(token);
                        self.events.push_back(Came::Event(Event::Up { peer: peer_id, hello, local: false }));
                        return peer.listen(self.ways.accepted_receives).map_err(|_| Broken);
                    }
                    Err(_) => {
                        // Put back, so that a wrong confirmation ends a stranger and not a peer.
                        peer.state = State::Proving { accepting, deadline_ns, proof };
                        return Err(Broken);
                    }
                }
            }
            state => {
                peer.state = state;
                return Err(Broken);
            }
        }
        Ok(())
    }

    /// Posts the buffers again that nobody reads any more.
    fn take_back(&mut self) {
        for (token, index, buffer) in self.returns.take() {
            let Some(peer) = self.peers.get_mut(&token) else { continue };
            if peer.give_back(index, buffer).is_err() {
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
        let told = self.peers.get_mut(&token)?.message(&self.returns, (index, bytes));
        let Ok((message, copied_bytes)) = told else {
            self.lose(token);
            return None;
        };
        self.copied_bytes += copied_bytes as u64;
        Some(Event::Message { peer: PeerId(token), message })
    }

    fn remove(&mut self, token: u64) -> Option<Peer> {
        let peer = self.peers.remove(&token)?;
        self.tokens.remove(&peer.active.id());
        Some(peer)
    }

    /// A connection has ended from the other side.
    fn lose(&mut self, token: u64) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        match peer.state {
            State::Connecting(_) => peer.state = State::Settled(Err(FabricError::Refused(String::new()))),
            State::Settled(_) => peer.state = State::Settled(Err(FabricError::Refused(String::new()))),
            State::Proving { .. } => drop(self.remove(token)),
            State::Up => {
                self.keep_last_messages(token);
                self.remove(token);
                self.events.push_back(Came::Event(Event::Down { peer: PeerId(token) }));
            }
        }
    }

    /// What has arrived on a connection that ends stays to be told.
    fn keep_last_messages(&mut self, token: u64) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        for came in &mut self.events {
            if let Came::Message { token: of, index, bytes } = *came
                && of == token
                && let Some(message) = peer.last_message((index, bytes))
            {
                *came = Came::Event(Event::Message { peer: PeerId(token), message });
            }
        }
    }

    fn drop_proving(&mut self, over: impl Fn(u64) -> bool) {
        let late = |peer: &Peer| matches!(peer.state, State::Proving { deadline_ns, .. } if over(deadline_ns));
        let late: Vec<u64> = self.peers.iter().filter(|(_, peer)| late(peer)).map(|(token, _)| *token).collect();
        for token in late {
            self.remove(token);
        }
    }

    /// Asks for a connection; gives its name.
    fn ask(&mut self, address: &Address, hello: &Hello) -> Result<u64, FabricError> {
        let Address::Libfabric { provider, name } = address else {
            return Err(unreachable(address, "it is not a libfabric endpoint"));
        };
        // One device an endpoint, and so one provider.
        if ways(provider).is_none_or(|ways| ways.provider != self.ways.provider) {
            return Err(unreachable(address, "this build connects by the provider tcp only"));
        }
        let info = Info::get(loaded()?, provider, &Want::Connect(name))
            .map_err(|error| FabricError::Unreachable(address.to_string(), error.to_string()))?;
        self.open(&info)?;
        let context = |source| FabricError::Io { context: format!("drawing a nonce for {address}"), source };
        let nonce = fresh_nonce().map_err(context)?;
        let (connecting, bytes) =
            Connecting::start(&self.credentials, LIBFABRIC_CHANNEL, hello, nonce, RealClock.unix_us());
        let token = self.adopt(&info, State::Connecting(connecting))?;
        let asked = self.peers.get(&token).map_or(Ok(()), |peer| peer.active.connect(&info, &bytes));
        asked.inspect_err(|_| drop(self.remove(token)))?;
        Ok(token)
    }
}

impl Endpoint for LibfabricEndpoint {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let token = self.ask(address, hello)?;
        if let Err(error) = self.settle(token, &address.to_string(), deadline_ns) {
            // With what it may have said before it ended: nobody knows it by this name.
            self.disconnect(PeerId(token));
            return Err(error);
        }
        Ok(PeerId(token))
    }

    fn begin_connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<Begun, FabricError> {
        let token = self.ask(address, hello)?;
        self.dials.insert(token, (address.to_string(), deadline_ns));
        Ok(Begun::Pending(PeerId(token)))
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let known = self.peers.get_mut(&peer.0).filter(|peer| matches!(peer.state, State::Up));
        let known = known.ok_or(SendError::Gone)?;
        let sent = match self.ways.of(parts.iter().map(|part| part.len()).sum()) {
            Some(Way::Message) => known.copy(parts, &mut self.spares),
            None => Err(SendError::TooLarge),
        };
        if sent == Err(SendError::Gone) {
            self.lose(peer.0);
        }
        sent
    }

    fn give(&mut self, peer: PeerId, given: Given) -> Result<Option<Given>, (SendError, Option<Given>)> {
        let known = self.peers.get_mut(&peer.0).filter(|peer| matches!(peer.state, State::Up));
        let Some(known) = known else { return Err((SendError::Gone, Some(given))) };
        let sent = match self.ways.of(given.iter().map(Vec::len).sum()) {
            Some(Way::Message) => known.give(given, &mut self.spares),
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
        self.events.retain(|came| came.peer() != peer.0);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.poller.waker()
    }
}

impl Member for LibfabricEndpoint {
    fn reaches(&self, address: &Address) -> bool {
        matches!(address, Address::Libfabric { .. })
    }

    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.poller.fd()
    }

    fn ready(&mut self) -> bool {
        // Without a connection there is only the listener, and its descriptor tells.
        if self.events.is_empty() && !self.peers.is_empty() {
            self.progress();
        }
        !self.events.is_empty() || std::mem::take(&mut self.room)
    }

    fn is_quiet(&self) -> bool {
        self.peers.is_empty() && self.events.is_empty()
    }

    fn before_sleep(&mut self) -> bool {
        if self.poller.take_woken() || !self.events.is_empty() {
            return false;
        }
        let idle = self.peers.is_empty() && self.listener.is_none();
        if idle || self.device.as_ref().is_none_or(Device::may_sleep) {
            return true;
        }
        // Something waits in the queues, and their descriptors will not tell of it again.
        self.progress();
        false
    }

    fn sleep(&mut self, timeout_ns: u64) -> bool {
        let mut ready = Vec::new();
        self.poller.poll(timeout_ns, &mut ready);
        if !ready.is_empty() {
            self.progress();
        }
        self.poller.take_woken()
    }

    fn after_sleep(&mut self) {}

    fn timer_ns(&self) -> u64 {
        let deadline = |peer: &Peer| match peer.state {
            State::Proving { deadline_ns, .. } => deadline_ns,
            _ => u64::MAX,
        };
        let dials = self.dials.values().map(|(_, deadline_ns)| *deadline_ns);
        self.peers.values().map(deadline).chain(dials).min().unwrap_or(u64::MAX)
    }
}
