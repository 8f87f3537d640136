//! Servers that follow the log through this one: what they are sent, and what they ask.
//!
//! Owns the newest records, for those who begin to follow here, and who was sent what. Whatever a child asks of the leader joins
//! the next question of this server's own. Must never answer for the leader, nor pass on what is not applied here.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::{Position, ServerId};
use talea_wire::control::{Body, Request};
use talea_wire::log::Record;
use talea_wire::{Refusal, RefusalCode, codec};

use super::feed::batches;
use super::follower::CatchUp;
use super::question::{Origin, Question};
use super::raft::Tail;
use super::{Node, Role};

/// Records and bytes that are kept for who begins to follow, at most.
const KEPT_RECORDS: usize = 4096;
const KEPT_BYTES: usize = 4 << 20;

/// A server that follows through this one.
#[derive(Debug)]
struct Child {
    peer: PeerId,
    sent: Position,
}

/// What is passed on.
#[derive(Debug, Default)]
pub(super) struct Downstream {
    children: BTreeMap<ServerId, Child>,
    /// None before there was a record to pass on.
    tail: Option<Tail>,
    bytes: usize,
}

impl Downstream {
    /// A record was applied.
    pub(super) fn push(&mut self, record: &Record) {
        let bytes = codec::encode(record).map_or(0, |bytes| bytes.len());
        let tail = self.tail.get_or_insert_with(|| Tail::behind(Position(record.position.0 - 1)));
        tail.push(record.clone(), bytes);
        self.bytes += bytes;
        while tail.len() > KEPT_RECORDS || (self.bytes > KEPT_BYTES && tail.len() > 1) {
            self.bytes -= tail.forget_oldest();
        }
    }

    /// What follows is not what was kept so far.
    pub(super) fn clear(&mut self) {
        (self.tail, self.bytes) = (None, 0);
    }

    /// Servers that follow through this one.
    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    /// Their connections.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.children.values().map(|child| child.peer).collect()
    }

    /// A connection has ended.
    pub(super) fn lost(&mut self, peer: PeerId) {
        self.children.retain(|_, child| child.peer != peer);
    }
}

impl Node {
    /// Notes an applied record for those who follow through this server, if there is a tree.
    pub(super) fn keep_for_children(&mut self, record: &Record) {
        let is_tree = self.pool.map().is_some_and(|map| self.config.fan_out.is_tree(map));
        if let Role::Follower(follower) = &mut self.role
            && is_tree
        {
            follower.downstream.push(record);
        }
    }

    /// A request of another server to this one, which does not lead.
    pub(super) fn child_request(&mut self, server: ServerId, peer: PeerId, question: Question) {
        let Role::Follower(follower) = &mut self.role else { return };
        let is_ready = follower.is_ready() && !follower.upstream.is_server(server);
        let Origin::Server { id, .. } = question.origin else { return };
        match question.request {
            Request::FollowThrough { after } if is_ready => {
                follower.downstream.children.insert(server, Child { peer, sent: after });
                // An answer comes in any case: that this server is there and passes on what will come.
                match after < self.pool.position() {
                    true => self.feed_children(),
                    false => self.send_all(&[peer], Body::Batch(Vec::new())),
                }
            }
            Request::Unfollow => follower.downstream.lost(peer),
            Request::EndThrough if is_ready => self.catch_up(CatchUp::Child { peer, id }),
            Request::Beats(beats) if is_ready => self.hear_beats(peer, id, beats),
            Request::FollowThrough { .. } | Request::EndThrough | Request::Beats(_) => {
                let text = format!("server {} does not follow the log itself", self.config.server.id);
                self.send(peer, id, Body::Refused(Refusal::new(RefusalCode::Busy, text)));
            }
            _ => self.tell_leader(peer),
        }
    }

    /// Passes on what each child lacks. One that lacks what is no longer kept has to follow elsewhere.
    pub(super) fn feed_children(&mut self) {
        let end = self.pool.position();
        let Role::Follower(follower) = &mut self.role else { return };
        let mut groups = BTreeMap::<Position, Vec<PeerId>>::new();
        for child in follower.downstream.children.values_mut().filter(|child| child.sent < end) {
            groups.entry(child.sent).or_default().push(child.peer);
            child.sent = end;
        }
        let (mut fed, mut refused) = (Vec::new(), Vec::new());
        for (sent, peers) in groups {
            match follower.downstream.tail.as_ref().and_then(|tail| batches(tail, sent, end)) {
                Some(batches) => fed.push((peers, batches)),
                None => refused.extend(peers),
            }
        }
        refused.iter().for_each(|peer| follower.downstream.lost(*peer));
        fed.into_iter().for_each(|(peers, batches)| self.send_batches(&peers, batches));
        self.refuse_children(&refused);
    }

    /// Tells servers that they have to follow elsewhere.
    pub(super) fn refuse_children(&mut self, peers: &[PeerId]) {
        let text = format!("server {} cannot pass the log on from there", self.config.server.id);
        self.send_all(peers, Body::Refused(Refusal::new(RefusalCode::Busy, text)));
    }
}
