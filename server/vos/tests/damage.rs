//! Full tiers, damaged media, and the planted bug that forgets to flush.

mod support;

use support::kit::*;
use talea_model::{ContainerId, Order, Position, Stamp, TxId, View};
use talea_tier::{Medium, SimMedium, Torn};
use talea_vos::{Change, Condition, Plant, Punch, Store, StoreError, StoreOptions};

fn options() -> StoreOptions {
    StoreOptions { nonce: 5, segment_bytes: 16 << 10, ..StoreOptions::default() }
}

fn open(medium: &SimMedium) -> (Store, talea_vos::Recovered) {
    Store::open(Box::new(medium.clone()), options()).unwrap()
}

/// Offset of the first place where the medium holds `pattern`.
fn find(medium: &SimMedium, pattern: &[u8]) -> u64 {
    medium.image().windows(pattern.len()).position(|window| window == pattern).unwrap() as u64
}

#[test]
fn a_store_that_forgets_to_flush_is_caught() {
    for plant in [Plant::None, Plant::SkipFlush] {
        let medium = SimMedium::new(4 << 20, Torn::Lines);
        let (mut store, _) = Store::open(Box::new(medium.clone()), StoreOptions { plant, ..options() }).unwrap();
        put(&mut store, AUTO, 10, b"v", b"acknowledged").unwrap();
        store.flush().unwrap();
        let (after, recovered) = open(&medium.crash(&mut || 0));
        assert!(!recovered.lost);
        assert_eq!(get(&after, View::Latest, b"v").is_some(), plant == Plant::None);
    }
}

#[test]
fn a_value_that_the_device_lost_stops_the_store_whoever_is_told_of_it() {
    for others in [0, 1] {
        let medium = SimMedium::new(4 << 20, Torn::Sectors);
        let (mut store, _) = open(&medium);
        store.flush().unwrap();
        medium.lose_after(0);
        put(&mut store, AUTO, 10, b"a", &[1; 9000]).unwrap();
        // Another update of the turn is told that the device failed: it does not take the failure along.
        for n in 0..others {
            let told = put(&mut store, AUTO, 11 + n, b"b", &[2; 9000]);
            assert!(matches!(told, Err(StoreError::Tier(_))), "{told:?}");
            let next = put(&mut store, AUTO, 21 + n, b"c", b"small");
            assert!(matches!(next, Err(StoreError::Broken)), "{next:?}");
        }
        assert!(store.flush().is_err(), "nothing of this turn is acknowledged");
        assert!(matches!(put(&mut store, AUTO, 30, b"d", b"small"), Err(StoreError::Broken)));
        assert!(matches!(store.flush(), Err(StoreError::Broken)));
    }
}

#[test]
fn a_full_tier_says_so_and_room_comes_back() {
    let medium = SimMedium::new(2 << 20, Torn::Lines);
    let (mut store, _) = open(&medium);
    store.follow(&[Change::Begin(TxId(1)), Change::Begin(TxId(2))], Position(1)).unwrap();
    write(&mut store, AUTO, 10, 0, &[1; 50_000]).unwrap();
    let fill = |store: &mut Store, tx: u64, from: u64| {
        (0..200u64).find_map(|n| write(store, Order::Pending(TxId(tx)), 0, from + n * 50_000, &[2; 50_000]).err())
    };
    let full = fill(&mut store, 1, 0);
    assert!(matches!(full, Some(StoreError::NoSpace { .. })), "{full:?}");
    store.flush().unwrap();
    assert_eq!(read(&store, View::Latest, 0, 50_000), [1; 50_000], "reads go on");
    let range = Punch::Range { dkey: b"d", akey: b"a", extent: talea_model::Extent { index: 0, count: 9 } };
    store.punch(at(1), AUTO, Stamp(20), View::Latest, NOBODY, range, Condition::None).unwrap();
    assert_eq!(read(&store, View::Latest, 0, 10), b"\0\0\0\0\0\0\0\0\0\x01", "punches go on");
    store.follow(&[Change::Abort(TxId(1))], Position(2)).unwrap();
    write(&mut store, Order::Pending(TxId(2)), 0, 0, &[3; 500_000]).unwrap();
    store.follow(&[Change::Abort(TxId(2))], Position(3)).unwrap();
    store.punch(at(1), AUTO, Stamp(30), View::Latest, NOBODY, Punch::Object, Condition::None).unwrap();
    store.follow(&[Change::Floor(ContainerId(1), Stamp(40))], Position(4)).unwrap();
    write(&mut store, AUTO, 50, 0, &vec![4; 1_000_000]).unwrap();
    store.flush().unwrap();
    let (again, recovered) = open(&medium.crash(&mut || 0));
    assert!(!recovered.lost);
    assert_eq!(read(&again, View::Latest, 0, 1_000_000), vec![4; 1_000_000]);
}

