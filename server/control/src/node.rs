//! One server's control plane without I/O: what a message, a death, a timer leads to.
//!
//! Owns the roles (leader of the log, follower of it; a replica of it beside either), the clients whose home this server is,
//! and what they wait for. The same code runs behind real sockets ([`crate::shell`]) and in simulations: time is passed in,
//! effects come out as [`Action`]s. Must never do I/O, and nothing counts as durable before the shell said that it is.

use std::collections::{BTreeMap, BTreeSet};

use talea_fabric::{Hello, PeerId};
use talea_model::{Hlc, MapVersion, Position, Process, ServerId, SessionId, TxId, limit};
use talea_wire::control::{Body, Counters, Envelope, Reply, Request, Status};
use talea_wire::log::Record;
use talea_wire::{Refusal, RefusalCode, codec};

use crate::TargetChange;
use crate::pool::{Gap, Outcome, Pool};

mod action;
mod beats;
mod clients;
mod downstream;
mod feed;
mod follower;
mod images;
mod leader;
mod lease;
mod links;
mod log;
mod mend;
mod moves;
mod notes;
mod question;
mod raft;
mod reports;
mod sessions;
#[cfg(test)]
mod tests;
mod tree;
mod upstream;
mod wait;

pub use action::{Action, NodeConfig, Time};
use clients::{Home, Peer, PeerKind};
use follower::Follower;
use leader::Leader;
use links::Links;
pub use notes::Note;
use notes::Notes;
use question::{Origin, Question};
use raft::Replica;
pub use raft::{Damaged, LogBound, ReplicaId, StoreOp, Stored};
use reports::Reported;
pub use sessions::Joined;
pub use tree::FanOut;
use wait::Waits;

enum Role {
    Leader(Leader),
    Follower(Follower),
}

/// One server's control plane.
pub struct Node {
    config: NodeConfig,
    now: Time,
    clock: Hlc,
    pool: Pool,
    role: Role,
    /// This server's replica of the log, if it has one.
    replica: Option<Replica>,
    links: Links,
    /// Who leads in which term, as the replica said last.
    heard: (ServerId, u64),
    /// Until when the targets may serve.
    lease_ns: Option<u64>,
    peers: BTreeMap<PeerId, Peer>,
    /// Clients' connections without a session, and some that had none.
    strangers: Vec<PeerId>,
    homes: BTreeMap<SessionId, Home>,
    /// Sessions that are moving here, by the connection over which their client asked for it, and what it has joined.
    arriving: BTreeMap<PeerId, (SessionId, BTreeSet<TxId>)>,
    /// When sessions without a connection end.
    session_ends: BTreeSet<(u64, SessionId)>,
    /// The sessions that lived here before this process are taken over.
    has_adopted: bool,
    notes: Notes,
    waits: Waits,
    counters: Counters,
    reports: Reported,
    /// Changes of records applied since the last delivery.
    undelivered: Vec<TargetChange>,
    delivered: Position,
    durable: Position,
    /// The targets are told the whole state next, because some of what led to it is no longer kept.
    owes_state: bool,
    /// The targets have not been told which sessions there are: they forget that at their end.
    owes_sessions: bool,
    actions: Vec<Action>,
}

impl Node {
    /// A node that starts on what its log's medium holds.
    pub fn new(config: NodeConfig, now: Time, stored: Stored) -> Result<Self, Damaged> {
        let first = config.seeds.keys().next().copied().unwrap_or(config.server.id);
        let mut node = Self {
            now,
            clock: Hlc::default(),
            pool: Pool::default(),
            role: Role::Follower(Follower::new(now, first)),
            replica: None,
            links: Links::new(&config, now),
            heard: (config.server.id, 0),
            lease_ns: None,
            peers: BTreeMap::new(),
            strangers: Vec::new(),
            homes: BTreeMap::new(),
            arriving: BTreeMap::new(),
            session_ends: BTreeSet::new(),
            has_adopted: false,
            notes: Notes::default(),
            waits: Waits::default(),
            counters: Counters::default(),
            reports: Reported::default(),
            undelivered: Vec::new(),
            delivered: Position(0),
            durable: config.horizon,
            owes_state: false,
            owes_sessions: true,
            actions: vec![Action::Lease { until_ns: None }],
            config,
        };
        if !stored.is_empty() {
            node.open_replica(&stored)?;
        }
        node.found_if_complete();
        node.finish();
        if matches!(node.role, Role::Follower(_)) {
            node.follow();
            node.finish();
        }
        Ok(node)
    }

