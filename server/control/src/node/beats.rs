//! Heartbeats that travel through others: a server puts those of its children together with its own, so that the leader hears a few
//! messages of all servers.
//!
//! Each server's lease still counts from when it sent its own heartbeat, and only the leader confirms it (rule 11): what is put
//! together is answered when the leader has answered, and only to those whose heartbeats were in it. Must never confirm a heartbeat
//! that came after the question that was answered.

use talea_fabric::PeerId;
use talea_model::{Position, ServerId};
use talea_wire::control::{Beat, Body, Reply, Request};
use talea_wire::{Refusal, RefusalCode};

use super::question::Own;
use super::{Node, NodeConfig, Role};

/// Part of the time between heartbeats for which one waits for those of children.
const GATHER_PART: u64 = 16;
const GATHER_MS_MAX: u64 = 50;

/// A child's heartbeats, and where their answer goes.
#[derive(Debug)]
struct Heard {
    peer: PeerId,
    id: u64,
    beats: Vec<Beat>,
}

/// Heartbeats on their way to the leader.
#[derive(Debug)]
struct Flying {
    number: u64,
    sent_ns: u64,
    /// By when the server that they were sent through has to answer.
    due_ns: u64,
    /// Whether this server's own is among them.
    has_own: bool,
    heard: Vec<Heard>,
}

/// The heartbeats of one server and those that follow through it.
#[derive(Debug, Default)]
pub(super) struct Beats {
    waiting: Vec<Heard>,
    flying: Option<Flying>,
    /// When those that wait go, complete or not.
    gather_ns: Option<u64>,
}

impl Beats {
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let due_ns = self.flying.as_ref().map(|flying| flying.due_ns).filter(|due_ns| *due_ns != u64::MAX);
        [self.gather_ns, due_ns].into_iter().flatten().min()
    }

    /// Whether the server that they were sent through has not answered in time.
    pub(super) fn is_overdue(&self, now_ns: u64) -> bool {
        self.flying.as_ref().is_some_and(|flying| flying.due_ns <= now_ns)
    }

    /// What was sent has to be sent another way; says whether there is anything.
    pub(super) fn turn_back(&mut self) -> bool {
        let Some(flying) = self.flying.take() else { return false };
        self.waiting.extend(flying.heard);
        true
    }

    /// When those that wait go.
    pub(super) fn gather_due(&self) -> Option<u64> {
        self.gather_ns
    }

    /// A child's connection has ended.
    pub(super) fn lost(&mut self, peer: PeerId) {
        self.waiting.retain(|heard| heard.peer != peer);
    }

    /// Who waits for an answer.
    pub(super) fn askers(&self) -> Vec<(PeerId, u64)> {
        let flying = self.flying.iter().flat_map(|flying| &flying.heard);
        self.waiting.iter().chain(flying).map(|heard| (heard.peer, heard.id)).collect()
    }
}

fn gather_ns(config: &NodeConfig) -> u64 {
    (config.heartbeat_ms / GATHER_PART).min(GATHER_MS_MAX) * 1_000_000
}

impl Node {
    /// A child's heartbeats: they go on when those of all children are there, or a moment later.
    pub(super) fn hear_beats(&mut self, peer: PeerId, id: u64, beats: Vec<Beat>) {
        let gather_ns = self.now.monotonic_ns + gather_ns(&self.config);
        let Role::Follower(follower) = &mut self.role else { return };
        follower.beats.lost(peer);
        follower.beats.waiting.push(Heard { peer, id, beats });
        let is_complete = follower.beats.waiting.len() >= follower.downstream.len();
        match is_complete && follower.beats.flying.is_none() {
            true => self.send_beats(),
            false => _ = follower.beats.gather_ns.get_or_insert(gather_ns),
        }
    }

    /// This server's own heartbeat is due.
    pub(super) fn beat(&mut self) {
        let (now_ns, gather_ns) = (self.now.monotonic_ns, gather_ns(&self.config));
        let heartbeat_ns = self.config.heartbeat_ms * 1_000_000;
        let Role::Follower(follower) = &mut self.role else { return };
        follower.heartbeat_ns = now_ns + heartbeat_ns;
        match follower.downstream.len() {
            0 => self.send_beats(),
            _ => _ = follower.beats.gather_ns.get_or_insert(now_ns + gather_ns),
        }
    }

