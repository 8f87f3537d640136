//! Watching processes by pidfd: their end is known at once, whoever else holds copies of their sockets.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use talea_fabric::PeerId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::connection::Event;

/// Reports the end of a process. If it cannot be watched, its connection's end has to do.
pub(super) async fn watch(peer: PeerId, pid: u32, events: mpsc::Sender<Event>) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => {
            // Deprecated for types whose descriptor can be closed or exchanged under it; an `OwnedFd` that we own cannot.
            #[allow(deprecated)]
            let Ok(pidfd) = AsyncFd::with_interest(pidfd, Interest::READABLE) else { return };
            if pidfd.readable().await.is_err() {
                return;
            }
        }
        Err(Errno::SRCH) => {}
        Err(error) => {
            tracing::warn!(%error, "a client's process cannot be watched; its connection is");
            return;
        }
    }
    let _ = events.send(Event::Died { peer }).await;
}
