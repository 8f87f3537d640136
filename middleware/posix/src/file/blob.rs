//! What travels between the processes that share a file: how to attach, and what a commit or truncation came to.
//!
//! Both go from a process to others that use the same library, so the form is postcard's behind a version byte.

use serde::{Deserialize, Serialize};
use talea_abi::Code;
use talea_model::{Oid, Step, TxId, View};

use crate::Fault;
use crate::inode::SizeRecord;

const VERSION: u8 = 3;

/// Enough to attach to a file that another process has opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Shared {
    pub container: Vec<u8>,
    /// Path as it was given, for texts and for delete-on-close.
    pub path: Vec<u8>,
    pub oid: Oid,
    pub chunk_bytes: u64,
    pub summary_bytes: u32,
    pub delete_on_close: bool,
    /// Random number of the collective open, under which its counters are kept.
    pub counters: u64,
    pub mode: Mode,
}

/// How the file is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Mode {
    /// For reading, at a base.
    Reader {
        /// Number under which the opener keeps the lease.
        lease: u64,
        base: Base,
        /// A view of the past: sync does not move it.
        fixed: bool,
    },
    /// For writing, in an epoch.
    Writer {
        /// Random number of the founding.
        founding: u64,
        /// Whether this handle's sync and close commit.
        founder: bool,
        /// Size of the founding communicator.
        processes: u32,
        /// The open epoch, for those that have no part in the founding yet.
        epoch: Vec<u8>,
        size: SizeRecord,
        step: Step,
    },
}

/// What a read-only handle shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Base {
    pub view: View,
    pub bytes: u64,
    pub step: Step,
}

/// What one process did and all that share the file take over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// A read-only handle's new base.
    Base(Base),
    /// The file's size was set.
    Truncated { founding: u64, size: SizeRecord },
    /// The file goes on in another epoch.
    Entered { founding: u64, epoch: Vec<u8>, size: SizeRecord, step: Step, explicit: bool },
    /// There was nothing to commit, and the epoch goes on.
    Idle { founding: u64 },
    /// The epoch is closed.
    Closed { founding: u64, tx: TxId, failed: Option<String>, next: Option<Vec<u8>>, size: SizeRecord, step: Step },
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Fault> {
    postcard::to_extend(value, vec![VERSION])
        .map_err(|error| Fault::new(Code::Other, format!("a shared file's state cannot be encoded: {error}")))
}

/// Feeds `bytes` to all that is decoded from other processes.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode::<Shared>(bytes);
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Fault> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            _ => Err(Fault::new(Code::Argument, "these bytes are not what another process made of a shared file")),
        },
        Some((version, _)) => Err(Fault::new(
            Code::Version,
            format!("a shared file of version {version}: all ranks must use the same release of libtalea"),
        )),
        None => Err(Fault::new(Code::Argument, "no bytes where a shared file's state was expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_safe(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = (decode::<Shared>(&bytes), decode::<Outcome>(&bytes));
        }
    }

    #[test]
    fn round_trips_and_tells_versions_apart() {
        let outcome = Outcome::Truncated { founding: 9, size: SizeRecord { truncations: 1, bytes: 2 } };
        let mut bytes = encode(&outcome).unwrap();
        assert_eq!(decode::<Outcome>(&bytes).unwrap(), outcome);
        bytes[0] = 9;
        assert_eq!(decode::<Outcome>(&bytes).unwrap_err().code, Code::Version);
        assert_eq!(decode::<Outcome>(&[]).unwrap_err().code, Code::Argument);
    }
}
