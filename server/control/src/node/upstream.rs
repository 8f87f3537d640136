//! Where this server follows the log: through another server where there are many, else from the leader itself.
//!
//! Owns the choice, and its end: who says nothing in time, is stopped or cut off is passed over, and this server follows the leader
//! until another one on the way to it passes the log on. The leader is left only when the other one has said so. Must never touch
//! the membership: each server registers with the leader itself.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::{MapVersion, Position, ServerId, SessionId};
use talea_wire::control::{Reply, Request};

use super::question::{Origin, Own, Question};
use super::{Node, NodeConfig, Role};
use crate::pool::Outcome;

/// How long a server may say nothing when something is due, at most.
const PATIENCE_MS_MAX: u64 = 500;

/// A server that passes the log on to this one.
#[derive(Clone, Copy, Debug)]
struct Source {
    server: ServerId,
    peer: PeerId,
}

/// A server that is asked to.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    server: ServerId,
    /// None while it is being connected to.
    peer: Option<PeerId>,
    /// By when it has to answer.
    due_ns: u64,
}

/// Where this server follows.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// None: the leader itself.
    source: Option<Source>,
    candidate: Option<Candidate>,
    /// Servers that did not do it, and until when they are not asked again.
    avoided: BTreeMap<ServerId, u64>,
    /// An end of the log that is known, and by when something has to come.
    behind: Option<(Position, u64)>,
    /// A question for the log's end that is on its way, and by when it has to be answered.
    asked: Option<(u64, u64)>,
    /// When to look for another source.
    look_ns: Option<u64>,
    /// The map that the source was chosen by.
    map: MapVersion,
}

impl Upstream {
    /// The connection over which this server follows, if that is not the leader's.
    pub(super) fn peer(&self) -> Option<PeerId> {
        self.source.map(|source| source.peer)
    }

    /// Whether this server follows through that one.
    pub(super) fn is_server(&self, server: ServerId) -> bool {
        self.source.is_some_and(|source| source.server == server)
    }

    /// Whether a connection is the source's, or that of one which is asked.
    pub(super) fn is_peer(&self, peer: PeerId) -> bool {
        self.peer() == Some(peer) || self.is_candidate(peer)
    }

    fn is_candidate(&self, peer: PeerId) -> bool {
        self.candidate.is_some_and(|candidate| candidate.peer == Some(peer))
    }

    /// Whoever asked will ask again.
    pub(super) fn forget_question(&mut self) {
        self.asked = None;
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let behind_ns = self.behind.map(|(_, due_ns)| due_ns);
        let asked_ns = self.asked.map(|(_, due_ns)| due_ns);
        [behind_ns, asked_ns, self.candidate.map(|candidate| candidate.due_ns), self.look_ns]
            .into_iter()
            .flatten()
            .min()
    }
}

impl NodeConfig {
    /// For how long a server that passes the log on may say nothing when something is due.
    pub(super) fn patience_ns(&self) -> u64 {
        (self.heartbeat_ms / 2).clamp(1, PATIENCE_MS_MAX) * 1_000_000
    }
}

impl Node {
    /// Looks whom to follow through, and asks if that is another one than now.
    pub(super) fn look_for_source(&mut self) {
        let (now_ns, due_ns) = (self.now.monotonic_ns, self.now.monotonic_ns + self.config.patience_ns());
        let (Role::Follower(follower), Some(map)) = (&mut self.role, self.pool.map()) else { return };
        let is_ready = follower.is_ready() && follower.image.is_none();
        let upstream = &mut follower.upstream;
        upstream.look_ns = None;
        if !is_ready || upstream.behind.is_some() || upstream.candidate.is_some() {
            // Looks again when that is over.
            return;
        }
        upstream.map = map.version;
        upstream.avoided.retain(|_, until_ns| *until_ns > now_ns);
        let path = self.config.fan_out.path(map, follower.leader, self.config.server.id);
        let wanted = path.iter().find(|server| !upstream.avoided.contains_key(server)).copied();
        if wanted != path.first().copied() {
            upstream.look_ns = path.iter().filter_map(|server| upstream.avoided.get(server)).min().copied();
        }
        if wanted == upstream.source.map(|source| source.server) {
            return;
        }
        let Some(server) = wanted else { return self.follow_leader() };
        upstream.candidate = Some(Candidate { server, peer: None, due_ns });
        match self.link_to(server) {
            Some(peer) => self.ask_candidate(server, peer),
            None if self.is_dialing(server) => {}
            None => self.candidate_failed(),
        }
    }

