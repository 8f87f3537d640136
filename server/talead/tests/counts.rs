//! Messages and wake-ups of an operation, between a real server and a real client (docs/design.md §6): what the protocol says, and not what
//! a machine's timing makes of it. Whether the other side sleeps is not left to chance: it is stopped in the state that is wanted, or
//! its word of sleep is read out of the ring.

#[path = "support/counted.rs"]
mod counted;
#[path = "support/server.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use counted::{Counted, Kind, Ring, Traffic, sleeps_of, sleeps_of_this_thread};
use rustix::process::{Pid, Signal, kill_process};
use support::{ALONE, Options, SECRET, SYSTEM, Server, TellsTheEnd, directory};
use talea_client::system::FabricPolicy;
use talea_client::{
    Client, Condition, Container, ContainerProperties, EntryFetch, EntryUpdate, Epoch, Object, Punch, Queue,
    SnapshotAt, Tuning, ValueKind, Write,
};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Extent, ObjectClass, Oid, TargetId, View};

/// Entries of one call.
const ENTRIES: usize = 50;
/// Requests in flight together: less than a turn of the server takes.
const BATCH: usize = 32;
const ROUNDS: usize = 20;
/// Requests one after another.
const SINGLE: u64 = 400;
/// Sleeps of a thread that no message ended, in a test: timers, and what the kernel waits for.
const OTHER_SLEEPS: u64 = 40;
const BYTES: usize = 64;
const KIND: ValueKind = ValueKind::Array { record_bytes: 1 };

fn server(more: &str) -> (tempfile::TempDir, Server) {
    let (outer, path) = directory();
    // A server that is stopped for a moment is not lost.
    let more = format!(r#","membership_lease_ms":20000{more}"#);
    let mut server = Server::start(&path, &Options { tier: "ram:256M", more: &more, ..ALONE });
    server.wait_ready();
    (outer, server)
}

fn client(server: &Server, policy: Policy) -> (Client, Arc<Traffic>) {
    let inner = client_endpoint(&Credentials::new(SYSTEM, SECRET), policy, Spin::Never).unwrap();
    let (endpoint, traffic) = Counted::new(inner);
    let fabric = if policy == Policy::Libfabric { FabricPolicy::Libfabric } else { FabricPolicy::Auto };
    // However slow the machine, nobody asks whether the other side still lives.
    let tuning = Tuning { name: "test".into(), deadline_ms: 60_000, probe_ms: 60_000, fabric, ..Tuning::default() };
    let home = server.control[0].parse().unwrap();
    let client = Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, 7, tuning);
    client.open().unwrap();
    (client, traffic)
}

fn container(client: &Client) -> Container {
    client.container_create("run", ContainerProperties::default(), true).unwrap()
}

fn keys() -> Vec<[u8; 8]> {
    (0..ENTRIES as u64).map(u64::to_be_bytes).collect()
}

fn extents() -> [Extent; 1] {
    [Extent::new(0, BYTES as u64).unwrap()]
}

/// Writes some bytes into each of these places, in one call.
fn update<'a>(object: &Object, write: &Write<'_>, places: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    let (extents, condition) = (extents(), Condition::None);
    let entry = |(dkey, akey)| EntryUpdate { dkey, akey, kind: KIND, condition, extents: &extents, data: &[7; BYTES] };
    object.update(write, &places.map(entry).collect::<Vec<_>>()).unwrap();
}

/// Reads all of them, in one call.
fn fetch<'a>(object: &Object, view: &View, places: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    let places: Vec<_> = places.collect();
    let (extents, mut out) = (extents(), vec![[0; BYTES]; places.len()]);
    let entry = |((dkey, akey), out): (&(&'a [u8], &'a [u8]), _)| EntryFetch::array(dkey, akey, 1, &extents, out);
    let mut entries: Vec<EntryFetch<'_>> =
        places.iter().zip(out.iter_mut().map(|out| &mut out[..])).map(entry).collect();
    object.fetch(view, &mut entries).unwrap();
    drop(entries);
    assert!(out.iter().all(|one| *one == [7; BYTES]));
}

