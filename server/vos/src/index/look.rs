//! Whether anything is seen, found out in portions: what punches hide has to be gone through, and may be much.
//!
//! Must never take a step beyond its budget: who runs out of looks keeps a cursor, and goes on from it with the next portion.

use talea_model::{Extent, Oid};

use super::Index;
use super::array::Column;
use super::lens::{Lens, Rank};
use super::node::{Akey, Dkey, Object};
use super::small_key::SmallKey;

/// The budget is used up; the cursor says where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paused;

/// Looks that bring every walk at least one step on.
const LEAST: usize = 8;

/// How much may still be looked at.
#[derive(Debug)]
pub(crate) struct Looks {
    budget: usize,
    left: usize,
}

impl Looks {
    /// So many (or the few that are needed to come on at all).
    pub(crate) fn new(looks: usize) -> Self {
        let budget = looks.max(LEAST);
        Self { budget, left: budget }
    }

    /// Takes one.
    pub(crate) fn take(&mut self) -> Result<(), Paused> {
        self.left = self.left.checked_sub(1).ok_or(Paused)?;
        Ok(())
    }

    /// How many were taken.
    pub(crate) fn taken(&self) -> usize {
        self.budget - self.left
    }
}

/// Where a walk is: each the one to go on with, from the outside in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    /// Among objects.
    pub(crate) oid: Option<Oid>,
    /// Among dkeys of an object.
    pub(crate) dkey: Option<SmallKey>,
    /// Among akeys of a dkey.
    pub(crate) akey: Option<SmallKey>,
    /// Among records of an array: all before it (behind it, where a walk goes backwards) are done.
    pub(crate) record: Option<u64>,
}

impl Cursor {
    /// Goes to an object; what lay inside of another is forgotten.
    pub(crate) fn enter_object(&mut self, oid: Oid) {
        if self.oid.is_some_and(|at| at != oid) {
            (self.dkey, self.akey, self.record) = (None, None, None);
        }
        self.oid = Some(oid);
    }

    /// Goes to a dkey; what lay inside of another is forgotten.
    pub(crate) fn enter_dkey(&mut self, key: &SmallKey) {
        if self.dkey.as_ref().is_some_and(|at| at.bytes() != key.bytes()) {
            (self.akey, self.record) = (None, None);
        }
        self.dkey = Some(key.clone());
    }

    /// Goes to an akey; what lay inside of another is forgotten.
    pub(crate) fn enter_akey(&mut self, key: &SmallKey) {
        if self.akey.as_ref().is_some_and(|at| at.bytes() != key.bytes()) {
            self.record = None;
        }
        self.akey = Some(key.clone());
    }
}

impl Index {
    /// Whether a view sees any dkey of an object.
    pub(crate) fn object_seen(
        &self,
        object: &Object,
        lens: &Lens,
        cursor: &mut Cursor,
        looks: &mut Looks,
    ) -> Result<bool, Paused> {
        let hidden = self.hidden_object(object, lens);
        let from = cursor.dkey.as_ref().map_or_else(Default::default, |key| self.seek(object, key.bytes()).0);
        for (dkey, ()) in object.dkeys.iter_from(from) {
            let Some(node) = self.dkeys.get(dkey.id) else { continue };
            cursor.enter_dkey(&node.key);
            if self.dkey_seen(node, lens, hidden, cursor, looks)? {
                cursor.dkey = None;
                return Ok(true);
            }
        }
        cursor.dkey = None;
        Ok(false)
    }

    /// Whether a view sees any akey of a dkey, given what its object hides.
    pub(crate) fn dkey_seen(
        &self,
        node: &Dkey,
        lens: &Lens,
        above: Option<Rank>,
        cursor: &mut Cursor,
        looks: &mut Looks,
    ) -> Result<bool, Paused> {
        looks.take()?;
        let hidden = self.hidden_dkey(node, lens, above);
        let first = match &cursor.akey {
            Some(key) => node.akeys.partition_point(|akey| akey.key.bytes() < key.bytes()),
            None => 0,
        };
        for akey in &node.akeys[first..] {
            cursor.enter_akey(&akey.key);
            if self.akey_seen(akey, lens, hidden, cursor, looks)? {
                cursor.akey = None;
                return Ok(true);
            }
        }
        (cursor.akey, cursor.record) = (None, None);
        Ok(false)
    }

    /// Whether a view sees any value of an akey, given what its dkey hides.
    pub(crate) fn akey_seen(
        &self,
        akey: &Akey,
        lens: &Lens,
        above: Option<Rank>,
        cursor: &mut Cursor,
        looks: &mut Looks,
    ) -> Result<bool, Paused> {
        looks.take()?;
        let hidden = self.hidden_akey(akey, lens, above);
        if self.seen(&akey.single, lens, hidden).is_some() {
            cursor.record = None;
            return Ok(true);
        }
        let from = cursor.record.unwrap_or(0);
        let rest = Extent { index: from, count: u64::MAX - from };
        for (start, column) in akey.array.iter().flat_map(|array| array.overlapping(rest)) {
            cursor.record = Some(start);
            looks.take()?;
            if self.seen(&column.stack, lens, hidden).is_some() {
                cursor.record = None;
                return Ok(true);
            }
        }
        cursor.record = None;
        Ok(false)
    }

    /// One past the last record of an array that a view sees, given what its dkey hides; 0 if it sees none.
    pub(crate) fn array_end(
        &self,
        akey: &Akey,
        lens: &Lens,
        above: Option<Rank>,
        cursor: &mut Cursor,
        looks: &mut Looks,
    ) -> Result<u64, Paused> {
        looks.take()?;
        let hidden = self.hidden_akey(akey, lens, above);
        let below = cursor.record.unwrap_or(u64::MAX);
        let columns = akey.array.iter().flat_map(|array| array.columns_before(below));
        for (start, column) in columns {
            looks.take()?;
            if self.seen(&column.stack, lens, hidden).is_some() {
                cursor.record = None;
                return Ok(column.end);
            }
            // Overwritten meanwhile or not: what begins here or behind was seen to be nothing.
            cursor.record = Some(start);
        }
        cursor.record = None;
        Ok(0)
    }

    /// Columns that a view sees, from the cursor on; `each` says whether to go on.
    pub(crate) fn columns_seen(
        &self,
        akey: &Akey,
        lens: &Lens,
        above: Option<Rank>,
        cursor: &mut Cursor,
        looks: &mut Looks,
        mut each: impl FnMut(u64, &Column) -> bool,
    ) -> Result<(), Paused> {
        let hidden = self.hidden_akey(akey, lens, above);
        let from = cursor.record.unwrap_or(0);
        let rest = Extent { index: from, count: u64::MAX - from };
        for (start, column) in akey.array.iter().flat_map(|array| array.overlapping(rest)) {
            looks.take()?;
            // Joined with the one before since the walk was here: that part is done.
            let goes_on = self.seen(&column.stack, lens, hidden).is_none() || each(start.max(from), column);
            cursor.record = Some(column.end);
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}
