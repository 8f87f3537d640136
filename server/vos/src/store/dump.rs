//! Objects and dkeys as records of a checkpoint (docs/formats.md).
//!
//! A dkey with many columns is written in parts, while updates go on: all parts describe it as it was after one log record.
//! Later versions are told by their minor order, which begins with the number of their record, and left out.

use std::collections::HashMap;

use smallvec::SmallVec;
use talea_model::{ContainerId, Extent, Oid};

use crate::ObjectRef;
use crate::index::array::Array;
use crate::index::node::{Akey, Dkey, Object};
use crate::index::small_key::SmallKey;
use crate::index::stack::{Piece, Stack};
use crate::index::version::{Bytes, Place, Tag, VersionId, Versions};
use crate::index::{Index, Touch};
use crate::log::bytes::{Reader, Writer};
use crate::log::record::{BadRecord, DataAt, decode_granules, decode_tag, encode_tag};
use crate::log::scan::Found;

/// A value that moves into the checkpoint.
pub(super) struct Moved {
    /// The version.
    pub(super) version: VersionId,
    /// Where in the record's data its bytes begin.
    pub(super) at: usize,
}

/// Gives the bytes of a value that should move into the checkpoint, or `None` if it stays where it is.
pub(super) type Mover<'a> = &'a mut dyn FnMut(Bytes) -> Option<Vec<u8>>;

/// A dkey in the middle of being written.
#[derive(Debug)]
pub(super) struct Dumping {
    /// Which.
    pub(super) dkey: u32,
    /// The last log record that it reflects.
    as_of: u64,
    /// The akey to go on with, and the record of it; `None` at the beginning.
    next: Option<(SmallKey, u64)>,
    /// Numbers of the versions written so far.
    numbers: HashMap<VersionId, u32>,
}

impl Dumping {
    pub(super) fn new(dkey: u32, as_of: u64) -> Self {
        Self { dkey, as_of, next: None, numbers: HashMap::new() }
    }
}

/// One part of a dkey, as it was written.
pub(super) struct Part {
    /// Values that are in the record now.
    pub(super) moved: Vec<Moved>,
    /// Their bytes.
    pub(super) data: Vec<u8>,
    /// Columns, values and punches in it.
    pub(super) items: usize,
    /// The dkey is whole.
    pub(super) done: bool,
}

/// Encodes one record: each version once, then the stacks that name them by their order of appearance.
struct Encoder<'a> {
    versions: &'a Versions,
    numbers: &'a mut HashMap<VersionId, u32>,
    as_of: u64,
    table: Writer,
    count: u32,
    moved: Vec<Moved>,
    data: Vec<u8>,
    stacks: Writer,
    mover: Mover<'a>,
}

impl<'a> Encoder<'a> {
    fn new(versions: &'a Versions, numbers: &'a mut HashMap<VersionId, u32>, as_of: u64, mover: Mover<'a>) -> Self {
        let (table, stacks) = (Writer::default(), Writer::default());
        let (moved, data) = (Vec::new(), Vec::new());
        Self { versions, numbers, as_of, table, count: 0, moved, data, stacks, mover }
    }

    fn number(&mut self, id: VersionId) -> u32 {
        let number = self.numbers.len() as u32;
        if let Some(number) = self.numbers.get(&id) {
            return *number;
        }
        self.count += 1;
        self.numbers.insert(id, number);
        encode_tag(&self.versions.tag(id), &mut self.table);
        let place = self.versions.bytes(id);
        let bytes = (self.mover)(place);
        let hole = self.versions.is_hole(id);
        self.table.u8(u8::from(hole) | u8::from(place.inline) << 1 | u8::from(bytes.is_some()) << 2);
        self.table.u32(place.len);
        self.table.u64(place.offset);
        self.versions.granules(id).iter().for_each(|crc| self.table.u32(*crc));
        if let Some(bytes) = bytes {
            self.moved.push(Moved { version: id, at: self.data.len() });
            self.data.extend_from_slice(&bytes);
        }
        number
    }

