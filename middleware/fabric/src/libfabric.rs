//! Messages between nodes through libfabric: connected endpoints of its `tcp` provider.
//!
//! Owns one libfabric domain with one event queue and one completion queue, and the proof that each connection gives:
//! the hello travels as the parameter of the connection request, the answer as that of its acceptance, the confirmation is
//! the first message. Must never accept, or answer other than by libfabric's bare refusal, a request whose MAC is wrong.
//!
//! Connected endpoints (`FI_EP_MSG`) rather than reliable datagrams (`FI_EP_RDM`): their end is an event, so that a peer's
//! death is noticed, and a stranger can address nothing but the listener. Nothing is loaded before the first use, and one
//! blocks on the queues' descriptors only after `fi_trywait` allowed it.

mod assembly;
mod device;
mod peer;
mod signals;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use crate::endpoint::Waker;
use crate::handshake::{
    ANSWER_BYTES, Accepting, CONFIRM_BYTES, Connecting, Credentials, HELLO_BYTES, HandshakeError, PROTOCOL_VERSION,
    Verdict, fresh_nonce,
};
use crate::member::{Member, Patience, Spin};
use crate::poller::Poller;
use crate::stream::{take, unreachable};
use crate::{Address, Clock, Endpoint, Event, FabricError, Hello, Message, PeerId, RealClock, SendError};
use assembly::{Assembly, Broken};
use device::{Active, Connection, Device, Info, Listener, PROVIDER, Want, loaded};
use peer::{Context, Peer, State};

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
    events: VecDeque<Event>,
    next_token: u64,
    room: bool,
    spin: Spin,
    patience: Patience,
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
            events: VecDeque::new(),
            next_token: 1,
            room: false,
            spin,
            patience: Patience::default(),
        })
    }

    /// Also listens, on the interface with this address; gives the address to publish.
    pub fn listen(&mut self, interface: &str) -> Result<Address, FabricError> {
        let info = Info::get(loaded()?, &Want::Listen(interface)).map_err(|error| {
            let why =
                format!("its provider {PROVIDER} does not serve {interface} ({error}); FI_PROVIDER may exclude it");
            FabricError::Unsupported("libfabric", why)
        })?;
        self.open(&info)?;
        let device = self.device.as_ref().ok_or(FabricError::Unsupported("libfabric", "not open".into()))?;
        let listener = Listener::open(device, &info)?;
        let name = listener.name()?;
        self.listener = Some(listener);
        Ok(Address::Libfabric { provider: PROVIDER.to_owned(), name })
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
        self.complete();
        while let Some(event) = self.device.as_ref().and_then(Device::event) {
            self.connection_event(event);
        }
        self.complete();
        let backlogs: Vec<u64> = self.peers.iter().filter(|(_, peer)| peer.has_backlog()).map(|(t, _)| *t).collect();
        for token in backlogs {
            if self.peers.get_mut(&token).is_some_and(|peer| peer.flush().is_err()) {
                self.lose(token);
            }
        }
        if self.peers.values().any(|peer| matches!(peer.state, State::Proving { .. })) {
            let now_ns = RealClock.monotonic_ns();
            self.drop_proving(|deadline_ns| deadline_ns <= now_ns);
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
                self.room |= peer.sent(index);
                peer.flush()
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
                if let Some(message) = peer.chunk(index, bytes)? {
                    let message = Message::Owned(message);
                    self.events.push_back(Event::Message { peer: PeerId(token), message });
                }
            }
            State::Proving { accepting, deadline_ns } => {
                // Put back, so that a wrong confirmation ends a stranger and not a peer.
                let arrived: Option<[u8; CONFIRM_BYTES]> =
                    peer.arrived(index, bytes).and_then(|bytes| bytes.try_into().ok());
                let proved = arrived.ok_or(HandshakeError::Refused).and_then(|bytes| accepting.clone().confirm(&bytes));
                match proved {
                    Ok(hello) => {
                        self.events.push_back(Event::Up { peer: PeerId(token), hello, local: false });
                    }
                    Err(_) => {
                        peer.state = State::Proving { accepting, deadline_ns };
                        return Err(Broken);
                    }
                }
            }
            state => {
                peer.state = state;
                return Err(Broken);
            }
        }
        peer.give_back(index)
    }

    fn connection_event(&mut self, event: Connection) {
        match event {
            Connection::Requested { info, param } => self.requested(&info, &param),
            Connection::Connected { ep, param } => {
                let Some(&token) = self.tokens.get(&ep) else { return };
                let Some(peer) = self.peers.get_mut(&token) else { return };
                if let State::Connecting(connecting) = &peer.state {
                    let settled = answered(connecting, &param).and_then(|confirm| {
                        peer.send_raw(&confirm).map_err(|Broken| FabricError::Refused(String::new()))
                    });
                    peer.state = State::Settled(settled);
                }
            }
            Connection::Ended { ep } => {
                // What arrived before the end comes before it.
                self.complete();
                if let Some(&token) = self.tokens.get(&ep) {
                    self.lose(token);
                }
            }
            Connection::Failed { ep, code, param } => {
                let Some(&token) = self.tokens.get(&ep) else { return };
                let Some(peer) = self.peers.get_mut(&token) else { return };
                let State::Connecting(connecting) = &peer.state else { return self.lose(token) };
                let failed = match answered(connecting, &param) {
                    Err(error @ FabricError::Version { .. }) => error,
                    _ if code == libc::ECONNREFUSED => FabricError::Refused(String::new()),
                    _ => match &self.device {
                        Some(device) => FabricError::Unreachable(String::new(), device.lib().explain(code.into())),
                        None => FabricError::Refused(String::new()),
                    },
                };
                peer.state = State::Settled(Err(failed));
            }
        }
    }

    /// Judges a connection request: the parameter is the hello.
    fn requested(&mut self, info: &Info, param: &[u8]) {
        let Some(listener) = &self.listener else { return };
        // Providers may pad parameters.
        let hello: Option<[u8; HELLO_BYTES]> = param.get(..HELLO_BYTES).and_then(|bytes| bytes.try_into().ok());
        let nonce = fresh_nonce().ok();
        let verdict = hello.zip(nonce).and_then(|(hello, nonce)| {
            Accepting::hello(&self.credentials, LIBFABRIC_CHANNEL, &hello, nonce, RealClock.unix_us()).ok()
        });
        match verdict {
            None => listener.reject(info, &[]),
            Some(Verdict::ForeignVersion { answer, .. }) => listener.reject(info, &answer),
            Some(Verdict::Proceed(accepting, answer)) => {
                if self.accept(info, accepting, &answer).is_err()
                    && let Some(listener) = &self.listener
                {
                    listener.reject(info, &[]);
                }
            }
        }
    }

    fn accept(&mut self, info: &Info, accepting: Accepting, answer: &[u8]) -> Result<(), FabricError> {
        let proving = self.peers.values().filter(|peer| matches!(peer.state, State::Proving { .. })).count();
        if proving >= PROVING_MAX {
            let oldest = self.peers.iter().find(|(_, peer)| matches!(peer.state, State::Proving { .. }));
            if let Some(token) = oldest.map(|(token, _)| *token) {
                self.remove(token);
            }
        }
        let deadline_ns = RealClock.monotonic_ns() + PROOF_NS;
        let token = self.adopt(info, State::Proving { accepting, deadline_ns })?;
        let accepted = self.peers.get(&token).map_or(Ok(()), |peer| peer.active.accept(answer));
        if accepted.is_err() {
            self.remove(token);
        }
        // A failure to accept has used the request up; only one before may still be refused.
        Ok(())
    }

    fn adopt(&mut self, info: &Info, state: State) -> Result<u64, FabricError> {
        let device = self.device.as_ref().ok_or(FabricError::Unsupported("libfabric", "not open".into()))?;
        let active = Active::open(device, info)?;
        let token = take(&mut self.next_token);
        let id = active.id();
        let peer = Peer::new(active, state, token).map_err(|code| device::failure(device.lib(), "fi_recv", code))?;
        self.tokens.insert(id, token);
        self.peers.insert(token, peer);
        Ok(token)
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
                self.remove(token);
                self.events.push_back(Event::Down { peer: PeerId(token) });
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

    /// Works until the connection `token` is settled.
    fn settle(&mut self, token: u64, name: &str, deadline_ns: u64) -> Result<(), FabricError> {
        loop {
            self.progress();
            let peer = self.peers.get_mut(&token).ok_or_else(|| FabricError::Refused(name.to_owned()))?;
            if let State::Settled(_) = peer.state {
                let State::Settled(settled) = std::mem::replace(&mut peer.state, State::Up) else { return Ok(()) };
                return settled.map_err(|error| named(error, name));
            }
            let now_ns = RealClock.monotonic_ns();
            if now_ns >= deadline_ns {
                return Err(FabricError::Deadline(name.to_owned()));
            }
            if self.device.as_ref().is_some_and(Device::may_sleep) {
                let mut ready = Vec::new();
                self.poller.poll(deadline_ns - now_ns, &mut ready);
            }
        }
    }
}

