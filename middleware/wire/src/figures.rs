//! What a process says of itself at its end: for the record of a job.

use serde::{Deserialize, Serialize};

/// Bytes of a name that is sent along, at most.
pub const MAX_NAME_BYTES: usize = 64;

/// What one process did with a system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFigures {
    /// Rank, if its launcher told it one.
    pub rank: Option<u32>,
    /// Name of its program.
    pub program: String,
    /// Name of its node.
    pub host: String,
    /// When it connected, in microseconds since 1970.
    pub began_unix_us: u64,
    /// Nanoseconds from then to its end.
    pub elapsed_ns: u64,
    /// Nanoseconds in calls, those of all threads together; waits for a step are none.
    pub io_ns: u64,
    /// Bytes that it gave to be written.
    pub bytes_written: u64,
    /// Bytes that it read, by whatever way.
    pub bytes_read: u64,
    /// Calls.
    pub calls: u64,
}

/// What all processes said that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports {
    /// How many they are; there may be fewer lines.
    pub processes: u64,
    /// Those that spent the most time in calls.
    pub lines: Vec<ProcessFigures>,
}
