//! The leader's followers: who registers, who was heard of when, and when a silent one is declared lost (rules 11, 12).
//!
//! Must never declare a server lost before the lease that it may still hold is over.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::{Position, ServerId, ServerInfo, SessionId, Stamp, TargetInfo, TargetState};
use talea_wire::control::Reply;
use talea_wire::log::Entry;

use super::InFlight;
use crate::node::feed::batches;
use crate::node::question::Origin;
use crate::node::{Action, Node, NodeConfig, Role};

/// Part of the lease that a server's silence is tolerated longer than the server itself serves: drift of clocks.
const DRIFT_PART: u64 = 8;

/// A server that follows.
#[derive(Debug)]
pub(in crate::node) struct Follower {
    /// Its connection, if there is one, and the last one it had.
    pub(in crate::node) peer: Option<PeerId>,
    pub(super) last_peer: PeerId,
    pub(super) boot: u64,
    pub(super) heard_ns: u64,
    /// It has been declared lost, and is nobody until it registers again.
    pub(in crate::node) lost: bool,
    /// When that was.
    pub(in crate::node) lost_ns: u64,
    /// The sessions that lived there have ended since.
    pub(super) has_no_sessions: bool,
    /// Last position sent; `None` before it asked for the log on this connection.
    pub(super) sent: Option<Position>,
    pub(super) server: ServerInfo,
    pub(super) targets: Vec<TargetInfo>,
}

impl Follower {
    pub(super) fn lose(&mut self, now_ns: u64) {
        (self.lost, self.lost_ns, self.has_no_sessions) = (true, now_ns, false);
    }

    /// Until when the sessions of a lost server wait for it. One that has not been heard of since the system was off has none to wait for.
    pub(super) fn sessions_end_ns(&self, config: &NodeConfig, is_cold: bool) -> u64 {
        let lease_ms = if is_cold && self.boot == 0 { 0 } else { config.session_lease_ms };
        self.lost_ns.saturating_add(lease_ms.saturating_mul(1_000_000))
    }
}

#[cfg(test)]
impl Follower {
    /// Whether the leader tells it of records itself.
    pub(in crate::node) fn is_fed(&self) -> bool {
        self.peer.is_some() && self.sent.is_some()
    }
}

pub(super) fn patience_ns(config: &NodeConfig) -> u64 {
    (config.lease_ms + config.lease_ms / DRIFT_PART).saturating_mul(1_000_000)
}

impl Node {
    /// Expects a server of the map that has not been heard of yet.
    pub(super) fn expect(&mut self, server: &ServerInfo) {
        let heard_ns = self.now.monotonic_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        let follower = Follower {
            peer: None,
            last_peer: PeerId(u64::MAX),
            boot: 0,
            heard_ns,
            lost: false,
            lost_ns: 0,
            has_no_sessions: false,
            sent: None,
            server: server.clone(),
            targets: Vec::new(),
        };
        leader.followers.insert(server.id, follower);
    }

    /// A server says that it is there.
    pub(super) fn register(
        &mut self,
        peer: PeerId,
        server: ServerInfo,
        targets: Vec<TargetInfo>,
        (boot, remembers): (u64, bool),
        origin: Origin,
    ) {
        let id = server.id;
        let heard_ns = self.now.monotonic_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        let before = leader.followers.get(&id);
        let sent = before.filter(|before| before.peer == Some(peer)).and_then(|before| before.sent);
        let follower = Follower {
            peer: Some(peer),
            last_peer: peer,
            boot,
            heard_ns,
            lost: false,
            lost_ns: 0,
            has_no_sessions: false,
            sent,
            server: server.clone(),
            targets: targets.clone(),
        };
        leader.followers.insert(id, follower);
        if !self.pool_begun() {
            self.create_pool_if_complete();
            return self.answer(origin, Ok(Reply::Done));
        }
        let entry = Entry::ServerUp { server, targets, boot, remembers };
        self.propose(SessionId(0), 0, entry, origin, Stamp::ZERO, (false, None));
    }

    /// Whether the pool has begun, or the entry that begins it is on its way.
    pub(super) fn pool_begun(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let begins = |one: &InFlight| matches!(one.proposal.entry, Entry::PoolCreate { .. });
        self.pool.map().is_some() || leader.in_flight.iter().chain(&leader.queue).any(begins)
    }

