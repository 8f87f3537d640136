//! The index: container → object → dkey → akey → versions, in memory.
//!
//! Owns the order and visibility of versions. Must never touch the medium: places are numbers to it, and places that nothing
//! shows any more are handed back through [`Versions::take_freed`].

pub(crate) mod array;
pub(crate) mod lens;
pub(crate) mod node;
pub(crate) mod reclaim;
pub(crate) mod slab;
pub(crate) mod stack;
pub(crate) mod version;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smallvec::SmallVec;
use talea_model::{ContainerId, Extent, Key, KeyError, Ledger, Oid, Stamp, TxId};

use crate::{ObjectRef, Punch, ValueKind};
use lens::{Lens, Rank};
use node::{Akey, Dkey, Object};
use slab::Slab;
use stack::{Piece, Stack};
use version::{Place, Tag, VersionId, Versions};

/// One container.
#[derive(Debug, Default)]
pub(crate) struct Container {
    /// Views below it are gone, but for the kept ones.
    pub floor: Stamp,
    /// Stamps that stay readable, with how often each is kept.
    pub kept: BTreeMap<Stamp, u32>,
    /// Objects by id.
    pub objects: BTreeMap<Oid, u32>,
}

/// What a transaction that is not settled yet has touched here.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Dkeys, each once.
    pub dkeys: Vec<u32>,
    /// Objects punched, each once.
    pub objects: Vec<u32>,
    /// Versions by container.
    pub versions: SmallVec<[(ContainerId, u64); 1]>,
}

/// The index of a store.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Containers that were written.
    pub containers: BTreeMap<ContainerId, Container>,
    /// Containers that are gone.
    pub destroyed: BTreeSet<ContainerId>,
    /// Objects.
    pub objects: Slab<Object>,
    /// Dkeys.
    pub dkeys: Slab<Dkey>,
    /// Versions.
    pub versions: Versions,
    /// Transactions with versions that wait for a fate.
    pub touched: HashMap<TxId, Touched>,
    /// Dkeys in which aggregation may find something, each once (see [`Dkey::restless`]).
    pub restless: Vec<u32>,
    /// Objects with punches; some more than once.
    pub restless_objects: Vec<u32>,
}

impl Index {
    /// The object, if anything was ever written to it.
    pub(crate) fn object(&self, at: ObjectRef) -> Option<&Object> {
        let id = self.containers.get(&at.container)?.objects.get(&at.oid)?;
        self.objects.get(*id)
    }

    /// The dkey, if anything was ever written to it.
    pub(crate) fn dkey(&self, at: ObjectRef, dkey: &[u8]) -> Option<(&Object, &Dkey)> {
        let object = self.object(at)?;
        Some((object, self.dkeys.get(*object.dkeys.get(dkey)?)?))
    }

    /// The object's number, made if it is not there.
    pub(crate) fn object_id(&mut self, at: ObjectRef) -> u32 {
        let objects = &mut self.objects;
        let container = self.containers.entry(at.container).or_default();
        *container.objects.entry(at.oid).or_insert_with(|| objects.add(Object::new(at)))
    }

    /// The dkey's number, made if it is not there.
    pub(crate) fn dkey_id(&mut self, at: ObjectRef, dkey: &[u8]) -> Result<u32, KeyError> {
        let object_id = self.object_id(at);
        let object = self.objects.must(object_id);
        if let Some(id) = object.dkeys.get(dkey) {
            return Ok(*id);
        }
        let key = Key::new(dkey)?;
        let id = self.dkeys.add(Dkey::new(at, object_id, key.clone()));
        object.dkeys.insert(key, id);
        Ok(id)
    }

