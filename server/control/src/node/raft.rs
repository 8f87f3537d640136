//! One replica of the pool's log: openraft on an executor of our own.
//!
//! Owns the vote, the entries and the election of one replica, and nothing of what entries mean. It does no I/O and reads no
//! clock: the node tells it the time and carries its messages and its writes. Must never be shared between nodes: openraft
//! finds its executor by thread, and only while the node runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Cursor;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use openraft::{EmptyNode, Raft, ServerState, SnapshotMeta, SnapshotPolicy, StoredMembership};
use serde::{Deserialize, Serialize};
use talea_fabric::PeerId;
use talea_model::{Position, ServerId, SessionId, Stamp};
use talea_wire::log::{Entry as LogEntry, Record};

mod cut;
mod members;
mod network;
mod runtime;
mod shelf;
mod tail;
#[cfg(test)]
mod tests;

use cut::Cuts;
pub use cut::LogBound;
pub(super) use network::Outgoing;
use network::{Answer, Call, Network};
use runtime::{Executor, Runtime, lock};
pub(super) use shelf::Committed;
use shelf::Shelf;
pub use shelf::{Damaged, StoreOp, Stored};
pub(super) use tail::Tail;

/// One replica. A server whose log was lost comes back with another `life`, and so as another replica: one that has forgotten
/// its votes must not vote again under its old name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// Where it is.
    pub server: ServerId,
    /// Drawn when its log began.
    pub life: u64,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.server, self.life)
    }
}

/// A record before the log's order gives it a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) proposed: Stamp,
    pub(super) session: SessionId,
    pub(super) sequence: u64,
    pub(super) entry: LogEntry,
}

impl Proposal {
    /// The record that it becomes.
    pub(super) fn at(&self, position: Position) -> Record {
        let (session, sequence, entry) = (self.session, self.sequence, self.entry.clone());
        Record { position, proposed: self.proposed, session, sequence, entry }
    }
}

/// Proposals that share an entry of Raft's log, and so a flush and a round trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// By which the proposer knows it again.
    pub(super) ticket: u64,
    pub(super) proposals: Arc<Vec<Proposal>>,
}

openraft::declare_raft_types!(
    /// What openraft is made of here.
    pub(crate) TypeConfig:
        D = Payload,
        R = (),
        NodeId = ReplicaId,
        Node = EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

type Entry = openraft::Entry<TypeConfig>;
type LogId = openraft::LogId<ReplicaId>;
type Vote = openraft::Vote<ReplicaId>;
type Meta = SnapshotMeta<ReplicaId, EmptyNode>;
type Membership = StoredMembership<ReplicaId, EmptyNode>;
/// A leader and its term.
pub(super) type LeaderId = openraft::LeaderId<ReplicaId>;

/// Bytes of an image in one message.
pub(super) const PART_BYTES: usize = 256 * 1024;

/// The times of a replica, all from the membership lease: a leader is replaced before the leases that it gave end.
#[derive(Clone, Copy, Debug)]
struct Timing {
    heartbeat_ms: u64,
    election_ms_min: u64,
    election_ms_max: u64,
}

impl Timing {
    fn of(lease_ms: u64) -> Self {
        Timing {
            heartbeat_ms: (lease_ms / 16).max(10),
            election_ms_min: (lease_ms / 5).max(40),
            election_ms_max: (lease_ms * 7 / 20).max(70),
        }
    }

    fn config(self) -> openraft::Config {
        openraft::Config {
            cluster_name: "talea".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_ms_min,
            election_timeout_max: self.election_ms_max,
            install_snapshot_timeout: 4 * self.election_ms_max,
            max_payload_entries: 256,
            replication_lag_threshold: 4096,
            // When, and what then goes, is decided by `cut`.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            snapshot_max_chunk_size: PART_BYTES as u64,
            ..openraft::Config::default()
        }
    }

    /// For how long after a majority's answer was asked for nobody else can be elected, in nanoseconds, less the drift of
    /// clocks.
    fn vouched_ns(self) -> u64 {
        (self.election_ms_max - self.election_ms_max / 8) * 1_000_000
    }
}

/// What a replica knows of who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leading {
    pub(super) leader: Option<ServerId>,
    pub(super) term: u64,
    /// This replica leads: its vote.
    pub(super) own: Option<LeaderId>,
}

/// An answer to another replica: over which connection, to which call.
pub(super) type Reply = (PeerId, u64, Vec<u8>);

