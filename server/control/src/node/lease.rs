//! Until when the local targets may serve (rule 11): a follower by its membership lease, a leader by what the majority vouches for.
//!
//! Owns what the targets are told of it. Must never prolong a lease that has run out: the next one is another.

use super::{Action, Node, Role};

impl Node {
    /// Says until when the targets may serve, if that has changed.
    pub(super) fn set_lease(&mut self, until_ns: Option<u64>) {
        if std::mem::replace(&mut self.lease_ns, until_ns) != until_ns {
            self.actions.push(Action::Lease { until_ns });
        }
    }

    /// A lease that has run out is over, even if the answer that prolongs it comes next: what happened meanwhile may still be
    /// on its way to the targets.
    pub(super) fn check_lease(&mut self) {
        if self.lease_ns.is_some_and(|lease_ns| lease_ns <= self.now.monotonic_ns) {
            self.set_lease(None);
        }
    }

    /// The leader has confirmed what was sent then: a whole lease from there on.
    pub(super) fn hold_lease(&mut self, sent_ns: u64) {
        let lease_ns = sent_ns.saturating_add(self.config.lease_ms.saturating_mul(1_000_000));
        if let Some(follower) = self.follower() {
            follower.lease_ns = follower.lease_ns.max(lease_ns);
        }
        self.lease_of_follower(false);
    }

    /// Prolongs the targets' lease to what this server holds, or ends it; begins one only where that is in order: the leader knows
    /// this server, and what it decided before has been delivered.
    pub(super) fn lease_of_follower(&mut self, may_begin: bool) {
        let Role::Follower(follower) = &self.role else { return };
        if may_begin || self.lease_ns.is_some() {
            let until_ns = follower.lease_ns;
            self.set_lease((until_ns > self.now.monotonic_ns).then_some(until_ns));
        }
    }

    /// A leader's own targets serve by what the majority vouches for.
    pub(super) fn lease_of_leader(&mut self) {
        if let (Role::Leader(_), Some(replica)) = (&self.role, &self.replica) {
            let until_ns = replica.lease_ns(self.config.lease_ms);
            self.set_lease((until_ns > self.now.monotonic_ns).then_some(until_ns));
        }
    }
}
