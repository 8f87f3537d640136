//! How a child is asked to end: with the signal that asked us, time to do it in, and then with more emphasis. Each further
//! signal to us goes on to the next step at once.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::stop::Stop;

/// How long a child that got SIGTERM may take before it is killed.
pub(crate) const TERM_GRACE: Duration = Duration::from_secs(5);

/// Passes a signal on, gives the child `grace` to end by itself, then sends SIGTERM, then SIGKILL.
pub(crate) async fn ask(child: &mut Child, signal: i32, stop: &mut Stop, grace: Duration) -> io::Result<ExitStatus> {
    if !has_it_already(signal) {
        send(child, by_number(signal).unwrap_or(Signal::TERM));
    }
    for (next, patience) in [(Signal::TERM, grace), (Signal::KILL, TERM_GRACE)] {
        tokio::select! {
            status = child.wait() => return status,
            () = tokio::time::sleep(patience) => {}
            _ = stop.next() => {}
        }
        send(child, next);
    }
    child.wait().await
}

/// SIGTERM after `patience`, then SIGKILL.
pub(crate) async fn end(child: &mut Child, patience: Duration) {
    if tokio::time::timeout(patience, child.wait()).await.is_ok() {
        return;
    }
    send(child, Signal::TERM);
    if tokio::time::timeout(TERM_GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Whether the terminal has sent a signal to the child as well, which shares our process group: Ctrl-C is for the whole
/// foreground. A second one would make `mpiexec` break off at once.
fn has_it_already(signal: i32) -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    signal == Signal::INT.as_raw() && rustix::termios::tcgetpgrp(&terminal).ok() == Some(rustix::process::getpgrp())
}

fn send(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
        // It may have ended already.
        let _ = kill_process(pid, signal);
    }
}

/// The signals that we pass on.
pub(crate) fn by_number(number: i32) -> Option<Signal> {
    let all = [Signal::INT, Signal::TERM, Signal::HUP, Signal::USR1, Signal::USR2];
    all.into_iter().find(|signal| signal.as_raw() == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Child, std::path::PathBuf, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let ready = directory.path().join("ready");
        let script = format!("{script}; : >{}; while :; do sleep 0.02; done", ready.display());
        let child = tokio::process::Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
        (child, ready, directory)
    }

    async fn until_ready(path: &std::path::Path) {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn after(script: &str, grace: Duration) -> Option<i32> {
        let (mut child, ready, _directory) = run(script);
        until_ready(&ready).await;
        let mut stop = Stop::new().unwrap();
        ask(&mut child, 2, &mut stop, grace).await.unwrap().code()
    }

    // One test: signals are the whole process's.
    #[tokio::test]
    async fn a_child_has_its_time_and_a_second_signal_hurries() {
        let forever = Duration::from_secs(600);
        let cleans_up = "trap 'sleep 0.2; exit 7' INT; trap 'exit 9' TERM";
        assert_eq!(after(cleans_up, forever).await, Some(7), "no other signal before it was done");
        let deaf = "trap '' INT; trap 'exit 9' TERM";
        assert_eq!(after(deaf, Duration::from_millis(50)).await, Some(9));
        // To this very process, as a second Ctrl-C.
        let own = rustix::process::getpid();
        let again = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                kill_process(own, Signal::HUP).unwrap();
            }
        };
        let mut guard = Stop::new().unwrap();
        tokio::select! {
            code = after(deaf, forever) => assert_eq!(code, Some(9)),
            () = again => unreachable!(),
            () = async { loop { guard.next().await; } } => unreachable!(),
        }
    }
}
