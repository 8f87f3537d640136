//! Connecting beside other business: who does not answer holds up nobody, and a forked child keeps nobody's connection alive.

use std::io::IoSlice;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread;

use talea_fabric::endpoint::Begun;
use talea_fabric::{
    Address, Clock, Credentials, Endpoint, Event, FabricError, Hello, Listen, MuxEndpoint, PeerId, Policy, RealClock,
    Spin, client_endpoint, listen, node_id,
};

fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

fn in_ms(ms: u64) -> u64 {
    RealClock.monotonic_ns() + ms * 1_000_000
}

fn next(endpoint: &mut dyn Endpoint) -> Event {
    let deadline = in_ms(30_000);
    loop {
        if let Some(event) = endpoint.recv() {
            return event;
        }
        assert!(RealClock.monotonic_ns() < deadline, "no event came");
        endpoint.wait(deadline);
    }
}

fn target(dir: &tempfile::TempDir) -> (MuxEndpoint, Vec<Address>) {
    let ring_path = dir.path().join("t0").to_str().unwrap().to_owned();
    let interface = Some("127.0.0.1".to_owned());
    listen(&credentials(), &Listen { ring_path, interface, provider: None, spin: Spin::Never, targets: 1 }).unwrap()
}

fn echo(server: &mut dyn Endpoint, count: usize) {
    let mut gone = 0;
    while gone < count {
        match next(server) {
            Event::Message { peer, message } => server.send(peer, &[IoSlice::new(&message)]).unwrap(),
            Event::Down { .. } => gone += 1,
            Event::Up { .. } | Event::Connected { .. } => {}
        }
    }
}

/// A place of each kind where somebody takes connections and never says a word.
fn mute(dir: &tempfile::TempDir, addresses: &[Address]) -> (UnixListener, TcpListener, Vec<Address>) {
    let path = dir.path().join("mute").to_str().unwrap().to_owned();
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let host_port = tcp.local_addr().unwrap();
    let like = |address: &Address| match address {
        Address::Libfabric { provider, name } => {
            let mut name = name.clone();
            name[2..4].copy_from_slice(&host_port.port().to_be_bytes());
            Address::Libfabric { provider: provider.clone(), name }
        }
        Address::Tcp { .. } => Address::Tcp { host_port: host_port.to_string() },
        _ => Address::Ring { node: node_id(), path: path.clone() },
    };
    (unix, tcp, addresses.iter().map(like).collect())
}

fn begin(client: &mut dyn Endpoint, address: &Address, deadline_ns: u64) -> PeerId {
    match client.begin_connect(address, &Hello::default(), deadline_ns).unwrap() {
        Begun::Pending(peer) => peer,
        Begun::Up(_) => panic!("{address} was waited for"),
    }
}

#[test]
fn who_does_not_answer_holds_up_nobody_and_is_told_of_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, addresses) = target(&dir);
    let (_unix, _tcp, silent) = mute(&dir, &addresses);
    let count = addresses.len();
    let server = thread::spawn(move || echo(&mut server, count));
    let mut client = client_endpoint(&credentials(), Policy::Auto, Spin::Never).unwrap();
    // Long enough for all that follows, or that would show here.
    let deadline_ns = in_ms(4_000);
    let mut hanging: Vec<PeerId> = silent.iter().map(|address| begin(&mut client, address, deadline_ns)).collect();
    let mut peers = vec![];
    for address in &addresses {
        let peer = begin(&mut client, address, in_ms(20_000));
        match next(&mut client) {
            Event::Connected { peer: of, outcome: Ok(()) } => assert_eq!(of, peer, "{address}"),
            event => panic!("{address}: {event:?}"),
        }
        for number in 0..50u8 {
            client.send(peer, &[IoSlice::new(&[number; 100])]).unwrap();
            match next(&mut client) {
                Event::Message { peer: of, message } => assert!(of == peer && message[..] == [number; 100]),
                event => panic!("{address}: {event:?}"),
            }
        }
        peers.push(peer);
    }
    assert!(RealClock.monotonic_ns() < deadline_ns, "the machine is too slow for this test");
    // One is given up: nothing is heard of it.
    client.disconnect(hanging.remove(0));
    while !hanging.is_empty() {
        match next(&mut client) {
            Event::Connected { peer, outcome: Err(FabricError::Deadline(_)) } => {
                assert!(RealClock.monotonic_ns() >= deadline_ns);
                hanging.remove(hanging.iter().position(|of| *of == peer).expect("once each"));
            }
            event => panic!("{event:?}"),
        }
    }
    assert!(client.recv().is_none());
    peers.into_iter().for_each(|peer| client.disconnect(peer));
    server.join().unwrap();
}

