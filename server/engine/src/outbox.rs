//! Replies on their way out.
//!
//! Owns the order in which replies leave, and what a peer that does not read costs: its own queue and nothing else. Must never
//! release a reply before the turn that made it was flushed ([`Outbox::release`]).

use std::collections::{BTreeMap, VecDeque};

use talea_fabric::{Endpoint, PeerId, SendError};
use talea_model::limit::MAX_IN_FLIGHT;

/// Replies that may wait for one peer. Twice what a correct client can have in flight: one that lets more pile up is dropped.
pub const MAX_QUEUED: usize = 2 * MAX_IN_FLIGHT;
/// Bytes of answers that one peer may leave untaken before reads of its own wait for that. One answer more may be made.
pub const MAX_QUEUED_BYTES: usize = 4 << 20;
/// Buffers kept for the next replies, and their bytes.
const SPARE_BUFFERS: usize = 32;
const SPARE_BYTES: usize = 4 << 20;

/// What an answer is to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// An update or punch.
    Update,
    /// A fetch.
    Fetch,
    /// Anything else, and refusals.
    #[default]
    Other,
}

/// What an answer is to, and when that arrived, in monotonic nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// What.
    pub kind: Kind,
    /// When.
    pub since_ns: u64,
}

/// One reply: its head and entries, and the data that follows in the same message.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Encoded head and entries.
    pub head: Vec<u8>,
    /// Data of a fetch.
    pub data: Vec<u8>,
    /// What it answers.
    pub asked: Asked,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.head.len() + self.data.len()
    }
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
    counts: BTreeMap<PeerId, Count>,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// What was answered since somebody took it; `None`: nobody looks.
    answered: Option<Vec<Asked>>,
}

#[derive(Debug, Default)]
struct Count {
    replies: usize,
    bytes: usize,
}

impl Outbox {
    /// An empty buffer, used before if possible: a fresh megabyte costs page faults.
    pub fn buffer(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= buffer.capacity();
        buffer
    }

