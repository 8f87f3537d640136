//! The listening side of sockets: accepting, the proof, and nothing to strangers.
//!
//! Owns connections until they have proved themselves. Must never answer, allocate for or wait on a stranger: each has one
//! small fixed buffer, a deadline, and one of a bounded number of places, of which the oldest goes first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::descriptor::Descriptor;
use crate::handshake::{Accepting, CONFIRM_BYTES, Credentials, HELLO_BYTES, Verdict, fresh_nonce};
use crate::poller::{LISTEN_TOKEN, Poller, Ready};
use crate::{Clock, FabricError, Hello, RealClock};

/// How long a connection may take to prove itself, in nanoseconds.
const PROOF_NS: u64 = 5_000_000_000;
/// How many may be at it at a time.
const PROVING_MAX: usize = 256;
/// How long to leave the listener alone after the process ran out of descriptors, in nanoseconds.
const RETRY_NS: u64 = 100_000_000;

/// A connection that has proved itself; its socket is in no poller.
pub(crate) struct Accepted {
    pub(crate) socket: Descriptor,
    pub(crate) hello: Hello,
    pub(crate) local: bool,
}

enum Stage {
    Hello([u8; HELLO_BYTES]),
    Confirm([u8; CONFIRM_BYTES], Accepting),
}

struct Proving {
    socket: Descriptor,
    /// The kernel's word on a Unix socket.
    pid: Option<u32>,
    deadline_ns: u64,
    filled: usize,
    stage: Stage,
}