/// One replica of the log.
pub(super) struct Replica {
    pub(super) id: ReplicaId,
    raft: Raft<TypeConfig>,
    shelf: Shelf,
    network: Network,
    timing: Timing,
    metrics: tokio::sync::watch::Receiver<openraft::RaftMetrics<ReplicaId, EmptyNode>>,
    replies: Arc<Mutex<Vec<Reply>>>,
    rejected: Arc<Mutex<Vec<u64>>>,
    /// Until when a majority has promised to elect nobody else, if this replica leads.
    vouched_ns: u64,
    /// When the majority that vouches last was asked.
    acked_ns: u64,
    /// Before this moment nobody gets a vote from here, because what was promised before a restart may still hold.
    quiet_ns: u64,
    is_quiet: bool,
    /// Position of the last record that openraft has applied.
    pub(super) position: Position,
    /// The leader whose first entry was applied last.
    pub(super) led: Option<LeaderId>,
    pub(super) tail: Tail,
    cuts: Cuts,
    /// The members are being changed from here.
    changing: Arc<AtomicBool>,
    // Last: what the others hold of it goes first.
    executor: Executor,
}

impl Replica {
    /// A replica on what its medium holds.
    pub(super) fn open(id: ReplicaId, lease_ms: u64, now_ns: u64, seed: u64, stored: &Stored) -> Result<Self, Damaged> {
        let shelf = Shelf::open(stored)?;
        let (network, timing) = (Network::default(), Timing::of(lease_ms));
        let mut executor = Executor::new(now_ns, seed);
        let slot = Arc::new(Mutex::new(None));
        let (config, told) = (Arc::new(timing.config()), slot.clone());
        let (to, log, state) = (network.clone(), shelf.clone(), shelf.clone());
        executor.spawn(async move {
            let raft = Raft::new(id, config, to, log, state).await;
            *lock(&told) = Some(raft);
        });
        executor.run(now_ns);
        let raft = match lock(&slot).take() {
            Some(Ok(raft)) => raft,
            Some(Err(error)) => return Err(Damaged(error.to_string())),
            None => return Err(Damaged("openraft does not start on it".to_owned())),
        };
        let mut replica = Self {
            id,
            metrics: raft.metrics(),
            raft,
            shelf,
            network,
            timing,
            replies: Arc::default(),
            rejected: Arc::default(),
            vouched_ns: 0,
            acked_ns: 0,
            quiet_ns: 0,
            is_quiet: false,
            position: Position(0),
            led: None,
            tail: Tail::default(),
            cuts: Cuts::default(),
            changing: Arc::default(),
            executor,
        };
        if replica.is_alone() {
            replica.elect();
        } else if !stored.is_empty() {
            replica.quiet_ns = now_ns + timing.election_ms_max * 1_000_000;
            replica.is_quiet = true;
            replica.raft.runtime_config().elect(false);
        }
        Ok(replica)
    }

    /// Begins the log, with these replicas.
    pub(super) fn found(&self, replicas: BTreeSet<ReplicaId>) {
        let members: BTreeMap<ReplicaId, EmptyNode> = replicas.into_iter().map(|id| (id, EmptyNode {})).collect();
        let raft = self.raft.clone();
        self.executor.spawn(async move {
            if let Err(error) = raft.initialize(members).await {
                tracing::error!(%error, "the pool's log could not begin");
            }
        });
    }

    fn elect(&self) {
        let raft = self.raft.clone();
        self.executor.spawn(async move { drop(raft.trigger().elect().await) });
    }

    /// Puts proposals into the log, if this replica leads.
    pub(super) fn propose(&self, ticket: u64, proposals: Vec<Proposal>) {
        let (raft, rejected) = (self.raft.clone(), self.rejected.clone());
        let payload = Payload { ticket, proposals: Arc::new(proposals) };
        self.executor.spawn(async move {
            let is_in = match raft.client_write_ff(payload).await {
                Ok(result) => matches!(result.await, Ok(Ok(_))),
                Err(_) => false,
            };
            if !is_in {
                lock(&rejected).push(ticket);
            }
        });
    }

    /// Tickets of what did not get into the log.
    pub(super) fn take_rejected(&self) -> Vec<u64> {
        std::mem::take(&mut *lock(&self.rejected))
    }

    /// Another replica calls.
    pub(super) fn receive(&self, now_ns: u64, peer: PeerId, id: u64, bytes: &[u8]) {
        let Ok(((to, call), [])) = postcard::take_from_bytes::<(ReplicaId, Call)>(bytes) else { return };
        let is_early = matches!(call, Call::Vote(_)) && now_ns < self.quiet_ns;
        if to != self.id || is_early {
            return;
        }
        let (raft, replies) = (self.raft.clone(), self.replies.clone());
        self.executor.spawn(async move {
            if let Some(answer) = answer(&raft, call).await
                && let Ok(bytes) = postcard::to_stdvec(&answer)
            {
                lock(&replies).push((peer, id, bytes));
            }
        });
    }

