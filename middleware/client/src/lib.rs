//! The native client: pools, containers, objects, epochs, snapshots.
//!
//! Owns what one process says to a system: its session, its connections, retries, placement and checksums. Must never make a
//! thread, install a signal handler, write to standard output or error, or touch a connection in a forked child.
#![forbid(unsafe_code)]

pub mod system;

pub use system::{FabricPolicy, RuntimeDir, System, SystemError, SystemFile};
