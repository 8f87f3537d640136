//! What ends a server in order: a signal, or the end of the launcher's pipe.

use std::io::Read;

use rustix::fs::FileType;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::failure::Failure;

const GONE: &str = "the launcher is gone (standard input ended)";

/// Resolves when somebody wants the server to stop; says who.
pub(crate) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    input: Option<oneshot::Receiver<()>>,
    detached: bool,
    patient: bool,
}

impl Stop {
    /// Begins to listen. `input` is the launcher's end of standard input, if its end matters; a plain file's does not.
    pub(crate) fn new<R>(input: Option<R>, detached: bool, patient: bool) -> Result<Self, Failure>
    where
        R: Read + Send + 'static,
    {
        let on = |kind| signal(kind).map_err(Failure::system("listening to signals"));
        let input = match input {
            Some(input) if is_pipe() => Some(watch(input)?),
            _ => None,
        };
        Ok(Stop {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            // Somebody has to be able to end it.
            patient: patient && input.is_some(),
            input,
            detached,
        })
    }

    /// Waits.
    pub(crate) async fn wanted(&mut self) -> &'static str {
        let closed = async {
            match &mut self.input {
                Some(closed) => _ = closed.await,
                None => std::future::pending().await,
            }
        };
        if self.patient {
            closed.await;
            return GONE;
        }
        let detached = self.detached;
        let hangup = async {
            loop {
                self.hangup.recv().await;
                // A server that was told to outlive its launcher outlives the launcher's terminal too.
                if !detached {
                    return;
                }
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            () = hangup => "SIGHUP",
            () = closed => GONE,
        }
    }
}

fn is_pipe() -> bool {
    rustix::fs::fstat(std::io::stdin())
        .is_ok_and(|stat| matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket))
}

/// A thread that sleeps in `read` until the other side closes; further words are passed over.
fn watch<R: Read + Send + 'static>(mut input: R) -> Result<oneshot::Receiver<()>, Failure> {
    let (closed, receiver) = oneshot::channel();
    let body = move || {
        let mut buffer = [0; 256];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = closed.send(());
    };
    std::thread::Builder::new()
        .name("launcher".to_owned())
        .spawn(body)
        .map_err(Failure::system("starting a thread"))?;
    Ok(receiver)
}
