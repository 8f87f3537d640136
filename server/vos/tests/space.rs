//! Space comes back promptly, and a full store is not a broken one.

mod support;

use support::kit::*;
use talea_model::{ContainerId, Extent, Oid, Order, Position, Stamp, TxId, View};
use talea_tier::{SimMedium, Torn};
use talea_vos::{Change, Condition, EntryUpdate, ObjectRef, Punch, Store, StoreError, StoreOptions};

const CAPACITY: u64 = 8 << 20;

struct Tight {
    store: Store,
    medium: SimMedium,
    clock: u64,
    position: u64,
}

fn options() -> StoreOptions {
    StoreOptions { nonce: 4, segment_bytes: 64 << 10, ..StoreOptions::default() }
}

impl Tight {
    fn new() -> Self {
        let medium = SimMedium::new(CAPACITY, Torn::Lines);
        let (store, _) = Store::open(Box::new(medium.clone()), options()).unwrap();
        Self { store, medium, clock: 10, position: 0 }
    }

    fn follow(&mut self, changes: &[Change]) {
        self.position += 1;
        self.store.follow(changes, Position(self.position)).unwrap();
    }

    fn update(&mut self, at: ObjectRef, order: Order, index: u64, bytes: usize) -> Result<(), StoreError> {
        self.clock += 1;
        let (data, extents) = (vec![self.clock as u8; bytes], [Extent { index, count: bytes as u64 }]);
        let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(b"d", b"a", &data) };
        self.store.update(at, order, Stamp(self.clock), View::Latest, NOBODY, &[entry])
    }

    /// What a target does between requests: a little at a time.
    fn turn(&mut self) {
        self.store.flush().unwrap();
        self.store.background(256).unwrap();
    }

    fn rest(&mut self) {
        self.store.flush().unwrap();
        while self.store.background(256).unwrap() {}
        self.store.flush().unwrap();
    }

    /// Fills three fifths of the medium, a mixture of sizes.
    fn fill(&mut self, at: ObjectRef, order: Order) -> Result<(), StoreError> {
        let mut index = 0;
        while index < CAPACITY * 3 / 5 {
            let bytes = if index % 3 == 0 { 200_000 } else { 3_000 };
            self.update(at, order, index, bytes)?;
            index += bytes as u64;
            self.turn();
        }
        Ok(())
    }

    fn floor(&mut self) {
        self.clock += 1;
        self.follow(&[Change::Floor(ContainerId(1), Stamp(self.clock))]);
    }
}

#[test]
fn the_same_work_again_and_again_finds_the_same_room() {
    let mut tight = Tight::new();
    for round in 0..12u64 {
        // By turns: overwritten, punched, aborted.
        match round % 3 {
            0 => tight.fill(at(1), AUTO).unwrap(),
            1 => {
                let stamp = Stamp(tight.clock + 1);
                tight.clock += 1;
                tight.store.punch(at(1), AUTO, stamp, View::Latest, NOBODY, Punch::Object, Condition::None).unwrap();
            }
            _ => {
                let tx = TxId(round);
                tight.follow(&[Change::Begin(tx)]);
                tight.fill(at(2), Order::Pending(tx)).unwrap();
                tight.follow(&[Change::Abort(tx)]);
            }
        }
        tight.floor();
        for _ in 0..8 {
            tight.turn();
        }
    }
    tight.rest();
    let stats = tight.store.stats();
    assert!(stats.used_bytes < CAPACITY / 4, "{stats:?}");
}

#[test]
fn a_destroyed_container_gives_all_its_room_back() {
    for n in 1..=3u64 {
        let mut tight = Tight::new();
        for container in 1..=4 * n {
            let at = ObjectRef { container: ContainerId(container), oid: Oid(5) };
            tight.fill(at, AUTO).unwrap();
            tight.follow(&[Change::DestroyContainer(ContainerId(container))]);
        }
        tight.rest();
        let stats = tight.store.stats();
        assert!(stats.used_bytes < CAPACITY / 4 && stats.versions == 0, "{stats:?}");
    }
}

