//! Fetches: what a view sees, every byte verified.

use talea_model::{Extent, View};

use super::Store;
use crate::checksum::{GRANULE_BYTES, Joined, crc32c};
use crate::index::lens::{Lens, Rank};
use crate::index::node::Akey;
use crate::index::version::VersionId;
use crate::{FetchWhat, Fetched, ObjectRef, StoreError, ValueKind};

/// Bytes of an answer where the options do not say.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

impl Store {
    /// Appends what a view sees to `out`; holes are zeros. Every byte was verified against its stored checksum. On an error
    /// nothing is appended.
    pub fn fetch(
        &self,
        at: ObjectRef,
        view: View,
        dkey: &[u8],
        akey: &[u8],
        what: FetchWhat,
        out: &mut Vec<u8>,
    ) -> Result<Fetched, StoreError> {
        let lens = self.lens(at.container, view)?;
        let Some((object, node)) = self.memory.index.dkey(at, dkey) else { return Ok(Fetched::default()) };
        let Some(found) = node.akey(akey) else { return Ok(Fetched::default()) };
        let hidden = self.memory.index.hidden_dkey(node, &lens, self.memory.index.hidden_object(object, &lens));
        let hidden = self.memory.index.hidden_akey(found, &lens, hidden);
        let asked = match what {
            FetchWhat::Single => ValueKind::Single,
            FetchWhat::Array(_) => ValueKind::Array { record_bytes: found.record_bytes() },
            FetchWhat::Records(record_bytes, _) => ValueKind::Array { record_bytes },
        };
        if found.kind() != asked {
            if found.holds_nothing(&self.memory.index.versions) {
                return Ok(Fetched::default());
            }
            return Err(StoreError::Kind { found: found.kind().to_string(), asked: asked.to_string() });
        }
        let before = out.len();
        let result = match what {
            FetchWhat::Single => self.fetch_single(found, &lens, hidden, out),
            FetchWhat::Array(extents) | FetchWhat::Records(_, extents) => {
                self.fetch_array(found, &lens, hidden, extents, out)
            }
        };
        result.map_err(|lost| {
            out.truncate(before);
            match lost {
                StoreError::DataLost { what, offset } => {
                    let (dkey, akey) = (dkey.escape_ascii(), akey.escape_ascii());
                    let place = format!("{what} of akey \"{akey}\", dkey \"{dkey}\", object {}", at.oid);
                    StoreError::DataLost { what: format!("{place}, container {}", at.container), offset }
                }
                other => other,
            }
        })
    }

    /// Begins to read what a [`fetch`](Self::fetch) is about to need from a device; false: no more of that now. What is wrong with the
    /// request the fetch itself will say.
    pub fn read_ahead(&self, at: ObjectRef, view: View, dkey: &[u8], akey: &[u8], what: FetchWhat) -> bool {
        let granule = GRANULE_BYTES as u64;
        match what {
            FetchWhat::Array(extents) | FetchWhat::Records(_, extents) => extents.iter().all(|extent| {
                let Ok(located) = self.locate(at, view, dkey, akey, *extent) else { return true };
                located.spans.iter().all(|span| {
                    let from = u64::from(span.skip_bytes);
                    let to = from + span.count * u64::from(located.record_bytes);
                    let (from, to) = (from / granule * granule, to.next_multiple_of(granule).min(span.bytes.into()));
                    self.log.read_ahead(span.offset + from, to - from)
                })
            }),
            FetchWhat::Single => {
                let Ok(lens) = self.lens(at.container, view) else { return true };
                let index = &self.memory.index;
                let Some((object, node)) = index.dkey(at, dkey) else { return true };
                let Some(akey) = node.akey(akey) else { return true };
                let hidden = index.hidden_dkey(node, &lens, index.hidden_object(object, &lens));
                let hidden = index.hidden_akey(akey, &lens, hidden);
                let Some(piece) = index.seen(&akey.single, &lens, hidden) else { return true };
                let place = index.versions.bytes(piece.version);
                self.log.read_ahead(place.offset, place.len.into())
            }
        }
    }

    /// All fetches that it was begun for are over.
    pub fn forget_ahead(&self) {
        self.log.forget_ahead();
    }

    /// Whether fetches wait for a device.
    pub fn reads_wait(&self) -> bool {
        self.log.reads_wait()
    }

    fn fetch_single(
        &self,
        akey: &Akey,
        lens: &Lens,
        hidden: Option<Rank>,
        out: &mut Vec<u8>,
    ) -> Result<Fetched, StoreError> {
        let Some(piece) = self.memory.index.seen(&akey.single, lens, hidden) else { return Ok(Fetched::default()) };
        let len = self.memory.index.versions.bytes(piece.version).len.into();
        self.check_room(len, out)?;
        let mut joined = Joined::default();
        self.append_verified(piece.version, 0, len, out, &mut joined)?;
        Ok(Fetched { found: true, bytes: len, record_bytes: 0, filled: true, checksum: joined.crc, looked: 1 })
    }

