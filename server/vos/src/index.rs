//! The index: container → object → dkey → akey → versions, in memory.
//!
//! Owns the order and visibility of versions. Must never touch the medium: places are numbers to it, and places that nothing
//! shows any more are handed back through [`Versions::take_freed`].

pub(crate) mod array;
pub(crate) mod lens;
pub(crate) mod look;
pub(crate) mod node;
pub(crate) mod reclaim;
pub(crate) mod slab;
pub(crate) mod small_key;
pub(crate) mod sorted;
pub(crate) mod stack;
pub(crate) mod version;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smallvec::SmallVec;
use talea_model::{ContainerId, Extent, KeyError, Ledger, Oid, Stamp, TxId};

use crate::{ObjectRef, Punch, ValueKind};
use lens::{Lens, Rank};
use node::{Akey, Dkey, DkeyRef, Object};
use slab::Slab;
use small_key::SmallKey;
use sorted::{Pos, Sorted};
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
    pub objects: Sorted<Oid, u32>,
}

/// Something that a transaction touched and that has to be settled.
#[derive(Clone, Debug)]
pub(crate) enum Touch {
    /// Punches of an object.
    Object(u32),
    /// Punches of a dkey.
    Dkey(u32),
    /// Punches and value of an akey.
    Akey(u32, SmallKey),
    /// Records of an array, and others between them.
    Range(u32, SmallKey, Extent),
}

impl Touch {
    fn dkey(&self) -> Option<u32> {
        match self {
            Self::Object(_) => None,
            Self::Dkey(id) | Self::Akey(id, _) | Self::Range(id, ..) => Some(*id),
        }
    }
}

/// From so many places on, a transaction's new ones in an array are joined with the last, whatever lies between.
const MANY_TOUCHES: usize = 4096;

/// What a transaction that is not settled yet has touched here.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Where.
    pub all: Vec<Touch>,
    /// Versions by container.
    pub versions: SmallVec<[(ContainerId, u64); 1]>,
}

impl Touched {
    pub(crate) fn count(&mut self, container: ContainerId, more: u64) {
        match self.versions.iter_mut().find(|(c, _)| *c == container) {
            Some((_, count)) => *count += more,
            None => self.versions.push((container, more)),
        }
    }

    fn add_range(&mut self, dkey: u32, akey: &SmallKey, extent: Extent) {
        let many = self.all.len() >= MANY_TOUCHES;
        if let Some(Touch::Range(id, key, last)) = self.all.last_mut()
            && *id == dkey
            && key.bytes() == akey.bytes()
        {
            let (start, end) = (last.index.min(extent.index), last.end().max(extent.end()));
            if many || end - start <= last.count.saturating_add(extent.count).saturating_mul(2) {
                *last = Extent { index: start, count: end - start };
                return;
            }
        }
        self.all.push(Touch::Range(dkey, akey.clone(), extent));
    }

    fn add(&mut self, touch: Touch) {
        let same = match (self.all.last(), &touch) {
            (Some(Touch::Akey(a, key)), Touch::Akey(b, other)) => a == b && key.bytes() == other.bytes(),
            (Some(Touch::Dkey(a)), Touch::Dkey(b)) | (Some(Touch::Object(a)), Touch::Object(b)) => a == b,
            _ => false,
        };
        if !same {
            self.all.push(touch);
        }
    }
}

/// The index of a store.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Containers that were written.
    pub containers: BTreeMap<ContainerId, Container>,
    /// Containers that are gone.
    pub destroyed: BTreeSet<ContainerId>,
    /// What is left of them, to be taken apart in portions.
    pub doomed: Vec<Sorted<Oid, u32>>,
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
    /// Objects with punches, each once (see [`Object::restless`]).
    pub restless_objects: Vec<u32>,
}

impl Index {
    /// The object's number, if anything was ever written to it.
    pub(crate) fn find_object(&self, at: ObjectRef) -> Option<u32> {
        let objects = &self.containers.get(&at.container)?.objects;
        let (oid, id) = objects.entry(objects.seek(|oid| *oid < at.oid))?;
        (oid == at.oid).then_some(*id)
    }

    /// The object, if anything was ever written to it.
    pub(crate) fn object(&self, at: ObjectRef) -> Option<&Object> {
        self.objects.get(self.find_object(at)?)
    }

