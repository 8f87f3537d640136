//! Counters, and the time that requests take when somebody looks.
//!
//! Must never read a clock: times are passed in.

use std::collections::BTreeMap;

use talea_fabric::PeerId;
use talea_model::ContainerId;
use talea_wire::data::{Body, Request, StoreStat};

use super::{Now, Target, watch};
use crate::outbox::Asked;

#[derive(Default)]
pub(super) struct Counters {
    pub(super) updates: u64,
    pub(super) fetches: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_in_place: u64,
    pub(super) container_bytes_in: BTreeMap<ContainerId, u64>,
    pub(super) turns: u64,
    pub(super) refused: u64,
    /// Requests that nothing stood against, and that the store was asked for.
    pub(super) passed: u64,
    pub(super) watch: watch::Watch,
}

impl Target {
    /// What a client says that it read in place counts, whatever becomes of the request: at its end the word of it may overtake the
    /// message, or the map have changed.
    pub(super) fn count_told(&mut self, peer: PeerId, request: &Request<'_>) {
        let own = self.peers.get(&peer).is_some_and(|known| known.hello.session == request.head.session.0);
        if let (Body::Stat { read_in_place }, true) = (&request.body, own) {
            self.counters.bytes_in_place = self.counters.bytes_in_place.saturating_add(*read_in_place);
        }
    }

    /// A turn begins.
    pub fn begin_turn(&mut self) {
        self.counters.turns += 1;
    }

    /// Whether somebody has asked for counters lately, so that answers are worth a look at the clock.
    pub fn is_watched(&self, now: Now) -> bool {
        self.counters.watch.is_on(now)
    }

    /// An answer has left.
    pub(crate) fn answered(&mut self, asked: Asked, now_ns: u64) {
        self.counters.watch.answered(asked.kind, now_ns.saturating_sub(asked.since_ns));
    }

    /// The counters, for somebody who looks now and then.
    pub(crate) fn looked_at(&mut self, now: Now) -> StoreStat {
        self.counters.watch.look(now);
        self.stat(ContainerId(0))
    }

    pub(super) fn stat(&self, container: ContainerId) -> StoreStat {
        let store = self.store.stats();
        StoreStat {
            used_bytes: store.used_bytes,
            capacity_bytes: store.capacity_bytes,
            bulk_used_bytes: store.bulk_used_bytes,
            bulk_capacity_bytes: store.bulk_capacity_bytes,
            returning_bytes: store.returning_bytes,
            versions: store.versions,
            log_bytes: store.log_bytes,
            log_records: store.records,
            updates: self.counters.updates,
            fetches: self.counters.fetches,
            bytes_in: self.counters.bytes_in,
            bytes_out: self.counters.bytes_out,
            bytes_in_place: self.counters.bytes_in_place,
            pending_updates: self.store.pending_updates(container),
            horizon: self.store.ledger().horizon(),
            container_bytes_in: self.counters.container_bytes_in.get(&container).copied().unwrap_or(0),
            turns: self.counters.turns,
            flushes: self.flushes,
            refused: self.counters.refused,
            parked: self.parked.len() as u64,
            peers: self.peers.len() as u64,
            update_times: self.counters.watch.updates.counts,
            update_times_ns: self.counters.watch.updates.sum_ns,
            fetch_times: self.counters.watch.fetches.counts,
            fetch_times_ns: self.counters.watch.fetches.sum_ns,
            damaged: store.damaged,
        }
    }
}
