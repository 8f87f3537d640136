//! A whole durable system that ends, and starts again on the same directories: whole, and with a server missing.

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use data::{CHUNK, client, fill, look};
use support::{Options, PATIENCE, Server};
use talea_client::{
    Client, Container, ContainerProperties, EntryFetch, ErrorKind, Object, Result, SnapshotAt, WaitOutcome, Write,
};
use talea_model::{Extent, Layout, ObjectClass, Oid, PoolMap, ServerId, Step, View};

const SERVERS: u32 = 3;
const CHUNKS: u64 = 12;
const STEPS: u64 = 5;
/// The named snapshot shows this step.
const NAMED: u64 = 3;

/// Servers on directories that outlive them.
struct System {
    outer: tempfile::TempDir,
    servers: Vec<Option<Server>>,
    /// Where server 0 was last.
    leader: Vec<String>,
}

impl System {
    fn new() -> Self {
        let outer = tempfile::tempdir_in("/dev/shm").unwrap();
        (0..SERVERS).for_each(|server| std::fs::create_dir(Self::data(&outer, server)).unwrap());
        System { outer, servers: (0..SERVERS).map(|_| None).collect(), leader: vec![] }
    }

    fn data(outer: &tempfile::TempDir, server: u32) -> PathBuf {
        outer.path().join(format!("data-{server}"))
    }

    /// Starts these, and waits until each is part of the pool.
    fn start(&mut self, which: &[u32]) {
        for server in which {
            let tier = format!("pmem:{}:64M", Self::data(&self.outer, *server).display());
            let leader = self.leader.clone();
            let more = r#","membership_lease_ms":1000"#;
            let options = Options { server: *server, servers: SERVERS, leader: &leader, more, tier: &tier };
            let started = Server::start(&self.outer.path().join("s"), &options);
            if *server == 0 {
                self.leader = started.control.clone();
            }
            self.servers[*server as usize] = Some(started);
        }
        which.iter().for_each(|server| self.server_mut(*server).wait_ready());
    }

    fn server_mut(&mut self, server: u32) -> &mut Server {
        self.servers[server as usize].as_mut().unwrap()
    }

    fn client(&self, server: u32) -> Client {
        client(self.servers[server as usize].as_ref().unwrap(), 20_000)
    }

    /// `kill -9` of all at once: none sees another's end before its own.
    fn kill(&mut self) {
        self.servers.iter_mut().flatten().for_each(|server| server.child.kill().unwrap());
        self.servers.iter_mut().for_each(|server| drop(server.take()));
    }

    fn terminate(&mut self) {
        self.servers.iter().flatten().for_each(Server::terminate);
        for server in &mut self.servers {
            assert_eq!(server.take().unwrap().wait_end(), Some(0));
        }
    }
}

/// What was written, by name.
struct Written {
    run: Oid,
    other: Oid,
    /// Steps of `other`.
    others: u64,
}

/// What step `step` left in the container's object.
fn value(name: &str, step: u64) -> u8 {
    step as u8 + if name == "run" { 0 } else { 100 }
}

fn commit(run: &Container, oid: Oid, step: u64) -> Result<()> {
    let epoch = run.begin(true)?;
    fill(&run.object(oid), &Write::Inside(&epoch), CHUNKS, value(run.name(), step))?;
    let committed = epoch.commit(&epoch.summary(), format!("step {step}").as_bytes(), false).committed?;
    assert_eq!(committed.step, Step(step));
    Ok(())
}

fn write(client: &Client) -> Written {
    let kept = ContainerProperties { kept_steps: 100, ..ContainerProperties::default() };
    let mut containers = ["run", "other"].map(|name| client.container_create(name, kept.clone(), false).unwrap());
    let written = Written { run: client.new_oid(ObjectClass::SX), other: client.new_oid(ObjectClass::SX), others: 2 };
    let [run, other] = &mut containers;
    (1..=STEPS).for_each(|step| commit(run, written.run, step).unwrap());
    (1..=written.others).for_each(|step| commit(other, written.other, step).unwrap());
    run.snapshot_name("kept", SnapshotAt::Step(Step(NAMED))).unwrap();
    written
}

/// Every byte of every step, the named snapshot, and the steps as a follower gets them.
fn is_whole(client: &Client, written: &Written) {
    let map = client.status().unwrap().map;
    assert!(map.targets.iter().all(|target| map.is_up(target.id)), "{:?}", map.targets);
    let names: Vec<String> = client.container_list().unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["run", "other"]);
    for (name, oid, steps) in [("run", written.run, STEPS), ("other", written.other, written.others)] {
        let container = client.container_open(name).unwrap();
        let object = container.object(oid);
        assert_eq!(look(&object, &View::Latest, CHUNKS), Ok(value(name, steps)));
        for step in 1..=steps {
            let snapshot = container.snapshot(SnapshotAt::Step(Step(step))).unwrap();
            assert_eq!(look(&object, &snapshot.view(), CHUNKS), Ok(value(name, step)), "step {step} of {name}");
        }
        let mut follower = container.subscribe(Step(0)).unwrap();
        let mut told = Vec::new();
        while told.len() < steps as usize {
            let WaitOutcome::Steps { steps, .. } = follower.wait(5_000).unwrap() else { panic!("after {told:?}") };
            told.extend(steps.into_iter().map(|step| (step.step.0, step.attributes)));
        }
        let expected: Vec<_> = (1..=steps).map(|step| (step, format!("step {step}").into_bytes())).collect();
        assert_eq!(told, expected);
    }
    let run = client.container_open("run").unwrap();
    let named = run.snapshot(SnapshotAt::Named("kept".into())).unwrap();
    assert_eq!((named.step(), look(&run.object(written.run), &named.view(), CHUNKS)), (Step(NAMED), Ok(NAMED as u8)));
}