    /// Where a dkey of an object is, or belongs.
    pub(crate) fn seek(&self, object: &Object, dkey: &[u8]) -> (Pos, Option<u32>) {
        object.seek(dkey, |id| self.dkeys.get(id).map_or(&[], |node| node.key.bytes()))
    }

    /// The first dkey of an object behind a key.
    pub(crate) fn after(&self, object: &Object, dkey: &[u8]) -> Pos {
        match self.seek(object, dkey) {
            (pos, Some(_)) => object.dkeys.step(pos),
            (pos, None) => pos,
        }
    }

    /// The dkey's number, if anything was ever written to it.
    pub(crate) fn find_dkey(&self, at: ObjectRef, dkey: &[u8]) -> Option<u32> {
        self.seek(self.object(at)?, dkey).1
    }

    /// The dkey, if anything was ever written to it.
    pub(crate) fn dkey(&self, at: ObjectRef, dkey: &[u8]) -> Option<(&Object, &Dkey)> {
        let object = self.object(at)?;
        Some((object, self.dkeys.get(self.seek(object, dkey).1?)?))
    }

    /// Nodes and keys that a look-up of a dkey, and of a record of one of its akeys, looks at.
    pub(crate) fn cost(&self, at: ObjectRef, dkey: &[u8], akey: &[u8]) -> Option<(u32, u32)> {
        let (object, node) = self.dkey(at, dkey)?;
        let objects = self.containers.get(&at.container)?.objects.cost();
        let array = node.akey(akey).and_then(|akey| akey.array.as_ref()).map_or((0, 0), |array| array.cost());
        let dkeys = object.dkeys.cost();
        Some((objects.0 + dkeys.0 + array.0 + 3, objects.1 + dkeys.1 + array.1))
    }

    /// The object's number, made if it is not there.
    pub(crate) fn object_id(&mut self, at: ObjectRef) -> u32 {
        if let Some(id) = self.find_object(at) {
            return id;
        }
        let id = self.objects.add(Object::new(at));
        let objects = &mut self.containers.entry(at.container).or_default().objects;
        let pos = objects.seek(|oid| *oid < at.oid);
        objects.insert(pos, at.oid, id);
        id
    }

    /// The dkey's number, made if it is not there.
    pub(crate) fn dkey_id(&mut self, at: ObjectRef, dkey: &[u8]) -> Result<u32, KeyError> {
        let object_id = self.object_id(at);
        let found = self.objects.get(object_id).map(|object| self.seek(object, dkey));
        let pos = match found {
            Some((_, Some(id))) => return Ok(id),
            Some((pos, None)) => pos,
            None => Pos::default(),
        };
        let key = SmallKey::new(dkey)?;
        let id = self.dkeys.add(Dkey::new(object_id, key));
        self.objects.must(object_id).dkeys.insert(pos, DkeyRef { prefix: SmallKey::prefix(dkey), id }, ());
        Ok(id)
    }

    /// Adds versions of one akey of a dkey that is there; the minor order of each is one more than that of the one before.
    pub(crate) fn put(
        &mut self,
        container: ContainerId,
        id: u32,
        akey: &[u8],
        kind: ValueKind,
        tag: Tag,
        places: impl Iterator<Item = (Extent, Place)>,
    ) -> Result<(), KeyError> {
        let node = self.dkeys.must(id);
        let akey = node.akey_mut(akey, kind)?;
        if akey.kind() != kind && kind != ValueKind::SingleMax {
            akey.set_kind(kind);
        }
        let waits = tag.tx.0 != 0;
        let mut touched = waits.then(|| self.touched.entry(tag.tx).or_default());
        let (mut restless, mut count) = (waits, 0);
        for (extent, place) in places {
            let version = self.versions.add(Tag { minor: tag.minor + count, ..tag }, &place);
            self.versions.hold(version);
            match kind {
                ValueKind::Single | ValueKind::SingleMax => {
                    akey.single.push(Piece { version, skip: 0 }, &mut self.versions);
                    restless |= akey.single.is_restless(&self.versions);
                    touched.iter_mut().for_each(|touched| touched.add(Touch::Akey(id, akey.key.clone())));
                }
                ValueKind::Array { record_bytes } => {
                    let array = akey.array.get_or_insert_default();
                    restless |= array.write(extent, version, u64::from(record_bytes), &mut self.versions);
                    self.versions.drop_ref(version);
                    touched.iter_mut().for_each(|touched| touched.add_range(id, &akey.key, extent));
                }
            }
            count += 1;
        }
        if let Some(touched) = touched {
            if node.waiting.add(tag.tx) {
                self.objects.must(node.object).below.add(tag.tx);
            }
            touched.count(container, count);
        }
        if restless {
            self.mark_restless(id);
        }
        Ok(())
    }