    /// Answers to calls of others.
    pub(super) fn take_replies(&self) -> Vec<Reply> {
        std::mem::take(&mut *lock(&self.replies))
    }

    /// Another replica answers.
    pub(super) fn answered(&self, call: u64, bytes: &[u8]) {
        if let Ok((answer, [])) = postcard::take_from_bytes::<Answer>(bytes) {
            lock(&self.network.0).answered(call, answer);
        }
    }

    /// Calls that want to be sent.
    pub(super) fn take_outgoing(&self) -> Vec<Outgoing> {
        std::mem::take(&mut lock(&self.network.0).outgoing)
    }

    /// Whether a call still wants to be sent.
    pub(super) fn is_waiting(&self, call: u64) -> bool {
        lock(&self.network.0).is_waiting(call)
    }

    /// What is to be made durable now.
    pub(super) fn take_ops(&self) -> Option<Vec<StoreOp>> {
        self.shelf.take_ops()
    }

    /// What was taken last is durable.
    pub(super) fn stored(&self) {
        self.shelf.stored();
    }

    /// What the log says has happened, in order.
    pub(super) fn take_applied(&self) -> Vec<Committed> {
        self.shelf.with(|inner| std::mem::take(&mut inner.applied))
    }

    /// Lets openraft do all that can be done now; says whether anything was done.
    pub(super) fn run(&mut self, now_ns: u64) -> bool {
        if self.is_quiet && now_ns >= self.quiet_ns {
            self.is_quiet = false;
            self.raft.runtime_config().elect(true);
        }
        let has_run = self.executor.run(now_ns);
        self.note_cut();
        if self.metrics.has_changed().unwrap_or(false) {
            let ago_ms = self.metrics.borrow_and_update().millis_since_quorum_ack;
            if let Some(ago_ms) = ago_ms {
                // Milliseconds are rounded down: it may be one more.
                let acked_ns = now_ns.saturating_sub((ago_ms + 1) * 1_000_000);
                self.acked_ns = self.acked_ns.max(acked_ns);
                self.vouched_ns = self.vouched_ns.max(acked_ns + self.timing.vouched_ns());
            }
        }
        has_run
    }

    /// When [`Replica::run`] is due.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.executor.next_deadline()
    }

    /// Whether this is the only replica: nobody else can be elected, and there is nobody to send heartbeats to.
    pub(super) fn is_alone(&self) -> bool {
        let metrics = self.metrics.borrow();
        let mut voters = metrics.membership_config.membership().voter_ids();
        voters.next() == Some(self.id) && voters.next().is_none()
    }

    /// Until when it is certain that nobody else leads, if this replica does.
    pub(super) fn vouched_ns(&self) -> u64 {
        if self.is_alone() { u64::MAX } else { self.vouched_ns }
    }

    /// Until when this replica's own server may serve if it leads, or led: those who vouched elect nobody earlier than an election
    /// timeout after they were asked, and whoever is elected gives everybody a whole lease. Nobody can shut out who is alone.
    pub(super) fn lease_ns(&self, lease_ms: u64) -> u64 {
        if self.is_alone() { u64::MAX } else { self.acked_ns.saturating_add(lease_ms.saturating_mul(1_000_000)) }
    }

    /// Who leads, as far as this replica knows.
    pub(super) fn leading(&self) -> Leading {
        let metrics = self.metrics.borrow();
        let own = (metrics.state == ServerState::Leader).then(|| *metrics.vote.leader_id());
        Leading { leader: metrics.current_leader.map(|id| id.server), term: metrics.current_term, own }
    }

    /// The replicas that count.
    pub(super) fn voters(&self) -> BTreeSet<ReplicaId> {
        self.metrics.borrow().membership_config.membership().voter_ids().collect()
    }
}

async fn answer(raft: &Raft<TypeConfig>, call: Call) -> Option<Answer> {
    use openraft::error::{InstallSnapshotError, RaftError};
    match call {
        Call::Append(request) => raft.append_entries(request).await.ok().map(Answer::Append),
        Call::Vote(request) => raft.vote(request).await.ok().map(Answer::Vote),
        Call::Snapshot(request) => match raft.install_snapshot(request).await {
            Ok(response) => Some(Answer::Snapshot(response)),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                Some(Answer::SnapshotMismatch(mismatch))
            }
            Err(RaftError::Fatal(_)) => None,
        },
    }
}
