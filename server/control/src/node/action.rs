//! What goes into a node and comes out of it: its configuration, the time, and what it wants done.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::{Position, Process, ServerId, ServerInfo, SessionId, TargetInfo};
use talea_wire::Refusal;

use super::{FanOut, Joined, LogBound, Note, StoreOp};
use crate::TargetChange;

/// Time as the shell or the simulation sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Monotonic nanoseconds since an arbitrary start.
    pub monotonic_ns: u64,
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This server, as the map will show it.
    pub server: ServerInfo,
    /// Its targets, as the map will show them.
    pub targets: Vec<TargetInfo>,
    /// Where servers can be found before any of them has introduced itself.
    pub seeds: BTreeMap<ServerId, Vec<String>>,
    /// Servers that the pool begins with.
    pub servers_expected: usize,
    /// Drawn anew by each process.
    pub boot: u64,
    /// Drawn when this server's log began; `boot` if that does not outlive the process.
    pub life: u64,
    /// The pool's id if this node begins it; random.
    pub pool: u128,
    /// Membership lease in milliseconds: how long a silent server still counts as there.
    pub lease_ms: u64,
    /// Interval of heartbeats in milliseconds.
    pub heartbeat_ms: u64,
    /// Position up to which all own targets are durable: changes up to it are not delivered again.
    pub horizon: Position,
    /// How long the log may grow before it is cut.
    pub log_bound: LogBound,
    /// How the log spreads over many servers; the same at all of them.
    pub fan_out: FanOut,
    /// How long a session lasts without a connection, in milliseconds, unless its process is known to be dead; and the sessions of a
    /// server that is lost. 0: it ends with its connection, and with its server.
    pub session_lease_ms: u64,
    /// Whether notes outlive the process.
    pub notes_last: bool,
    /// What an earlier process of this server noted of its clients; `None` if that is not known.
    pub joined: Option<Joined>,
}

/// What the node wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message.
    Send {
        /// To whom.
        peer: PeerId,
        /// Which.
        bytes: Vec<u8>,
    },
    /// End a connection; no `peer_down` follows.
    Close {
        /// Which.
        peer: PeerId,
    },
    /// Make changes of the log durable, in order and all of them, then call [`Node::stored`]. One such action at a time.
    Store {
        /// In order.
        ops: Vec<StoreOp>,
    },
    /// Hand changes to the local targets; every fate up to `horizon` is known with them.
    Deliver {
        /// In order.
        changes: Vec<TargetChange>,
        /// Position up to which the log has been followed.
        horizon: Position,
    },
    /// Everything up to the log's end, as it was when [`Node::log_end`] was called or later, has been delivered.
    CatchUpDone {
        /// The caller's.
        token: u64,
    },
    /// The log's end could not be learned.
    CatchUpFailed {
        /// The caller's.
        token: u64,
        /// Why.
        refusal: Refusal,
    },
    /// Until when the local targets may serve, in monotonic nanoseconds: this server's membership lease (rule 11), which may be
    /// prolonged, and seldom shortened. `None`: not at all; the next one holds only behind all that was delivered before it.
    Lease {
        /// Until when.
        until_ns: Option<u64>,
    },
    /// Make notes durable, in order and all of them, then call [`Node::noted`]. One such action at a time.
    Note {
        /// In order.
        notes: Vec<Note>,
    },
    /// Watch over a session's process and call [`Node::session_died`] when it has ended, or if another one has its number.
    WatchProcess {
        /// Whose.
        session: SessionId,
        /// Which.
        process: Process,
    },
    /// The session is over.
    Unwatch {
        /// Which.
        session: SessionId,
    },
    /// Watch a server's process and call [`Node::process_died`] when it ends.
    Watch {
        /// The peer that it stands behind.
        peer: PeerId,
        /// Its process id, vouched for by the kernel.
        pid: u32,
    },
    /// Connect to another server once, then call [`Node::server_up`] or [`Node::server_unreachable`].
    Connect {
        /// Which.
        server: ServerId,
        /// Where it may be; the first that answers is taken.
        addresses: Vec<String>,
    },
}
