//! What dead and evicted clients leave: nothing (docs/design.md §4 rule 12). Counted on real servers and in their processes.

#[path = "support/data.rs"]
mod data;
#[path = "support/held.rs"]
mod held;
#[path = "support/server.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use data::{client, container, fill, look, unopened_at};
use held::{Held, comes_back_to, held, held_at_rest, until};
use support::{SECRET, Server, two_servers};
use talea_client::{
    Client, ClientError, Epoch, ErrorKind, ProducerState, Snapshot, SnapshotAt, Subscription, Transaction, Write,
};
use talea_model::{ObjectClass, Oid, Stamp, Step, TargetId, View};

const TARGETS: u32 = 4;
const OBJECT: Oid = Oid::new(ObjectClass::SX, 77);
/// Bytes that each victim writes and never commits: 64 chunks on all targets.
const CHUNKS: u64 = 64;
const CONTROL: &str = "TALEA_TEST_CONTROL";

/// Bytes in use, without those that are on their way back.
fn used(looker: &Client) -> u64 {
    let map = looker.map();
    let up = (0..TARGETS).map(TargetId).filter(|target| map.is_up(*target));
    up.map(|target| looker.target_stat(target).unwrap()).map(|stat| stat.used_bytes - stat.returning_bytes).sum()
}

/// Takes one of everything, and lets nothing go.
fn take_everything(client: &Client) -> (Subscription, Snapshot, Epoch, Transaction) {
    let run = client.container_open("run").unwrap();
    let subscription = run.subscribe(Step(0)).unwrap();
    let snapshot = run.snapshot(SnapshotAt::Step(Step(1))).unwrap();
    assert_eq!(look(&run.object(OBJECT), &snapshot.view(), CHUNKS), Ok(1));
    let epoch = run.begin(true).unwrap();
    fill(&run.object(OBJECT), &Write::Inside(&epoch), CHUNKS, 9).unwrap();
    let transaction = run.tx_open().unwrap();
    fill(&run.object(OBJECT), &transaction.write(), CHUNKS, 8).unwrap();
    run.producer(ProducerState::Active).unwrap();
    (subscription, snapshot, epoch, transaction)
}

/// A process of its own, which is killed.
#[test]
#[ignore = "a part of the test below"]
fn victim() {
    let client = unopened_at(&std::env::var(CONTROL).unwrap(), SECRET, 20_000);
    client.open().unwrap();
    let _all = take_everything(&client);
    println!("\ntaken");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn spawn_victim(home: &Server) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(CONTROL, &home.control[0])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "taken"), "the victim ended early");
    child
}

fn first_step(client: &Client) {
    let run = container(client);
    let epoch = run.begin(true).unwrap();
    fill(&run.object(OBJECT), &Write::Inside(&epoch), CHUNKS, 1).unwrap();
    epoch.commit(&epoch.summary(), b"", false).committed.unwrap();
}

#[test]
fn killed_clients_leave_nothing() {
    let (_outer, first, second) = two_servers("");
    let servers = [&first, &second];
    let looker = client(&first, 20_000);
    first_step(&looker);
    // The first one finds everything new.
    let kill = |mut child: Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let before = held_at_rest(&looker, &servers);
    kill(spawn_victim(&second));
    comes_back_to("after one", &looker, &servers, &before);
    let used_before = used(&looker);
    const VICTIMS: usize = 6;
    let victims: Vec<Child> = (0..VICTIMS).map(|number| spawn_victim(servers[number % 2])).collect();
    let during = held(&looker, &servers).unwrap();
    println!("{before:?}\n{during:?} while {VICTIMS} are there");
    let each = |before: u64, during: u64| (during - before) / VICTIMS as u64;
    assert_eq!(during.sessions, before.sessions + VICTIMS);
    assert_eq!(during.transactions, before.transactions + 2 * VICTIMS);
    assert_eq!((each(before.leases, during.leases), each(before.subscriptions, during.subscriptions)), (1, 1));
    assert!(each(before.versions, during.versions) >= 2 * CHUNKS && during.pending_updates > 0);
    assert_eq!(each(before.peers, during.peers), u64::from(TARGETS));
    assert!(during.descriptors > before.descriptors && during.mappings > before.mappings);
    victims.into_iter().for_each(kill);
    comes_back_to("after six", &looker, &servers, &before);
    until("their space", || {
        let now = used(&looker);
        // What the log's segments take besides is no part of it.
        if now <= used_before + (1 << 16) { Ok(()) } else { Err(format!("{now} bytes instead of {used_before}")) }
    });
    let run = looker.container_open("run").unwrap();
    assert_eq!(run.query().unwrap().info.producer, ProducerState::Lost, "it had said that it produces");
    assert_eq!(look(&run.object(OBJECT), &View::Latest, CHUNKS), Ok(1), "nothing of theirs is seen");
}

#[test]
fn a_client_that_is_evicted_leaves_nothing_though_it_lives() {
    let (_outer, first, second) = two_servers("");
    let servers = [&first, &second];
    let looker = client(&first, 20_000);
    first_step(&looker);
    let before = held_at_rest(&looker, &servers);
    // One that lives where the log's leader is, and one that does not.
    for home in servers {
        let evicted = client(home, 3_000);
        let session = evicted.session();
        let everything = take_everything(&evicted);
        let status = looker.status().unwrap();
        let told = status.sessions.iter().find(|info| info.session == session).unwrap();
        assert_eq!((told.name.as_str(), told.process.unwrap().pid), ("test", std::process::id()));
        assert!(told.since > Stamp::ZERO);
        looker.evict(session).unwrap();
        assert_eq!(looker.evict(session).unwrap_err().kind(), ErrorKind::NotFound, "there is no such session any more");
        until("what it held", || {
            let now = held(&looker, &servers).unwrap();
            // Its rings go with its process: it has not let go of them.
            let now = Held { descriptors: before.descriptors, mappings: before.mappings, ..now };
            if now == before { Ok(()) } else { Err(format!("{now:?}\ninstead of {before:?}")) }
        });
        // It is told so, and nothing that it did counts.
        let (_, _, epoch, _) = &everything;
        let refused = epoch.commit(&epoch.summary(), b"", false).committed.map(drop).unwrap_err();
        assert!(refused.kind() == ErrorKind::Aborted || matches!(refused, ClientError::Uncertain { .. }), "{refused}");
        assert_eq!(looker.container_open("run").unwrap().query().unwrap().info.step, Step(1));
    }
}
