//! What does not persist keeps no log: values come and go in memory that is used again at once, and move so that it comes back.

mod support;

use support::kit::*;
use talea_model::{ContainerId, Extent, Order, Position, Stamp, TxId, View};
use talea_tier::{Medium, RamMedium, SimMedium, Torn};
use talea_vos::{Change, Condition, EntryUpdate, Punch, Store, StoreError, StoreOptions};

const CAPACITY: u64 = 16 << 20;
const CONTAINER: ContainerId = ContainerId(1);

struct Ram {
    store: Store,
    clock: u64,
    position: u64,
}

impl Ram {
    fn new() -> Self {
        let (store, _) = Store::open(Box::new(RamMedium::new(CAPACITY).unwrap()), StoreOptions::default()).unwrap();
        Self { store, clock: 10, position: 0 }
    }

    fn update(&mut self, order: Order, dkey: u64, data: &[u8]) -> Result<(), StoreError> {
        self.clock += 1;
        let (dkey, extents) = (dkey.to_be_bytes(), [Extent { index: 0, count: data.len() as u64 }]);
        let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(&dkey, b"a", data) };
        self.store.update(at(1), order, Stamp(self.clock), View::Latest, NOBODY, &[entry])
    }

    fn fetch(&self, dkey: u64, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let all = [Extent { index: 0, count: bytes as u64 }];
        self.store
            .fetch(at(1), View::Latest, &dkey.to_be_bytes(), b"a", talea_vos::FetchWhat::Array(&all), &mut out)
            .unwrap();
        out
    }

    fn follow(&mut self, change: Change) {
        self.position += 1;
        self.store.follow(&[change], Position(self.position)).unwrap();
    }

    fn floor(&mut self) {
        self.follow(Change::Floor(CONTAINER, Stamp(self.clock)));
    }

    fn rest(&mut self) {
        self.store.flush().unwrap();
        let mut steps = 0;
        while self.store.background(64).unwrap() {
            steps += 1;
            assert!(steps < 100_000, "it never comes to rest");
        }
    }
}

#[test]
fn nothing_is_written_but_values() {
    let mut ram = Ram::new();
    for n in 0..1000 {
        ram.update(AUTO, n, &[1; 64]).unwrap();
        ram.follow(Change::Begin(TxId(n + 1)));
        ram.follow(Change::Abort(TxId(n + 1)));
    }
    let stats = ram.store.stats();
    assert_eq!((stats.records, stats.log_bytes), (3000, 0), "records have numbers and no bytes");
    assert!(stats.used_bytes < 1 << 20, "{stats:?}");
}

#[test]
fn overwriting_far_beyond_the_capacity_uses_the_same_memory_again() {
    for bytes in [64, 3000, 4096, 100_000] {
        let mut ram = Ram::new();
        let mut most = 0;
        for n in 0..20 * CAPACITY / bytes.max(2000) {
            ram.update(AUTO, n % 16, &vec![n as u8; bytes as usize]).unwrap();
            ram.floor();
            ram.store.background(32).unwrap();
            most = most.max(ram.store.stats().used_bytes);
        }
        assert!(most < CAPACITY / 4, "values of {bytes} bytes: {most} of {CAPACITY} were in use");
        let last = 20 * CAPACITY / bytes.max(2000) - 1;
        assert!(ram.fetch(last % 16, bytes as usize) == vec![last as u8; bytes as usize]);
    }
}

#[test]
fn one_value_does_not_hold_a_whole_segment() {
    let mut ram = Ram::new();
    // Three quarters of the tier, of which one value in fifty stays: in every segment something is left.
    let count = CAPACITY * 3 / 4 / 512;
    for n in 0..count {
        ram.update(AUTO, n, &[n as u8; 500]).unwrap();
    }
    for n in (0..count).filter(|n| n % 50 != 0) {
        ram.clock += 1;
        let (dkey, stamp) = (n.to_be_bytes(), Stamp(ram.clock));
        let punch = Punch::Dkey(&dkey);
        ram.store.punch(at(1), AUTO, stamp, View::Latest, NOBODY, punch, Condition::None).unwrap();
    }
    let before = ram.store.stats().used_bytes;
    ram.floor();
    ram.rest();
    let used = ram.store.stats().used_bytes;
    assert!(before > CAPACITY * 7 / 10 && used < CAPACITY / 4, "{before} and then {used} of {CAPACITY}");
    for n in (0..count).step_by(50) {
        assert_eq!(ram.fetch(n, 500), [n as u8; 500], "what moved is what it was");
    }
}

#[test]
fn a_full_tier_in_memory_is_not_broken() {
    for bytes in [200, 5000] {
        let mut ram = Ram::new();
        ram.follow(Change::Begin(TxId(1)));
        let mut n = 0;
        let full = loop {
            match ram.update(Order::Pending(TxId(1)), n, &vec![3; bytes as usize]) {
                Ok(()) => n += 1,
                Err(StoreError::RoomToCome { .. }) => _ = ram.store.background(64).unwrap(),
                Err(error) => break error,
            }
        };
        assert!(n * bytes > CAPACITY / 2, "full at {n} values of {bytes} bytes");
        assert!(matches!(full, StoreError::NoSpace { .. }), "{full}");
        let again = ram.update(AUTO, 0, &[3; 100_000]);
        assert!(matches!(again, Err(StoreError::NoSpace { .. })), "{again:?}");
        for n in 0..1000u64 {
            ram.clock += 1;
            let (dkey, stamp) = (n.to_be_bytes(), Stamp(ram.clock));
            ram.store.punch(at(1), AUTO, stamp, View::Latest, NOBODY, Punch::Dkey(&dkey), Condition::None).unwrap();
            ram.floor();
        }
        ram.follow(Change::Abort(TxId(1)));
        let mut tries = 0;
        while let Err(error) = ram.update(AUTO, 7, &[4; 1_000_000]) {
            assert!(matches!(error, StoreError::RoomToCome { .. }), "{error}");
            tries += 1;
            assert!(tries < 200);
        }
        assert!(ram.fetch(7, 1_000_000) == vec![4; 1_000_000]);
    }
}

#[test]
fn a_store_without_checksums_is_for_measurements_alone() {
    let medium = SimMedium::new(4 << 20, Torn::Lines);
    let options = || StoreOptions { nonce: 3, unsummed: true, ..StoreOptions::default() };
    let (mut store, _) = Store::open(Box::new(medium.clone()), options()).unwrap();
    for (key, bytes) in [(b"s", 64), (b"l", 100_000)] {
        let value = vec![9; bytes];
        let wrong = EntryUpdate { checksum: 1, ..entry(b"d", key, &value) };
        store.update(at(1), AUTO, Stamp(10), View::Latest, NOBODY, &[wrong]).unwrap();
        assert_eq!(get(&store, View::Latest, key).unwrap(), value);
    }
    store.flush().unwrap();
    assert_eq!(store.scrub(1 << 20).unwrap().bytes, 0, "there is nothing to compare with");
    for unsummed in [true, false] {
        let again = Store::open(Box::new(medium.clone()), StoreOptions { unsummed, ..options() }).err();
        assert!(matches!(again, Some(StoreError::Unsummed)), "{again:?}");
    }
    assert!(medium.capacity_bytes() > 0);
}
