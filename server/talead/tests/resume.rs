//! A server is killed under its clients and comes back on its media: who is alive goes on, with the epochs that it wrote in; who is dead
//! leaves nothing (docs/design.md §4 rules 3, 12 and 14).

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data::{client, container, fill, look, unopened_at};
use support::{Options, PATIENCE, SECRET, Server};
use talea_client::{Client, ErrorKind, SnapshotAt, WaitOutcome, Write};
use talea_model::{ObjectClass, Oid, Step};

/// Sessions last five times as long without a connection.
const LEASES: &str = r#","membership_lease_ms":300"#;
const SESSION_LEASE: Duration = Duration::from_millis(1_500);
const CHUNKS: u64 = 8;
const OBJECT: Oid = Oid::new(ObjectClass::SX, 77);

/// Servers on directories that outlive them.
struct System {
    outer: tempfile::TempDir,
    servers: Vec<Server>,
}

impl System {
    fn of(count: u32) -> Self {
        let outer = tempfile::Builder::new().prefix("talea-sess").tempdir_in("/dev/shm").unwrap();
        let mut system = System { outer, servers: vec![] };
        for server in 0..count {
            std::fs::create_dir(system.outer.path().join(format!("data-{server}"))).unwrap();
            let started = system.start(server, count);
            system.servers.push(started);
        }
        system.servers.iter_mut().for_each(Server::wait_ready);
        system
    }

    fn start(&self, server: u32, servers: u32) -> Server {
        let tier = format!("pmem:{}:64M", self.outer.path().join(format!("data-{server}")).display());
        let leader = self.servers.first().map(|first| first.control.clone()).unwrap_or_default();
        let options = Options { server, servers, leader: &leader, more: LEASES, tier: &tier };
        Server::start(&self.outer.path().join("s"), &options)
    }

    fn kill(&mut self, server: u32) {
        let server = &mut self.servers[server as usize];
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    }

    fn restart(&mut self, server: u32) {
        let started = self.start(server, self.servers.len() as u32);
        self.servers[server as usize] = started;
        self.servers[server as usize].wait_ready();
    }

    fn client(&self, server: u32) -> Client {
        client(&self.servers[server as usize], 20_000)
    }
}

/// All systems and homes: alone; with the only replica of the log, or without; one replica of three.
const PLACES: [(u32, u32); 4] = [(1, 0), (2, 0), (2, 1), (3, 1)];

#[test]
fn a_writer_whose_server_is_killed_finishes_its_epoch() {
    for (servers, home) in PLACES {
        let mut system = System::of(servers);
        let client = system.client(home);
        let run = container(&client);
        let mut follower = run.subscribe(Step(0)).unwrap();
        let session = client.session();
        let epoch = run.begin(true).unwrap();
        let object = run.object(OBJECT);
        fill(&object, &Write::Inside(&epoch), CHUNKS / 2, 7).unwrap();
        system.kill(home);
        system.restart(home);
        fill(&object, &Write::Inside(&epoch), CHUNKS, 7).unwrap();
        let committed = epoch.commit(&epoch.summary(), b"over a restart", false).committed.unwrap();
        assert_eq!((committed.step, client.session()), (Step(1), session), "{servers} servers, home {home}");
        let snapshot = run.snapshot(SnapshotAt::Step(Step(1))).unwrap();
        assert_eq!(look(&object, &snapshot.view(), CHUNKS), Ok(7));
        let told = follower.wait(5_000).unwrap();
        assert!(matches!(&told, WaitOutcome::Steps { steps, .. } if steps.len() == 1), "{told:?}");
    }
}

#[test]
fn a_call_that_is_under_way_when_its_server_is_killed_is_done_once() {
    let mut system = System::of(1);
    let client = system.client(0);
    let run = container(&client);
    for round in 0..6_u8 {
        let epoch = run.begin(true).unwrap();
        fill(&run.object(OBJECT), &Write::Inside(&epoch), CHUNKS, round + 1).unwrap();
        let committed = std::thread::scope(|scope| {
            let call = scope.spawn(|| epoch.commit(&epoch.summary(), &[], false).committed);
            // Before it came, while it was logged, and when it was answered.
            std::thread::sleep(Duration::from_micros(400 * u64::from(round)));
            system.kill(0);
            system.restart(0);
            call.join().unwrap()
        });
        assert_eq!(committed.unwrap().step, Step(u64::from(round) + 1));
    }
    assert_eq!(run.query().unwrap().info.step, Step(6));
}

/// What [`writer`] is told.
const CONTROL: &str = "TALEA_TEST_CONTROL";
const BLOB: &str = "TALEA_TEST_BLOB";

/// A process of its own: writes in an epoch that another one began, and then does nothing at all.
#[test]
#[ignore = "a part of the tests below"]
fn writer() {
    let (control, blob) = (std::env::var(CONTROL).unwrap(), std::env::var(BLOB).unwrap());
    let blob: Vec<u8> =
        (0..blob.len() / 2).map(|at| u8::from_str_radix(&blob[2 * at..2 * at + 2], 16).unwrap()).collect();
    let client = unopened_at(&control, SECRET, 20_000);
    let run = client.container_open("run").unwrap();
    let epoch = run.join(&blob).unwrap();
    fill(&run.object(OBJECT), &Write::Inside(&epoch), 1, 9).unwrap();
    println!("\nwritten");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn spawn_writer(home: &Server, blob: &[u8]) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .env(CONTROL, &home.control[0])
        .env(BLOB, support::hex(blob))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "written"), "the writer ended early");
    child
}

#[test]
fn who_writes_in_what_outlives_the_server() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Lives,
        DiesMeanwhile,
        DiesLater,
    }
    for (servers, home) in PLACES {
        for end in [End::Lives, End::DiesMeanwhile, End::DiesLater] {
            let mut system = System::of(servers);
            // The owner's own home stays where that can be.
            let owner = system.client(if servers > 1 { (home + 1) % servers } else { home });
            let run = container(&owner);
            let epoch = run.begin(true).unwrap();
            let untouched = run.begin(true).unwrap();
            let mut writer = spawn_writer(&system.servers[home as usize], &epoch.blob());
            system.kill(home);
            let mut kill = || {
                writer.kill().unwrap();
                writer.wait().unwrap();
            };
            if end == End::DiesMeanwhile {
                kill();
            }
            system.restart(home);
            // A writer that computes asks for nothing, for longer than any lease.
            std::thread::sleep(2 * SESSION_LEASE);
            if end == End::DiesLater {
                kill();
            }
            let is_open = |tx| owner.status().unwrap().transactions.iter().any(|(open, ..)| *open == tx);
            let start = Instant::now();
            while end != End::Lives && is_open(epoch.tx()) {
                assert!(start.elapsed() < PATIENCE, "{servers} servers, home {home}: a dead writer's epoch stays open");
                std::thread::sleep(Duration::from_millis(10));
            }
            fill(&run.object(OBJECT), &Write::Inside(&untouched), CHUNKS, 3).unwrap();
            untouched.commit(&untouched.summary(), &[], false).committed.unwrap();
            let mut summary = epoch.summary();
            (0..2 * servers).for_each(|target| summary.touched.insert(talea_model::TargetId(target)));
            summary.map_version = owner.map().version;
            let committed = epoch.commit(&summary, &[], false).committed;
            match end {
                End::Lives => assert_eq!(committed.unwrap().step, Step(2), "{servers} servers, home {home}"),
                _ => assert_eq!(committed.unwrap_err().kind(), ErrorKind::Aborted, "{servers} servers, home {home}"),
            }
            if end == End::Lives {
                kill();
            }
        }
    }
}
