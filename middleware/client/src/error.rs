//! How calls fail: typed, naming who and where, and saying what to do.

use talea_fabric::FabricError;
use talea_model::manifest::BadManifest;
use talea_model::{Cause, ObjectClass, Oid, ServerId};
use talea_wire::{Refusal, RefusalCode, WireError};
use thiserror::Error;

use crate::system::SystemError;

/// Result of a call.
pub type Result<T> = std::result::Result<T, ClientError>;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No system, several, or one that cannot be trusted.
    #[error(transparent)]
    System(#[from] SystemError),
    /// No connection could be made, for a reason that trying again does not mend.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// A server is lost.
    #[error(
        "server {server} on {host} is lost: what it held is not reachable; see `talea status`, restart the system if it does not come back ({detail})"
    )]
    ServerLost {
        /// Its number.
        server: ServerId,
        /// Its host.
        host: String,
        /// What was seen.
        detail: String,
    },
    /// The call's deadline passed while the server was connected.
    #[error(
        "{what} got no answer from {who} within {deadline_ms} ms: it is overloaded or stuck; see `talea status`, or allow a longer deadline"
    )]
    Deadline {
        /// The call.
        what: &'static str,
        /// Who should have answered.
        who: String,
        /// The deadline in milliseconds.
        deadline_ms: u64,
    },
    /// The call's deadline passed before it could be sent: as many as may be were in flight. Nothing of it was done.
    #[error(
        "{what} was not sent to {who} within {deadline_ms} ms, and nothing of it was done: the {ahead} requests of this process that may be in flight there had no answer, or nobody has taken their ends (talea_queue_poll, Queue::take); see `talea status`, or allow a longer deadline"
    )]
    NotSent {
        /// The call.
        what: &'static str,
        /// Who should have got it.
        who: String,
        /// How long it waited, in milliseconds.
        deadline_ms: u64,
        /// How many may be in flight.
        ahead: usize,
    },
    /// A server said no.
    #[error("{what}: {}", refusal.text)]
    Refused {
        /// The call.
        what: &'static str,
        /// The server's word.
        refusal: Refusal,
    },
    /// An argument that cannot be.
    #[error("{0}")]
    Argument(String),
    /// A request beyond its limit.
    #[error("{0}")]
    TooLong(String),
    /// Bytes that do not match their checksum.
    #[error(
        "object {oid}, dkey \"{dkey}\", akey \"{akey}\" on target {target}: the data does not match its checksum; it was not returned. Read an earlier step, and check the machine's memory"
    )]
    DataLost {
        /// Object.
        oid: Oid,
        /// Distribution key, escaped.
        dkey: String,
        /// Attribute key, escaped.
        akey: String,
        /// Target that sent it.
        target: u32,
    },
    /// The epoch cannot be used any more.
    #[error("the epoch (tx {tx}) is over: {why}; begin a new one")]
    Closed {
        /// Its transaction.
        tx: u64,
        /// Why.
        why: String,
    },
    /// An update of the epoch failed earlier.
    #[error("an update of this epoch (tx {tx}) has failed before: it cannot commit; abort it and write the step again")]
    Failed {
        /// Its transaction.
        tx: u64,
    },
    /// Updates of the epoch have not ended: a commit or summary would leave out what they write. Nothing was done.
    #[error(
        "{count} updates of this epoch (tx {tx}) are in flight and would be missing: nothing was done, and the epoch is open still. Take their ends first (talea_queue_poll, Queue::take, or wait for the threads that update), then call again"
    )]
    InFlight {
        /// Its transaction.
        tx: u64,
        /// How many.
        count: usize,
    },
    /// It is not known whether an update was executed.
    #[error("{what}: it is not known whether it was executed ({why}); read back before writing again")]
    Uncertain {
        /// The call.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A step's manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
    /// The process is a child of the one that connected.
    #[error("this process was forked from the one that connected to Talea: connect anew in the child")]
    Forked,
    /// This process, or its node, has no file descriptors left.
    #[error(
        "this process has no file descriptors left for a connection to a server (`ulimit -n`): a connection to a target takes three on this node, more elsewhere, and one to its server two ({detail})"
    )]
    Descriptors {
        /// What was tried.
        detail: String,
    },
    /// Not built yet.
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
    /// An object class that is not built yet.
    #[error("object class {0} is not supported yet: use S1 … SX")]
    UnsupportedClass(ObjectClass),
    /// The other side speaks otherwise than agreed.
    #[error("{who} sent what cannot be understood: {source}")]
    Wire {
        /// Who.
        who: String,
        /// What is wrong with it.
        source: WireError,
    },
}

