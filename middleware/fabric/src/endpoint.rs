//! The seam of the fabric: an endpoint, its events and its errors.
//!
//! An endpoint belongs to one thread at a time. It moves whole messages between peers that have proved themselves; it keeps
//! the order of messages between two peers. Real fabrics lose a message only together with the peer ([`Event::Down`]); the
//! simulated one may lose, delay and repeat single messages, and every protocol above must live with that.

use std::io::IoSlice;
use std::ops::Deref;
use std::sync::Arc;

use rustix::io::Errno;
use thiserror::Error;

use crate::Address;

/// Largest message of any fabric in bytes: header and keys, and one payload of up to [`MAX_PAYLOAD_BYTES`].
pub const MAX_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + 64 * 1024;
/// Largest payload (values and extents) that one message carries, in bytes. Larger transfers are several messages.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// Names a connection of one endpoint; never reused by that endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// What a connecting process says of itself in the handshake, under the secret's proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Session that the pool service gave to the process; 0 before it has one.
    pub session: u64,
    /// Process id as the connecting process sees it. On a Unix socket the kernel's word replaces it.
    pub pid: u32,
    /// Server id if the peer is a server, else `None`.
    pub server: Option<u32>,
}

/// A received message. The bytes may still lie in the ring or receive buffer that they came through: drop it soon, or copy.
pub enum Message {
    /// Bytes of our own.
    Owned(Vec<u8>),
    /// Bytes in memory that their sender can still change, given back on drop.
    Lent(Box<dyn Lent>),
    /// Bytes in a buffer of the endpoint that nobody else reaches, given back on drop.
    Received(Box<dyn Lent>),
}

/// A buffer lent by an endpoint; dropping it gives it back.
pub trait Lent: Deref<Target = [u8]> + Send {}
impl<T: Deref<Target = [u8]> + Send> Lent for T {}

impl Deref for Message {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Message::Owned(bytes) => bytes,
            Message::Lent(lent) | Message::Received(lent) => lent,
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} bytes)", self.len())
    }
}

/// A message in buffers that may be given to an endpoint: its head, and its data.
pub type Given = [Vec<u8>; 2];

/// What an endpoint reports.
#[derive(Debug)]
pub enum Event {
    /// A peer has proved itself. Sent for accepted peers only.
    Up {
        /// The new peer.
        peer: PeerId,
        /// What it said of itself.
        hello: Hello,
        /// True if the peer is on this node and the kernel vouched for its pid and user.
        local: bool,
    },
    /// What has become of a connection that [`Endpoint::begin_connect`] has left pending. Without success, no further event names it.
    Connected {
        /// Its name.
        peer: PeerId,
        /// Whether the peer is up.
        outcome: Result<(), FabricError>,
    },
    /// A whole message.
    Message {
        /// Who sent it.
        peer: PeerId,
        /// Its bytes.
        message: Message,
    },
    /// The peer is gone, by its own will or not. No further event names it.
    Down {
        /// Who is gone.
        peer: PeerId,
    },
}

/// How far a connection has come when the call that began it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The peer is up.
    Up(PeerId),
    /// [`Event::Connected`] will say what has become of it, at its deadline at the latest.
    Pending(PeerId),
}

/// Why an endpoint could not be made or a connection not be established.
#[derive(Debug, Error)]
pub enum FabricError {
    /// The address is not one that this endpoint can reach.
    #[error("{0} cannot be reached from here: {1}")]
    Unreachable(String, String),
    /// The other side did not prove that it knows the secret, or refused our proof.
    #[error(
        "{0} refused the connection: wrong secret or not a server of this system (is this the right system? see `talea status`)"
    )]
    Refused(String),
    /// The other side speaks another version of the protocol.
    #[error(
        "{address} speaks protocol version {theirs}, this program version {ours}: use programs and servers of the same Talea release"
    )]
    Version {
        /// Who.
        address: String,
        /// Their version.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// The deadline passed.
    #[error("{0} did not answer within its deadline")]
    Deadline(String),
    /// The operating system or the provider said no.
    #[error("{context}: {source}")]
    Io {
        /// What was tried, and on what.
        context: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// This build or machine lacks the fabric.
    #[error("fabric {0} is not available: {1}")]
    Unsupported(&'static str, String),
}

impl FabricError {
    /// Whether this process, or this machine, has no file descriptors left: then nothing is known of the other side.
    pub fn lacks_descriptors(&self) -> bool {
        let lacks = |source: &std::io::Error| matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE));
        matches!(self, FabricError::Io { source, .. } if lacks(source))
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// No room now; try again after [`Endpoint::recv`] or [`Endpoint::wait`].
    #[error("no room in the connection's buffers")]
    Full,
    /// The peer is gone.
    #[error("the peer is gone")]
    Gone,
    /// Larger than [`MAX_MESSAGE_BYTES`].
    #[error("message too large")]
    TooLarge,
}

/// Time as the cores see it: monotonic for deadlines, wall time for stamps. Simulations pass a virtual one.
pub trait Clock: Send + Sync {
    /// Monotonic nanoseconds since an arbitrary start.
    fn monotonic_ns(&self) -> u64;
    /// Microseconds since the Unix epoch, for hybrid logical clocks.
    fn unix_us(&self) -> u64;
}

/// One end of the fabric, held by one thread.
pub trait Endpoint: Send {
    /// Connects, proves both sides to each other, and returns when the peer is up.
    /// `deadline_ns` is in the endpoint clock's monotonic nanoseconds, as everywhere below.
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError>;

    /// The same without waiting for the other side, which may be stopped or out of reach. Needs nobody but whoever calls
    /// [`recv`](Self::recv) and [`wait`](Self::wait) to go on; [`disconnect`](Self::disconnect) gives it up.
    ///
    /// Where connecting never waits, [`connect`](Self::connect) is all that this does.
    fn begin_connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<Begun, FabricError> {
        self.connect(address, hello, deadline_ns).map(Begun::Up)
    }

    /// Takes one message made of `parts`, in order. The bytes have been copied (or sent) when this returns.
    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError>;

    /// Takes one message whose bytes are given to the endpoint, which may send them from where they lie. They are given back now, or by
    /// [`given_back`](Self::given_back) when they have left. A message that is refused is given back, too, unless the peer is gone.
    fn give(&mut self, peer: PeerId, given: Given) -> Result<Option<Given>, (SendError, Option<Given>)> {
        match self.send(peer, &[IoSlice::new(&given[0]), IoSlice::new(&given[1])]) {
            Ok(()) => Ok(Some(given)),
            Err(error) => Err((error, Some(given))),
        }
    }

    /// A buffer that was given, and whose bytes have left.
    fn given_back(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// The next event, without blocking.
    fn recv(&mut self) -> Option<Event>;

    /// Sleeps until an event may be there, [`Waker::wake`] was called, or the deadline passed. May return early.
    fn wait(&mut self, deadline_ns: u64);

    /// Ends a connection from our side; no `Down` follows.
    fn disconnect(&mut self, peer: PeerId);

    /// A handle that other threads use to end this endpoint's [`wait`](Self::wait).
    fn waker(&self) -> Arc<dyn Waker>;
}

/// Ends another thread's [`Endpoint::wait`].
pub trait Waker: Send + Sync {
    /// Wakes; a wake-up before the wait is not lost.
    fn wake(&self);
}
