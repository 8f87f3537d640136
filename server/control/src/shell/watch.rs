//! Watching processes by pidfd: their end is known at once, whoever else holds copies of their sockets.

use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use talea_fabric::PeerId;
use talea_model::{Process, SessionId};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::connection::Event;

/// A living process of this machine.
pub(super) fn process(pid: u32) -> Option<Process> {
    Some(Process { pid, start_ticks: start_ticks(pid)?, machine: machine() })
}

/// This start of this machine.
fn machine() -> u64 {
    static MACHINE: OnceLock<u64> = OnceLock::new();
    *MACHINE.get_or_init(|| {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64(&id)
    })
}

/// Start time of a living process; a zombie is dead.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Reports the end of a server's process. If it cannot be watched, its connection's end has to do.
pub(super) async fn watch(peer: PeerId, pid: u32, events: mpsc::Sender<Event>) {
    if has_ended(pid, || true).await {
        let _ = events.send(Event::Died { peer }).await;
    }
}

/// Reports the end of a session's process. If it cannot be watched, the session's connection has to do.
pub(super) async fn watch_session(session: SessionId, known: Process, events: mpsc::Sender<Event>) {
    // The number may be another process's by now: one that is looked at while it is held by its descriptor cannot change any more.
    if has_ended(known.pid, || process(known.pid) == Some(known)).await {
        let _ = events.send(Event::SessionDied { session }).await;
    }
}

/// Waits for the end of a process; false if it cannot be watched. One that is not the one that is meant has ended.
async fn has_ended(pid: u32, is_meant: impl Fn() -> bool) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => {
            if !is_meant() {
                return true;
            }
            // Deprecated for types whose descriptor can be closed or exchanged under it; an `OwnedFd` that we own cannot.
            #[allow(deprecated)]
            let Ok(pidfd) = AsyncFd::with_interest(pidfd, Interest::READABLE) else { return false };
            pidfd.readable().await.is_ok()
        }
        Err(Errno::SRCH) => true,
        Err(error) => {
            tracing::warn!(%error, "a client's process cannot be watched; its connection is");
            false
        }
    }
}
