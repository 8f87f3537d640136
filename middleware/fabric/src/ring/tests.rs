//! Rings between threads and processes, honest and hostile.

use std::io::{IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::endpoint::MAX_PAYLOAD_BYTES;
use crate::handshake::{Connecting, HELLO_BYTES};

fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

fn in_s(seconds: u64) -> u64 {
    RealClock.monotonic_ns() + seconds * 1_000_000_000
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place { dir: tempfile::tempdir().unwrap() }
    }
    fn path(&self) -> String {
        self.dir.path().join("s").to_str().unwrap().to_owned()
    }
    fn server(&self) -> (RingEndpoint, Address) {
        let mut server = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
        let address = server.listen(&self.path()).unwrap();
        (server, address)
    }
}

/// The next event, or a panic when it does not come in time.
fn next(endpoint: &mut dyn Endpoint) -> Event {
    let deadline = in_s(30);
    loop {
        if let Some(event) = endpoint.recv() {
            return event;
        }
        assert!(RealClock.monotonic_ns() < deadline, "no event came");
        endpoint.wait(deadline);
    }
}

fn send(endpoint: &mut dyn Endpoint, peer: PeerId, bytes: &[u8]) {
    let deadline = in_s(30);
    loop {
        match endpoint.send(peer, &[IoSlice::new(bytes)]) {
            Ok(()) => return,
            Err(SendError::Full) => endpoint.wait(deadline),
            Err(error) => panic!("{error}"),
        }
        assert!(RealClock.monotonic_ns() < deadline, "no room came");
    }
}

/// Answers every message with itself until `count` peers have come and gone.
fn echo(mut server: impl Endpoint, count: usize) {
    let mut gone = 0;
    while gone < count {
        match next(&mut server) {
            Event::Up { .. } | Event::Connected { .. } => {}
            Event::Message { peer, message } => {
                // A peer that was killed does not take its answer.
                let mut refused = Err(SendError::Full);
                while refused == Err(SendError::Full) {
                    refused = server.send(peer, &[IoSlice::new(&message)]);
                    if refused == Err(SendError::Full) {
                        server.wait(in_s(30));
                    }
                }
            }
            Event::Down { .. } => gone += 1,
        }
    }
}

fn pattern(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ number.wrapping_mul(17)) as u8).collect()
}

fn ping_pong(client: &mut dyn Endpoint, peer: PeerId, lens: &[usize]) {
    for (number, len) in lens.iter().enumerate() {
        let bytes = pattern(number, *len);
        send(client, peer, &bytes);
        match next(client) {
            Event::Message { message, .. } => {
                assert!(message[..] == bytes[..], "message {number} of {len} bytes differs")
            }
            event => panic!("{event:?}"),
        }
    }
}

const SIZES: [usize; 9] = [0, 1, 64, 4096, 8192, 8193, 100_000, MAX_PAYLOAD_BYTES, MAX_MESSAGE_BYTES];

#[test]
fn all_sizes_go_both_ways_between_threads() {
    let place = Place::new();
    let (server, address) = place.server();
    let server = thread::spawn(move || echo(server, 1));
    let mut client = RingEndpoint::new(&credentials(), Spin::Briefly).unwrap();
    let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
    let lens: Vec<usize> = SIZES.iter().cycle().copied().take(400).collect();
    ping_pong(&mut client, peer, &lens);
    assert_eq!(client.send(peer, &[IoSlice::new(&vec![0; MAX_MESSAGE_BYTES + 1])]), Err(SendError::TooLarge));
    drop(client);
    server.join().unwrap();
}

#[test]
fn up_says_who_it_is_and_the_kernel_vouches() {
    let place = Place::new();
    let (mut server, address) = place.server();
    let client = thread::spawn(move || {
        let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
        let hello = Hello { session: 5, pid: 1, server: Some(9) };
        client.connect(&address, &hello, in_s(10)).map(|_| client).unwrap()
    });
    match next(&mut server) {
        Event::Up { hello, local: true, .. } => {
            assert_eq!(hello, Hello { session: 5, pid: std::process::id(), server: Some(9) });
        }
        event => panic!("{event:?}"),
    }
    drop(client.join().unwrap());
    assert!(matches!(next(&mut server), Event::Down { .. }));
}

