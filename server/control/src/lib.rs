//! The pool's log and what follows from it: transactions, snapshots, subscriptions, sessions (docs/design.md §4, §8).
//!
//! Owns the replicated state ([`pool`]). Must never touch user data, and knows neither engine nor store: what targets have
//! to know leaves as [`change::TargetChange`].
#![forbid(unsafe_code)]

pub mod change;
pub mod node;
pub mod pool;

pub use change::TargetChange;
pub use node::{Action, Node, NodeConfig, Time};
pub use pool::{Applied, Outcome, Pool};
