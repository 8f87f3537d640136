//! Two client processes beside one server: random blocks and interleaved ones, one at a time and several in flight.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use talea_client::{
    Client, Condition, Container, EntryFetch, EntryUpdate, Object, RuntimeDir, SnapshotAt, ValueKind, Write,
};
use talea_model::{Extent, Key, ObjectClass, Oid, View};

use crate::floor;
use crate::latency;
use crate::measure::{self, Floor, Report, Samples, cpu_ns, own_cpu_ns, rounded, switches};
use crate::system::{Fabric, NAME, Server, client_of, from_environment};
use crate::worker::{Worker, ready};

const CHUNK: u64 = 1 << 20;
/// Size of the object that is read and written at random.
const OBJECT_BYTES: u64 = 64 << 20;

/// What each worker does.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) write: bool,
    pub(crate) bytes: usize,
    /// Operations in flight.
    pub(crate) depth: usize,
    pub(crate) operations: usize,
    /// Blocks of the workers alternate in one object, each written once in order.
    pub(crate) interleaved: bool,
    /// Reads are of a snapshot: by the short way.
    pub(crate) in_snapshot: bool,
    /// Snapshots come and go meanwhile, so that overwritten versions are given back and their pages used again.
    pub(crate) reused: bool,
    /// On how many targets the object lies.
    pub(crate) class: ObjectClass,
}

/// One process's 4 KiB writes, one at a time.
pub(crate) const WRITE: Plan = Plan {
    write: true,
    bytes: 4096,
    depth: 1,
    operations: 40_000,
    interleaved: false,
    in_snapshot: false,
    reused: false,
    class: ObjectClass::S1,
};

/// What all workers together came to.
pub(crate) struct Result {
    pub(crate) rate: f64,
    pub(crate) client_ns: f64,
    pub(crate) server_ns: f64,
    /// Switches an operation.
    client_switches: f64,
    server_switches: f64,
    /// Updates and fetches in a turn of a target.
    a_turn: f64,
    /// Of one operation, the worst process's.
    median_ns: f64,
    p99_ns: f64,
}

pub(crate) const PROCESSES: usize = 2;
const READ: Plan = Plan { write: false, ..WRITE };
const HARD: Plan = Plan { bytes: 47_008, interleaved: true, operations: 5_000, ..WRITE };

const fn deep(plan: Plan) -> Plan {
    Plan { depth: 16, ..plan }
}

const WARM: [(&str, Plan); 8] = [
    ("write-4KiB", WRITE),
    ("write-4KiB-16-in-flight", deep(WRITE)),
    // Long enough that the pages of the first round are few.
    ("write-4KiB-16-in-flight-reused-pages", deep(Plan { reused: true, operations: 200_000, ..WRITE })),
    ("read-4KiB", READ),
    ("read-4KiB-16-in-flight", deep(READ)),
    ("read-4KiB-in-place", Plan { in_snapshot: true, operations: 400_000, ..READ }),
    ("write-47008B-interleaved", HARD),
    ("write-47008B-interleaved-4-in-flight", Plan { depth: 4, ..HARD }),
];
const COLD: [(&str, Plan); 2] = [
    ("read-4KiB-nvme", Plan { operations: 10_000, ..READ }),
    ("read-4KiB-nvme-16-in-flight", deep(Plan { operations: 10_000, ..READ })),
];

fn label(name: &str) -> String {
    format!("load/two-processes/{name}")
}

pub(crate) fn figures() -> Vec<String> {
    WARM.iter().chain(&COLD).map(|(name, _)| label(name)).collect()
}

/// As long as it is wanted.
fn both(server: &Server, plan: Plan) -> Result {
    together(server, PROCESSES, Plan { operations: plan.operations * measure::times(), ..plan })
}

pub(crate) fn run(report: &mut Report) {
    for (name, plan) in WARM {
        let name = label(name);
        if report.wants(&name) {
            // Who looks at where the time goes does not look at the floor.
            let floor = (measure::times() == 1).then(|| floor::tmpfs(&Pattern::of(plan, PROCESSES)));
            let server = Server::start(1, Fabric::Ring, "never");
            put(report, &name, &both(&server, plan), floor.as_ref());
        }
    }
    cold(report);
}

/// Reads of a device, around the page cache: how much it helps that those of several requests go together.
fn cold(report: &mut Report) {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");
    for (name, plan) in COLD {
        let name = label(name);
        if report.wants(&name) {
            let directory = tempfile::Builder::new().prefix("talea-bench-").tempdir_in(target).expect("a directory");
            let tier = format!("nvme:{}:1G", directory.path().display());
            let server = Server::start_on(&tier, 1, Fabric::Ring, "never");
            put(report, &name, &both(&server, plan), None);
        }
    }
}