#[test]
fn overwriting_in_place_never_fills_the_tier_while_the_floor_follows() {
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let (mut store, _) = open(&medium);
    for n in 1..200u64 {
        write(&mut store, AUTO, n * 10, 0, &vec![n as u8; 300_000]).unwrap();
        put(&mut store, AUTO, n * 10 + 1, b"v", &[n as u8; 3000]).unwrap();
        store.follow(&[Change::Floor(ContainerId(1), Stamp(n * 10))], Position(n)).unwrap();
        store.flush().unwrap();
        store.background(100).unwrap();
    }
    let (again, recovered) = open(&medium.crash(&mut || 0));
    assert!(!recovered.lost && recovered.horizon == Position(199));
    assert_eq!(read(&again, View::Latest, 0, 300_000), vec![199; 300_000]);
    assert_eq!(get(&again, View::Latest, b"v").unwrap(), [199; 3000]);
}

#[test]
fn a_flipped_bit_of_a_value_is_found_wherever_it_lies() {
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let (mut store, _) = open(&medium);
    let mut large = vec![9; 100_000];
    large[70_000..70_007].copy_from_slice(b"pattern");
    write(&mut store, AUTO, 10, 0, &large).unwrap();
    put(&mut store, AUTO, 11, b"v", b"small value").unwrap();
    store.flush().unwrap();
    medium.corrupt(find(&medium, b"pattern"), 4);
    medium.corrupt(find(&medium, b"small value"), 4);
    assert_eq!(read(&store, View::Latest, 0, 60_000), large[..60_000], "other granules are whole");
    for (key, what) in [(&b"v"[..], None), (b"a", Some([talea_model::Extent { index: 69_000, count: 10 }]))] {
        let mut out = b"before".to_vec();
        let what = what.as_ref().map_or(talea_vos::FetchWhat::Single, |w| talea_vos::FetchWhat::Array(w));
        let lost = store.fetch(at(1), View::Latest, b"d", key, what, &mut out).unwrap_err();
        assert!(matches!(lost, StoreError::DataLost { .. }), "{lost}");
        assert_eq!(out, b"before", "nothing wrong is handed out");
    }
}

#[test]
fn a_lost_record_before_the_tail_is_data_lost_and_not_a_hole() {
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let (mut store, _) = open(&medium);
    for n in 0..5u64 {
        put(&mut store, AUTO, 10 + n, &[b'k', n as u8], format!("value number {n}").as_bytes()).unwrap();
        store.flush().unwrap();
    }
    medium.corrupt(find(&medium, b"value number 2"), 1);
    let (mut damaged, recovered) = open(&medium);
    assert!(recovered.lost);
    let mut out = Vec::new();
    let lost = damaged.fetch(at(1), View::Latest, b"d", b"k\x02", talea_vos::FetchWhat::Single, &mut out);
    assert!(matches!(lost, Err(StoreError::DataLost { .. })));
    damaged.follow(&[], Position(9)).unwrap();
    damaged.flush().unwrap();
    assert!(open(&medium).1.lost, "it stays lost");
}

