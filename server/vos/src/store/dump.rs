//! Objects and dkeys as records of a checkpoint (docs/formats.md).

use std::collections::HashMap;

use talea_model::{ContainerId, Extent, Oid};

use crate::ObjectRef;
use crate::index::Index;
use crate::index::array::Array;
use crate::index::node::{Akey, Dkey, Object};
use crate::index::stack::{Piece, Stack};
use crate::index::version::{Place, Tag, VersionId, Versions};
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
pub(super) type Mover<'a> = &'a dyn Fn(&Place) -> Option<Vec<u8>>;

/// Encodes one node: each version once, then the stacks that name them by their order of appearance.
struct Encoder<'a> {
    versions: &'a Versions,
    numbers: HashMap<VersionId, u32>,
    table: Writer,
    count: u32,
    /// Moved values, and their bytes.
    moved: Vec<Moved>,
    data: Vec<u8>,
    stacks: Writer,
    mover: Mover<'a>,
}

impl<'a> Encoder<'a> {
    fn new(versions: &'a Versions, mover: Mover<'a>) -> Self {
        let (table, stacks) = (Writer::default(), Writer::default());
        Self { versions, numbers: HashMap::new(), table, count: 0, moved: Vec::new(), data: Vec::new(), stacks, mover }
    }

    fn number(&mut self, id: VersionId) -> u32 {
        if let Some(number) = self.numbers.get(&id) {
            return *number;
        }
        let version = self.versions.get(id);
        let (place, number) = (&version.place, self.count);
        self.count += 1;
        self.numbers.insert(id, number);
        encode_tag(&version.tag, &mut self.table);
        let bytes = (self.mover)(place);
        let flags = u8::from(place.hole) | u8::from(place.inline) << 1 | u8::from(bytes.is_some()) << 2;
        self.table.u8(flags);
        self.table.u32(place.len);
        self.table.u64(place.offset);
        place.granules.iter().for_each(|crc| self.table.u32(*crc));
        if let Some(bytes) = bytes {
            self.moved.push(Moved { version: id, at: self.data.len() });
            self.data.extend_from_slice(&bytes);
        }
        number
    }

    fn stack(&mut self, stack: &Stack) {
        self.stacks.u32(stack.pieces().len() as u32);
        for piece in stack.pieces() {
            let number = self.number(piece.version);
            self.stacks.u32(number);
            self.stacks.u32(piece.skip);
        }
    }

    fn akey(&mut self, akey: &Akey) {
        self.stacks.u32(akey.record_bytes());
        self.stack(&akey.punches);
        self.stack(&akey.single);
        self.stacks.u32(akey.array.columns().count() as u32);
        for (start, column) in akey.array.columns() {
            self.stacks.u64(start);
            self.stacks.u64(column.end);
            self.stack(&column.stack);
        }
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
    let mut encoder = Encoder::new(versions, &|_| None);
    encoder.stack(&object.punches);
    encoder.finish(out);
}

/// Appends a dkey; returns the values that are in the record now, and their bytes.
pub(super) fn encode_dkey(
    node: &Dkey,
    as_of: u64,
    versions: &Versions,
    mover: Mover<'_>,
    out: &mut Writer,
) -> (Vec<Moved>, Vec<u8>) {
    out.u64(node.at.container.0);
    out.u128(node.at.oid.0);
    out.u64(as_of);
    out.key(&node.key);
    let mut encoder = Encoder::new(versions, mover);
    encoder.stack(&node.punches);
    encoder.stacks.u32(node.akeys.len() as u32);
    for (key, akey) in &node.akeys {
        encoder.stacks.key(key);
        encoder.akey(akey);
    }
    encoder.finish(out)
}

/// Decodes one node.
struct Decoder<'a> {
    from: Reader<'a>,
    ids: Vec<VersionId>,
    tags: Vec<Tag>,
}

