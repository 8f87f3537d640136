//! Updates: verified, conditioned, stored, logged, applied; all or nothing.

use smallvec::SmallVec;
use talea_model::limit::{MAX_ENTRIES, MAX_EXTENTS, MAX_VALUE_BYTES};
use talea_model::{Extent, Order, Stamp, TxId, View, key};

use super::Store;
use crate::checksum::{crc32c_of_parts, granules};
use crate::index::version::{Place, Tag};
use crate::log::record::{Entry, Head, encode_value, kind};
use crate::log::{Data, Log};
use crate::{Ask, Caller, Condition, EntryUpdate, Judged, ObjectRef, StoreError, ValueKind};

/// Values up to this many bytes lie in the log record itself.
pub const INLINE_BYTES: usize = 4096;
/// The same where no record is written and larger values lie in blocks of the same tier: most of a block is used.
const SMALL_BYTES: usize = 3072;

/// One value of an update on its way to the medium.
struct Prepared<'a> {
    entry: usize,
    extent: Extent,
    data: &'a [u8],
    place: Place,
}

type AllPrepared<'a> = SmallVec<[Prepared<'a>; 2]>;

/// The dkeys of entries, by number, as far as they are there.
type Known = SmallVec<[Option<u32>; 4]>;

/// How values are kept.
#[derive(Clone, Copy)]
pub(crate) struct Keeping {
    /// Values up to this many bytes do not get blocks of their own.
    inline_bytes: usize,
    /// They are verified and carry checksums.
    sums: bool,
}

impl Keeping {
    pub(super) fn of(log: &Log) -> Self {
        let small = log.is_volatile() && log.bulk_bytes() == 0;
        Self { inline_bytes: if small { SMALL_BYTES } else { INLINE_BYTES }, sums: log.sums }
    }
}

impl Store {
    /// Stores entries: one call, one log record, all or nothing. `Auto` uses `stamp` and covers one dkey; `Pending` ignores
    /// `stamp`. `base` is the view of the conditions and of [`ValueKind::SingleMax`]. A call that
    /// [`already_done`](Self::already_done) knows changes nothing and is well.
    pub fn update(
        &mut self,
        at: ObjectRef,
        order: Order,
        stamp: Stamp,
        base: View,
        caller: Caller,
        entries: &[EntryUpdate],
    ) -> Result<(), StoreError> {
        self.update_judged(at, order, stamp, base, caller, entries, None)
    }

    /// As [`update`](Self::update), with conditions that [`judge_some`](Self::judge_some) found to hold.
    #[expect(clippy::too_many_arguments)]
    pub fn update_judged(
        &mut self,
        at: ObjectRef,
        order: Order,
        stamp: Stamp,
        base: View,
        caller: Caller,
        entries: &[EntryUpdate],
        judged: Option<Judged>,
    ) -> Result<(), StoreError> {
        if self.already_done(&caller) {
            return Ok(());
        }
        check_shape(order, entries)?;
        let tag = self.tag(at.container, order, stamp)?;
        self.update_tagged(Head { at, tag, caller }, base, entries, judged)
    }

    /// An update of a transaction that committed at C as far as this target knows, and that its redundancy group's leader took
    /// before the leader knew (docs/design.md §4 rules 7 and 9): it is stored as part of what was committed. Only for
    /// members of groups, which have not served a snapshot that knows of the commit. Without conditions.
    pub fn update_committed(
        &mut self,
        at: ObjectRef,
        commit: Stamp,
        caller: Caller,
        entries: &[EntryUpdate],
    ) -> Result<(), StoreError> {
        if self.already_done(&caller) {
            return Ok(());
        }
        // Not an autocommit: it may cover several dkeys.
        check_shape(Order::Pending(TxId(0)), entries)?;
        let tag = self.tag_committed(at.container, commit)?;
        self.update_tagged(Head { at, tag, caller }, View::Latest, entries, None)
    }

