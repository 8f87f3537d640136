//! Connecting over sockets without waiting: dialling, the proof, and what may come after it.
//!
//! Owns a connection from the first attempt until it is proved. Must never block, whatever the other side does or leaves undone: a
//! server that hangs may not hold up anybody's business with another one. (The name of a host is looked up in place; servers publish
//! numbers.)

use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, ipproto};

use crate::descriptor::Descriptor;
use crate::endpoint::{Event, PeerId};
use crate::handshake::{ANSWER_BYTES, Connecting, Credentials, HandshakeError, PROTOCOL_VERSION, fresh_nonce};
use crate::poller::Poller;
use crate::{Clock, FabricError, Hello, RealClock};

/// How long to leave a Unix socket alone whose backlog is full, in nanoseconds: it does not say when it no longer is.
const RETRY_NS: u64 = 1_000_000;

/// Where a socket is.
enum Place {
    Unix(SocketAddrUnix),
    Tcp(SocketAddr),
}

enum Stage {
    /// There is no connection; not before this time.
    Absent {
        retry_ns: u64,
    },
    /// The hello goes out, for a stream socket as soon as it is connected.
    Hello(Connecting),
    /// The answer comes in.
    Answer(Connecting, [u8; ANSWER_BYTES]),
    /// The confirmation goes out.
    Confirm,
    Proved,
}

/// A connection that is being made.
pub(crate) struct Dial {
    /// The address as errors name it.
    pub(crate) name: String,
    deadline_ns: u64,
    credentials: Credentials,
    channel: &'static [u8],
    hello: Hello,
    /// Where it may be, the next one first.
    places: VecDeque<Place>,
    socket: Option<Descriptor>,
    stage: Stage,
    /// Bytes to write, and how many of those or of the answer are done.
    out: Vec<u8>,
    done: usize,
    /// Why the last place was none.
    last: Option<FabricError>,
}

/// Whom to prove what to, and until when.
pub(crate) struct Terms<'a> {
    pub(crate) name: String,
    pub(crate) credentials: &'a Credentials,
    pub(crate) channel: &'static [u8],
    pub(crate) hello: &'a Hello,
    pub(crate) deadline_ns: u64,
}

impl Dial {
    /// Connects to a Unix socket whose owner is our own user.
    pub(crate) fn unix(path: &str, terms: Terms<'_>) -> Result<Self, FabricError> {
        let address = SocketAddrUnix::new(path).map_err(|source| io("socket path", &terms.name, source))?;
        Ok(Self::new(VecDeque::from([Place::Unix(address)]), terms))
    }

    /// Connects to `HOST:PORT`.
    pub(crate) fn tcp(host_port: &str, terms: Terms<'_>) -> Result<Self, FabricError> {
        let unreachable = |error: String| FabricError::Unreachable(terms.name.clone(), error);
        let found: VecDeque<Place> =
            host_port.to_socket_addrs().map_err(|error| unreachable(error.to_string()))?.map(Place::Tcp).collect();
        if found.is_empty() {
            return Err(unreachable("the name has no address".into()));
        }
        Ok(Self::new(found, terms))
    }

    fn new(places: VecDeque<Place>, terms: Terms<'_>) -> Self {
        Dial {
            name: terms.name,
            deadline_ns: terms.deadline_ns,
            credentials: terms.credentials.clone(),
            channel: terms.channel,
            hello: terms.hello.clone(),
            places,
            socket: None,
            stage: Stage::Absent { retry_ns: 0 },
            out: vec![],
            done: 0,
            last: None,
        }
    }

    pub(crate) fn io(&self, what: &str, source: impl Into<std::io::Error>) -> FabricError {
        io(what, &self.name, source)
    }

    pub(crate) fn refused(&self) -> FabricError {
        FabricError::Refused(self.name.clone())
    }

    /// When [`advance`](Self::advance) has something to do that no descriptor tells.
    pub(crate) fn timer_ns(&self) -> u64 {
        match self.stage {
            Stage::Absent { retry_ns } => retry_ns.min(self.deadline_ns),
            _ => self.deadline_ns,
        }
    }

    /// The socket, once it is connected.
    pub(crate) fn socket(&self) -> Option<&Descriptor> {
        self.socket.as_ref()
    }

    /// Gives the socket away, which is in no poller any more.
    pub(crate) fn into_socket(mut self, poller: &Poller) -> Option<Descriptor> {
        let socket = self.socket.take()?;
        poller.remove(&socket);
        Some(socket)
    }

