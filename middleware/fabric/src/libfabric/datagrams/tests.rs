//! What is the datagrams' own: strangers, meetings, what ended connections leave behind. (`libfabric/tests.rs` runs over both kinds.)

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::super::carrier::Carrier as _;
use super::super::tests::{child, connect, credentials, in_s, next, pattern, ping_pong, send};
use super::super::ways::TCP_DATAGRAMS;
use super::device::{Lane, NAME_BYTES};
use super::*;
use crate::handshake::HELLO_BYTES;

const MIB: usize = 1 << 20;

fn listening() -> (DatagramEndpoint, Address) {
    let mut server = DatagramEndpoint::new(&credentials(), Spin::Never).unwrap();
    let address = server.listen(TCP_DATAGRAMS.provider, "127.0.0.1").unwrap();
    (server, address)
}

fn host_port(address: &Address) -> &str {
    let Address::Datagrams { host_port, .. } = address else { panic!() };
    host_port
}

/// The server's own address and tags are its peers' alone: whoever guesses wrong is heard by nobody, and costs no turn.
#[test]
fn what_strangers_send_matches_nothing() {
    let (mut server, address) = listening();
    let mut name = [0; NAME_BYTES];
    let own = server.device.as_ref().unwrap().name();
    name[..own.len()].copy_from_slice(own);
    let (said, heard) = std::sync::mpsc::channel::<()>();
    let client = thread::spawn(move || {
        let (mut client, peer) = connect(&address);
        heard.recv().unwrap();
        ping_pong(&mut client, peer, 16);
        client.disconnect(peer);
    });
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    let (tag_in, taken) = (server.peers[&peer.0].tag_in, Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let done = taken.clone();
    let stranger = thread::spawn(move || {
        let device = Device::open(&TCP_DATAGRAMS, "127.0.0.1").unwrap();
        let to = device.insert(&name).unwrap();
        let words = vec![0x55; 100_000];
        for tag_out in [0, 1, u64::MAX, tag_in ^ 1] {
            let lane = Lane { device: &device, to, tag_out, tag_in: 0 };
            let deadline = in_s(20);
            while !lane.send(&[&words], 1 << 16).unwrap() {
                device.completions(&mut Vec::new());
                assert!(RealClock.monotonic_ns() < deadline, "it does not connect");
            }
        }
        said.send(()).unwrap();
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            device.completions(&mut Vec::new());
            thread::sleep(Duration::from_millis(1));
        }
    });
    let mut messages = 0;
    loop {
        match next(&mut server) {
            Event::Message { peer: of, message } => {
                assert_eq!(of, peer);
                assert!(message.iter().any(|byte| *byte != 0x55) || message.len() < 2, "a stranger's word was told");
                send(&mut server, of, &message).unwrap();
                messages += 1;
            }
            Event::Down { .. } => break,
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(messages, 16);
    taken.store(true, std::sync::atomic::Ordering::Relaxed);
    stranger.join().unwrap();
    client.join().unwrap();
}

#[test]
fn strangers_get_no_word_from_the_socket() {
    let (mut server, address) = listening();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let waker = server.waker();
    let thread = thread::spawn(move || {
        while stopped.try_recv().is_err() {
            assert!(server.recv().is_none(), "a stranger became a peer");
            server.wait(in_s(30));
        }
        assert!(server.is_bare());
    });
    // With the wrong secret, as another system's client.
    let mut other = DatagramEndpoint::new(&Credentials::new([1; 16], [3; 32]), Spin::Never).unwrap();
    let refused = other.connect(&address, &Hello::default(), in_s(10));
    assert!(matches!(refused, Err(FabricError::Refused(_))), "{refused:?}");
    for words in [&[0x55; 4096][..], &[0; HELLO_BYTES]] {
        let mut socket = TcpStream::connect(host_port(&address)).unwrap();
        socket.write_all(words).unwrap();
        // The server may have ended the connection by then.
        let _ = socket.shutdown(std::net::Shutdown::Write);
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut got = Vec::new();
        let _ = socket.read_to_end(&mut got);
        assert!(got.is_empty(), "a stranger was told {got:?}");
    }
    stop.send(()).unwrap();
    waker.wake();
    thread.join().unwrap();
}

#[test]
fn nobody_there_is_an_error_and_so_is_somebody_mute() {
    let (dead, address) = listening();
    drop(dead);
    let mut client = DatagramEndpoint::new(&credentials(), Spin::Never).unwrap();
    let result = client.connect(&address, &Hello::default(), in_s(10));
    assert!(matches!(result, Err(FabricError::Refused(_) | FabricError::Unreachable(..))), "{result:?}");
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host_port = mute.local_addr().unwrap().to_string();
    let mute_address = Address::Datagrams { provider: TCP_DATAGRAMS.provider.to_owned(), host_port };
    let deadline_ns = RealClock.monotonic_ns() + 100_000_000;
    let result = client.connect(&mute_address, &Hello::default(), deadline_ns);
    assert!(matches!(result, Err(FabricError::Deadline(_))), "{result:?}");
    assert!(client.is_bare());
    // A provider that this release does not use is said to be one.
    let foreign = Address::Datagrams { provider: "cxi".into(), host_port: "127.0.0.1:1".into() };
    let result = client.connect(&foreign, &Hello::default(), in_s(10));
    assert!(matches!(&result, Err(FabricError::Unreachable(_, why)) if why.contains("cxi")), "{result:?}");
    let result = client.listen("cxi", "127.0.0.1");
    assert!(matches!(&result, Err(FabricError::Unsupported(_, why)) if why.contains("cxi")), "{result:?}");
}

/// A connection that is proved and then mute is given up, on both sides.
#[test]
fn one_that_does_not_say_where_it_receives_is_no_peer() {
    let (mut server, address) = listening();
    let name = address.to_string();
    let mut dialling = {
        let (hello, deadline_ns) = (Hello::default(), in_s(20));
        let (credentials, channel) = (credentials(), DATAGRAM_CHANNEL);
        let terms = crate::dial::Terms { name, credentials: &credentials, channel, hello: &hello, deadline_ns };
        Dial::tcp(host_port(&address), terms).unwrap()
    };
    let poller = Poller::new().unwrap();
    let deadline = in_s(20);
    while !dialling.advance(&poller, 1).unwrap() {
        server.sleep(1_000_000);
        assert!(RealClock.monotonic_ns() < deadline);
    }
    while server.meetings.is_empty() {
        server.sleep(1_000_000);
        assert!(RealClock.monotonic_ns() < deadline);
    }
    assert!(server.recv().is_none() && server.timer_ns() < u64::MAX, "its time is limited");
    server.meetings.values_mut().for_each(|meeting| meeting.deadline_ns = 0);
    server.sleep(0);
    assert!(server.is_bare() && server.recv().is_none());
    // The server has ended it.
    let socket = dialling.into_socket(&poller).unwrap();
    let mut stream = TcpStream::from(rustix::io::dup(&socket).unwrap());
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut told = Vec::new();
    let _ = stream.read_to_end(&mut told);
    assert!(told.len() <= 80, "the server says where it receives, and no more");
}

/// Rule 12: the end of a process is noticed by its socket, with nothing sent to it, and what the provider had for it is let go of.
#[test]
fn what_is_on_its_way_to_a_killed_peer_is_let_go_of() {
    let (mut server, address) = listening();
    let mut killed = child(&address);
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    let Event::Message { .. } = next(&mut server) else { panic!() };
    let pid = rustix::process::Pid::from_child(&killed);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let bytes = pattern(1, MIB);
    while server.send(peer, &[IoSlice::new(&bytes)]).is_ok() {
        while let Some(event) = server.recv() {
            assert!(matches!(event, Event::Message { .. }));
        }
    }
    // Another peer keeps the provider's endpoint from ending.
    let other = thread::spawn(move || connect(&address));
    while !matches!(next(&mut server), Event::Up { .. }) {}
    let other = other.join().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    while !matches!(next(&mut server), Event::Down { peer: of } if of == peer) {}
    let deadline = in_s(20);
    while !server.rests.is_empty() {
        server.sleep(1_000_000);
        assert!(RealClock.monotonic_ns() < deadline, "the provider keeps what it had for a dead peer");
    }
    assert!(server.device.is_some());
    drop(other);
}

/// A peer that is stopped keeps nothing of a connection that we have ended, and the next connection has another endpoint.
#[test]
fn with_the_last_connection_the_providers_endpoint_ends() {
    let (mut server, address) = listening();
    let mut stopped = child(&address);
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    let Event::Message { .. } = next(&mut server) else { panic!() };
    let pid = rustix::process::Pid::from_child(&stopped);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let bytes = pattern(1, MIB);
    while server.send(peer, &[IoSlice::new(&bytes)]).is_ok() {}
    server.disconnect(peer);
    assert!(server.rests.contains_key(&peer.0), "buffers that the provider may have are kept");
    server.sleep(0);
    assert!(server.is_bare() && server.rests.is_empty(), "nothing is left with the provider");
    let client = thread::spawn(move || {
        let (mut client, peer) = connect(&address);
        ping_pong(&mut client, peer, 8);
    });
    loop {
        match next(&mut server) {
            Event::Message { peer, message } => send(&mut server, peer, &message).unwrap(),
            Event::Down { .. } => break,
            _ => {}
        }
    }
    client.join().unwrap();
    stopped.kill().unwrap();
    stopped.wait().unwrap();
}

/// The same process comes back after its connection has ended, again and again: nothing of the old connection is told on the new one.
#[test]
fn who_connects_again_begins_anew() {
    const ROUNDS: usize = 2 * CONNECTIONS_MAX as usize;
    let (mut server, address) = listening();
    let thread = thread::spawn(move || {
        let (mut ups, mut downs) = (0, 0);
        while downs < ROUNDS {
            match next(&mut server) {
                Event::Up { .. } => ups += 1,
                // An answer that nobody may be there for.
                Event::Message { peer, message } => drop(server.send(peer, &[IoSlice::new(&message)])),
                Event::Down { .. } => downs += 1,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(ups, ROUNDS);
    });
    let mut client = DatagramEndpoint::new(&credentials(), Spin::Never).unwrap();
    for round in 0..ROUNDS {
        let peer = client.connect(&address, &Hello::default(), in_s(30)).unwrap();
        let bytes = pattern(round, 100 + round);
        send(&mut client, peer, &bytes).unwrap();
        let Event::Message { peer: of, message } = next(&mut client) else { panic!() };
        assert!(of == peer && message[..] == bytes[..], "round {round}: a word of another connection");
        // Its answer may come when nobody waits for it any more.
        send(&mut client, peer, &pattern(round, 20_000)).unwrap();
        client.disconnect(peer);
    }
    thread.join().unwrap();
}

#[test]
fn messages_are_told_in_the_order_of_their_buffers() {
    let (mut server, address) = listening();
    let client = thread::spawn(move || connect(&address));
    let Event::Up { peer, .. } = next(&mut server) else { panic!() };
    let known = server.peers.get_mut(&peer.0).unwrap();
    // The second one is short and there first.
    assert_eq!(known.arrived(1, 5), Ok(vec![]));
    assert_eq!(known.arrived(0, MIB), Ok(vec![(0, MIB), (1, 5)]));
    assert_eq!(known.arrived(7, 1), Err(Broken));
    drop(client.join().unwrap());
}
