//! A client that goes on writing into its messages while the server reads them harms nobody but itself: not the server, not another
//! client, not what the log says after a crash.

#[path = "support/server.rs"]
mod support;

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::{ALONE, Options, SECRET, SYSTEM, Server, TellsTheEnd};
use talea_client::{
    Client, Condition, Container, ContainerProperties, EntryFetch, EntryUpdate, Object, Tuning, ValueKind, Write,
};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Extent, ObjectClass, Oid, View};

/// Values of an update: with their sum over 8 KiB, so that it lies in the shared area; the small ones go into the log. Of those of the
/// one that lies there are so many that there is some time between the look at the first and the copy of the last.
const SMALL: (usize, usize) = (16, 2000);
const LARGE: (usize, usize) = (2, 20_000);
const MANY: (usize, usize) = (200, 4000);
/// Updates of the one that lies.
const LIES: u64 = 250;

fn client(server: &Server, seed: u64, deadline_ms: u64) -> Client {
    let endpoint = client_endpoint(&Credentials::new(SYSTEM, SECRET), Policy::Auto, Spin::Never).unwrap();
    let tuning = Tuning { name: "test".to_owned(), deadline_ms, ..Tuning::default() };
    let home = server.control[0].parse().unwrap();
    let client = Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, seed, tuning);
    client.open().unwrap();
    client
}

/// The rings that this process has mapped: where each begins.
fn rings() -> Vec<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ring = |line: &str| {
        let (from, _) = line.split_once('-')?;
        line.contains("memfd:talea-ring").then(|| u64::from_str_radix(from, 16).unwrap())
    };
    maps.lines().filter_map(ring).collect()
}

fn update(object: &Object, number: u64, (values, bytes): (usize, usize)) -> talea_client::Result<()> {
    let dkey = number.to_be_bytes();
    let data = vec![number as u8 | 1; bytes];
    let akeys: Vec<String> = (0..values).map(|value| format!("value {value}")).collect();
    let extents = [Extent::new(0, bytes as u64).unwrap()];
    let entries: Vec<EntryUpdate<'_>> = akeys
        .iter()
        .map(|akey| EntryUpdate {
            dkey: &dkey,
            akey: akey.as_bytes(),
            kind: ValueKind::Array { record_bytes: 1 },
            condition: Condition::None,
            extents: &extents,
            data: &data,
        })
        .collect();
    object.update(&Write::Auto, &entries)
}

fn check(object: &Object, number: u64, (values, bytes): (usize, usize)) {
    let dkey = number.to_be_bytes();
    let extents = [Extent::new(0, bytes as u64).unwrap()];
    for value in 0..values {
        let (akey, mut out) = (format!("value {value}"), vec![0; bytes]);
        object.fetch(&View::Latest, &mut [EntryFetch::array(&dkey, akey.as_bytes(), 1, &extents, &mut out)]).unwrap();
        assert!(out.iter().all(|byte| *byte == number as u8 | 1), "dkey {number}, value {value}");
    }
}

fn shape(number: u64) -> (usize, usize) {
    if number.is_multiple_of(2) { SMALL } else { LARGE }
}

/// Returns how many updates the server refused, and how many it took.
fn lie(client: &Client, container: &Container) -> (u64, u64) {
    let object = container.object(client.new_oid(ObjectClass::S1));
    let (mut refused, mut taken) = (0, 0);
    for number in 0..LIES {
        // All but a hang is right: refusals, a lost connection, success.
        match update(&object, number % 50, if number % 5 == 4 { LARGE } else { MANY }) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    (refused, taken)
}

/// Where messages to the server lie in a mapping: see the layout in the fabric's `ring/layout.rs`.
const AREA_OFFSET: u64 = 4096 + 2 * (256 << 10);
/// As far as a message of this test reaches into it.
const AREA_BYTES: u64 = 800_000;

/// Scribbles into the messages of a ring, until told: in turns often into their heads, and seldom into their data, so that a checksum
/// may still have been right.
fn scribble(at: u64, over: &AtomicBool, scribbles: &AtomicU64) {
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
    let mut random = 1_u64;
    while !over.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let count = scribbles.fetch_add(1, Ordering::Relaxed);
        let often = count % 2_000 > 1_000;
        let offset = (random >> 20) % if often { 400 } else { AREA_BYTES };
        let _ = memory.write_at(&random.to_ne_bytes()[..1 + (random >> 8) as usize % 8], at + AREA_OFFSET + offset);
        if !often {
            std::thread::sleep(std::time::Duration::from_micros((random >> 40) % 1000));
        }
    }
}

#[test]
fn a_client_that_changes_its_messages_while_they_are_read_harms_itself_alone() {
    let outer = tempfile::tempdir_in("/dev/shm").unwrap();
    let data = outer.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let tier = format!("pmem:{}:512M", data.display());
    let start = || {
        let mut server = Server::start(&outer.path().join("s"), &Options { tier: &tier, ..ALONE });
        server.wait_ready();
        server
    };
    let mut server = start();
    let honest = client(&server, 1, 20_000);
    let run = honest.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = run.object(honest.new_oid(ObjectClass::S1));
    update(&object, 0, SMALL).unwrap();
    let of_honest = rings();
    let hostile = client(&server, 2, 1_000);
    let its = hostile.container_open("run").unwrap();
    update(&its.object(hostile.new_oid(ObjectClass::SX)), 0, LARGE).unwrap();
    let of_hostile: Vec<u64> = rings().into_iter().filter(|ring| !of_honest.contains(ring)).collect();
    assert!(!of_hostile.is_empty(), "the client's rings are not to be seen");

    let (over, scribbles, mut rounds) = (AtomicBool::new(false), AtomicU64::new(0), 0);
    std::thread::scope(|scope| {
        let _tells = TellsTheEnd(&over);
        of_hostile.iter().for_each(|ring| _ = scope.spawn(|| scribble(*ring, &over, &scribbles)));
        let liar = scope.spawn(|| lie(&hostile, &its));
        while !liar.is_finished() {
            update(&object, rounds, shape(rounds)).unwrap();
            check(&object, rounds, shape(rounds));
            rounds += 1;
        }
        let (refused, taken) = liar.join().unwrap();
        assert!(refused > 0 && taken > 0, "{refused} refused, {taken} taken: nothing was tried");
    });
    // What the log says after this must be found behind all that the other one wrote.
    update(&object, rounds, SMALL).unwrap();
    assert_eq!(server.child.try_wait().unwrap(), None, "the server lives");
    let oid: Oid = object.oid();
    drop((hostile, honest));
    server.child.kill().unwrap();
    drop(server);

    let server = start();
    let honest = client(&server, 3, 20_000);
    let object = honest.container_open("run").unwrap().object(oid);
    (0..rounds).for_each(|number| check(&object, number, shape(number)));
    check(&object, rounds, SMALL);
}