impl<'a> Decoder<'a> {
    /// Reads the table of versions. Each is held once until [`finish`](Self::finish).
    fn new(mut from: Reader<'a>, mut data: DataAt, versions: &mut Versions) -> Result<Self, BadRecord> {
        let count = from.count(46)?;
        let (mut ids, mut tags) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let tag = decode_tag(&mut from)?;
            let flags = from.u8()?;
            let (len, mut offset) = (from.u32()?, from.u64()?);
            let granules = if flags & 1 != 0 { Default::default() } else { decode_granules(len, &mut from)? };
            if flags & 4 != 0 {
                offset = data.take(len)?;
            }
            offset.checked_add(len.into()).ok_or(BadRecord)?;
            let place = Place { offset, len, inline: flags & 2 != 0, hole: flags & 1 != 0, granules };
            let id = versions.add(tag, place);
            versions.hold(id);
            ids.push(id);
            tags.push(tag);
        }
        Ok(Self { from, ids, tags })
    }

    fn stack(&mut self, versions: &mut Versions) -> Result<Stack, BadRecord> {
        let mut stack = Stack::default();
        for _ in 0..self.from.count(8)? {
            let (number, skip) = (self.from.u32()?, self.from.u32()?);
            let version = *self.ids.get(number as usize).ok_or(BadRecord)?;
            versions.hold(version);
            stack.push(Piece { version, skip }, versions);
        }
        Ok(stack)
    }

    fn array(&mut self, versions: &mut Versions) -> Result<Array, BadRecord> {
        let (mut array, mut last) = (Array::default(), 0);
        for _ in 0..self.from.count(20)? {
            let (start, end) = (self.from.u64()?, self.from.u64()?);
            if start < last || end <= start {
                return Err(BadRecord);
            }
            last = end;
            array.restore(Extent { index: start, count: end - start }, self.stack(versions)?);
        }
        Ok(array)
    }

    fn finish(self, versions: &mut Versions) -> Vec<Tag> {
        self.ids.into_iter().for_each(|id| versions.drop_ref(id));
        self.tags
    }
}

fn decode_head(from: &mut Reader) -> Result<(ObjectRef, u64), BadRecord> {
    Ok((ObjectRef { container: ContainerId(from.u64()?), oid: Oid(from.u128()?) }, from.u64()?))
}

/// Puts an object back.
pub(super) fn decode_object(found: &Found, index: &mut Index) -> Result<(), BadRecord> {
    let mut from = Reader::new(found.meta);
    let (at, as_of) = decode_head(&mut from)?;
    let id = index.object_id(at);
    let mut decoder = Decoder::new(from, found.data, &mut index.versions)?;
    let punches = decoder.stack(&mut index.versions)?;
    for tag in decoder.finish(&mut index.versions) {
        index.note_waiting(tag, at.container, None, Some(id), 1);
    }
    let object = index.objects.must(id);
    object.punches = punches;
    object.as_of = as_of;
    index.restless_objects.push(id);
    Ok(())
}

/// Puts a dkey back.
pub(super) fn decode_dkey(found: &Found, index: &mut Index) -> Result<(), BadRecord> {
    let mut from = Reader::new(found.meta);
    let (at, as_of) = decode_head(&mut from)?;
    let id = index.dkey_id(at, from.key()?).map_err(|_| BadRecord)?;
    let mut decoder = Decoder::new(from, found.data, &mut index.versions)?;
    let punches = decoder.stack(&mut index.versions)?;
    let mut akeys = Vec::new();
    for _ in 0..decoder.from.count(18)? {
        let key = talea_model::Key::new(decoder.from.key()?).map_err(|_| BadRecord)?;
        let record_bytes = decoder.from.u32()?;
        let kind = match record_bytes {
            0 => crate::ValueKind::Single,
            record_bytes => crate::ValueKind::Array { record_bytes },
        };
        let mut akey = Akey::new(kind);
        akey.punches = decoder.stack(&mut index.versions)?;
        akey.single = decoder.stack(&mut index.versions)?;
        akey.array = decoder.array(&mut index.versions)?;
        akeys.push((key, akey));
    }
    for tag in decoder.finish(&mut index.versions) {
        index.note_waiting(tag, at.container, Some(id), None, 1);
    }
    let node = index.dkeys.must(id);
    (node.punches, node.akeys, node.as_of) = (punches, akeys, as_of);
    index.mark_restless(id);
    Ok(())
}