#[test]
fn four_large_payloads_are_in_flight_and_a_full_ring_says_so() {
    let place = Place::new();
    let (mut server, address) = place.server();
    let (sent, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (sent_too, done_too) = (sent.clone(), done.clone());
    let client = thread::spawn(move || {
        let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
        let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
        let mut number = 0;
        while client.send(peer, &[IoSlice::new(&pattern(number, MAX_PAYLOAD_BYTES))]).is_ok() {
            number += 1;
        }
        assert!((4..10).contains(&number), "{number} payloads were taken");
        sent_too.store(true, Ordering::SeqCst);
        // Now through the doorbell of room, until the server has had enough.
        while number < 100 {
            send(&mut client, peer, &pattern(number, MAX_PAYLOAD_BYTES));
            number += 1;
        }
        assert!(matches!(next(&mut client), Event::Message { .. }));
        done_too.store(true, Ordering::SeqCst);
    });
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    while !sent.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    // Loans that come back in any order release in order.
    let mut held = Vec::new();
    for number in 0..100 {
        let Event::Message { message, .. } = next(&mut server) else { panic!() };
        assert!(message[..] == pattern(number, MAX_PAYLOAD_BYTES)[..], "payload {number} was overwritten");
        held.push((number, message));
        if held.len() == 3 {
            for (number, message) in held.drain(..).rev() {
                assert!(message[..] == pattern(number, MAX_PAYLOAD_BYTES)[..], "loan {number} was overwritten");
            }
        }
    }
    drop(held);
    send(&mut server, peer, b"enough");
    client.join().unwrap();
    assert!(done.load(Ordering::SeqCst));
}

#[test]
fn a_client_that_does_not_read_holds_only_its_own_rings() {
    let place = Place::new();
    let (mut server, address) = place.server();
    let address_too = address.clone();
    let (stop, stop_too) = std::sync::mpsc::channel::<()>();
    let lazy = thread::spawn(move || {
        let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
        client.connect(&address_too, &Hello::default(), in_s(10)).unwrap();
        let _ = stop_too.recv();
    });
    let Event::Up { peer: lazy_peer, .. } = next(&mut server) else { panic!() };
    while server.send(lazy_peer, &[IoSlice::new(&[7; 5000])]).is_ok() {}
    let good = thread::spawn(move || {
        let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
        let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
        ping_pong(&mut client, peer, &SIZES);
    });
    echo(&mut server as &mut dyn Endpoint, 1);
    good.join().unwrap();
    assert_eq!(server.send(lazy_peer, &[IoSlice::new(&[7; 5000])]), Err(SendError::Full));
    drop(stop);
    lazy.join().unwrap();
}

impl Endpoint for &mut dyn Endpoint {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        (**self).connect(address, hello, deadline_ns)
    }
    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        (**self).send(peer, parts)
    }
    fn recv(&mut self) -> Option<Event> {
        (**self).recv()
    }
    fn wait(&mut self, deadline_ns: u64) {
        (**self).wait(deadline_ns);
    }
    fn disconnect(&mut self, peer: PeerId) {
        (**self).disconnect(peer);
    }
    fn waker(&self) -> Arc<dyn Waker> {
        (**self).waker()
    }
}

