//! Which process something is of, so that another one with the same number is never taken for it.

use serde::{Deserialize, Serialize};

/// A process of one machine, for as long as that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_ticks: u64,
    /// Which start of which machine: a sum of the kernel's boot id.
    pub machine: u64,
}
