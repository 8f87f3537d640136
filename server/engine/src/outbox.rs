//! Replies on their way out.
//!
//! Owns the order in which replies leave, and what a peer that does not read costs: its own queue and nothing else. Must never
//! release a reply before the turn that made it was flushed ([`Outbox::release`]).

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use talea_fabric::{Endpoint, PeerId, SendError};
use talea_model::limit::MAX_IN_FLIGHT;

/// Replies that may wait for one peer. Twice what a correct client can have in flight: one that lets more pile up is dropped.
pub const MAX_QUEUED: usize = 2 * MAX_IN_FLIGHT;
/// Buffers kept for the next replies.
const SPARE_BUFFERS: usize = 32;

/// One reply: its head and entries, and the data that follows in the same message.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Encoded head and entries.
    pub head: Vec<u8>,
    /// Data of a fetch.
    pub data: Vec<u8>,
}

/// Replies of one target.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Made in this turn, not flushed yet.
    held: Vec<(PeerId, Outgoing)>,
    /// To be sent.
    ready: VecDeque<(PeerId, Outgoing)>,
    /// What peers that have no room have not taken; only such peers are here.
    stalled: BTreeMap<PeerId, VecDeque<Outgoing>>,
    /// Replies of each peer in all three.
    counts: BTreeMap<PeerId, usize>,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// An empty buffer, used before if possible: a fresh megabyte costs page faults.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && buffer.capacity() > 0 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Holds a reply until the turn is flushed.
    pub fn hold(&mut self, peer: PeerId, outgoing: Outgoing) {
        *self.counts.entry(peer).or_default() += 1;
        self.held.push((peer, outgoing));
    }

    /// Replies held or queued for a peer.
    pub fn waiting_for(&self, peer: PeerId) -> usize {
        self.counts.get(&peer).copied().unwrap_or(0)
    }

    /// Number of replies held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The turn is durable: its replies may leave.
    pub fn release(&mut self) {
        self.ready.extend(self.held.drain(..));
    }

    /// Takes the released replies, those of each peer in order, for those that bring messages over themselves (simulations,
    /// tests).
    pub fn take(&mut self) -> Vec<(PeerId, Outgoing)> {
        let stalled = std::mem::take(&mut self.stalled);
        let queued = stalled.into_iter().flat_map(|(peer, queue)| queue.into_iter().map(move |one| (peer, one)));
        let all: Vec<_> = queued.chain(self.ready.drain(..)).collect();
        all.iter().for_each(|(peer, _)| self.left(*peer, 1));
        all
    }

    /// Forgets a peer and its replies.
    pub fn forget(&mut self, peer: PeerId) {
        self.held.retain(|(held, _)| *held != peer);
        self.ready.retain(|(ready, _)| *ready != peer);
        self.stalled.remove(&peer);
        self.counts.remove(&peer);
    }

    /// Sends what the endpoint takes; what it does not take stays, in order. Returns whether anything stayed.
    pub fn send(&mut self, endpoint: &mut dyn Endpoint) -> bool {
        let mut stalled = std::mem::take(&mut self.stalled);
        stalled.retain(|peer, queue| {
            while let Some(outgoing) = queue.pop_front() {
                if let Some(back) = self.send_one(endpoint, *peer, outgoing) {
                    queue.push_front(back);
                    return true;
                }
            }
            false
        });
        self.stalled = stalled;
        while let Some((peer, outgoing)) = self.ready.pop_front() {
            let back = match self.stalled.get_mut(&peer) {
                Some(queue) => {
                    queue.push_back(outgoing);
                    None
                }
                None => self.send_one(endpoint, peer, outgoing),
            };
            if let Some(back) = back {
                self.stalled.entry(peer).or_default().push_back(back);
            }
        }
        !self.stalled.is_empty()
    }

    /// Sends one reply; gives it back if there is no room for it now.
    fn send_one(&mut self, endpoint: &mut dyn Endpoint, peer: PeerId, outgoing: Outgoing) -> Option<Outgoing> {
        match endpoint.send(peer, &[IoSlice::new(&outgoing.head), IoSlice::new(&outgoing.data)]) {
            Err(SendError::Full) => return Some(outgoing),
            // Its end is an event of its own.
            Ok(()) | Err(SendError::Gone) => {}
            Err(SendError::TooLarge) => tracing::error!(
                bytes = outgoing.head.len() + outgoing.data.len(),
                "a reply over the fabric's limit was dropped"
            ),
        }
        self.left(peer, 1);
        self.recycle(outgoing.head);
        self.recycle(outgoing.data);
        None
    }

    fn left(&mut self, peer: PeerId, replies: usize) {
        if let Some(count) = self.counts.get_mut(&peer) {
            *count = count.saturating_sub(replies);
        }
    }
}