#[test]
fn the_last_record_is_protected_once_the_store_was_idle() {
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let (mut store, _) = open(&medium);
    put(&mut store, AUTO, 10, b"v", b"the last value").unwrap();
    store.flush().unwrap();
    store.background(10).unwrap();
    medium.corrupt(find(&medium, b"the last value"), 1);
    assert!(open(&medium).1.lost);
}

#[test]
fn what_was_cut_off_never_comes_back() {
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let (mut store, _) = open(&medium);
    put(&mut store, AUTO, 10, b"v", b"first ").unwrap();
    store.flush().unwrap();
    // Two records of equal length in one flush that the crash cuts between: only the second survives.
    put(&mut store, AUTO, 11, b"v", &[b's'; 200]).unwrap();
    put(&mut store, AUTO, 12, b"v", &[b't'; 200]).unwrap();
    store.flush().unwrap();
    medium.corrupt(find(&medium, &[b's'; 200]), 1);
    let (mut cut, recovered) = open(&medium);
    assert!(!recovered.lost);
    assert_eq!(get(&cut, View::Latest, b"v").unwrap(), b"first ");
    put(&mut cut, AUTO, 13, b"v", &[b'n'; 200]).unwrap();
    cut.flush().unwrap();
    let (again, recovered) = open(&medium);
    assert!(!recovered.lost);
    assert_eq!(get(&again, View::Latest, b"v").unwrap(), [b'n'; 200]);
}

#[test]
fn a_medium_that_is_not_ours_is_left_alone() {
    let try_open = |medium: &SimMedium, options| Store::open(Box::new(medium.clone()), options).err().unwrap();
    let mut foreign = SimMedium::new(4 << 20, Torn::Lines);
    foreign.write(0, b"ext4 or so").unwrap();
    assert!(matches!(try_open(&foreign, options()), StoreError::Foreign));
    assert_eq!(foreign.image()[..10], *b"ext4 or so");
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let pool = |n| StoreOptions { pool: talea_model::PoolId(n), ..options() };
    Store::open(Box::new(medium.clone()), pool(1)).unwrap();
    assert!(matches!(try_open(&medium, pool(2)), StoreError::Mismatch { .. }));
    // One superblock of a fresh store may be damaged, and not both.
    medium.corrupt(100, 1);
    assert!(Store::open(Box::new(medium.clone()), pool(1)).is_ok());
    medium.corrupt(4096 + 100, 1);
    assert!(matches!(try_open(&medium, pool(1)), StoreError::Superblock));
    let tiny = SimMedium::new(1 << 14, Torn::Lines);
    assert!(matches!(try_open(&tiny, options()), StoreError::Bad(_)));
}

#[test]
fn a_crash_while_formatting_leaves_an_empty_medium() {
    for bit in 0..64u64 {
        let medium = SimMedium::new(4 << 20, Torn::Lines);
        medium.fail_after(bit % 3);
        let _ = Store::open(Box::new(medium.clone()), options());
        let mut turn = bit;
        let crashed = medium.crash(&mut || (turn = turn.rotate_right(1), turn).1);
        let (_, recovered) = open(&crashed);
        assert!(!recovered.lost);
    }
}

#[test]
fn a_failing_medium_breaks_the_store_and_not_the_data() {
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let (mut store, _) = open(&medium);
    put(&mut store, AUTO, 10, b"v", b"kept").unwrap();
    store.flush().unwrap();
    medium.fail_after(0);
    let never = put(&mut store, AUTO, 11, b"v", b"never");
    assert!(never.is_err() || store.flush().is_err());
    assert!(matches!(put(&mut store, AUTO, 12, b"v", b"no"), Err(StoreError::Broken)));
    medium.fail_after(u64::MAX);
    let (again, _) = open(&medium.crash(&mut || 0));
    assert_eq!(get(&again, View::Latest, b"v").unwrap(), b"kept");
}
