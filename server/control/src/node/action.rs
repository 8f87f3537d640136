//! What goes into a node and comes out of it: its configuration, the time, and what it wants done.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::{Position, ServerId, ServerInfo, TargetInfo};
use talea_wire::Refusal;

use super::{FanOut, LogBound, StoreOp};
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
    /// Watch a process and call [`Node::process_died`] when it ends.
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
