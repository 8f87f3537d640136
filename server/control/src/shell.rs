//! The sockets, processes, timers and files around a [`Node`].
//!
//! Owns all I/O of the control plane: one thread with a tokio runtime of its own. Must never decide anything: what a message
//! or a death means is the node's. Nothing is read from a connection beyond the proof, nor answered, before it has proved
//! itself (docs/design.md §9); a client that does not read is dropped, and holds up nobody else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use talea_fabric::{Address, Clock, Credentials, RealClock};
use talea_model::{Position, ServerId, TargetInfo};
use talea_wire::Refusal;
use talea_wire::control::Status;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::TargetChange;
use crate::node::{Damaged, Node, NodeConfig, Stored, Time};
pub use crate::node::{FanOut, LogBound};
use crate::store::{FileLog, Log, StoreError};

mod connection;
mod dial;
mod listen;
mod serve;
mod watch;

pub use listen::Listeners;

/// Membership lease by default, in milliseconds.
pub const DEFAULT_LEASE_MS: u64 = 2000;
/// How long a session lasts without a connection by default, in milliseconds.
pub const DEFAULT_SESSION_LEASE_MS: u64 = 5 * DEFAULT_LEASE_MS;
/// Shortest interval of heartbeats, in milliseconds: an idle server sleeps in between (I9).
const HEARTBEAT_MS_MIN: u64 = 500;

/// What a server's control plane is told at its start.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// This server.
    pub server: ServerId,
    /// Its host name, for people.
    pub host: String,
    /// The system's secret.
    pub credentials: Credentials,
    /// Where other servers may be found before they have introduced themselves; the first address that answers is taken.
    pub seeds: BTreeMap<ServerId, Vec<Address>>,
    /// Servers that the pool begins with.
    pub servers_expected: usize,
    /// This server's targets, with the addresses that their engines got.
    pub targets: Vec<TargetInfo>,
    /// Drawn anew by each process.
    pub boot: u64,
    /// The pool's id if this server begins it; random.
    pub pool: u128,
    /// Membership lease in milliseconds; see [`DEFAULT_LEASE_MS`].
    pub lease_ms: u64,
    /// Directory of this server's replica of the log; `None`: it lives in memory, as targets in RAM do.
    pub log_directory: Option<PathBuf>,
    /// Position up to which all own targets are durable: changes up to it are not delivered again.
    pub horizon: Position,
    /// How long the log may grow before it is cut.
    pub log_bound: LogBound,
    /// How the log spreads over many servers; the same at all of them.
    pub fan_out: FanOut,
    /// How long a session lasts without a connection, in milliseconds; see [`DEFAULT_SESSION_LEASE_MS`].
    pub session_lease_ms: u64,
}

/// Why a control plane did not start, or ended.
#[derive(Debug, Error)]
pub enum ControlError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another server using it, or its directory missing?")]
    Listen {
        /// Which.
        address: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// What the log's file holds is no replica's log.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// No thread, runtime or timer to be had.
    #[error("cannot start the control plane: {0}")]
    Start(std::io::Error),
    /// The control plane's thread panicked.
    #[error("the control plane failed; this is a bug: its log has the place. The server must end")]
    Panicked,
}

/// What the control plane tells the local targets. Called on the control plane's thread: must return at once.
pub trait TargetLink: Send {
    /// Changes to follow, in order; every fate up to `horizon` is known with them.
    fn deliver(&mut self, changes: Vec<TargetChange>, horizon: Position);
    /// Until when this server holds its membership lease, in nanoseconds of the monotonic clock; the targets must not serve longer,
    /// and not at all with `None`, as at first (rule 11). See [`Action::Lease`](crate::node::Action::Lease).
    fn lease(&mut self, until_ns: Option<u64>);
    /// The answer to [`ControlHandle::log_end`]: everything up to the log's end has been delivered, or why it cannot be.
    fn caught_up(&mut self, token: u64, result: Result<(), Refusal>);
    /// The pool has begun and this server is part of it. Called once.
    fn pool_ready(&mut self);
}

/// How targets, and whoever runs the server, speak to the control plane. Usable from any thread, before it starts too.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    inbox: mpsc::UnboundedSender<FromServer>,
}

/// The control plane's end of a [`ControlHandle`].
#[derive(Debug)]
pub struct Inbox(mpsc::UnboundedReceiver<FromServer>);

