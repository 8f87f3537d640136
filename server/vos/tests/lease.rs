//! The short way under everything that frees, moves and reuses memory: a reader who keeps to its rules (docs/design.md §6) never
//! sees a place change, on a tier whose values move while it is used and on one that keeps a log.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use support::kit::*;
use talea_model::{Extent, LeaseId, Position, Stamp, TxId, View};
use talea_tier::{Medium, RamMedium, SimMedium, Torn};
use talea_vos::checksum::{GRANULE_BYTES, crc32c};
use talea_vos::{Change, Condition, EntryUpdate, Punch, Span, Store, StoreError, StoreOptions};

const CAPACITY: u64 = 8 << 20;
const LEASE: u64 = 40;
const KEYS: u64 = 1 << 14;
const ALL: Extent = Extent { index: 0, count: u64::MAX };

/// Reads the medium as another process does.
type Window = Box<dyn Fn(u64, &mut [u8])>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ram,
    Durable,
}

struct World {
    store: Store,
    window: Window,
    stamp: u64,
    now: u64,
    random: u64,
    /// The store is told of leases.
    leases: bool,
    reader: Reader,
    full: u64,
}

/// What a reader knows, as `client/src/core/place.rs` does: all of it holds until one time, and goes when blocks went.
#[derive(Default)]
struct Reader {
    until: u64,
    generation: u64,
    spans: Vec<Span>,
    /// Spans looked at again under a lease, and whether one had changed.
    looked: u64,
    changed: bool,
    /// Answers that told that blocks had been given back.
    told: u64,
}

impl World {
    fn new(kind: Kind, seed: u64, leases: bool) -> Self {
        let options = StoreOptions { segment_bytes: 64 << 10, ..StoreOptions::default() };
        let (store, window): (Store, Window) = match kind {
            Kind::Ram => {
                let store = Store::open(Box::new(RamMedium::new(CAPACITY).unwrap()), options).unwrap().0;
                let file = File::open(store.share().unwrap().path).unwrap();
                (store, Box::new(move |offset, out| file.read_exact_at(out, offset).unwrap()))
            }
            Kind::Durable => {
                let medium = SimMedium::new(CAPACITY, Torn::Lines);
                medium.share_as(1);
                let store = Store::open(Box::new(medium.clone()), options).unwrap().0;
                (store, Box::new(move |offset, out| medium.read(offset, out).unwrap()))
            }
        };
        Self { store, window, stamp: 10, now: 1, random: seed, leases, reader: Reader::default(), full: 0 }
    }

    /// Below `end`; splitmix64.
    fn any(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Few keys are hot, many are written once in a while.
    fn key(&mut self) -> [u8; 8] {
        let end = if self.any(4) == 0 { KEYS } else { 16 };
        self.any(end).to_be_bytes()
    }

    fn write(&mut self) {
        self.stamp += 1;
        let dkey = self.key();
        let bytes = [100, 500, 2000, 3000, 4096, 5000, 40_000][self.any(7) as usize];
        let data = vec![self.stamp as u8; bytes];
        let extents = [Extent { index: 0, count: bytes as u64 }];
        let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(&dkey, b"a", &data) };
        let result = self.store.update(at(1), AUTO, Stamp(self.stamp), View::Latest, NOBODY, &[entry]);
        self.count_full(result);
    }