/// Feeds `bytes` to the decoder of chunks, cut by their own content.
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut assembly = Assembly::default();
    let mut rest = bytes;
    while let Some((len, later)) = rest.split_first() {
        let (chunk, later) = later.split_at(usize::from(*len).min(later.len()));
        rest = later;
        if assembly.take(chunk).is_err() {
            return;
        }
    }
}

/// Puts the address into an error that was made where it was not known.
fn named(error: FabricError, name: &str) -> FabricError {
    let name = name.to_owned();
    match error {
        FabricError::Refused(_) => FabricError::Refused(name),
        FabricError::Unreachable(_, why) => FabricError::Unreachable(name, why),
        FabricError::Version { theirs, ours, .. } => FabricError::Version { address: name, theirs, ours },
        other => other,
    }
}

/// Judges the answer in the parameter of an acceptance or refusal.
fn answered(connecting: &Connecting, param: &[u8]) -> Result<[u8; CONFIRM_BYTES], FabricError> {
    let answer = param.get(..ANSWER_BYTES).and_then(|bytes| bytes.try_into().ok());
    let answer = answer.ok_or_else(|| FabricError::Refused(String::new()))?;
    connecting.answer(&answer).map_err(|error| match error {
        HandshakeError::Refused => FabricError::Refused(String::new()),
        HandshakeError::Version { theirs } => {
            FabricError::Version { address: String::new(), theirs, ours: PROTOCOL_VERSION }
        }
    })
}

