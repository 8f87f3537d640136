//! What runs beside a job's command (`talea run --with`): a shell line, with all that it starts.
//!
//! A shell does not pass signals on, and what it started outlives it: so the line has a process group of its own, and this
//! process watches over it and ends all of it.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::Command;

use crate::ending;
use crate::failure::Failure;
use crate::stop::Stop;

/// How long its processes may take to end; less than who waits for us has.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs the line to its end or until a signal, and returns its exit code. Nothing of its group is left.
pub(crate) async fn watch_over(command: std::process::Command) -> Result<u8, Failure> {
    let mut stop = Stop::new()?;
    let mut command = Command::from(command);
    command.process_group(0).stdin(std::process::Stdio::null());
    let mut child = command.spawn().map_err(Failure::io("starting", "a companion"))?;
    let group = child.id().and_then(|pid| Pid::from_raw(pid as i32));
    let waited = tokio::select! {
        status = child.wait() => Ok(status),
        number = stop.next() => Err(number),
    };
    let status = match waited {
        Ok(status) => Some(status),
        Err(number) => {
            let signal = ending::by_number(number).unwrap_or(Signal::TERM);
            group.inspect(|group| _ = kill_process_group(*group, signal));
            tokio::time::timeout(PATIENCE, child.wait()).await.ok()
        }
    };
    if let Some(group) = group {
        leave_none(group).await;
    }
    let status = match status {
        Some(status) => status,
        None => child.wait().await,
    };
    let status = status.map_err(Failure::io("waiting for", "a companion"))?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Ends what is left of a group.
async fn leave_none(group: Pid) {
    for (signal, tries) in [(Signal::TERM, 25), (Signal::KILL, 25)] {
        let _ = kill_process_group(group, signal);
        for _ in 0..tries {
            if test_kill_process_group(group).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
