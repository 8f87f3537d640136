//! Targets and clients as servers and libtalea put them together, over every address that a target publishes.

use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::thread;

use talea_fabric::endpoint::MAX_MESSAGE_BYTES;
use talea_fabric::{
    Address, Clock, Credentials, Endpoint, Event, FabricError, Hello, Listen, MuxEndpoint, PeerId, Policy, RealClock,
    SendError, Spin, StreamEndpoint, client_endpoint, listen,
};

const SIZES: [usize; 6] = [0, 1, 64, 8193, 1_048_576, MAX_MESSAGE_BYTES];

fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

fn in_s(seconds: u64) -> u64 {
    RealClock.monotonic_ns() + seconds * 1_000_000_000
}

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
    let (front, back) = bytes.split_at(bytes.len() / 3);
    while let Err(error) = endpoint.send(peer, &[IoSlice::new(front), IoSlice::new(back)]) {
        assert_eq!(error, SendError::Full);
        endpoint.wait(in_s(30));
    }
}

fn echo(server: &mut dyn Endpoint, count: usize) {
    let mut gone = 0;
    while gone < count {
        match next(server) {
            Event::Up { .. } | Event::Connected { .. } => {}
            Event::Message { peer, message } => send(server, peer, &message),
            Event::Down { .. } => gone += 1,
        }
    }
}

fn target(dir: &tempfile::TempDir) -> (MuxEndpoint, Vec<Address>) {
    target_by(dir, None).unwrap()
}

fn target_by(dir: &tempfile::TempDir, provider: Option<&str>) -> Result<(MuxEndpoint, Vec<Address>), FabricError> {
    let ring_path = dir.path().join("t0").to_str().unwrap().to_owned();
    let (interface, provider) = (Some("127.0.0.1".to_owned()), provider.map(str::to_owned));
    listen(&credentials(), &Listen { ring_path, interface, provider, spin: Spin::Never, targets: 1 })
}

fn ping_pong(client: &mut dyn Endpoint, peer: PeerId, rounds: usize) {
    for (number, len) in SIZES.iter().cycle().take(rounds).enumerate() {
        let bytes: Vec<u8> = (0..*len).map(|i| (i ^ number) as u8).collect();
        send(client, peer, &bytes);
        match next(client) {
            Event::Message { peer: from, message } => {
                assert_eq!(from, peer);
                assert!(message[..] == bytes[..], "{len} bytes came back changed");
            }
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn every_published_address_carries_every_size() {
    every_size_by(None);
}

#[test]
fn every_published_address_carries_every_size_by_datagrams() {
    every_size_by(Some("tcp;ofi_rxm"));
}

/// Whoever names a provider is not given another one in silence.
#[test]
fn a_provider_that_this_release_does_not_use_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = target_by(&dir, Some("psm2")).map(drop).unwrap_err();
    assert!(matches!(&error, FabricError::Unsupported(..)) && error.to_string().contains("psm2"), "{error}");
}

fn every_size_by(provider: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, addresses) = target_by(&dir, provider).unwrap();
    let count = addresses.len();
    assert!(count >= 2);
    let is_rdm = |address: &Address| matches!(address, Address::Datagrams { .. });
    assert_eq!(addresses.iter().any(is_rdm), provider.is_some());
    let server = thread::spawn(move || echo(&mut server, count));
    let mut client = client_endpoint(&credentials(), Policy::Auto, Spin::Never).unwrap();
    let peers: Vec<PeerId> =
        addresses.iter().map(|address| client.connect(address, &Hello::default(), in_s(10)).unwrap()).collect();
    for peer in &peers {
        ping_pong(&mut client, *peer, 60);
    }
    peers.into_iter().for_each(|peer| client.disconnect(peer));
    server.join().unwrap();
}

#[test]
fn a_wrong_secret_is_refused_at_every_address() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, addresses) = target(&dir);
    let waker = server.waker();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        while stopped.try_recv().is_err() {
            assert!(server.recv().is_none(), "a stranger became a peer");
            server.wait(in_s(30));
        }
    });
    let other = Credentials::new([1; 16], [3; 32]);
    for address in &addresses {
        let mut client = client_endpoint(&other, Policy::Auto, Spin::Never).unwrap();
        let refused = client.connect(address, &Hello::default(), in_s(5));
        assert!(matches!(refused, Err(FabricError::Refused(_) | FabricError::Deadline(_))), "{address}: {refused:?}");
    }
    stop.send(()).unwrap();
    waker.wake();
    thread.join().unwrap();
}

