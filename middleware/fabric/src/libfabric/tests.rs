//! libfabric over the loopback interface: peers, strangers, deaths; connected endpoints and datagrams.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::carrier::Carrier as _;
use super::device::{Active, Connection};
use super::*;
use crate::endpoint::{MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES};
use crate::handshake::{CONFIRM_BYTES, HELLO_BYTES};

mod any;
mod bulk;

use any::over_both;
pub(super) use any::{Any, Kind};

pub(super) const SIZES: [usize; 8] = [0, 1, 64, 4096, 4097, 131_072, MAX_PAYLOAD_BYTES, MAX_MESSAGE_BYTES];

pub(super) fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

pub(super) fn in_s(seconds: u64) -> u64 {
    RealClock.monotonic_ns() + seconds * 1_000_000_000
}

pub(super) fn server(kind: Kind) -> (Any, Address) {
    let mut server = Any::new(kind, &credentials());
    let address = server.listen();
    (server, address)
}

/// The connected kind, for tests that look into it.
fn connected() -> (LibfabricEndpoint, Address) {
    let mut server = LibfabricEndpoint::new(&credentials(), Spin::Never).unwrap();
    let address = server.listen("127.0.0.1").unwrap();
    (server, address)
}

pub(super) fn next<E: Endpoint + ?Sized>(endpoint: &mut E) -> Event {
    let deadline = in_s(30);
    loop {
        if let Some(event) = endpoint.recv() {
            return event;
        }
        assert!(RealClock.monotonic_ns() < deadline, "no event came");
        endpoint.wait(deadline);
    }
}

pub(super) fn send<E: Endpoint + ?Sized>(endpoint: &mut E, peer: PeerId, bytes: &[u8]) -> Result<(), SendError> {
    let (front, back) = bytes.split_at(bytes.len() / 3);
    let deadline = in_s(30);
    loop {
        match endpoint.send(peer, &[IoSlice::new(front), IoSlice::new(&[]), IoSlice::new(back)]) {
            Err(SendError::Full) => endpoint.wait(deadline),
            other => return other,
        }
        assert!(RealClock.monotonic_ns() < deadline, "no room came");
    }
}

fn echo(server: &mut Any, count: usize) {
    let mut gone = 0;
    while gone < count {
        match next(&mut **server) {
            Event::Up { .. } | Event::Connected { .. } => {}
            Event::Message { peer, message } => drop(send(&mut **server, peer, &message)),
            Event::Down { .. } => gone += 1,
        }
    }
}

pub(super) fn pattern(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ number.wrapping_mul(17)) as u8).collect()
}

pub(super) fn ping_pong(client: &mut Any, peer: PeerId, rounds: usize) {
    for (number, len) in SIZES.iter().cycle().take(rounds).enumerate() {
        let bytes = pattern(number, *len);
        send(&mut **client, peer, &bytes).unwrap();
        match next(&mut **client) {
            Event::Message { message, .. } => assert!(message[..] == bytes[..], "{len} bytes came back changed"),
            event => panic!("{event:?}"),
        }
    }
}

pub(super) fn connect(address: &Address) -> (Any, PeerId) {
    let mut client = Any::new(Kind::of(address), &credentials());
    let peer = client.connect(address, &Hello { session: 3, pid: 4, server: None }, in_s(10)).unwrap();
    (client, peer)
}

fn every_size_goes_both_ways_and_the_end_is_noticed(kind: Kind) {
    let (mut server, address) = server(kind);
    let thread = thread::spawn(move || {
        assert!(matches!(next(&mut *server), Event::Up { hello: Hello { session: 3, pid: 4, .. }, local: false, .. }));
        echo(&mut server, 1);
        assert!(server.is_bare());
    });
    let (mut client, peer) = connect(&address);
    ping_pong(&mut client, peer, 80);
    assert_eq!(client.send(peer, &[IoSlice::new(&vec![0; MAX_MESSAGE_BYTES + 1])]), Err(SendError::TooLarge));
    client.disconnect(peer);
    thread.join().unwrap();
}

fn two_clients_and_then_the_server_ends(kind: Kind) {
    let (mut server, address) = server(kind);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let waker = server.waker();
    let thread = thread::spawn(move || {
        while stopped.try_recv().is_err() {
            if let Some(Event::Message { peer, message }) = server.recv() {
                send(&mut *server, peer, &message).unwrap();
            } else {
                server.wait(in_s(30));
            }
        }
    });
    let mut clients = [connect(&address), connect(&address)];
    for (client, peer) in &mut clients {
        ping_pong(client, *peer, 8);
    }
    stop.send(()).unwrap();
    waker.wake();
    thread.join().unwrap();
    for (client, peer) in &mut clients {
        assert!(matches!(next(&mut **client), Event::Down { peer: gone } if gone == *peer));
        assert_eq!(client.send(*peer, &[]), Err(SendError::Gone));
    }
}

