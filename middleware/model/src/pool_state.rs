//! What a target has to know of a pool at a position of its log, for one that did not follow the log up to there.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, Fate, PoolMap, SessionId, Stamp, TargetId, TxId};

/// All that records up to a position have told the targets, as far as it still matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolState {
    /// Above every stamp that the log has issued.
    pub ceiling: Stamp,
    /// The last transaction that has begun.
    pub last_tx: TxId,
    /// Open transactions, ascending.
    pub open: Vec<TxId>,
    /// Fates of closed transactions, ascending by their numbers. Of those that closed long ago nobody knows it any more.
    pub closed: Vec<(TxId, Fate)>,
    /// The last container that was made.
    pub last_container: ContainerId,
    /// Containers there are, ascending.
    pub containers: Vec<ContainerState>,
    /// Targets that came back without what they had stored, and the last container that was made before: what those up to it held
    /// there is lost (rule 10). Ascending.
    pub lost: Vec<(TargetId, ContainerId)>,
    /// The last session that was opened.
    pub last_session: SessionId,
    /// Open sessions, ascending.
    pub sessions: Vec<SessionId>,
    /// The pool map.
    pub map: Option<PoolMap>,
}

/// What must stay readable in a container (rule 13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Which.
    pub container: ContainerId,
    /// F.
    pub floor: Stamp,
    /// Kept stamps below F, ascending.
    pub kept: Vec<Stamp>,
}

impl PoolState {
    /// Fate of a transaction. `None`: it has not begun, or closed so long ago that its fate is not kept.
    pub fn fate(&self, tx: TxId) -> Option<Fate> {
        if self.open.binary_search(&tx).is_ok() {
            return Some(Fate::Open);
        }
        let at = self.closed.binary_search_by_key(&tx, |(tx, _)| *tx).ok()?;
        Some(self.closed[at].1)
    }

    /// The last container that a target has lost something of, 0 if there is none.
    pub fn lost_through(&self, target: TargetId) -> ContainerId {
        self.lost.binary_search_by_key(&target, |(target, _)| *target).map_or(ContainerId(0), |at| self.lost[at].1)
    }

    /// Whether a container is there.
    pub fn has_container(&self, container: ContainerId) -> bool {
        self.containers.binary_search_by_key(&container, |known| known.container).is_ok()
    }

    /// Whether a session was opened and has ended.
    pub fn has_ended(&self, session: SessionId) -> bool {
        session <= self.last_session && self.sessions.binary_search(&session).is_err()
    }
}
