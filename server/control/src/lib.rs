//! The pool's log and what follows from it: transactions, snapshots, subscriptions, sessions (docs/design.md §4, §8).
//!
//! Owns the replicated state ([`pool`]), one server's part in it without I/O ([`node`]), the log's storage ([`store`]) and the
//! sockets around it all ([`shell`]). Must never touch user data, and knows neither engine nor store: what targets have
//! to know leaves as [`change::TargetChange`].
#![forbid(unsafe_code)]

pub mod change;
pub mod node;
pub mod pool;
pub mod shell;
pub mod store;

pub use change::TargetChange;
pub use node::{Action, Damaged, FanOut, LogBound, Node, NodeConfig, ReplicaId, StoreOp, Stored, Time};
pub use pool::{Applied, Outcome, Pool};
