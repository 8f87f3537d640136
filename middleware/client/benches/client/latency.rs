//! One client, one operation at a time: update and fetch over each fabric, and commits.

use std::time::Instant;

use serde_json::json;
use talea_client::{
    Client, Condition, Container, ContainerProperties, EntryFetch, EntryUpdate, Object, SnapshotAt, ValueKind, Write,
};
use talea_model::{Extent, Key, ObjectClass, View};

use crate::measure::{self, Cpu, Floor, Report, Samples, rounded};
use crate::system::{Fabric, Server};
use crate::{floor, provider};

const SIZES: [(&str, usize, usize); 3] = [("64B", 64, 50_000), ("4KiB", 4096, 20_000), ("1MiB", 1 << 20, 300)];
const BYTES: ValueKind = ValueKind::Array { record_bytes: 1 };
/// What a request and its answer cost beside the data: the floor's messages carry as much.
pub(crate) const SMALL_BYTES: usize = 64;

pub(crate) fn container(client: &Client) -> Container {
    client.container_create("bench", ContainerProperties::default(), true).expect("a container")
}

pub(crate) fn update(object: &Object, write: &Write<'_>, dkey: u64, extent: Extent, data: &[u8]) {
    let (dkey, extents) = (Key::from_u64(dkey), [extent]);
    let condition = Condition::None;
    let entry = EntryUpdate { dkey: &dkey, akey: b"d", kind: BYTES, condition, extents: &extents, data };
    object.update(write, &[entry]).expect("an update");
}

pub(crate) fn fetch(object: &Object, dkey: u64, out: &mut [u8]) {
    fetch_in(object, &View::Latest, dkey, out);
}

fn fetch_in(object: &Object, view: &View, dkey: u64, out: &mut [u8]) {
    let (dkey, extents) = (Key::from_u64(dkey), [Extent { index: 0, count: out.len() as u64 }]);
    let mut entry = [EntryFetch::array(&dkey, b"d", 1, &extents, out)];
    object.fetch(view, &mut entry).expect("a fetch");
    assert!(entry[0].filled);
}

/// Each with the name of the bare fabric, and the ways to wait.
const FABRICS: [(Fabric, &str, &[&str]); 2] =
    [(Fabric::Ring, "ring", &["never", "briefly", "sleep"]), (Fabric::Libfabric, "libfabric", &["never"])];
const IN_PLACE: &str = "client/short-way/fetch/1MiB";
const MANY_KEYS: &str = "client/ring-never/update/100-values-of-64B";
const COMMIT: &str = "client/commit-and-begin";
/// Such calls go with floors and figures of their own (`large`).
const LARGE_BYTES: usize = 65_536;
const REUSED: [&str; 2] = ["-reused-pages", "-in-epoch-reused-pages"];

/// Of an update and a fetch.
fn labels(bare: &str, mode: &str, size: &str) -> [String; 2] {
    ["update", "fetch"].map(|verb| format!("client/{bare}-{mode}/{verb}/{size}"))
}

/// Sizes that are measured with a way to wait: where each message is a wake-up, large ones tell nothing.
fn sizes(mode: &str) -> impl Iterator<Item = (&'static str, usize, usize)> {
    let sleeps = mode == "sleep";
    SIZES.into_iter().filter(move |(_, bytes, _)| !sleeps || *bytes <= LARGE_BYTES)
}

fn of_a_snapshot(fetched: &str) -> String {
    format!("{fetched}-of-a-snapshot")
}

pub(crate) fn figures() -> Vec<String> {
    let mut names = vec![IN_PLACE.to_owned(), MANY_KEYS.to_owned()];
    for (fabric, bare, modes) in FABRICS {
        for (mode, (size, bytes, _)) in modes.iter().flat_map(|mode| sizes(mode).map(move |size| (mode, size))) {
            let [update, fetch] = labels(bare, mode, size);
            if bytes > LARGE_BYTES {
                names.extend(REUSED.map(|how| format!("{update}{how}")));
                if fabric == Fabric::Libfabric {
                    names.push(of_a_snapshot(&fetch));
                }
            }
            names.extend([update, fetch]);
        }
    }
    names
}

pub(crate) fn commit_figures() -> Vec<String> {
    vec![COMMIT.to_owned()]
}

pub(crate) fn run(report: &mut Report) {
    for (fabric, bare, modes) in FABRICS {
        for mode in modes {
            one_fabric(report, fabric, bare, mode);
        }
    }
    in_place(report);
    many_keys(report);
}

