//! A flipped bit anywhere on the medium is found, or meant nothing; it never changes what is read.

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use support::disk::Disk;
use support::kit::*;
use talea_model::{ContainerId, Order, Position, Stamp, TxId, View};
use talea_tier::{Address, Medium, MediumKind, SimMedium, Tier, TierError, Torn};
use talea_vos::{Change, DamageKind, Recovered, Store, StoreError, StoreOptions};

fn options() -> StoreOptions {
    StoreOptions { nonce: 5, segment_bytes: 16 << 10, checkpoint_bytes: 6_000, ..StoreOptions::default() }
}

fn open(disk: &Disk) -> (Store, Recovered) {
    Store::open(disk.media(), options()).unwrap()
}

/// Fills a disk with values in records and in blocks, a checkpoint, a log behind it, and an open transaction.
fn written(disk: Disk) -> Disk {
    let (mut store, _) = open(&disk);
    store.follow(&[Change::Begin(TxId(1))], Position(1)).unwrap();
    for n in 0..12u64 {
        put(&mut store, AUTO, 10 + n, &[b'k', n as u8], &[n as u8; 900]).unwrap();
        write(&mut store, AUTO, 40 + n, n * 3000, &[n as u8 + 1; 6000]).unwrap();
        write(&mut store, Order::Pending(TxId(1)), 0, n * 10, &[77; 5]).unwrap();
    }
    store.flush().unwrap();
    while store.background(50).unwrap() {}
    for n in 0..3u64 {
        put(&mut store, AUTO, 100 + n, &[b'l', n as u8], &[n as u8; 500]).unwrap();
    }
    store.follow(&[Change::Floor(ContainerId(1), Stamp(12))], Position(2)).unwrap();
    store.flush().unwrap();
    while store.background(50).unwrap() {}
    store.flush().unwrap();
    disk
}

fn one() -> Disk {
    written(Disk::one(1 << 20, Torn::Lines))
}

fn two() -> Disk {
    written(Disk::two(1 << 20, 1 << 20))
}

/// Everything that can be read, errors as nothing; false if anything was refused as lost.
fn contents(store: &Store) -> (Vec<Option<Vec<u8>>>, bool) {
    let mut whole = true;
    let mut fetch = |key: &[u8], what: talea_vos::FetchWhat| {
        let mut out = Vec::new();
        match store.fetch(at(1), View::Latest, b"d", key, what, &mut out) {
            Ok(found) => found.found.then_some(out),
            Err(StoreError::DataLost { .. }) => {
                whole = false;
                None
            }
            Err(other) => panic!("{other}"),
        }
    };
    let keys = (0..12u8).map(|n| [b'k', n]).chain((0..3).map(|n| [b'l', n]));
    let mut all: Vec<_> = keys.map(|key| fetch(&key, talea_vos::FetchWhat::Single)).collect();
    for n in 0..40 {
        let extent = [talea_model::Extent { index: n * 1000, count: 1000 }];
        all.push(fetch(b"a", talea_vos::FetchWhat::Array(&extent)));
    }
    (all, whole)
}

/// What was read is right or refused.
fn assert_honest(found: &[Option<Vec<u8>>], right: &[Option<Vec<u8>>], whole: bool, offset: u64) {
    for (found, right) in found.iter().zip(right) {
        assert!(found == right || !whole && found.is_none(), "a wrong read after a flip at {offset}");
    }
}

fn pass(store: &mut Store) -> u64 {
    let passes = store.scrub(1).unwrap().passes;
    loop {
        let done = store.scrub(10_000).unwrap();
        if done.passes > passes {
            return done.damaged;
        }
        assert!(done.bytes <= 10_000 + (64 << 10), "a portion is bounded: {} bytes", done.bytes);
    }
}

/// Flips bits of one copy after the other; what was found in all.
fn flipped(disk: &Disk) -> (u64, Vec<DamageKind>) {
    let right = contents(&open(&disk.crash(&mut || 1)).0).0;
    let (mut found, mut kinds) = (0, Vec::new());
    let headers = (0..64).map(|offset| Address::new(Tier::Bulk, offset).0).filter(|_| disk.bulk.is_some());
    let closely = (0..160).chain(4096..4256).chain(8192..8700).chain(headers);
    for (number, offset) in disk.places(257).into_iter().chain(closely).enumerate() {
        let copy = disk.crash(&mut || 1);
        let (mut store, recovered) = open(&copy);
        assert!(!recovered.lost);
        assert_eq!(pass(&mut store), 0);
        copy.corrupt(offset, 1 << (number % 8));
        let damaged = pass(&mut store);
        kinds.extend(store.damage().map(|damage| damage.kind));
        let (after, whole) = contents(&store);
        assert_honest(&after, &right, whole, offset);
        assert!(whole || damaged > 0, "a flip at {offset} is read as lost and was not reported");
        // Superblock, headers, log and checkpoint are written anew: a restart finds nothing wrong with them.
        let only_values = store.damage().all(|damage| damage.kind == DamageKind::Value);
        while store.background(1000).unwrap() {}
        store.flush().unwrap();
        let (again, recovered) = open(&copy);
        assert!(!recovered.lost, "a flip at {offset} survived the scrubber");
        let (after, whole_again) = contents(&again);
        assert_honest(&after, &right, whole_again, offset);
        assert!(whole_again || only_values || !whole, "a flip at {offset} was not mended");
        found += u64::from(damaged > 0);
    }
    (found, kinds)
}

