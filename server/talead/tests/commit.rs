//! What a commit costs, and what readers notice of it: I5 and I3 on real servers (docs/design.md §3).

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data::{KIND, client, container, fill, look};
use support::{ALONE, Options, PATIENCE, Server, TellsTheEnd, directory, two_servers};
use talea_client::{Client, Condition, Container, EntryUpdate, Epoch, SnapshotAt, Write};
use talea_model::{Extent, ObjectClass, Oid, Summary, TargetId, View};

const TARGETS: u32 = 4;

/// From proposal to apply: what the pool's log and every target's store did, and what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    entries: u64,
    log_bytes: u64,
    messages: u64,
    store_records: u64,
}

/// All counters, once nothing moves any more, and how often the control plane was asked for them.
fn counters(client: &Client) -> (Cost, u64) {
    let now = || {
        let status = client.status().unwrap();
        let records = (0..TARGETS).map(|target| client.target_stat(TargetId(target)).unwrap().log_records).sum();
        Cost {
            entries: status.counters.entries,
            log_bytes: status.counters.log_bytes,
            messages: status.counters.messages_in + status.counters.messages_out,
            store_records: records,
        }
    };
    let start = Instant::now();
    let (mut last, mut asked) = (now(), 1);
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let next = now();
        asked += 1;
        // Asking is one question and one answer.
        if next == (Cost { messages: last.messages + 2, ..last }) {
            return (next, asked);
        }
        assert!(start.elapsed() < PATIENCE, "the servers do not come to rest: {last:?} {next:?}");
        last = next;
    }
}

/// A writer's part: `bytes` in four pieces, one on each target.
fn write_part(run: &Container, blob: &[u8], oid: Oid, writer: u64, bytes: usize) -> Summary {
    let epoch = run.join(blob).unwrap();
    let data = vec![writer as u8; bytes / 4];
    let extents = [Extent::new(0, data.len() as u64).unwrap()];
    for piece in 0..4 {
        let dkey = (writer * 4 + piece).to_be_bytes();
        let entry = EntryUpdate {
            dkey: &dkey,
            akey: b"data",
            kind: KIND,
            condition: Condition::None,
            extents: &extents,
            data: &data,
        };
        run.object(oid).update(&Write::Inside(&epoch), &[entry]).unwrap();
    }
    let summary = epoch.summary();
    epoch.closed_elsewhere();
    summary
}

/// Makes every target raise its clock's ceiling, which is a record a second at most (docs/design.md §4 rule 10): none is due
/// during the commit that follows.
fn raise_ceilings(client: &Client, run: &Container) {
    std::thread::sleep(Duration::from_millis(1_100));
    let object = run.object(client.new_oid(ObjectClass::SX));
    for dkey in 0..u64::from(TARGETS) {
        let (dkey, extents) = (dkey.to_be_bytes(), [Extent::new(0, 1).unwrap()]);
        let entry = EntryUpdate {
            dkey: &dkey,
            akey: b"data",
            kind: KIND,
            condition: Condition::None,
            extents: &extents,
            data: b"x",
        };
        object.update(&Write::Auto, &[entry]).unwrap();
    }
}

/// One epoch of so many bytes by so many writers: what its commit cost, and how long it took.
fn cost(clients: &[Client], bytes: usize) -> (Cost, Duration) {
    let run = container(&clients[0]);
    let oid = clients[0].new_oid(ObjectClass::SX);
    let epoch: Epoch = run.begin(true).unwrap();
    let blob = epoch.blob();
    let mut summary = epoch.summary();
    for (writer, client) in clients.iter().enumerate() {
        let run = client.container_open("run").unwrap();
        summary.merge(&write_part(&run, &blob, oid, writer as u64, bytes / clients.len()));
    }
    raise_ceilings(&clients[0], &run);
    assert_eq!(summary.touched.iter().count(), TARGETS as usize, "every case touches all targets");
    let (before, _) = counters(&clients[0]);
    let start = Instant::now();
    epoch.commit(&summary, b"step", false).committed.unwrap();
    let took = start.elapsed();
    let (after, asked) = counters(&clients[0]);
    let cost = Cost {
        entries: after.entries - before.entries,
        log_bytes: after.log_bytes - before.log_bytes,
        messages: after.messages - before.messages - 2 * asked,
        store_records: after.store_records - before.store_records,
    };
    (cost, took)
}

/// A target whose background work goes on after the commit was flushed says at its end, with one mark, that all is durable
/// (docs/formats.md): no part of the commit, whatever was written.
fn without_marks((mut cost, took): (Cost, Duration)) -> (Cost, Duration) {
    let marks = cost.store_records.saturating_sub(u64::from(TARGETS)).min(u64::from(TARGETS));
    cost.store_records -= marks;
    (cost, took)
}