fn one() -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
    std::iter::once((&b"dkey"[..], &b"akey"[..]))
}

/// An object of which every dkey lies on this target.
fn on_target(client: &Client, container: &Container, target: u32) -> Object {
    let lies_there = |oid: &Oid| talea_model::Layout::of(*oid, &client.map()).unwrap().targets() == [TargetId(target)];
    let oid = std::iter::repeat_with(|| client.new_oid(ObjectClass::S1)).find(lies_there).unwrap();
    container.object(oid)
}

/// Messages that an operation sends to targets and to its home. Each that is waited for is a round trip: there are no more answers.
fn messages<T>(traffic: &Traffic, operation: impl FnOnce() -> T) -> (T, [u64; 2]) {
    let count = || [Kind::Target, Kind::Home].map(|kind| traffic.messages(kind));
    let before = count();
    let result = operation();
    let after = count();
    let of = |at: usize| {
        let (sent, received) = (after[at].0 - before[at].0, after[at].1 - before[at].1);
        assert!(received <= sent, "{received} answers to {sent} messages");
        sent
    };
    (result, [of(0), of(1)])
}

/// A mebibyte is four messages where nobody sees one without the others, so that both sides work at once, and else one.
fn large(object: &Object, epoch: &Epoch, cost: impl Fn(&mut dyn FnMut()) -> [u64; 2]) {
    const MIB: usize = 1 << 20;
    let (extents, data) = ([Extent::new(0, MIB as u64).unwrap()], vec![7; MIB]);
    for (write, view, most) in [(Write::Auto, View::Latest, 1), (Write::Inside(epoch), epoch.view(), 4)] {
        let condition = Condition::None;
        let entry = EntryUpdate { dkey: b"large", akey: b"a", kind: KIND, condition, extents: &extents, data: &data };
        assert_eq!(cost(&mut || object.update(&write, &[entry]).unwrap()), [most, 0], "an update of a mebibyte");
        let mut out = vec![0; MIB];
        let mut read = || {
            object.fetch(&view, &mut [EntryFetch::array(b"large", b"a", 1, &extents, &mut out)]).unwrap();
        };
        let [targets, home] = cost(&mut read);
        assert!(
            (most..=most + 1).contains(&targets) && home == 0,
            "{targets} messages for {most}, and a question where it lies"
        );
        assert!(out == data);
    }
}

/// On an object of one target, and on one of both.
fn updates_and_fetches(client: &Client, container: &Container, traffic: &Traffic) {
    let epoch = container.begin(true).unwrap();
    let (both, keys) = (container.object(client.new_oid(ObjectClass::SX)), keys());
    let places = || keys.iter().map(|key| (&key[..], &b"akey"[..]));
    let list = || keys.iter().map(|key| (&b"list"[..], &key[..]));
    let single = on_target(client, container, 0);
    // Whoever writes in an epoch first has said so; connections are there.
    update(&both, &Write::Inside(&epoch), places());
    let cost = |operation: &mut dyn FnMut()| messages(traffic, operation).1;
    for write in [Write::Auto, Write::Inside(&epoch)] {
        assert_eq!(cost(&mut || update(&single, &write, one())), [1, 0], "an update");
        assert_eq!(cost(&mut || update(&single, &write, list())), [1, 0], "a list of one dkey");
    }
    assert_eq!(cost(&mut || update(&both, &Write::Inside(&epoch), places())), [2, 0], "many dkeys of two targets");
    for view in [View::Latest, epoch.view()] {
        assert_eq!(cost(&mut || fetch(&single, &view, one())), [1, 0], "a fetch");
        let list = cost(&mut || fetch(&single, &view, list()));
        assert!(
            (1..=2).contains(&list[0]) && list[1] == 0,
            "a list of one dkey, and a question where one of it lies: {list:?}"
        );
    }
    let many = cost(&mut || fetch(&both, &epoch.view(), places()));
    assert!((2..=4).contains(&many[0]) && many[1] == 0, "many dkeys of two targets, and a question each: {many:?}");
    large(&single, &epoch, cost);
    let punch = Punch { dkey: b"list", ..Punch::default() };
    assert_eq!(cost(&mut || single.punch(&Write::Inside(&epoch), &punch).unwrap()), [1, 0], "a punch");
    epoch.abort("the end").unwrap();
}

