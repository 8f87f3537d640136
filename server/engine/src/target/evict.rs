//! Connections of sessions that have ended: their clients are told so for a while, then the connections are closed, so that a process
//! that hangs or was stopped holds nothing here either.

use super::{Now, Outbox, Target};

/// For so long after its session's end a connection stays, for what its client still says and for answers that say why.
const GRACE_NS: u64 = 2_000_000_000;

impl Target {
    /// Some peers' sessions may have ended.
    pub(super) fn look_for_ended(&mut self) {
        self.evict_ns = 0;
    }

    /// Closes connections whose time is over.
    pub(super) fn evict(&mut self, now: Now, out: &mut Outbox) {
        if now.monotonic_ns < self.evict_ns {
            return;
        }
        let (mut over, mut next_ns) = (Vec::new(), u64::MAX);
        for (peer, known) in self.peers.iter_mut().filter(|(_, known)| known.ended) {
            let until_ns = *known.closes_ns.get_or_insert(now.monotonic_ns.saturating_add(GRACE_NS));
            match until_ns <= now.monotonic_ns {
                true => over.push(*peer),
                false => next_ns = next_ns.min(until_ns),
            }
        }
        self.evict_ns = next_ns;
        over.into_iter().for_each(|peer| self.drop_peer(peer, out));
    }
}
