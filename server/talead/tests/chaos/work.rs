//! What the programs do: writers commit epochs, a follower reads each step. Each says on its standard output, a line a call, how the
//! call ended and how long it took; they know nothing of the faults.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use talea_client::{
    Client, ClientError, Condition, Container, ContainerProperties, EntryFetch, EntryUpdate, ErrorKind, Object,
    SnapshotAt, Tuning, ValueKind, WaitOutcome, Write,
};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Extent, ObjectClass, Oid, ServerId, Step, View};

use crate::random::Random;
use crate::{DEADLINE_MS, SECRET, SYSTEM};

pub const KEYS: u64 = 24;
const BYTES: usize = 4096;
const KIND: ValueKind = ValueKind::Array { record_bytes: 1 };
/// A gap of the ticking thread that is longer means that the whole process was stopped.
const GAP: Duration = Duration::from_millis(300);

/// A line of a program's output.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    pub call: String,
    /// How long it took, less the time in which the process was stopped.
    pub ms: u64,
    /// `ok`, or the kind of its error.
    pub outcome: String,
    #[serde(default)]
    pub text: String,
    /// Of commits, and of reads: the step.
    #[serde(default)]
    pub step: u64,
    /// Of commits: which one.
    #[serde(default)]
    pub mark: String,
    /// Of reads: the value of each key.
    #[serde(default)]
    pub values: Vec<u64>,
    /// Of waits: the steps that were told.
    #[serde(default)]
    pub told: Vec<u64>,
}

/// Which commit a step is: in its attributes, and the source of all that it wrote.
pub fn mark(writer: u32, life: u32, round: u64) -> String {
    format!("{writer}.{life}.{round}")
}

/// The keys that a commit wrote, and with which values.
pub fn writes(mark: &str) -> Vec<(u64, u64)> {
    let seed =
        mark.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut random = Random::new(seed);
    let first = random.below(KEYS);
    (0..1 + random.below(5)).map(|number| ((first + 5 * number) % KEYS, random.draw() | 1)).collect()
}

/// Time in which this process was stopped.
struct Stopped(Arc<AtomicU64>);

impl Stopped {
    fn watch() -> Self {
        let total = Arc::new(AtomicU64::new(0));
        let sum = total.clone();
        std::thread::spawn(move || {
            let mut last = Instant::now();
            loop {
                std::thread::sleep(Duration::from_millis(20));
                let gap = std::mem::replace(&mut last, Instant::now()).elapsed();
                if gap > GAP {
                    sum.fetch_add(gap.as_millis() as u64, Ordering::Relaxed);
                }
            }
        });
        Stopped(total)
    }

    fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A client that says how its calls end.
struct Caller {
    client: Client,
    stopped: Stopped,
}

impl Caller {
    fn new(home: &str, server: u32) -> Result<Self, String> {
        let endpoint = client_endpoint(&Credentials::new(SYSTEM, SECRET), Policy::Auto, Spin::Never);
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let home = home.parse().map_err(|error| format!("{home}: {error}"))?;
        let tuning =
            Tuning { name: "chaos".to_owned(), home: ServerId(server), deadline_ms: DEADLINE_MS, ..Tuning::default() };
        let seed = u64::from(std::process::id());
        let client = Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, seed, tuning);
        Ok(Self { client, stopped: Stopped::watch() })
    }

    /// Makes a call, and says how it ended; `more` fills in what the line says beside that.
    fn call<T>(
        &self,
        what: &str,
        call: impl FnOnce() -> Result<T, ClientError>,
        more: impl FnOnce(&T, &mut Line),
    ) -> Result<T, ErrorKind> {
        let (begun, stopped_ms) = (Instant::now(), self.stopped.ms());
        let result = call();
        let took_ms = begun.elapsed().as_millis() as u64;
        // The ticking thread may see the end of a stop a little later than this one.
        std::thread::sleep(if took_ms > DEADLINE_MS { Duration::from_millis(50) } else { Duration::ZERO });
        let ms = took_ms.saturating_sub(self.stopped.ms() - stopped_ms);
        let mut line = Line {
            call: what.to_owned(),
            ms,
            outcome: "ok".to_owned(),
            text: String::new(),
            step: 0,
            mark: String::new(),
            values: vec![],
            told: vec![],
        };
        match &result {
            Ok(value) => more(value, &mut line),
            Err(error) => {
                line.outcome = format!("{:?}", error.kind());
                line.text = error.to_string();
            }
        }
        say(&line);
        result.map_err(|error| {
            std::thread::sleep(Duration::from_millis(50));
            error.kind()
        })
    }

    fn container(&self) -> Container {
        let properties = ContainerProperties { kept_steps: 1 << 40, ..ContainerProperties::default() };
        loop {
            let made = || self.client.container_create("run", properties.clone(), true);
            if self.call("open", || self.client.open(), |(), _| {}).is_ok()
                && let Ok(container) = self.call("container", made, |_, _| {})
            {
                return container;
            }
        }
    }
}

