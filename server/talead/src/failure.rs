//! Why a server does not start or stops, in words that say what to do.

use std::path::PathBuf;

use talea_fabric::FabricError;
use talea_tier::TierError;
use thiserror::Error;

/// What ends a server before its time.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The configuration is wrong.
    #[error("the configuration is wrong: {0} (`talea run` and `talea up` write it; see docs/architecture.md)")]
    Config(String),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file with a secret that others can read.
    #[error(
        "{} has mode {mode:o} or another owner, and holds a secret: make it yours and `chmod 600` it",
        path.display()
    )]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The directory for sockets cannot be used.
    #[error("cannot use {} for sockets: {why}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The tier.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// A target's store.
    #[error("{0}")]
    Target(#[from] talea_engine::Fatal),
    /// An endpoint.
    #[error("target {target} cannot listen: {source}")]
    Listen {
        /// Which target.
        target: u32,
        /// Why.
        source: FabricError,
    },
    /// The system said no.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The control plane.
    #[error(transparent)]
    Control(#[from] talea_control::shell::ControlError),
    /// The control plane ended by itself.
    #[error("the control plane ended by itself; this is a bug: the log above has the place")]
    ControlEnded,
    /// What was looked at cannot be read.
    #[error("{0}")]
    Store(#[from] talea_vos::StoreError),
    /// What was looked at is not whole.
    #[error(
        "problems found: {0}. A server on this medium reads what is lost as DATA_LOST, and writes damaged headers and superblocks anew; what \
         is lost comes back only from a copy. Remove the medium only to give up all that is on it"
    )]
    Damaged(u64),
}

impl Failure {
    /// For `map_err`.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
        move |source| Failure::System { what, source }
    }
}