/// Fetches of a snapshot by the short way into a buffer that is far larger than the caches, beside a copy and checksum of as much.
fn in_place(report: &mut Report) {
    if !report.wants(IN_PLACE) {
        return;
    }
    let server = Server::start(1, Fabric::Ring, "never");
    let client = server.client(Fabric::Ring, "never");
    let container = container(&client);
    let object = container.object(client.new_oid(ObjectClass::S1));
    let (bytes, count) = (1 << 20, 256);
    let data: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    let extent = Extent { index: 0, count: bytes as u64 };
    (0..count).for_each(|number| update(&object, &Write::Auto, number as u64, extent, &data));
    let snapshot = container.snapshot(SnapshotAt::Latest).expect("a snapshot");
    let mut out = vec![0; count * bytes];
    let mut one = |number: usize| {
        let number = number % count;
        fetch_in(&object, &snapshot.view(), number as u64, &mut out[number * bytes..(number + 1) * bytes]);
    };
    // The first round asks for the places and maps them.
    Samples::take(count, &mut one);
    let floor = floor::copy_and_checksum();
    timed(report, &server, IN_PLACE, &floor, 2 * count * measure::times(), one);
}

/// One call that updates many small values, which travel in one message.
fn many_keys(report: &mut Report) {
    if !report.wants(MANY_KEYS) {
        return;
    }
    let server = Server::start(1, Fabric::Ring, "never");
    let client = server.client(Fabric::Ring, "never");
    let container = container(&client);
    let object = container.object(client.new_oid(ObjectClass::S1));
    let (dkey, data, extents) = (Key::from_u64(1), [5; 64], [Extent { index: 0, count: 64 }]);
    let akeys: Vec<String> = (0..100).map(|number| format!("a{number}")).collect();
    let mut entries = Vec::new();
    for akey in akeys.iter().map(String::as_bytes) {
        let condition = Condition::None;
        entries.push(EntryUpdate { dkey: &dkey, akey, kind: BYTES, condition, extents: &extents, data: &data });
    }
    let call = |_| object.update(&Write::Auto, &entries).expect("an update");
    let count = 2_000 * measure::times();
    Samples::take(count / 10, call);
    let floor = floor::ping_pong("ring", "never", entries.len() * data.len(), SMALL_BYTES, count);
    timed(report, &server, MANY_KEYS, &floor, count, call);
}

fn one_fabric(report: &mut Report, fabric: Fabric, bare: &str, mode: &str) {
    let one_of = |report: &Report, size| labels(bare, mode, size).iter().any(|label| report.wants_of(label));
    if !sizes(mode).any(|(size, ..)| one_of(report, size)) {
        return;
    }
    let server = Server::start(1, fabric, mode);
    let client = server.client(fabric, mode);
    let container = container(&client);
    for (size, bytes, count) in sizes(mode).filter(|(size, ..)| one_of(report, size)).collect::<Vec<_>>() {
        // Each message is a wake-up.
        let count = count * measure::times() / if mode == "sleep" { 10 } else { 1 };
        let object = container.object(client.new_oid(ObjectClass::S1));
        let data: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        let mut out = vec![0; bytes];
        let extent = Extent { index: 0, count: bytes as u64 };
        let floors = |there, back| match bytes {
            0..=LARGE_BYTES => floor::ping_pong(bare, mode, there, back, count / 2),
            _ if fabric == Fabric::Ring => floor::copy_and_checksum(),
            _ => provider::ping_pong(there, back, count),
        };
        let [label, fetched] = labels(bare, mode, size);
        // The first round makes pages, which later ones use again: it is not counted.
        Samples::take(count / 10, |number| update(&object, &Write::Auto, number as u64, extent, &data));
        if report.wants(&label) {
            let floor = floors(bytes, SMALL_BYTES);
            timed(report, &server, &label, &floor, count, |number| {
                update(&object, &Write::Auto, number as u64 % 256, extent, &data)
            });
        }
        if bytes > LARGE_BYTES {
            let place = Place { server: &server, container: &container, object: &object };
            large(report, &place, [&label, &fetched], &floors, (count, &data));
        }
        if report.wants(&fetched) {
            let floor = floors(SMALL_BYTES, bytes);
            let dkeys = (count as u64 / 10).min(256);
            timed(report, &server, &fetched, &floor, count, |number| fetch(&object, number as u64 % dkeys, &mut out));
        }
    }
}

struct Place<'a> {
    server: &'a Server,
    container: &'a Container,
    object: &'a Object,
}

