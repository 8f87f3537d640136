//! Messages over stream sockets, Unix and TCP, driven by one thread.
//!
//! Owns its connections' buffers. Must never block in `send` or `recv`, and never hold more than [`OUTBOX_BYTES`] for a peer
//! that does not read. The control plane's listening side speaks the same over tokio: [`crate::handshake`] with
//! [`STREAM_CHANNEL`], then [`crate::frame`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::accept::{Accepted, Acceptor};
use crate::descriptor::Descriptor;
use crate::dial::{Dial, Terms, take_outcome};
use crate::endpoint::{MAX_MESSAGE_BYTES, Waker};
use crate::frame::{FrameDecoder, frame_header};
use crate::handshake::Credentials;
use crate::member::{Member, Patience, Spin};
use crate::poller::{Poller, Ready};
use crate::{Address, Begun, Clock, Endpoint, Event, FabricError, Hello, Message, PeerId, RealClock, SendError};

/// The handshake's channel on stream sockets.
pub const STREAM_CHANNEL: &[u8] = b"stream";
/// Most bytes that wait in us for one peer's socket to take them.
pub const OUTBOX_BYTES: usize = 4 * MAX_MESSAGE_BYTES;

const CHUNK_BYTES: usize = 64 * 1024;
/// The kernel takes at most this many pieces at once (IOV_MAX).
const SLICES_MAX: usize = 1024;

struct Connection {
    socket: Descriptor,
    decoder: FrameDecoder,
    /// Bytes read that the decoder has not seen.
    inbox: Vec<u8>,
    inbox_start: usize,
    /// Bytes that the socket has not taken.
    outbox: VecDeque<u8>,
    readable: bool,
    /// The last read took less than it had room for.
    drained: bool,
    /// The other side will send no more.
    hung_up: bool,
    /// A send was refused for lack of room and there has been none since.
    full: bool,
    closed: bool,
}

enum Read {
    Message(Vec<u8>),
    Nothing,
    Closed,
}

/// An endpoint over stream sockets. See the module's description.
pub struct StreamEndpoint {
    credentials: Credentials,
    node: String,
    poller: Poller,
    acceptor: Option<Acceptor>,
    connections: HashMap<u64, Connection>,
    /// Connections that are being made.
    dials: BTreeMap<u64, Dial>,
    /// Connections that may have something to read, in turn.
    readable: VecDeque<u64>,
    events: VecDeque<Event>,
    next_token: u64,
    room: bool,
    spin: Spin,
    patience: Patience,
}

impl StreamEndpoint {
    /// An endpoint that can connect.
    pub fn new(credentials: &Credentials, spin: Spin) -> Result<Self, FabricError> {
        let context = "making an epoll descriptor".to_owned();
        let poller = Poller::new().map_err(|source| FabricError::Io { context, source })?;
        Ok(StreamEndpoint {
            credentials: credentials.clone(),
            node: crate::node::node_id(),
            poller,
            acceptor: None,
            connections: HashMap::new(),
            dials: BTreeMap::new(),
            readable: VecDeque::new(),
            events: VecDeque::new(),
            next_token: 1,
            room: false,
            spin,
            patience: Patience::default(),
        })
    }

    /// Also listens, on `HOST:PORT`; gives the address to publish.
    pub fn listen_tcp(&mut self, host_port: &str) -> Result<Address, FabricError> {
        let (acceptor, bound) = Acceptor::tcp(host_port, &self.credentials, STREAM_CHANNEL, &self.poller)?;
        self.acceptor = Some(acceptor);
        Ok(Address::Tcp { host_port: bound })
    }

    /// Also listens, on a Unix socket; gives the address to publish.
    pub fn listen_unix(&mut self, path: &str) -> Result<Address, FabricError> {
        self.acceptor = Some(Acceptor::unix(path, &self.credentials, STREAM_CHANNEL, &self.poller)?);
        Ok(Address::Unix { node: self.node.clone(), path: path.to_owned() })
    }

    /// Whether the system has taken all that was sent to `peer`: disconnecting before loses the rest.
    pub fn idle(&self, peer: PeerId) -> bool {
        self.connections.get(&peer.0).is_none_or(|connection| connection.outbox.is_empty())
    }