    /// Sends all heartbeats that are there.
    pub(super) fn send_beats(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let (heartbeat_ns, patience_ns) = (self.config.heartbeat_ms * 1_000_000, self.config.patience_ns());
        let own = Beat { server: self.config.server.id, boot: self.config.boot, durable: self.durable };
        let Role::Follower(follower) = &mut self.role else { return };
        follower.beats.gather_ns = None;
        follower.heartbeat_ns = now_ns + heartbeat_ns;
        follower.beats.turn_back();
        let heard = std::mem::take(&mut follower.beats.waiting);
        let source = follower.upstream.peer();
        // Requests that get no answer say that the way to the leader may be broken, which only a heartbeat on that way can tell.
        let is_direct = source.is_none() || follower.is_stuck(now_ns.saturating_sub(heartbeat_ns));
        if is_direct {
            self.ask_own(Own::Heartbeat { sent_ns: now_ns }, Request::Horizon { durable: own.durable });
        }
        if heard.is_empty() && is_direct {
            return;
        }
        let Role::Follower(follower) = &mut self.role else { return };
        let own = (!is_direct).then_some(own);
        let has_own = own.is_some();
        let beats = own.into_iter().chain(heard.iter().flat_map(|heard| heard.beats.iter().cloned())).collect();
        let number = follower.next_id();
        let due_ns = if source.is_some() { now_ns + patience_ns } else { u64::MAX };
        follower.beats.flying = Some(Flying { number, sent_ns: now_ns, due_ns, has_own, heard });
        match source {
            Some(peer) => self.ask_source(peer, number, Request::Beats(beats)),
            None => self.ask_own(Own::Beats { number }, Request::Beats(beats)),
        }
    }

    /// The leader has heard them.
    pub(super) fn beats_heard(&mut self, number: u64, end: Position, unknown: &[ServerId]) {
        let (now_ns, heartbeat_ns) = (self.now.monotonic_ns, self.config.heartbeat_ms * 1_000_000);
        let (here, position) = (self.config.server.id, self.pool.position());
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(flying) = follower.beats.flying.take_if(|flying| flying.number == number) else { return };
        // All who follow through one server send at the same time from now on.
        follower.heartbeat_ns = follower.heartbeat_ns.max(now_ns + heartbeat_ns);
        for heard in flying.heard {
            let theirs = |server: &&ServerId| heard.beats.iter().any(|beat| beat.server == **server);
            let unknown = unknown.iter().filter(theirs).copied().collect();
            self.send(heard.peer, heard.id, Body::Reply(Reply::Heard { end, unknown }));
        }
        if flying.has_own && unknown.contains(&here) {
            return self.begin_again();
        }
        if flying.has_own {
            self.hold_lease(flying.sent_ns);
            // One that has run out begins anew behind all that was decided meanwhile.
            self.lease_of_follower(position >= end);
        }
        self.ask_again_below(end);
    }

    /// Heartbeats that a server passes on to the leader; its own was heard with the message.
    pub(super) fn passed_on(&mut self, beats: Vec<Beat>) -> Reply {
        let now_ns = self.now.monotonic_ns;
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        if let Role::Leader(leader) = &mut self.role {
            for beat in beats {
                match leader.hear(beat.server, beat.boot, now_ns) {
                    true => known.push(beat),
                    false => unknown.push(beat.server),
                }
            }
        }
        known.into_iter().for_each(|beat| self.confirm(beat.server, beat.durable));
        Reply::Heard { end: self.pool.position(), unknown }
    }

    /// Tells those whose heartbeats wait here that they have to be sent another way.
    pub(super) fn refuse_beats(&mut self, askers: Vec<(PeerId, u64)>) {
        for (peer, id) in askers {
            let text = format!("server {} follows through nobody", self.config.server.id);
            self.send(peer, id, Body::Refused(Refusal::new(RefusalCode::Busy, text)));
        }
    }
}
