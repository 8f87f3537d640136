//! Real servers and the clients that lose them: what one client can do by itself, again and again, without another one's help.

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use data::{client, container, look};
use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, SECRET, SYSTEM, Server};
use talea_client::{Client, Container, SnapshotAt, Subscription, Tuning, WaitOutcome, Write};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Layout, ObjectClass, Oid, ServerId, Step, TargetId};

const LEASE: &str = r#","membership_lease_ms":1000"#;

/// So many servers, whose words somebody takes: who has lost another one says so until the pipe is full.
fn servers(count: u32) -> (tempfile::TempDir, Vec<Server>) {
    let (outer, mut all) = support::servers(count, LEASE);
    for server in &mut all {
        let mut words = server.child.stderr.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
    }
    (outer, all)
}

fn signal(server: &Server, signal: Signal) {
    kill_process(Pid::from_child(&server.child), signal).unwrap();
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An object that lies on one target alone.
fn object_on(client: &Client, target: TargetId) -> Oid {
    let map = client.map();
    let mut oids = std::iter::repeat_with(|| client.new_oid(ObjectClass::S1));
    oids.find(|oid| Layout::of(*oid, &map).unwrap().targets() == [target]).unwrap()
}

#[test]
fn a_client_of_one_target_finds_it_again_when_its_server_was_stopped_and_goes_on() {
    let (_outer, all) = servers(3);
    let (writer, other) = (client(&all[0], 5_000), client(&all[1], 20_000));
    let target = TargetId(4);
    let object = container(&writer).object(object_on(&writer, target));
    let write = || data::fill(&object, &Write::Auto, 1, 1);
    write().unwrap();
    signal(&all[2], Signal::STOP);
    until("it is not missed", || !other.status().unwrap().map.is_up(target));
    // It has to meet this: who never asks while the target is down knows nothing to be mistaken about.
    until("it does not hear of it", || write().is_err() && !writer.map().is_up(target));
    signal(&all[2], Signal::CONT);
    until("it does not come back", || other.status().unwrap().map.is_up(target));
    until("the client never asks again", || write().is_ok());
}

/// Steps that the follower is told of, one after the other, up to this one.
fn told(steps: &mut Subscription, last: Step) {
    let begun = Instant::now();
    while steps.position() < last {
        assert!(begun.elapsed() < PATIENCE, "told up to {} of {last}", steps.position());
        let before = steps.position();
        match steps.wait(10_000).unwrap() {
            WaitOutcome::Steps { steps, .. } => assert_eq!(steps[0].step, Step(before.0 + 1), "a gap or a repeat"),
            WaitOutcome::NotReady => {}
            other => panic!("{other:?}"),
        }
    }
}

fn step(run: &Container, oid: Oid, value: u8) -> Step {
    let epoch = run.begin(true).unwrap();
    data::fill(&run.object(oid), &Write::Inside(&epoch), 1, value).unwrap();
    epoch.commit(&epoch.summary(), b"", false).committed.unwrap().step
}

#[test]
fn the_leaders_own_clients_go_on_when_it_is_killed_for_good() {
    let (_outer, mut all) = servers(3);
    let clients = [(); 2].map(|()| client(&all[0], 20_000));
    let [writer, reader] = &clients;
    let sessions = clients.each_ref().map(Client::session);
    let run = container(writer);
    // Its data lie on a server that stays.
    let oid = object_on(writer, TargetId(2));
    let first = step(&run, oid, 1);
    let seen = reader.container_open("run").unwrap();
    let mut steps = seen.subscribe(Step(0)).unwrap();
    let snapshot = seen.snapshot(SnapshotAt::Step(first)).unwrap();
    let epoch = run.begin(true).unwrap();
    data::fill(&run.object(oid), &Write::Inside(&epoch), 1, 2).unwrap();
    all[0].child.kill().unwrap();
    all[0].child.wait().unwrap();
    // The epoch was open, and is whole: it commits where its session lives now.
    let outcome = epoch.commit(&epoch.summary(), b"", true);
    assert_eq!(outcome.committed.unwrap().step, Step(2));
    let next = outcome.next.unwrap();
    data::fill(&run.object(oid), &Write::Inside(&next), 1, 3).unwrap();
    assert_eq!(next.commit(&next.summary(), b"", false).committed.unwrap().step, Step(3));
    assert_eq!(step(&run, oid, 4), Step(4));
    told(&mut steps, Step(4));
    // Longer than the sessions of a lost server last: these live elsewhere, and hold what they held.
    std::thread::sleep(Duration::from_millis(7_000));
    assert_eq!(look(&seen.object(oid), &snapshot.view(), 1), Ok(1));
    let status = writer.status().unwrap();
    assert_eq!(clients.each_ref().map(Client::session), sessions);
    for session in sessions {
        let info = status.sessions.iter().find(|info| info.session == session).unwrap();
        assert_ne!(info.home, ServerId(0));
    }
    assert_eq!((status.containers[0].leases, status.containers[0].subscriptions), (1, 1));
    assert_eq!(step(&run, oid, 5), Step(5));
    told(&mut steps, Step(5));
}

#[test]
fn clients_leave_a_home_that_hangs_and_it_does_not_disturb_them_when_it_goes_on() {
    let (_outer, all) = servers(3);
    // Server 0 leads, unless the machine was very busy; server 1 only has clients.
    for stopped in [1, 0] {
        let (away, writer) = (client(&all[stopped], 20_000), client(&all[2], 20_000));
        let run = container(&writer);
        let oid = object_on(&writer, TargetId(4));
        let seen = away.container_open("run").unwrap();
        let mut steps = seen.subscribe(Step(0)).unwrap();
        let last = step(&run, oid, 1);
        told(&mut steps, last);
        signal(&all[stopped], Signal::STOP);
        // It waits at a server that says nothing any more.
        let last = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(1_000));
                step(&run, oid, 2)
            });
            let expected = Step(last.0 + 1);
            told(&mut steps, expected);
            writer.join().unwrap()
        });
        // Who comes new finds another one.
        let new = unopened(&all, stopped);
        new.open().unwrap();
        assert_eq!(new.status().unwrap().containers[0].step, last);
        signal(&all[stopped], Signal::CONT);
        let target = TargetId(stopped as u32 * 2);
        until("it does not come back", || writer.status().unwrap().map.is_up(target));
        std::thread::sleep(Duration::from_millis(1_000));
        let last = step(&run, oid, 3);
        told(&mut steps, last);
        assert_eq!(step(&seen, oid, 4), Step(last.0 + 1), "who left it commits, too");
        told(&mut steps, Step(last.0 + 1));
    }
}

