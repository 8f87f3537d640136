//! The nodes of the index: objects, dkeys, akeys.

use std::collections::BTreeMap;

use smallvec::SmallVec;
use talea_model::{Key, KeyError, TxId};

use super::array::Array;
use super::stack::Stack;
use super::version::Versions;
use crate::{ObjectRef, ValueKind};

/// An object.
#[derive(Debug)]
pub(crate) struct Object {
    /// Which.
    pub at: ObjectRef,
    /// Punches of all of it.
    pub punches: Stack,
    /// Dkeys.
    pub dkeys: BTreeMap<Key, u32>,
    /// Transactions that punched it and are not settled.
    pub waiting: SmallVec<[TxId; 1]>,
    /// During replay: the log record up to which a checkpoint describes the punches.
    pub as_of: u64,
}

impl Object {
    /// An object without anything.
    pub(crate) fn new(at: ObjectRef) -> Self {
        Self { at, punches: Stack::default(), dkeys: BTreeMap::new(), waiting: SmallVec::new(), as_of: 0 }
    }
}

/// A dkey.
#[derive(Debug)]
pub(crate) struct Dkey {
    /// Of which object.
    pub at: ObjectRef,
    /// The object's number.
    pub object: u32,
    /// The key.
    pub key: Key,
    /// Punches of all of it.
    pub punches: Stack,
    /// Akeys, ordered by key.
    pub akeys: Vec<(Key, Akey)>,
    /// Transactions with versions here that are not settled.
    pub waiting: SmallVec<[TxId; 1]>,
    /// During replay: the log record up to which a checkpoint describes it.
    pub as_of: u64,
    /// In the list of dkeys in which aggregation may find something.
    pub restless: bool,
}

impl Dkey {
    /// A dkey without anything.
    pub(crate) fn new(at: ObjectRef, object: u32, key: Key) -> Self {
        Self {
            at,
            object,
            key,
            punches: Stack::default(),
            akeys: Vec::new(),
            waiting: SmallVec::new(),
            as_of: 0,
            restless: false,
        }
    }

    /// The akey.
    pub(crate) fn akey(&self, akey: &[u8]) -> Option<&Akey> {
        let at = self.akeys.binary_search_by(|(key, _)| key[..].cmp(akey)).ok()?;
        Some(&self.akeys[at].1)
    }

    /// The akey, made if it is not there. What it holds is what the last update with versions says.
    pub(crate) fn akey_mut(&mut self, akey: &[u8], kind: ValueKind) -> Result<&mut Akey, KeyError> {
        let at = match self.akeys.binary_search_by(|(key, _)| key[..].cmp(akey)) {
            Ok(at) => at,
            Err(at) => {
                self.akeys.insert(at, (Key::new(akey)?, Akey::new(kind)));
                at
            }
        };
        Ok(&mut self.akeys[at].1)
    }

    /// Lets go of all versions.
    pub(crate) fn clear(&mut self, versions: &mut Versions) {
        self.punches.clear(versions);
        for (_, akey) in &mut self.akeys {
            akey.punches.clear(versions);
            akey.single.clear(versions);
            akey.array.clear(versions);
        }
        self.akeys.clear();
    }
}

/// An akey.
#[derive(Debug)]
pub(crate) struct Akey {
    /// Bytes of a record; 0 for single values.
    record_bytes: u32,
    /// Punches of all of it.
    pub punches: Stack,
    /// Its value.
    pub single: Stack,
    /// Its records.
    pub array: Array,
}

impl Akey {
    /// An akey without anything.
    pub(crate) fn new(kind: ValueKind) -> Self {
        let mut akey =
            Self { record_bytes: 0, punches: Stack::default(), single: Stack::default(), array: Array::default() };
        akey.set_kind(kind);
        akey
    }

    /// Changes what it holds: for one that holds nothing.
    pub(crate) fn set_kind(&mut self, kind: ValueKind) {
        self.record_bytes = match kind {
            ValueKind::Array { record_bytes } => record_bytes,
            ValueKind::Single | ValueKind::SingleMax => 0,
        };
    }

    /// What it holds.
    pub(crate) fn kind(&self) -> ValueKind {
        match self.record_bytes {
            0 => ValueKind::Single,
            record_bytes => ValueKind::Array { record_bytes },
        }
    }

    /// Bytes of a record; 0 for single values.
    pub(crate) fn record_bytes(&self) -> u32 {
        self.record_bytes
    }

    /// True without versions.
    pub(crate) fn is_empty(&self) -> bool {
        self.punches.is_empty() && self.single.is_empty() && self.array.is_empty()
    }

    /// True without values; punches do not count, nor do punches of ranges.
    pub(crate) fn holds_nothing(&self, versions: &Versions) -> bool {
        let hole = |stack: &Stack| stack.pieces().iter().all(|piece| versions.get(piece.version).place.hole);
        self.single.is_empty() && self.array.columns().all(|(_, column)| hole(&column.stack))
    }
}