    /// Begins the pool once all its first servers are there.
    pub(super) fn create_pool_if_complete(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let here: Vec<&Follower> = leader.followers.values().filter(|follower| !follower.lost).collect();
        if self.pool_begun() || here.len() + 1 < self.config.servers_expected {
            return;
        }
        let mut servers: Vec<(ServerInfo, u64)> =
            here.iter().map(|follower| (follower.server.clone(), follower.boot)).collect();
        servers.push((self.config.server.clone(), self.config.boot));
        servers.sort_by_key(|(server, _)| server.id);
        let (servers, boots) = servers.into_iter().unzip();
        let mut targets: Vec<TargetInfo> = here.iter().flat_map(|follower| follower.targets.clone()).collect();
        targets.extend(self.config.targets.iter().cloned());
        self.note(Entry::PoolCreate { pool: self.config.pool, servers, targets, boots });
    }

    /// A follower's connection ended. Its process may live and come back within the lease, unless it is known to be dead.
    pub(in crate::node) fn follower_gone(&mut self, server: ServerId, peer: PeerId, died: bool) {
        let now_ns = self.now.monotonic_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(known) = leader.followers.get_mut(&server).filter(|known| known.peer == Some(peer)) else { return };
        known.peer = None;
        known.sent = None;
        if died {
            known.lose(now_ns);
            self.declare_lost(server);
        }
    }

    /// The process behind a connection that ended before is dead: if it was a follower's last one, so is the server.
    pub(in crate::node) fn departed_died(&mut self, peer: PeerId) {
        let now_ns = self.now.monotonic_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        let gone = leader.followers.iter_mut().find(|(_, known)| known.last_peer == peer && known.peer.is_none());
        if let Some((server, known)) = gone.filter(|(_, known)| !known.lost) {
            known.lose(now_ns);
            let server = *server;
            self.declare_lost(server);
        }
    }

    /// Declares followers lost that have been silent for longer than their lease.
    pub(in crate::node) fn judge_followers(&mut self) {
        let (now_ns, patience_ns) = (self.now.monotonic_ns, patience_ns(&self.config));
        let Role::Leader(leader) = &mut self.role else { return };
        let mut silent = Vec::new();
        for (id, follower) in &mut leader.followers {
            if !follower.lost && follower.heard_ns.saturating_add(patience_ns) <= now_ns {
                follower.lose(now_ns);
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
        self.end_lost_sessions();
    }

    /// Ends the sessions that live at servers which have been lost for longer than a session lasts by itself.
    pub(super) fn end_lost_sessions(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let Role::Leader(leader) = &mut self.role else { return };
        let (mut over, is_cold) = (Vec::new(), leader.is_cold);
        for (id, follower) in &mut leader.followers {
            let is_over = follower.lost && follower.sessions_end_ns(&self.config, is_cold) <= now_ns;
            if is_over && !std::mem::replace(&mut follower.has_no_sessions, true) {
                over.push(*id);
            }
        }
        let pool = &self.pool;
        let of_server = |server| pool.sessions_of(server).map(move |session| (session, server));
        let sessions: Vec<(SessionId, ServerId)> = over.into_iter().flat_map(of_server).collect();
        for (session, server) in sessions {
            self.note(Entry::SessionEnd { session, home: Some(server), joined: Vec::new(), orderly: false });
        }
    }

    /// A server is gone: its targets serve no more. Its clients have a while to come back to it.
    pub(super) fn declare_lost(&mut self, server: ServerId) {
        let Some(map) = self.pool.map() else { return };
        // Also those that are down already: an entry that brings them back may be on its way.
        let is_theirs = |target: &&TargetInfo| target.server == server;
        let targets: Vec<_> = map.targets.iter().filter(is_theirs).map(|target| target.id).collect();
        if !targets.is_empty() {
            tracing::warn!(%server, "server lost: its targets are down");
            self.note(Entry::Targets { targets, state: TargetState::Down });
        }
        if self.config.session_lease_ms == 0 {
            self.end_lost_sessions();
        }
    }

    /// Sends each follower what it lacks.
    pub(in crate::node) fn feed_followers(&mut self) {
        let (Role::Leader(leader), Some(replica)) = (&mut self.role, &self.replica) else { return };
        let (end, mut behind) = (self.pool.position(), Vec::new());
        let mut groups = BTreeMap::<Position, Vec<PeerId>>::new();
        for follower in leader.followers.values_mut() {
            let (Some(peer), Some(sent)) = (follower.peer, &mut follower.sent) else { continue };
            if *sent < end && replica.tail.after(*sent).is_none() {
                // It asks to follow again when it has the image.
                follower.sent = None;
                behind.push(peer);
            } else if *sent < end {
                groups.entry(*sent).or_default().push(peer);
                *sent = end;
            }
        }
        let feeds: Vec<_> =
            groups.into_iter().filter_map(|(sent, peers)| Some((peers, batches(&replica.tail, sent, end)?))).collect();
        feeds.into_iter().for_each(|(peers, batches)| self.send_batches(&peers, batches));
        behind.into_iter().for_each(|peer| self.begin_image(peer));
    }
}
