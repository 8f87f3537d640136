//! The short way for reads, with real servers: snapshots are read in place, and never change.

#[path = "support/server.rs"]
mod support;

use std::sync::Arc;

use support::{ALONE, Options, SECRET, SYSTEM, Server, directory};
use talea_client::{
    Client, Condition, Container, ContainerProperties, EntryFetch, EntryUpdate, Object, ShortWay, SnapshotAt, Tuning,
    ValueKind, Write,
};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Extent, ObjectClass, TargetId, View};

/// Bytes of an array; each dkey has one.
const BYTES: usize = 96 * 1024;
const DKEYS: u64 = 8;

fn client(server: &Server, short_way: ShortWay) -> Client {
    let endpoint = client_endpoint(&Credentials::new(SYSTEM, SECRET), Policy::Auto, Spin::Never).unwrap();
    let tuning = Tuning { name: "test".to_owned(), deadline_ms: 20_000, short_way, ..Tuning::default() };
    let home = server.control[0].parse().unwrap();
    let client = Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, 7, tuning);
    client.open().unwrap();
    client
}

fn one_server(tier: &str) -> (tempfile::TempDir, Server) {
    let (outer, path) = directory();
    let mut server = Server::start(&path, &Options { tier, ..ALONE });
    server.wait_ready();
    (outer, server)
}

fn container(client: &Client) -> Container {
    client.container_create("run", ContainerProperties::default(), true).unwrap()
}

/// What byte `at` of a dkey holds in step `step`.
fn byte(step: u8, dkey: u64, at: usize) -> u8 {
    (at as u64 / 7 + dkey * 31) as u8 ^ step
}

fn write(object: &Object, write: &Write<'_>, step: u8, from: usize, bytes: usize) {
    for dkey in 0..DKEYS {
        let data: Vec<u8> = (from..from + bytes).map(|at| byte(step, dkey, at)).collect();
        let extents = [Extent::new(from as u64, bytes as u64).unwrap()];
        let key = dkey.to_be_bytes();
        let kind = ValueKind::Array { record_bytes: 1 };
        let (extents, data, condition) = (&extents[..], &data[..], Condition::None);
        object.update(write, &[EntryUpdate { dkey: &key, akey: b"data", kind, condition, extents, data }]).unwrap();
    }
}

fn read(object: &Object, view: &View, dkey: u64, from: usize, bytes: usize) -> (Vec<u8>, bool, bool) {
    let mut out = vec![0xee; bytes];
    let extents = [Extent::new(from as u64, bytes as u64).unwrap()];
    let key = dkey.to_be_bytes();
    let mut entries = [EntryFetch::array(&key, b"data", 1, &extents, &mut out)];
    object.fetch(view, &mut entries).unwrap();
    let (found, filled) = (entries[0].found, entries[0].filled);
    (out, found, filled)
}

fn fetches(client: &Client) -> u64 {
    (0..2).map(|target| client.target_stat(TargetId(target)).unwrap().fetches).sum()
}

#[test]
fn a_snapshot_is_read_in_place_and_stays_what_it_was() {
    // Small: blocks are used again soon.
    let (_outer, server) = one_server("ram:24M");
    let (writer, reader) = (client(&server, ShortWay::Mapped), client(&server, ShortWay::Mapped));
    let container = container(&writer);
    let object = container.object(writer.new_oid(ObjectClass::SX));
    let seen = reader.container_open("run").unwrap();
    let other = seen.object(object.oid());
    let mut epoch = container.begin(true).unwrap();
    let before = fetches(&reader);
    for step in 1..=40u8 {
        write(&object, &Write::Inside(&epoch), step, 0, BYTES);
        let outcome = epoch.commit(&epoch.summary(), b"", true);
        outcome.committed.unwrap();
        epoch = outcome.next.unwrap();
        let snapshot = seen.snapshot(SnapshotAt::Latest).unwrap();
        // The next step is being written over it.
        write(&object, &Write::Inside(&epoch), step + 1, 0, BYTES / 2);
        for dkey in 0..DKEYS {
            let (from, bytes) = (dkey as usize * 4_001, 40_000);
            let (data, found, filled) = read(&other, &snapshot.view(), dkey, from, bytes);
            let expected: Vec<u8> = (from..from + bytes).map(|at| byte(step, dkey, at)).collect();
            assert!(data == expected && found && filled, "step {step}, dkey {dkey}");
        }
    }
    assert_eq!(fetches(&reader), before, "no read went through a server");
    // At its end the reader tells the targets what it took.
    drop((seen, other, reader));
    let told = || (0..2).map(|target| writer.target_stat(TargetId(target)).unwrap().bytes_in_place).sum::<u64>();
    let began = std::time::Instant::now();
    while told() < 40 * DKEYS * 40_000 && began.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(told(), 40 * DKEYS * 40_000);
}