    /// Gives a buffer back.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if self.spare.len() < SPARE_BUFFERS && bytes > 0 && self.spare_bytes + bytes <= SPARE_BYTES {
            buffer.clear();
            self.spare_bytes += bytes;
            self.spare.push(buffer);
        }
    }

    /// Holds a reply until the turn is flushed.
    pub fn hold(&mut self, peer: PeerId, outgoing: Outgoing) {
        let count = self.counts.entry(peer).or_default();
        count.replies += 1;
        count.bytes += outgoing.bytes();
        self.held.push((peer, outgoing));
    }

    /// Replies held or queued for a peer.
    pub fn waiting_for(&self, peer: PeerId) -> usize {
        self.counts.get(&peer).map_or(0, |count| count.replies)
    }

    /// Whether a peer may be given another answer: it takes those that it has.
    pub fn has_room(&self, peer: PeerId) -> bool {
        self.counts.get(&peer).is_none_or(|count| count.bytes < MAX_QUEUED_BYTES)
    }

    /// From now on notes what is answered, or does not.
    pub fn watch(&mut self, watched: bool) {
        if watched != self.answered.is_some() {
            self.answered = watched.then(Vec::new);
        }
    }

    /// What was answered since the last call, if somebody looks.
    pub fn answered(&mut self) -> impl Iterator<Item = Asked> {
        self.answered.iter_mut().flat_map(|answered| answered.drain(..))
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
        all.iter().for_each(|(peer, outgoing)| self.left(*peer, outgoing.bytes()));
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
    pub fn send<E: Endpoint + ?Sized>(&mut self, endpoint: &mut E) -> bool {
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
        while let Some(buffer) = endpoint.given_back() {
            self.recycle(buffer);
        }
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
    fn send_one<E: Endpoint + ?Sized>(
        &mut self,
        endpoint: &mut E,
        peer: PeerId,
        outgoing: Outgoing,
    ) -> Option<Outgoing> {
        let bytes = outgoing.bytes();
        let Outgoing { head, data, asked } = outgoing;
        let back = match endpoint.give(peer, [head, data]) {
            Err((SendError::Full, Some([head, data]))) => return Some(Outgoing { head, data, asked }),
            Ok(back) => {
                if let Some(answered) = &mut self.answered {
                    answered.push(asked);
                }
                back
            }
            Err((error, back)) => {
                // A peer's end is an event of its own.
                if error != SendError::Gone {
                    tracing::error!(bytes, "a reply over the fabric's limit was dropped");
                }
                back
            }
        };
        self.left(peer, bytes);
        back.into_iter().flatten().for_each(|buffer| self.recycle(buffer));
        None
    }

    fn left(&mut self, peer: PeerId, bytes: usize) {
        if let Some(count) = self.counts.get_mut(&peer) {
            count.replies = count.replies.saturating_sub(1);
            count.bytes = count.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;

    use talea_fabric::endpoint::Given;
    use talea_fabric::{Address, Event, FabricError, Hello, Waker};

    use super::*;

    /// Keeps what it is given, up to so many messages, until it is asked for it; and how each one began.
    struct Keeping(Vec<Given>, usize, Vec<u8>);

    impl Endpoint for Keeping {
        fn connect(&mut self, address: &Address, _: &Hello, _: u64) -> Result<PeerId, FabricError> {
            Err(FabricError::Refused(address.to_string()))
        }
        fn send(&mut self, _: PeerId, _: &[IoSlice<'_>]) -> Result<(), SendError> {
            panic!("a reply was copied");
        }
        fn give(&mut self, _: PeerId, given: Given) -> Result<Option<Given>, (SendError, Option<Given>)> {
            if self.0.len() == self.1 {
                return Err((SendError::Full, Some(given)));
            }
            self.2.push(given[0][0]);
            self.0.push(given);
            Ok(None)
        }
        fn given_back(&mut self) -> Option<Vec<u8>> {
            let [head, data] = self.0.first_mut()?;
            let buffer = if head.capacity() > 0 { std::mem::take(head) } else { std::mem::take(data) };
            if buffer.capacity() == 0 {
                self.0.remove(0);
            }
            Some(buffer)
        }
        fn recv(&mut self) -> Option<Event> {
            None
        }
        fn wait(&mut self, _: u64) {}
        fn disconnect(&mut self, _: PeerId) {}
        fn waker(&self) -> Arc<dyn Waker> {
            panic!("nobody sleeps here")
        }
    }

    fn reply(out: &mut Outbox, fill: u8) -> *const u8 {
        // In the order of a fetch.
        let mut data = out.buffer();
        data.extend_from_slice(&[fill; 1000]);
        let mut head = out.buffer();
        head.extend_from_slice(&[fill; 16]);
        let at = data.as_ptr();
        out.hold(PeerId(1), Outgoing { head, data, asked: Asked::default() });
        out.release();
        at
    }

    #[test]
    fn replies_leave_from_where_they_lie_and_their_buffers_are_used_again() {
        let (mut out, mut endpoint) = (Outbox::default(), Keeping(vec![], 2, vec![]));
        let first = reply(&mut out, 1);
        assert!(!out.send(&mut endpoint));
        assert_eq!(endpoint.0[0][1].as_ptr(), first);
        assert_eq!(out.waiting_for(PeerId(1)), 0);
        // What was given is back at the next turn, and no other buffer is taken from the machine.
        assert!(!out.send(&mut endpoint));
        assert_eq!(reply(&mut out, 2), first);
    }

    #[test]
    fn what_an_endpoint_refuses_stays_and_leaves_later_in_order() {
        let (mut out, mut endpoint) = (Outbox::default(), Keeping(vec![], 0, vec![]));
        (1..=3).for_each(|fill| _ = reply(&mut out, fill));
        assert!(out.send(&mut endpoint));
        assert_eq!(out.waiting_for(PeerId(1)), 3);
        endpoint.1 = 10;
        assert!(!out.send(&mut endpoint));
        assert_eq!(endpoint.2, [1, 2, 3]);
    }
}
