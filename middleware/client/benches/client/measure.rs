//! Samples, processor time, and the records that come of them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::system::Server;

/// Times of single operations in nanoseconds.
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    /// Runs `operation` so many times and notes each one's time.
    pub(crate) fn take(count: usize, mut operation: impl FnMut(usize)) -> Self {
        let mut times = Vec::with_capacity(count);
        for number in 0..count {
            let began = Instant::now();
            operation(number);
            times.push(began.elapsed().as_nanos() as u64);
        }
        Samples::of(times)
    }

    /// Of times in any order.
    pub(crate) fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        Samples(times)
    }

    /// These and others.
    pub(crate) fn join(mut self, others: Samples) -> Self {
        self.0.extend(others.0);
        Samples::of(self.0)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `share` of the samples do not exceed.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share) as usize).copied().unwrap_or(0) as f64
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Processor time of this process in nanoseconds.
pub(crate) fn own_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Processor time of all threads of a process in nanoseconds, as the scheduler counts it.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let time = |path: PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(|thread| time(thread.path())).sum()
}

/// Processor time of this process, the client, and of its server, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) client_ns: u64,
    pub(crate) server_ns: u64,
}

impl Cpu {
    /// Runs `work`, and gives what that took. (Own time is read inside of the server's: reading that one takes some.)
    pub(crate) fn of<T>(server: &Server, work: impl FnOnce() -> T) -> (T, Self) {
        let server_before = cpu_ns(server.pid());
        let own_before = own_cpu_ns();
        let result = work();
        let client_ns = own_cpu_ns() - own_before;
        (result, Cpu { client_ns, server_ns: cpu_ns(server.pid()) - server_before })
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Cpu) {
        self.client_ns += other.client_ns;
        self.server_ns += other.server_ns;
    }
}

/// How often all threads of a process have been switched away from: waiting for something, and to let others run.
pub(crate) fn switches(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let count = |path: PathBuf| -> Option<u64> {
        let text = fs::read_to_string(path.join("status")).ok()?;
        let lines = text.lines().filter(|line| line.contains("ctxt_switches"));
        Some(lines.filter_map(|line| line.rsplit('\t').next()?.trim().parse::<u64>().ok()).sum())
    };
    threads.flatten().filter_map(|thread| count(thread.path())).sum()
}

/// A floor: its name and value, in the unit of the figure it stands beside.
#[derive(Clone)]
pub(crate) struct Floor {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// Where records go.
pub(crate) struct Report {
    out: File,
    /// Held as long as this run measures.
    _lock: File,
    wanted: BTreeSet<String>,
    done: BTreeSet<String>,
}

fn target(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(file)
}

/// Until all is measured the records of the run before stay.
const UNFINISHED: &str = "bench-client.unfinished.json";

impl Report {
    /// None if another run measures.
    pub(crate) fn create(wanted: BTreeSet<String>) -> Option<Self> {
        let lock = File::create(target("bench-client.lock")).expect("target/bench-client.lock can be written");
        lock.try_lock().ok()?;
        let out = File::create(target(UNFINISHED)).expect("a file for the records in target/");
        Some(Report { out, _lock: lock, wanted, done: BTreeSet::new() })
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.contains(name)
    }

    /// Whether a figure whose name begins like this is to be measured.
    pub(crate) fn wants_of(&self, prefix: &str) -> bool {
        self.wanted.iter().any(|name| name.starts_with(prefix))
    }

    /// The run's records take the place of the one before.
    pub(crate) fn finish(self) {
        assert_eq!(self.done, self.wanted, "each figure that the groups name is measured");
        fs::rename(target(UNFINISHED), target("bench-client.json")).expect("the records get their name");
    }

    /// One figure with its floor, and what else was measured with it.
    pub(crate) fn record(&mut self, name: &str, value: f64, unit: &str, floor: Option<&Floor>, more: Value) {
        self.done.insert(name.to_owned());
        let ratio = floor.filter(|floor| floor.value > 0.0).map(|floor| value / floor.value);
        let mut record = json!({
            "name": name, "value": rounded(value), "unit": unit,
            "floor": floor.map(|floor| rounded(floor.value)), "floor_name": floor.map(|floor| floor.name.clone()),
            "ratio": ratio.map(rounded),
        });
        if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
            record.extend(more);
        }
        println!("{record}");
        writeln!(self.out, "{record}").expect("the records can be written");
    }
}

/// Four digits are more than any of this is worth.
pub(crate) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// How much longer than else a figure takes (`tools/profile`).
pub(crate) fn times() -> usize {
    std::env::var("TALEA_BENCH_TIMES").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