    /// The pieces of a stack that were there at the record described.
    fn pieces(&self, stack: &Stack) -> SmallVec<[Piece; 4]> {
        let known = |piece: &&Piece| self.versions.tag(piece.version).minor >> 16 <= self.as_of;
        stack.pieces(self.versions).iter().filter(known).copied().collect()
    }

    fn stack(&mut self, pieces: &[Piece], skip_bytes: u64) {
        self.stacks.u32(pieces.len() as u32);
        for piece in pieces {
            let number = self.number(piece.version);
            let more = if self.versions.is_hole(piece.version) { 0 } else { skip_bytes as u32 };
            self.stacks.u32(number);
            self.stacks.u32(piece.skip + more);
        }
    }

    fn whole(&mut self, stack: &Stack) {
        let pieces = self.pieces(stack);
        self.stack(&pieces, 0);
    }

    /// Up to `limit` columns of an array from record `from` on. Returns how many were looked at, and where to go on.
    fn columns(&mut self, akey: &Akey, from: u64, limit: usize) -> (usize, Option<u64>) {
        let (mut count, mut body, mut next) = (0, Vec::new(), None);
        let rest = Extent { index: from, count: u64::MAX - from };
        let columns = akey.array.iter().flat_map(|array| array.overlapping(rest));
        for (looked, (start, column)) in columns.enumerate() {
            if looked >= limit {
                next = Some(start);
                break;
            }
            count += 1;
            let first = start.max(from);
            let pieces = self.pieces(&column.stack);
            if !pieces.is_empty() {
                body.push((first, column.end, (first - start) * u64::from(akey.record_bytes()), pieces));
            }
        }
        self.stacks.u32(body.len() as u32);
        for (first, end, skip_bytes, pieces) in body {
            self.stacks.u64(first);
            self.stacks.u64(end);
            self.stack(&pieces, skip_bytes);
        }
        (count, next)
    }

    fn finish(self, out: &mut Writer) -> (Vec<Moved>, Vec<u8>) {
        out.u32(self.count);
        out.bytes(self.table.as_slice());
        out.bytes(self.stacks.as_slice());
        (self.moved, self.data)
    }
}

/// Appends an object's punches. `as_of` is the last log record that they reflect.
pub(super) fn encode_object(object: &Object, as_of: u64, versions: &Versions, out: &mut Writer) {
    out.u64(object.at.container.0);
    out.u128(object.at.oid.0);
    out.u64(as_of);
    let (mut numbers, mut stays) = (HashMap::new(), |_: Bytes| None);
    let mut encoder = Encoder::new(versions, &mut numbers, as_of, &mut stays);
    encoder.whole(&object.punches);
    encoder.finish(out);
}

/// Appends the next part of a dkey, of about `limit` items.
pub(super) fn encode_dkey(
    (at, node): (ObjectRef, &Dkey),
    dumping: &mut Dumping,
    versions: &Versions,
    mover: Mover<'_>,
    limit: usize,
    out: &mut Writer,
) -> Part {
    let next = dumping.next.take();
    if next.is_none() {
        out.u64(at.container.0);
        out.u128(at.oid.0);
        out.u64(dumping.as_of);
        out.key(node.key.bytes());
    }
    let mut encoder = Encoder::new(versions, &mut dumping.numbers, dumping.as_of, mover);
    let mut items = 0;
    let (mut akeys, mut from) = (&node.akeys[..], 0);
    match next {
        None => encoder.whole(&node.punches),
        Some((key, record)) => {
            encoder.stacks.u32(0);
            akeys = &akeys[akeys.partition_point(|akey| akey.key.bytes() < key.bytes())..];
            from = if akeys.first().is_some_and(|akey| akey.key.bytes() == key.bytes()) { record } else { 0 };
        }
    }
    let mut left = None;
    for akey in akeys {
        if items > 0 && items >= limit {
            left = Some((akey.key.clone(), 0));
            break;
        }
        encoder.stacks.u8(1);
        encoder.stacks.key(akey.key.bytes());
        encoder.stacks.u32(akey.record_bytes());
        if from == 0 {
            encoder.whole(&akey.punches);
            encoder.whole(&akey.single);
        } else {
            encoder.stacks.u32(0);
            encoder.stacks.u32(0);
        }
        let (looked, rest) = encoder.columns(akey, from, limit.saturating_sub(items).max(1));
        items += looked + 1;
        from = 0;
        if let Some(rest) = rest {
            left = Some((akey.key.clone(), rest));
            break;
        }
    }
    encoder.stacks.u8(0);
    let (moved, data) = encoder.finish(out);
    dumping.next = left;
    Part { moved, data, items: items.max(1), done: dumping.next.is_none() }
}