/// Kinds of errors that a program may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it; texts travel with each error
pub enum ErrorKind {
    Argument,
    NotFound,
    Exists,
    NoContainer,
    NoSystem,
    Access,
    NoSpace,
    ServerLost,
    Deadline,
    /// The transaction is aborted or closed.
    Aborted,
    Unsupported,
    DataLost,
    Version,
    TooLong,
    Retention,
    Conflict,
    /// Updates of the epoch have not ended; nothing was done.
    InFlight,
    Other,
}

impl ClientError {
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::System(error) => system_kind(error),
            Self::Fabric(FabricError::Refused(_)) => ErrorKind::Access,
            Self::Fabric(FabricError::Version { .. }) | Self::Wire { source: WireError::Version(_), .. } => {
                ErrorKind::Version
            }
            Self::Fabric(FabricError::Unsupported(..)) | Self::Unsupported(_) | Self::UnsupportedClass(_) => {
                ErrorKind::Unsupported
            }
            Self::Fabric(FabricError::Unreachable(..)) | Self::ServerLost { .. } => ErrorKind::ServerLost,
            Self::Fabric(FabricError::Deadline(_)) | Self::Deadline { .. } | Self::NotSent { .. } => {
                ErrorKind::Deadline
            }
            Self::Refused { refusal, .. } => refusal_kind(refusal.code),
            Self::Manifest(BadManifest::Version(_)) => ErrorKind::Version,
            Self::Manifest(BadManifest::Damaged(_)) => ErrorKind::DataLost,
            Self::Argument(_) | Self::Forked => ErrorKind::Argument,
            Self::TooLong(_) => ErrorKind::TooLong,
            Self::DataLost { .. } => ErrorKind::DataLost,
            Self::Closed { .. } | Self::Failed { .. } => ErrorKind::Aborted,
            Self::InFlight { .. } => ErrorKind::InFlight,
            Self::Fabric(FabricError::Io { .. })
            | Self::Descriptors { .. }
            | Self::Uncertain { .. }
            | Self::Wire { .. } => ErrorKind::Other,
        }
    }

    /// What it says of an update that failed with it.
    pub(crate) fn cause(&self) -> Cause {
        match (self, self.kind()) {
            (Self::ServerLost { server, .. }, _) => Cause::Lost(Some(*server)),
            (_, ErrorKind::ServerLost) => Cause::Lost(None),
            (_, ErrorKind::NoSpace) => Cause::Full,
            _ => Cause::Other,
        }
    }

    pub(crate) fn refused(what: &'static str, refusal: Refusal) -> Self {
        Self::Refused { what, refusal }
    }

    /// A good answer of the wrong kind.
    pub(crate) fn unexpected(what: &'static str) -> Self {
        Self::Wire { who: format!("the answer to {what}"), source: WireError::Malformed("another kind of answer") }
    }
}

fn system_kind(error: &SystemError) -> ErrorKind {
    match error {
        SystemError::None | SystemError::NotFound { .. } => ErrorKind::NoSystem,
        SystemError::Several { .. } | SystemError::Name { .. } => ErrorKind::Argument,
        SystemError::Exists { .. } => ErrorKind::Exists,
        SystemError::Directory { .. } => ErrorKind::Access,
        SystemError::Version { .. } => ErrorKind::Version,
        SystemError::BadFile { .. } | SystemError::Io { .. } | SystemError::Random => ErrorKind::Other,
    }
}

fn refusal_kind(code: RefusalCode) -> ErrorKind {
    match code {
        RefusalCode::Argument | RefusalCode::Malformed => ErrorKind::Argument,
        RefusalCode::NotFound => ErrorKind::NotFound,
        RefusalCode::Exists => ErrorKind::Exists,
        RefusalCode::NoContainer => ErrorKind::NoContainer,
        RefusalCode::Access => ErrorKind::Access,
        RefusalCode::NoSpace => ErrorKind::NoSpace,
        RefusalCode::ServerLost | RefusalCode::NoLeader => ErrorKind::ServerLost,
        RefusalCode::Deadline => ErrorKind::Deadline,
        RefusalCode::Closed | RefusalCode::SessionExpired => ErrorKind::Aborted,
        RefusalCode::Unsupported => ErrorKind::Unsupported,
        RefusalCode::DataLost | RefusalCode::Checksum => ErrorKind::DataLost,
        RefusalCode::TooLong => ErrorKind::TooLong,
        RefusalCode::Retention => ErrorKind::Retention,
        RefusalCode::Conflict | RefusalCode::Restart => ErrorKind::Conflict,
        RefusalCode::StaleMap | RefusalCode::Busy | RefusalCode::Clock | RefusalCode::Internal => ErrorKind::Other,
    }
}