    fn update_tagged(
        &mut self,
        head: Head,
        base: View,
        entries: &[EntryUpdate],
        judged: Option<Judged>,
    ) -> Result<(), StoreError> {
        let Head { at, caller, .. } = head;
        let mut prepared = prepare(entries, self.keeping)?;
        if entries.iter().any(|entry| entry.condition != Condition::None) {
            let asks: SmallVec<[Ask<'_>; 4]> = entries.iter().map(EntryUpdate::ask).collect();
            self.judge(at, base, &asks, judged)?;
        }
        let known = self.look_up(at, base, entries, &mut prepared)?;
        if prepared.is_empty() && caller.session.0 == 0 {
            return Ok(());
        }
        self.refresh_reserve();
        let result = self.store(head, entries, &known, &mut prepared);
        match result {
            Err(full @ StoreError::NoSpace { .. }) => {
                self.make_room(full)?;
                // Aggregation may have taken a dkey away and given its number to another.
                self.store(head, entries, &[], &mut prepared).map_err(|error| self.room_to_come(error))
            }
            result => result,
        }
    }

    /// Writes, logs and applies. On an error nothing is kept.
    fn store(
        &mut self,
        mut head: Head,
        entries: &[EntryUpdate],
        known: &[Option<u32>],
        prepared: &mut AllPrepared,
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        for value in prepared.iter_mut().filter(|value| !value.place.inline) {
            match self.log.write_blocks(value.data) {
                Ok(offset) => value.place.offset = offset,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let result = result.and_then(|()| {
            let mut payload = std::mem::take(&mut self.scratch);
            if !self.log.is_volatile() {
                encode_update(&head, entries, prepared, &mut payload);
            }
            let appended = self.log.append(kind::UPDATE, &mut payload, &inline_data(prepared, self.keeping));
            self.scratch = payload;
            appended
        });
        let appended = match result {
            Ok(done) => done,
            Err(error) => {
                for value in prepared.iter_mut().filter(|value| value.place.offset != 0) {
                    self.log.space.untake(value.place.offset, value.data.len() as u64);
                    value.place.offset = 0;
                }
                return Err(error);
            }
        };
        head.tag.minor = appended.lsn << 16;
        self.apply_prepared(&head, appended.data_at, entries, known, prepared)?;
        self.memory.note_done(&head.caller);
        self.memory.ceiling = self.memory.ceiling.max(head.tag.stamp);
        self.free_gone();
        Ok(())
    }

    fn apply_prepared(
        &mut self,
        head: &Head,
        mut data_at: u64,
        entries: &[EntryUpdate],
        known: &[Option<u32>],
        prepared: &mut AllPrepared,
    ) -> Result<(), StoreError> {
        let mut at = 0;
        while at < prepared.len() {
            let number = prepared[at].entry;
            let count = prepared[at..].iter().take_while(|value| value.entry == number).count();
            let values = &mut prepared[at..at + count];
            for value in values.iter_mut().filter(|value| value.place.inline && !value.data.is_empty()) {
                value.place.offset = data_at;
                data_at += value.data.len() as u64;
                self.log.count_live(value.place.offset, value.data.len() as u64, true);
            }
            let entry = &entries[number];
            let places = values.iter_mut().map(|value| (value.extent, std::mem::take(&mut value.place)));
            // No two values of an update have the same order: the later one is above, however it is stored.
            let tag = Tag { minor: head.tag.minor + at as u64, ..head.tag };
            let index = &mut self.memory.index;
            let dkey = match known.get(number).copied().flatten() {
                Some(dkey) => dkey,
                None => index.dkey_id(head.at, entry.dkey)?,
            };
            index.put(head.at.container, dkey, entry.akey, entry.kind, tag, places)?;
            at += count;
        }
        Ok(())
    }

    /// Finds the dkeys, checks what they hold, and takes out values that are not larger than what is there.
    fn look_up(
        &self,
        at: ObjectRef,
        base: View,
        entries: &[EntryUpdate],
        prepared: &mut AllPrepared,
    ) -> Result<Known, StoreError> {
        let mut skipped: SmallVec<[usize; 4]> = SmallVec::new();
        let mut known = Known::new();
        for (number, entry) in entries.iter().enumerate() {
            let dkey = self.memory.index.find_dkey(at, entry.dkey);
            known.push(dkey);
            self.check_kind(dkey, entry)?;
            if entry.kind == ValueKind::SingleMax && !self.is_larger(at, base, entry)? {
                skipped.push(number);
            }
        }
        if !skipped.is_empty() {
            prepared.retain(|value| !skipped.contains(&value.entry));
        }
        Ok(known)
    }

    fn check_kind(&self, dkey: Option<u32>, entry: &EntryUpdate) -> Result<(), StoreError> {
        let asked = if entry.kind == ValueKind::SingleMax { ValueKind::Single } else { entry.kind };
        let node = dkey.and_then(|dkey| self.memory.index.dkeys.get(dkey));
        match node.and_then(|node| node.akey(entry.akey)) {
            Some(akey) if akey.kind() != asked && !akey.holds_nothing(&self.memory.index.versions) => {
                Err(StoreError::Kind { found: akey.kind().to_string(), asked: asked.to_string() })
            }
            _ => Ok(()),
        }
    }

    fn is_larger(&self, at: ObjectRef, base: View, entry: &EntryUpdate) -> Result<bool, StoreError> {
        let mut held = Vec::new();
        let fetched = self.fetch(at, base, entry.dkey, entry.akey, crate::FetchWhat::Single, &mut held)?;
        if fetched.found && held.len() != entry.data.len() {
            return Err(StoreError::Bad("a value that is kept if larger must have the length of the one before"));
        }
        Ok(!fetched.found || entry.data > &held[..])
    }
}

/// Checks what needs no store.
fn check_shape(order: Order, entries: &[EntryUpdate]) -> Result<(), StoreError> {
    let Some(first) = entries.first() else { return Err(StoreError::Bad("an update without entries")) };
    if entries.len() > MAX_ENTRIES || entries.iter().map(|entry| entry.extents.len()).sum::<usize>() > MAX_EXTENTS {
        return Err(StoreError::Bad("too many entries or extents in one update: split it"));
    }
    let auto = matches!(order, Order::Auto { .. });
    for entry in entries {
        key::check(entry.dkey)?;
        key::check(entry.akey)?;
        if auto && entry.dkey != first.dkey {
            return Err(StoreError::Bad("an autocommit covers one dkey: use a transaction for more"));
        }
        match entry.kind {
            ValueKind::Single | ValueKind::SingleMax => check_single(entry)?,
            ValueKind::Array { record_bytes } => check_array(entry, record_bytes)?,
        }
    }
    Ok(())
}

fn check_single(entry: &EntryUpdate) -> Result<(), StoreError> {
    if !entry.extents.is_empty() {
        return Err(StoreError::Bad("a single value has no extents"));
    }
    if entry.data.len() > MAX_VALUE_BYTES {
        return Err(StoreError::Bad("a single value has 1 MiB at most: use an array"));
    }
    Ok(())
}

fn check_array(entry: &EntryUpdate, record_bytes: u32) -> Result<(), StoreError> {
    if record_bytes == 0 || record_bytes as usize > MAX_VALUE_BYTES {
        return Err(StoreError::Bad("a record has 1 byte to 1 MiB"));
    }
    let mut bytes: u64 = 0;
    for extent in entry.extents {
        if Extent::new(extent.index, extent.count).is_none() {
            return Err(StoreError::Bad("an extent is empty or ends beyond the last index"));
        }
        let more = extent.count.checked_mul(record_bytes.into()).filter(|more| *more <= u32::MAX.into());
        bytes = more.and_then(|more| bytes.checked_add(more)).ok_or(StoreError::Bad("an extent has 4 GiB at most"))?;
    }
    if bytes != entry.data.len() as u64 || entry.extents.is_empty() {
        return Err(StoreError::Bad("the data does not have the length of its extents"));
    }
    Ok(())
}

/// Verifies checksums and cuts the data into values.
fn prepare<'a>(entries: &[EntryUpdate<'a>], keeping: Keeping) -> Result<AllPrepared<'a>, StoreError> {
    let mut prepared = SmallVec::new();
    for (number, entry) in entries.iter().enumerate() {
        let whole = [Extent::default()];
        let (extents, record_bytes) = match entry.kind {
            ValueKind::Array { record_bytes } => (entry.extents, record_bytes as usize),
            ValueKind::Single | ValueKind::SingleMax => (&whole[..], 0),
        };
        let (mut joined, mut rest) = (crate::checksum::Joined::default(), entry.data);
        for extent in extents {
            let len = if record_bytes == 0 { rest.len() } else { extent.count as usize * record_bytes };
            let data;
            (data, rest) = rest.split_at(len);
            let inline = len <= keeping.inline_bytes;
            let mut place = Place { offset: 0, len: len as u32, inline, ..Place::default() };
            if keeping.sums {
                let crc;
                (place.granules, crc) = granules(data);
                joined.push(crc, len as u64);
            }
            prepared.push(Prepared { entry: number, extent: *extent, data, place });
        }
        if keeping.sums && joined.crc != entry.checksum {
            let bytes = entry.data.len() as u64;
            return Err(StoreError::Checksum { expected: entry.checksum, found: joined.crc, bytes });
        }
    }
    Ok(prepared)
}