/// A dkey in the middle of being read.
#[derive(Debug)]
pub(super) struct Restoring {
    dkey: u32,
    container: ContainerId,
    /// Its versions by number. Each is held once until the end.
    ids: Vec<VersionId>,
    restless: bool,
}

impl Restoring {
    /// Reads the first part; also gives the last log record that the dkey reflects.
    pub(super) fn begin(found: &Found, index: &mut Index) -> Result<(Self, u64), BadRecord> {
        let mut from = Reader::new(found.meta);
        let (at, as_of) = decode_head(&mut from)?;
        let dkey = index.dkey_id(at, from.key()?).map_err(|_| BadRecord)?;
        // It may have come to its end and begun anew while the checkpoint was written: the later description holds.
        let node = index.dkeys.must(dkey);
        node.clear_some(usize::MAX, &mut index.versions);
        node.waiting = Default::default();
        let mut restoring = Self { dkey, container: at.container, ids: Vec::new(), restless: false };
        restoring.part(from, found.data, index)?;
        Ok((restoring, as_of))
    }

    /// Reads the next part.
    pub(super) fn go_on(&mut self, found: &Found, index: &mut Index) -> Result<(), BadRecord> {
        self.part(Reader::new(found.meta), found.data, index)
    }

    /// Which dkey.
    pub(super) fn dkey(&self) -> u32 {
        self.dkey
    }

    /// All parts are read.
    pub(super) fn finish(self, index: &mut Index) {
        self.ids.into_iter().for_each(|id| index.versions.drop_ref(id));
        if self.restless {
            index.mark_restless(self.dkey);
        }
    }

    fn part(&mut self, mut from: Reader, data: DataAt, index: &mut Index) -> Result<(), BadRecord> {
        for (id, tag) in decode_versions(&mut from, data, &mut index.versions)? {
            self.ids.push(id);
            if tag.tx.0 != 0 {
                index.touched.entry(tag.tx).or_default().count(self.container, 1);
                let node = index.dkeys.must(self.dkey);
                if node.waiting.add(tag.tx) {
                    index.objects.must(node.object).below.add(tag.tx);
                }
            }
        }
        let mut punches = decode_stack(&mut from, &self.ids, &mut index.versions)?;
        self.note(&punches, index, || Touch::Dkey(self.dkey));
        if !punches.is_empty() {
            self.restless = true;
            std::mem::swap(&mut index.dkeys.must(self.dkey).punches, &mut punches);
        }
        while from.u8()? != 0 {
            self.akey(&mut from, index)?;
        }
        Ok(())
    }