    /// A connection to a server is up: it may be one that is to be asked.
    pub(super) fn ask_candidate(&mut self, server: ServerId, peer: PeerId) {
        let after = self.pool.position();
        let Some(follower) = self.follower() else { return };
        let Some(candidate) = &mut follower.upstream.candidate else { return };
        if candidate.server == server && candidate.peer.is_none() {
            candidate.peer = Some(peer);
            self.ask_source(peer, 0, Request::FollowThrough { after });
        }
    }

    pub(super) fn ask_source(&mut self, peer: PeerId, id: u64, request: Request) {
        let origin = Origin::Own(Own::Note);
        let question = Question { origin, session: SessionId(0), sequence: 0, deadline_ns: u64::MAX, request };
        self.send_request(peer, id, &question);
    }

    /// A server could not be reached.
    pub(super) fn candidate_unreachable(&mut self, server: ServerId) {
        let Some(follower) = self.follower() else { return };
        if follower.upstream.candidate.is_some_and(|candidate| candidate.server == server && candidate.peer.is_none()) {
            self.candidate_failed();
        }
    }

    fn candidate_failed(&mut self) {
        let until_ns = self.now.monotonic_ns + self.config.lease_ms * 1_000_000;
        let Some(follower) = self.follower() else { return };
        if let Some(candidate) = follower.upstream.candidate.take() {
            follower.upstream.avoided.insert(candidate.server, until_ns);
            if let Some(peer) = candidate.peer {
                // It may only be slow.
                self.ask_source(peer, 0, Request::Unfollow);
            }
        }
        self.look_for_source();
    }

    /// The one that was asked passes the log on: the one before need not any more.
    fn candidate_agreed(&mut self) {
        let Some(follower) = self.follower() else { return };
        let Some(Candidate { server, peer: Some(peer), .. }) = follower.upstream.candidate.take() else { return };
        let leader = follower.peer();
        let before = follower.upstream.source.replace(Source { server, peer });
        follower.upstream.behind = None;
        follower.refollowing = false;
        if let Some(before) = before.map(|before| before.peer).or(leader) {
            self.ask_source(before, 0, Request::Unfollow);
        }
        self.turn_back();
        self.look_for_source();
    }

    /// What was asked through another server is asked anew.
    fn turn_back(&mut self) {
        let Some(follower) = self.follower() else { return };
        if follower.upstream.asked.take().is_some() {
            let again = std::mem::take(&mut follower.catching_up);
            follower.catch_ups.extend(again);
        }
        let is_ready = follower.is_ready();
        let had_beats = follower.beats.turn_back();
        if is_ready {
            self.ask_for_end();
            if had_beats {
                self.send_beats();
            }
        }
    }

    /// The server that this one followed through does not do: back to the leader, and then to the next one on the way to it.
    fn source_failed(&mut self) {
        let until_ns = self.now.monotonic_ns + self.config.lease_ms * 1_000_000;
        let Some(follower) = self.follower() else { return };
        if let Some(source) = follower.upstream.source {
            tracing::info!(server = %source.server, "following the pool's log past a server that does not pass it on");
            follower.upstream.avoided.insert(source.server, until_ns);
        }
        match follower.upstream.source {
            Some(_) => self.follow_leader(),
            None => self.turn_back(),
        }
        self.look_for_source();
    }

    /// Follows the leader itself.
    fn follow_leader(&mut self) {
        let Some(follower) = self.follower() else { return };
        let leader = follower.peer();
        let Some(source) = follower.upstream.source.take() else { return };
        follower.upstream.behind = None;
        follower.refollowing = false;
        self.ask_source(source.peer, 0, Request::Unfollow);
        if let Some(leader) = leader {
            self.ask_for_records(leader);
        }
        self.turn_back();
    }

    /// A connection to another server has ended.
    pub(super) fn relative_lost(&mut self, peer: PeerId) {
        let Some(follower) = self.follower() else { return };
        follower.downstream.lost(peer);
        follower.beats.lost(peer);
        if follower.upstream.is_candidate(peer) {
            self.candidate_failed();
        } else if follower.upstream.peer() == Some(peer) {
            self.source_failed();
        }
    }

