//! Who holds the log's replicas when servers are lost, or come back without their part of the log.
//!
//! Owned by the leader, which changes the membership of Raft by one step at a time: a new replica learns first, and counts only
//! when it has caught up. A server that lost its log is another replica ([`ReplicaId`]): the one that it was goes. One that
//! stays away goes when another server can take its place. Must never take a replica's word for what it has forgotten.

use std::collections::BTreeSet;

use talea_model::ServerId;

use super::links::replicas_wanted;
use super::raft::ReplicaId;
use super::{Node, Role};

/// A server's replica is given to another one when it has been lost for so many leases.
const AWAY_LEASES: u64 = 10;
/// How often the leader looks, in milliseconds.
const LOOK_MS: u64 = 100;

/// Where a replica is.
enum Whereabouts {
    /// There, or away for a short time.
    Here,
    /// Its server has begun another log.
    Forgotten(ReplicaId),
    /// Its server has been lost for long.
    Gone,
}

impl Node {
    /// Takes the next step towards replicas that are all there, if there is one to take.
    pub(super) fn mend_replicas(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let (Role::Leader(leader), Some(replica)) = (&mut self.role, &self.replica) else { return };
        if replica.is_alone() || replica.is_changing() || now_ns < leader.look_ns || self.pool.map().is_none() {
            return;
        }
        leader.look_ns = now_ns + LOOK_MS * 1_000_000;
        let members = replica.members();
        if let Some(wanted) = members.joining {
            // An earlier leader had begun it.
            return replica.set_voters(wanted);
        }
        let wanted = self.voters_wanted(&members.voters);
        let new: Vec<ReplicaId> = wanted.difference(&members.voters).copied().collect();
        let Some(replica) = &self.replica else { return };
        if wanted == members.voters {
            return self.mend_learners(&members.voters, &members.learners);
        }
        match new.iter().find(|id| !members.learners.contains(id)) {
            Some(id) => {
                tracing::info!(replica = %id, "a new replica of the pool's log");
                replica.add_learner(*id);
            }
            None if new.iter().all(|id| replica.has_caught_up(*id)) => replica.set_voters(wanted),
            None => {}
        }
    }

    /// Who shall count.
    fn voters_wanted(&self, voters: &BTreeSet<ReplicaId>) -> BTreeSet<ReplicaId> {
        let (mut wanted, mut gone) = (BTreeSet::new(), Vec::new());
        for id in voters {
            match self.whereabouts(*id) {
                Whereabouts::Here => _ = wanted.insert(*id),
                Whereabouts::Forgotten(now) => _ = wanted.insert(now),
                Whereabouts::Gone => gone.push(*id),
            }
        }
        let servers = self.pool.map().map_or(&[][..], |map| &map.servers);
        let taken: BTreeSet<ServerId> = wanted.iter().chain(&gone).map(|id| id.server).collect();
        let free = servers.iter().map(|server| server.id).filter(|server| !taken.contains(server));
        let mut spares = free.filter_map(|server| self.living_replica(server));
        // Without a spare it may as well come back.
        let filled: Vec<ReplicaId> = gone.into_iter().map(|gone| spares.next().unwrap_or(gone)).collect();
        wanted.extend(filled);
        while wanted.len() < replicas_wanted(servers.len())
            && let Some(spare) = spares.next()
        {
            wanted.insert(spare);
        }
        wanted
    }

    fn whereabouts(&self, id: ReplicaId) -> Whereabouts {
        match self.living_replica(id.server) {
            Some(now) if now != id => Whereabouts::Forgotten(now),
            None if self.has_been_lost_for(id.server) >= AWAY_LEASES * self.config.lease_ms * 1_000_000 => {
                Whereabouts::Gone
            }
            _ => Whereabouts::Here,
        }
    }

    /// The replica that a server is or can be, if it is there and has said.
    fn living_replica(&self, server: ServerId) -> Option<ReplicaId> {
        if server == self.config.server.id {
            return Some(ReplicaId { server, life: self.config.life });
        }
        let Role::Leader(leader) = &self.role else { return None };
        let is_there = leader.followers.get(&server).is_some_and(|known| !known.lost && known.peer.is_some());
        let card = self.links.card_of(server).filter(|_| is_there)?;
        Some(ReplicaId { server, life: card.life })
    }

    fn has_been_lost_for(&self, server: ServerId) -> u64 {
        let Role::Leader(leader) = &self.role else { return 0 };
        let known = leader.followers.get(&server).filter(|known| known.lost);
        known.map_or(0, |known| self.now.monotonic_ns.saturating_sub(known.lost_ns))
    }

    /// A replica that counts no more and has come back still has its log: as a learner it hears that nobody waits for its votes.
    /// A learner that is no more goes.
    fn mend_learners(&self, voters: &BTreeSet<ReplicaId>, learners: &BTreeSet<ReplicaId>) {
        let Some(replica) = &self.replica else { return };
        let stale = learners.iter().find(|id| self.living_replica(id.server).is_some_and(|now| now != **id));
        if let Some(stale) = stale {
            return replica.remove_learner(*stale);
        }
        let servers = self.pool.map().map_or(&[][..], |map| &map.servers);
        let holds = |server: &ServerId| self.links.card_of(*server).is_some_and(|card| card.holds);
        let holders =
            servers.iter().map(|server| server.id).filter(holds).filter_map(|server| self.living_replica(server));
        if let Some(back) = holders.into_iter().find(|id| !voters.contains(id) && !learners.contains(id)) {
            replica.add_learner(back);
        }
    }
}
