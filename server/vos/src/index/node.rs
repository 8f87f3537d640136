//! The nodes of the index: objects, dkeys, akeys.

use std::cmp::Ordering;

use smallvec::SmallVec;
use talea_model::{KeyError, TxId};

use super::array::Array;
use super::small_key::SmallKey;
use super::sorted::{Pos, Sorted};
use super::stack::Stack;
use super::version::Versions;
use crate::{ObjectRef, ValueKind};

/// Transactions that wait at a node; seldom any.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "eight bytes in each of many nodes, where seldom anything waits")]
pub(crate) struct Waiting(Option<Box<Vec<TxId>>>);

impl Waiting {
    /// The transactions.
    pub(crate) fn all(&self) -> &[TxId] {
        self.0.as_ref().map_or(&[], |all| all)
    }

    /// Adds one; whether it was new.
    pub(crate) fn add(&mut self, tx: TxId) -> bool {
        let all = self.0.get_or_insert_default();
        let new = all.last() != Some(&tx) && !all.contains(&tx);
        if new {
            all.push(tx);
        }
        new
    }

    /// Keeps some.
    pub(crate) fn retain(&mut self, keep: impl Fn(TxId) -> bool) {
        if let Some(all) = &mut self.0 {
            all.retain(|tx| keep(*tx));
            if all.is_empty() {
                self.0 = None;
            }
        }
    }
}

/// A dkey among those of its object: its first bytes order it, the rest lies with the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DkeyRef {
    /// See [`SmallKey::prefix`].
    pub prefix: u64,
    /// The node.
    pub id: u32,
}

/// An object.
#[derive(Debug)]
pub(crate) struct Object {
    /// Which.
    pub at: ObjectRef,
    /// Punches of all of it.
    pub punches: Stack,
    /// Dkeys in order.
    pub dkeys: Sorted<DkeyRef, ()>,
    /// Transactions that punched it and are not settled.
    pub waiting: Waiting,
    /// Transactions that wrote into its dkeys; those that are closed go with the next one that is settled.
    pub below: Waiting,
    /// In the list of objects with punches.
    pub restless: bool,
}

impl Object {
    /// An object without anything.
    pub(crate) fn new(at: ObjectRef) -> Self {
        Self {
            at,
            punches: Stack::default(),
            dkeys: Sorted::default(),
            waiting: Waiting::default(),
            below: Waiting::default(),
            restless: false,
        }
    }

    /// Where a dkey is, or belongs. `key_of` gives the key of a node.
    pub(crate) fn seek<'a>(&self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> (Pos, Option<u32>) {
        let prefix = SmallKey::prefix(key);
        let order = |other: &DkeyRef| match other.prefix.cmp(&prefix) {
            Ordering::Equal => key_of(other.id).cmp(key),
            order => order,
        };
        let pos = self.dkeys.seek(|other| order(other).is_lt());
        let found = self.dkeys.entry(pos).filter(|(other, ())| order(other).is_eq());
        (pos, found.map(|(other, ())| other.id))
    }
}

/// A dkey.
#[derive(Debug)]
pub(crate) struct Dkey {
    /// The object's number.
    pub object: u32,
    /// In the list of dkeys in which aggregation may find something.
    pub restless: bool,
    /// A checkpoint is in the middle of it: columns must not be joined.
    pub written: bool,
    /// The key.
    pub key: SmallKey,
    /// Punches of all of it.
    pub punches: Stack,
    /// Akeys, ordered by key. Most dkeys have one.
    pub akeys: SmallVec<[Akey; 1]>,
    /// Transactions with versions here that are not settled.
    pub waiting: Waiting,
}

impl Dkey {
    /// A dkey without anything.
    pub(crate) fn new(object: u32, key: SmallKey) -> Self {
        Self {
            object,
            restless: false,
            written: false,
            key,
            punches: Stack::default(),
            akeys: SmallVec::new(),
            waiting: Waiting::default(),
        }
    }

    /// Where an akey is, or belongs.
    pub(crate) fn position(&self, akey: &[u8]) -> Result<usize, usize> {
        self.akeys.binary_search_by(|other| other.key.bytes().cmp(akey))
    }

    /// The akey.
    pub(crate) fn akey(&self, akey: &[u8]) -> Option<&Akey> {
        self.position(akey).ok().map(|at| &self.akeys[at])
    }

    /// The akey, made if it is not there. What it holds is what the last update with versions says.
    pub(crate) fn akey_mut(&mut self, akey: &[u8], kind: ValueKind) -> Result<&mut Akey, KeyError> {
        let at = match self.position(akey) {
            Ok(at) => at,
            Err(at) => {
                self.akeys.insert(at, Akey::new(SmallKey::new(akey)?, kind));
                at
            }
        };
        Ok(&mut self.akeys[at])
    }

    /// Lets go of up to about `limit` versions; returns of how many. Nothing is left when that is less than `limit`.
    pub(crate) fn clear_some(&mut self, limit: usize, versions: &mut Versions) -> usize {
        let mut done = 0;
        while done < limit {
            let Some(akey) = self.akeys.last_mut() else { break };
            done += akey.array.as_mut().map_or(0, |array| array.clear_some(limit - done, versions));
            if done < limit {
                akey.punches.clear(versions);
                akey.single.clear(versions);
                self.akeys.pop();
                done += 1;
            }
        }
        if done < limit {
            self.punches.clear(versions);
        }
        done
    }
}

/// An akey.
#[derive(Debug)]
pub(crate) struct Akey {
    /// The key.
    pub key: SmallKey,
    /// Bytes of a record; 0 for single values.
    record_bytes: u32,
    /// Punches of all of it.
    pub punches: Stack,
    /// Its value.
    pub single: Stack,
    /// Its records.
    pub array: Option<Box<Array>>,
}

impl Akey {
    /// An akey without anything.
    pub(crate) fn new(key: SmallKey, kind: ValueKind) -> Self {
        let (punches, single) = (Stack::default(), Stack::default());
        let mut akey = Self { key, record_bytes: 0, punches, single, array: None };
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
        self.punches.is_empty() && !self.has_content()
    }

    /// True with a value or records, punched ranges included.
    pub(crate) fn has_content(&self) -> bool {
        !self.single.is_empty() || self.array.as_ref().is_some_and(|array| !array.is_empty())
    }

    /// True without values; punches do not count, nor do punches of ranges.
    pub(crate) fn holds_nothing(&self, versions: &Versions) -> bool {
        let hole = |stack: &Stack| stack.pieces(versions).iter().all(|piece| versions.is_hole(piece.version));
        let columns = || self.array.iter().flat_map(|array| array.columns());
        self.single.is_empty() && columns().all(|(_, column)| hole(&column.stack))
    }
}