/// Rounds that still make pages.
const FIRST_ROUNDS: usize = 4;
/// Updates of a round.
const A_ROUND: usize = 16;

/// Updates into pages that were used before, alone and in epochs, where they travel in parts; and fetches of a snapshot.
fn large(
    report: &mut Report,
    place: &Place<'_>,
    [label, fetched]: [&str; 2],
    floors: &dyn Fn(usize, usize) -> Floor,
    (count, data): (usize, &[u8]),
) {
    let Place { server, container, object } = place;
    let extent = Extent { index: 0, count: data.len() as u64 };
    let write =
        |write: &Write<'_>| Samples::take(A_ROUND, |number| update(object, write, number as u64 % 16, extent, data));
    let alone = || write(&Write::Auto);
    let in_epoch = || {
        let epoch = container.begin(true).expect("an epoch");
        let samples = write(&Write::Inside(&epoch));
        epoch.commit(&epoch.summary(), b"", false).committed.expect("a commit");
        samples
    };
    let rounds: [&dyn Fn() -> Samples; 2] = [&alone, &in_epoch];
    for (how, round) in REUSED.iter().zip(rounds) {
        let label = format!("{label}{how}");
        if report.wants(&label) {
            let floor = floors(data.len(), SMALL_BYTES);
            reused(report, place, (&label, &floor), count / A_ROUND, round);
        }
    }
    // On the node of its server it is read in place: see `in_place`.
    let fetched = of_a_snapshot(fetched);
    if report.wants(&fetched) {
        let floor = floors(SMALL_BYTES, data.len());
        let snapshot = container.snapshot(SnapshotAt::Latest).expect("a snapshot");
        let mut out = vec![0; data.len()];
        timed(report, server, &fetched, &floor, count, |number| {
            fetch_in(object, &snapshot.view(), number as u64 % 16, &mut out);
        });
    }
}

/// A snapshot before each round lifts the floor: what was overwritten before it is given back, and its pages are used again. Neither
/// the snapshots nor the first rounds are counted.
fn reused(
    report: &mut Report,
    Place { server, container, .. }: &Place<'_>,
    what: (&str, &Floor),
    rounds: usize,
    round: &dyn Fn() -> Samples,
) {
    let (mut samples, mut cpu) = (Samples::of(vec![]), Cpu::default());
    for number in 0..rounds {
        drop(container.snapshot(SnapshotAt::Latest).expect("a snapshot"));
        let (times, took) = Cpu::of(server, round);
        if number >= FIRST_ROUNDS {
            cpu += took;
            samples = samples.join(times);
        }
    }
    put(report, what, &samples, cpu);
}

pub(crate) fn timed(
    report: &mut Report,
    server: &Server,
    name: &str,
    floor: &Floor,
    count: usize,
    operation: impl FnMut(usize),
) {
    let (samples, cpu) = Cpu::of(server, || Samples::take(count, operation));
    put(report, (name, floor), &samples, cpu);
}

/// Records samples with the processor time of their operations.
fn put(report: &mut Report, (name, floor): (&str, &Floor), samples: &Samples, cpu: Cpu) {
    let per = |ns: u64| rounded(ns as f64 / samples.count() as f64);
    let more = json!({
        "p99": rounded(samples.quantile(0.99)), "cpu_client_ns": per(cpu.client_ns), "cpu_server_ns": per(cpu.server_ns),
    });
    report.record(name, samples.median(), "ns", Some(floor), more);
}

/// Commits of a collective epoch that holds one small update; the floor is a round trip on a Unix socket.
pub(crate) fn commits(report: &mut Report) {
    let server = Server::start(1, Fabric::Ring, "never");
    let client = server.client(Fabric::Ring, "never");
    let container = container(&client);
    let object = container.object(client.new_oid(ObjectClass::S1));
    let floor = floor::ping_pong("unix", "never", SMALL_BYTES, SMALL_BYTES, 2_000);
    let mut epoch = Some(container.begin(true).expect("an epoch"));
    let mut one = |number| {
        let open = epoch.take().expect("the next epoch");
        update(&object, &Write::Inside(&open), number, Extent { index: 0, count: 64 }, &[1; 64]);
        let began = Instant::now();
        let outcome = open.commit(&open.summary(), &[], true);
        let took = began.elapsed().as_nanos() as u64;
        outcome.committed.expect("a commit");
        epoch = outcome.next;
        took
    };
    let (samples, cpu) = Cpu::of(&server, || Samples::of((0..500).map(&mut one).collect()));
    put(report, (COMMIT, &floor), &samples, cpu);
}
