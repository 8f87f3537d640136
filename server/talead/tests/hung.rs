//! What a client makes of a server that hangs or is dead, of futures that nobody polls, and of programs that only look now and then:
//! nothing else that it does is held up, and everybody is told in the end.

#[path = "support/server.rs"]
mod support;

use std::future::Future;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use support::{ALONE, Options, SECRET, SYSTEM, Server, directory, two_servers};
use talea_client::{
    Client, Condition, ContainerProperties, EntryFetch, EntryUpdate, ErrorKind, Object, Queue, ShortWay, Tuning,
    ValueKind, Write,
};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Extent, Layout, ObjectClass, ServerId, View};

fn client(server: &Server, tuning: Tuning) -> Client {
    let endpoint = client_endpoint(&Credentials::new(SYSTEM, SECRET), Policy::Auto, Spin::Never).unwrap();
    let tuning = Tuning { name: "test".to_owned(), short_way: ShortWay::Off, ..tuning };
    let home = server.control[0].parse().unwrap();
    let client = Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, 7, tuning);
    client.open().unwrap();
    client
}

fn entry<'a>(dkey: &'a [u8], extents: &'a [Extent], data: &'a [u8]) -> EntryUpdate<'a> {
    let kind = ValueKind::Array { record_bytes: 1 };
    EntryUpdate { dkey, akey: b"data", kind, condition: Condition::None, extents, data }
}

/// A dkey of an object that lies on a server.
fn dkey_at(client: &Client, object: &Object, server: ServerId) -> [u8; 8] {
    let map = client.map();
    let layout = Layout::of(object.oid(), &map).unwrap();
    let lies = |dkey: &[u8; 8]| map.target(layout.leader_of(dkey)).is_some_and(|target| target.server == server);
    (0..1000u64).map(u64::to_be_bytes).find(lies).expect("a dkey on each server")
}

#[test]
fn a_stopped_server_holds_up_no_operation_on_another_one() {
    let (_outer, first, second) = two_servers("");
    // One attempt lasts longer than all that is asked meanwhile may.
    let client = client(&first, Tuning { connect_ms: 60_000, deadline_ms: 20_000, ..Tuning::default() });
    let container = client.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = container.object(client.new_oid(ObjectClass::SX));
    let (good, bad) = (dkey_at(&client, &object, ServerId(0)), dkey_at(&client, &object, ServerId(1)));
    let pid = Pid::from_child(&second.child);
    kill_process(pid, Signal::STOP).unwrap();
    let extents = [Extent::new(0, 64).unwrap()];
    let (to_good, to_bad) = ([entry(&good, &extents, &[1; 64])], [entry(&bad, &extents, &[2; 64])]);
    let impatient = container.with_deadline_ms(3_000).object(object.oid());
    let queue = Queue::new(&client);
    queue.start(impatient.update_async(&Write::Auto, &to_bad));
    assert!(queue.take(0, 1, 0).unwrap().is_empty(), "a look waits for nobody");
    // From the same thread and from another one, before the connection to the stopped server is made or given up.
    for _ in 0..20 {
        object.update(&Write::Auto, &to_good).unwrap();
        queue.start(object.update_async(&Write::Auto, &to_good));
        assert!(queue.take(1, 1, 20_000).unwrap()[0].is_ok(), "what was asked of the good one ends first");
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(|| object.update(&Write::Auto, &to_good));
        other.join().unwrap().unwrap();
    });
    assert_eq!(queue.len(), 1, "the other one is still being waited for");
    let ended = queue.take(1, 1, 20_000).unwrap();
    let error = ended[0].as_ref().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ServerLost | ErrorKind::Deadline), "{error}");
    assert!(error.to_string().contains("server 1"), "{error}");
    kill_process(pid, Signal::CONT).unwrap();
}

fn one_server() -> (tempfile::TempDir, Server) {
    let (outer, path) = directory();
    let mut server = Server::start(&path, &Options { tier: "ram:128M", ..ALONE });
    server.wait_ready();
    (outer, server)
}

const MIB: usize = 1 << 20;

