//! Enumeration: what exists in a view, in order.

use talea_model::{Extent, Oid, View, limit::MAX_ENUMERATED};

use super::Store;
use super::walk::Walk;
use crate::index::lens::Lens;
use crate::index::look::{Looks, Paused};
use crate::{Enumerate, Listed, ObjectRef, StoreError};

impl Store {
    /// At most `limit` things after the anchor, in order. Fewer than `limit` (and than 1024) means that there are no more. Goes
    /// through everything on its way; a server takes [`enumerate_some`](Self::enumerate_some).
    pub fn enumerate(
        &self,
        at: ObjectRef,
        view: View,
        what: Enumerate,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut walk = Walk::default();
        while !self.enumerate_some(at, view, what, after, limit, super::walk::LOOKS, &mut walk)? {}
        Ok(walk.into_listed())
    }

    /// Goes on with an enumeration, looking at no more than `looks` things; the same arguments each time. Returns whether it came
    /// to its end: at most `limit` things after the anchor were found, in order, and if fewer (than 1024 as well) all there are.
    #[expect(clippy::too_many_arguments)]
    pub fn enumerate_some(
        &self,
        at: ObjectRef,
        view: View,
        what: Enumerate,
        after: Option<&[u8]>,
        limit: usize,
        looks: usize,
        walk: &mut Walk,
    ) -> Result<bool, StoreError> {
        let lens = self.lens(at.container, view)?;
        let limit = limit.min(MAX_ENUMERATED);
        let mut left = Looks::new(looks);
        let done = match what {
            Enumerate::Objects => {
                let after = match after {
                    None => None,
                    Some(bytes) => {
                        let bytes = bytes.try_into();
                        Some(bytes.map_err(|_| StoreError::Bad("an object's anchor has 16 bytes"))?)
                    }
                };
                self.list_objects(at, &lens, after, limit, &mut left, walk)
            }
            Enumerate::Dkeys => self.list_dkeys(at, &lens, after, limit, &mut left, walk),
            Enumerate::Akeys { dkey } => self.list_akeys(at, &lens, dkey, after, limit, &mut left, walk),
            Enumerate::Extents { dkey, akey } => {
                let anchor = match after {
                    None => None,
                    Some(bytes) => {
                        let bytes = bytes.try_into().map_err(|_| StoreError::Bad("an extent's anchor has 8 bytes"))?;
                        Some(u64::from_be_bytes(bytes))
                    }
                };
                self.list_extents(at, &lens, (dkey, akey), anchor, limit, &mut left, walk)
            }
        };
        walk.note(&left);
        Ok(done.is_ok())
    }

    fn list_objects(
        &self,
        at: ObjectRef,
        lens: &Lens,
        after: Option<[u8; 16]>,
        limit: usize,
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<(), Paused> {
        let index = &self.memory.index;
        let Some(container) = index.containers.get(&at.container) else { return Ok(()) };
        let objects = &container.objects;
        let from = match (walk.cursor.oid, after.map(|bytes| Oid(u128::from_be_bytes(bytes)))) {
            (Some(next), _) => objects.seek(|oid| *oid < next),
            (None, Some(after)) => objects.seek(|oid| *oid <= after),
            (None, None) => Default::default(),
        };
        for (oid, id) in objects.iter_from(from) {
            if walk.listed.len() >= limit {
                return Ok(());
            }
            walk.cursor.enter_object(oid);
            looks.take()?;
            let Some(object) = index.objects.get(*id) else { continue };
            if index.object_seen(object, lens, &mut walk.cursor, looks)? {
                walk.listed.push(listed(oid.0.to_be_bytes().to_vec()));
            }
        }
        Ok(())
    }

    fn list_dkeys(
        &self,
        at: ObjectRef,
        lens: &Lens,
        after: Option<&[u8]>,
        limit: usize,
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<(), Paused> {
        let index = &self.memory.index;
        let Some(object) = index.object(at) else { return Ok(()) };
        let above = index.hidden_object(object, lens);
        let from = match (&walk.cursor.dkey, after) {
            (Some(next), _) => index.seek(object, next.bytes()).0,
            (None, Some(after)) => index.after(object, after),
            (None, None) => Default::default(),
        };
        for (dkey, ()) in object.dkeys.iter_from(from) {
            if walk.listed.len() >= limit {
                return Ok(());
            }
            let Some(node) = index.dkeys.get(dkey.id) else { continue };
            walk.cursor.enter_dkey(&node.key);
            if index.dkey_seen(node, lens, above, &mut walk.cursor, looks)? {
                walk.listed.push(listed(node.key.bytes().to_vec()));
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments)]
    fn list_akeys(
        &self,
        at: ObjectRef,
        lens: &Lens,
        dkey: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<(), Paused> {
        let index = &self.memory.index;
        let Some((object, node)) = index.dkey(at, dkey) else { return Ok(()) };
        let hidden = index.hidden_dkey(node, lens, index.hidden_object(object, lens));
        let first = match (&walk.cursor.akey, after) {
            (Some(next), _) => node.akeys.partition_point(|akey| akey.key.bytes() < next.bytes()),
            (None, Some(after)) => node.akeys.partition_point(|akey| akey.key.bytes() <= after),
            (None, None) => 0,
        };
        for akey in &node.akeys[first..] {
            if walk.listed.len() >= limit {
                return Ok(());
            }
            walk.cursor.enter_akey(&akey.key);
            if index.akey_seen(akey, lens, hidden, &mut walk.cursor, looks)? {
                walk.listed.push(Listed { kind: Some(akey.kind()), ..listed(akey.key.bytes().to_vec()) });
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments)]
    fn list_extents(
        &self,
        at: ObjectRef,
        lens: &Lens,
        (dkey, akey): (&[u8], &[u8]),
        anchor: Option<u64>,
        limit: usize,
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<(), Paused> {
        let index = &self.memory.index;
        let Some((object, node)) = index.dkey(at, dkey) else { return Ok(()) };
        let Some(found) = node.akey(akey) else { return Ok(()) };
        let hidden = index.hidden_dkey(node, lens, index.hidden_object(object, lens));
        if !std::mem::replace(&mut walk.begun, true) {
            walk.cursor.record = anchor;
        }
        let Walk { listed, cursor, run, .. } = walk;
        // The run that begins at the anchor was given: what continues it is skipped with it.
        let mut give = |run: Extent| {
            if anchor != Some(run.index) {
                listed.push(extent_listed(run));
            }
            listed.len() < limit
        };
        index.columns_seen(found, lens, hidden, cursor, looks, |start, column| match run {
            Some(open) if open.end() == start => {
                open.count = column.end - open.index;
                true
            }
            _ => {
                let goes_on = run.take().is_none_or(&mut give);
                *run = goes_on.then_some(Extent { index: start, count: column.end - start });
                goes_on
            }
        })?;
        if let Some(run) = run.take() {
            give(run);
        }
        Ok(())
    }
}

fn listed(key: Vec<u8>) -> Listed {
    Listed { key, extent: Extent::default(), kind: None }
}

fn extent_listed(extent: Extent) -> Listed {
    Listed { extent, ..listed(extent.index.to_be_bytes().to_vec()) }
}
