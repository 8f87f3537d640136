//! The leader: orders entries, has them appended, applies them, and passes them on to the followers.
//!
//! It is the log's one replica for now. A replicated log takes the place of [`Action::Append`] and [`Node::appended`]; all
//! else stays. Owns the membership of servers: who was heard of when, and when a silent one is declared lost (rules 11, 12).

use std::collections::{BTreeMap, VecDeque};

use talea_fabric::PeerId;
use talea_model::{Position, ServerId, ServerInfo, SessionId, Stamp, TargetInfo, TargetState};
use talea_wire::control::{Body, Reply, Request};
use talea_wire::log::{Entry, Record};
use talea_wire::{Refusal, RefusalCode, codec};

use super::question::{Origin, Own, Question};
use super::{Action, Node, NodeConfig, Role};
use crate::pool::Outcome;

/// Records and bytes of one batch to a follower, at most.
const BATCH_RECORDS: usize = 1024;
const BATCH_BYTES: usize = 256 * 1024;
/// Part of the lease that a server's silence is tolerated longer than the server itself serves: drift of clocks.
const DRIFT_PART: u64 = 8;
/// Records queued for the log at most; more requests are told to come back.
const MAX_QUEUED: usize = 1 << 16;

/// What the leader holds beside the state.
#[derive(Debug, Default)]
pub(super) struct Leader {
    /// Position of the last record proposed.
    last: Position,
    /// Proposed, not yet handed to the store.
    queue: Vec<(Position, Vec<u8>)>,
    /// Whether the store is busy with records.
    appending: bool,
    /// Proposed, not yet applied.
    in_flight: VecDeque<InFlight>,
    /// Everything applied, for followers; the record at position p has index p - 1.
    log: Vec<(Record, usize)>,
    followers: BTreeMap<ServerId, Follower>,
}

/// An entry between its proposal and its being applied.
#[derive(Debug)]
struct InFlight {
    record: Record,
    origin: Origin,
    bytes: usize,
    /// The asker of a container is content if another one made it first.
    exist_ok: bool,
}

/// A server that follows.
#[derive(Debug)]
struct Follower {
    /// Its connection, if there is one, and the last one it had.
    peer: Option<PeerId>,
    last_peer: PeerId,
    boot: u64,
    heard_ns: u64,
    /// It has been declared lost, and is nobody until it registers again.
    lost: bool,
    /// Last position sent; `None` before it asked for the log on this connection.
    sent: Option<Position>,
    server: ServerInfo,
    targets: Vec<TargetInfo>,
}

impl Leader {
    /// Takes over a log that was read back.
    pub(super) fn recovered(&mut self, log: Vec<Record>) {
        self.last = log.last().map_or(Position(0), |record| record.position);
        let with_bytes = |record: Record| {
            let bytes = codec::encode(&record).map_or(0, |bytes| bytes.len());
            (record, bytes)
        };
        self.log = log.into_iter().map(with_bytes).collect();
    }

    pub(super) fn next_deadline(&self, config: &NodeConfig) -> Option<u64> {
        let counted = self.followers.values().filter(|follower| !follower.lost);
        counted.map(|follower| follower.heard_ns.saturating_add(patience_ns(config))).min()
    }
}

fn patience_ns(config: &NodeConfig) -> u64 {
    (config.lease_ms + config.lease_ms / DRIFT_PART).saturating_mul(1_000_000)
}

impl Node {
    /// Begins to lead: the pool's first entries, or what follows from having been away.
    pub(super) fn lead(&mut self) {
        let server = self.config.server.id;
        self.note(Entry::Leader { server });
        if let Some(map) = self.pool.map().cloned() {
            // All leases begin anew, in full; who does not come back within its own is lost.
            map.servers.iter().filter(|known| known.id != server).for_each(|known| self.expect(known));
            // Whoever wrote through this server before is gone with it.
            self.declare_lost(server);
            let (server, targets) = (self.config.server.clone(), self.config.targets.clone());
            self.note(Entry::ServerUp { server, targets });
        }
        self.create_pool_if_complete();
        self.actions.push(Action::Serving(true));
    }

    /// Expects a server of the map that has not been heard of yet.
    fn expect(&mut self, server: &ServerInfo) {
        let heard_ns = self.now.monotonic_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        let follower = Follower {
            peer: None,
            last_peer: PeerId(u64::MAX),
            boot: 0,
            heard_ns,
            lost: false,
            sent: None,
            server: server.clone(),
            targets: Vec::new(),
        };
        leader.followers.insert(server.id, follower);
    }