impl Endpoint for LibfabricEndpoint {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let Address::Libfabric { provider, name } = address else {
            return Err(unreachable(address, "it is not a libfabric endpoint"));
        };
        if provider != PROVIDER {
            return Err(unreachable(address, "this build connects by the provider tcp only"));
        }
        let info = Info::get(loaded()?, &Want::Connect(name))
            .map_err(|error| FabricError::Unreachable(address.to_string(), error.to_string()))?;
        self.open(&info)?;
        let context = |source| FabricError::Io { context: format!("drawing a nonce for {address}"), source };
        let nonce = fresh_nonce().map_err(context)?;
        let (connecting, bytes) =
            Connecting::start(&self.credentials, LIBFABRIC_CHANNEL, hello, nonce, RealClock.unix_us());
        let token = self.adopt(&info, State::Connecting(connecting))?;
        let asked = self.peers.get(&token).map_or(Ok(()), |peer| peer.active.connect(&info, &bytes));
        let settled = asked.and_then(|()| self.settle(token, &address.to_string(), deadline_ns));
        if let Err(error) = settled {
            // With what it may have said before it ended: nobody knows it by this name.
            self.disconnect(PeerId(token));
            return Err(error);
        }
        Ok(PeerId(token))
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let known = self.peers.get_mut(&peer.0).filter(|peer| matches!(peer.state, State::Up));
        let sent = known.ok_or(SendError::Gone)?.send(parts);
        if sent == Err(SendError::Gone) {
            self.lose(peer.0);
        }
        sent
    }

    fn recv(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.progress();
        }
        self.events.pop_front()
    }

    fn wait(&mut self, deadline_ns: u64) {
        let (spin, mut patience) = (self.spin, self.patience);
        crate::member::wait(self, spin, &mut patience, deadline_ns);
        self.patience = patience;
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.remove(peer.0);
        self.events.retain(|event| {
            !matches!(event,
                Event::Up { peer: of, .. } | Event::Message { peer: of, .. } | Event::Down { peer: of } if *of == peer)
        });
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
        self.peers.values().map(deadline).min().unwrap_or(u64::MAX)
    }

    /// None: libfabric keeps its descriptors to itself (they are close-on-exec).
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }
}