#[test]
fn no_wake_up_is_lost_between_two_sleepers() {
    let place = Place::new();
    let (server, address) = place.server();
    let server = thread::spawn(move || echo(server, 1));
    let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
    let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
    // A lost wake-up stops everything until the deadline of `next`, which fails the test.
    ping_pong(&mut client, peer, &[64; 20_000]);
    let counters = client.counters();
    assert_eq!((counters.sent, counters.received), (20_000, 20_000));
    assert!(counters.doorbells <= counters.sent, "at most one doorbell a message: {counters:?}");
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_burst_to_a_waking_peer_rings_once() {
    let place = Place::new();
    let (mut server, address) = place.server();
    let ready = Arc::new(AtomicBool::new(false));
    let ready_too = ready.clone();
    let client = thread::spawn(move || {
        let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
        let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
        while !ready_too.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        (0..100).for_each(|_| send(&mut client, peer, b"x"));
        let doorbells = client.counters().doorbells;
        let _ = next(&mut client);
        doorbells
    });
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    assert!(server.before_sleep());
    ready.store(true, Ordering::SeqCst);
    while !server.connections[0].link.is_ready() {
        thread::yield_now();
    }
    thread::yield_now();
    // Still "asleep": taking messages does not arm the doorbell again.
    for _ in 0..100 {
        while server.look().is_none() {
            thread::yield_now();
        }
    }
    send(&mut server, peer, b"done");
    assert_eq!(client.join().unwrap(), 1);
}

/// Several clients with several messages each: what one has sent together comes together, so that its answers wake it once;
/// and nobody waits for a client that sends without end.
#[test]
fn messages_of_one_client_are_taken_together_and_each_gets_its_turn() {
    let place = Place::new();
    let (mut server, address) = place.server();
    let (sent, go) = (Arc::new(std::sync::Barrier::new(4)), Arc::new(std::sync::Barrier::new(4)));
    let clients: Vec<_> = [4, 4, 100]
        .map(|count| {
            let (address, sent, go) = (address.clone(), sent.clone(), go.clone());
            thread::spawn(move || {
                let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
                let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
                (0..count).for_each(|_| send(&mut client, peer, b"x"));
                sent.wait();
                go.wait();
            })
        })
        .into();
    let mut up = 0;
    while up < 3 {
        if server.events.pop_front().is_some() {
            up += 1;
        } else {
            server.collect(1_000_000);
        }
    }
    sent.wait();
    let peers: Vec<PeerId> = (0..24)
        .map(|_| match server.look() {
            Some(Event::Message { peer, .. }) => peer,
            other => panic!("{other:?}"),
        })
        .collect();
    go.wait();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let runs: Vec<usize> = peers.chunk_by(|a, b| a == b).map(<[PeerId]>::len).collect();
    // The two small ones at once, whenever their turn is; the large one in turns of eight.
    assert!(runs.iter().filter(|len| **len == 4).count() == 2, "{runs:?}");
    assert!(runs.len() <= 5 && runs.iter().all(|len| *len <= 16), "{runs:?}");
}

#[test]
fn strangers_get_no_word() {
    let place = Place::new();
    let (server, address) = place.server();
    let server = thread::spawn(move || echo(server, 1));
    for bytes in [vec![0; HELLO_BYTES], vec![0xff; 4096], b"GET / HTTP/1.1\r\n\r\n".repeat(10)] {
        let mut socket = UnixStream::connect(place.path()).unwrap();
        let _ = socket.write_all(&bytes);
        let mut got = Vec::new();
        let _ = socket.read_to_end(&mut got);
        assert!(got.is_empty(), "a stranger was answered");
    }
    let other = Credentials::new([1; 16], [3; 32]);
    let mut stranger = RingEndpoint::new(&other, Spin::Never).unwrap();
    let refused = stranger.connect(&address, &Hello::default(), in_s(10));
    assert!(matches!(refused, Err(FabricError::Refused(_))), "{refused:?}");
    let elsewhere = Address::Ring { node: "another".into(), path: place.path() };
    assert!(matches!(stranger.connect(&elsewhere, &Hello::default(), in_s(10)), Err(FabricError::Unreachable(..))));
    let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
    let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
    ping_pong(&mut client, peer, &[64; 10]);
    drop(client);
    server.join().unwrap();
}

/// Who knows the secret and reaches the socket is still refused if the kernel says that it is another user.
#[test]
fn another_user_is_refused_root() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("TALEA_CI").is_none(), "this test needs root");
        return eprintln!("skipped: needs root");
    }
    let place = Place::new();
    let (server, address) = place.server();
    let open = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(place.dir.path(), open(0o755)).unwrap();
    std::fs::set_permissions(place.path(), open(0o666)).unwrap();
    let server = thread::spawn(move || echo(server, 1));
    let path = place.path();
    let (_, hello) = Connecting::start(&credentials(), RING_CHANNEL, &Hello::default(), [9; 32], RealClock.unix_us());
    let stranger = thread::spawn(move || {
        // SAFETY: the raw call changes the user of this thread alone, which ends with this test.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
        let mut socket = UnixStream::connect(path).unwrap();
        let _ = socket.write_all(&hello);
        let mut got = Vec::new();
        let _ = socket.read_to_end(&mut got);
        got
    });
    assert!(stranger.join().unwrap().is_empty(), "another user was answered");
    let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
    client.connect(&address, &Hello::default(), in_s(10)).unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_listener_that_says_nothing_ends_at_the_deadline() {
    let place = Place::new();
    let _mute = std::os::unix::net::UnixListener::bind(place.path()).unwrap();
    let address = Address::Ring { node: crate::node_id(), path: place.path() };
    let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
    let deadline_ns = RealClock.monotonic_ns() + 50_000_000;
    let result = client.connect(&address, &Hello::default(), deadline_ns);
    assert!(matches!(result, Err(FabricError::Deadline(_))), "{result:?}");
}