    /// Proposes an entry of the service's own.
    fn note(&mut self, entry: Entry) {
        self.propose(SessionId(0), 0, entry, Origin::Own(Own::Note), Stamp::ZERO, false);
    }

    /// Orders an entry. Its proposed stamp is past everything this server has seen and `seen`.
    fn propose(
        &mut self,
        session: SessionId,
        sequence: u64,
        entry: Entry,
        origin: Origin,
        seen: Stamp,
        exist_ok: bool,
    ) {
        self.clock.observe(seen);
        let proposed = self.clock.tick(self.now.unix_us);
        let Role::Leader(leader) = &mut self.role else { return };
        let record = Record { position: Position(leader.last.0 + 1), proposed, session, sequence, entry };
        match codec::encode(&record) {
            Ok(bytes) if leader.in_flight.len() < MAX_QUEUED || origin == Origin::Own(Own::Note) => {
                leader.last = record.position;
                leader.in_flight.push_back(InFlight { record, origin, bytes: bytes.len(), exist_ok });
                leader.queue.push((leader.last, bytes));
            }
            Ok(_) => {
                let text = format!("{MAX_QUEUED} entries wait to be logged: try again");
                self.answer(origin, Err(Refusal::new(RefusalCode::Busy, text)));
            }
            Err(error) => {
                let text = format!("the request does not fit into a log entry: {error}");
                self.answer(origin, Err(Refusal::new(RefusalCode::TooLong, text)));
            }
        }
    }

    /// Hands what is queued to the store, all in one go, unless it is busy: what comes meanwhile shares the next flush.
    pub(super) fn flush_log(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.appending || leader.queue.is_empty() {
            return;
        }
        leader.appending = true;
        self.actions.push(Action::Append { records: std::mem::take(&mut leader.queue) });
    }

    /// The store holds everything up to a position: applies it, passes it on, answers.
    pub(super) fn log_grew(&mut self, position: Position) {
        let mut answers = Vec::new();
        loop {
            let Role::Leader(leader) = &mut self.role else { return };
            leader.appending = false;
            if leader.in_flight.front().is_none_or(|first| first.record.position > position) {
                break;
            }
            let Some(InFlight { record, origin, bytes, exist_ok }) = leader.in_flight.pop_front() else { break };
            self.counters.log_bytes += bytes as u64;
            // A gap cannot be: positions are given in order, one by one.
            if let Ok(Some(outcome)) = self.apply(&record) {
                let outcome = match (&record.entry, outcome) {
                    (Entry::ContainerCreate { name, .. }, Err(refusal))
                        if exist_ok && refusal.code == RefusalCode::Exists =>
                    {
                        self.pool.container_by_name(name)
                    }
                    (_, outcome) => outcome,
                };
                answers.push((origin, outcome));
            }
            if let Role::Leader(leader) = &mut self.role {
                leader.log.push((record, bytes));
            }
        }
        // Followers hear of an entry before the answers on the same connections, so that they know what they pass on.
        self.feed_followers();
        self.deliver();
        answers.into_iter().for_each(|(origin, outcome)| self.answer(origin, outcome));
    }

    /// Answers a question, from the state or through the log.
    pub(super) fn serve(&mut self, question: Question) {
        if let Some(outcome) = self.read(&question.request) {
            return self.answer(question.origin, outcome);
        }
        let Question { origin, session, sequence, request, .. } = question;
        if let Some(known) = self.pool.admit(session, sequence) {
            return self.answer(origin, known);
        }
        let seen = match &request {
            Request::Commit { summary, .. } => summary.hlc,
            _ => Stamp::ZERO,
        };
        if !self.is_plausible(seen) {
            return match origin {
                Origin::Client { peer, id } | Origin::Server { peer, id, .. } => self.refuse_clock(peer, id),
                Origin::Own(_) => {}
            };
        }
        let exist_ok = matches!(request, Request::ContainerCreate { exist_ok: true, .. });
        match self.entry_of(request, &origin) {
            Ok(entry) => self.propose(session, sequence, entry, origin, seen, exist_ok),
            Err(refusal) => self.answer(origin, Err(refusal)),
        }
    }

