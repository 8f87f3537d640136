//! Names a process so that another one with the same number is never taken for it.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process: its number, when it started, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessMark {
    /// Host name.
    pub host: String,
    /// The kernel's boot id.
    pub boot: String,
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
}

impl ProcessMark {
    /// This process.
    pub fn of_self() -> Self {
        let pid = std::process::id();
        Self::of_pid(pid).unwrap_or(Self { host: host(), boot: boot(), pid, start_ticks: 0 })
    }

    /// A process of this node, if it is alive.
    pub fn of_pid(pid: u32) -> Option<Self> {
        Some(Self { host: host(), boot: boot(), pid, start_ticks: start_ticks(pid)? })
    }

    /// Whether the process is alive. Of another node's process nothing is known here: it counts as alive.
    pub fn is_alive(&self) -> bool {
        self.host != host() || (self.boot == boot() && start_ticks(self.pid) == Some(self.start_ticks))
    }
}

/// Whether a process of this number is alive.
pub(super) fn exists(pid: u32) -> bool {
    start_ticks(pid).is_some()
}

/// Start time of a living process; a zombie is dead.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