/// Polled once by nobody in particular: what it has begun goes on, whatever comes is not looked at.
fn begin(future: std::pin::Pin<&mut impl Future>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn answers_that_nobody_takes_do_not_stop_the_connection() {
    let (_outer, server) = one_server();
    let client = client(&server, Tuning { deadline_ms: 10_000, ..Tuning::default() });
    let container = client.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = container.object(client.new_oid(ObjectClass::S1));
    let whole = [Extent::new(0, MIB as u64).unwrap()];
    let data: Vec<u8> = (0..MIB).map(|at| (at / 7) as u8).collect();
    object.update(&Write::Auto, &[entry(b"d", &whole, &data)]).unwrap();
    let read = |bytes: usize| {
        let (extents, mut out) = ([Extent::new(0, bytes as u64).unwrap()], vec![0; bytes]);
        object.fetch(&View::Latest, &mut [EntryFetch::array(b"d", b"data", 1, &extents, &mut out)]).unwrap();
        assert!(out == data[..bytes]);
    };
    // One pins the ring's head, five of this size fill the area.
    for (left, bytes) in [(1, 64 << 10), (5, MIB), (12, 32 << 10)] {
        let extents = [Extent::new(0, bytes as u64).unwrap()];
        let mut room: Vec<Vec<u8>> = vec![vec![0; bytes]; left];
        {
            let mut entries: Vec<[EntryFetch<'_>; 1]> =
                room.iter_mut().map(|out| [EntryFetch::array(b"d", b"data", 1, &extents, out)]).collect();
            let mut futures: Vec<_> =
                entries.iter_mut().map(|entries| Box::pin(object.fetch_async(&View::Latest, entries))).collect();
            futures.iter_mut().for_each(|future| begin(future.as_mut()));
            // More than 256 KiB of records and 5 MiB of data.
            (0..200).for_each(|_| read(6_000));
            (0..20).for_each(|_| read(MIB));
            (0..5_000).for_each(|_| read(8));
            for future in futures {
                client.block_on(future).unwrap().unwrap();
            }
        }
        assert!(room.iter().all(|out| *out == data[..bytes]), "they are what they were");
    }
}

#[test]
fn a_place_in_flight_goes_to_the_next_one_if_its_first_taker_is_not_polled() {
    let (_outer, server) = one_server();
    let client = client(&server, Tuning { deadline_ms: 10_000, in_flight: 1, ..Tuning::default() });
    let container = client.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = container.object(client.new_oid(ObjectClass::S1));
    let extents = [Extent::new(0, 64).unwrap()];
    let update = [entry(b"d", &extents, &[1; 64])];
    object.update(&Write::Auto, &update).unwrap();
    let queue = Queue::new(&client);
    queue.start(object.update_async(&Write::Auto, &update));
    let mut idle = pin!(object.update_async(&Write::Auto, &update));
    begin(idle.as_mut());
    let mut idler = pin!(object.update_async(&Write::Auto, &update));
    begin(idler.as_mut());
    queue.start(object.update_async(&Write::Auto, &update));
    while !queue.is_empty() {
        queue.take(1, 2, 60_000).unwrap().into_iter().for_each(Result::unwrap);
    }
    client.block_on(idle).unwrap().unwrap();
    client.block_on(idler).unwrap().unwrap();
}

/// Looks, without ever waiting, until nothing is in flight.
fn look<T>(queue: &Queue<'_, T>, between: Duration) -> Vec<T> {
    let (began, mut all) = (Instant::now(), vec![]);
    while !queue.is_empty() {
        assert!(began.elapsed() < support::PATIENCE, "{} operations are in flight still", queue.len());
        std::thread::sleep(between);
        all.extend(queue.take(0, 64, 0).unwrap());
    }
    all
}

#[test]
fn who_only_looks_hears_of_a_dead_server_too() {
    let (_outer, mut server) = one_server();
    let client = client(&server, Tuning { deadline_ms: 2_000, ..Tuning::default() });
    let container = client.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = container.object(client.new_oid(ObjectClass::S1));
    let extents = [Extent::new(0, 64).unwrap()];
    let update = [entry(b"d", &extents, &[1; 64])];
    object.update(&Write::Auto, &update).unwrap();
    for stopped in [true, false] {
        let queue = Queue::new(&client);
        let pid = Pid::from_child(&server.child);
        match stopped {
            true => kill_process(pid, Signal::STOP).unwrap(),
            false => server.child.kill().unwrap(),
        }
        (0..8).for_each(|_| queue.start(object.update_async(&Write::Auto, &update)));
        for ended in look(&queue, Duration::from_millis(20)) {
            let error = ended.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::ServerLost | ErrorKind::Deadline), "{error}");
            assert!(error.to_string().contains("server 0"), "{error}");
        }
        if stopped {
            kill_process(pid, Signal::CONT).unwrap();
        }
    }
}

#[test]
fn computing_for_longer_than_a_deadline_ends_nothing_that_is_in_flight() {
    const FETCHES: usize = 32;
    let (_outer, server) = one_server();
    let client = client(&server, Tuning { deadline_ms: 1_000, ..Tuning::default() });
    let container = client.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = container.object(client.new_oid(ObjectClass::S1));
    let extents = [Extent::new(0, MIB as u64).unwrap()];
    let data: Vec<u8> = (0..MIB).map(|at| (at / 5) as u8).collect();
    object.update(&Write::Auto, &[entry(b"d", &extents, &data)]).unwrap();
    let mut room = vec![vec![0; MIB]; FETCHES];
    {
        // More than the rings, and what a target keeps for a client, have room for.
        let queue = Queue::new(&client);
        for out in &mut room {
            let (object, extents) = (&object, &extents);
            queue.start(async move {
                object.fetch_async(&View::Latest, &mut [EntryFetch::array(b"d", b"data", 1, extents, out)]).await
            });
        }
        std::thread::sleep(Duration::from_millis(3_000));
        let mut ended = 0;
        while !queue.is_empty() {
            for one in queue.take(1, FETCHES, 60_000).unwrap() {
                one.unwrap();
                ended += 1;
            }
        }
        assert_eq!(ended, FETCHES);
    }
    assert!(room.iter().all(|out| *out == data));
}

#[test]
fn a_process_without_descriptors_is_told_that_and_not_that_a_server_is_lost() {
    let (_outer, server) = one_server();
    let client = client(&server, Tuning { deadline_ms: 20_000, ..Tuning::default() });
    let container = client.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = container.object(client.new_oid(ObjectClass::S1));
    let extents = [Extent::new(0, 64).unwrap()];
    let update = [entry(b"d", &extents, &[1; 64])];
    let before = getrlimit(Resource::Nofile);
    // Nothing is left, then a socket, but nothing for what comes over it, and so on.
    let free = rustix::io::dup(std::io::stdin()).unwrap().as_raw_fd() as u64;
    for left in 0..4 {
        setrlimit(Resource::Nofile, Rlimit { current: Some(free + left), ..before }).unwrap();
        let error = object.update(&Write::Auto, &update).unwrap_err();
        setrlimit(Resource::Nofile, before).unwrap();
        assert!(error.to_string().contains("ulimit -n") && error.kind() == ErrorKind::Other, "{left} left: {error}");
    }
    object.update(&Write::Auto, &update).unwrap();
}