    /// Goes on as far as that is possible now; the socket is watched under `token`. Whether the connection is proved.
    pub(crate) fn advance(&mut self, poller: &Poller, token: u64) -> Result<bool, FabricError> {
        while !matches!(self.stage, Stage::Proved) {
            if !self.step(poller, token)? {
                // What has arrived meanwhile counts: nobody may have driven us for a while.
                self.check_deadline()?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An error if it is too late.
    pub(crate) fn check_deadline(&self) -> Result<(), FabricError> {
        let is_late = RealClock.monotonic_ns() >= self.deadline_ns;
        if is_late { Err(FabricError::Deadline(self.name.clone())) } else { Ok(()) }
    }

    /// One stage; false: it has to wait.
    fn step(&mut self, poller: &Poller, token: u64) -> Result<bool, FabricError> {
        match std::mem::replace(&mut self.stage, Stage::Absent { retry_ns: 0 }) {
            Stage::Absent { retry_ns } if retry_ns > RealClock.monotonic_ns() => {
                self.stage = Stage::Absent { retry_ns };
                Ok(false)
            }
            Stage::Absent { .. } => self.connect(poller, token),
            Stage::Hello(connecting) => match self.write() {
                Ok(true) => {
                    (self.stage, self.done) = (Stage::Answer(connecting, [0; ANSWER_BYTES]), 0);
                    Ok(true)
                }
                Ok(false) => {
                    self.stage = Stage::Hello(connecting);
                    Ok(false)
                }
                // Nobody has heard us: there is no connection.
                Err(error) if self.done == 0 => self.next_place(error).map(|()| true),
                Err(error) => Err(self.ended(error)),
            },
            Stage::Answer(connecting, mut answer) => {
                let is_whole = self.read(&mut answer)?;
                if !is_whole {
                    self.stage = Stage::Answer(connecting, answer);
                    return Ok(false);
                }
                let confirm = connecting.answer(&answer).map_err(|error| self.handshake(error))?;
                (self.stage, self.out, self.done) = (Stage::Confirm, confirm.to_vec(), 0);
                Ok(true)
            }
            Stage::Confirm => {
                let is_out = self.write().map_err(|error| self.ended(error))?;
                self.stage = if is_out { Stage::Proved } else { Stage::Confirm };
                Ok(is_out)
            }
            Stage::Proved => {
                self.stage = Stage::Proved;
                Ok(true)
            }
        }
    }

    /// Begins to connect to the next place.
    fn connect(&mut self, poller: &Poller, token: u64) -> Result<bool, FabricError> {
        let none = || FabricError::Unreachable(self.name.clone(), "there is no such address".into());
        let Some(place) = self.places.front() else { return Err(self.last.take().unwrap_or_else(none)) };
        let (family, protocol) = match place {
            Place::Unix(_) => (AddressFamily::UNIX, None),
            Place::Tcp(SocketAddr::V4(_)) => (AddressFamily::INET, Some(ipproto::TCP)),
            Place::Tcp(SocketAddr::V6(_)) => (AddressFamily::INET6, Some(ipproto::TCP)),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, protocol)
            .map(|socket: OwnedFd| Descriptor::from(socket))
            .map_err(|error| self.io("making a socket for", error))?;
        let asked = match place {
            Place::Unix(address) => rustix::net::connect(&socket, address),
            Place::Tcp(address) => {
                rustix::net::sockopt::set_tcp_nodelay(&socket, true).map_err(|error| self.io("setting up", error))?;
                rustix::net::connect(&socket, address)
            }
        };
        match asked {
            // That of a Unix socket means that its backlog is full.
            Err(Errno::AGAIN | Errno::INTR) => {
                self.stage = Stage::Absent { retry_ns: RealClock.monotonic_ns() + RETRY_NS };
                return Ok(false);
            }
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return self.next_place(error).map(|()| true),
        }
        if matches!(place, Place::Unix(_)) {
            let owner = crate::socket::own_peer(socket.as_fd());
            owner.map_err(|error| self.io("asking the kernel about", error))?.ok_or_else(|| self.refused())?;
        }
        // Only after connecting: before it, a socket says that it is at its end.
        poller.add(&socket, token).map_err(|error| self.io("watching", error))?;
        self.socket = Some(socket);
        let nonce = fresh_nonce().map_err(|error| self.io("drawing a nonce for", error))?;
        let now_us = RealClock.unix_us();
        let (connecting, bytes) = Connecting::start(&self.credentials, self.channel, &self.hello, nonce, now_us);
        (self.stage, self.out, self.done) = (Stage::Hello(connecting), bytes.to_vec(), 0);
        Ok(true)
    }

    /// There is nobody at this place.
    fn next_place(&mut self, error: Errno) -> Result<(), FabricError> {
        self.socket = None;
        self.places.pop_front();
        let why = FabricError::Unreachable(self.name.clone(), error.to_string());
        if self.places.is_empty() {
            return Err(why);
        }
        (self.last, self.stage) = (Some(why), Stage::Absent { retry_ns: 0 });
        Ok(())
    }

    /// Writes on; whether all is written.
    fn write(&mut self) -> Result<bool, Errno> {
        let Some(socket) = &self.socket else { return Err(Errno::NOTCONN) };
        while self.done < self.out.len() {
            match rustix::net::send(socket, &self.out[self.done..], SendFlags::NOSIGNAL) {
                Ok(n) => self.done += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads on; whether `bytes` are there.
    fn read(&mut self, bytes: &mut [u8]) -> Result<bool, FabricError> {
        let Some(socket) = &self.socket else { return Err(self.refused()) };
        while self.done < bytes.len() {
            match rustix::net::recv(socket, &mut bytes[self.done..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(self.refused()),
                Ok((n, _)) => self.done += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.ended(error)),
            }
        }
        Ok(true)
    }

    /// What it means that a connection has ended in the middle of the proof.
    fn ended(&self, error: Errno) -> FabricError {
        match error {
            Errno::CONNRESET | Errno::PIPE => self.refused(),
            error => self.io("proving ourselves to", error),
        }
    }

    fn handshake(&self, error: HandshakeError) -> FabricError {
        match error {
            HandshakeError::Refused => self.refused(),
            HandshakeError::Version { theirs } => {
                FabricError::Version { address: self.name.clone(), theirs, ours: PROTOCOL_VERSION }
            }
        }
    }
}

fn io(what: &str, name: &str, source: impl Into<std::io::Error>) -> FabricError {
    FabricError::Io { context: format!("{what} {name}"), source: source.into() }
}

/// Takes what has become of a connection out of an endpoint's events.
pub(crate) fn take_outcome(events: &mut VecDeque<Event>, peer: PeerId) -> Option<Result<(), FabricError>> {
    let at = events.iter().position(|event| matches!(event, Event::Connected { peer: of, .. } if *of == peer))?;
    match events.remove(at) {
        Some(Event::Connected { outcome, .. }) => Some(outcome),
        _ => None,
    }
}
