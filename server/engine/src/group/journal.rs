//! The last updates of each group on the target's medium: what a member that starts again says it holds.
//!
//! They lie in the store, in a container of their own that no pool has, as arrays of bytes: one an update, below a dkey a group.
//! An update's note stands in the store's log right before the update itself, under the same flush. So of all notes that a
//! restart finds only the last one of a group can be without its update, and then nobody has heard of it.

use talea_model::{ContainerId, Extent, MapVersion, Oid, Order, Stamp, TargetId, TxId, View};
use talea_vos::{
    Caller, Change, Condition, EntryUpdate, Enumerate, FetchWhat, ObjectRef, Punch, Query, Store, StoreError, ValueKind,
};
use talea_wire::group::{Entry, Place};

use super::Held;

/// Container and object of the notes.
const AT: ObjectRef = ObjectRef { container: ContainerId(u64::MAX), oid: Oid(1) };
/// The akey of the place before the first note; those of notes are numbers.
const BASE: &[u8] = b"base";
/// Bytes of a note before the request: term, stamp, transaction, and whether there is nothing to apply.
const HEAD_BYTES: usize = 21;
/// Notes that are removed together.
const TRIMMED: u64 = 32;

/// What a restart finds.
pub(super) struct Found {
    pub(super) held: Held,
    /// The last note, if its update has to be there but for a restart in between.
    pub(super) last: Option<Entry>,
}

/// The notes of one group.
pub(super) struct Journal {
    dkey: Vec<u8>,
    /// Notes up to this number are removed.
    removed: u64,
    /// The place before the first note that is needed.
    base: Place,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Journal {
    pub(super) fn of(group: &[TargetId]) -> Self {
        let dkey = group.iter().flat_map(|target| target.0.to_be_bytes()).collect();
        Journal { dkey, removed: 0, base: Place::default() }
    }

    /// Reads what there is.
    pub(super) fn open(&mut self, store: &Store) -> Result<Found, StoreError> {
        let mut base = Vec::new();
        if store.fetch(AT, View::Latest, &self.dkey, BASE, FetchWhat::Single, &mut base)?.found {
            self.base = Place { seq: number(&base[..8]), term: MapVersion(number(&base[8..12]) as u32) };
        }
        self.removed = self.base.seq;
        let (mut entries, mut last) = (Vec::new(), None);
        let mut seq = self.base.seq + 1;
        while let Some((entry, applies)) = self.read(store, seq)? {
            last = applies.then(|| entry.clone());
            entries.push(entry);
            seq += 1;
        }
        Ok(Found { held: Held { base: self.base, entries }, last })
    }

    fn read(&self, store: &Store, seq: u64) -> Result<Option<(Entry, bool)>, StoreError> {
        let akey = seq.to_be_bytes();
        let end = store.query(AT, View::Latest, Query::ArrayEnd { dkey: &self.dkey, akey: &akey })?.end;
        if end < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let (mut bytes, extent) = (Vec::new(), Extent { index: 0, count: end });
        store.fetch(AT, View::Latest, &self.dkey, &akey, FetchWhat::Array(&[extent]), &mut bytes)?;
        let (head, request) = bytes.split_at(HEAD_BYTES);
        let place = Place { seq, term: MapVersion(number(&head[..4]) as u32) };
        let (stamp, tx) = (Stamp(number(&head[4..12])), TxId(number(&head[12..20])));
        Ok(Some((Entry { place, stamp, tx, request: request.into() }, head[20] == 0)))
    }

    /// Notes an update that will be applied, or that is `void`: nothing is left to apply.
    pub(super) fn note(&self, store: &mut Store, stamp: Stamp, entry: &Entry, void: bool) -> Result<(), StoreError> {
        let mut data = Vec::with_capacity(HEAD_BYTES + entry.request.len());
        data.extend_from_slice(&entry.place.term.0.to_be_bytes());
        data.extend_from_slice(&entry.stamp.0.to_be_bytes());
        data.extend_from_slice(&entry.tx.0.to_be_bytes());
        data.push(void.into());
        data.extend_from_slice(&entry.request);
        let extent = Extent { index: 0, count: data.len() as u64 };
        let kind = ValueKind::Array { record_bytes: 1 };
        self.put(store, stamp, &entry.place.seq.to_be_bytes(), kind, &[extent], &data)
    }

    fn put(
        &self,
        store: &mut Store,
        stamp: Stamp,
        akey: &[u8],
        kind: ValueKind,
        extents: &[Extent],
        data: &[u8],
    ) -> Result<(), StoreError> {
        let checksum = talea_vos::checksum::crc32c(data);
        let entry = EntryUpdate { dkey: &self.dkey, akey, kind, condition: Condition::None, extents, data, checksum };
        store.update(AT, Order::Auto { tied: None }, stamp, View::Latest, Caller::default(), &[entry])
    }

    /// Removes a note whose update was not applied.
    pub(super) fn remove(&self, store: &mut Store, stamp: Stamp, seq: u64) -> Result<(), StoreError> {
        let what = Punch::Akey { dkey: &self.dkey, akey: &seq.to_be_bytes() };
        let order = Order::Auto { tied: None };
        store.punch(AT, order, stamp, View::Latest, Caller::default(), what, Condition::None)
    }

    /// Notes up to a place are not needed any more; they go some at a time. `stamp` gives stamps, each later than the one before.
    pub(super) fn trim(
        &mut self,
        store: &mut Store,
        through: Place,
        mut stamp: impl FnMut() -> Stamp,
    ) -> Result<(), StoreError> {
        self.base = self.base.max(through);
        if self.base.seq < self.removed + TRIMMED {
            return Ok(());
        }
        let mut base = Vec::with_capacity(12);
        base.extend_from_slice(&self.base.seq.to_be_bytes());
        base.extend_from_slice(&self.base.term.0.to_be_bytes());
        self.put(store, stamp(), BASE, ValueKind::Single, &[], &base)?;
        for seq in self.removed + 1..=self.base.seq {
            self.remove(store, stamp(), seq)?;
        }
        self.removed = self.base.seq;
        Ok(())
    }

    /// Lets the store forget what was removed from all groups before this stamp.
    pub(super) fn forget(store: &mut Store, stamp: Stamp) -> Result<(), StoreError> {
        let horizon = store.ledger().horizon();
        store.follow(&[Change::Floor(AT.container, stamp)], horizon)
    }

    /// Whether anything is there of notes that were to be removed when the process before ended.
    pub(super) fn leftovers(&self, store: &Store) -> Result<Vec<u64>, StoreError> {
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let what = Enumerate::Akeys { dkey: &self.dkey };
            let page = store.enumerate(AT, View::Latest, what, after.as_deref(), 256)?;
            let numbers = page.iter().filter(|listed| listed.key.len() == 8).map(|listed| number(&listed.key));
            found.extend(numbers.filter(|seq| *seq <= self.base.seq));
            match page.last() {
                Some(last) if page.len() == 256 => after = Some(last.key.clone()),
                _ => return Ok(found),
            }
        }
    }
}
