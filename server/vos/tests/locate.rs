//! The short way: named places hold a snapshot's bytes, and keep them while a lease lasts.

mod support;

use support::kit::*;
use talea_model::{Extent, LeaseId, Position, Stamp, View};
use talea_tier::{Medium, SimMedium, Torn};
use talea_vos::checksum::{GRANULE_BYTES, crc32c};
use talea_vos::{Change, Located, Span, Store, StoreOptions};

const BLOCKS: usize = 40_000;

fn snapshot(stamp: u64) -> View {
    View::Snapshot { stamp: Stamp(stamp), position: Position(0), lease: LeaseId(0) }
}

/// A store whose medium can be looked at from outside.
fn store() -> (Store, SimMedium) {
    store_on(Torn::Lines)
}

fn store_on(torn: Torn) -> (Store, SimMedium) {
    let medium = SimMedium::new(8 << 20, torn);
    medium.share_as(1);
    (Store::open(Box::new(medium.clone()), StoreOptions::default()).unwrap().0, medium)
}

fn locate(store: &Store, stamp: u64, from: u64) -> Located {
    let all = Extent { index: from, count: u64::MAX - from };
    store.locate(at(1), snapshot(stamp), b"d", b"a", all).unwrap()
}

/// A span's records, if its granules are what their checksums say.
fn look(medium: &SimMedium, span: &Span) -> Option<Vec<u8>> {
    let mut version = vec![0; span.bytes as usize];
    medium.read(span.offset, &mut version).unwrap();
    let (from, to) = (span.skip_bytes as usize, span.skip_bytes as usize + span.count as usize);
    let first = from / GRANULE_BYTES;
    let granules: Vec<u32> = version.chunks(GRANULE_BYTES).map(crc32c).collect();
    let right = granules[first..to.div_ceil(GRANULE_BYTES)] == span.checksums[..];
    right.then(|| version[from..to].to_vec())
}

fn background(store: &mut Store) {
    store.flush().unwrap();
    while store.background(64).unwrap() {}
    store.flush().unwrap();
}

#[test]
fn places_hold_what_the_snapshot_sees() {
    let (mut store, medium) = store();
    write(&mut store, AUTO, 10, 100, &[1; BLOCKS]).unwrap();
    write(&mut store, AUTO, 20, 200, b"inside").unwrap();
    write(&mut store, AUTO, 30, 150, &[3; 1000]).unwrap();
    store.flush().unwrap();
    for (stamp, from) in [(9, 0), (10, 0), (20, 0), (29, 203), (30, 0), (30, 39_999), (30, 50_000)] {
        let located = locate(&store, stamp, from);
        let mut bytes = vec![0; 50_000];
        for span in &located.spans {
            let start = (span.index - from) as usize;
            bytes[start..start + span.count as usize].copy_from_slice(&look(&medium, span).unwrap());
        }
        assert_eq!(located.end, u64::MAX);
        assert!(bytes == read(&store, snapshot(stamp), from, 50_000), "stamp {stamp} from {from}");
    }
    // Other views, and a part.
    let part = Extent { index: 140, count: 20 };
    let latest = store.locate(at(1), View::Latest, b"d", b"a", part).unwrap();
    let found: Vec<u8> = latest.spans.iter().flat_map(|span| look(&medium, span).unwrap()).collect();
    assert!(latest.end == 160 && found == read(&store, View::Latest, 140, 20), "{latest:?}");
}

#[test]
fn what_is_not_yet_on_the_medium_is_not_named() {
    let (mut store, _medium) = store_on(Torn::Sectors);
    write(&mut store, AUTO, 10, 0, b"staged").unwrap();
    let located = locate(&store, 10, 0);
    assert!(located.spans.is_empty() && located.end == 0, "{located:?}");
    store.flush().unwrap();
    assert_eq!(locate(&store, 10, 0).spans.len(), 1);
}

/// Overwrites and aggregates until everything that is free was used again.
fn churn(store: &mut Store, stamps: std::ops::Range<u64>) -> Result<(), talea_vos::StoreError> {
    for stamp in stamps {
        write(store, AUTO, stamp, 0, &[stamp as u8; BLOCKS])?;
        store.follow(&[Change::Floor(at(1).container, Stamp(stamp))], Position(stamp))?;
        background(store);
    }
    Ok(())
}

#[test]
fn a_leased_block_stays_what_it_was_until_the_lease_has_ended() {
    for leased in [true, false] {
        let (mut store, medium) = store();
        write(&mut store, AUTO, 10, 0, &[10; BLOCKS]).unwrap();
        store.flush().unwrap();
        let located = locate(&store, 10, 0);
        let generation = store.generation();
        if leased {
            store.lease_blocks(1_000);
        }
        churn(&mut store, 11..60).unwrap();
        assert_ne!(store.generation(), generation, "whoever asks again is told that places have gone");
        let kept = look(&medium, &located.spans[0]) == Some(vec![10; BLOCKS]);
        assert_eq!(kept, leased, "without a lease the blocks were used again: the test sees what it looks for");
        store.end_leases(999);
        churn(&mut store, 60..80).unwrap();
        assert_eq!(look(&medium, &located.spans[0]).is_some(), leased);
        let used = store.stats().used_bytes;
        store.end_leases(1_000);
        assert!(store.stats().used_bytes < used || !leased, "the room comes back at once");
        churn(&mut store, 80..250).unwrap();
        assert_eq!(look(&medium, &located.spans[0]), None);
    }
}

#[test]
fn a_long_array_is_told_in_parts() {
    let (mut store, medium) = store();
    for index in 0..6_000u64 {
        write(&mut store, AUTO, 10 + index, index * 2, &[index as u8]).unwrap();
    }
    store.flush().unwrap();
    let (mut from, mut parts, mut found) = (0, 0, 0);
    while from < 12_000 {
        let located = locate(&store, 100_000, from);
        found += located.spans.iter().filter(|span| look(&medium, span) == Some(vec![(span.index / 2) as u8])).count();
        assert!(located.end > from);
        (from, parts) = (located.end, parts + 1);
    }
    assert!(parts > 1 && found == 6_000, "{parts} parts, {found} spans");
    assert!(Extent::new(from, 1).is_none(), "the last part answers for the rest");
}
