//! Sockets as streams and rings need them: dialling with a deadline, the kernel's word about a peer, the proof.
//!
//! Must never raise SIGPIPE in the program that carries us, never leave a descriptor to an exec, never block past a deadline.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::handshake::{ANSWER_BYTES, Connecting, Credentials, HandshakeError, PROTOCOL_VERSION, fresh_nonce};
use crate::{Clock, FabricError, Hello, RealClock};

/// Whom we are dialling, until when, and what must go on meanwhile.
pub(crate) struct Dial<'a> {
    /// The address as errors name it.
    pub(crate) name: String,
    pub(crate) deadline_ns: u64,
    /// A descriptor to watch meanwhile, and what to do when it is readable: two endpoints may dial each other.
    pub(crate) beside: Option<(OwnedFd, &'a mut dyn FnMut())>,
}

impl Dial<'_> {
    pub(crate) fn io(&self, what: &str, source: impl Into<io::Error>) -> FabricError {
        FabricError::Io { context: format!("{what} {}", self.name), source: source.into() }
    }

    /// Waits until `socket` is ready for `flags`.
    pub(crate) fn wait(&mut self, socket: BorrowedFd<'_>, flags: PollFlags) -> Result<(), FabricError> {
        loop {
            let left_ns = self.deadline_ns.saturating_sub(RealClock.monotonic_ns());
            if left_ns == 0 {
                return Err(FabricError::Deadline(self.name.clone()));
            }
            let timeout = timespec(left_ns);
            let mut fds = vec![PollFd::from_borrowed_fd(socket, flags)];
            if let Some((beside, _)) = &self.beside {
                fds.push(PollFd::new(beside, PollFlags::IN));
            }
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.io("waiting for", error)),
            }
            let (ours, pump) = (!fds[0].revents().is_empty(), fds.len() > 1 && !fds[1].revents().is_empty());
            if pump && let Some((_, run)) = &mut self.beside {
                run();
            }
            if ours {
                return Ok(());
            }
        }
    }

    pub(crate) fn read_exact(&mut self, socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(), FabricError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::net::recv(socket, &mut bytes[filled..], RecvFlags::empty()) {
                Ok((0, _)) | Err(Errno::CONNRESET | Errno::PIPE) => {
                    return Err(FabricError::Refused(self.name.clone()));
                }
                Ok((n, _)) => filled += n,
                Err(Errno::AGAIN) => self.wait(socket, PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.io("reading from", error)),
            }
        }
        Ok(())
    }

    fn write_all(&mut self, socket: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), FabricError> {
        while !bytes.is_empty() {
            match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::AGAIN) => self.wait(socket, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(FabricError::Refused(self.name.clone())),
                Err(error) => return Err(self.io("writing to", error)),
            }
        }
        Ok(())
    }

    /// Connects to a Unix socket whose owner is our own user.
    pub(crate) fn unix(&mut self, path: &str) -> Result<OwnedFd, FabricError> {
        let address = SocketAddrUnix::new(path).map_err(|error| self.io("socket path", error))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| self.io("making a socket for", error))?;
        loop {
            match rustix::net::connect(&socket, &address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                // The backlog is full: a Unix socket does not say when it no longer is.
                Err(Errno::AGAIN) => {
                    if RealClock.monotonic_ns() >= self.deadline_ns {
                        return Err(FabricError::Deadline(self.name.clone()));
                    }
                    if let Some((_, run)) = &mut self.beside {
                        run();
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(FabricError::Unreachable(self.name.clone(), error.to_string())),
            }
        }
        match own_peer(socket.as_fd()) {
            Ok(Some(_)) => Ok(socket),
            Ok(None) => Err(FabricError::Refused(self.name.clone())),
            Err(error) => Err(self.io("asking the kernel about", error)),
        }
    }

    /// Connects to `HOST:PORT`.
    pub(crate) fn tcp(&mut self, host_port: &str) -> Result<OwnedFd, FabricError> {
        let unreachable = |name: &str, error: String| FabricError::Unreachable(name.to_owned(), error);
        let resolved: Vec<SocketAddr> =
            host_port.to_socket_addrs().map_err(|error| unreachable(&self.name, error.to_string()))?.collect();
        let mut last = unreachable(&self.name, "the name has no address".into());
        for address in resolved {
            let left_ns = self.deadline_ns.saturating_sub(RealClock.monotonic_ns());
            if left_ns == 0 {
                return Err(FabricError::Deadline(self.name.clone()));
            }
            match TcpStream::connect_timeout(&address, Duration::from_nanos(left_ns)) {
                Ok(stream) => {
                    stream.set_nonblocking(true).map_err(|error| self.io("setting up", error))?;
                    stream.set_nodelay(true).map_err(|error| self.io("setting up", error))?;
                    return Ok(stream.into());
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    last = FabricError::Deadline(self.name.clone());
                }
                Err(error) => last = unreachable(&self.name, error.to_string()),
            }
        }
        Err(last)
    }

    /// Proves us to the listening side and it to us, over a fresh nonblocking socket.
    pub(crate) fn prove(
        &mut self,
        socket: BorrowedFd<'_>,
        credentials: &Credentials,
        channel: &[u8],
        hello: &Hello,
    ) -> Result<(), FabricError> {
        let nonce = fresh_nonce().map_err(|error| self.io("drawing a nonce for", error))?;
        let (connecting, bytes) = Connecting::start(credentials, channel, hello, nonce, RealClock.unix_us());
        self.write_all(socket, &bytes)?;
        let mut answer = [0; ANSWER_BYTES];
        self.read_exact(socket, &mut answer)?;
        let confirm = connecting.answer(&answer).map_err(|error| self.handshake(error))?;
        self.write_all(socket, &confirm)
    }

    pub(crate) fn handshake(&self, error: HandshakeError) -> FabricError {
        match error {
            HandshakeError::Refused => FabricError::Refused(self.name.clone()),
            HandshakeError::Version { theirs } => {
                FabricError::Version { address: self.name.clone(), theirs, ours: PROTOCOL_VERSION }
            }
        }
    }
}

/// `ns` as the kernel takes timeouts, never more than it takes.
pub(crate) fn timespec(ns: u64) -> Timespec {
    let tv_sec = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX).min(i64::from(i32::MAX) / 1000);
    Timespec { tv_sec, tv_nsec: (ns % 1_000_000_000) as _ }
}

/// The pid at the other end of a Unix socket if it is of our own user, by the kernel's word.
pub(crate) fn own_peer(socket: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    if peer.uid != rustix::process::geteuid() {
        return Ok(None);
    }
    Ok(Some(peer.pid.as_raw_nonzero().get().unsigned_abs()))
}