#[test]
fn a_waker_ends_a_wait() {
    let mut endpoint = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
    let waker = endpoint.waker();
    let thread = thread::spawn(move || waker.wake());
    endpoint.wait(u64::MAX);
    thread.join().unwrap();
}

#[test]
fn a_live_socket_is_not_stolen_and_a_dead_one_is_replaced() {
    let place = Place::new();
    let (server, _) = place.server();
    let mut second = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
    assert!(matches!(second.listen(&place.path()), Err(FabricError::Io { .. })));
    drop(server);
    drop(std::os::unix::net::UnixListener::bind(place.path()).unwrap());
    assert!(second.listen(&place.path()).is_ok());
    drop(second);
    assert!(!std::path::Path::new(&place.path()).exists());
}

const CHILD_ADDRESS: &str = "TALEA_TEST_RING_CHILD";

/// Runs in a process of its own when a test below starts this binary again.
#[test]
fn child_process() {
    let Ok(address) = std::env::var(CHILD_ADDRESS) else { return };
    let mut client = RingEndpoint::new(&credentials(), Spin::Never).unwrap();
    let peer = client.connect(&address.parse().unwrap(), &Hello::default(), in_s(10)).unwrap();
    if std::env::var("TALEA_TEST_RING_FLOOD").is_ok() {
        for number in 0.. {
            send(&mut client, peer, &pattern(number, SIZES[number % SIZES.len()]));
        }
    }
    let lens: Vec<usize> = SIZES.iter().cycle().copied().take(200).collect();
    ping_pong(&mut client, peer, &lens);
}

fn child(address: &Address, flood: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "ring::tests::child_process", "--nocapture"]).env(CHILD_ADDRESS, address.to_string());
    if flood {
        command.env("TALEA_TEST_RING_FLOOD", "1");
    }
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn two_processes() {
    let place = Place::new();
    let (server, address) = place.server();
    let mut children = [child(&address, false), child(&address, false)];
    echo(server, 2);
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
}

#[test]
fn a_killed_client_is_down_and_the_server_goes_on() {
    let place = Place::new();
    let (mut server, address) = place.server();
    for round in 0..5 {
        let mut child = child(&address, true);
        let Event::Up { peer: up, .. } = next(&mut server) else { panic!() };
        let mut number = 0;
        loop {
            match next(&mut server) {
                Event::Message { message, .. } => {
                    assert!(message[..] == pattern(number, SIZES[number % SIZES.len()])[..]);
                    number += 1;
                    if number == 50 + round * 37 {
                        child.kill().unwrap();
                    }
                }
                Event::Down { peer } => break assert_eq!(peer, up),
                event => panic!("{event:?}"),
            }
        }
        child.wait().unwrap();
        assert_eq!(server.send(up, &[IoSlice::new(b"x")]), Err(SendError::Gone));
    }
    assert!(server.connections.is_empty());
}

/// Open descriptors of the process; 0 where other tests share it.
fn descriptors() -> usize {
    let alone = std::env::var_os("NEXTEST").is_some();
    if alone { std::fs::read_dir("/proc/self/fd").unwrap().count() } else { 0 }
}

