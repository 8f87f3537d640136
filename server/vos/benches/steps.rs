//! How long the steps of a target's loop take while everything goes on at once: updates and fetches as fast as they come,
//! aggregation, checkpoints, a transaction's end, a container's end, and the scrubber. And what growth costs: the time of a look-up
//! and of replay, from ten thousand to ten million of extents and keys.
//!
//! Prints one JSON object a figure (`tools/bench.d/store`). `STEPS` and `GROWTH` set the sizes.

use std::time::Duration;

use talea_model::{ContainerId, Extent, ObjectClass, Oid, Order, Position, SessionId, Stamp, TargetId, TxId, View};
use talea_tier::{TierConfig, open_medium};
use talea_vos::checksum::crc32c;
use talea_vos::{Caller, Change, EntryUpdate, FetchWhat, ObjectRef, Store, StoreOptions, ValueKind};

const AUTO: Order = Order::Auto { tied: None };
const NOBODY: Caller = Caller { session: SessionId(0), sequence: 0, acknowledged_below: 0 };
/// What a target does in a turn, as the engine has it.
const BACKGROUND_ITEMS: usize = 256;
const SCRUB_BYTES: u64 = 256 << 10;

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn at(container: u64) -> ObjectRef {
    ObjectRef { container: ContainerId(container), oid: Oid::new(ObjectClass::S1, 1) }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn record(name: &str, value: f64, unit: &str, floor: Option<(f64, &str)>) {
    let (floor_text, name_text, ratio) = match floor {
        Some((floor, of)) => (format!("{floor:.3}"), format!("\"{of}\""), format!("{:.3}", value / floor)),
        None => ("null".into(), "null".into(), "null".into()),
    };
    println!(
        "{{\"name\": \"{name}\", \"value\": {value:.3}, \"unit\": \"{unit}\", \"floor\": {floor_text}, \"floor_name\": {name_text}, \"ratio\": {ratio}}}"
    );
}

fn open(tier: &str) -> Option<Store> {
    let config: TierConfig = tier.parse().ok()?;
    let medium = open_medium(&config, TargetId(0)).ok()?;
    Some(Store::open(medium, StoreOptions { nonce: 1, ..StoreOptions::default() }).ok()?.0)
}

struct Load {
    store: Store,
    clock: u64,
    position: u64,
    random: u64,
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Load {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    fn follow(&mut self, change: Change) {
        self.position += 1;
        assert!(self.store.follow(&[change], Position(self.position)).is_ok());
    }

    /// 4 KiB at a random place of a thousand dkeys, sometimes 64 KiB, an eighth in a transaction.
    fn update(&mut self, step: u64) {
        self.clock += 1;
        let random = self.random();
        let data = if random.is_multiple_of(16) { &self.large } else { &self.small };
        let dkey = (random % 1000).to_be_bytes();
        let extents = [Extent { index: random / 1000 % 64 * 4096, count: data.len() as u64 }];
        let order = if random.is_multiple_of(8) { Order::Pending(TxId(step / 500 + 1)) } else { AUTO };
        let container = if random.is_multiple_of(32) { 100 + step / 20_000 } else { 1 };
        let kind = ValueKind::Array { record_bytes: 1 };
        let (condition, checksum) = (talea_vos::Condition::None, crc32c(data));
        let entry = EntryUpdate { dkey: &dkey, akey: b"a", kind, condition, extents: &extents, data, checksum };
        let done = self.store.update(at(container), order, Stamp(self.clock), View::Latest, NOBODY, &[entry]);
        assert!(done.is_ok(), "{done:?}");
    }

    fn turn(&mut self, step: u64) {
        if step.is_multiple_of(500) {
            self.follow(Change::Commit(TxId(step / 500), Stamp(self.clock + 1)));
            self.clock += 2;
            self.follow(Change::Begin(TxId(step / 500 + 1)));
        }
        if step.is_multiple_of(100) {
            let floor = Stamp(self.clock.saturating_sub(400));
            self.follow(Change::Floor(ContainerId(1), floor));
        }
        if step.is_multiple_of(20_000) && step > 0 {
            self.follow(Change::DestroyContainer(ContainerId(100 + step / 20_000 - 1)));
        }
        for _ in 0..4 {
            self.update(step);
        }
        let mut out = Vec::new();
        let dkey = (self.random() % 1000).to_be_bytes();
        let what = [Extent { index: 0, count: 4096 }];
        let found = self.store.fetch(at(1), View::Latest, &dkey, b"a", FetchWhat::Array(&what), &mut out);
        assert!(found.is_ok(), "{found:?}");
        assert!(self.store.background(BACKGROUND_ITEMS).is_ok());
        assert!(!step.is_multiple_of(16) || self.store.scrub(SCRUB_BYTES).is_ok());
        assert!(self.store.flush().is_ok());
    }
}

/// Steps by how long they took, in microseconds of processor time, to the next power of two.
fn steps(name: &str, tier: &str, count: u64) {
    let Some(store) = open(tier) else { return eprintln!("{tier} is left out") };
    let (small, large) = (vec![7; 4096], vec![9; 64 << 10]);
    let mut load = Load { store, clock: 1000, position: 0, random: 1, small, large };
    load.follow(Change::Begin(TxId(1)));
    let mut took: Vec<u64> = Vec::new();
    for step in 0..count {
        let before = thread_time();
        load.turn(step);
        took.push((thread_time() - before).as_nanos() as u64);
    }
    let stats = load.store.stats();
    eprintln!("{name}: {count} steps, {stats:?}");
    let mut classes = std::collections::BTreeMap::new();
    took.iter().for_each(|ns| *classes.entry((ns / 1000).max(1).next_power_of_two()).or_insert(0u64) += 1);
    for (us, steps) in classes {
        eprintln!("  up to {us:>6} us: {steps}");
    }
    took.sort_unstable();
    for (what, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let at = ((took.len() as f64 * part) as usize).min(took.len() - 1);
        record(
            &format!("store-step-{name}/{what}"),
            took[at] as f64 / 1000.0,
            "us",
            Some((1000.0, "the aim: 1 ms of processor time")),
        );
    }
}

fn scattered(n: u64, count: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count
}

/// The time of a look-up at one size; fetches of 8 bytes at places in no order.
fn lookups(store: &Store, count: u64, keys: bool) -> f64 {
    let (rounds, mut out) = (200_000, Vec::new());
    let before = thread_time();
    for n in 0..rounds {
        out.clear();
        let place = scattered(n, count);
        let (dkey, index) = if keys { (place, 0) } else { (0, place * 16) };
        let what = [Extent { index, count: 8 }];
        let found = store.fetch(at(1), View::Latest, &dkey.to_be_bytes(), b"a", FetchWhat::Array(&what), &mut out);
        assert!(found.is_ok_and(|found| found.filled));
    }
    (thread_time() - before).as_nanos() as f64 / rounds as f64
}

fn fill(tier: &str, count: u64, keys: bool) -> Option<Store> {
    let mut store = open(tier)?;
    for n in 0..count {
        let (dkey, index) = if keys { (n, 0) } else { (0, n * 16) };
        let (dkey, extents) = (dkey.to_be_bytes(), [Extent { index, count: 8 }]);
        let data = n.to_le_bytes();
        let (kind, condition) = (ValueKind::Array { record_bytes: 1 }, talea_vos::Condition::None);
        let checksum = crc32c(&data);
        let entry = EntryUpdate { dkey: &dkey, akey: b"a", kind, condition, extents: &extents, data: &data, checksum };
        store.update(at(1), AUTO, Stamp(10 + n), View::Latest, NOBODY, &[entry]).ok()?;
    }
    store.flush().ok()?;
    Some(store)
}

fn growth(count: u64) {
    for keys in [false, true] {
        let what = if keys { "keys" } else { "extents" };
        let Some(small) = fill("ram:64M", 10_000, keys) else { continue };
        let few_ns = lookups(&small, 10_000, keys);
        let Some(large) = fill(&format!("ram:{}", (64 << 20) + count * 64), count, keys) else { continue };
        let many_ns = lookups(&large, count, keys);
        record(&format!("store-growth/{what}-{count}"), many_ns, "ns", Some((few_ns, "the same with 10,000")));
    }
    // Replay: a log without any checkpoint.
    let dir = format!("/dev/shm/talea-bench-replay-{}", std::process::id());
    let records = count.min(1_000_000);
    let tier = format!("pmem:{dir}:{}", (256 << 20) + records * 512);
    if fill(&tier, records, false).is_some() {
        let before = thread_time();
        if let Some(store) = open(&tier) {
            let rate = records as f64 / (thread_time() - before).as_secs_f64();
            record("store-replay/records", rate / 1000.0, "k/s", Some((1000.0, "the aim: a million a second")));
            assert_eq!(store.stats().versions, records);
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
}

fn main() {
    let count = number("STEPS", 60_000);
    steps("ram", "ram:2G", count);
    let dir = format!("/dev/shm/talea-bench-steps-{}", std::process::id());
    steps("pmem", &format!("pmem:{dir}:2G"), count);
    let _ = std::fs::remove_dir_all(&dir);
    growth(number("GROWTH", 10_000_000));
}
