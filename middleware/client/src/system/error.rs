//! What can be wrong with systems, their directories and files.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Trouble with the runtime directory or a system in it.
#[derive(Debug, Error)]
pub enum SystemError {
    /// None runs.
    #[error("no Talea system is running here: start one with `talea run` or `talea up`")]
    None,
    /// Not clear which one is meant.
    #[error("several Talea systems are running here ({}): name one (`--system NAME`, or `talea status NAME`), or set TALEA_SYSTEM", names.join(", "))]
    Several {
        /// Their names.
        names: Vec<String>,
    },
    /// No such system.
    #[error(
        "no Talea system '{name}' is running here ({}): see `talea status`, start it with `talea up`, or reach one in a Slurm job by `talea attach JOB -- talea status`",
        others(running)
    )]
    NotFound {
        /// The name asked for.
        name: String,
        /// Those that run.
        running: Vec<String>,
    },
    /// It runs already.
    #[error("a Talea system '{name}' is running already: choose another name, or end it with `talea down`")]
    Exists {
        /// Its name.
        name: String,
    },
    /// Not a name.
    #[error(
        "'{name}' is no name for a system: use 1 to {} letters, digits, '-', '_' or '.', not beginning with '-' or '.'",
        super::MAX_NAME_BYTES
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// A directory or file that cannot be trusted or used.
    #[error("{} cannot be used: {problem}; set TALEA_RUNTIME_DIR to a directory of your own that only you may enter (mode 700)", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Not a system's file.
    #[error("{} is damaged: {problem}; remove its directory and start the system anew", path.display())]
    BadFile {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Another version of the file.
    #[error("{} has format {theirs}, this program knows {}: use programs and servers of the same Talea release", path.display(), super::FILE_VERSION)]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        theirs: u32,
    },
    /// The operating system said no.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// No random numbers.
    #[error("the kernel gave no random numbers for the system's secret")]
    Random,
}

impl SystemError {
    pub(super) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }
}

fn others(running: &[String]) -> String {
    if running.is_empty() { "none is".to_owned() } else { format!("running: {}", running.join(", ")) }
}