    /// Answers from the state, for requests that need no entry.
    fn read(&self, request: &Request) -> Option<Outcome> {
        Some(match request {
            Request::Map => match self.pool.map() {
                Some(map) => Ok(Reply::Map(map.clone())),
                None => self.pool.status(self.counters),
            },
            Request::Status => self.pool.status(self.counters),
            Request::ContainerOpen { name } => self.pool.container_by_name(name),
            Request::ContainerList => Ok(Reply::Containers(self.pool.container_list())),
            Request::ContainerCreate { name, exist_ok: true, .. } => match self.pool.container_by_name(name) {
                Ok(known) => Ok(known),
                Err(_) => return None,
            },
            Request::LogEnd => Ok(Reply::Position(self.pool.position())),
            Request::Suspect { .. } => Ok(Reply::Done),
            _ => return None,
        })
    }

    fn entry_of(&self, request: Request, origin: &Origin) -> Result<Entry, Refusal> {
        let home = match origin {
            Origin::Server { server, .. } => *server,
            _ => self.config.server.id,
        };
        Ok(match request {
            Request::SessionOpen { name, .. } => Entry::SessionOpen { home, name },
            Request::SessionEnded { session, joined, orderly } => Entry::SessionEnd { session, joined, orderly },
            Request::ContainerCreate { name, properties, .. } => Entry::ContainerCreate { name, properties },
            Request::ContainerDestroy { container } => Entry::ContainerDestroy { container },
            Request::Begin { container, collective } => Entry::Begin { container, collective },
            Request::Commit { tx, summary, attributes, next } => Entry::Commit { tx, summary, attributes, next },
            Request::Abort { tx, reason } => Entry::Abort { tx, reason },
            Request::SnapshotOpen { container, at } => Entry::SnapshotOpen { container, at },
            Request::SnapshotClose { lease } => Entry::SnapshotClose { lease },
            Request::SnapshotName { container, name, at } => Entry::SnapshotName { container, name, at },
            Request::SnapshotDestroy { container, name } => Entry::SnapshotDestroy { container, name },
            Request::Subscribe { container, after } => Entry::Subscription { container, after },
            Request::Producer { container, state } => Entry::Producer { container, state },
            _ => {
                return Err(Refusal::new(
                    RefusalCode::Argument,
                    "the home server answers this request, not the leader",
                ));
            }
        })
    }

    /// A request of another server.
    pub(super) fn server_request(&mut self, server: ServerId, peer: PeerId, question: Question) {
        let now_ns = self.now.monotonic_ns;
        let here = self.config.server.id;
        let Role::Leader(leader) = &mut self.role else {
            let text = format!("server {here} does not lead the log; server {} does", self.config.leader);
            return self.answer(question.origin, Err(Refusal::new(RefusalCode::Busy, text)));
        };
        if let Request::ServerUp { server: info, targets, boot } = question.request {
            return match info.id == server && server != here {
                true => self.register(peer, info, targets, boot, question.origin),
                false => {
                    let text = format!("this connection is server {server}'s, not server {}'s", info.id);
                    self.answer(question.origin, Err(Refusal::new(RefusalCode::Argument, text)));
                }
            };
        }
        let known = leader.followers.get_mut(&server).filter(|known| known.peer == Some(peer) && !known.lost);
        let Some(known) = known else {
            let text = format!("server {server} is not registered on this connection: register first");
            return self.answer(question.origin, Err(Refusal::new(RefusalCode::Busy, text)));
        };
        known.heard_ns = now_ns;
        match question.request {
            Request::Follow { after } => {
                known.sent = Some(after);
                self.feed_followers();
            }
            Request::Horizon { .. } => self.answer(question.origin, Ok(Reply::Position(self.pool.position()))),
            _ => self.serve(question),
        }
    }

    /// A server says that it is there.
    fn register(&mut self, peer: PeerId, server: ServerInfo, targets: Vec<TargetInfo>, boot: u64, origin: Origin) {
        let id = server.id;
        let heard_ns = self.now.monotonic_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        let before = leader.followers.get(&id);
        let is_same_process = before.is_some_and(|before| before.boot == boot);
        let was_lost = before.is_some_and(|before| before.lost);
        let sent = before.filter(|before| before.peer == Some(peer)).and_then(|before| before.sent);
        let follower = Follower {
            peer: Some(peer),
            last_peer: peer,
            boot,
            heard_ns,
            lost: false,
            sent,
            server: server.clone(),
            targets: targets.clone(),
        };
        leader.followers.insert(id, follower);
        if !self.pool_begun() {
            self.create_pool_if_complete();
            return self.answer(origin, Ok(Reply::Done));
        }
        if !is_same_process && !was_lost {
            // It came back before its silence was noticed, and has forgotten who wrote through it.
            self.declare_lost(id);
        }
        self.propose(SessionId(0), 0, Entry::ServerUp { server, targets }, origin, Stamp::ZERO, false);
    }

