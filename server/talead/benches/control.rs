//! Figures of the control plane with real servers: commits, waking subscribers, failover. One record a figure on standard output, as
//! `tools/bench` gathers them; floors are measured in the same run.
#![allow(missing_docs)]

#[path = "../tests/support/data.rs"]
mod data;
#[path = "../tests/support/server.rs"]
mod support;

use std::future::Future;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use data::client;
use serde_json::json;
use support::{ALONE, Options, PATIENCE, Server, servers};
use talea_client::{
    Client, Condition, Container, ContainerProperties, EntryUpdate, Epoch, Result, Subscription, WaitOutcome, Write,
};
use talea_model::{Extent, ObjectClass, Oid, Step};

const DEADLINE_MS: u64 = 10_000;
const COMMITS: usize = 300;
/// The membership lease of a server that is told nothing else, and the part of it after which followers elect another leader.
const LEASE_MS: f64 = 2_000.0;
const ELECTION_PART: f64 = (0.20 + 0.35) / 2.0;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let floor = two_ping_pongs();
    for count in [1, 3, 5] {
        let (_outer, servers) = servers(count, "");
        let writer = client(&servers[0], DEADLINE_MS);
        tell(&format!("control/{count}-servers/commit"), median(latencies(&writer)), "us", Some((floor, FLOOR)));
        for containers in [1, 100] {
            let name = format!("control/{count}-servers/commits-{containers}-containers");
            tell(&name, commits_per_s(&writer, containers), "1/s", None);
        }
        if count == 3 {
            for subscribers in [1, 1000] {
                let (middle, last) = wake_ups(&writer, &client(&servers[1], DEADLINE_MS), subscribers);
                tell(&format!("control/wake-up/{subscribers}-subscribers-median"), middle, "us", Some((floor, FLOOR)));
                tell(&format!("control/wake-up/{subscribers}-subscribers-last"), last, "us", Some((floor, FLOOR)));
            }
        }
    }
    joins(floor / 2.0);
    let election = (LEASE_MS * ELECTION_PART, "the mean election timeout");
    tell("control/3-servers/failover", median((0..5).map(|_| failover()).collect()), "ms", Some(election));
}