/// Where a worker's blocks lie. A floor has the same pattern, over as many bytes.
#[derive(Clone, Copy)]
pub(crate) struct Pattern {
    pub(crate) write: bool,
    pub(crate) bytes: u64,
    pub(crate) interleaved: bool,
    /// From the first block's begin to the last one's end.
    pub(crate) span: u64,
}

impl Pattern {
    fn of(plan: Plan, workers: usize) -> Self {
        let Plan { write, interleaved, bytes, operations, .. } = plan;
        let span = if interleaved { (workers * operations * bytes) as u64 } else { OBJECT_BYTES };
        Pattern { write, bytes: bytes as u64, interleaved, span }
    }

    /// Where a worker's next block begins. The blocks of workers alternate, or each is anywhere.
    pub(crate) fn place(&self, operation: u64, (number, workers): (u64, u64), random: &mut u64) -> u64 {
        let blocks = self.span / self.bytes;
        let block = if self.interleaved {
            operation * workers + number
        } else {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *random >> 33
        };
        block % blocks * self.bytes
    }
}

pub(crate) fn put(report: &mut Report, name: &str, result: &Result, floor: Option<&Floor>) {
    let more = json!({
        "cpu_client_ns": rounded(result.client_ns), "cpu_server_ns": rounded(result.server_ns),
        "switches_client": rounded(result.client_switches), "switches_server": rounded(result.server_switches),
        "operations_a_turn": rounded(result.a_turn), "median_ns": rounded(result.median_ns), "p99_ns": rounded(result.p99_ns),
    });
    report.record(name, result.rate, "op/s", floor, more);
}

/// Runs so many worker processes with one plan.
pub(crate) fn together(server: &Server, workers: usize, plan: Plan) -> Result {
    let client = server.client(Fabric::Ring, "never");
    let container = latency::container(&client);
    let object = container.object(client.new_oid(plan.class));
    if !plan.write {
        let data = vec![3; CHUNK as usize];
        (0..OBJECT_BYTES / CHUNK).for_each(|chunk| {
            latency::update(&object, &Write::Auto, chunk, Extent { index: 0, count: CHUNK }, &data);
        });
    }
    let words = |number: usize| {
        let Plan { write, bytes, depth, operations, interleaved, in_snapshot, .. } = plan;
        let numbers = [number, workers, bytes, depth, operations];
        let mut words = vec!["load".to_owned(), server.runtime(), object.oid().0.to_string()];
        words.extend([write, interleaved, in_snapshot].map(|flag| flag.to_string()));
        words.extend(numbers.map(|number| number.to_string()));
        words
    };
    let mut all: Vec<Worker> = (0..workers).map(|number| Worker::start(&words(number)).0).collect();
    let turns = || {
        let stats = client.target_stats(1_000).expect("counters");
        stats.iter().filter_map(|(_, stat)| Some(stat.as_ref()?.turns)).sum::<u64>()
    };
    let before = (turns(), switches(server.pid()), cpu_ns(server.pid()));
    let began = Instant::now();
    all.iter_mut().for_each(Worker::go);
    let over = AtomicBool::new(false);
    let results: Vec<serde_json::Value> = std::thread::scope(|scope| {
        if plan.reused {
            scope.spawn(|| lift_the_floor(&container, &over));
        }
        let results = all.iter_mut().map(Worker::results).collect();
        over.store(true, Relaxed);
        results
    });
    let took = began.elapsed().as_secs_f64();
    let each = |name: &'static str| results.iter().map(move |result| result[name].as_f64().unwrap_or(0.0));
    let (median_ns, p99_ns) = (each("median_ns").fold(0.0, f64::max), each("p99_ns").fold(0.0, f64::max));
    let client_ns: f64 = each("cpu_ns").sum();
    let total = (workers * plan.operations) as f64;
    let server_ns = (cpu_ns(server.pid()) - before.2) as f64;
    let server_switches = (switches(server.pid()) - before.1) as f64 / total;
    Result {
        rate: total / took,
        client_ns: client_ns / total,
        server_ns: server_ns / total,
        client_switches: each("switches").sum::<f64>() / total,
        server_switches,
        a_turn: total / (turns() - before.0) as f64,
        median_ns,
        p99_ns,
    }
}