fn a_peer_that_does_not_read_fills_only_its_own_connection(kind: Kind) {
    let (mut server, address) = server(kind);
    let address_too = address.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let lazy = thread::spawn(move || {
        let (mut client, _) = connect(&address_too);
        let _ = stopped.recv();
        let mut got = 0;
        while let Event::Message { message, .. } = next(&mut *client) {
            if message.is_empty() {
                break;
            }
            assert!(message[..] == pattern(got, MAX_PAYLOAD_BYTES)[..]);
            got += 1;
        }
        got
    });
    let Event::Up { peer, .. } = next(&mut *server) else { panic!() };
    let mut sent = 0;
    while server.send(peer, &[IoSlice::new(&pattern(sent, MAX_PAYLOAD_BYTES))]).is_ok() {
        sent += 1;
        let _ = server.recv();
        assert!(sent < 100, "an unread connection must fill");
    }
    let good = thread::spawn(move || {
        let (mut client, peer) = connect(&address);
        ping_pong(&mut client, peer, 16);
    });
    echo(&mut server, 1);
    good.join().unwrap();
    stop.send(()).unwrap();
    send(&mut *server, peer, &[]).unwrap();
    assert!(matches!(next(&mut *server), Event::Down { .. }));
    assert_eq!(lazy.join().unwrap(), sent);
}

#[test]
fn a_server_that_speaks_at_once_is_not_taken_for_one_that_refuses() {
    let (mut server, address) = connected();
    let mut client = LibfabricEndpoint::new(&credentials(), Spin::Never).unwrap();
    // What `connect` does, with the server's whole turn between its last two steps.
    let Address::Libfabric { name, .. } = &address else { panic!() };
    let info = Info::get(loaded().unwrap(), TCP.provider, &Want::Connect(name)).unwrap();
    client.open(&info).unwrap();
    let (connecting, bytes) = Connecting::start(
        &credentials(),
        LIBFABRIC_CHANNEL,
        &Hello::default(),
        fresh_nonce().unwrap(),
        RealClock.unix_us(),
    );
    let token = client.adopt(&info, State::Connecting(connecting)).unwrap();
    client.peers[&token].active.connect(&info, &bytes).unwrap();
    let deadline = in_s(10);
    while matches!(client.peers[&token].state, State::Connecting(_)) {
        assert!(RealClock.monotonic_ns() < deadline, "no answer came");
        server.progress();
        client.complete();
        if let Some(event) = client.device.as_ref().unwrap().event() {
            client.connection_event(event);
        }
    }
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    send(&mut server, peer, b"welcome").unwrap();
    while client.events.is_empty() {
        assert!(RealClock.monotonic_ns() < deadline, "no word came");
        server.progress();
        client.complete();
        assert!(matches!(client.peers[&token].state, State::Settled(Ok(()))), "taken for a refusal");
    }
    client.settle(token, "the server", deadline).unwrap();
    assert!(matches!(client.recv(), Some(Event::Message { message, .. }) if message[..] == *b"welcome"));
}

fn port(address: &Address) -> u16 {
    let Address::Libfabric { name, .. } = address else { panic!() };
    u16::from_be_bytes([name[2], name[3]])
}

