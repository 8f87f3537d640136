//! Update and fetch of one store, each beside its floor on the same medium in the same run.
//!
//! The floor of an update: checksum, copy and persist of the value, and of one log line. The floor of a fetch: copy and checksum.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use talea_model::{ContainerId, Extent, ObjectClass, Oid, Order, Position, SessionId, Stamp, TargetId, View};
use talea_tier::{Medium, TierConfig, open_medium};
use talea_vos::checksum::crc32c;
use talea_vos::{Caller, Change, Condition, EntryUpdate, FetchWhat, ObjectRef, Store, StoreOptions, ValueKind};

const SIZES: [usize; 3] = [64, 4096, 1 << 20];
/// Places written in turn, so that neither the cache nor one block holds them all.
const PLACES: u64 = 64;
/// A log line: what a small update says beside its value.
const LINE_BYTES: usize = 128;
const AUTO: Order = Order::Auto { tied: None };
const NOBODY: Caller = Caller { session: SessionId(0), sequence: 0, acknowledged_below: 0 };

fn at() -> ObjectRef {
    ObjectRef { container: ContainerId(1), oid: Oid::new(ObjectClass::S1, 1) }
}

fn medium(tier: &str) -> Option<Box<dyn Medium>> {
    let config: TierConfig = tier.parse().ok()?;
    match open_medium(&config, TargetId(0)) {
        Ok(medium) => Some(medium),
        Err(error) => {
            eprintln!("{tier} is left out: {error}");
            None
        }
    }
}

/// A store and a clock of its own.
struct Bench {
    store: Store,
    stamp: u64,
}

impl Bench {
    fn open(tier: &str) -> Option<Self> {
        let (store, _) = Store::open(medium(tier)?, StoreOptions { nonce: 1, ..StoreOptions::default() }).ok()?;
        Some(Self { store, stamp: 0 })
    }

    /// One update, durable when it returns; the floor follows, as it does under a server.
    fn update(&mut self, data: &[u8], checksum: u32) {
        self.stamp += 1;
        let dkey = (self.stamp % PLACES).to_be_bytes();
        let extents = [Extent { index: 0, count: data.len() as u64 }];
        let kind = ValueKind::Array { record_bytes: 1 };
        let condition = Condition::None;
        let entry = EntryUpdate { dkey: &dkey, akey: b"a", kind, condition, extents: &extents, data, checksum };
        let done = self.store.update(at(), AUTO, Stamp(self.stamp), View::Latest, NOBODY, &[entry]);
        assert!(done.is_ok() && self.store.flush().is_ok(), "{done:?}");
        if self.stamp.is_multiple_of(256) {
            let floor = Change::Floor(ContainerId(1), Stamp(self.stamp));
            assert!(self.store.follow(&[floor], Position(self.stamp)).is_ok());
        }
        assert!(self.store.background(4).is_ok());
    }

    fn fetch(&self, number: u64, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        let what = [Extent { index: 0, count: bytes as u64 }];
        let dkey = (number % PLACES).to_be_bytes();
        let found = self.store.fetch(at(), View::Latest, &dkey, b"a", FetchWhat::Array(&what), out);
        assert!(found.is_ok_and(|found| found.filled));
    }
}

/// What any store must do for an update: the value and a log line, durable, in turn over as many places.
fn floor_of_update(medium: &mut dyn Medium, number: &mut u64, data: &[u8]) {
    let stride = (data.len() + LINE_BYTES).next_multiple_of(4096) as u64;
    let place = *number % PLACES * stride;
    *number += 1;
    let crc = crc32c(black_box(data));
    let mut line = [0; LINE_BYTES];
    line[..4].copy_from_slice(&crc.to_le_bytes());
    let written = medium.write(place, data).and_then(|()| medium.write(place + data.len() as u64, &line));
    assert!(written.is_ok() && medium.persist().is_ok());
}

fn store(criterion: &mut Criterion) {
    let dir = std::env::temp_dir();
    let pmem = format!("/dev/shm/talea-bench-{}", std::process::id());
    let nvme = dir.join(format!("talea-bench-{}", std::process::id()));
    let tiers = [
        ("ram", "ram:1G".to_owned()),
        ("pmem", format!("pmem:{pmem}:1G")),
        ("nvme", format!("nvme:{}:1G", nvme.display())),
    ];
    let clean = || {
        for path in [std::path::Path::new(&pmem), nvme.as_path()] {
            let _ = std::fs::remove_dir_all(path);
        }
    };
    for size in SIZES {
        let data: Vec<u8> = (0..size).map(|n| (n * 7 + n / 255) as u8).collect();
        let checksum = crc32c(&data);
        for (name, tier) in &tiers {
            let mut group = criterion.benchmark_group(format!("store-update-{name}"));
            group.throughput(Throughput::Bytes(size as u64));
            group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            let Some(mut floor) = medium(tier) else { continue };
            let mut number = 0;
            group.bench_function(BenchmarkId::new("floor", size), |bencher| {
                bencher.iter(|| floor_of_update(&mut *floor, &mut number, &data));
            });
            drop(floor);
            clean();
            let Some(mut bench) = Bench::open(tier) else { continue };
            group.bench_function(BenchmarkId::new("update", size), |bencher| {
                bencher.iter(|| bench.update(black_box(&data), checksum));
            });
            group.finish();
            let mut group = criterion.benchmark_group(format!("store-fetch-{name}"));
            group.throughput(Throughput::Bytes(size as u64));
            group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            let (sources, mut copy) = (vec![data.clone(); PLACES as usize], vec![0; size]);
            let mut number = 0;
            group.bench_function(BenchmarkId::new("floor", size), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    copy.copy_from_slice(black_box(&sources[number % PLACES as usize]));
                    black_box(crc32c(&copy))
                });
            });
            (0..PLACES).for_each(|_| bench.update(&data, checksum));
            let (mut number, mut out) = (0, Vec::new());
            group.bench_function(BenchmarkId::new("fetch", size), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    bench.fetch(number, size, &mut out);
                    black_box(out.len())
                });
            });
            group.finish();
            drop(bench);
            clean();
        }
    }
}

criterion_group!(benches, store);
criterion_main!(benches);
