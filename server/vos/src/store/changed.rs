//! Whether what an independent transaction has read still holds (docs/design.md §4 rule 15).
//!
//! Errs on the safe side: a dkey whose value was only replaced counts as changed for whoever listed its object's dkeys.

use std::collections::BTreeSet;

use talea_model::limit::MAX_NAMED_TX;
use talea_model::{ContainerId, Extent, Fate, Ledger, Oid, Position, TxId, View};

use super::Store;
use crate::index::lens::settled;
use crate::index::node::{Akey, Dkey, Object};
use crate::index::stack::Stack;
use crate::index::version::{Tag, Versions};
use crate::{ObjectRef, Plant, ReadOf, Reader, StoreError};

impl Store {
    /// Fails with [`StoreError::Conflict`] if anything of a read is visible at `reader.until` and was not at its base. Adds to
    /// `named` transactions that have written there and whose fate is not known here.
    pub fn check_read(
        &self,
        container: ContainerId,
        oid: Oid,
        read: ReadOf,
        reader: Reader,
        named: &mut BTreeSet<TxId>,
    ) -> Result<(), StoreError> {
        let base = View::Inside { tx: reader.tx, base: reader.base, position: Position(0) };
        // Only for what it refuses: a view that cannot be read, a store that lost something.
        self.lens(container, base)?;
        let index = &self.memory.index;
        let Some(object) = index.object(ObjectRef { container, oid }) else { return Ok(()) };
        let plant = self.options.plant;
        let mut judge = Judge { ledger: &self.memory.ledger, versions: &index.versions, reader, named, plant };
        let node = |dkey: &[u8]| index.seek(object, dkey).1.and_then(|id| index.dkeys.get(id));
        let holds = judge.stack(&object.punches)
            && match read {
                ReadOf::Object => judge.dkeys(self, object, &[], None),
                ReadOf::Dkeys { after, through } => judge.dkeys(self, object, after, through),
                ReadOf::Dkey(dkey) => node(dkey).is_none_or(|node| judge.dkey(node)),
                ReadOf::Akey { dkey, akey, extents } => node(dkey).is_none_or(|node| {
                    judge.stack(&node.punches) && node.akey(akey).is_none_or(|akey| judge.akey(akey, extents))
                }),
            };
        let crowded = named.len() > MAX_NAMED_TX;
        match holds || plant == Plant::BlindReads {
            true if crowded => Err(StoreError::Crowded { most: MAX_NAMED_TX }),
            true => Ok(()),
            false => Err(StoreError::Conflict),
        }
    }
}

/// Looks at versions; each call says whether what was read still holds.
struct Judge<'a> {
    ledger: &'a Ledger,
    versions: &'a Versions,
    reader: Reader,
    named: &'a mut BTreeSet<TxId>,
    plant: Plant,
}

impl Judge<'_> {
    fn dkeys(&mut self, store: &Store, object: &Object, after: &[u8], through: Option<&[u8]>) -> bool {
        let index = &store.memory.index;
        let from = if after.is_empty() { Default::default() } else { index.after(object, after) };
        let nodes = object.dkeys.iter_from(from).filter_map(|(dkey, ())| index.dkeys.get(dkey.id));
        let mut asked = nodes.take_while(|node| through.is_none_or(|through| node.key.bytes() <= through));
        asked.all(|node| self.dkey(node))
    }

    fn dkey(&mut self, node: &Dkey) -> bool {
        self.stack(&node.punches) && node.akeys.iter().all(|akey| self.akey(akey, &[]))
    }

    fn akey(&mut self, akey: &Akey, extents: &[Extent]) -> bool {
        let all = [Extent { index: 0, count: u64::MAX }];
        let extents = if extents.is_empty() { &all[..] } else { extents };
        self.stack(&akey.punches)
            && self.stack(&akey.single)
            && akey.array.as_ref().is_none_or(|array| {
                extents.iter().all(|extent| array.overlapping(*extent).all(|(_, column)| self.stack(&column.stack)))
            })
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