#[test]
fn strangers_get_no_word() {
    let (mut server, address) = connected();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let waker = server.waker();
    let port = port(&address);
    let thread = thread::spawn(move || {
        while stopped.try_recv().is_err() {
            assert!(server.recv().is_none(), "a stranger became a peer");
            server.wait(in_s(30));
        }
        assert!(server.peers.is_empty());
    });
    // With the wrong secret, as another system's client.
    let mut other = LibfabricEndpoint::new(&Credentials::new([1; 16], [3; 32]), Spin::Never).unwrap();
    let refused = other.connect(&address, &Hello::default(), in_s(10));
    assert!(matches!(refused, Err(FabricError::Refused(_))), "{refused:?}");
    // With libfabric alone.
    let Address::Libfabric { name, .. } = &address else { panic!() };
    for param in [&b""[..], &[0; HELLO_BYTES], &[0xff; 200]] {
        let info = Info::get(loaded().unwrap(), TCP.provider, &Want::Connect(name)).unwrap();
        let device = Device::open(&info).unwrap();
        let active = Active::open(&device, &info).unwrap();
        active.connect(&info, param).unwrap();
        let deadline = in_s(10);
        loop {
            match device.event() {
                Some(Connection::Failed { param, .. }) => break assert!(param.iter().all(|byte| *byte == 0)),
                Some(_) => panic!("a stranger was accepted"),
                None => assert!(RealClock.monotonic_ns() < deadline, "no refusal came"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    // Without it.
    let mut socket = TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).unwrap();
    socket.write_all(&[0x55; 4096]).unwrap();
    // The server may have ended the connection by then.
    let _ = socket.shutdown(std::net::Shutdown::Write);
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut got = Vec::new();
    let _ = socket.read_to_end(&mut got);
    assert!(got.is_empty(), "a stranger was told {got:?}");
    stop.send(()).unwrap();
    waker.wake();
    thread.join().unwrap();
}

#[test]
fn nobody_there_is_an_error_and_so_is_somebody_mute() {
    let (dead, address) = connected();
    drop(dead);
    let mut client = LibfabricEndpoint::new(&credentials(), Spin::Never).unwrap();
    let result = client.connect(&address, &Hello::default(), in_s(10));
    assert!(matches!(result, Err(FabricError::Refused(_) | FabricError::Unreachable(..))), "{result:?}");
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let Address::Libfabric { provider, mut name } = address else { panic!() };
    name[2..4].copy_from_slice(&mute.local_addr().unwrap().port().to_be_bytes());
    let deadline_ns = RealClock.monotonic_ns() + 100_000_000;
    let result = client.connect(&Address::Libfabric { provider, name }, &Hello::default(), deadline_ns);
    assert!(matches!(result, Err(FabricError::Deadline(_))), "{result:?}");
    assert!(client.peers.is_empty());
}

const CHILD_ADDRESS: &str = "TALEA_TEST_LIBFABRIC_CHILD";

/// Runs in a process of its own when the test below starts this binary again.
#[test]
fn child_process() {
    let Ok(address) = std::env::var(CHILD_ADDRESS) else { return };
    let (mut client, peer) = connect(&address.parse().unwrap());
    for number in 0.. {
        send(&mut *client, peer, &pattern(number, SIZES[number % SIZES.len()])).unwrap();
    }
}

pub(super) fn child(address: &Address) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "libfabric::tests::child_process", "--nocapture"])
        .env(CHILD_ADDRESS, address.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn a_killed_client_is_down_and_the_server_goes_on(kind: Kind) {
    let (mut server, address) = server(kind);
    for round in 0..3 {
        let mut child = child(&address);
        let Event::Up { peer: up, .. } = next(&mut *server) else { panic!() };
        let mut number = 0;
        loop {
            match next(&mut *server) {
                Event::Message { message, .. } => {
                    assert!(message[..] == pattern(number, SIZES[number % SIZES.len()])[..]);
                    number += 1;
                    if number == 20 + round * 13 {
                        child.kill().unwrap();
                    }
                }
                Event::Down { peer } => break assert_eq!(peer, up),
                event => panic!("{event:?}"),
            }
        }
        child.wait().unwrap();
    }
}

fn an_idle_server_sleeps(kind: Kind) {
    let (mut server, address) = server(kind);
    let waker = server.waker();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let client = thread::spawn(move || {
        let client = connect(&address);
        thread::sleep(Duration::from_millis(300));
        stop.send(()).unwrap();
        waker.wake();
        client
    });
    assert!(matches!(next(&mut *server), Event::Up { .. }));
    let mut waits = 0;
    while stopped.try_recv().is_err() {
        assert!(!matches!(server.recv(), Some(Event::Message { .. })));
        server.wait(in_s(30));
        waits += 1;
    }
    assert!(waits < 50, "woke {waits} times with nothing to do");
    drop(client.join().unwrap());
}

/// A site sets `FI_PROVIDER` for its MPI: messages of ours go on by the provider of our own.
#[test]
fn what_a_site_chooses_for_mpi_is_not_ours() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "libfabric::tests::connected::every_size_goes_both_ways_and_the_end_is_noticed",
            "--nocapture",
        ])
        .env("FI_PROVIDER", "verbs")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

over_both!(
    every_size_goes_both_ways_and_the_end_is_noticed,
    two_clients_and_then_the_server_ends,
    a_peer_that_does_not_read_fills_only_its_own_connection,
    a_killed_client_is_down_and_the_server_goes_on,
    an_idle_server_sleeps
);