#[test]
fn a_full_backlog_is_tried_again_and_nobody_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut client = client_endpoint(&credentials(), Policy::Ring, Spin::Never).unwrap();
    let gone = Address::Ring { node: node_id(), path: dir.path().join("gone").to_str().unwrap().to_owned() };
    let peer = begin(&mut client, &gone, in_ms(10_000));
    match next(&mut client) {
        Event::Connected { peer: of, outcome: Err(FabricError::Unreachable(..)) } => assert_eq!(of, peer),
        event => panic!("{event:?}"),
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = Address::Tcp { host_port: port.to_string() };
    let peer = begin(&mut client, &gone, in_ms(10_000));
    match next(&mut client) {
        Event::Connected { peer: of, outcome: Err(FabricError::Unreachable(..)) } => assert_eq!(of, peer),
        event => panic!("{event:?}"),
    }
    // A server that takes nobody, until it does.
    let (mut server, addresses) = target(&dir);
    let Address::Ring { path, .. } = &addresses[0] else { panic!() };
    let mut crowd = vec![];
    let full = loop {
        let address = rustix::net::SocketAddrUnix::new(path.as_str()).unwrap();
        let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        match rustix::net::connect(&socket, &address) {
            Ok(()) => crowd.push(socket),
            Err(error) => break error,
        }
    };
    assert_eq!(full, rustix::io::Errno::AGAIN);
    let peer = begin(&mut client, &addresses[0], in_ms(20_000));
    client.wait(in_ms(20));
    assert!(client.recv().is_none(), "it waits");
    drop(crowd);
    let server = thread::spawn(move || echo(&mut server, 1));
    match next(&mut client) {
        Event::Connected { peer: of, outcome: Ok(()) } => assert_eq!(of, peer),
        event => panic!("{event:?}"),
    }
    client.disconnect(peer);
    server.join().unwrap();
}

/// A process with everything that we have, until it is told to end.
struct Child(libc::pid_t);

impl Child {
    fn fork() -> Self {
        // SAFETY: the child calls nothing but pause and _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: both are async-signal-safe. It ends with its parent at the latest.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
                libc::_exit(0);
            }
        }
        assert!(pid > 0);
        Child(pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, waited for once.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, &mut 0, 0);
        }
    }
}

#[test]
fn a_forked_child_keeps_no_connection_of_its_parent_alive() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, addresses) = target(&dir);
    // libfabric keeps its sockets to itself (docs/status.md).
    let ours: Vec<Address> =
        addresses.into_iter().filter(|address| !matches!(address, Address::Libfabric { .. })).collect();
    assert_eq!(ours.len(), 2, "rings and TCP");
    let mut client = client_endpoint(&credentials(), Policy::Auto, Spin::Never).unwrap();
    let peers: Vec<PeerId> = ours.iter().map(|address| begin(&mut client, address, in_ms(20_000))).collect();
    let (mut up, mut connected) = (0, 0);
    while up < 2 || connected < 2 {
        up += usize::from(matches!(server.recv(), Some(Event::Up { .. })));
        match client.recv() {
            Some(Event::Connected { outcome, .. }) => {
                outcome.unwrap();
                connected += 1;
            }
            None => server.wait(in_ms(5)),
            Some(event) => panic!("{event:?}"),
        }
    }
    let child = Child::fork();
    // The parent's go on.
    for peer in &peers {
        client.send(*peer, &[IoSlice::new(b"here")]).unwrap();
        assert!(matches!(next(&mut server), Event::Message { message, .. } if message[..] == *b"here"));
    }
    // As the system does it for a process that is killed: nothing is said, all is closed.
    drop(client);
    for _ in &peers {
        assert!(matches!(next(&mut server), Event::Down { .. }), "the child lives");
    }
    drop(child);
}
