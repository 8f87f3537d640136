//! Entries of the pool's log. Stamps are not in them: they are fixed when an entry is applied (docs/design.md §4 rule 2).

use serde::{Deserialize, Serialize};
use talea_model::{
    ContainerId, LeaseId, Position, Process, ServerId, ServerInfo, SessionId, Stamp, Step, Summary, TargetId,
    TargetInfo, TargetState, TxId,
};

/// An entry with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Place; the first is 1.
    pub position: Position,
    /// Stamp that the proposer put forward, checked against physical time before it was appended (rule 1).
    pub proposed: Stamp,
    /// Whose request it was and its sequence there, for exactly-once control calls (rule 14); session 0: the service itself.
    pub session: SessionId,
    /// Sequence of the request in its session.
    pub sequence: u64,
    /// What to apply.
    pub entry: Entry,
}

/// What can happen to a pool. Applying is deterministic; an entry that cannot be applied changes nothing and yields a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A new leader's first entry: restarts all leases in full (rule 12).
    Leader {
        /// Which server.
        server: ServerId,
    },
    /// The pool begins.
    PoolCreate {
        /// Pool id, drawn by the proposer.
        pool: u128,
        /// Servers of the first map.
        servers: Vec<ServerInfo>,
        /// Targets of the first map.
        targets: Vec<TargetInfo>,
        /// What each server's process drew at its start, in the servers' order.
        boots: Vec<u64>,
    },
    /// A server registered (again), with its addresses; its targets' incarnations say what they lost.
    ServerUp {
        /// The server.
        server: ServerInfo,
        /// Its targets.
        targets: Vec<TargetInfo>,
        /// What its process drew at its start.
        boot: u64,
        /// Whether it knows which of its clients' processes write in what: else every open transaction may have lost a writer.
        remembers: bool,
    },
    /// Targets change their state; a lost server's go down. Who wrote through that server is not known until it is back: the
    /// sessions that live there end later, if it does not come (rule 12).
    Targets {
        /// Which.
        targets: Vec<TargetId>,
        /// New state.
        state: TargetState,
    },
    /// A client process opened a session at its home server.
    SessionOpen {
        /// Server that watches the process.
        home: ServerId,
        /// Program and host, for people.
        name: String,
        /// What the client must show to take it up again.
        secret: u128,
        /// Its process, if that is on the home server's machine and the kernel vouched for it.
        process: Option<Process>,
    },
    /// A session ended: its open transactions (begun, or joined and named here) abort, its leases and subscriptions end.
    SessionEnd {
        /// Which.
        session: SessionId,
        /// The server whose word that is: it counts for nothing if the session has moved to another one. `None`: whosever it is.
        home: Option<ServerId>,
        /// Transactions it had joined at its home server.
        joined: Vec<TxId>,
        /// True if the process said goodbye.
        orderly: bool,
    },
    /// A container is made.
    ContainerCreate {
        /// Its name, unique in the pool.
        name: String,
        /// Properties.
        properties: ContainerProperties,
    },
    /// A container and all it holds goes.
    ContainerDestroy {
        /// Which.
        container: ContainerId,
    },
    /// A transaction begins; its base is a snapshot at the stamp that the entry takes.
    Begin {
        /// Where.
        container: ContainerId,
        /// True for a collective epoch, whose commit makes a step.
        collective: bool,
    },
    /// A transaction commits (rule 5): one entry whose size depends on neither bytes nor ranks.
    Commit {
        /// Which.
        tx: TxId,
        /// What the group's reduction found.
        summary: Summary,
        /// Attributes of the step, the program's own.
        attributes: Vec<u8>,
        /// Where its files are named, if they are (`StepRecord`).
        manifest: Option<u32>,
        /// Begin the next epoch of the same container in the same entry.
        next: bool,
    },
    /// A transaction aborts.
    Abort {
        /// Which.
        tx: TxId,
        /// Why, for people.
        reason: String,
    },
    /// A snapshot is leased to the record's session.
    SnapshotOpen {
        /// Of which container.
        container: ContainerId,
        /// Which stamp.
        at: SnapshotAt,
    },
    /// A lease ends.
    SnapshotClose {
        /// Which.
        lease: LeaseId,
    },
    /// A snapshot gets a name and survives until destroyed.
    SnapshotName {
        /// Of which container.
        container: ContainerId,
        /// Its name.
        name: String,
        /// Which stamp.
        at: SnapshotAt,
    },
    /// A named snapshot goes.
    SnapshotDestroy {
        /// Of which container.
        container: ContainerId,
        /// Its name.
        name: String,
    },
    /// A subscription is opened, moved on (it needs nothing at or below `after` any more) or, with `None`, closed.
    Subscription {
        /// Of which container.
        container: ContainerId,
        /// Last step received.
        after: Option<Step>,
    },
    /// The producer's state: of one container, or of the whole job.
    Producer {
        /// Which container; `None`: all of the pool, now and later.
        container: Option<ContainerId>,
        /// New state.
        state: ProducerState,
    },
    /// An independent transaction commits (rule 15), with any C ≤ `until` above `summary.hlc`, unless one of `named` has
    /// committed above its base or the map has changed since it was prepared.
    CommitIndependent {
        /// Which.
        tx: TxId,
        /// What it wrote, and the lowest map version that it wrote and was prepared under.
        summary: Summary,
        /// C max: what it has read does not change up to here, but by the named transactions.
        until: Stamp,
        /// Open transactions that overlap what it has read; their number is bounded.
        named: Vec<TxId>,
    },
    /// A server that was lost has come back, and its targets have followed the log up to here: fates that were kept for it may
    /// be forgotten (rule 7).
    Confirmed {
        /// Which server.
        server: ServerId,
        /// Up to here its targets know every fate, durably.
        durable: Position,
    },
    /// A client took its session up at another server, as it could not reach its home: all that hangs on it stays.
    SessionMove {
        /// Which.
        session: SessionId,
        /// Where it lives from now on.
        home: ServerId,
        /// What the client must show.
        secret: u128,
        /// Its process, as the new home sees it.
        process: Option<Process>,
        /// Counts the client's attempts: an earlier one that comes late changes nothing.
        attempt: u64,
    },
}