    fn count_full(&mut self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => {}
            Err(StoreError::NoSpace { .. } | StoreError::RoomToCome { .. }) => self.full += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn punch(&mut self) {
        self.stamp += 1;
        let dkey = self.key();
        let what = Punch::Dkey(&dkey);
        let result = self.store.punch(at(1), AUTO, Stamp(self.stamp), View::Latest, NOBODY, what, Condition::None);
        self.count_full(result);
    }

    /// What the reader remembers goes by the rules of `Places::learn`.
    fn locate(&mut self) {
        self.store.flush().unwrap();
        let dkey = self.key();
        let view = View::Snapshot { stamp: Stamp(self.stamp), position: Position(0), lease: LeaseId(0) };
        let located = self.store.locate(at(1), view, &dkey, b"a", ALL).unwrap();
        if self.leases {
            self.store.lease_blocks(self.now + LEASE);
        }
        let generation = self.store.generation();
        if generation != self.reader.generation {
            self.reader.spans.clear();
            self.reader.generation = generation;
            self.reader.told += 1;
        }
        self.reader.until = self.now + LEASE;
        self.reader.spans.extend(located.spans);
    }

    /// All that the reader may read is what it was.
    fn look(&mut self) {
        if self.now >= self.reader.until {
            self.reader.spans.clear();
        }
        for span in &self.reader.spans {
            let mut bytes = vec![0; span.bytes as usize];
            (self.window)(span.offset, &mut bytes);
            let first = span.skip_bytes as usize / GRANULE_BYTES;
            let granules = bytes.chunks(GRANULE_BYTES).skip(first).take(span.checksums.len());
            let same = granules.map(crc32c).eq(span.checksums.iter().copied());
            self.reader.changed |= !same;
            self.reader.looked += 1;
        }
    }

    fn step(&mut self) {
        self.now += 1;
        match self.any(16) {
            0..8 => self.write(),
            8..10 => self.punch(),
            10..12 => {
                let floor = Change::Floor(at(1).container, Stamp(self.stamp));
                self.store.follow(&[floor], Position(self.now)).unwrap();
            }
            12..14 => self.locate(),
            _ => {
                self.store.flush().unwrap();
                let budget = 1 + self.any(256) as usize;
                self.store.background(budget).unwrap();
            }
        }
        // The target's clock is read in steps.
        if self.any(3) == 0 {
            self.store.end_leases(self.now);
        }
        self.look();
    }
}

#[test]
fn whoever_keeps_to_the_leases_sees_no_place_change() {
    for kind in [Kind::Ram, Kind::Durable] {
        for leases in [true, false] {
            let (mut changed, mut looked, mut told, mut full) = (false, 0, 0, 0);
            for seed in 0..2 {
                let mut world = World::new(kind, seed, leases);
                for _ in 0..6_000 {
                    world.step();
                }
                changed |= world.reader.changed;
                (looked, told) = (looked + world.reader.looked, told + world.reader.told);
                full += world.full;
            }
            assert_eq!(
                changed, !leases,
                "{kind:?}: without leases places change, and the test sees it; with them, none does"
            );
            assert!(looked > 10_000 && told > 20, "{kind:?}: {looked} looks, told {told} times, full {full} times");
        }
    }
}

/// Values of segments of which little is left move together; where they lay is not used again before the lease has ended.
#[test]
fn a_value_that_moved_is_still_where_it_was_named() {
    let count = 12_000u64;
    for leased in [true, false] {
        let mut world = World::new(Kind::Ram, 1, true);
        let put = |world: &mut World, n: u64| {
            world.stamp += 1;
            let (dkey, data) = (n.to_be_bytes(), vec![n as u8; 500]);
            let entry =
                EntryUpdate { kind: BYTES, extents: &[Extent { index: 0, count: 500 }], ..entry(&dkey, b"a", &data) };
            world.store.update(at(1), AUTO, Stamp(world.stamp), View::Latest, NOBODY, &[entry]).map(|()| data)
        };
        let locate = |world: &World, n: u64| {
            let view = View::Snapshot { stamp: Stamp(world.stamp), position: Position(0), lease: LeaseId(0) };
            world.store.locate(at(1), view, &n.to_be_bytes(), b"a", ALL).unwrap().spans.remove(0)
        };
        let is_at = |world: &World, span: &Span, n: u64| {
            let mut bytes = vec![0; 500];
            (world.window)(span.offset, &mut bytes);
            bytes == vec![n as u8; 500]
        };
        (0..count).for_each(|n| _ = put(&mut world, n).unwrap());
        let stay = || (0..count).step_by(50);
        let before: Vec<Span> = stay().map(|n| locate(&world, n)).collect();
        let generation = world.store.generation();
        if leased {
            world.store.lease_blocks(1_000);
        }
        for n in (0..count).filter(|n| n % 50 != 0) {
            world.stamp += 1;
            let (dkey, stamp) = (n.to_be_bytes(), Stamp(world.stamp));
            world.store.punch(at(1), AUTO, stamp, View::Latest, NOBODY, Punch::Dkey(&dkey), Condition::None).unwrap();
        }
        world.store.follow(&[Change::Floor(at(1).container, Stamp(world.stamp))], Position(1)).unwrap();
        while world.store.background(64).unwrap() {}
        let moved = stay().zip(&before).filter(|(n, span)| locate(&world, *n).offset != span.offset).count();
        assert!(moved > 100, "{moved} of {} moved", before.len());
        assert_ne!(world.store.generation(), generation, "whoever asks again is told");
        // Everything that is free is used again.
        let mut n = count;
        while put(&mut world, n).is_ok() {
            n += 1;
        }
        let kept = stay().zip(&before).filter(|(n, span)| is_at(&world, span, *n)).count();
        assert_eq!(kept == before.len(), leased, "{kept} of {} are where they were", before.len());
        assert!(stay().all(|n| is_at(&world, &locate(&world, n), n)), "what moved is what it was");
        if leased {
            world.store.end_leases(1_000);
            (n..n + 4_000).for_each(|n| _ = put(&mut world, n).unwrap());
            let kept = stay().zip(&before).filter(|(n, span)| is_at(&world, span, *n)).count();
            assert!(kept < before.len(), "the room comes back with the lease's end");
        }
    }
}

/// Readers who ask all the time hold what checkpoints give back: the room that is kept for the pool's log must not go on
/// checkpoints that make none, nor on updates so small that they fit behind other records.
#[test]
fn a_full_store_goes_on_following_the_log() {
    for (leases, floors) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new(Kind::Durable, 7, leases);
        let mut refused = 0;
        for step in 0..4_000u64 {
            world.now += 1;
            // A lease ends after many attempts, and is asked for anew at once.
            if step % 400 == 0 {
                world.store.end_leases(world.now);
                if leases {
                    world.store.lease_blocks(world.now + 400);
                }
            }
            let full = world.full;
            world.write();
            if world.full > full {
                refused += 1;
                world.punch();
            }
            let mut changes = vec![Change::Begin(TxId(step + 1)), Change::Abort(TxId(step + 1))];
            if floors && step % 50 == 0 {
                changes.push(Change::Floor(at(1).container, Stamp(world.stamp)));
            }
            let followed = world.store.follow(&changes, Position(step + 2));
            assert!(
                followed.is_ok(),
                "leases {leases}, floors {floors}, step {step}: {followed:?} {:?}",
                world.store.stats()
            );
            world.store.background(64).unwrap();
            world.store.flush().unwrap();
        }
        assert!(refused > 100, "leases {leases}, floors {floors}: {refused}");
    }
}
