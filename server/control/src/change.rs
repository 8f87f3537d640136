//! What a log entry means for the targets. `talead` hands it to the engine in the engine's own words.
//!
//! Must never hold anything that grows with the data written.

use std::sync::Arc;

use talea_model::{ContainerId, PoolMap, PoolState, SessionId, Stamp, TxId};

/// A change that every target follows, in log order, up to the horizon that is delivered with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetChange {
    /// A transaction has begun. Numbers come in order.
    Begin {
        /// Which.
        tx: TxId,
        /// In which container.
        container: ContainerId,
    },
    /// A transaction has committed: its versions become visible at `stamp`.
    Commit {
        /// Which.
        tx: TxId,
        /// C.
        stamp: Stamp,
    },
    /// A transaction has aborted: its versions go.
    Abort {
        /// Which.
        tx: TxId,
    },
    /// What must stay readable in a container (rule 13): everything from `floor` on, and below it the `kept` stamps only.
    Floor {
        /// Which container.
        container: ContainerId,
        /// F; never goes back.
        floor: Stamp,
        /// Kept stamps below F, ascending.
        kept: Vec<Stamp>,
    },
    /// A container was made.
    Container {
        /// Which.
        container: ContainerId,
    },
    /// A session was opened. Numbers come in order.
    OpenSession {
        /// Which.
        session: SessionId,
    },
    /// The sessions that there are, for targets that start in the middle of the log.
    Sessions {
        /// The last one that was opened.
        last: SessionId,
        /// Those that are open, ascending.
        open: Vec<SessionId>,
    },
    /// A session ended: its requests are refused from now on, and its sequence numbers can be forgotten (rule 14).
    EndSession {
        /// Which.
        session: SessionId,
    },
    /// A container and all it holds goes.
    DestroyContainer {
        /// Which.
        container: ContainerId,
    },
    /// The pool map, whole.
    Map(PoolMap),
    /// All that matters of what was told up to the horizon, for targets that were not told it: some of it is no longer kept.
    State(Arc<PoolState>),
}
