//! From thousands to a million of extents and keys: what a look-up touches, what the index takes, and that replay reads each record
//! once.
//!
//! `make growth` for ten millions.

mod support;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::kit::*;
use talea_model::{Extent, Stamp, View};
use talea_tier::{RamMedium, SimMedium, Torn};
use talea_vos::{EntryUpdate, Store, StoreOptions};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const EXTENT_BYTES: u64 = 96;
const KEY_BYTES: u64 = 160;
const SMALL: u64 = 10_000;

fn large() -> u64 {
    std::env::var("GROWTH").ok().and_then(|text| text.parse().ok()).unwrap_or(300_000)
}

/// A number of its own for each one below `count`, in no order.
fn scattered(n: u64, count: u64) -> u64 {
    let step = 0x9e37_79b9_7f4a_7c15 % count;
    let step =
        (step..).find(|step| (2..1000u64).all(|d| !step.is_multiple_of(d) || !count.is_multiple_of(d))).unwrap_or(1);
    n * step % count
}

/// Bytes that the process holds more than before.
fn held(region: &Region<System>) -> u64 {
    let change = region.change();
    (change.bytes_allocated as i64 - change.bytes_deallocated as i64 + change.bytes_reallocated as i64) as u64
}

fn store(bytes: u64) -> Store {
    Store::open(Box::new(RamMedium::new(bytes).unwrap()), StoreOptions::default()).unwrap().0
}

fn extents(count: u64, place: impl Fn(u64) -> u64) -> (Store, u64) {
    let mut store = store((256 << 20) + count * 256);
    let region = Region::new(ALLOCATOR);
    for n in 0..count {
        write(&mut store, AUTO, 10 + n, place(n) * 8, &n.to_le_bytes()[..4]).unwrap();
    }
    assert_eq!(store.stats().versions, count);
    let bytes = held(&region);
    (store, bytes)
}

fn keys(count: u64, single: bool) -> (Store, u64) {
    let mut store = store((256 << 20) + count * 256);
    let region = Region::new(ALLOCATOR);
    for n in 0..count {
        let dkey = scattered(n, count).to_be_bytes();
        let extents = [Extent { index: n, count: 4 }];
        let plain = entry(&dkey, b"a", b"data");
        let entry = if single { plain } else { EntryUpdate { kind: BYTES, extents: &extents, ..plain } };
        store.update(at(1), AUTO, Stamp(10 + n), View::Latest, NOBODY, &[entry]).unwrap();
    }
    let bytes = held(&region);
    (store, bytes)
}

#[test]
fn the_index_grows_flat_and_thin() {
    let large = large();
    let cost = |store: &Store, dkey: &[u8]| store.cost_of_lookup(at(1), dkey, b"a").unwrap();
    let in_order: fn(u64) -> u64 = |n| n;
    for (name, scatter) in [("in order", false), ("scattered", true)] {
        let place = |count: u64| move |n: u64| if scatter { scattered(n, count) } else { in_order(n) };
        let (small, _) = extents(SMALL, place(SMALL));
        let (store, bytes) = extents(large, place(large));
        let (few, many) = (cost(&small, b"d"), cost(&store, b"d"));
        println!(
            "{large} extents {name}: {} bytes each, {many:?} nodes and keys a look-up ({few:?} of {SMALL})",
            bytes / large
        );
        assert!(bytes <= EXTENT_BYTES * large, "{} bytes an extent, {name}", bytes / large);
        assert!(many.0 <= 2 * few.0 && many.1 <= 2 * few.1, "{many:?} beside {few:?}");
    }
    let bound = KEY_BYTES + EXTENT_BYTES;
    for (name, single) in [("single value", true), ("array", false)] {
        let (small, _) = keys(SMALL, single);
        let (store, bytes) = keys(large, single);
        let dkey = 0u64.to_be_bytes();
        let (few, many) = (cost(&small, &dkey), cost(&store, &dkey));
        println!(
            "{large} dkeys, each with an akey and a {name}: {} bytes each, {many:?} a look-up ({few:?})",
            bytes / large
        );
        assert!(bytes <= (bound + 9) * large, "{} bytes a dkey with an akey and a {name}", bytes / large);
        assert!(many.0 <= 2 * few.0 && many.1 <= 2 * few.1, "{many:?} beside {few:?}");
    }
    replay_reads_each_record_once();
}

fn replay_reads_each_record_once() {
    let count = 50_000u64;
    let medium = SimMedium::new(64 << 20, Torn::Lines);
    let options = || StoreOptions { checkpoint_bytes: 8 << 20, nonce: 9, ..StoreOptions::default() };
    let (mut store, _) = Store::open(Box::new(medium.clone()), options()).unwrap();
    for n in 0..count {
        write(&mut store, AUTO, 10 + n, n * 8, &n.to_le_bytes()[..4]).unwrap();
    }
    store.flush().unwrap();
    let before = medium.read_bytes();
    let log_bytes = store.stats().log_bytes;
    let (again, recovered) = Store::open(Box::new(medium.clone()), options()).unwrap();
    assert!(!recovered.lost && again.stats().versions == count);
    let read = medium.read_bytes() - before;
    println!("a log of {log_bytes} bytes: {read} bytes read by a restart");
    assert!(read <= log_bytes + (2 << 20), "{read} bytes read of a log of {log_bytes}");
}
