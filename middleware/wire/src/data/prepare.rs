//! Preparing an independent transaction (docs/design.md §4 rule 15): what it has read, for the leader that it was read from.

use serde::{Deserialize, Serialize};
use talea_model::limit::{MAX_EXTENTS, MAX_KEY_BYTES, MAX_NAMED_TX};
use talea_model::{Extent, Oid, Stamp, TxId};

use crate::WireError;

/// Most reads of one message.
pub const MAX_READS: usize = 4096;

/// Something that was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReadOf {
    /// Anything of the object.
    Object,
    /// Which dkeys there are after one (empty: from the first), up to another one, inclusive (`None`: to the last).
    Dkeys {
        /// After this one.
        after: Vec<u8>,
        /// Up to this one.
        through: Option<Vec<u8>>,
    },
    /// Anything of a dkey.
    Dkey(Vec<u8>),
    /// A value, or records of an array: all of them where there are no extents. A message has [`MAX_EXTENTS`] at most.
    Akey {
        /// Its dkey.
        dkey: Vec<u8>,
        /// It.
        akey: Vec<u8>,
        /// Which records.
        extents: Vec<Extent>,
    },
}

/// A read of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Read {
    /// The object.
    pub oid: Oid,
    /// What of it.
    pub of: ReadOf,
}

/// The question: has any of this changed since the transaction's base, up to `until`? The target's clock passes `until`
/// before it looks, so that no later autocommit gets a stamp at or below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// C max.
    pub until: Stamp,
    /// What was read on this target.
    pub reads: Vec<Read>,
}

impl Prepare {
    pub(super) fn check(self) -> Result<Self, WireError> {
        over("reads", self.reads.len(), MAX_READS)?;
        let extents_of = |read: &Read| if let ReadOf::Akey { extents, .. } = &read.of { extents.len() } else { 0 };
        over("extents of a request", self.reads.iter().map(extents_of).sum(), MAX_EXTENTS)?;
        for read in &self.reads {
            let (first, second) = match &read.of {
                ReadOf::Object => (0, 0),
                ReadOf::Dkeys { after, through } => (after.len(), through.as_ref().map_or(0, Vec::len)),
                ReadOf::Dkey(dkey) => (dkey.len(), 0),
                ReadOf::Akey { dkey, akey, extents } => {
                    if extents.iter().any(|extent| Extent::new(extent.index, extent.count).is_none()) {
                        return Err(WireError::Malformed("empty or overflowing extent"));
                    }
                    (dkey.len(), akey.len())
                }
            };
            over("key bytes", first.max(second), MAX_KEY_BYTES)?;
        }
        Ok(self)
    }
}

/// Transactions, open as far as the target knows, with versions of what was read. The log will know what became of them.
pub fn check_named(named: &[TxId]) -> Result<(), WireError> {
    over("named transactions", named.len(), MAX_NAMED_TX)
}

fn over(what: &'static str, found: usize, limit: usize) -> Result<(), WireError> {
    if found > limit { Err(WireError::OverLimit { what, found, limit }) } else { Ok(()) }
}