#[test]
fn a_truncated_or_foreign_greeting_gets_no_answer() {
    let mut server = StreamEndpoint::new(&credentials(), Spin::Never).unwrap();
    let Address::Tcp { host_port } = server.listen_tcp("127.0.0.1:0").unwrap() else { panic!() };
    let waker = server.waker();
    let stranger = thread::spawn(move || {
        for bytes in [&b"TALEAFAB"[..], b"GET / HTTP/1.0\r\n\r\n"] {
            let mut socket = TcpStream::connect(&host_port).unwrap();
            socket.write_all(bytes).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let mut got = Vec::new();
            let _ = socket.read_to_end(&mut got);
            assert!(got.is_empty());
        }
        waker.wake();
    });
    while !stranger.is_finished() {
        assert!(server.recv().is_none());
        server.wait(RealClock.monotonic_ns() + 10_000_000);
    }
    stranger.join().unwrap();
}

#[test]
fn two_targets_dial_each_other_at_once() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut targets: Vec<_> = dirs.iter().map(target).collect();
    let addresses: Vec<Address> = targets.iter().map(|(_, addresses)| addresses[0].clone()).collect();
    thread::scope(|scope| {
        for ((endpoint, _), address) in targets.iter_mut().zip(addresses.iter().rev()) {
            scope.spawn(move || {
                let peer = endpoint.connect(address, &Hello::default(), in_s(20)).unwrap();
                send(endpoint, peer, b"hello");
                let mut seen = 0;
                while seen < 1 {
                    match next(endpoint) {
                        Event::Message { message, .. } => {
                            assert_eq!(&message[..], b"hello");
                            seen += 1;
                        }
                        Event::Up { .. } | Event::Connected { .. } => {}
                        Event::Down { .. } => panic!("the other target is gone"),
                    }
                }
            });
        }
    });
}

#[test]
fn a_peer_that_does_not_read_fills_only_its_own_stream() {
    let mut server = StreamEndpoint::new(&credentials(), Spin::Never).unwrap();
    let address = server.listen_tcp("127.0.0.1:0").unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let lazy = thread::spawn(move || {
        let mut client = StreamEndpoint::new(&credentials(), Spin::Never).unwrap();
        client.connect(&address, &Hello::default(), in_s(10)).unwrap();
        let _ = stopped.recv();
        // What was taken arrives whole, then the end.
        let mut messages = 0;
        loop {
            match next(&mut client) {
                Event::Message { message, .. } => {
                    assert_eq!(message.len(), 1_000_000);
                    messages += 1;
                }
                Event::Down { .. } => return messages,
                event => panic!("{event:?}"),
            }
        }
    });
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    let mut taken = 0;
    while server.send(peer, &[IoSlice::new(&[5; 1_000_000])]).is_ok() {
        taken += 1;
        assert!(taken < 100, "an unread stream must fill");
    }
    stop.send(()).unwrap();
    // Room comes back as the peer reads; then the last message and the end.
    send(&mut server, peer, &[5; 1_000_000]);
    let deadline = in_s(30);
    while !server.idle(peer) {
        server.wait(deadline);
        assert!(server.recv().is_none());
    }
    server.disconnect(peer);
    assert_eq!(lazy.join().unwrap(), taken + 1);
}

#[test]
fn an_idle_target_sleeps() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, addresses) = target(&dir);
    let waker = server.waker();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let mut waits = 0;
        while stopped.try_recv().is_err() {
            while server.recv().is_some() {}
            server.wait(in_s(30));
            waits += 1;
        }
        waits
    });
    let mut client = client_endpoint(&credentials(), Policy::Auto, Spin::Never).unwrap();
    for address in &addresses {
        client.connect(address, &Hello::default(), in_s(10)).unwrap();
    }
    thread::sleep(std::time::Duration::from_millis(400));
    stop.send(()).unwrap();
    waker.wake();
    let waits = thread.join().unwrap();
    assert!(waits < 60, "woke {waits} times for {} connections", addresses.len());
}