/// What a container can be told at its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerProperties {
    /// Committed steps that stay readable without anybody's lease.
    pub kept_steps: u64,
    /// Default class of file data, in the encoding of `ObjectClass`.
    pub class: u32,
    /// Default chunk of files in bytes.
    pub chunk_bytes: u64,
    /// What happens when a follower is further behind than `kept_steps`.
    pub lagging: Lagging,
}

/// What becomes of a container whose follower has fallen behind the steps that it keeps by itself (docs/design.md §4 rule 13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lagging {
    /// What the follower has not received stays, whatever space it takes.
    #[default]
    Keep,
    /// It goes: the follower gets an explicit gap.
    Drop,
    /// The commit of the next step waits for the follower, as long as it lives.
    Block,
}

impl Default for ContainerProperties {
    fn default() -> Self {
        Self {
            kept_steps: talea_model::limit::DEFAULT_KEPT_STEPS,
            class: talea_model::ObjectClass::SX.encode(),
            chunk_bytes: 1024 * 1024,
            lagging: Lagging::Keep,
        }
    }
}

/// Which stamp a snapshot shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotAt {
    /// All that is committed when the entry is applied: S = max(proposed, ceiling + 1).
    Latest,
    /// The commit of a step.
    Step(Step),
    /// A named snapshot.
    Named(String),
}

/// Whether a producer can still make steps (rule 17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProducerState {
    /// Nobody has said; waiting goes on until its deadline.
    #[default]
    Unknown,
    /// Running.
    Active,
    /// Has said that no step will follow, or its command exited with status 0.
    Ended,
    /// Its command ended otherwise, or was lost.
    Lost,
}
