//! What a read sees and how a version is ordered (docs/design.md §4 rules 4, 6, 8).

use serde::{Deserialize, Serialize};

use crate::{LeaseId, Position, Stamp, TxId};

/// What a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// The latest committed state; also names that an open epoch created (*tied* autocommits).
    Latest,
    /// A snapshot at stamp `stamp`, issued at `position` of the pool's log under `lease`: a target whose horizon has not
    /// reached the position brings it there before it answers.
    Snapshot {
        /// S.
        stamp: Stamp,
        /// Log position that issued it.
        position: Position,
        /// Lease that keeps it readable; 0 for kept stamps (steps, named snapshots).
        lease: LeaseId,
    },
    /// Inside a transaction: its own pending versions over its base snapshot.
    Inside {
        /// The transaction.
        tx: TxId,
        /// S of its base.
        base: Stamp,
        /// Log position that issued the base.
        position: Position,
    },
}

/// How an update is ordered among versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Visible at once, at a stamp that the target gives. `tied`: the update vanishes if that transaction aborts, and
    /// snapshots see it only from that transaction's commit on; latest reads see it at once (file creation, §7).
    Auto {
        /// Transaction whose fate it shares.
        tied: Option<TxId>,
    },
    /// A pending version of a transaction.
    Pending(TxId),
}