    fn adopt(&mut self, token: u64, socket: Descriptor) -> std::io::Result<()> {
        self.poller.add(&socket, token)?;
        let connection = Connection {
            socket,
            decoder: FrameDecoder::default(),
            inbox: Vec::new(),
            inbox_start: 0,
            outbox: VecDeque::new(),
            readable: false,
            drained: false,
            hung_up: false,
            full: false,
            closed: false,
        };
        self.connections.insert(token, connection);
        Ok(())
    }

    /// Looks at the sockets, sleeping for up to `timeout_ns`.
    fn collect(&mut self, timeout_ns: u64) {
        let mut ready = Vec::new();
        self.poller.poll(timeout_ns, &mut ready);
        for one in ready {
            self.handle(one);
        }
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
        if let Some(connection) = self.connections.get_mut(&ready.token) {
            if ready.writable {
                connection.flush();
                if connection.full && connection.outbox.len() < OUTBOX_BYTES / 2 {
                    connection.full = false;
                    self.room = true;
                }
            }
            connection.hung_up |= ready.hung_up;
            connection.drained = false;
            if (ready.readable || ready.hung_up) && !connection.readable {
                connection.readable = true;
                self.readable.push_back(ready.token);
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
            if self.adopt(token, socket).is_ok() {
                self.events.push_back(Event::Up { peer: PeerId(token), hello, local });
            }
        }
    }

    fn next_message(&mut self) -> Option<Event> {
        while let Some(token) = self.readable.pop_front() {
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            match connection.read() {
                Read::Message(bytes) => {
                    self.readable.push_back(token);
                    return Some(Event::Message { peer: PeerId(token), message: Message::Owned(bytes) });
                }
                Read::Nothing => connection.readable = false,
                Read::Closed => {
                    self.connections.remove(&token);
                    return Some(Event::Down { peer: PeerId(token) });
                }
            }
        }
        None
    }

    /// Goes on with a connection that is being made.
    fn go_on(&mut self, token: u64) {
        let Some(mut dial) = self.dials.remove(&token) else { return };
        let outcome = match dial.advance(&self.poller, token) {
            Ok(false) => {
                self.dials.insert(token, dial);
                return;
            }
            Ok(true) => {
                let name = dial.name.clone();
                let adopted = dial.into_socket(&self.poller).map_or(Ok(()), |socket| self.adopt(token, socket));
                adopted.map_err(|source| FabricError::Io { context: format!("watching {name}"), source })
            }
            Err(error) => Err(error),
        };
        self.events.push_back(Event::Connected { peer: PeerId(token), outcome });
    }

    fn dial(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let (name, channel) = (address.to_string(), STREAM_CHANNEL);
        let terms = Terms { name, credentials: &self.credentials, channel, hello, deadline_ns };
        let dial = match address {
            Address::Tcp { host_port } => Dial::tcp(host_port, terms)?,
            Address::Unix { node, path } if *node == self.node => Dial::unix(path, terms)?,
            Address::Unix { .. } => return Err(unreachable(address, "it is on another node")),
            _ => return Err(unreachable(address, "it is not a stream socket")),
        };
        let token = take(&mut self.next_token);
        self.dials.insert(token, dial);
        self.go_on(token);
        Ok(PeerId(token))
    }
}

pub(crate) fn take(next_token: &mut u64) -> u64 {
    *next_token += 1;
    *next_token - 1
}

pub(crate) fn unreachable(address: &Address, why: &str) -> FabricError {
    FabricError::Unreachable(address.to_string(), why.to_owned())
}

impl Connection {
    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            let (front, back) = self.outbox.as_slices();
            match send_some(&self.socket, &[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(0) => return,
                Ok(n) => drop(self.outbox.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // The reading side reports the end, after what came before it.
                    self.closed = true;
                    self.outbox.clear();
                }
            }
        }
    }

    fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let message_bytes = parts.iter().map(|part| part.len()).sum();
        let header = frame_header(message_bytes, MAX_MESSAGE_BYTES).map_err(|_| SendError::TooLarge)?;
        if self.closed {
            return Err(SendError::Gone);
        }
        if !self.outbox.is_empty() && self.outbox.len() + message_bytes + header.len() > OUTBOX_BYTES {
            self.full = true;
            return Err(SendError::Full);
        }
        let mut slices = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&header));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let mut sent = 0;
        if self.outbox.is_empty() {
            match send_some(&self.socket, &slices[..slices.len().min(SLICES_MAX)]) {
                Ok(n) => sent = n,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    self.closed = true;
                    return Err(SendError::Gone);
                }
            }
        }
        for slice in slices {
            let skip = sent.min(slice.len());
            sent -= skip;
            self.outbox.extend(&slice[skip..]);
        }
        self.flush();
        Ok(())
    }

    fn read(&mut self) -> Read {
        loop {
            let mut rest = &self.inbox[self.inbox_start..];
            let before = rest.len();
            let decoded = self.decoder.push(&mut rest);
            self.inbox_start += before - rest.len();
            match decoded {
                Ok(Some(message)) => return Read::Message(message),
                Ok(None) => {}
                Err(_) => return Read::Closed,
            }
            // A short read emptied the socket: what comes next has an edge of its own.
            if std::mem::take(&mut self.drained) && !self.hung_up {
                return Read::Nothing;
            }
            // Everything read was decoded. A large body is read in place, the rest in chunks.
            self.inbox_start = 0;
            let in_place = self.decoder.space().len() >= CHUNK_BYTES;
            let target = if in_place {
                self.inbox.clear();
                self.decoder.space()
            } else {
                self.inbox.resize(CHUNK_BYTES, 0);
                &mut self.inbox[..]
            };
            let room = target.len();
            let got = rustix::net::recv(&self.socket, target, RecvFlags::empty());
            let n = got.as_ref().map_or(0, |(n, _)| *n);
            self.drained = n > 0 && n < room;
            if !in_place {
                self.inbox.truncate(n);
            }
            match got {
                Ok((0, _)) => return Read::Closed,
                Ok((n, _)) if in_place => match self.decoder.advance(n) {
                    Ok(Some(message)) => return Read::Message(message),
                    Ok(None) => {}
                    Err(_) => return Read::Closed,
                },
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Read::Nothing,
                Err(_) => return Read::Closed,
            }
        }
    }
}

fn send_some(socket: &Descriptor, slices: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
    rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
}

impl Endpoint for StreamEndpoint {
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
        self.connections.get_mut(&peer.0).ok_or(SendError::Gone)?.send(parts)
    }

    fn recv(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(event) = self.next_message() {
            return Some(event);
        }
        if self.connections.is_empty() && self.dials.is_empty() && self.acceptor.is_none() {
            return None;
        }
        self.collect(0);
        self.events.pop_front().or_else(|| self.next_message())
    }

    fn wait(&mut self, deadline_ns: u64) {
        let (spin, mut patience) = (self.spin, self.patience);
        crate::member::wait(self, spin, &mut patience, deadline_ns);
        self.patience = patience;
    }

    fn disconnect(&mut self, peer: PeerId) {
        if let Some(mut connection) = self.connections.remove(&peer.0) {
            connection.flush();
        }
        self.dials.remove(&peer.0);
        take_outcome(&mut self.events, peer);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.poller.waker()
    }
}

impl Member for StreamEndpoint {
    fn reaches(&self, address: &Address) -> bool {
        matches!(address, Address::Tcp { .. } | Address::Unix { .. })
    }

    fn wait_fd(&self) -> BorrowedFd<'_> {
        self.poller.fd()
    }

    fn ready(&mut self) -> bool {
        !self.events.is_empty() || !self.readable.is_empty() || std::mem::take(&mut self.room)
    }

    fn is_quiet(&self) -> bool {
        self.events.is_empty() && self.readable.is_empty() && !self.room && self.dials.is_empty()
    }

    fn before_sleep(&mut self) -> bool {
        !self.poller.take_woken() && !self.ready()
    }

    fn sleep(&mut self, timeout_ns: u64) -> bool {
        self.collect(timeout_ns);
        self.poller.take_woken()
    }

    fn after_sleep(&mut self) {}

    fn timer_ns(&self) -> u64 {
        let dials = self.dials.values().map(Dial::timer_ns).min().unwrap_or(u64::MAX);
        self.acceptor.as_ref().map_or(u64::MAX, Acceptor::timer_ns).min(dials)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let listener = self.acceptor.iter().map(|acceptor| acceptor.listener().as_raw_fd());
        listener.chain(self.connections.values().map(|connection| connection.socket.as_raw_fd())).collect()
    }
}
