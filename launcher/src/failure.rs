//! What can go wrong with a command, and the exit code that says so.

use std::path::PathBuf;

use talea_client::{ClientError, SystemError};
use thiserror::Error;

/// Exit code of our own troubles, as env(1) and timeout(1) have it.
pub(crate) const OWN: u8 = 125;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Site(#[from] talea_slurm::SiteError),
    #[error(transparent)]
    Allocation(#[from] talea_slurm::AllocationError),
    #[error(transparent)]
    File(#[from] talea_posix::Fault),
    #[error("cannot find {what} (looked in {looked}): build or install Talea whole, or put it into PATH")]
    Missing { what: &'static str, looked: String },
    #[error("{command}: not found")]
    CommandNotFound { command: String },
    #[error("{command}: cannot be executed: {source}")]
    CommandNotExecutable { command: String, source: std::io::Error },
    #[error("{doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("server {server} ended before it was ready ({status}). Its last words:\n{log}")]
    ServerEnded { server: String, status: String, log: String },
    #[error("the system was not ready within {deadline_ms} ms; waiting for {waiting}. Logs: {logs}")]
    NotReady { deadline_ms: u64, waiting: String, logs: PathBuf },
    #[error("{0}")]
    Usage(String),
    #[error("interrupted")]
    Interrupted { signal: i32 },
}

impl Failure {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Failure::Io { doing, path, source }
    }

    /// 125 for our own troubles, 126 and 127 as env(1) and timeout(1) do, 128 + signal.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::CommandNotFound { .. } => 127,
            Failure::CommandNotExecutable { .. } => 126,
            Failure::Interrupted { signal } => 128 + (*signal as u8 & 0x7f),
            _ => OWN,
        }
    }
}
