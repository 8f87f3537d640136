//! Images of the pool, for servers that lack records which are no longer kept: the leader's parts of one, and a follower's whole.
//!
//! A server asks for one part after another, so no more than one is on its way to it, and one that is lost is asked for again
//! with the next heartbeat. Must never put a state in the place of a newer one.

use std::sync::Arc;

use talea_fabric::PeerId;
use talea_model::{ContainerId, Position, ServerId, SessionId};
use talea_wire::control::{Body, ImagePart, Request};

use super::question::{Origin, Own, Question};
use super::raft::PART_BYTES;
use super::{Node, Role};
use crate::TargetChange;
use crate::pool::Pool;
use crate::pool::image::MAX_IMAGE_BYTES;

/// The image that the leader sends to whoever is far behind.
pub(super) type Image = (Position, Arc<Vec<u8>>);

/// An image that a follower has a part of.
#[derive(Debug)]
pub(super) struct Partial {
    position: Position,
    total_bytes: u64,
    bytes: Vec<u8>,
}

impl Node {
    /// Begins to send the newest image.
    pub(super) fn begin_image(&mut self, peer: PeerId) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.image = self.replica.as_ref().and_then(|replica| replica.image());
        let Some((position, _)) = leader.image else {
            return tracing::error!("records are gone, and there is no image in their place");
        };
        self.send_image(peer, position, 0);
    }

    /// Sends a part of an image; of another one than was asked for from its beginning.
    pub(super) fn send_image(&mut self, peer: PeerId, asked: Position, offset: u64) {
        let Role::Leader(leader) = &self.role else { return };
        let Some((position, image)) = &leader.image else { return self.begin_image(peer) };
        let offset = if asked == *position { offset.min(image.len() as u64) } else { 0 };
        let rest = &image[offset as usize..];
        let bytes = rest[..rest.len().min(PART_BYTES)].to_vec();
        let part = ImagePart { position: *position, total_bytes: image.len() as u64, offset, bytes };
        self.send(peer, 0, Body::Image(part));
    }

    /// A part of an image came from the leader.
    pub(super) fn image_part(&mut self, peer: PeerId, part: ImagePart) {
        let here = self.pool.position();
        let Role::Follower(follower) = &mut self.role else { return };
        if part.position <= here || part.total_bytes > MAX_IMAGE_BYTES {
            return;
        }
        let is_another = follower.image.as_ref().is_none_or(|known| known.position != part.position);
        if is_another {
            let (position, total_bytes) = (part.position, part.total_bytes);
            follower.image = Some(Partial { position, total_bytes, bytes: Vec::new() });
        }
        let Some(partial) = &mut follower.image else { return };
        let has = partial.bytes.len() as u64;
        if part.offset == has && !part.bytes.is_empty() {
            partial.bytes.extend(part.bytes);
        } else if part.offset != 0 {
            // An answer to a question that was asked twice.
            return;
        }
        let has = partial.bytes.len() as u64;
        if has < partial.total_bytes {
            let request = Request::Image { position: part.position, offset: has };
            let origin = Origin::Own(Own::Note);
            let question = Question { origin, session: SessionId(0), sequence: 0, deadline_ns: u64::MAX, request };
            return self.send_request(peer, 0, &question);
        }
        let Some(whole) = follower.image.take() else { return };
        match Pool::from_image(&whole.bytes) {
            Ok(pool) => {
                self.replace_pool(pool);
                self.ask_for_records(peer);
            }
            // The next heartbeat finds this server behind, and asks again.
            Err(error) => tracing::error!(%error, "what the leader sent in place of records cannot be used"),
        }
    }

    /// A state takes the place of all records up to its position. What these would have meant for targets, waits and sessions
    /// follows from it.
    pub(super) fn replace_pool(&mut self, pool: Pool) {
        let position = pool.position();
        if position <= self.pool.position() {
            return;
        }
        tracing::info!(%position, was = %self.pool.position(), "the pool's state in place of records that are gone");
        self.pool = pool;
        self.clock.observe(self.pool.ceiling());
        self.undelivered.clear();
        if let Role::Follower(follower) = &mut self.role {
            follower.downstream.clear();
        }
        // Targets that knew more when they ended are told the records that follow what they knew.
        self.owes_state = position > self.config.horizon;
        let ended: Vec<SessionId> =
            self.homes.keys().copied().filter(|session| self.pool.has_ended(*session)).collect();
        ended.into_iter().for_each(|session| self.session_ended(session));
        let waited_for: Vec<ContainerId> = self.waits.containers().collect();
        waited_for.into_iter().for_each(|container| self.waits.touch(container));
        self.deliver();
        self.feed_children();
        self.reached();
        self.moved_on();
    }

    /// What is to be delivered in place of changes: the state, if that is owed.
    pub(super) fn owed_state(&mut self) -> Option<TargetChange> {
        std::mem::take(&mut self.owes_state).then(|| TargetChange::State(Arc::new(self.pool.state())))
    }

    /// A lost server that has come back knows again what happened before its loss: that need be kept no longer for it.
    pub(super) fn confirm(&mut self, server: ServerId, durable: Position) {
        if self.pool.is_behind(server).is_some_and(|lost| lost <= durable) {
            self.note(talea_wire::log::Entry::Confirmed { server, durable });
        }
    }
}