fn servers_of(map: &PoolMap, oid: Oid) -> BTreeSet<ServerId> {
    let layout = Layout::of(oid, map).unwrap();
    layout.targets().iter().map(|target| map.target(*target).unwrap().server).collect()
}

fn fetch(object: &Object, view: &View, chunk: u64) -> Result<Vec<u8>> {
    let (extents, mut data) = ([Extent::new(0, CHUNK as u64).unwrap()], vec![0xee; CHUNK]);
    object.fetch(view, &mut [EntryFetch::array(&chunk.to_be_bytes(), b"data", 1, &extents, &mut data)])?;
    Ok(data)
}

/// What is on the missing server is refused by its name, all else is there, and the system goes on without it.
fn is_degraded(client: &Client, written: &Written, missing: ServerId) {
    let begun = Instant::now();
    let map = loop {
        let map = client.status().unwrap().map;
        let down: BTreeSet<ServerId> =
            map.targets.iter().filter(|target| !map.is_up(target.id)).map(|target| target.server).collect();
        if down == [missing].into() {
            break map;
        }
        assert!(begun.elapsed() < PATIENCE && down.is_empty(), "{down:?} are down, {missing} is missing");
        std::thread::sleep(Duration::from_millis(20));
    };
    let run = client.container_open("run").unwrap();
    let (object, layout) = (run.object(written.run), Layout::of(written.run, &map).unwrap());
    let (mut there, mut gone) = (0, 0);
    for view in [View::Latest, run.snapshot(SnapshotAt::Named("kept".into())).unwrap().view()] {
        let expected = if view == View::Latest { STEPS as u8 } else { NAMED as u8 };
        for chunk in 0..CHUNKS {
            let on = map.target(layout.leader_of(&chunk.to_be_bytes())).unwrap().server;
            match fetch(&object, &view, chunk) {
                Ok(data) => {
                    assert!(on != missing && data.iter().all(|byte| *byte == expected), "chunk {chunk} of {on}");
                    there += 1;
                }
                Err(error) => {
                    assert_eq!((on, error.kind()), (missing, ErrorKind::ServerLost), "chunk {chunk}: {error}");
                    assert!(error.to_string().contains(&format!("server {missing}")), "{error}");
                    gone += 1;
                }
            }
        }
    }
    assert!(there > 0 && gone > 0, "{there} chunks were read, {gone} are on the missing server");
    // A new container, on what is there.
    let (name, class) = (format!("without-{missing}"), ObjectClass::S1);
    let more = client.container_create(&name, ContainerProperties::default(), false).unwrap();
    let here = std::iter::repeat_with(|| client.new_oid(class)).find(|oid| !servers_of(&map, *oid).contains(&missing));
    commit(&more, here.unwrap(), 1).unwrap();
    assert_eq!(look(&more.object(here.unwrap()), &View::Latest, CHUNKS), Ok(value(&name, 1)));
    client.container_destroy(more.id()).unwrap();
}

fn all_up(client: &Client) {
    let begun = Instant::now();
    while client.status().map(|status| status.map.targets.iter().all(|target| status.map.is_up(target.id))).ok()
        != Some(true)
    {
        assert!(begun.elapsed() < PATIENCE, "the server that came back is not taken in");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_system_that_ended_however_comes_back_with_everything() {
    let mut system = System::new();
    system.start(&[0, 1, 2]);
    let written = write(&system.client(1));
    system.kill();
    system.start(&[0, 1, 2]);
    is_whole(&system.client(2), &written);
    system.terminate();
    system.start(&[2, 0, 1]);
    is_whole(&system.client(1), &written);
}

#[test]
fn a_system_that_misses_a_server_says_so_and_is_whole_when_that_is_back() {
    let mut system = System::new();
    system.start(&[0, 1, 2]);
    let written = write(&system.client(0));
    for missing in [1, 0] {
        system.kill();
        let others: Vec<u32> = (0..SERVERS).filter(|server| *server != missing).collect();
        system.start(&others);
        is_degraded(&system.client(2), &written, ServerId(missing));
        system.start(&[missing]);
        let client = system.client(missing);
        all_up(&client);
        is_whole(&client, &written);
        is_whole(&system.client(2), &written);
    }
}