    /// Adds versions of one akey.
    pub(crate) fn put(
        &mut self,
        at: ObjectRef,
        dkey: &[u8],
        akey: &[u8],
        kind: ValueKind,
        tag: Tag,
        places: impl Iterator<Item = (Extent, Place)>,
    ) -> Result<(), KeyError> {
        let id = self.dkey_id(at, dkey)?;
        self.note_waiting(tag, at.container, Some(id), None, 1);
        let node = self.dkeys.must(id);
        let akey = node.akey_mut(akey, kind)?;
        if akey.kind() != kind && kind != ValueKind::SingleMax {
            akey.set_kind(kind);
        }
        let mut restless = tag.tx.0 != 0;
        for (extent, place) in places {
            let version = self.versions.add(tag, place);
            self.versions.hold(version);
            match kind {
                ValueKind::Single | ValueKind::SingleMax => {
                    akey.single.push(Piece { version, skip: 0 }, &self.versions);
                    restless |= akey.single.is_restless(&self.versions);
                }
                ValueKind::Array { record_bytes } => {
                    akey.array.write(extent, version, u64::from(record_bytes), &mut self.versions);
                    restless |=
                        akey.array.overlapping(extent).any(|(_, column)| column.stack.is_restless(&self.versions));
                    self.versions.drop_ref(version);
                }
            }
        }
        if restless && !node.restless {
            node.restless = true;
            self.restless.push(id);
        }
        Ok(())
    }

    /// Adds a punch.
    pub(crate) fn punch(&mut self, at: ObjectRef, what: Punch, tag: Tag) -> Result<(), KeyError> {
        let (dkey, akey) = match what {
            Punch::Object => {
                let id = self.object_id(at);
                self.note_waiting(tag, at.container, None, Some(id), 1);
                let version = self.add_hole(tag);
                self.objects.must(id).punches.push(Piece { version, skip: 0 }, &self.versions);
                self.restless_objects.push(id);
                let all: Vec<u32> = self.objects.must(id).dkeys.values().copied().collect();
                all.into_iter().for_each(|dkey| self.mark_restless(dkey));
                return Ok(());
            }
            Punch::Dkey(dkey) => (dkey, None),
            Punch::Akey { dkey, akey } | Punch::Range { dkey, akey, .. } => (dkey, Some(akey)),
        };
        let id = self.dkey_id(at, dkey)?;
        self.note_waiting(tag, at.container, Some(id), None, 1);
        let version = self.add_hole(tag);
        let (node, versions) = (self.dkeys.must(id), &mut self.versions);
        match (akey, what) {
            (Some(akey), Punch::Range { extent, .. }) => {
                let akey = node.akey_mut(akey, ValueKind::Array { record_bytes: 1 })?;
                akey.array.write(extent, version, akey.record_bytes().into(), versions);
                versions.drop_ref(version);
            }
            (Some(akey), _) => {
                node.akey_mut(akey, ValueKind::Single)?.punches.push(Piece { version, skip: 0 }, versions);
            }
            (None, _) => node.punches.push(Piece { version, skip: 0 }, versions),
        }
        self.mark_restless(id);
        Ok(())
    }

    fn add_hole(&mut self, tag: Tag) -> VersionId {
        let version = self.versions.add(tag, Place::hole());
        self.versions.hold(version);
        version
    }

    /// Queues a dkey for aggregation.
    pub(crate) fn mark_restless(&mut self, id: u32) {
        if let Some(node) = self.dkeys.get_mut(id)
            && !node.restless
        {
            node.restless = true;
            self.restless.push(id);
        }
    }

    /// Remembers where a version that waits for a fate lies.
    pub(crate) fn note_waiting(
        &mut self,
        tag: Tag,
        container: ContainerId,
        dkey: Option<u32>,
        object: Option<u32>,
        more: u64,
    ) {
        if tag.tx.0 == 0 {
            return;
        }
        let touched = self.touched.entry(tag.tx).or_default();
        match touched.versions.iter_mut().find(|(c, _)| *c == container) {
            Some((_, count)) => *count += more,
            None => touched.versions.push((container, more)),
        }
        if let Some(id) = dkey {
            let waiting = &mut self.dkeys.must(id).waiting;
            if !waiting.contains(&tag.tx) {
                waiting.push(tag.tx);
                touched.dkeys.push(id);
            }
        }
        if let Some(id) = object {
            let waiting = &mut self.objects.must(id).waiting;
            if !waiting.contains(&tag.tx) {
                waiting.push(tag.tx);
                touched.objects.push(id);
            }
        }
    }