/// A client that knows all servers and tries this one first.
fn unopened(all: &[Server], first: usize) -> Client {
    let endpoint = client_endpoint(&Credentials::new(SYSTEM, SECRET), Policy::Auto, Spin::Never).unwrap();
    let homes: Vec<_> = (0..).map(ServerId).zip(all.iter().map(|server| server.control[0].parse().unwrap())).collect();
    let others = homes.iter().filter(|(server, _)| server.0 as usize != first).cloned().collect();
    let (home, address) = homes[first].clone();
    let tuning = Tuning { name: "new".to_owned(), deadline_ms: 20_000, home, others, ..Tuning::default() };
    Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), address, 7, tuning)
}

#[test]
fn without_a_majority_the_servers_that_are_left_say_so_in_time() {
    let (_outer, mut all) = servers(3);
    let client = client(&all[0], 20_000);
    container(&client);
    for server in &mut all[1..] {
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    }
    // They are nobody's leader before their lease is over.
    until("there is still a leader", || {
        unopened(&all, 1).status_of_anybody().is_ok_and(|status| status.unled.is_some())
    });
    let status = unopened(&all, 1).status_of_anybody().unwrap();
    let why = status.unled.unwrap();
    assert!(why.contains("no majority") && why.contains("misses 1, 2"), "{why}");
    assert_eq!(status.containers.len(), 1, "what it knew is told");
    let refused = unopened(&all, 1).with_deadline_ms(3_000).open().unwrap_err();
    assert!(refused.to_string().contains("no majority"), "{refused}");
}
