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
    queues: BTreeMap<PeerId, VecDeque<Outgoing>>,
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
        self.held.push((peer, outgoing));
    }

    /// Replies held or queued for a peer.
    pub fn waiting_for(&self, peer: PeerId) -> usize {
        let held = self.held.iter().filter(|(held, _)| *held == peer).count();
        held + self.queues.get(&peer).map_or(0, VecDeque::len)
    }

    /// Number of replies held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The turn is durable: its replies may leave.
    pub fn release(&mut self) {
        for (peer, outgoing) in self.held.drain(..) {
            self.queues.entry(peer).or_default().push_back(outgoing);
        }
    }

    /// Takes the released replies in order, for those that bring messages over themselves (simulations, tests).
    pub fn take(&mut self) -> Vec<(PeerId, Outgoing)> {
        let queues = std::mem::take(&mut self.queues);
        queues.into_iter().flat_map(|(peer, queue)| queue.into_iter().map(move |one| (peer, one))).collect()
    }

    /// Forgets a peer's replies.
    pub fn forget(&mut self, peer: PeerId) {
        self.held.retain(|(held, _)| *held != peer);
        self.queues.remove(&peer);
    }

    /// Sends what the endpoint takes; what it does not take stays, in order. Returns whether anything stayed.
    pub fn send(&mut self, endpoint: &mut dyn Endpoint) -> bool {
        let mut queues = std::mem::take(&mut self.queues);
        for (peer, queue) in &mut queues {
            while let Some(outgoing) = queue.front() {
                match endpoint.send(*peer, &[IoSlice::new(&outgoing.head), IoSlice::new(&outgoing.data)]) {
                    Ok(()) => {}
                    Err(SendError::Full) => break,
                    Err(SendError::Gone) => {
                        queue.clear();
                        break;
                    }
                    Err(SendError::TooLarge) => tracing::error!(
                        bytes = outgoing.head.len() + outgoing.data.len(),
                        "a reply over the fabric's limit was dropped"
                    ),
                }
                if let Some(sent) = queue.pop_front() {
                    self.recycle(sent.head);
                    self.recycle(sent.data);
                }
            }
        }
        queues.retain(|_, queue| !queue.is_empty());
        self.queues = queues;
        !self.queues.is_empty()
    }
}