    /// What is to be done now, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Which replicas the log has, as far as this server's own knows.
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.replica.iter().flat_map(Replica::voters).collect()
    }

    /// The state as far as this server has followed the log.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Counters of this server's control plane.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A peer has proved itself. `process`: its own, if it is on this machine and the kernel vouched for it.
    pub fn peer_up(&mut self, now: Time, peer: PeerId, hello: Hello, process: Option<Process>) {
        self.begin(now);
        let kind = match hello.server {
            Some(server) => PeerKind::Server(ServerId(server)),
            None => PeerKind::Client { session: None, opening: false },
        };
        if let (PeerKind::Server(_), Some(Process { pid, .. })) = (&kind, process) {
            self.actions.push(Action::Watch { peer, pid });
        }
        let is_server = matches!(kind, PeerKind::Server(_));
        self.peers.insert(peer, Peer { kind, process, heard_ns: now.monotonic_ns });
        match is_server {
            true => self.introduce(peer),
            false => self.bound_strangers(peer),
        }
        self.finish();
    }

    /// A connection ended.
    pub fn peer_down(&mut self, now: Time, peer: PeerId) {
        self.begin(now);
        self.lose_peer(peer, false);
        self.finish();
    }

    /// The process of a session that lives here ended ([`Action::WatchProcess`]).
    pub fn session_died(&mut self, now: Time, session: SessionId) {
        self.begin(now);
        self.session_process_died(session);
        self.finish();
    }

    /// The notes that were to be made last are durable ([`Action::Note`]).
    pub fn noted(&mut self, now: Time) {
        self.begin(now);
        self.notes_flushed();
        self.finish();
    }

    /// The process behind a server's connection ended.
    pub fn process_died(&mut self, now: Time, peer: PeerId) {
        self.begin(now);
        if self.peers.contains_key(&peer) {
            self.actions.push(Action::Close { peer });
            self.lose_peer(peer, true);
        } else {
            self.departed_died(peer);
        }
        self.finish();
    }

    /// A whole message came.
    pub fn message(&mut self, now: Time, peer: PeerId, bytes: &[u8]) {
        self.begin(now);
        self.counters.messages_in += 1;
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.heard_ns = now.monotonic_ns;
        let kind = known.kind.clone();
        match codec::decode::<Envelope>(bytes) {
            Ok(envelope) => self.dispatch(peer, kind, envelope),
            Err(error) => {
                // Nothing after it can be trusted to begin where a message begins.
                tracing::warn!(peer = peer.0, %error, "closing a connection that sends what is no message");
                self.actions.push(Action::Close { peer });
                self.lose_peer(peer, false);
            }
        }
        self.finish();
    }

    /// The changes of the log that were to be stored last are durable.
    pub fn stored(&mut self, now: Time) {
        self.begin(now);
        if let Some(replica) = &self.replica {
            replica.stored();
        }
        self.finish();
    }

    /// All own targets are durable up to `position`.
    pub fn targets_durable(&mut self, now: Time, position: Position) {
        self.begin(now);
        self.durable = self.durable.max(position);
        if self.is_leader() {
            self.confirm(self.config.server.id, position);
            self.finish();
        }
    }

    /// A local target wants everything up to the log's end as it is now (rule 8).
    pub fn log_end(&mut self, now: Time, token: u64) {
        self.begin(now);
        self.catch_up(follower::CatchUp::Token(token));
        self.finish();
    }

    /// A connection to another server is up.
    pub fn server_up(&mut self, now: Time, server: ServerId, peer: PeerId) {
        self.begin(now);
        self.peers.insert(peer, Peer { kind: PeerKind::Server(server), process: None, heard_ns: now.monotonic_ns });
        self.linked(server, peer);
        self.finish();
    }

    /// Another server could not be reached.
    pub fn server_unreachable(&mut self, now: Time, server: ServerId) {
        self.begin(now);
        self.not_linked(server);
        self.finish();
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) {
        self.begin(now);
        self.expire_waits();
        self.expire_sessions();
        // First what openraft has to say: who leads may have changed.
        self.turn_replica();
        match self.role {
            Role::Leader(_) => {
                self.judge_followers();
                self.mend_replicas();
            }
            Role::Follower(_) => self.follower_timers(),
        }
        self.finish();
    }

    /// When [`Node::tick`] is due, in monotonic nanoseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let role = match &self.role {
            Role::Leader(leader) => {
                let vouched_ns = self.replica.as_ref().map(Replica::vouched_ns).filter(|at_ns| *at_ns != u64::MAX);
                [leader.next_deadline(&self.config), vouched_ns].into_iter().flatten().min()
            }
            Role::Follower(follower) => follower.next_deadline(&self.config, self.lease_ns.is_some()),
        };
        let replica = self.replica.as_ref().and_then(Replica::next_deadline);
        [self.waits.next_deadline(), self.next_session_end(), role, replica].into_iter().flatten().min()
    }

    /// Whether the pool has begun and this server's targets are in its map.
    pub fn is_ready(&self) -> bool {
        let is_in_map = self.pool.map().is_some_and(|map| {
            map.version > MapVersion(0) && !self.config.targets.iter().any(|target| map.is_lost(target.id))
        });
        is_in_map && self.lease_ns.is_some()
    }

    /// Whether this server leads the log.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The state as this node knows it, with its own counters; `None` before there is a pool.
    pub fn status(&self) -> Option<Status> {
        match self.leader_status() {
            Ok(Reply::Status(status)) => Some(*status),
            _ => None,
        }
    }

    fn dispatch(&mut self, peer: PeerId, kind: PeerKind, envelope: Envelope) {
        let from_leader = matches!(&self.role, Role::Follower(follower) if follower.is_link(peer));
        let from_source =
            matches!(&self.role, Role::Follower(follower) if follower.upstream.is_peer(peer)) && !from_leader;
        // What the leader says was checked when it was proposed: applied stamps are always accepted (rule 1). A replica whose
        // clock is wrong gets no answer, so that no stamp of its own gets a majority.
        if !from_leader && !self.is_plausible(envelope.hlc) {
            if let Body::Request(_) = envelope.body {
                self.refuse_clock(peer, envelope.id);
            }
            return;
        }
        self.clock.observe(envelope.hlc);
        match (envelope.body, kind) {
            (Body::Request(request), PeerKind::Client { session, .. }) => {
                let question = Question {
                    origin: Origin::Client { peer, id: envelope.id },
                    session: envelope.session,
                    sequence: envelope.sequence,
                    deadline_ns: self.deadline_ns(envelope.deadline_ms),
                    request,
                };
                self.client_request(peer, session, question, envelope.deadline_ms);
            }
            (Body::Request(request), PeerKind::Server(server)) => {
                let question = Question {
                    origin: Origin::Server { peer, id: envelope.id, server },
                    session: envelope.session,
                    sequence: envelope.sequence,
                    deadline_ns: self.deadline_ns(envelope.deadline_ms),
                    request,
                };
                self.server_request(server, peer, question);
            }
            (Body::Reply(reply), _) if from_source => self.source_answered(peer, envelope.id, Ok(reply)),
            (Body::Refused(refusal), _) if from_source => self.source_answered(peer, envelope.id, Err(refusal)),
            (Body::Reply(reply), _) if from_leader => self.forward_answered(envelope.id, Ok(reply)),
            (Body::Refused(refusal), _) if from_leader => self.forward_answered(envelope.id, Err(refusal)),
            (Body::Batch(records), PeerKind::Server(_)) => self.batch(peer, records),
            (Body::Image(part), _) if from_leader => self.image_part(peer, part),
            (Body::Raft(call), PeerKind::Server(_)) => self.raft_call(peer, envelope.id, &call),
            (Body::RaftAnswer(answer), PeerKind::Server(_)) => {
                if let Some(replica) = &self.replica {
                    replica.answered(envelope.id, &answer);
                }
            }
            (Body::Leader { server, term }, PeerKind::Server(_)) => self.hear_of_leader(Some(peer), server, term),
            (Body::Cards(cards), PeerKind::Server(server)) => self.cards(peer, server, cards),
            _ => {}
        }
    }

    fn is_plausible(&self, stamp: talea_model::Stamp) -> bool {
        stamp <= self.clock.last() || Hlc::is_plausible(stamp, self.now.unix_us, limit::MAX_CLOCK_AHEAD_MS)
    }

    fn refuse_clock(&mut self, peer: PeerId, id: u64) {
        let server = self.config.server.id;
        let text = format!(
            "the request's clock is more than {} ms ahead of server {server}'s: synchronise the nodes' clocks",
            limit::MAX_CLOCK_AHEAD_MS
        );
        self.send(peer, id, Body::Refused(Refusal::new(RefusalCode::Clock, text)));
    }

    fn deadline_ns(&self, deadline_ms: u64) -> u64 {
        self.now.monotonic_ns.saturating_add(deadline_ms.saturating_mul(1_000_000))
    }

    /// Answers a question, and does what its answer means for this server.
    fn answer(&mut self, origin: Origin, outcome: Outcome) {
        match origin {
            Origin::Client { peer, id } => {
                if let Ok(Reply::Session { session, .. }) = &outcome {
                    self.bind_session(peer, *session);
                } else {
                    self.session_not_opened(peer, &outcome);
                }
                self.send_outcome(peer, id, outcome);
            }
            Origin::Server { peer, id, .. } => self.send_outcome(peer, id, outcome),
            Origin::Own(task) => self.own_answered(task, outcome),
        }
    }

    fn send_outcome(&mut self, peer: PeerId, id: u64, outcome: Outcome) {
        match outcome {
            Ok(reply) => self.send(peer, id, Body::Reply(reply)),
            Err(refusal) => self.send(peer, id, Body::Refused(refusal)),
        }
    }

    /// What goes to others with this server's clock and the version of the map that it knows.
    fn envelope(&mut self, id: u64, body: Body) -> Envelope {
        let hlc = self.clock.tick(self.now.unix_us);
        let map_version = self.pool.map().map_or(MapVersion(0), |map| map.version);
        Envelope { id, hlc, session: SessionId(0), sequence: 0, deadline_ms: 0, map_version, body }
    }

    /// Sends an answer (or a batch) to a peer that is still there.
    fn send(&mut self, peer: PeerId, id: u64, body: Body) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let mut envelope = self.envelope(id, body);
        let bytes = match codec::encode(&envelope) {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = format!("the answer does not fit into a message ({error}): ask for less");
                envelope.body = Body::Refused(Refusal::new(RefusalCode::TooLong, text));
                codec::encode(&envelope).unwrap_or_default()
            }
        };
        self.counters.messages_out += 1;
        self.actions.push(Action::Send { peer, bytes });
    }

    /// Sends a request with the asker's session and sequence.
    fn send_request(&mut self, peer: PeerId, id: u64, question: &Question) {
        let left_ns = question.deadline_ns.saturating_sub(self.now.monotonic_ns);
        let (session, sequence, deadline_ms) = (question.session, question.sequence, left_ns / 1_000_000);
        let envelope = self.envelope(id, Body::Request(question.request.clone()));
        let envelope = Envelope { session, sequence, deadline_ms, ..envelope };
        match codec::encode(&envelope) {
            Ok(bytes) => {
                self.counters.messages_out += 1;
                self.actions.push(Action::Send { peer, bytes });
            }
            // It came in a message of nearly the same size; only an unanswered request remains, and that has a deadline.
            Err(error) => tracing::warn!(%error, "a request does not fit into a message"),
        }
    }

    /// Applies the record that follows, and gathers what it means for targets, waits and sessions.
    fn apply(&mut self, record: &Record) -> Result<Option<Outcome>, Gap> {
        let applied = self.pool.apply(record)?;
        if applied.outcome.is_none() {
            return Ok(None);
        }
        self.counters.entries += 1;
        self.keep_for_children(record);
        self.clock.observe(self.pool.ceiling());
        if record.position > self.config.horizon {
            self.undelivered.extend(applied.changes);
        }
        applied.touched.into_iter().for_each(|container| self.waits.touch(container));
        applied.ended.into_iter().for_each(|session| self.session_ended(session));
        applied.moved.into_iter().for_each(|session| self.session_moved(session));
        Ok(applied.outcome)
    }

    /// Hands what was applied to the local targets.
    fn deliver(&mut self) {
        let horizon = self.pool.position();
        if horizon > self.delivered {
            self.delivered = horizon;
            let mut changes = std::mem::take(&mut self.undelivered);
            if let Some(state) = self.owed_state() {
                (changes, self.owes_sessions) = (vec![state], false);
            } else if self.owes_sessions && horizon >= self.config.horizon {
                // From here on the changes say which come and go.
                self.owes_sessions = false;
                changes.insert(0, self.pool.all_sessions());
            }
            self.actions.push(Action::Deliver { changes, horizon });
        }
    }

    /// The first thing of every input: it is later, and what was true for a time only may be so no more.
    fn begin(&mut self, now: Time) {
        self.now = now;
        self.check_vouched();
        self.check_lease();
    }

    /// The last thing of every input: waits that have an answer, proposals that want to be logged, and the replica's part.
    fn finish(&mut self) {
        loop {
            self.answer_waits();
            self.flush_notes();
            self.flush_log();
            if !self.turn_replica() {
                break;
            }
        }
    }
}

/// Requests that the pool's service answers from its state, without an entry.
fn is_read(request: &Request) -> bool {
    matches!(
        request,
        Request::Map
            | Request::Status
            | Request::ContainerOpen { .. }
            | Request::ContainerList
            | Request::LogEnd
            | Request::Reports
    )
}