    /// The server that leads now is followed over the connection that was the source's: it is that no more.
    pub(super) fn source_leads(&mut self, peer: PeerId) {
        let Some(follower) = self.follower() else { return };
        if follower.upstream.is_candidate(peer) {
            follower.upstream.candidate = None;
        }
        if follower.upstream.peer() == Some(peer) {
            follower.upstream.source = None;
            follower.upstream.behind = None;
            self.turn_back();
        }
    }

    /// An answer of the server that this one follows through, or asked to.
    pub(super) fn source_answered(&mut self, peer: PeerId, id: u64, outcome: Outcome) {
        let Some(follower) = self.follower() else { return };
        let is_end = follower.upstream.asked.is_some_and(|(asked, _)| asked == id);
        match outcome {
            Ok(Reply::Position(end)) if is_end => {
                follower.upstream.asked = None;
                self.end_known(end);
            }
            Ok(Reply::Heard { end, unknown }) => self.beats_heard(id, end, &unknown),
            Err(_) if follower.upstream.is_candidate(peer) => self.candidate_failed(),
            Err(_) if follower.upstream.peer() == Some(peer) => self.source_failed(),
            _ => {}
        }
    }

    /// Asks through the source for the log's end.
    pub(super) fn ask_source_for_end(&mut self, peer: PeerId) {
        let due_ns = self.now.monotonic_ns + self.config.patience_ns();
        let Some(follower) = self.follower() else { return };
        let id = follower.next_id();
        follower.upstream.asked = Some((id, due_ns));
        self.ask_source(peer, id, Request::EndThrough);
    }

    /// Whether records from this peer are to be applied. Who sends some unasked is told to stop.
    pub(super) fn is_fed_by(&mut self, peer: PeerId) -> bool {
        let Some(follower) = self.follower() else { return false };
        let (is_link, source) = (follower.is_link(peer), follower.upstream.peer());
        if follower.upstream.is_candidate(peer) {
            self.candidate_agreed();
            return true;
        }
        if source == Some(peer) || (is_link && source.is_none()) {
            return true;
        }
        self.ask_source(peer, 0, Request::Unfollow);
        is_link
    }

    /// The log's end is known: if this server follows through another one, records have to come before long.
    pub(super) fn expect_records(&mut self, end: Position) {
        let (here, due_ns) = (self.pool.position(), self.now.monotonic_ns + self.config.patience_ns());
        let Some(follower) = self.follower() else { return };
        if here < end {
            follower.upstream.behind.get_or_insert((end, due_ns));
        }
    }

    /// Records came.
    pub(super) fn moved_on(&mut self) {
        let (here, due_ns) = (self.pool.position(), self.now.monotonic_ns + self.config.patience_ns());
        let map = self.pool.map().map_or(MapVersion(0), |map| map.version);
        let Some(follower) = self.follower() else { return };
        let upstream = &mut follower.upstream;
        let was_behind = upstream.behind.is_some();
        upstream.behind = upstream.behind.filter(|(end, _)| here < *end).map(|(end, _)| (end, due_ns));
        if (was_behind && upstream.behind.is_none()) || upstream.map != map {
            self.look_for_source();
        }
    }

    /// What time makes due.
    pub(super) fn upstream_timers(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let Some(follower) = self.follower() else { return };
        let upstream = &follower.upstream;
        let is_past = |due_ns: Option<u64>| due_ns.is_some_and(|due_ns| due_ns <= now_ns);
        let is_silent =
            is_past(upstream.behind.map(|(_, due_ns)| due_ns)) || is_past(upstream.asked.map(|(_, due_ns)| due_ns));
        if is_silent || follower.beats.is_overdue(now_ns) {
            self.source_failed();
        }
        let Some(follower) = self.follower() else { return };
        let (is_unanswered, is_to_look) = (
            is_past(follower.upstream.candidate.map(|candidate| candidate.due_ns)),
            is_past(follower.upstream.look_ns),
        );
        if is_unanswered {
            self.candidate_failed();
        } else if is_to_look {
            self.look_for_source();
        }
        let Some(follower) = self.follower() else { return };
        if is_past(follower.beats.gather_due()) {
            self.send_beats();
        }
    }
}