fn tell(name: &str, value: f64, unit: &str, floor: Option<(f64, &str)>) {
    let (floor, floor_name) = floor.unzip();
    let ratio = floor.map(|floor| value / floor);
    println!(
        "{}",
        json!({ "name": name, "value": value, "unit": unit, "floor": floor, "floor_name": floor_name, "ratio": ratio })
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn us(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

const FLOOR: &str = "two ping-pongs on Unix sockets: client and leader, leader and replica";

/// The floor of a commit that a majority has to hear of, in microseconds.
fn two_ping_pongs() -> f64 {
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let echo = std::thread::spawn(move || {
        let mut message = [0; 200];
        while there.read_exact(&mut message).is_ok() && there.write_all(&message).is_ok() {}
    });
    let mut round = || {
        let (begun, mut message) = (Instant::now(), [1; 200]);
        here.write_all(&message).unwrap();
        here.read_exact(&mut message).unwrap();
        us(begun)
    };
    let rounds = (0..2_000).map(|_| round()).collect();
    drop(here);
    echo.join().unwrap();
    2.0 * median(rounds)
}

fn container(client: &Client, name: &str) -> Container {
    client.container_create(name, ContainerProperties::default(), true).unwrap()
}

/// One small write, so that the commit makes a step.
async fn write(run: &Container, epoch: &Epoch) -> Result<()> {
    let extents = [Extent::new(0, 4).unwrap()];
    let entry = EntryUpdate {
        dkey: b"key",
        akey: b"data",
        kind: data::KIND,
        condition: Condition::None,
        extents: &extents,
        data: b"data",
    };
    run.object(Oid::new(ObjectClass::S1, 1)).update_async(&Write::Inside(epoch), &[entry]).await
}

/// One after the other: the commit alone, which also begins the next epoch.
fn latencies(client: &Client) -> Vec<f64> {
    let run = container(client, "latency");
    let mut epoch = run.begin(true).unwrap();
    let mut one = || {
        client.block_on(write(&run, &epoch)).unwrap().unwrap();
        let begun = Instant::now();
        let outcome = epoch.commit(&epoch.summary(), b"", true);
        let took = us(begun);
        outcome.committed.unwrap();
        epoch = outcome.next.unwrap();
        took
    };
    (0..COMMITS).map(|_| one()).collect()
}

/// Every container has an epoch open, and commits it as often as it can: commits share entries of the log.
fn commits_per_s(client: &Client, containers: usize) -> f64 {
    let each = (COMMITS / containers).max(20);
    let all: Vec<Container> = (0..containers).map(|number| container(client, &format!("c{number}"))).collect();
    let begun = Instant::now();
    let work = all.iter().map(|run| async move {
        let mut epoch = run.begin_async(true).await?;
        for _ in 0..each {
            write(run, &epoch).await?;
            let outcome = epoch.commit_async(&epoch.summary(), b"", true).await;
            outcome.committed?;
            let Some(next) = outcome.next else { break };
            epoch = next;
        }
        epoch.abort_async("enough").await
    });
    let ended = client.block_on(gather(work.collect())).unwrap();
    assert!(ended.iter().all(Result::is_ok));
    (containers * each) as f64 / begun.elapsed().as_secs_f64()
}

/// What it costs a process to join an epoch before its first write: its home notes that durably, where its tiers are.
fn joins(ping_pong: f64) {
    let disk = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let places = [
        ("memory", "ram:64M".to_owned(), ping_pong),
        ("pmem-on-tmpfs", format!("pmem:{}:64M", memory.path().display()), ping_pong + flushes(memory.path())),
        ("nvme-on-a-file", format!("nvme:{}:64M", disk.path().display()), ping_pong + flushes(disk.path())),
    ];
    for (name, tier, floor) in places {
        let (_outer, path) = support::directory();
        let mut server = Server::start(&path, &Options { tier: &tier, ..ALONE });
        server.wait_ready();
        let (client, other) = (client(&server, DEADLINE_MS), client(&server, DEADLINE_MS));
        let run = container(&client, "join");
        let same = other.container_open("join").unwrap();
        // Who has begun it is known from the log.
        let join = || {
            let epoch = run.begin(true).unwrap();
            let part = same.join(&epoch.blob()).unwrap();
            let begun = Instant::now();
            part.enter().unwrap();
            let took = us(begun);
            epoch.abort("enough").unwrap();
            part.closed_elsewhere();
            took
        };
        let took = median((0..COMMITS).map(|_| join()).collect());
        let floor = (floor, "a ping-pong on a Unix socket, and write and sync of 4 KiB in the same directory");
        tell(&format!("control/join/{name}"), took, "us", Some(floor));
    }
}

/// Median of a write and sync of 4 KiB in a file of this directory, in microseconds.
fn flushes(directory: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(directory.join("floor")).unwrap();
    let mut one = || {
        let begun = Instant::now();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        us(begun)
    };
    median((0..COMMITS).map(|_| one()).collect())
}

/// From the call that commits to the wake-ups of so many subscribers at another server: the middle one's and the last one's.
fn wake_ups(writer: &Client, reader: &Client, subscribers: usize) -> (f64, f64) {
    let name = format!("wake-{subscribers}");
    let run = container(writer, &name);
    let seen = reader.container_open(&name).unwrap();
    let (ready, is_ready) = mpsc::channel();
    let (told, woken) = mpsc::channel();
    let reader = reader.clone();
    let waiter = std::thread::spawn(move || {
        let subscribed = (0..subscribers).map(|_| seen.subscribe_async(Step(0))).collect();
        let mut all: Vec<Subscription> =
            reader.block_on(gather(subscribed)).unwrap().into_iter().collect::<Result<_>>().unwrap();
        for _ in 0..ROUNDS {
            ready.send(()).unwrap();
            let waits = all.iter_mut().map(|one| async {
                let outcome = one.wait_async(DEADLINE_MS, 1).await.unwrap();
                assert!(matches!(outcome, WaitOutcome::Steps { .. }), "{outcome:?}");
                Instant::now()
            });
            told.send(reader.block_on(gather(waits.collect())).unwrap()).unwrap();
        }
    });
    let (mut middles, mut lasts) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        is_ready.recv().unwrap();
        // All of them wait at their server by then.
        std::thread::sleep(Duration::from_millis(300));
        let epoch = run.begin(true).unwrap();
        writer.block_on(write(&run, &epoch)).unwrap().unwrap();
        let begun = Instant::now();
        epoch.commit(&epoch.summary(), b"", false).committed.unwrap();
        let mut after: Vec<f64> =
            woken.recv().unwrap().into_iter().map(|at: Instant| (at - begun).as_secs_f64() * 1e6).collect();
        after.sort_by(f64::total_cmp);
        middles.push(after[after.len() / 2]);
        lasts.push(after[after.len() - 1]);
    }
    waiter.join().unwrap();
    (median(middles), median(lasts))
}

const ROUNDS: usize = 10;

/// From the death of the leader of three to the next commit of a client of another server, in milliseconds.
fn failover() -> f64 {
    let (_outer, mut servers) = servers(3, "");
    let writer = client(&servers[1], DEADLINE_MS);
    let run = container(&writer, "failover");
    let commit = || -> Result<()> {
        let epoch = run.begin(true)?;
        // On no target of the leader's: its data is gone with it.
        epoch.commit(&epoch.summary(), b"", false).committed.map(drop)
    };
    commit().unwrap();
    assert_eq!(writer.status().unwrap().leader.0, 0);
    servers[0].child.kill().unwrap();
    servers[0].child.wait().unwrap();
    let begun = Instant::now();
    while commit().is_err() {
        assert!(begun.elapsed() < PATIENCE, "no commit goes through any more");
    }
    begun.elapsed().as_secs_f64() * 1e3
}

/// All futures of one client, at once.
fn gather<F: Future>(futures: Vec<F>) -> impl Future<Output = Vec<F::Output>> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |context: &mut Context<'_>| {
        for (future, done) in futures.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(output) = pin!(future).poll(context) {
                *done = Some(output);
            }
        }
        match done.iter().all(Option::is_some) {
            true => Poll::Ready(done.drain(..).flatten().collect()),
            false => Poll::Pending,
        }
    })
}
