//! Two servers and real clients: what is written, committed, aborted and lost, through all layers.

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::time::{Duration, Instant};

use data::{KIND, client, container, fill, look};
use support::{ALONE, Options, Server, two_servers};
use talea_client::{Condition, EntryUpdate, ErrorKind, Object, SnapshotAt, WaitOutcome, Write};
use talea_model::{Extent, ObjectClass, Step, View};

#[test]
fn epochs_become_visible_whole_and_snapshots_never_change() {
    let (_outer, first, second) = two_servers("");
    let (writer, reader) = (client(&first, 20_000), client(&second, 20_000));
    let container = container(&writer);
    let object = container.object(writer.new_oid(ObjectClass::SX));
    let seen = reader.container_open("run").unwrap();
    let other = seen.object(object.oid());
    let mut steps = seen.subscribe(Step(0)).unwrap();
    let mut epoch = container.begin(true).unwrap();
    let mut kept = Vec::new();
    for value in 1..=5u8 {
        fill(&object, &Write::Inside(&epoch), 8, value).unwrap();
        assert_eq!(look(&object, &epoch.view(), 8), Ok(value), "readers inside see their own writes");
        assert_eq!(look(&other, &View::Latest, 8), Ok(value - 1), "nobody else sees any of it");
        let usage = seen.query().unwrap();
        assert!(usage.pending_updates >= 8 && usage.targets == 4 && usage.servers == 2, "{usage:?}");
        let outcome = epoch.commit(&epoch.summary(), b"", true);
        assert_eq!(outcome.committed.unwrap().step, Step(value as u64));
        epoch = outcome.next.unwrap();
        let WaitOutcome::Steps { steps, .. } = steps.wait(10_000).unwrap() else { panic!("no step") };
        assert_eq!(steps.last().map(|step| step.step), Some(Step(value as u64)));
        kept.push(seen.snapshot(SnapshotAt::Step(Step(value as u64))).unwrap());
        assert_eq!(look(&other, &View::Latest, 8), Ok(value));
        for (number, snapshot) in kept.iter().enumerate() {
            assert_eq!(look(&other, &snapshot.view(), 8), Ok(number as u8 + 1));
        }
    }
    // What is not committed goes with its writer.
    fill(&object, &Write::Inside(&epoch), 8, 99).unwrap();
    epoch.abort("the test says so").unwrap();
    let late = fill(&object, &Write::Inside(&epoch), 8, 98);
    assert!(late.is_err(), "a closed epoch takes no writes");
    assert_eq!(look(&other, &View::Latest, 8), Ok(5));
    assert_eq!(seen.query().unwrap().pending_updates, 0);
}

#[test]
fn a_planted_split_commit_is_seen() {
    let (_outer, first, _second) = two_servers(r#","plant":"split-commit""#);
    let client = client(&first, 20_000);
    let container = container(&client);
    let object = container.object(client.new_oid(ObjectClass::SX));
    let epoch = container.begin(true).unwrap();
    let before = container.snapshot(SnapshotAt::Latest).unwrap();
    fill(&object, &Write::Inside(&epoch), 8, 1).unwrap();
    assert!(look(&object, &before.view(), 8).is_err(), "the planted bug does not show");
}

#[test]
fn a_lost_server_is_named_within_the_deadline() {
    let (_outer, first, mut second) = two_servers(r#","membership_lease_ms":1000"#);
    let client = client(&first, 8_000);
    let container = container(&client);
    let object = container.object(client.new_oid(ObjectClass::SX));
    fill_each(&object, 1).unwrap();
    second.child.kill().unwrap();
    second.child.wait().unwrap();
    let start = Instant::now();
    let error = loop {
        match fill_each(&object, 2) {
            Ok(()) => assert!(start.elapsed() < Duration::from_secs(20), "nobody noticed"),
            Err(error) => break error,
        }
    };
    assert!(start.elapsed() < Duration::from_secs(12), "a call outlived its deadline");
    assert!(matches!(error.kind(), ErrorKind::ServerLost | ErrorKind::Deadline), "{error}");
    assert!(error.to_string().contains("server 1") || error.to_string().contains("target"), "{error}");
}

/// Autocommits cover one dkey each.
fn fill_each(object: &Object, value: u8) -> talea_client::Result<()> {
    let extents = [Extent::new(0, 100).unwrap()];
    let data = [value; 100];
    (0..8u64).try_for_each(|chunk| {
        let entry = EntryUpdate {
            dkey: &chunk.to_be_bytes(),
            akey: b"data",
            kind: KIND,
            condition: Condition::None,
            extents: &extents,
            data: &data,
        };
        object.update(&Write::Auto, &[entry])
    })
}

#[test]
fn a_durable_system_comes_back_after_a_kill_with_what_was_acknowledged() {
    let outer = tempfile::tempdir_in("/dev/shm").unwrap();
    let (path, data) = (outer.path().join("s"), outer.path().join("data"));
    std::fs::create_dir(&data).unwrap();
    let tier = format!("pmem:{}:64M", data.display());
    let options = Options { tier: &tier, ..ALONE };
    let mut server = Server::start(&path, &options);
    server.wait_ready();
    let writer = client(&server, 20_000);
    let run = container(&writer);
    let object = run.object(writer.new_oid(ObjectClass::SX));
    let oid = object.oid();
    let mut epoch = run.begin(true).unwrap();
    for value in 1..=3u8 {
        fill(&object, &Write::Inside(&epoch), 8, value).unwrap();
        let outcome = epoch.commit(&epoch.summary(), b"", true);
        outcome.committed.unwrap();
        epoch = outcome.next.unwrap();
    }
    fill(&object, &Write::Inside(&epoch), 8, 99).unwrap();
    let addresses = server.control.clone();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    std::mem::forget(epoch);
    let mut server = Server::start(&path, &options);
    server.wait_ready();
    assert!(addresses.iter().any(|address| address.starts_with("tcp:")), "{addresses:?}");
    assert_eq!(server.control, addresses, "others look for it where it was");
    let reader = client(&server, 20_000);
    let run = reader.container_open("run").unwrap();
    let object = run.object(oid);
    assert_eq!(look(&object, &View::Latest, 8), Ok(3));
    for step in 1..=3u8 {
        let snapshot = run.snapshot(SnapshotAt::Step(Step(step as u64))).unwrap();
        assert_eq!(look(&object, &snapshot.view(), 8), Ok(step));
    }
    // It goes on from the last committed step.
    let epoch = run.begin(true).unwrap();
    fill(&object, &Write::Inside(&epoch), 8, 4).unwrap();
    assert_eq!(epoch.commit(&epoch.summary(), b"", false).committed.unwrap().step, Step(4));
    assert_eq!(look(&object, &View::Latest, 8), Ok(4));
}