    /// At and below which rank a view sees nothing of an object.
    pub(crate) fn hidden_object(&self, object: &Object, lens: &Lens) -> Option<Rank> {
        self.hidden_by(&object.punches, lens)
    }

    /// At and below which rank a view sees nothing of a dkey, given what its object hides.
    pub(crate) fn hidden_dkey(&self, dkey: &Dkey, lens: &Lens, above: Option<Rank>) -> Option<Rank> {
        above.max(self.hidden_by(&dkey.punches, lens))
    }

    /// At and below which rank a view sees nothing of an akey, given what its dkey hides.
    pub(crate) fn hidden_akey(&self, akey: &Akey, lens: &Lens, above: Option<Rank>) -> Option<Rank> {
        above.max(self.hidden_by(&akey.punches, lens))
    }

    fn hidden_by(&self, punches: &Stack, lens: &Lens) -> Option<Rank> {
        if punches.is_empty() {
            return None;
        }
        punches.top(lens, &self.versions).map(|(rank, _)| rank)
    }

    /// What a view sees of a stack, if it is not punched.
    pub(crate) fn seen(&self, stack: &Stack, lens: &Lens, hidden: Option<Rank>) -> Option<Piece> {
        let (rank, piece) = stack.top(lens, &self.versions)?;
        (Some(rank) > hidden && !self.versions.get(piece.version).place.hole).then_some(piece)
    }

    /// Whether a view sees any value of an akey.
    pub(crate) fn akey_exists(&self, akey: &Akey, lens: &Lens, above: Option<Rank>) -> bool {
        let hidden = self.hidden_akey(akey, lens, above);
        self.seen(&akey.single, lens, hidden).is_some()
            || akey.array.columns().any(|(_, column)| self.seen(&column.stack, lens, hidden).is_some())
    }

    /// Whether a view sees any akey of a dkey.
    pub(crate) fn dkey_exists(&self, dkey: &Dkey, lens: &Lens, above: Option<Rank>) -> bool {
        let hidden = self.hidden_dkey(dkey, lens, above);
        dkey.akeys.iter().any(|(_, akey)| self.akey_exists(akey, lens, hidden))
    }

    /// Whether a view sees any dkey of an object.
    pub(crate) fn object_exists(&self, object: &Object, lens: &Lens) -> bool {
        let hidden = self.hidden_object(object, lens);
        object.dkeys.values().filter_map(|id| self.dkeys.get(*id)).any(|dkey| self.dkey_exists(dkey, lens, hidden))
    }

    /// Forgets a container.
    pub(crate) fn destroy(&mut self, container: ContainerId) {
        self.destroyed.insert(container);
        let Some(gone) = self.containers.remove(&container) else { return };
        for object_id in gone.objects.into_values() {
            let Some(mut object) = self.objects.remove(object_id) else { continue };
            object.punches.clear(&mut self.versions);
            for dkey_id in object.dkeys.into_values() {
                if let Some(mut dkey) = self.dkeys.remove(dkey_id) {
                    dkey.clear(&mut self.versions);
                }
            }
        }
        let (objects, dkeys) = (&self.objects, &self.dkeys);
        for touched in self.touched.values_mut() {
            touched.versions.retain(|(c, _)| *c != container);
            touched.dkeys.retain(|id| dkeys.get(*id).is_some());
            touched.objects.retain(|id| objects.get(*id).is_some());
        }
        self.restless.retain(|id| dkeys.get(*id).is_some());
    }

    /// Versions of open transactions in a container.
    pub(crate) fn pending_updates(&self, container: ContainerId, ledger: &Ledger) -> u64 {
        let open = self.touched.iter().filter(|(tx, _)| ledger.admits(**tx));
        open.flat_map(|(_, touched)| &touched.versions).filter(|(c, _)| *c == container).map(|(_, count)| count).sum()
    }
}
