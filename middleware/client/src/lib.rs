//! The native client: pools, containers, objects, epochs, snapshots.
//!
//! Owns what one process says to a system: its session, its connections, retries, placement and checksums. Must never make a
//! thread, install a signal handler, write to standard output or error, or touch a connection in a forked child.
//!
//! Calls block; each has an asynchronous twin (`…_async`) that any executor can run as long as somebody drives the client
//! ([`Client::drive`]). Blocking calls drive it themselves.
#![forbid(unsafe_code)]

mod client;
mod container;
mod core;
mod diff;
mod enumerate;
mod epoch;
mod error;
mod object;
mod options;
mod queue;
mod rollback;
mod snapshot;
mod step;
mod subscription;
pub mod system;
mod transaction;

pub use client::Client;
pub use container::{Container, Usage};
pub use core::place::{OpenWindow, ShortWay};
pub use diff::Differences;
pub use enumerate::{Listing, Page};
pub use epoch::{CommitOutcome, Epoch, InFlight};
pub use error::{ClientError, ErrorKind, Result};
pub use object::{EntryFetch, EntryUpdate, Object, PartsFetch, PartsUpdate, Punch, Write};
pub use options::{ConnectOptions, Tuning};
pub use queue::Queue;
pub use snapshot::Snapshot;
pub use subscription::{Subscription, WaitOutcome};
pub use system::{FabricPolicy, RuntimeDir, System, SystemError, SystemFile};
pub use talea_fabric::Spin;
pub use talea_model::{Manifest, WrittenFile};
pub use talea_wire::control::{Begun, Committed, ContainerInfo, Status, StepRecord};
pub use talea_wire::data::{Condition, DiffPlace, Difference, Differs, EnumerateKind, QueryKind, ValueKind};
pub use talea_wire::figures::{ProcessFigures, Reports};
pub use talea_wire::log::{ContainerProperties, Lagging, ProducerState, SnapshotAt};
pub use transaction::Transaction;
