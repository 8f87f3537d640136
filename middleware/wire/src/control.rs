//! Messages of the control plane. Clients speak to their home server only; it answers what is local (join, leave) and
//! passes the rest on to the pool service's leader.
#![allow(missing_docs)] // variants explain themselves; their fields use the words of docs/design.md §1

use serde::{Deserialize, Serialize};
use talea_model::{
    ContainerId, LeaseId, MapVersion, PoolMap, Position, Process, ServerInfo, SessionId, Stamp, Step, Summary,
    TargetInfo, TxId,
};

use crate::Refusal;
use crate::figures::{ProcessFigures, Reports};
use crate::log::{ContainerProperties, ProducerState, Record, SnapshotAt};

/// Every message of the control plane, either way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Number that the asker chose; the answer carries it back. 0 for what nobody asked for.
    pub id: u64,
    /// Sender's hybrid logical clock (rule 1).
    pub hlc: Stamp,
    /// Session of the client that asks; 0 before it has one, and between servers.
    pub session: SessionId,
    /// Sequence in the session, the same when a request is sent again (rule 14); 0: not to be deduplicated.
    pub sequence: u64,
    /// Milliseconds after which the asker has given up.
    pub deadline_ms: u64,
    /// Version of the pool map that the sender knows: who is told of a newer one asks for it.
    pub map_version: MapVersion,
    /// What.
    pub body: Body,
}

/// A question or an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A question.
    Request(Request),
    /// A good answer.
    Reply(Reply),
    /// A no.
    Refused(Refusal),
    /// Between servers: entries that follow the last ones sent on this connection, already committed to the log.
    Batch(Vec<Record>),
    /// Between replicas of the log, a call of Raft's: opaque here. Answered with [`Body::RaftAnswer`] under the same number.
    Raft(Vec<u8>),
    /// The answer to a call of Raft's.
    RaftAnswer(Vec<u8>),
    /// Between servers: who leads the log, as far as the sender knows, in which term.
    Leader { server: Option<talea_model::ServerId>, term: u64 },
    /// Between servers: who is where.
    Cards(Vec<Card>),
    /// From the leader to a server that follows: a part of the pool's state, where the records that it lacks are no longer kept.
    Image(ImagePart),
}

/// A part of the image of a pool: its state after the record at a position. The rest is asked for with [`Request::Image`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePart {
    /// Of which record's state.
    pub position: Position,
    /// Bytes of the whole image.
    pub total_bytes: u64,
    /// Where this part begins in it.
    pub offset: u64,
    /// The part.
    pub bytes: Vec<u8>,
}

/// A server as it introduces itself to others. Of two, the one that was born later counts, then the one with the higher
/// revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The server, with its addresses.
    pub server: ServerInfo,
    /// When its process started, in microseconds of Unix time.
    pub born_us: u64,
    /// Drawn anew by each process.
    pub boot: u64,
    /// Counts what has changed since its birth.
    pub revision: u64,
    /// Which replica of the log it is, if it is one: drawn when its log began.
    pub life: u64,
    /// Whether it holds a replica's log.
    pub holds: bool,
    /// Whether it knows of a pool: then none may be begun without it.
    pub knows: bool,
}

/// Questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// A client's first: opens its session at this home server, under a secret that it has drawn. `resume` is its session after a lost
    /// connection. Which process that is, the home server says.
    /// If that lived at another server, which is out of reach, it moves here, with the transactions that the process has `joined`;
    /// `attempt` counts, so that an earlier move that comes late does not undo a later one.
    SessionOpen {
        name: String,
        secret: u128,
        resume: Option<SessionId>,
        process: Option<Process>,
        joined: Vec<TxId>,
        attempt: u64,
    },
    /// Says goodbye: transactions still open abort, leases end.
    SessionClose,
    /// The current pool map.
    Map,
    /// All there is to tell of the system, for `talea status`.
    Status,
    /// Makes a container; with `exist_ok` an existing one is opened.
    ContainerCreate { name: String, properties: ContainerProperties, exist_ok: bool },
    /// Finds a container by name.
    ContainerOpen { name: String },
    /// All containers.
    ContainerList,
    /// Destroys a container.
    ContainerDestroy { container: ContainerId },
    /// Begins a transaction.
    Begin { container: ContainerId, collective: bool },
    /// Notes durably at the home server that the session's process writes in a transaction (rule 3). Local.
    Join { tx: TxId },
    /// The process has no more to do with the transaction. Local.
    Leave { tx: TxId },
    /// Commits (rule 5).
    Commit { tx: TxId, summary: Summary, attributes: Vec<u8>, manifest: Option<u32>, next: bool },
    /// Aborts.
    Abort { tx: TxId, reason: String },
    /// Leases a snapshot.
    SnapshotOpen { container: ContainerId, at: SnapshotAt },
    /// Ends a lease.
    SnapshotClose { lease: LeaseId },
    /// Names a snapshot.
    SnapshotName { container: ContainerId, name: String, at: SnapshotAt },
    /// Destroys a named snapshot.
    SnapshotDestroy { container: ContainerId, name: String },
    /// Opens a subscription, or moves it on (`after` = last step received), or closes it (`None`).
    Subscribe { container: ContainerId, after: Option<Step> },
    /// The steps after `after`, at most `limit`: answered as soon as there is one, or the producer has ended, or the deadline
    /// is near ([`Waited::NotReady`]).
    Wait { container: ContainerId, after: Step, limit: u32 },
    /// Says what the producer is doing. A session that said `Active` and ends without saying more is `Lost`.
    Producer { container: Option<ContainerId>, state: ProducerState },
    /// From a server to the leader: here I am, these are my targets.
    /// `boot` is drawn anew by each process; `remembers`: it knows which of its clients' processes write in what (rule 3).
    ServerUp { server: ServerInfo, targets: Vec<TargetInfo>, boot: u64, remembers: bool },
    /// From a server to the leader: send all records after this position, and go on ([`Body::Batch`]).
    Follow { after: Position },
    /// From a server to the leader: the position of the log's end now (rule 8), by a read that the leader vouches for.
    LogEnd,
    /// From a server to the leader, also as its heartbeat: all my targets are durable up to here. Answered with the log's end.
    Horizon { durable: Position },
    /// Ends a session, whosever it is: its transactions abort, its leases and subscriptions end.
    Evict { session: SessionId },
    /// From a server to the leader: a session that lived here ended; the transactions that it had joined abort (rule 12).
    SessionEnded { session: SessionId, joined: Vec<TxId>, orderly: bool },
    /// What a client did, said at its end; nobody waits for the answer.
    Report(ProcessFigures),
    /// What processes said of themselves.
    Reports,
    /// Commits an independent transaction (rule 15) that was prepared at the leader of each group that it read from.
    CommitIndependent { tx: TxId, summary: Summary, until: Stamp, named: Vec<TxId> },
    /// From a server to the leader: the part of the image of this position that begins at this offset ([`Body::Image`]); of
    /// another image from its beginning, if that one is no longer kept.
    Image { position: Position, offset: u64 },
    /// From a server to one that passes the log on: send all records after this position, and go on ([`Body::Batch`]). Answered
    /// at once with what there is, be it nothing, or refused.
    FollowThrough { after: Position },
    /// From a server to one that it follows, or followed: send no more records.
    Unfollow,
    /// From a server to one that passes the log on, for itself and for all that ask it: the position of the log's end now (rule 8).
    EndThrough,
    /// From a server to the leader, or to one that passes the log on: heartbeats, its own and those of servers that follow through
    /// it. Answered with [`Reply::Heard`].
    Beats(Vec<Beat>),
    /// From a server to the leader: a client has come to it with its session, which lives at a server that the client cannot reach.
    SessionMove { session: SessionId, secret: u128, process: Option<Process>, attempt: u64 },
    /// Is anybody there? Answered at once by who is asked.
    Alive,
}

/// A server's heartbeat on its way through others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Whose.
    pub server: talea_model::ServerId,
    /// Which process of it: the leader knows it by the one that registered.
    pub boot: u64,
    /// All its targets are durable up to here.
    pub durable: Position,
}

/// Good answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// A session.
    Session { session: SessionId, map: PoolMap },
    /// The map.
    Map(PoolMap),
    /// The system's state.
    Status(Box<Status>),
    /// One container.
    Container(ContainerInfo),
    /// Containers.
    Containers(Vec<ContainerInfo>),
    /// A transaction has begun.
    Begun(Begun),
    /// A transaction has committed.
    Committed(Committed),
    /// A snapshot.
    Snapshot(Snapshot),
    /// Outcome of a wait.
    Waited(Waited),
    /// Log position.
    Position(Position),
    /// The commit was refused and its transaction is closed, but the next epoch that came with it has begun.
    CommitFailed { refusal: Refusal, next: Begun },
    /// What processes said of themselves.
    Reports(Reports),
    /// The leader has heard the heartbeats that were sent to it, but for those of servers that it does not know (any more). `end`:
    /// the log's.
    Heard { end: Position, unknown: Vec<talea_model::ServerId> },
}