#[test]
fn i5_a_commit_costs_the_same_for_a_mebibyte_and_a_gibibyte_and_for_one_writer_and_many() {
    let (_outer, path) = directory();
    // Leases that are not renewed in between: heartbeats are no part of a commit.
    let options = Options { servers: 2, tier: "ram:2G", more: r#","membership_lease_ms":600000"#, ..ALONE };
    let mut first = Server::start(&path, &options);
    let leader = first.control.clone();
    let mut second = Server::start(&path, &Options { server: 1, leader: &leader, ..options });
    first.wait_ready();
    second.wait_ready();
    let clients: Vec<Client> = (0..64).map(|n| client([&first, &second][n % 2], 20_000)).collect();
    // Background work may fall into the short time of a commit: another try must be without.
    let at_rest = |what: &str, writers: usize, bytes: usize| {
        let mut tries = (0..3).map(|_| without_marks(cost(&clients[..writers], bytes)));
        let Some((cost, took)) = tries.find(|(cost, _)| cost.store_records == u64::from(TARGETS)) else {
            panic!("the commit of {what} is never one record at each target")
        };
        println!("{what}: {took:?}, {cost:?}");
        cost
    };
    let _ = cost(&clients[..1], 1 << 20); // the first one finds everything new
    let small = at_rest("1 MiB by 1 writer", 1, 1 << 20);
    assert_eq!(small.entries, 1, "one entry");
    assert_eq!(small.messages, 3, "a question, an answer, and a batch of the log to the other server");
    for (what, writers, bytes) in
        [("1 MiB by 64 writers", 64, 1 << 20), ("1 GiB by 1 writer", 1, 1 << 30), ("1 GiB by 64 writers", 64, 1 << 30)]
    {
        let other = at_rest(what, writers, bytes);
        assert_eq!((other.entries, other.messages), (small.entries, small.messages), "{what}");
        // Numbers take as many bytes as they have digits: nothing else may differ.
        assert!(other.log_bytes.abs_diff(small.log_bytes) <= 16, "{what}: {other:?}");
    }
}

#[test]
fn i3_readers_of_snapshots_wait_for_no_writer_and_see_no_change() {
    let (_outer, first, second) = two_servers("");
    let (writer, reader) = (client(&first, 20_000), client(&second, 20_000));
    let run = container(&writer);
    let object = run.object(writer.new_oid(ObjectClass::SX));
    let seen = reader.container_open("run").unwrap();
    let other = seen.object(object.oid());
    let commit = |value| {
        let epoch = run.begin(true).unwrap();
        fill(&object, &Write::Inside(&epoch), 8, value).unwrap();
        epoch.commit(&epoch.summary(), b"", false).committed.unwrap();
    };
    commit(1);
    let snapshot = seen.snapshot(SnapshotAt::Latest).unwrap();
    // An epoch with pending writes everywhere stays open for as long as there are reads: who waited for it would never end.
    let held = run.begin(true).unwrap();
    fill(&object, &Write::Inside(&held), 8, 2).unwrap();
    let fetches = || (0..TARGETS).map(|target| reader.target_stat(TargetId(target)).unwrap().fetches).sum::<u64>();
    let before = fetches();
    for _ in 0..50 {
        assert_eq!(look(&other, &snapshot.view(), 8), Ok(1));
        assert_eq!(look(&other, &View::Latest, 8), Ok(1));
    }
    // One round trip to each target and read, and none that was asked again.
    assert!(fetches() - before <= 2 * 50 * u64::from(TARGETS), "{} fetches", fetches() - before);
    held.commit(&held.summary(), b"", false).committed.unwrap();

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = TellsTheEnd(&done);
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut last, mut reads) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        let mine = seen.snapshot(SnapshotAt::Latest).unwrap();
                        let value = look(&other, &mine.view(), 8).expect("a snapshot in the middle of a commit");
                        assert!(value >= last, "a later snapshot shows less");
                        for _ in 0..5 {
                            assert_eq!(look(&other, &mine.view(), 8), Ok(value), "a snapshot has changed");
                            assert_eq!(look(&other, &snapshot.view(), 8), Ok(1), "the first snapshot has changed");
                        }
                        (last, reads) = (value, reads + 1);
                    }
                    reads
                })
            })
            .collect();
        (3..=40).for_each(commit);
        drop(end);
        let reads: u32 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(reads > 0, "nobody read meanwhile");
    });
}
