//! Packing and cutting of entries, and the checks of autocommits.

use proptest::prelude::*;
use talea_fabric::endpoint::MAX_PAYLOAD_BYTES;
use talea_model::limit::MAX_VALUE_BYTES;
use talea_wire::data::ValueKind;

use super::plan::{Cost, Packer, PartBytes, cut, whole};
use super::update::check_autocommit;
use super::*;

proptest! {
    #[test]
    fn pieces_cover_an_entry_once_and_fit(
        counts in prop::collection::vec(1u64..3_000_000, 1..6), record_bytes in 1u32..9, in_parts: bool,
    ) {
        let extents: Vec<Extent> = counts.iter().zip(0u64..).map(|(count, n)| Extent { index: n << 40, count: *count }).collect();
        let total = counts.iter().sum::<u64>() as usize * record_bytes as usize;
        let part_bytes = if in_parts { PartBytes::of(total) } else { PartBytes::WHOLE };
        let most_bytes = if in_parts { (total / 4 + 64 * 1024).clamp(256 * 1024, MAX_VALUE_BYTES) } else { MAX_VALUE_BYTES };
        let pieces = cut(ValueKind::Array { record_bytes }, &extents, total, part_bytes).unwrap();
        let mut joined: Vec<Extent> = vec![];
        for (extents, bytes) in &pieces {
            let records: u64 = extents.iter().map(|extent| extent.count).sum();
            prop_assert_eq!(*bytes, records as usize * record_bytes as usize);
            prop_assert!(*bytes <= most_bytes && *bytes > 0);
            for extent in extents {
                match joined.last_mut() {
                    Some(last) if last.end() == extent.index => last.count += extent.count,
                    _ => joined.push(*extent),
                }
            }
        }
        prop_assert_eq!(joined, extents);
        let least_bytes = if in_parts { (total / 4).clamp(256 * 1024, MAX_VALUE_BYTES) } else { MAX_VALUE_BYTES };
        prop_assert!(pieces.len() <= total.div_ceil(least_bytes - 8) + 1, "few pieces");
    }
}

#[test]
fn small_entries_share_a_message() {
    let mut packer = Packer::new(PartBytes::WHOLE);
    for n in 0..2500 {
        packer.add(TargetId(n % 2), Cost::of(b"dkey", b"a", 1, 64), n);
    }
    let sizes: Vec<usize> = packer.messages().iter().map(|(_, items)| items.len()).collect();
    assert_eq!(sizes, [1024, 1024, 226, 226], "the limit is that of entries");
    let mut packer = Packer::new(PartBytes::WHOLE);
    for n in 0..5 {
        packer.add(TargetId(0), Cost::of(b"dkey", b"a", 1, MAX_PAYLOAD_BYTES / 2), n);
    }
    let items: Vec<_> = packer.messages().into_iter().map(|(_, items)| items).collect();
    assert_eq!(items, [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn what_is_larger_than_a_part_goes_alone() {
    let mut packer = Packer::new(PartBytes::of(1));
    for (item, bytes) in [MAX_PAYLOAD_BYTES, 1, 256 * 1024, 1].into_iter().enumerate() {
        packer.add(TargetId(0), Cost::of(b"dkey", b"a", 1, bytes), item);
    }
    let items: Vec<_> = packer.messages().into_iter().map(|(_, items)| items).collect();
    assert_eq!(items, [vec![0], vec![1], vec![2], vec![3]]);
}

#[test]
fn parts_have_at_least_a_record_and_at_most_a_message() {
    let pieces = |record_bytes: u32, count: u64, call_bytes: usize| -> Vec<usize> {
        let extents = [Extent { index: 0, count }];
        let kind = ValueKind::Array { record_bytes };
        let bytes = count as usize * record_bytes as usize;
        match whole(kind, &extents, bytes, PartBytes::of(call_bytes)).unwrap() {
            Some(_) => vec![bytes],
            None => {
                cut(kind, &extents, bytes, PartBytes::of(call_bytes)).unwrap().iter().map(|piece| piece.1).collect()
            }
        }
    };
    const MIB: usize = 1 << 20;
    assert_eq!(pieces(1, 256 * 1024, 256 * 1024), [MIB / 4]);
    assert_eq!(pieces(1, MIB as u64, MIB), [MIB / 4; 4]);
    assert_eq!(pieces(1, MIB as u64, 2 * MIB), [MIB / 2; 2], "another entry of the call has as much");
    assert_eq!(pieces(1, 16 * MIB as u64, 16 * MIB), [MIB; 16]);
    assert_eq!(pieces(MIB as u32, 2, 2 * MIB), [MIB; 2]);
    assert_eq!(pieces(600_000, 2, 1_200_000), [600_000; 2]);
}

#[test]
fn wrong_sizes_are_refused() {
    let array = ValueKind::Array { record_bytes: 4 };
    let extent = Extent { index: 0, count: 2 };
    assert!(cut(array, &[extent], 7, PartBytes::WHOLE).is_err());
    assert!(cut(array, &[], 0, PartBytes::WHOLE).is_err());
    assert!(cut(array, &[Extent { index: u64::MAX, count: 2 }], 8, PartBytes::WHOLE).is_err());
    assert!(cut(array, &[Extent { index: 0, count: u64::MAX }, extent], 4, PartBytes::WHOLE).is_err());
    assert!(cut(ValueKind::Single, &[extent], 8, PartBytes::WHOLE).is_err());
    assert!(matches!(cut(ValueKind::Single, &[], MAX_VALUE_BYTES + 1, PartBytes::WHOLE), Err(ClientError::TooLong(_))));
}

#[test]
fn an_update_that_is_no_single_message_is_told_which_limit_it_meets() {
    let extents: Vec<Extent> = (0..5000).map(|n| Extent { index: 2 * n, count: 1 }).collect();
    let (kind, condition) = (ValueKind::Array { record_bytes: 1 }, Condition::None);
    let entry = EntryUpdate { dkey: b"d", akey: b"a", kind, condition, extents: &extents, data: &[0; 5000] };
    assert!(check_autocommit(&[entry], 1).is_ok());
    let Err(ClientError::TooLong(text)) = check_autocommit(&[entry], 2) else { panic!("it is too long") };
    assert!(text.contains("16 an extent") && text.contains("data: 5000, entries: 1, extents: 5000"), "{text}");
}
