//! Enumeration: what exists in a view, in order.

use talea_model::{Extent, Oid, View, limit::MAX_ENUMERATED};

use super::Store;
use crate::index::lens::Lens;
use crate::{Enumerate, Listed, ObjectRef, StoreError};

impl Store {
    /// At most `limit` things after the anchor, in order. Fewer than `limit` (and than 1024) means that there are no more.
    pub fn enumerate(
        &self,
        at: ObjectRef,
        view: View,
        what: Enumerate,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let lens = self.lens(at.container, view)?;
        let limit = limit.min(MAX_ENUMERATED);
        match what {
            Enumerate::Objects => self.list_objects(at, &lens, after, limit),
            Enumerate::Dkeys => Ok(self.list_dkeys(at, &lens, after, limit)),
            Enumerate::Akeys { dkey } => Ok(self.list_akeys(at, &lens, dkey, after, limit)),
            Enumerate::Extents { dkey, akey } => self.list_extents(at, &lens, (dkey, akey), after, limit),
        }
    }

    fn list_objects(
        &self,
        at: ObjectRef,
        lens: &Lens,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let Some(container) = self.memory.index.containers.get(&at.container) else { return Ok(Vec::new()) };
        let objects = &container.objects;
        let from = match after {
            None => Default::default(),
            Some(bytes) => {
                let bytes: [u8; 16] =
                    bytes.try_into().map_err(|_| StoreError::Bad("an object's anchor has 16 bytes"))?;
                let after = Oid(u128::from_be_bytes(bytes));
                objects.seek(|oid| *oid <= after)
            }
        };
        let seen = objects.iter_from(from).filter(|(_, id)| {
            self.memory.index.objects.get(**id).is_some_and(|object| self.memory.index.object_exists(object, lens))
        });
        Ok(seen.take(limit).map(|(oid, _)| listed(oid.0.to_be_bytes().to_vec())).collect())
    }

    fn list_dkeys(&self, at: ObjectRef, lens: &Lens, after: Option<&[u8]>, limit: usize) -> Vec<Listed> {
        let Some(object) = self.memory.index.object(at) else { return Vec::new() };
        let above = self.memory.index.hidden_object(object, lens);
        let from = after.map_or_else(Default::default, |after| self.memory.index.after(object, after));
        let dkeys = object.dkeys.iter_from(from).filter_map(|(dkey, ())| self.memory.index.dkeys.get(dkey.id));
        let seen = dkeys.filter(|node| self.memory.index.dkey_exists(node, lens, above));
        seen.take(limit).map(|node| listed(node.key.bytes().to_vec())).collect()
    }

    fn list_akeys(&self, at: ObjectRef, lens: &Lens, dkey: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Listed> {
        let Some((object, node)) = self.memory.index.dkey(at, dkey) else { return Vec::new() };
        let hidden = self.memory.index.hidden_dkey(node, lens, self.memory.index.hidden_object(object, lens));
        let first = after.map_or(0, |after| node.akeys.partition_point(|akey| akey.key.bytes() <= after));
        let seen = node.akeys[first..].iter().filter(|akey| self.memory.index.akey_exists(akey, lens, hidden));
        seen.take(limit).map(|akey| Listed { kind: Some(akey.kind()), ..listed(akey.key.bytes().to_vec()) }).collect()
    }

    fn list_extents(
        &self,
        at: ObjectRef,
        lens: &Lens,
        (dkey, akey): (&[u8], &[u8]),
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let Some((object, node)) = self.memory.index.dkey(at, dkey) else { return Ok(Vec::new()) };
        let Some(found) = node.akey(akey) else { return Ok(Vec::new()) };
        let hidden = self.memory.index.hidden_dkey(node, lens, self.memory.index.hidden_object(object, lens));
        let hidden = self.memory.index.hidden_akey(found, lens, hidden);
        let anchor = match after {
            None => None,
            Some(bytes) => {
                let bytes = bytes.try_into().map_err(|_| StoreError::Bad("an extent's anchor has 8 bytes"))?;
                Some(u64::from_be_bytes(bytes))
            }
        };
        let mut runs: Vec<Listed> = Vec::new();
        let all = Extent { index: anchor.unwrap_or(0), count: u64::MAX - anchor.unwrap_or(0) };
        // The run that begins at the anchor was given: what continues it is skipped with it.
        let mut given = anchor;
        let mut run: Option<Extent> = None;
        for (start, column) in found.array.iter().flat_map(|array| array.overlapping(all)) {
            if self.memory.index.seen(&column.stack, lens, hidden).is_none() {
                continue;
            }
            match &mut run {
                Some(open) if open.end() == start => open.count = column.end - open.index,
                _ => {
                    runs.extend(run.take().filter(|run| given != Some(run.index)).map(extent_listed));
                    if runs.len() >= limit {
                        return Ok(runs);
                    }
                    run = Some(Extent { index: start, count: column.end - start });
                }
            }
        }
        runs.extend(run.filter(|run| given.take() != Some(run.index)).map(extent_listed));
        runs.truncate(limit);
        Ok(runs)
    }
}

fn listed(key: Vec<u8>) -> Listed {
    Listed { key, extent: Extent::default(), kind: None }
}

fn extent_listed(extent: Extent) -> Listed {
    Listed { extent, ..listed(extent.index.to_be_bytes().to_vec()) }
}
