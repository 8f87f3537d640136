//! Sending records to servers that follow: in batches, each of them encoded once for all who get it.

use talea_fabric::PeerId;
use talea_model::Position;
use talea_wire::codec;
use talea_wire::control::Body;
use talea_wire::log::Record;

use super::raft::Tail;
use super::{Action, Node};

/// Records and bytes of one batch, at most.
pub(super) const BATCH_RECORDS: usize = 1024;
pub(super) const BATCH_BYTES: usize = 256 * 1024;

/// The records after a position and up to another one, in batches; `None` if some of them are no longer kept.
pub(super) fn batches(tail: &Tail, after: Position, end: Position) -> Option<Vec<Vec<Record>>> {
    let rest = tail.after(after)?.take_while(|(record, _)| record.position <= end);
    let (mut batches, mut bytes) = (Vec::<Vec<Record>>::new(), 0);
    for (record, record_bytes) in rest {
        bytes += record_bytes;
        match batches.last_mut().filter(|batch| batch.len() < BATCH_RECORDS && bytes <= BATCH_BYTES) {
            Some(batch) => batch.push(record.clone()),
            None => {
                batches.push(vec![record.clone()]);
                bytes = *record_bytes;
            }
        }
    }
    Some(batches)
}

impl Node {
    /// Sends the same to several peers that are there.
    pub(super) fn send_all(&mut self, peers: &[PeerId], body: Body) {
        let envelope = self.envelope(0, body);
        let bytes = match codec::encode(&envelope) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(%error, "records of the pool's log do not fit into a message"),
        };
        for peer in peers.iter().filter(|peer| self.peers.contains_key(peer)) {
            self.counters.messages_out += 1;
            self.actions.push(Action::Send { peer: *peer, bytes: bytes.clone() });
        }
    }

    /// Sends batches to several peers.
    pub(super) fn send_batches(&mut self, peers: &[PeerId], batches: Vec<Vec<Record>>) {
        batches.into_iter().for_each(|records| self.send_all(peers, Body::Batch(records)));
    }
}