    fn fetch_array(
        &self,
        akey: &Akey,
        lens: &Lens,
        hidden: Option<Rank>,
        extents: &[Extent],
        out: &mut Vec<u8>,
    ) -> Result<Fetched, StoreError> {
        let record_bytes = u64::from(akey.record_bytes());
        let records = extents.iter().try_fold(0u64, |sum, extent| {
            Extent::new(extent.index, extent.count).and_then(|extent| sum.checked_add(extent.count))
        });
        let Some(bytes) = records.and_then(|n| n.checked_mul(record_bytes)) else {
            return Err(StoreError::Bad("extents are empty or end beyond the last index"));
        };
        self.check_room(bytes, out)?;
        out.reserve(bytes as usize);
        let mut joined = Joined::default();
        let record_size = akey.record_bytes();
        let mut fetched =
            Fetched { found: false, bytes, record_bytes: record_size, filled: true, checksum: 0, looked: 1 };
        for extent in extents {
            let mut at = extent.index;
            for (start, column) in akey.array.iter().flat_map(|array| array.overlapping(*extent)) {
                fetched.looked = fetched.looked.saturating_add(1);
                let Some(piece) = self.memory.index.seen(&column.stack, lens, hidden) else { continue };
                let (first, last) = (start.max(extent.index), column.end.min(extent.end()));
                fetched.filled &= at == first;
                append_zeros((first - at) * record_bytes, out, &mut joined);
                let from = u64::from(piece.skip) + (first - start) * record_bytes;
                self.append_verified(piece.version, from, from + (last - first) * record_bytes, out, &mut joined)?;
                fetched.found = true;
                at = last;
            }
            fetched.filled &= at == extent.end();
            append_zeros((extent.end() - at) * record_bytes, out, &mut joined);
        }
        fetched.checksum = joined.crc;
        Ok(fetched)
    }

    /// Refuses what would make an answer too large, before anything is gathered.
    fn check_room(&self, bytes: u64, out: &[u8]) -> Result<(), StoreError> {
        let limit = match self.options.max_answer_bytes {
            0 => MAX_ANSWER_BYTES,
            limit => limit,
        };
        match bytes.checked_add(out.len() as u64) {
            Some(all) if all <= limit => Ok(()),
            _ => Err(StoreError::Bad("the answer would be larger than one message carries: ask for less at a time")),
        }
    }

    /// Appends bytes `from..to` of a version. Whole granules are verified after the copy, so that nothing between medium and
    /// caller goes unseen; of others the whole granule is verified in place.
    fn append_verified(
        &self,
        version: VersionId,
        from: u64,
        to: u64,
        out: &mut Vec<u8>,
        joined: &mut Joined,
    ) -> Result<(), StoreError> {
        let granule = GRANULE_BYTES as u64;
        let place = self.memory.index.versions.bytes(version);
        let granules = self.memory.index.versions.granules(version);
        let lost = |at: u64| StoreError::DataLost {
            what: format!("bytes {from} to {to} (of a version of {} bytes)", place.len),
            offset: place.offset + at,
        };
        if from >= to {
            return Ok(());
        }
        if to > place.len.into() {
            return Err(lost(from));
        }
        let read_from = from / granule * granule;
        let read_to = to.next_multiple_of(granule).min(place.len.into());
        let mut copied = Vec::new();
        let source = match self.log.bytes(place.offset + read_from, read_to - read_from) {
            Some(bytes) => bytes,
            None => {
                copied.resize((read_to - read_from) as usize, 0);
                self.log.read(place.offset + read_from, &mut copied)?;
                &copied[..]
            }
        };
        if !self.log.sums {
            out.extend_from_slice(&source[(from - read_from) as usize..(to - read_from) as usize]);
            return Ok(());
        }
        for (number, bytes) in source.chunks(GRANULE_BYTES).enumerate() {
            let start = read_from + (number * GRANULE_BYTES) as u64;
            let expected = granules.get((start / granule) as usize).copied();
            let first = from.saturating_sub(start) as usize;
            let last = ((to - start) as usize).min(bytes.len());
            let part = &bytes[first..last];
            let before = out.len();
            out.extend_from_slice(part);
            let appended = crc32c(&out[before..]);
            let whole = if part.len() == bytes.len() { appended } else { crc32c(bytes) };
            if Some(whole) != expected {
                return Err(lost(start));
            }
            joined.push(appended, part.len() as u64);
        }
        Ok(())
    }
}

fn append_zeros(bytes: u64, out: &mut Vec<u8>, joined: &mut Joined) {
    if bytes > 0 {
        let before = out.len();
        out.resize(before + bytes as usize, 0);
        joined.push(crc32c(&out[before..]), bytes);
    }
}
