//! The replicas that a log has, and changes of them.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::Ordering;

use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, EmptyNode};

use super::{Replica, ReplicaId, TypeConfig};

/// A new replica counts when it lacks no more entries than this.
const CAUGHT_UP_ENTRIES: u64 = 16;

/// Who has a part of the log.
#[derive(Debug, Default)]
pub(in crate::node) struct Members {
    /// Who counts.
    pub(in crate::node) voters: BTreeSet<ReplicaId>,
    /// Who does not.
    pub(in crate::node) learners: BTreeSet<ReplicaId>,
    /// Who shall count, if that is being changed.
    pub(in crate::node) joining: Option<BTreeSet<ReplicaId>>,
}

type Changed = Result<ClientWriteResponse<TypeConfig>, RaftError<ReplicaId, ClientWriteError<ReplicaId, EmptyNode>>>;

impl Replica {
    /// All members.
    pub(in crate::node) fn members(&self) -> Members {
        let metrics = self.metrics.borrow();
        let membership = metrics.membership_config.membership();
        let joint = membership.get_joint_config();
        Members {
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            joining: (joint.len() > 1).then(|| joint.last().cloned().unwrap_or_default()),
        }
    }

    /// Whether a change of the members is under way.
    pub(in crate::node) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::Relaxed)
    }

    /// Begins to send the log to another replica.
    pub(in crate::node) fn add_learner(&self, id: ReplicaId) {
        let raft = self.raft.clone();
        self.change(async move { raft.add_learner(id, EmptyNode {}, false).await });
    }

    /// Ends that.
    pub(in crate::node) fn remove_learner(&self, id: ReplicaId) {
        let raft = self.raft.clone();
        let changes = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.change(async move { raft.change_membership(changes, false).await });
    }

    /// Lets these replicas count, all of which have been sent the log, and forgets those that counted and do no more.
    pub(in crate::node) fn set_voters(&self, voters: BTreeSet<ReplicaId>) {
        let names: Vec<String> = voters.iter().map(ReplicaId::to_string).collect();
        tracing::info!(replicas = names.join(" "), "other replicas of the pool's log");
        let raft = self.raft.clone();
        self.change(async move { raft.change_membership(voters, false).await });
    }

    fn change(&self, change: impl Future<Output = Changed> + Send + 'static) {
        let changing = self.changing.clone();
        changing.store(true, Ordering::Relaxed);
        self.executor.spawn(async move {
            if let Err(error) = change.await {
                tracing::debug!(%error, "the log's replicas did not change");
            }
            changing.store(false, Ordering::Relaxed);
        });
    }

    /// Whether a replica has nearly all of the log.
    pub(in crate::node) fn has_caught_up(&self, id: ReplicaId) -> bool {
        let metrics = self.metrics.borrow();
        let last = metrics.last_log_index.unwrap_or_default();
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id).copied().flatten());
        matched.is_some_and(|matched| matched.index + CAUGHT_UP_ENTRIES >= last)
    }
}
