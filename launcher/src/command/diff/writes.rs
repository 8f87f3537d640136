//! What was written, object by object: ranges of files, keys of other objects.

use std::collections::BTreeMap;

use serde::Serialize;
use talea_client::{Difference, Differs};
use talea_model::Oid;
use talea_posix::inode::{DATA, META};

/// What was written in a file or object.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Ranges of a file, in order.
    pub(super) ranges: Vec<Range>,
    /// A file's size or time was.
    pub(super) has_size: bool,
    /// Keys of an object that is no file.
    pub(super) keys: Vec<Key>,
}

/// A range of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    #[serde(serialize_with = "word")]
    pub(super) how: Differs,
}

/// A key of an object: a single value, or runs of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Key {
    /// Bytes that are no text are escaped.
    pub(super) dkey: String,
    pub(super) akey: String,
    /// How a single value differs.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "word_if")]
    pub(super) value: Option<Differs>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) record_bytes: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) records: Vec<Records>,
}

/// A run of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Records {
    pub(super) index: u64,
    pub(super) count: u64,
    #[serde(serialize_with = "word")]
    pub(super) how: Differs,
}

/// Everything that was written, as the differences come: in order of object, dkey, akey and record.
#[derive(Debug, Default)]
pub(super) struct Writes(pub(super) BTreeMap<Oid, Written>);

pub(super) fn how(how: Differs) -> &'static str {
    match how {
        Differs::Added => "added",
        Differs::Changed => "changed",
        Differs::Removed => "removed",
    }
}

fn word<S: serde::Serializer>(value: &Differs, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(how(*value))
}

fn word_if<S: serde::Serializer>(value: &Option<Differs>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.map_or("", how))
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Writes {
    /// Takes one difference; `chunk_of` tells the bytes of a chunk of an object that is a file.
    pub(super) fn add(&mut self, one: Difference, chunk_of: impl Fn(Oid) -> Option<u64>) {
        let written = self.0.entry(one.place.oid).or_default();
        match chunk_of(one.place.oid) {
            Some(chunk_bytes) => written.add_to_file(&one, chunk_bytes),
            None => written.add_to_object(&one),
        }
    }
}

impl Written {
    fn add_to_file(&mut self, one: &Difference, chunk_bytes: u64) {
        let Ok(chunk) = one.place.dkey.as_slice().try_into().map(u64::from_be_bytes) else {
            self.has_size |= one.place.dkey == META;
            return;
        };
        if one.place.akey != DATA {
            return;
        }
        let offset = chunk.saturating_mul(chunk_bytes).saturating_add(one.extent.index);
        let bytes = one.extent.count;
        match self.ranges.last_mut().filter(|last| last.how == one.how && last.offset + last.bytes == offset) {
            Some(last) => last.bytes += bytes,
            None => self.ranges.push(Range { offset, bytes, how: one.how }),
        }
    }

    fn add_to_object(&mut self, one: &Difference) {
        let (dkey, akey) = (shown(&one.place.dkey), shown(&one.place.akey));
        let is_same = |last: &&mut Key| last.dkey == dkey && last.akey == akey;
        let is_value = one.record_bytes == 0;
        let key = match self.keys.last_mut().filter(is_same) {
            // A key may have been a value before, and an array after.
            Some(key) => key,
            None => {
                self.keys.push(Key { dkey, akey, value: None, record_bytes: 0, records: vec![] });
                let last = self.keys.len() - 1;
                &mut self.keys[last]
            }
        };
        if is_value {
            key.value = Some(one.how);
            return;
        }
        key.record_bytes = one.record_bytes;
        let (index, count, how) = (one.extent.index, one.extent.count, one.how);
        match key.records.last_mut().filter(|last| last.how == how && last.index + last.count == index) {
            Some(last) => last.count += count,
            None => key.records.push(Records { index, count, how }),
        }
    }

    /// Bytes that were written: of a file's ranges and of arrays.
    pub(super) fn bytes(&self) -> u64 {
        let ranges = self.ranges.iter().filter(|range| range.how != Differs::Removed).map(|range| range.bytes);
        let of_key = |key: &Key| {
            let records = key.records.iter().filter(|run| run.how != Differs::Removed).map(|run| run.count);
            records.sum::<u64>().saturating_mul(u64::from(key.record_bytes))
        };
        ranges.sum::<u64>().saturating_add(self.keys.iter().map(of_key).sum())
    }
}

fn shown(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use talea_client::DiffPlace;
    use talea_model::Extent;

    fn one(dkey: &[u8], akey: &[u8], record_bytes: u32, (index, count): (u64, u64), how: Differs) -> Difference {
        let place = DiffPlace { oid: Oid(7), dkey: dkey.to_vec(), akey: akey.to_vec(), index };
        Difference { place, record_bytes, extent: Extent { index, count }, how }
    }

    #[test]
    fn a_range_goes_over_the_borders_of_chunks() {
        let mut writes = Writes::default();
        for (chunk, extent, how) in [
            (0_u64, (4000, 96), Differs::Added),
            (1, (0, 4096), Differs::Added),
            (2, (0, 10), Differs::Changed),
            (2, (20, 10), Differs::Changed),
            (3, (0, 4096), Differs::Removed),
        ] {
            writes.add(one(&chunk.to_be_bytes(), DATA, 1, extent, how), |_| Some(4096));
        }
        writes.add(one(META, b"mtime", 0, (u64::MAX, 0), Differs::Changed), |_| Some(4096));
        let written = &writes.0[&Oid(7)];
        let ranges: Vec<_> = written.ranges.iter().map(|range| (range.offset, range.bytes, range.how)).collect();
        let expected = [
            (4000, 96 + 4096, Differs::Added),
            (8192, 10, Differs::Changed),
            (8212, 10, Differs::Changed),
            (12288, 4096, Differs::Removed),
        ];
        assert_eq!(ranges, expected);
        assert_eq!(written.bytes(), 96 + 4096 + 20);
    }

    #[test]
    fn an_object_has_its_keys() {
        let mut writes = Writes::default();
        writes.add(one(b"a", b"x", 8, (0, 4), Differs::Added), |_| None);
        writes.add(one(b"a", b"x", 8, (4, 4), Differs::Added), |_| None);
        writes.add(one(b"a", b"y", 0, (u64::MAX, 0), Differs::Removed), |_| None);
        writes.add(one(&[0, 1], b"y", 0, (u64::MAX, 0), Differs::Changed), |_| None);
        let keys = &writes.0[&Oid(7)].keys;
        assert_eq!(keys.len(), 3);
        assert_eq!(keys[0].records, [Records { index: 0, count: 8, how: Differs::Added }]);
        assert_eq!((keys[1].value, keys[2].dkey.as_str()), (Some(Differs::Removed), "\\x00\\x01"));
        assert_eq!(writes.0[&Oid(7)].bytes(), 64);
    }
}