const KINDS: [DamageKind; 4] = [DamageKind::Superblock, DamageKind::Log, DamageKind::Checkpoint, DamageKind::Value];

#[test]
fn a_flipped_bit_anywhere_is_found_by_the_scrubber_or_meant_nothing() {
    let (found, kinds) = flipped(&one());
    assert!(found > 300, "{found}");
    assert!(KINDS.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}

#[test]
fn a_flipped_bit_on_either_of_two_tiers_is_found_by_the_scrubber_or_meant_nothing() {
    let (found, kinds) = flipped(&two());
    assert!(found > 300, "{found}");
    assert!(KINDS.iter().chain(&[DamageKind::BulkHeader]).all(|kind| kinds.contains(kind)), "{kinds:?}");
}

#[test]
fn a_flipped_bit_anywhere_is_never_read_after_a_restart() {
    for disk in [one(), two()] {
        let right = contents(&open(&disk.crash(&mut || 1)).0).0;
        for (number, offset) in disk.places(101).into_iter().enumerate() {
            let copy = disk.crash(&mut || 1);
            copy.corrupt(offset, 1 << (number % 8));
            let Ok((store, recovered)) = Store::open(copy.media(), options()) else { continue };
            let (after, whole) = contents(&store);
            assert_honest(&after, &right, whole && !recovered.lost, offset);
            assert!(!recovered.lost || !whole, "a lost log is told by every read");
        }
    }
}

#[test]
fn scrubbing_is_seen_in_the_figures_and_goes_on_where_it_was() {
    let (mut store, _) = open(&one());
    let first = store.scrub(5_000).unwrap();
    // This medium must be asked for its bytes, and asking counts, too.
    assert!(first.bytes > 0 && first.bytes <= 5_000 && first.passes == 0);
    let mut sum = first.bytes;
    loop {
        let portion = store.scrub(5_000).unwrap();
        sum += portion.bytes;
        if portion.passes > 0 {
            break;
        }
    }
    let stats = store.stats();
    assert!(stats.scrubbed_bytes == sum && sum > 60_000 && stats.damaged == 0, "{stats:?}");
}

/// A medium that must be asked for its bytes, and counts how often it was.
struct Asked(SimMedium, Arc<AtomicU64>);

impl Medium for Asked {
    fn kind(&self) -> MediumKind {
        MediumKind::Nvme
    }
    fn capacity_bytes(&self) -> u64 {
        self.0.capacity_bytes()
    }
    fn is_persistent(&self) -> bool {
        true
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        self.0.write(offset, data)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        self.1.fetch_add(1, Relaxed);
        self.0.read(offset, out)
    }
    fn persist(&mut self) -> Result<(), TierError> {
        self.0.persist()
    }
}

#[test]
fn a_portion_asks_a_device_a_bounded_number_of_times() {
    let asked = Arc::new(AtomicU64::new(0));
    let medium = Asked(SimMedium::new(16 << 20, Torn::Sectors), asked.clone());
    let mut store = Store::open(Box::new(medium), StoreOptions { nonce: 5, ..StoreOptions::default() }).unwrap().0;
    // Thousands of small records, and values in blocks of their own.
    for n in 0..4_000u32 {
        put(&mut store, AUTO, 10 + u64::from(n), &n.to_be_bytes(), &[n as u8; 64]).unwrap();
    }
    for n in 0..100u64 {
        write(&mut store, AUTO, 5_000 + n, n * 6_000, &[n as u8; 6_000]).unwrap();
    }
    store.flush().unwrap();
    let mut portions = 0;
    while store.scrub(1).unwrap().passes < 2 {
        let before = asked.load(Relaxed);
        let scrubbed = store.scrub(256 << 10).unwrap();
        let times = asked.load(Relaxed) - before;
        assert!(times <= 20, "{times} reads for {} bytes", scrubbed.bytes);
        assert_eq!(scrubbed.damaged, 0);
        portions += 1;
    }
    assert!(portions > 10, "{portions}");
}
