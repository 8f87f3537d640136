//! What a server process shares with the simulation of one: the words of the control plane in those of the engine.
//!
//! The process itself is in `main.rs`. Must never hold a rule of either side.
#![forbid(unsafe_code)]

use std::sync::Arc;

use talea_control::TargetChange;
use talea_engine::PoolChange;
use talea_vos::Change;

/// A change of the pool, as the control plane says it, for a target.
pub fn pool_change(change: TargetChange) -> PoolChange {
    match change {
        TargetChange::Begin { tx, .. } => PoolChange::Store(Change::Begin(tx)),
        TargetChange::Commit { tx, stamp } => PoolChange::Store(Change::Commit(tx, stamp)),
        TargetChange::Abort { tx } => PoolChange::Store(Change::Abort(tx)),
        TargetChange::Floor { container, floor, kept } => PoolChange::Floor { container, floor, kept },
        TargetChange::Container { container } => PoolChange::Container(container),
        TargetChange::OpenSession { session } => PoolChange::OpenSession(session),
        TargetChange::Sessions { last, open } => PoolChange::Sessions(last, open),
        TargetChange::EndSession { session } => PoolChange::Store(Change::EndSession(session)),
        TargetChange::DestroyContainer { container } => PoolChange::Store(Change::DestroyContainer(container)),
        TargetChange::Map(map) => PoolChange::Map(Arc::new(map)),
        TargetChange::State(state) => PoolChange::State(state),
    }
}