pub(crate) struct Acceptor {
    listener: Descriptor,
    /// To be removed with the acceptor.
    path: Option<String>,
    credentials: Credentials,
    channel: &'static [u8],
    proving: BTreeMap<u64, Proving>,
    retry_ns: u64,
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_ref().filter(|_| !self.listener.is_foreign()) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Acceptor {
    /// Listens on a Unix socket that only our own user may use. A dead socket at `path` is replaced, a live one is an error.
    pub(crate) fn unix(
        path: &str,
        credentials: &Credentials,
        channel: &'static [u8],
        poller: &Poller,
    ) -> Result<Self, FabricError> {
        let context = |source: io::Error| FabricError::Io { context: format!("listening on {path}"), source };
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                return Err(context(io::ErrorKind::AddrInUse.into()));
            }
            fs::remove_file(path).map_err(context)?;
        }
        let listener = UnixListener::bind(path).map_err(context)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(context)?;
        listener.set_nonblocking(true).map_err(context)?;
        let acceptor = Self::new(OwnedFd::from(listener).into(), Some(path.to_owned()), credentials, channel);
        poller.add(&acceptor.listener, LISTEN_TOKEN).map_err(context)?;
        Ok(acceptor)
    }

    /// Listens on `HOST:PORT`; port 0 lets the system choose. Gives the address that it got.
    pub(crate) fn tcp(
        host_port: &str,
        credentials: &Credentials,
        channel: &'static [u8],
        poller: &Poller,
    ) -> Result<(Self, String), FabricError> {
        let context = |source: io::Error| FabricError::Io { context: format!("listening on {host_port}"), source };
        let listener = TcpListener::bind(host_port).map_err(context)?;
        listener.set_nonblocking(true).map_err(context)?;
        let bound = listener.local_addr().map_err(context)?.to_string();
        let acceptor = Self::new(OwnedFd::from(listener).into(), None, credentials, channel);
        poller.add(&acceptor.listener, LISTEN_TOKEN).map_err(context)?;
        Ok((acceptor, bound))
    }

    fn new(listener: Descriptor, path: Option<String>, credentials: &Credentials, channel: &'static [u8]) -> Self {
        let credentials = credentials.clone();
        Acceptor { listener, path, credentials, channel, proving: BTreeMap::new(), retry_ns: u64::MAX }
    }

    /// Handles the readiness of the listener or of a proving connection. `next_token` gives names to new connections; what
    /// has proved itself goes to `out` under its name.
    pub(crate) fn handle(
        &mut self,
        ready: Ready,
        poller: &Poller,
        next_token: &mut dyn FnMut() -> u64,
        out: &mut Vec<(u64, Accepted)>,
    ) {
        if ready.token == LISTEN_TOKEN {
            self.accept(poller, next_token);
        } else if let Some(mut proving) = self.proving.remove(&ready.token) {
            match self.advance(&mut proving) {
                Ok(None) => {
                    self.proving.insert(ready.token, proving);
                }
                Ok(Some(mut hello)) => {
                    poller.remove(&proving.socket);
                    hello.pid = proving.pid.unwrap_or(hello.pid);
                    out.push((ready.token, Accepted { socket: proving.socket, hello, local: proving.pid.is_some() }));
                }
                Err(Closed) => {}
            }
        }
    }

    /// Drops who took too long, and looks at the listener again after a failure.
    pub(crate) fn expire(&mut self, now_ns: u64, poller: &Poller, next_token: &mut dyn FnMut() -> u64) {
        self.proving.retain(|_, proving| proving.deadline_ns > now_ns);
        if self.retry_ns <= now_ns {
            self.accept(poller, next_token);
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(crate) fn timer_ns(&self) -> u64 {
        self.proving.values().next().map_or(u64::MAX, |oldest| oldest.deadline_ns).min(self.retry_ns)
    }

    pub(crate) fn listener(&self) -> &Descriptor {
        &self.listener
    }

    fn accept(&mut self, poller: &Poller, next_token: &mut dyn FnMut() -> u64) {
        self.retry_ns = u64::MAX;
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => Descriptor::from(socket),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(_) => {
                    self.retry_ns = RealClock.monotonic_ns() + RETRY_NS;
                    return;
                }
            };
            let pid = if self.path.is_some() {
                let Ok(Some(pid)) = crate::socket::own_peer(socket.as_fd()) else { continue };
                Some(pid)
            } else {
                let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
                None
            };
            let token = next_token();
            if poller.add(&socket, token).is_err() {
                continue;
            }
            while self.proving.len() >= PROVING_MAX {
                self.proving.pop_first();
            }
            let deadline_ns = RealClock.monotonic_ns() + PROOF_NS;
            let stage = Stage::Hello([0; HELLO_BYTES]);
            self.proving.insert(token, Proving { socket, pid, deadline_ns, filled: 0, stage });
        }
    }

    /// Reads on; gives the hello once it is proved and confirmed.
    fn advance(&self, proving: &mut Proving) -> Result<Option<Hello>, Closed> {
        loop {
            let buffer: &mut [u8] = match &mut proving.stage {
                Stage::Hello(buffer) => buffer,
                Stage::Confirm(buffer, _) => buffer,
            };
            match rustix::net::recv(&proving.socket, &mut buffer[proving.filled..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(Closed),
                Ok((n, _)) => proving.filled += n,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Closed),
            }
            if proving.filled < buffer.len() {
                continue;
            }
            proving.filled = 0;
            match std::mem::replace(&mut proving.stage, Stage::Hello([0; HELLO_BYTES])) {
                Stage::Hello(bytes) => proving.stage = self.answer(&proving.socket, &bytes)?,
                Stage::Confirm(bytes, accepting) => return accepting.confirm(&bytes).map(Some).map_err(|_| Closed),
            }
        }
    }

    fn answer(&self, socket: &Descriptor, bytes: &[u8; HELLO_BYTES]) -> Result<Stage, Closed> {
        let nonce = fresh_nonce().map_err(|_| Closed)?;
        let now_us = RealClock.unix_us();
        let verdict = Accepting::hello(&self.credentials, self.channel, bytes, nonce, now_us).map_err(|_| Closed)?;
        let (answer, stage) = match verdict {
            Verdict::Proceed(accepting, answer) => (answer, Ok(Stage::Confirm([0; CONFIRM_BYTES], accepting))),
            Verdict::ForeignVersion { answer, .. } => (answer, Err(Closed)),
        };
        // The socket's buffer is empty and takes the few bytes at once, or the other side plays tricks.
        match rustix::net::send(socket, &answer, SendFlags::NOSIGNAL) {
            Ok(n) if n == answer.len() => stage,
            _ => Err(Closed),
        }
    }
}

/// The connection is dropped, without a word.
struct Closed;
