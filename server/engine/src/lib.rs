//! A target: one thread that serves requests on one store (docs/design.md §2, §4, §6).
//!
//! Owns the data plane's rules of a server: which request may run now, which waits for the horizon, which is refused, what is
//! stamped, and that nothing is acknowledged before it is durable. Must never know the control plane (only `talead` knows both),
//! and the [`Target`] itself must never do I/O on the fabric, read a clock or draw randomness: the same code runs in simulations.
#![forbid(unsafe_code)]

pub mod driver;
pub mod group;
pub mod lease;
pub mod outbox;
pub mod target;
pub mod thread;

pub use driver::{Driver, Mail};
pub use lease::{Lease, Tenure};
pub use outbox::Outbox;
pub use target::{Effect, Fatal, Now, PoolChange, Target, TargetOptions};
pub use thread::{Hooks, Mailbox, spawn, spawn_together};
