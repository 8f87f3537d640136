//! Packing and cutting of entries, and the checks of autocommits.

use proptest::prelude::*;
use talea_fabric::endpoint::MAX_PAYLOAD_BYTES;
use talea_model::limit::MAX_VALUE_BYTES;

use super::*;

proptest! {
    #[test]
    fn pieces_cover_an_entry_once_and_fit(
        counts in prop::collection::vec(1u64..3_000_000, 1..6), record_bytes in 1u32..9,
    ) {
        let extents: Vec<Extent> = counts.iter().zip(0u64..).map(|(count, n)| Extent { index: n << 40, count: *count }).collect();
        let total = counts.iter().sum::<u64>() as usize * record_bytes as usize;
        let pieces = cut(ValueKind::Array { record_bytes }, &extents, total).unwrap();
        let mut joined: Vec<Extent> = vec![];
        for (extents, bytes) in &pieces {
            let records: u64 = extents.iter().map(|extent| extent.count).sum();
            prop_assert_eq!(*bytes, records as usize * record_bytes as usize);
            prop_assert!(*bytes <= MAX_VALUE_BYTES && *bytes > 0);
            for extent in extents {
                match joined.last_mut() {
                    Some(last) if last.end() == extent.index => last.count += extent.count,
                    _ => joined.push(*extent),
                }
            }
        }
        prop_assert_eq!(joined, extents);
        prop_assert!(pieces.len() <= total.div_ceil(MAX_VALUE_BYTES - 8) + 1, "few pieces");
    }
}

#[test]
fn small_entries_share_a_message() {
    let mut packer = Packer::default();
    for n in 0..2500 {
        packer.add(TargetId(n % 2), Cost::of(b"dkey", b"a", 1, 64), n);
    }
    let sizes: Vec<usize> = packer.messages().iter().map(|(_, items)| items.len()).collect();
    assert_eq!(sizes, [1024, 1024, 226, 226], "the limit is that of entries");
    let mut packer = Packer::default();
    for n in 0..5 {
        packer.add(TargetId(0), Cost::of(b"dkey", b"a", 1, MAX_PAYLOAD_BYTES / 2), n);
    }
    let items: Vec<_> = packer.messages().into_iter().map(|(_, items)| items).collect();
    assert_eq!(items, [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn wrong_sizes_are_refused() {
    let array = ValueKind::Array { record_bytes: 4 };
    let extent = Extent { index: 0, count: 2 };
    assert!(cut(array, &[extent], 7).is_err());
    assert!(cut(array, &[], 0).is_err());
    assert!(cut(array, &[Extent { index: u64::MAX, count: 2 }], 8).is_err());
    assert!(cut(array, &[Extent { index: 0, count: u64::MAX }, extent], 4).is_err());
    assert!(cut(ValueKind::Single, &[extent], 8).is_err());
    assert!(matches!(cut(ValueKind::Single, &[], MAX_VALUE_BYTES + 1), Err(ClientError::TooLong(_))));
}