#[test]
fn an_update_or_fetch_is_a_message_a_target_over_rings() {
    let (_outer, server) = server("");
    let (client, traffic) = client(&server, Policy::Auto);
    updates_and_fetches(&client, &container(&client), &traffic);
    assert!(traffic.is_by_rings());
}

#[test]
fn an_update_or_fetch_is_a_message_a_target_over_libfabric() {
    let (_outer, server) = server(r#","interface":"127.0.0.1""#);
    let (client, traffic) = client(&server, Policy::Libfabric);
    updates_and_fetches(&client, &container(&client), &traffic);
    assert!(counted::rings().is_empty(), "it was not by rings");
}

#[test]
fn an_update_or_fetch_is_a_message_a_target_over_datagrams() {
    let (_outer, server) = server(r#","interface":"127.0.0.1","provider":"tcp;ofi_rxm""#);
    let (client, traffic) = client(&server, Policy::Libfabric);
    updates_and_fetches(&client, &container(&client), &traffic);
    assert!(counted::rings().is_empty(), "it was not by rings");
}

#[test]
fn an_epoch_is_a_message_to_begin_and_one_to_commit() {
    let (_outer, server) = server("");
    let (client, traffic) = client(&server, Policy::Auto);
    let container = container(&client);
    let object = on_target(&client, &container, 0);
    update(&object, &Write::Auto, one());
    let (mut epoch, cost) = messages(&traffic, || container.begin(true).unwrap());
    assert_eq!(cost, [0, 1], "to begin");
    for _ in 0..3 {
        let ((), first) = messages(&traffic, || update(&object, &Write::Inside(&epoch), one()));
        assert_eq!(first, [1, 1], "the first write of a process in an epoch says so to its home");
        let ((), next) = messages(&traffic, || update(&object, &Write::Inside(&epoch), one()));
        assert_eq!(next, [1, 0], "and no other");
        let (outcome, cost) = messages(&traffic, || epoch.commit(&epoch.summary(), b"", true));
        outcome.committed.unwrap();
        assert_eq!(cost, [0, 1], "a commit that begins the next one");
        epoch = outcome.next.unwrap();
    }
    let (joined, cost) = messages(&traffic, || container.join(&epoch.blob()).unwrap());
    assert_eq!(cost, [0, 0], "to join");
    joined.closed_elsewhere();
    let (result, cost) = messages(&traffic, || epoch.abort("the end"));
    result.unwrap();
    assert_eq!(cost, [0, 1], "to abort");
}

/// Reads a piece of the array that [`what_lies_on_this_node_is_read_without_a_message`] wrote; says what it cost targets.
fn read_piece(traffic: &Traffic, object: &Object, view: &View, number: u64) -> u64 {
    let mut out = [0; BYTES];
    let extents = [Extent::new(number * BYTES as u64, BYTES as u64).unwrap()];
    let mut entries = [EntryFetch::array(b"dkey", b"array", 1, &extents, &mut out)];
    let (result, [of_targets, of_home]) = messages(traffic, || object.fetch(view, &mut entries));
    result.unwrap();
    assert_eq!((out, of_home), ([number as u8; BYTES], 0));
    of_targets
}

#[test]
fn what_lies_on_this_node_is_read_without_a_message() {
    const PIECES: u64 = 40;
    let (_outer, server) = server("");
    let (client, traffic) = client(&server, Policy::Auto);
    let container = container(&client);
    let object = on_target(&client, &container, 0);
    let data: Vec<u8> = (0..PIECES).flat_map(|number| [number as u8; BYTES]).collect();
    let extents = [Extent::new(0, data.len() as u64).unwrap()];
    let (kind, condition) = (KIND, Condition::None);
    let entry = EntryUpdate { dkey: b"dkey", akey: b"array", kind, condition, extents: &extents, data: &data };
    let epoch = container.begin(true).unwrap();
    object.update(&Write::Inside(&epoch), &[entry]).unwrap();
    // A lease lasts a second. On a machine that stands still for so long places are asked for once more, and no more than that.
    let all =
        |view: &View| -> Vec<u64> { (0..PIECES).map(|piece| read_piece(&traffic, &object, view, piece)).collect() };
    let rounds = |view: &View, most: u64| {
        let began = std::time::Instant::now();
        let costs: Vec<u64> = (0..4).flat_map(|_| all(view)).collect();
        let leases = began.elapsed().as_secs();
        assert!(costs.iter().sum::<u64>() <= most + leases, "{costs:?} in {leases} s");
    };
    // Inside of a transaction that nothing is written in for some reads, the question is the third of them.
    rounds(&epoch.view(), 3);
    epoch.commit(&epoch.summary(), b"", false).committed.unwrap();
    let (snapshot, cost) = messages(&traffic, || container.snapshot(SnapshotAt::Latest).unwrap());
    assert_eq!(cost, [0, 1], "to open it");
    rounds(&snapshot.view(), 1);
    let ((), cost) = messages(&traffic, || drop(snapshot));
    assert!(cost[0] == 0 && cost[1] <= 1, "{cost:?}");
}

/// What doorbells rang and threads slept while something was done: by the server, by us.
#[derive(Debug, Default)]
struct Wakes {
    rung_by_server: u64,
    rung_by_us: u64,
    server_sleeps: u64,
    our_sleeps: u64,
}

fn wakes<T>(server: &Server, ring: Ring, operation: impl FnOnce() -> T) -> (T, Wakes) {
    let count = || {
        let sleeps = (sleeps_of(server.child.id(), 0), sleeps_of_this_thread());
        (ring.rung_by_server(), ring.rung_by_us(), sleeps)
    };
    let before = count();
    let result = operation();
    let after = count();
    let wakes = Wakes {
        rung_by_server: after.0 - before.0,
        rung_by_us: after.1 - before.1,
        server_sleeps: after.2.0 - before.2.0,
        our_sleeps: after.2.1 - before.2.1,
    };
    (result, wakes)
}

#[test]
fn requests_one_after_another_wake_each_side_once_each_at_most() {
    let (_outer, server) = server("");
    let (client, traffic) = client(&server, Policy::Auto);
    let object = on_target(&client, &container(&client), 0);
    update(&object, &Write::Auto, one());
    let ring = traffic.ring(&server.rings[0]);
    for write in [true, false] {
        let ((), wakes) = wakes(&server, ring, || {
            (0..SINGLE).for_each(|_| match write {
                true => update(&object, &Write::Auto, one()),
                false => fetch(&object, &View::Latest, one()),
            });
        });
        assert!(wakes.rung_by_us <= SINGLE && wakes.rung_by_server <= SINGLE, "{wakes:?}");
        // As the kernel counts: nobody slept but to be rung for.
        assert!(wakes.server_sleeps <= wakes.rung_by_us + OTHER_SLEEPS, "{wakes:?}");
        assert!(wakes.our_sleeps <= wakes.rung_by_server + OTHER_SLEEPS, "{wakes:?}");
    }
}

/// Whether a thread of the process does anything.
fn is_stopped(pid: u32) -> bool {
    let state = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'))
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| state(task.unwrap()) == Some(true))
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    while !is_stopped(pid) {
        std::thread::yield_now();
    }
}

/// Stops the server while it sleeps.
fn stop_asleep(pid: u32, ring: Ring) {
    loop {
        wait_until("the server sleeps", || ring.server_sleeps());
        stop(pid);
        if ring.server_sleeps() {
            return;
        }
        signal(pid, Signal::CONT);
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < support::PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Starts a batch of requests: they leave at once.
fn start<'a>(queue: &Queue<'a, talea_client::Result<()>>, object: &'a Object, entries: &'a [[EntryUpdate<'a>; 1]]) {
    entries.iter().for_each(|entry| queue.start(object.update_async(&Write::Auto, entry)));
}

fn take(queue: &Queue<'_, talea_client::Result<()>>) {
    let mut taken = 0;
    while taken < BATCH {
        let results = queue.take(1, BATCH, 60_000).unwrap();
        taken += results.len();
        results.into_iter().for_each(Result::unwrap);
    }
}

fn batch<'a>(keys: &'a [[u8; 8]], extents: &'a [Extent]) -> Vec<[EntryUpdate<'a>; 1]> {
    let entry = |key: &'a [u8; 8]| {
        let (kind, condition) = (KIND, Condition::None);
        [EntryUpdate { dkey: key, akey: b"akey", kind, condition, extents, data: &[7; BYTES] }]
    };
    keys.iter().take(BATCH).map(entry).collect()
}

/// Each side sleeps when the other one begins, and until the other one has come to its end.
#[test]
fn a_batch_wakes_each_side_once() {
    let (_outer, server) = server("");
    let (client, traffic) = client(&server, Policy::Auto);
    let object = on_target(&client, &container(&client), 0);
    update(&object, &Write::Auto, one());
    let (ring, pid) = (traffic.ring(&server.rings[0]), server.child.id());
    let (keys, extents) = (keys(), extents());
    let entries = batch(&keys, &extents);
    for _ in 0..ROUNDS {
        let turns = || client.target_stat(TargetId(0)).unwrap().turns;
        let before = turns();
        stop_asleep(pid, ring);
        let queue = Queue::new(&client);
        let ((), wakes) = wakes(&server, ring, || {
            start(&queue, &object, &entries);
            traffic.when_asleep(move || {
                signal(pid, Signal::CONT);
                wait_until("the server has answered all", || ring.server_sleeps());
            });
            take(&queue);
        });
        assert_eq!((wakes.rung_by_us, wakes.rung_by_server), (1, 1), "{BATCH} requests: {wakes:?}");
        // One turn for all of them, and one for the question; the others are for what the server wakes for by itself.
        let turns = turns() - before;
        assert!(turns <= 6, "{turns} turns for {BATCH} requests");
    }
}

/// A client that is awake is not rung, and a server that is is not either: it is stopped in the midst of another one's requests.
#[test]
fn nobody_is_woken_who_is_awake() {
    let (_outer, server) = server("");
    let (client, traffic) = client(&server, Policy::Auto);
    let (busy, _) = self::client(&server, Policy::Auto);
    let container = container(&client);
    let object = on_target(&client, &container, 0);
    update(&object, &Write::Auto, one());
    let (ring, pid) = (traffic.ring(&server.rings[0]), server.child.id());
    let (keys, extents) = (keys(), extents());
    let entries = batch(&keys, &extents);
    let other = on_target(&busy, &busy.container_open("run").unwrap(), 0);
    let over = AtomicBool::new(false);
    let mut awake = 0;
    traffic.stay_awake(true);
    std::thread::scope(|scope| {
        let _tells = TellsTheEnd(&over);
        scope.spawn(|| {
            let keys = self::keys();
            while !over.load(Relaxed) {
                update(&other, &Write::Auto, keys.iter().map(|key| (&b"dkey"[..], &key[..])));
            }
        });
        let began = std::time::Instant::now();
        while awake < ROUNDS {
            assert!(began.elapsed() < 2 * support::PATIENCE, "the server was awake {awake} times only");
            stop(pid);
            let sleeps = ring.server_sleeps();
            let queue = Queue::new(&client);
            let before = (ring.rung_by_us(), ring.rung_by_server());
            start(&queue, &object, &entries);
            let rung = ring.rung_by_us() - before.0;
            signal(pid, Signal::CONT);
            take(&queue);
            assert_eq!(rung, u64::from(sleeps), "{BATCH} requests to a server that is awake: {}", !sleeps);
            assert_eq!(ring.rung_by_server() - before.1, 0, "we were awake");
            awake += usize::from(!sleeps);
        }
    });
}