    /// Whether the pool has begun, or the entry that begins it is on its way.
    fn pool_begun(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let begins = |one: &InFlight| matches!(one.record.entry, Entry::PoolCreate { .. });
        self.pool.map().is_some() || leader.in_flight.iter().any(begins)
    }

    /// Begins the pool once all its first servers are there.
    fn create_pool_if_complete(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let here: Vec<&Follower> = leader.followers.values().filter(|follower| !follower.lost).collect();
        if self.pool_begun() || here.len() + 1 < self.config.servers_expected {
            return;
        }
        let mut servers: Vec<ServerInfo> = here.iter().map(|follower| follower.server.clone()).collect();
        servers.push(self.config.server.clone());
        servers.sort_by_key(|server| server.id);
        let mut targets: Vec<TargetInfo> = here.iter().flat_map(|follower| follower.targets.clone()).collect();
        targets.extend(self.config.targets.iter().cloned());
        self.note(Entry::PoolCreate { pool: self.config.pool, servers, targets });
    }

    /// A follower's connection ended. Its process may live and come back within the lease, unless it is known to be dead.
    pub(super) fn follower_gone(&mut self, server: ServerId, peer: PeerId, died: bool) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(known) = leader.followers.get_mut(&server).filter(|known| known.peer == Some(peer)) else { return };
        known.peer = None;
        known.sent = None;
        if died {
            known.lost = true;
            self.declare_lost(server);
        }
    }

    /// The process behind a connection that ended before is dead: if it was a follower's last one, so is the server.
    pub(super) fn departed_died(&mut self, peer: PeerId) {
        let Role::Leader(leader) = &mut self.role else { return };
        let gone = leader.followers.iter_mut().find(|(_, known)| known.last_peer == peer && known.peer.is_none());
        if let Some((server, known)) = gone.filter(|(_, known)| !known.lost) {
            known.lost = true;
            let server = *server;
            self.declare_lost(server);
        }
    }

    /// Declares followers lost that have been silent for longer than their lease.
    pub(super) fn judge_followers(&mut self) {
        let (now_ns, patience_ns) = (self.now.monotonic_ns, patience_ns(&self.config));
        let Role::Leader(leader) = &mut self.role else { return };
        let mut silent = Vec::new();
        for (id, follower) in &mut leader.followers {
            if !follower.lost && follower.heard_ns.saturating_add(patience_ns) <= now_ns {
                follower.lost = true;
                follower.sent = None;
                silent.push((*id, follower.peer.take()));
            }
        }
        for (server, peer) in silent {
            if let Some(peer) = peer {
                self.peers.remove(&peer);
                self.actions.push(Action::Close { peer });
            }
            self.declare_lost(server);
        }
    }

    /// A server is gone: its targets serve no more, and neither do its clients.
    fn declare_lost(&mut self, server: ServerId) {
        let Some(map) = self.pool.map() else { return };
        // Also those that are down already: an entry that brings them back may be on its way.
        let is_theirs = |target: &&TargetInfo| target.server == server;
        let targets: Vec<_> = map.targets.iter().filter(is_theirs).map(|target| target.id).collect();
        if !targets.is_empty() {
            tracing::warn!(%server, "server lost: its targets are down, open transactions abort");
            self.note(Entry::Targets { targets, state: TargetState::Down });
        }
        let sessions: Vec<SessionId> = self.pool.sessions_of(server).collect();
        for session in sessions {
            self.note(Entry::SessionEnd { session, joined: Vec::new(), orderly: false });
        }
    }

    /// Sends each follower what it lacks.
    fn feed_followers(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let mut batches = Vec::new();
        for follower in leader.followers.values_mut() {
            let (Some(peer), Some(sent)) = (follower.peer, &mut follower.sent) else { continue };
            while (sent.0 as usize) < leader.log.len() {
                let (mut bytes, mut records) = (0, Vec::new());
                for (record, record_bytes) in leader.log.iter().skip(sent.0 as usize).take(BATCH_RECORDS) {
                    if !records.is_empty() && bytes + record_bytes > BATCH_BYTES {
                        break;
                    }
                    bytes += record_bytes;
                    records.push(record.clone());
                }
                *sent = Position(sent.0 + records.len() as u64);
                batches.push((peer, records));
            }
        }
        batches.into_iter().for_each(|(peer, records)| self.send(peer, 0, Body::Batch(records)));
    }
}