#[test]
fn full_is_not_broken() {
    let mut tight = Tight::new();
    tight.update(at(7), AUTO, 0, 50_000).unwrap();
    let mut index = 0;
    let full = loop {
        match tight.update(at(1), AUTO, index, 60_000) {
            Ok(()) => index += 60_000,
            Err(error) => break error,
        }
        tight.turn();
    };
    assert!(matches!(full, StoreError::NoSpace { .. }), "{full}");
    assert!(index > CAPACITY * 7 / 10, "full at {index} of {CAPACITY}");
    let versions = tight.store.stats().versions;
    for _ in 0..50 {
        assert!(matches!(tight.update(at(1), AUTO, index, 60_000), Err(StoreError::NoSpace { .. })));
        tight.turn();
    }
    assert_eq!(tight.store.stats().versions, versions, "nothing of a failed update is kept");
    let mut out = Vec::new();
    let all = [Extent { index: 0, count: index }];
    tight.store.fetch(at(1), View::Latest, b"d", b"a", talea_vos::FetchWhat::Array(&all), &mut out).unwrap();
    assert_eq!(out.len() as u64, index, "reads go on");
    // Punches, fates and small things go on; the room that they make can be used at once.
    for n in 0..20 {
        tight.clock += 1;
        let range = Punch::Range { dkey: b"d", akey: b"a", extent: Extent { index: n * 60_000, count: 60_000 } };
        let stamp = Stamp(tight.clock);
        tight.store.punch(at(1), AUTO, stamp, View::Latest, NOBODY, range, Condition::None).unwrap();
    }
    tight.floor();
    for n in 0..12 {
        tight.update(at(3), AUTO, n * 60_000, 60_000).unwrap();
    }
    tight.store.flush().unwrap();
    let (again, recovered) = Store::open(Box::new(tight.medium.crash(&mut || 0)), options()).unwrap();
    assert!(!recovered.lost);
    assert_eq!(again.stats().versions, tight.store.stats().versions);
}

/// Small values lie in the log itself: they must leave it the room that the pool's log, punches and a checkpoint need.
#[test]
fn a_log_full_of_small_values_goes_on() {
    let mut tight = Tight::new();
    tight.follow(&[Change::Begin(TxId(1))]);
    let mut index = 0;
    let full = loop {
        match tight.update(at(1), Order::Pending(TxId(1)), index * 700, 600) {
            Ok(()) => index += 1,
            Err(StoreError::RoomToCome { .. }) => {}
            Err(error) => break error,
        }
        tight.turn();
    };
    assert!(matches!(full, StoreError::NoSpace { .. }), "{full}");
    assert!(index * 600 > CAPACITY / 2, "full at {index} values");
    // The pool's log goes on for as long as it likes: ten times what is left would hold.
    for _ in 0..40_000 {
        tight.floor();
        tight.turn();
    }
    for n in 0..300u64 {
        tight.clock += 1;
        let stamp = Stamp(tight.clock);
        let range = Punch::Range { dkey: b"d", akey: b"a", extent: Extent { index: n * 700, count: 600 } };
        let order = Order::Pending(TxId(1));
        tight.store.punch(at(1), order, stamp, View::Latest, NOBODY, range, Condition::None).unwrap();
        tight.turn();
    }
    tight.store.flush().unwrap();
    let (again, recovered) = Store::open(Box::new(tight.medium.crash(&mut || 0)), options()).unwrap();
    assert!(!recovered.lost && recovered.horizon == Position(tight.position));
    assert_eq!(again.stats().versions, tight.store.stats().versions);
    tight.follow(&[Change::Abort(TxId(1))]);
    for n in 0..60 {
        while let Err(error) = tight.update(at(3), AUTO, n * 60_000, 60_000) {
            assert!(matches!(error, StoreError::RoomToCome { .. }), "{error}");
        }
    }
}

/// Blocks that a checkpoint makes free come back in portions, however many they are.
#[test]
fn room_comes_back_in_portions() {
    let medium = SimMedium::new(96 << 20, Torn::Lines);
    let (mut store, _) = Store::open(Box::new(medium.clone()), options()).unwrap();
    for n in 0..10_000u64 {
        write(&mut store, AUTO, 10 + n, n * 5000, &[1; 5000]).unwrap();
    }
    store.punch(at(1), AUTO, Stamp(20_000), View::Latest, NOBODY, Punch::Object, Condition::None).unwrap();
    store.follow(&[Change::Floor(ContainerId(1), Stamp(20_000))], Position(1)).unwrap();
    store.flush().unwrap();
    let mut more = true;
    while more {
        let before = store.stats();
        more = store.background(64).unwrap();
        let after = store.stats();
        let back = before.used_bytes.saturating_sub(after.used_bytes);
        assert!(back <= 128 * 8192 + (8 << 20), "{back} bytes in one step");
        assert!(after.items - before.items <= 128);
    }
    assert!(store.stats().used_bytes < 8 << 20, "{:?}", store.stats());
}