fn encode_update(head: &Head, entries: &[EntryUpdate], prepared: &AllPrepared, out: &mut crate::log::bytes::Writer) {
    out.begin_record();
    head.encode(out);
    let numbers = || prepared.iter().map(|value| value.entry);
    let distinct = numbers().zip(numbers().skip(1)).filter(|(a, b)| a != b).count() + usize::from(!prepared.is_empty());
    out.u32(distinct as u32);
    let mut at = 0;
    while at < prepared.len() {
        let number = prepared[at].entry;
        let count = prepared[at..].iter().take_while(|value| value.entry == number).count();
        let entry = &entries[number];
        Entry { dkey: entry.dkey, akey: entry.akey, kind: entry.kind, values: count as u32 }.encode(out);
        for value in &prepared[at..at + count] {
            encode_value(value.extent, &value.place, out);
        }
        at += count;
    }
}

/// The bytes that go into the record, with their checksum.
fn inline_data<'a>(prepared: &AllPrepared<'a>, keeping: Keeping) -> Data<'a> {
    let inline = || prepared.iter().filter(|value| value.place.inline && !value.data.is_empty());
    let parts: SmallVec<[&[u8]; 4]> = inline().map(|value| value.data).collect();
    let crc = match parts.len() {
        0 => 0,
        _ if !keeping.sums => 0,
        1 => inline().flat_map(|value| &value.place.granules).copied().next().unwrap_or(0),
        _ => crc32c_of_parts(&parts),
    };
    Data { parts, crc }
}
