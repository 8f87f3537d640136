//! No step of background work grows with what there is: the items that each looks at, and the bytes that it writes, are bounded.

mod support;

use support::kit::*;
use talea_model::{ContainerId, Extent, Order, Position, Stamp, TxId, View};
use talea_tier::{SimMedium, Torn};
use talea_vos::{Change, Condition, EntryUpdate, Punch, Store, StoreOptions};

const BUDGET: usize = 64;
const CONTAINER: ContainerId = ContainerId(1);

struct Watched {
    store: Store,
    medium: SimMedium,
    steps: u64,
    clock: u64,
    position: u64,
}

impl Watched {
    fn new() -> Self {
        let medium = SimMedium::new(64 << 20, Torn::Lines);
        let options =
            StoreOptions { nonce: 3, segment_bytes: 256 << 10, checkpoint_bytes: 1 << 20, ..Default::default() };
        let (store, _) = Store::open(Box::new(medium.clone()), options).unwrap();
        Self { store, medium, steps: 0, clock: 1000, position: 0 }
    }

    fn update(&mut self, order: Order, dkey: u64, index: u64, data: &[u8]) {
        self.clock += 1;
        let (dkey, extents) = (dkey.to_be_bytes(), [Extent { index, count: data.len() as u64 }]);
        let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(&dkey, b"a", data) };
        self.store.update(at(1), order, Stamp(self.clock), View::Latest, NOBODY, &[entry]).unwrap();
    }

    fn follow(&mut self, change: Change) {
        self.position += 1;
        self.store.follow(&[change], Position(self.position)).unwrap();
    }

    /// One step; false if nothing was left.
    fn step(&mut self) -> bool {
        let (items, bytes) = (self.store.stats().items, self.medium.written_bytes());
        let more = self.store.background(BUDGET).unwrap();
        let items = self.store.stats().items - items;
        assert!(items <= 2 * BUDGET as u64, "{items} items in one step");
        let bytes = self.medium.written_bytes() - bytes;
        assert!(bytes <= 64 << 10, "{bytes} bytes written in one step");
        self.steps += 1;
        more
    }

    fn rest(&mut self) {
        self.store.flush().unwrap();
        while self.step() {}
    }
}

#[test]
fn every_step_is_bounded_whatever_there_is_to_do() {
    let mut watched = Watched::new();
    watched.follow(Change::Begin(TxId(1)));
    watched.follow(Change::Begin(TxId(2)));
    // One dkey with 20,000 extents, 5,000 more dkeys, two transactions over all of them; steps in between, as under load.
    for n in 0..20_000u64 {
        watched.update(AUTO, 0, n * 4, &[1; 2]);
        match n % 4 {
            0 => watched.update(Order::Pending(TxId(1)), 0, n * 4, &[2; 2]),
            1 => watched.update(Order::Pending(TxId(2)), 1 + n / 4, 0, &[3; 9]),
            _ => {}
        }
        if n % 16 == 0 {
            watched.step();
        }
    }
    watched.rest();
    let versions = watched.store.stats().versions;
    assert_eq!(versions, 30_000);
    watched.follow(Change::Commit(TxId(1), Stamp(50_000)));
    watched.follow(Change::Abort(TxId(2)));
    watched.rest();
    assert_eq!(watched.store.stats().versions, 25_000);
    watched.clock = 60_000;
    watched.follow(Change::Floor(CONTAINER, Stamp(60_000)));
    watched.rest();
    assert_eq!(watched.store.stats().versions, 20_000);
    for n in 0..5_000u64 {
        watched.update(AUTO, 1 + n, 0, &[4; 5000]);
    }
    watched.clock += 1;
    let object = Punch::Object;
    let stamp = Stamp(watched.clock);
    watched.store.punch(at(1), AUTO, stamp, View::Latest, NOBODY, object, Condition::None).unwrap();
    watched.update(AUTO, 7, 0, b"after the punch");
    watched.follow(Change::Floor(CONTAINER, Stamp(70_000)));
    watched.rest();
    assert_eq!(watched.store.stats().versions, 1, "the punch and all that it hid are gone");
    watched.clock = 80_000;
    for n in 0..10_000u64 {
        watched.update(AUTO, n % 100, n * 2, &[5; 1]);
    }
    watched.follow(Change::DestroyContainer(CONTAINER));
    let before = watched.steps;
    watched.rest();
    assert!(watched.steps - before > 10_000 / (2 * BUDGET as u64), "the container's end took many steps");
    assert_eq!(watched.store.stats().versions, 0);
    let (again, recovered) = Store::open(Box::new(watched.medium.crash(&mut || 0)), StoreOptions::default()).unwrap();
    assert!(!recovered.lost && again.stats().versions == 0);
}

#[test]
fn updates_between_the_parts_of_a_checkpoint_are_neither_lost_nor_doubled() {
    let mut watched = Watched::new();
    for n in 0..8_000u64 {
        watched.update(AUTO, 0, n * 3, &n.to_le_bytes()[..2]);
    }
    // Overwrites at random places while the checkpoint goes through the dkey.
    let mut random = 1u64;
    for _ in 0..3_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        watched.update(AUTO, 0, (random >> 33) % 24_000, &random.to_le_bytes()[4..8]);
        watched.step();
    }
    watched.store.flush().unwrap();
    let read = |store: &Store| {
        let (mut out, dkey) = (Vec::new(), 0u64.to_be_bytes());
        let all = [Extent { index: 0, count: 25_000 }];
        store.fetch(at(1), View::Latest, &dkey, b"a", talea_vos::FetchWhat::Array(&all), &mut out).unwrap();
        out
    };
    let (again, recovered) = Store::open(Box::new(watched.medium.crash(&mut || 0)), StoreOptions::default()).unwrap();
    assert!(!recovered.lost);
    assert!(read(&again) == read(&watched.store));
    assert!(again.stats().log_bytes < 1 << 20, "checkpoints came to their end: {:?}", again.stats());
}