    fn akey(&mut self, from: &mut Reader, index: &mut Index) -> Result<(), BadRecord> {
        let key = SmallKey::new(from.key()?).map_err(|_| BadRecord)?;
        let kind = match from.u32()? {
            0 => crate::ValueKind::Single,
            record_bytes => crate::ValueKind::Array { record_bytes },
        };
        let (dkey, mut restless) = (self.dkey, false);
        let punches = decode_stack(from, &self.ids, &mut index.versions)?;
        let single = decode_stack(from, &self.ids, &mut index.versions)?;
        self.note(&punches, index, || Touch::Akey(dkey, key.clone()));
        self.note(&single, index, || Touch::Akey(dkey, key.clone()));
        restless |= !punches.is_empty() || single.is_restless(&index.versions);
        let node = index.dkeys.must(dkey);
        let akey = node.akey_mut(key.bytes(), kind).map_err(|_| BadRecord)?;
        if !punches.is_empty() {
            akey.punches = punches;
        }
        if !single.is_empty() {
            akey.single = single;
        }
        let mut array = akey.array.take();
        let mut last = 0;
        for _ in 0..from.count(20)? {
            let (start, end) = (from.u64()?, from.u64()?);
            let stack = decode_stack(from, &self.ids, &mut index.versions)?;
            if start < last || end <= start {
                return Err(BadRecord);
            }
            last = end;
            let extent = Extent { index: start, count: end - start };
            restless |= stack.is_restless(&index.versions);
            self.note(&stack, index, || Touch::Range(dkey, key.clone(), extent));
            array.get_or_insert_with(|| Box::new(Array::default())).restore(extent, stack);
        }
        if let Ok(akey) = index.dkeys.must(dkey).akey_mut(key.bytes(), kind) {
            akey.array = array;
        }
        self.restless |= restless;
        Ok(())
    }

    /// Notes where versions lie that wait for a fate.
    fn note(&self, stack: &Stack, index: &mut Index, touch: impl Fn() -> Touch) {
        if !stack.has_unsettled(&index.versions) {
            return;
        }
        let txs: SmallVec<[_; 4]> =
            stack.pieces(&index.versions).iter().map(|piece| index.versions.tag(piece.version).tx).collect();
        for tx in txs.into_iter().filter(|tx| tx.0 != 0) {
            index.note_waiting(tx, self.container, touch(), 0);
        }
    }
}

/// Reads a table of versions, each held once.
fn decode_versions(
    from: &mut Reader,
    mut data: DataAt,
    versions: &mut Versions,
) -> Result<Vec<(VersionId, Tag)>, BadRecord> {
    let count = from.count(46)?;
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let tag = decode_tag(from)?;
        let flags = from.u8()?;
        let (len, mut offset) = (from.u32()?, from.u64()?);
        let granules = if flags & 1 != 0 { Default::default() } else { decode_granules(len, from)? };
        if flags & 4 != 0 {
            offset = data.take(len)?;
        }
        offset.checked_add(len.into()).ok_or(BadRecord)?;
        let place = Place { offset, len, inline: flags & 2 != 0, hole: flags & 1 != 0, granules };
        let id = versions.add(tag, &place);
        versions.hold(id);
        found.push((id, tag));
    }
    Ok(found)
}

fn decode_stack(from: &mut Reader, ids: &[VersionId], versions: &mut Versions) -> Result<Stack, BadRecord> {
    let mut stack = Stack::default();
    for _ in 0..from.count(8)? {
        let (number, skip) = (from.u32()?, from.u32()?);
        let version = *ids.get(number as usize).ok_or(BadRecord)?;
        versions.hold(version);
        stack.push(Piece { version, skip }, versions);
    }
    Ok(stack)
}

fn decode_head(from: &mut Reader) -> Result<(ObjectRef, u64), BadRecord> {
    Ok((ObjectRef { container: ContainerId(from.u64()?), oid: Oid(from.u128()?) }, from.u64()?))
}

/// Puts an object back; gives its number, and the last log record that its punches reflect.
pub(super) fn decode_object(found: &Found, index: &mut Index) -> Result<(u32, u64), BadRecord> {
    let mut from = Reader::new(found.meta);
    let (at, as_of) = decode_head(&mut from)?;
    let id = index.object_id(at);
    let table = decode_versions(&mut from, found.data, &mut index.versions)?;
    let ids: Vec<VersionId> = table.iter().map(|(id, _)| *id).collect();
    let punches = decode_stack(&mut from, &ids, &mut index.versions)?;
    for (version, tag) in table {
        index.versions.drop_ref(version);
        if tag.tx.0 != 0 {
            index.note_waiting(tag.tx, at.container, Touch::Object(id), 1);
            index.objects.must(id).waiting.add(tag.tx);
        }
    }
    let object = index.objects.must(id);
    object.punches.clear(&mut index.versions);
    object.punches = punches;
    index.mark_object_restless(id);
    Ok((id, as_of))
}