fn say(line: &Line) {
    if let Ok(text) = serde_json::to_string(line) {
        // Whole lines only: the process may be killed at any time.
        let _ = std::io::stdout().lock().write_all((text + "\n").as_bytes());
    }
}

fn object(run: &Container) -> Object {
    run.object(Oid::new(ObjectClass::SX, 7))
}

/// The value of each key; 0: never written.
pub fn read(run: &Container, view: &View) -> Result<Vec<u64>, ClientError> {
    let extents = [Extent { index: 0, count: BYTES as u64 }];
    let keys: Vec<[u8; 8]> = (0..KEYS).map(u64::to_be_bytes).collect();
    let mut data = vec![0xee; BYTES * KEYS as usize];
    let parts = keys.iter().zip(data.chunks_mut(BYTES));
    let mut entries: Vec<EntryFetch<'_>> =
        parts.map(|(key, out)| EntryFetch::array(key, b"data", 1, &extents, out)).collect();
    object(run).fetch(view, &mut entries)?;
    drop(entries);
    let value = |bytes: &[u8]| {
        let (words, _) = bytes.as_chunks::<8>();
        let first = words.first().copied().unwrap_or_default();
        // A value that is not the same all over is none that anybody wrote.
        if words.iter().all(|word| *word == first) { u64::from_le_bytes(first) } else { u64::MAX }
    };
    Ok(data.chunks(BYTES).map(value).collect())
}

#[derive(clap::Args)]
pub struct Writer {
    #[arg(long)]
    home: String,
    #[arg(long)]
    server: u32,
    #[arg(long)]
    writer: u32,
    #[arg(long)]
    life: u32,
}

impl Writer {
    /// Commits until it is killed.
    pub fn run(&self) -> Result<(), String> {
        let caller = Caller::new(&self.home, self.server)?;
        let run = caller.container();
        for round in 0.. {
            let mark = mark(self.writer, self.life, round);
            let Ok(epoch) = caller.call("begin", || run.begin(true), |_, _| {}) else { continue };
            let mut is_whole = true;
            for (key, value) in writes(&mark) {
                let data = value.to_le_bytes().repeat(BYTES / 8);
                let extents = [Extent { index: 0, count: BYTES as u64 }];
                let entry = EntryUpdate {
                    dkey: &key.to_be_bytes(),
                    akey: b"data",
                    kind: KIND,
                    condition: Condition::None,
                    extents: &extents,
                    data: &data,
                };
                let update = || object(&run).update(&Write::Inside(&epoch), &[entry]);
                is_whole &= caller.call("update", update, |(), _| {}).is_ok();
            }
            if !is_whole {
                let _ = caller.call("abort", || epoch.abort("an update failed"), |(), _| {});
                continue;
            }
            let commit = || epoch.commit(&epoch.summary(), mark.as_bytes(), false).committed;
            let committed = caller.call("commit", commit, |done, line| {
                (line.step, line.mark) = (done.step.0, mark.clone());
            });
            if let Err(kind) = committed
                && kind != ErrorKind::Aborted
            {
                let _ = caller.call("abort", || epoch.abort("its commit has no answer"), |(), _| {});
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

#[derive(clap::Args)]
pub struct Follower {
    #[arg(long)]
    home: String,
    #[arg(long)]
    server: u32,
}

impl Follower {
    /// Follows until it is killed.
    pub fn run(&self) -> Result<(), String> {
        let caller = Caller::new(&self.home, self.server)?;
        let run = caller.container();
        let subscribed = || run.subscribe(Step(0));
        let mut steps = loop {
            if let Ok(steps) = caller.call("subscribe", subscribed, |_, _| {}) {
                break steps;
            }
        };
        loop {
            let waited = caller.call(
                "wait",
                || steps.wait(1_000),
                |waited, line| {
                    if let WaitOutcome::Steps { steps, .. } = waited {
                        line.told = steps.iter().map(|step| step.step.0).collect();
                    }
                },
            );
            let Ok(WaitOutcome::Steps { steps: told, .. }) = waited else { continue };
            for step in told {
                let open = || run.snapshot(SnapshotAt::Step(step.step));
                let Ok(snapshot) = caller.call("open", open, |_, _| {}) else { continue };
                let _ = caller.call(
                    "look",
                    || read(&run, &snapshot.view()),
                    |values, line| {
                        (line.step, line.values) = (step.step.0, values.clone());
                    },
                );
            }
        }
    }
}

/// A client that says nothing, for who compares.
pub fn quiet(home: &str, server: u32) -> Result<(Client, Container), String> {
    let caller = Caller::new(home, server)?;
    let begun = Instant::now();
    loop {
        let opened = caller.client.open().and_then(|()| caller.client.container_open("run"));
        match opened {
            Ok(container) => return Ok((caller.client, container)),
            Err(error) if begun.elapsed() > Duration::from_secs(60) => {
                return Err(format!("server {server} serves nobody after a minute without faults: {error}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