/// Each snapshot of a container without steps lifts its floor, below which overwritten versions are given back.
fn lift_the_floor(container: &Container, over: &AtomicBool) {
    while !over.load(Relaxed) {
        drop(container.snapshot(SnapshotAt::Latest).expect("a snapshot"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Job {
    object: Object,
    data: Vec<u8>,
    number: u64,
    workers: u64,
    plan: Plan,
    pattern: Pattern,
    view: View,
    times: RefCell<Vec<u64>>,
}

impl Job {
    /// Where the operation's block lies: dkey and index in it. Files cut at a chunk's end; here each block stays in the chunk that it
    /// begins in.
    fn place(&self, operation: usize, random: &mut u64) -> (u64, u64) {
        let at = self.pattern.place(operation as u64, (self.number, self.workers), random);
        (at / CHUNK, at % CHUNK)
    }

    async fn timed(&self, place: (u64, u64)) {
        let began = Instant::now();
        self.one(place).await;
        self.times.borrow_mut().push(began.elapsed().as_nanos() as u64);
    }

    async fn one(&self, (dkey, index): (u64, u64)) {
        let (dkey, extents) = (Key::from_u64(dkey), [Extent { index, count: self.plan.bytes as u64 }]);
        let kind = ValueKind::Array { record_bytes: 1 };
        if self.plan.write {
            let condition = Condition::None;
            let entry = EntryUpdate { dkey: &dkey, akey: b"d", kind, condition, extents: &extents, data: &self.data };
            self.object.update_async(&Write::Auto, &[entry]).await.expect("an update");
        } else {
            let mut out = vec![0; self.plan.bytes];
            let mut entry = [EntryFetch::array(&dkey, b"d", 1, &extents, &mut out)];
            self.object.fetch_async(&self.view, &mut entry).await.expect("a fetch");
        }
    }
}

pub(crate) fn worker(words: &[&str]) {
    let [runtime, oid, write, interleaved, in_snapshot, numbers @ ..] = words else { return };
    let numbers: Vec<usize> = numbers.iter().map(|text| text.parse().unwrap_or(1)).collect();
    let [number, workers, bytes, depth, operations] = numbers[..] else { return };
    if let Some(slice_us) = from_environment("TALEA_BENCH_CLIENT_SLICE_US") {
        talea_fabric::slice::ask_for(Duration::from_micros(slice_us.into())).expect("a slice");
    }
    let [write, interleaved, in_snapshot] = [write, interleaved, in_snapshot].map(|flag| *flag == "true");
    let plan = Plan { write, interleaved, in_snapshot, bytes, depth, operations, ..WRITE };
    let system = RuntimeDir::at(runtime).and_then(|runtime| runtime.load(NAME)).expect("the parent's system");
    let client = client_of(&system, Fabric::Ring, "never");
    let container = latency::container(&client);
    let object = container.object(Oid(oid.parse().unwrap_or_default()));
    let snapshot = in_snapshot.then(|| container.snapshot(SnapshotAt::Latest).expect("a snapshot"));
    let view = snapshot.as_ref().map_or(View::Latest, |snapshot| snapshot.view());
    let times = RefCell::new(Vec::with_capacity(operations));
    let (data, pattern) = (vec![number as u8; bytes], Pattern::of(plan, workers));
    let (number, workers) = (number as u64, workers as u64);
    let job = Job { object, data, number, workers, plan, pattern, view, times };
    let mut random = number + 1;
    for _ in 0..16 {
        client.block_on(job.one(job.place(0, &mut random))).expect("the first requests");
    }
    if !ready("ready") {
        return;
    }
    let before = (own_cpu_ns(), switches(std::process::id()));
    run_job(&client, &job, &mut random);
    let (cpu_ns, switches) = (own_cpu_ns() - before.0, switches(std::process::id()) - before.1);
    let samples = Samples::of(job.times.into_inner());
    println!(
        "{}",
        json!({ "cpu_ns": cpu_ns, "switches": switches, "median_ns": samples.median(), "p99_ns": samples.quantile(0.99) })
    );
}

fn run_job(client: &Client, job: &Job, random: &mut u64) {
    use futures_util::StreamExt;
    let operations = futures_util::stream::iter(0..job.plan.operations);
    let places: Vec<_> = (0..job.plan.operations).map(|operation| job.place(operation, random)).collect();
    let all = operations.map(|operation| job.timed(places[operation])).buffer_unordered(job.plan.depth);
    client.block_on(all.collect::<()>()).expect("all operations");
}
