//! Fuzz bodies of what the store decodes from a medium, shared by the property tests and the fuzzer. Must never panic, whatever the
//! bytes: checksums come first in the store, and are left out here.

use crate::log::Segment;
use crate::log::bulk::{BULK_HEADER_BYTES, BulkHeader};
use crate::log::bytes::Reader;
use crate::log::header::{SEGMENT_HEADER_BYTES, SUPERBLOCK_BYTES, SegmentHeader, Superblock};
use crate::log::record::{self, DataAt};

/// Feeds `bytes` to every decoder.
pub fn all(bytes: &[u8]) {
    headers(bytes);
    let reader = || Reader::new(bytes);
    if record::Head::decode(&mut reader(), 7).is_ok() {
        let mut update = reader();
        let _ = record::Head::decode(&mut update, 7);
        while entry(&mut update).is_some() {}
    }
    let mut entries = reader();
    while entry(&mut entries).is_some() {}
    let _ = record::decode_punch(&mut reader());
    let _ = record::decode_follow(&mut reader());
    let _ = record::decode_fate(&mut reader());
    let _ = record::decode_tag(&mut reader());
    let _ = super::state::decode_segments(bytes);
}

/// An entry of an update with its values.
fn entry(from: &mut Reader<'_>) -> Option<()> {
    let entry = record::Entry::decode(from).ok()?;
    let mut data = DataAt { at: 4096, end: 8192 };
    for _ in 0..entry.values {
        record::decode_value(from, &mut data).ok()?;
    }
    Some(())
}

fn headers(bytes: &[u8]) {
    if let Some(bytes) = bytes.first_chunk::<SUPERBLOCK_BYTES>() {
        let _ = Superblock::decode(bytes);
    }
    if let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() {
        let _ = SegmentHeader::decode(bytes, Segment { start: 8192, len: 4096, number: 1 }, 9);
    }
    if let Some(bytes) = bytes.first_chunk::<BULK_HEADER_BYTES>() {
        let _ = BulkHeader::decode(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fuzz_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            super::all(&bytes);
        }

        #[test]
        fn fuzz_small_numbers(bytes in prop::collection::vec(0u8..4, 0..512)) {
            super::all(&bytes);
        }
    }
}