    /// Adds a punch.
    pub(crate) fn punch(&mut self, at: ObjectRef, what: Punch, tag: Tag) -> Result<(), KeyError> {
        let waits = tag.tx.0 != 0;
        let (dkey, akey) = match what {
            Punch::Object => {
                let id = self.object_id(at);
                let version = self.add_hole(tag);
                let object = self.objects.must(id);
                object.punches.push(Piece { version, skip: 0 }, &mut self.versions);
                if waits {
                    object.waiting.add(tag.tx);
                    self.note_waiting(tag.tx, at.container, Touch::Object(id), 1);
                }
                self.mark_object_restless(id);
                return Ok(());
            }
            Punch::Dkey(dkey) => (dkey, None),
            Punch::Akey { dkey, akey } | Punch::Range { dkey, akey, .. } => (dkey, Some(akey)),
        };
        let id = self.dkey_id(at, dkey)?;
        let version = self.add_hole(tag);
        let (node, versions) = (self.dkeys.must(id), &mut self.versions);
        let piece = Piece { version, skip: 0 };
        let touch = match (akey, what) {
            (Some(akey), Punch::Range { extent, .. }) => {
                let akey = node.akey_mut(akey, ValueKind::Array { record_bytes: 1 })?;
                let record_bytes = akey.record_bytes().into();
                akey.array.get_or_insert_default().write(extent, version, record_bytes, versions);
                versions.drop_ref(version);
                Touch::Range(id, akey.key.clone(), extent)
            }
            (Some(akey), _) => {
                let akey = node.akey_mut(akey, ValueKind::Single)?;
                akey.punches.push(piece, versions);
                Touch::Akey(id, akey.key.clone())
            }
            (None, _) => {
                node.punches.push(piece, versions);
                Touch::Dkey(id)
            }
        };
        if waits {
            if node.waiting.add(tag.tx) {
                self.objects.must(node.object).below.add(tag.tx);
            }
            self.note_waiting(tag.tx, at.container, touch, 1);
        }
        self.mark_restless(id);
        Ok(())
    }

    fn add_hole(&mut self, tag: Tag) -> VersionId {
        let version = self.versions.add(tag, &Place::hole());
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

    /// Queues an object with punches for aggregation.
    pub(crate) fn mark_object_restless(&mut self, id: u32) {
        if let Some(object) = self.objects.get_mut(id)
            && !object.restless
        {
            object.restless = true;
            self.restless_objects.push(id);
        }
    }

    /// Remembers where a version that waits for a fate lies.
    pub(crate) fn note_waiting(&mut self, tx: TxId, container: ContainerId, touch: Touch, more: u64) {
        let touched = self.touched.entry(tx).or_default();
        match touch {
            Touch::Range(id, key, extent) => touched.add_range(id, &key, extent),
            touch => touched.add(touch),
        }
        touched.count(container, more);
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
        (Some(rank) > hidden && !self.versions.is_hole(piece.version)).then_some(piece)
    }

    /// Forgets a container at once; what it held is taken apart by [`bury_some`](Self::bury_some).
    pub(crate) fn destroy(&mut self, container: ContainerId) {
        self.destroyed.insert(container);
        if let Some(gone) = self.containers.remove(&container) {
            self.doomed.push(gone.objects);
        }
        for touched in self.touched.values_mut() {
            touched.versions.retain(|(c, _)| *c != container);
        }
    }

    /// Whether a dkey's container is gone.
    pub(crate) fn is_doomed(&self, node: &Dkey) -> bool {
        self.objects.get(node.object).is_none_or(|object| self.destroyed.contains(&object.at.container))
    }

    /// Versions of open transactions in a container.
    pub(crate) fn pending_updates(&self, container: ContainerId, ledger: &Ledger) -> u64 {
        let open = self.touched.iter().filter(|(tx, _)| ledger.admits(**tx));
        open.flat_map(|(_, touched)| &touched.versions).filter(|(c, _)| *c == container).map(|(_, count)| count).sum()
    }
}
