//! What differs between two snapshots.

use serde::{Deserialize, Serialize};
use talea_model::limit::MAX_KEY_BYTES;
use talea_model::{Extent, Oid, Position, Stamp};

use crate::WireError;

/// The question: what was written, between `from` and the view in the request's head, in the object of the head (0: in the
/// whole container) on this target?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// S of the other snapshot.
    pub from: Stamp,
    /// Log position that issued it.
    pub position: Position,
    /// Where the last answer said to go on.
    pub after: Option<DiffPlace>,
    /// At most so many.
    pub limit: u16,
}

/// A place in the order of differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiffPlace {
    /// Object.
    pub oid: Oid,
    /// Distribution key.
    pub dkey: Vec<u8>,
    /// Attribute key.
    pub akey: Vec<u8>,
    /// First record of an array, or the last one that is done with, where it says where to go on; the largest number for a single value.
    pub index: u64,
}

/// How something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Differs {
    /// It is only in the later one.
    Added,
    /// It was written between them; the bytes may be the same.
    Changed,
    /// It is only in the earlier one.
    Removed,
}

/// One difference: a value, or a run of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where.
    pub place: DiffPlace,
    /// Bytes of a record, where the array is there; 0 for a single value.
    pub record_bytes: u32,
    /// The records; of a single value: empty.
    pub extent: Extent,
    /// How.
    pub how: Differs,
}

/// A portion of the differences, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// Some.
    pub found: Vec<Difference>,
    /// Where to go on, if there may be more.
    pub next: Option<DiffPlace>,
}

impl Diff {
    pub(super) fn check(self) -> Result<Self, WireError> {
        let bytes = self.after.as_ref().map_or(0, |after| after.dkey.len().max(after.akey.len()));
        if bytes > MAX_KEY_BYTES {
            return Err(WireError::OverLimit { what: "key bytes", found: bytes, limit: MAX_KEY_BYTES });
        }
        Ok(self)
    }
}
