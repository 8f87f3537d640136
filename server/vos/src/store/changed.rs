//! Whether what an independent transaction has read still holds (docs/design.md §4 rule 15).
//!
//! Errs on the safe side: a dkey whose value was only replaced counts as changed for whoever listed its object's dkeys.

use std::collections::BTreeSet;

use talea_model::limit::MAX_NAMED_TX;
use talea_model::{ContainerId, Extent, Fate, Ledger, Position, TxId, View};

use super::Store;
use super::readset::{Part, ReadSet};
use super::walk::Walk;
use crate::index::lens::settled;
use crate::index::look::{Cursor, Looks, Paused};
use crate::index::node::{Akey, Dkey, Object};
use crate::index::stack::Stack;
use crate::index::version::{Tag, Versions};
use crate::{ObjectRef, Plant, Reader, StoreError};

impl Store {
    /// Goes on looking whether all of what was read holds, looking at no more than `looks` things; the same arguments each time. Returns
    /// whether it came to its end: then the walk names the transactions that have written there and whose fate is not known here.
    /// Fails with [`StoreError::Conflict`] if anything of it is visible at `reader.until` and was not at its base.
    ///
    /// The clock has to have passed `reader.until` before the first portion: what is written between two of them is later.
    pub fn check_reads_some(
        &self,
        container: ContainerId,
        reads: &ReadSet<'_>,
        reader: Reader,
        looks: usize,
        walk: &mut Walk,
    ) -> Result<bool, StoreError> {
        let base = View::Inside { tx: reader.tx, base: reader.base, position: Position(0) };
        // Only for what it refuses: a view that cannot be read, a store that lost something.
        self.lens(container, base)?;
        let mut looks = Looks::new(looks);
        let done = self.check_from(container, reads, reader, &mut looks, walk);
        walk.note(&looks);
        match done {
            Ok(false) if self.options.plant != Plant::BlindReads => Err(StoreError::Conflict),
            _ if walk.named.len() > MAX_NAMED_TX => Err(StoreError::Crowded { most: MAX_NAMED_TX }),
            done => Ok(done.is_ok()),
        }
    }

    fn check_from(
        &self,
        container: ContainerId,
        reads: &ReadSet<'_>,
        reader: Reader,
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<bool, Paused> {
        let (index, plant) = (&self.memory.index, self.options.plant);
        while let Some((oid, part)) = reads.parts.get(walk.judged) {
            let (ledger, versions, named) = (&self.memory.ledger, &index.versions, &mut walk.named);
            let mut judge = Judge { ledger, versions, reader, named, plant, looks };
            if !judge.part(self, ObjectRef { container, oid: *oid }, part, &mut walk.cursor)? {
                return Ok(false);
            }
            walk.judged += 1;
            walk.cursor = Cursor::default();
        }
        Ok(true)
    }
}

/// Looks at versions; each call says whether what was read still holds.
struct Judge<'a> {
    ledger: &'a Ledger,
    versions: &'a Versions,
    reader: Reader,
    named: &'a mut BTreeSet<TxId>,
    plant: Plant,
    looks: &'a mut Looks,
}

impl Judge<'_> {
    fn part(&mut self, store: &Store, at: ObjectRef, part: &Part<'_>, cursor: &mut Cursor) -> Result<bool, Paused> {
        self.looks.take()?;
        let index = &store.memory.index;
        let Some(object) = index.object(at) else { return Ok(true) };
        if !self.stack(&object.punches) {
            return Ok(false);
        }
        let node = |dkey: &[u8]| index.seek(object, dkey).1.and_then(|id| index.dkeys.get(id));
        match part {
            Part::Dkeys((after, through)) => self.dkeys(store, object, after, *through, cursor),
            Part::Dkey(dkey) => node(dkey).map_or(Ok(true), |node| self.dkey(node, cursor)),
            Part::Akey(dkey, akey, extents) => {
                let Some(node) = node(dkey) else { return Ok(true) };
                if !self.stack(&node.punches) {
                    return Ok(false);
                }
                node.akey(akey).map_or(Ok(true), |akey| self.akey(akey, extents, cursor))
            }
        }
    }

    fn dkeys(
        &mut self,
        store: &Store,
        object: &Object,
        after: &[u8],
        through: Option<&[u8]>,
        cursor: &mut Cursor,
    ) -> Result<bool, Paused> {
        let index = &store.memory.index;
        let from = match &cursor.dkey {
            Some(next) => index.seek(object, next.bytes()).0,
            None if after.is_empty() => Default::default(),
            None => index.after(object, after),
        };
        let nodes = object.dkeys.iter_from(from).filter_map(|(dkey, ())| index.dkeys.get(dkey.id));
        for node in nodes.take_while(|node| through.is_none_or(|through| node.key.bytes() <= through)) {
            cursor.enter_dkey(&node.key);
            if !self.dkey(node, cursor)? {
                return Ok(false);
            }
            (cursor.akey, cursor.record) = (None, None);
        }
        Ok(true)
    }

    fn dkey(&mut self, node: &Dkey, cursor: &mut Cursor) -> Result<bool, Paused> {
        self.looks.take()?;
        if !self.stack(&node.punches) {
            return Ok(false);
        }
        let from = match &cursor.akey {
            None => 0,
            Some(next) => node.akeys.partition_point(|akey| akey.key.bytes() < next.bytes()),
        };
        for akey in &node.akeys[from..] {
            cursor.enter_akey(&akey.key);
            if !self.akey(akey, &[], cursor)? {
                return Ok(false);
            }
            cursor.record = None;
        }
        Ok(true)
    }

    fn akey(&mut self, akey: &Akey, extents: &[Extent], cursor: &mut Cursor) -> Result<bool, Paused> {
        self.looks.take()?;
        if !self.stack(&akey.punches) || !self.stack(&akey.single) {
            return Ok(false);
        }
        let Some(array) = &akey.array else { return Ok(true) };
        let all = [Extent { index: 0, count: u64::MAX }];
        let extents = if extents.is_empty() { &all[..] } else { extents };
        let done = cursor.record.unwrap_or(0);
        for extent in &extents[extents.partition_point(|extent| extent.end() <= done)..] {
            let first = extent.index.max(done);
            for (start, column) in array.overlapping(Extent { index: first, count: extent.end() - first }) {
                cursor.record = Some(start.max(first));
                self.looks.take()?;
                if !self.stack(&column.stack) {
                    return Ok(false);
                }
            }
            cursor.record = Some(extent.end());
        }
        Ok(true)
    }

    fn stack(&mut self, stack: &Stack) -> bool {
        stack.pieces(self.versions).iter().all(|piece| self.version(self.versions.tag(piece.version)))
    }

    fn version(&mut self, tag: Tag) -> bool {
        let Reader { tx, base, until } = self.reader;
        if tag.tx == tx {
            return true;
        }
        let tag = match (tag.tx.0 != 0).then(|| self.ledger.fate(tag.tx)) {
            None => tag,
            Some(Some(Fate::Committed(commit))) => settled(tag, commit),
            Some(Some(Fate::Aborted)) => return true,
            Some(Some(Fate::Open) | None) => {
                if self.plant != Plant::Nameless {
                    self.named.insert(tag.tx);
                }
                return true;
            }
        };
        tag.from <= base || tag.from > until
    }
}
