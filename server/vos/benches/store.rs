//! Update and fetch of one store, each beside its floor on the same medium in the same run, and the same without checksums.
//!
//! The floor of an update: checksum, copy and persist of the value, and of one log line. The floor of a fetch: copy and checksum.
//! Where no device is waited for, what is counted is the processor time of the thread: other work on the machine changes it least.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use talea_model::{ContainerId, Extent, ObjectClass, Oid, Order, Position, SessionId, Stamp, TargetId, View};
use talea_tier::{Medium, TierConfig, open_medium};
use talea_vos::checksum::crc32c;
use talea_vos::{Caller, Change, Condition, EntryUpdate, FetchWhat, ObjectRef, Store, StoreOptions, ValueKind};

const SIZES: [usize; 3] = [64, 4096, 1 << 20];
/// A log line: what a small update says beside its value.
const LINE_BYTES: usize = 128;
const AUTO: Order = Order::Auto { tied: None };
const NOBODY: Caller = Caller { session: SessionId(0), sequence: 0, acknowledged_below: 0 };

/// Processor time of this thread.
struct ProcessorTime;

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;
    fn start(&self) -> Duration {
        thread_time()
    }
    fn end(&self, start: Duration) -> Duration {
        thread_time().saturating_sub(start)
    }
    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

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

/// Places written in turn, for the store as for the floor: small values neither lie all in the nearest cache nor in one block, large
/// ones come back to memory that is still in a cache, as far as the store lets them.
fn places(size: usize) -> u64 {
    if size < 1 << 20 { 64 } else { 4 }
}

/// A store and a clock of its own.
struct Bench {
    store: Store,
    stamp: u64,
    places: u64,
    /// Updates after which the floor follows: then what they overwrote is used again.
    floor_every: u64,
}

impl Bench {
    fn open(tier: &str, size: usize, unsummed: bool) -> Option<Self> {
        let options = StoreOptions { nonce: 1, unsummed, ..StoreOptions::default() };
        let (store, _) = Store::open(medium(tier)?, options).ok()?;
        let places = places(size);
        Some(Self { store, stamp: 0, places, floor_every: if size < 1 << 20 { 4 * places } else { places } })
    }

    /// One turn of a target with one update, durable when it returns; the floor follows, as it does under a server.
    fn update(&mut self, data: &[u8], checksum: u32) {
        self.stamp += 1;
        let dkey = (self.stamp % self.places).to_be_bytes();
        let extents = [Extent { index: 0, count: data.len() as u64 }];
        let kind = ValueKind::Array { record_bytes: 1 };
        let condition = Condition::None;
        let entry = EntryUpdate { dkey: &dkey, akey: b"a", kind, condition, extents: &extents, data, checksum };
        let done = self.store.update(at(), AUTO, Stamp(self.stamp), View::Latest, NOBODY, &[entry]);
        assert!(done.is_ok(), "{done:?}");
        if self.stamp.is_multiple_of(self.floor_every) {
            let floor = Change::Floor(ContainerId(1), Stamp(self.stamp));
            assert!(self.store.follow(&[floor], Position(self.stamp)).is_ok());
        }
        assert!(self.store.background(8).is_ok() && self.store.flush().is_ok());
    }

    fn fetch(&self, number: u64, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        let what = [Extent { index: 0, count: bytes as u64 }];
        let dkey = (number % self.places).to_be_bytes();
        let found = self.store.fetch(at(), View::Latest, &dkey, b"a", FetchWhat::Array(&what), out);
        assert!(found.is_ok_and(|found| found.filled));
    }
}

/// What any store must do for an update: the value and a log line, durable, in turn over as many places.
fn floor_of_update(medium: &mut dyn Medium, number: &mut u64, data: &[u8]) {
    let stride = (data.len() + LINE_BYTES).next_multiple_of(4096) as u64;
    let place = *number % places(data.len()) * stride;
    *number += 1;
    let crc = crc32c(black_box(data));
    let mut line = [0; LINE_BYTES];
    line[..4].copy_from_slice(&crc.to_le_bytes());
    let written = medium.write(place, data).and_then(|()| medium.write(place + data.len() as u64, &line));
    assert!(written.is_ok() && medium.persist().is_ok());
}

/// Files of a tier, gone when it is.
struct Files(std::path::PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn rows<M: Measurement>(criterion: &mut Criterion<M>, name: &str, tier: &str, files: &std::path::Path) {
    for size in SIZES {
        let data: Vec<u8> = (0..size).map(|n| (n * 7 + n / 255) as u8).collect();
        let checksum = crc32c(&data);
        let mut group = criterion.benchmark_group(format!("store-update-{name}"));
        group.throughput(Throughput::Bytes(size as u64));
        group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
        {
            let _files = Files(files.to_owned());
            let Some(mut floor) = medium(tier) else { return };
            let mut number = 0;
            group.bench_function(BenchmarkId::new("floor", size), |bencher| {
                bencher.iter(|| floor_of_update(&mut *floor, &mut number, &data));
            });
        }
        for (what, unsummed) in [("update", false), ("update-unsummed", true)] {
            let _files = Files(files.to_owned());
            let Some(mut bench) = Bench::open(tier, size, unsummed) else { return };
            group.bench_function(BenchmarkId::new(what, size), |bencher| {
                bencher.iter(|| bench.update(black_box(&data), checksum));
            });
        }
        group.finish();
        let mut group = criterion.benchmark_group(format!("store-fetch-{name}"));
        group.throughput(Throughput::Bytes(size as u64));
        group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let sources = vec![data.clone(); places(size) as usize];
        let (mut copy, mut number) = (vec![0; size], 0);
        group.bench_function(BenchmarkId::new("floor", size), |bencher| {
            bencher.iter(|| {
                number += 1;
                copy.copy_from_slice(black_box(&sources[number % sources.len()]));
                black_box(crc32c(&copy))
            });
        });
        for (what, unsummed) in [("fetch", false), ("fetch-unsummed", true)] {
            let _files = Files(files.to_owned());
            let Some(mut bench) = Bench::open(tier, size, unsummed) else { return };
            (0..bench.places).for_each(|_| bench.update(&data, checksum));
            let (mut number, mut out) = (0, Vec::new());
            group.bench_function(BenchmarkId::new(what, size), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    bench.fetch(number, size, &mut out);
                    black_box(out.len())
                });
            });
        }
        group.finish();
    }
}

fn memory(criterion: &mut Criterion<ProcessorTime>) {
    let pmem = format!("/dev/shm/talea-bench-{}", std::process::id());
    rows(criterion, "ram", "ram:1G", "/nothing".as_ref());
    rows(criterion, "pmem", &format!("pmem:{pmem}:1G"), pmem.as_ref());
}

fn devices(criterion: &mut Criterion) {
    let nvme = std::env::temp_dir().join(format!("talea-bench-{}", std::process::id()));
    rows(criterion, "nvme", &format!("nvme:{}:1G", nvme.display()), &nvme);
}

criterion_group! {
    name = of_memory;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = memory
}
criterion_group!(of_devices, devices);
criterion_main!(of_memory, of_devices);