/// A transaction that has begun, and its base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The transaction.
    pub tx: TxId,
    /// Its container.
    pub container: ContainerId,
    /// S of its base snapshot; kept while the transaction is open.
    pub base: Stamp,
    /// Log position of its begin, which is also the position that the base was issued at.
    pub position: Position,
    /// Last step that the base contains.
    pub base_step: Step,
}

/// A committed transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// C.
    pub stamp: Stamp,
    /// Log position of the commit.
    pub position: Position,
    /// Its step, or the container's last one if it had no updates or was not collective.
    pub step: Step,
    /// False if it had no updates and so made no step.
    pub made_step: bool,
    /// The next epoch, if it was asked for.
    pub next: Option<Begun>,
}

/// A leased snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// S.
    pub stamp: Stamp,
    /// Log position that issued it.
    pub position: Position,
    /// Its lease.
    pub lease: LeaseId,
    /// Last step that it contains.
    pub step: Step,
}

/// A commit record as subscribers get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its number.
    pub step: Step,
    /// Its C.
    pub stamp: Stamp,
    /// Log position.
    pub position: Position,
    /// Its transaction, which the manifest of its files names.
    pub tx: TxId,
    /// The program's attributes.
    pub attributes: Vec<u8>,
    /// The key under which its files are named (`talea_model::manifest`); `None`: it names none.
    pub manifest: Option<u32>,
}

/// Outcome of a wait (rule 17).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waited {
    /// Steps in order, without a gap after the asked one; and the container's last step now.
    Steps { steps: Vec<StepRecord>, latest: Step },
    /// The deadline is near and the producer lives.
    NotReady,
    /// No step will follow.
    End,
    /// The producer is gone without a word.
    ProducerLost,
    /// The steps up to and including `through` are below retention.
    Gap { through: Step },
}

/// A container as its users see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Its number.
    pub container: ContainerId,
    /// Its name.
    pub name: String,
    /// Its properties.
    pub properties: ContainerProperties,
    /// Last committed step.
    pub step: Step,
    /// First step that is still readable.
    pub first_step: Step,
    /// Open transactions.
    pub open_transactions: u64,
    /// Named snapshots.
    pub snapshots: Vec<(String, Stamp)>,
    /// Producer's state.
    pub producer: ProducerState,
    /// Open subscriptions.
    pub subscriptions: u64,
    /// Snapshots that sessions hold open.
    pub leases: u64,
}

/// What `talea status` shows of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The map.
    pub map: PoolMap,
    /// Containers.
    pub containers: Vec<ContainerInfo>,
    /// Open sessions.
    pub sessions: Vec<SessionInfo>,
    /// Open transactions: number, container, session that began it.
    pub transactions: Vec<(TxId, ContainerId, SessionId)>,
    /// Open subscriptions: container, session that follows, last step that it has taken.
    pub followers: Vec<(ContainerId, SessionId, Step)>,
    /// Log's end.
    pub position: Position,
    /// Counters of the log: entries applied, bytes appended, messages sent and received by the leader.
    pub counters: Counters,
    /// Server that leads the log.
    pub leader: talea_model::ServerId,
    /// Servers that hold a replica of the log.
    pub replicas: Vec<talea_model::ServerId>,
    /// Targets that came back without what they had stored, and the last container that was there then: what lay on them of it and of
    /// those before reads as DATA_LOST.
    pub lost: Vec<(talea_model::TargetId, ContainerId)>,
    /// Why nobody leads the log, if so: then the rest is what the server that answers knew last.
    pub unled: Option<String>,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its number.
    pub session: SessionId,
    /// What its program calls itself.
    pub name: String,
    /// The server that it lives at.
    pub home: talea_model::ServerId,
    /// Its process, if that is on the home server's machine and the kernel vouched for it.
    pub process: Option<Process>,
    /// When it was opened.
    pub since: Stamp,
}

/// Counters of the control plane, for I5 by counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Entries applied.
    pub entries: u64,
    /// Bytes appended to the log.
    pub log_bytes: u64,
    /// Messages that this server's control plane received.
    pub messages_in: u64,
    /// Messages that it sent.
    pub messages_out: u64,
}