#[derive(Debug)]
enum FromServer {
    Durable(Position),
    LogEnd(u64),
    Status(oneshot::Sender<Status>),
    Stop,
}

/// A handle and its other end.
pub fn channel() -> (ControlHandle, Inbox) {
    let (inbox, receiver) = mpsc::unbounded_channel();
    (ControlHandle { inbox }, Inbox(receiver))
}

impl ControlHandle {
    /// All targets of this server are durable up to `position`.
    pub fn durable(&self, position: Position) {
        // A control plane that has ended needs to know nothing more.
        let _ = self.inbox.send(FromServer::Durable(position));
    }

    /// Asks for everything up to the log's end as it is now (rule 8); [`TargetLink::caught_up`] answers with the token.
    pub fn log_end(&self, token: u64) {
        let _ = self.inbox.send(FromServer::LogEnd(token));
    }

    /// The state as this server knows it, on a channel; nothing comes if there is none.
    pub fn status(&self, answer: oneshot::Sender<Status>) {
        let _ = self.inbox.send(FromServer::Status(answer));
    }

    /// Ends the control plane.
    pub fn stop(&self) {
        let _ = self.inbox.send(FromServer::Stop);
    }
}

/// A running control plane.
pub struct Control {
    thread: JoinHandle<Result<(), ControlError>>,
    handle: ControlHandle,
    replicas: Vec<ServerId>,
}

impl Control {
    /// The servers that have replicas of the pool's log, as this server's replica knew at its start; empty if it had none.
    pub fn replicas_at_start(&self) -> &[ServerId] {
        &self.replicas
    }

    /// Whether it has ended; [`Control::wait`] says how.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it and waits for that. Its sockets are removed.
    pub fn stop(self) -> Result<(), ControlError> {
        self.handle.stop();
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(self) -> Result<(), ControlError> {
        self.thread.join().unwrap_or(Err(ControlError::Panicked))
    }
}

/// Starts the control plane on a thread of its own. An error of the log is known at once.
pub fn start(
    config: ControlConfig,
    listeners: Listeners,
    link: Box<dyn TargetLink>,
    handle: ControlHandle,
    inbox: Inbox,
) -> Result<Control, ControlError> {
    let (log, life, stored, joined) = match &config.log_directory {
        Some(directory) => {
            let (log, stored) = FileLog::open(directory, config.server, config.boot)?;
            let (life, joined) = (log.life(), log.joined().cloned());
            (Log::File(log), life, stored, joined)
        }
        None => (Log::Memory, config.boot, Stored::default(), None),
    };
    let node_config = NodeConfig { joined, ..node_config(&config, &listeners, life) };
    let node = Node::new(node_config, now(), stored)?;
    let replicas = node.replicas().into_iter().map(|replica| replica.server).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Start)?;
    let credentials = Arc::new(config.credentials.clone());
    let serve = serve::Serve::new(node, log, link, credentials, &config);
    let thread = std::thread::Builder::new()
        .name("talea-control".to_owned())
        .spawn(move || runtime.block_on(serve.run(listeners, inbox.0)))
        .map_err(ControlError::Start)?;
    Ok(Control { thread, handle, replicas })
}

fn node_config(config: &ControlConfig, listeners: &Listeners, life: u64) -> NodeConfig {
    let control = texts(listeners.addresses());
    NodeConfig {
        server: talea_model::ServerInfo {
            id: config.server,
            host: config.host.clone(),
            node: talea_fabric::node_id().to_owned(),
            control,
        },
        targets: config.targets.clone(),
        seeds: config.seeds.iter().map(|(server, addresses)| (*server, texts(addresses))).collect(),
        servers_expected: config.servers_expected,
        boot: config.boot,
        life,
        pool: config.pool,
        lease_ms: config.lease_ms.max(2 * HEARTBEAT_MS_MIN),
        heartbeat_ms: (config.lease_ms / 4).max(HEARTBEAT_MS_MIN),
        horizon: config.horizon,
        log_bound: config.log_bound,
        fan_out: config.fan_out,
        session_lease_ms: config.session_lease_ms,
        notes_last: config.log_directory.is_some(),
        joined: None,
    }
}

fn texts(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(Address::to_string).collect()
}

fn now() -> Time {
    Time { monotonic_ns: RealClock.monotonic_ns(), unix_us: RealClock.unix_us() }
}