/// While it connects, proves itself, maps, writes: the server goes on, and what the client had is free again.
#[test]
fn clients_killed_at_any_time_leave_nothing() {
    let place = Place::new();
    let (mut server, address) = place.server();
    let before = descriptors();
    let mut messages = 0;
    for round in 0..48u64 {
        let mut child = child(&address, true);
        let kill_at = RealClock.monotonic_ns() + round * 500_000;
        let mut number = 0;
        let mut take = |event| match event {
            Event::Message { message, .. } => {
                assert!(message[..] == pattern(number, SIZES[number % SIZES.len()])[..], "message {number}");
                number += 1;
            }
            Event::Up { .. } | Event::Connected { .. } | Event::Down { .. } => {}
        };
        while RealClock.monotonic_ns() < kill_at {
            if let Some(event) = server.recv() {
                take(event);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline_ns = in_s(30);
        while !server.connections.is_empty() || descriptors() > before {
            assert!(RealClock.monotonic_ns() < deadline_ns, "something of round {round} stayed");
            match server.recv() {
                Some(event) => take(event),
                None => server.wait(RealClock.monotonic_ns() + 1_000_000),
            }
        }
        messages += number;
    }
    assert!(messages > 0, "some were killed while they wrote");
    // And a good one is served as before.
    let mut good = child(&address, false);
    echo(server, 1);
    assert!(good.wait().unwrap().success());
}

/// Both ends in one thread, over one mapping, without sockets: the client's and the server's.
fn pair(geometry: Geometry) -> (Arc<Mapping>, Link, Link) {
    let (mapping, _fd) = Mapping::create(geometry.total_bytes()).unwrap();
    let mapping = Arc::new(mapping);
    let link = |side| Link::new(&mapping, geometry, side, Bell::new(crate::poller::new_eventfd().unwrap().into()));
    (mapping.clone(), link(Side::Client), link(Side::Server))
}

fn small() -> Geometry {
    Geometry::checked(4 * 8192, 4096 * 272).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a queue: whatever is pushed comes out once, in order, whole, whichever loans are held how long.
    #[test]
    fn a_lane_is_a_queue(steps in prop::collection::vec((0usize..20_000, 0u8..4), 1..300)) {
        let (_mapping, mut client, mut server) = pair(small());
        let mut model = VecDeque::new();
        let mut held = VecDeque::new();
        for (number, (len, what)) in steps.into_iter().enumerate() {
            match what {
                0 | 1 => {
                    let bytes = pattern(number, len);
                    match client.push(&[IoSlice::new(&bytes[..len / 3]), IoSlice::new(&bytes[len / 3..])]) {
                        Ok(()) => model.push_back(bytes),
                        Err(error) => prop_assert_eq!(error, PushError::Full),
                    }
                }
                2 => match server.pop().unwrap() {
                    Some(message) => {
                        let bytes = model.pop_front();
                        prop_assert_eq!(Some(&message[..]), bytes.as_deref());
                        held.push_back((message, bytes));
                    }
                    None => prop_assert!(model.is_empty()),
                },
                _ => {
                    let index = len % held.len().max(1);
                    if let Some((message, bytes)) = held.remove(index) {
                        prop_assert_eq!(Some(&message[..]), bytes.as_deref());
                    }
                }
            }
        }
    }

    /// A client that scribbles anywhere in the shared memory gets itself disconnected at worst, whatever the server does
    /// meanwhile: takes, keeps and gives back messages, sends, goes to sleep.
    #[test]
    fn a_lying_peer_is_harmless(
        scribbles in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0u8..14), 1..200),
    ) {
        let (mapping, mut client, mut server) = pair(small());
        let (to_server, to_client) = (small().lane_from(Side::Client), small().lane_from(Side::Server));
        let word = |at: usize, value: u64| mapping.word(at).store(value, Ordering::SeqCst);
        let mut held = VecDeque::new();
        for (at, value, what) in scribbles {
            match what {
                0 => _ = client.push(&[IoSlice::new(&vec![1; value as usize % 20_000])]),
                1 | 2 => match server.pop() {
                    Ok(Some(message)) => {
                        prop_assert!(message.len() <= MAX_MESSAGE_BYTES);
                        held.push_back(message);
                    }
                    Ok(None) => {}
                    Err(Lied) => break,
                },
                3 => word(to_server.tail, value % 100_000),
                4 => word(to_server.tail, value & !63),
                5 => word(to_server.head, value % 100_000),
                6 => word(to_client.head, value % 100_000),
                7 => word(to_client.head, value),
                8 => _ = mapping.write(to_server.ring + at.index(2048) * 16, &(value % 5).to_le_bytes()),
                9 => _ = mapping.write(at.index(small().total_bytes()), &value.to_le_bytes()),
                10 => _ = mapping.write(to_server.ring + at.index(512) * 64, &[(value % 4) as u8, 0, 0, 0]),
                11 => _ = held.remove(at.index(held.len().max(1))),
                12 => match server.push(&[IoSlice::new(&vec![2; value as usize % 20_000])]) {
                    Ok(()) | Err(PushError::Full) => {}
                    Err(PushError::Lied) => break,
                    Err(PushError::TooLarge) => prop_assert!(false, "not so large"),
                },
                _ => {
                    server.say_asleep();
                    server.is_ready();
                    server.say_awake();
                }
            }
            let bytes: u64 = held.iter().map(|message| message.iter().map(|byte| u64::from(*byte)).sum::<u64>()).sum();
            std::hint::black_box(bytes);
        }
    }
}