#[test]
fn long_reads_of_what_changes_are_copied_in_place_and_are_what_was_written() {
    // Small: blocks are used again soon.
    let (_outer, server) = one_server("ram:24M");
    let (writer, reader) = (client(&server, ShortWay::Mapped), client(&server, ShortWay::Mapped));
    let container = container(&writer);
    let object = container.object(writer.new_oid(ObjectClass::SX));
    let other = reader.container_open("run").unwrap().object(object.oid());
    let before = fetches(&reader);
    for step in 1..=20u8 {
        write(&object, &Write::Auto, step, 0, BYTES);
        let epoch = container.begin(true).unwrap();
        write(&object, &Write::Inside(&epoch), step + 100, 0, BYTES / 2);
        for dkey in 0..DKEYS {
            // What is pending is seen inside alone.
            for (object, view, first) in [(&other, View::Latest, step), (&object, epoch.view(), step + 100)] {
                let (data, found, filled) = read(object, &view, dkey, 0, BYTES);
                let written = |at| byte(if at < BYTES / 2 { first } else { step }, dkey, at);
                assert!(found && filled && (0..BYTES).all(|at| data[at] == written(at)), "step {step}, dkey {dkey}");
            }
        }
        epoch.abort("").unwrap();
    }
    assert_eq!(fetches(&reader), before, "no read went through a server");
}

#[test]
fn both_ways_agree_on_holes_ends_and_what_is_not_there() {
    let (_outer, server) = one_server("ram:64M");
    let (short, long) = (client(&server, ShortWay::Mapped), client(&server, ShortWay::Off));
    let container = container(&short);
    let object = container.object(short.new_oid(ObjectClass::S1));
    for (step, from, bytes) in [(1, 1000, 5000), (2, 3000, 70), (3, 50_000, 40_000), (4, 49_999, 3), (5, 8000, 1)] {
        write(&object, &Write::Auto, step, from, bytes);
    }
    let snapshot = container.snapshot(SnapshotAt::Latest).unwrap();
    let same = long.container_open("run").unwrap().object(object.oid());
    for (from, bytes) in [(0, 10), (0, BYTES), (990, 20), (2999, 72), (5990, 2020), (50_001, 39_999), (90_000, 7)] {
        for dkey in [0, 3, DKEYS] {
            let (a, b) =
                (read(&object, &snapshot.view(), dkey, from, bytes), read(&same, &snapshot.view(), dkey, from, bytes));
            assert!(a == b, "{from}+{bytes} of dkey {dkey}: found {} {}, filled {} {}", a.1, b.1, a.2, b.2);
        }
    }
    let before = fetches(&short);
    read(&object, &snapshot.view(), 1, 0, BYTES);
    assert_eq!(fetches(&short), before);
    read(&same, &snapshot.view(), 1, 0, BYTES);
    assert_eq!(fetches(&short), before + 1, "the long way was taken where it was asked for");
    // Latest reads are never answered from memory.
    read(&object, &View::Latest, 1, 0, 100);
    assert_eq!(fetches(&short), before + 2);
}

#[test]
fn a_medium_that_is_not_memory_is_read_through_its_server() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let (_outer, server) = one_server(&format!("nvme:{}:64M", directory.path().display()));
    let client = client(&server, ShortWay::Mapped);
    let container = container(&client);
    let object = container.object(client.new_oid(ObjectClass::S1));
    write(&object, &Write::Auto, 1, 0, 5000);
    let snapshot = container.snapshot(SnapshotAt::Latest).unwrap();
    let (data, ..) = read(&object, &snapshot.view(), 2, 100, 100);
    assert_eq!(data, (100..200).map(|at| byte(1, 2, at)).collect::<Vec<_>>());
}
