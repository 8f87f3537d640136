//! Bulk: what is copied, how many messages and buffers it takes, and whose memory is left alone.

use super::*;
use crate::Message;

const MIB: usize = 1 << 20;

/// A server that gives back what it is sent, in buffers that it uses again; ends with its client. Gives its endpoint.
fn giving(mut server: Any) -> Any {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        match next(&mut *server) {
            Event::Up { .. } | Event::Connected { .. } => {}
            Event::Message { peer, message } => {
                while let Some(buffer) = server.given_back() {
                    kept.push(buffer);
                }
                let mut data = kept.pop().unwrap_or_default();
                data.clear();
                data.extend_from_slice(&message);
                drop(message);
                let (head, data) = (data[..8].to_vec(), data.split_off(8));
                assert!(matches!(server.give(peer, [head, data]), Ok(None)), "a given message was copied");
            }
            Event::Down { .. } => return server,
        }
    }
}

fn bulk_is_one_message_of_the_provider_and_read_where_it_arrived(kind: Kind) {
    const ROUNDS: usize = 40;
    let (server, address) = server(kind);
    let thread = thread::spawn(move || giving(server));
    let (mut client, peer) = connect(&address);
    let round = |client: &mut Any, number| {
        let bytes = pattern(number, MIB);
        send(&mut **client, peer, &bytes).unwrap();
        match next(&mut **client) {
            Event::Message { message: message @ Message::Received(_), .. } => assert!(message[..] == bytes[..]),
            event => panic!("{event:?}"),
        }
    };
    (0..4).for_each(|number| round(&mut client, number));
    let (made, handed) = (client.spares().made, client.spares().handed);
    (0..ROUNDS).for_each(|number| round(&mut client, number));
    assert_eq!(client.spares().made, made, "used buffers are used again");
    assert_eq!(client.spares().handed - handed, ROUNDS as u64, "one message each");
    // Of a connected endpoint the proof is copied, too.
    let proof = if kind == Kind::Connected { CONFIRM_BYTES } else { 0 };
    assert_eq!(client.spares().copied_bytes, (proof + (ROUNDS + 4) * MIB) as u64, "once on the way out");
    assert_eq!(client.copied_bytes(), 0);
    client.disconnect(peer);
    let server = thread.join().unwrap();
    assert_eq!(server.spares().handed, (ROUNDS + 4) as u64);
    assert_eq!((server.spares().copied_bytes, server.copied_bytes(), server.spares().made), (0, 0, 0));
}

fn who_keeps_messages_stops_none_that_follow(kind: Kind) {
    const MESSAGES: usize = 20;
    let (mut server, address) = server(kind);
    let thread = thread::spawn(move || {
        let Event::Up { peer, .. } = next(&mut *server) else { panic!() };
        for number in 0..MESSAGES {
            send(&mut *server, peer, &pattern(number, MIB)).unwrap();
        }
        send(&mut *server, peer, b"end").unwrap();
        assert!(matches!(next(&mut *server), Event::Down { .. }));
    });
    let (mut client, peer) = connect(&address);
    let mut kept = Vec::new();
    while let Event::Message { message, .. } = next(&mut *client)
        && message[..] != *b"end"
    {
        kept.push(message);
    }
    assert!(kept.len() == MESSAGES && kept.iter().enumerate().all(|(n, message)| message[..] == pattern(n, MIB)[..]));
    let lent = kept.iter().filter(|message| matches!(message, Message::Received(_))).count();
    assert_eq!(lent, kind.ways().connected_receives - 1);
    assert_eq!(client.copied_bytes() as usize, 3 + (MESSAGES - lent) * MIB);
    client.disconnect(peer);
    // Loans outlive their connection and their endpoint, and may end in any thread.
    drop(client);
    thread::spawn(move || drop(kept)).join().unwrap();
    thread.join().unwrap();
}

/// A server and its client, connected.
fn pair(kind: Kind) -> (Any, (Any, PeerId)) {
    let (mut server, address) = server(kind);
    let client = thread::spawn(move || connect(&address));
    let Event::Up { .. } = next(&mut *server) else { panic!() };
    (server, client.join().unwrap())
}

fn what_came_before_the_end_is_told_before_it(kind: Kind) {
    let (mut server, (mut client, peer)) = pair(kind);
    for number in 0..2 {
        send(&mut *client, peer, &pattern(number, 100_000)).unwrap();
    }
    // Both have arrived and the end is known before anybody asks for the first one.
    while server.untold() < 2 {
        client.sleep(0);
        server.sleep(0);
    }
    client.disconnect(peer);
    while server.untold() < 3 {
        server.sleep(0);
    }
    for number in 0..2 {
        let Some(Event::Message { message, .. }) = server.recv() else { panic!() };
        assert!(message[..] == pattern(number, 100_000)[..]);
    }
    assert!(matches!(server.recv(), Some(Event::Down { .. })));
}

#[test]
fn a_message_larger_than_any_ends_the_connection() {
    let (mut server, address) = connected();
    let client = thread::spawn(move || {
        let mut client = LibfabricEndpoint::new(&credentials(), Spin::Never).unwrap();
        let peer = client.connect(&address, &Hello::default(), in_s(10)).unwrap();
        (client, peer)
    });
    let Event::Up { .. } = next(&mut server) else { panic!() };
    let (client, peer) = client.join().unwrap();
    let large = vec![0; MAX_MESSAGE_BYTES + 1];
    let active = &client.peers[&peer.0].active;
    assert!(active.send(&[&large], 0).unwrap());
    let mut device = client.device.as_ref();
    let deadline = in_s(10);
    loop {
        // Carries the bytes over.
        device = device.inspect(|device| _ = device.completions(&mut Vec::new()));
        match server.recv() {
            Some(Event::Down { .. }) => break,
            Some(event) => panic!("{event:?}"),
            None => assert!(RealClock.monotonic_ns() < deadline, "the connection stays"),
        }
    }
    drop(client);
}

const CHECKING_ADDRESS: &str = "TALEA_TEST_LIBFABRIC_CHECKING";

/// Runs in a process of its own when the test below starts this binary again: looks at all that it is sent.
#[test]
fn checking_process() {
    let Ok(address) = std::env::var(CHECKING_ADDRESS) else { return };
    let (mut client, peer) = connect(&address.parse().unwrap());
    let mut count = 0u64;
    while let Event::Message { message, .. } = next(&mut *client)
        && !message.is_empty()
    {
        assert!(message[..] == pattern(count as usize, MIB)[..], "message {count} was changed on its way");
        count += 1;
    }
    send(&mut *client, peer, &count.to_le_bytes()).unwrap();
    next(&mut *client);
}

/// The rule of design.md §6: when a send has returned, its memory is the caller's again, whatever the peer does.
fn memory_is_the_callers_again_while_the_peer_is_stopped(kind: Kind) {
    let (mut server, address) = server(kind);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "libfabric::tests::bulk::checking_process", "--nocapture"])
        .env(CHECKING_ADDRESS, address.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let Event::Up { peer, .. } = next(&mut *server) else { panic!() };
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let (mut sent, mut memory) = (0, Vec::new());
    loop {
        memory.clear();
        memory.extend_from_slice(&pattern(sent, MIB));
        let taken = server.send(peer, &[IoSlice::new(&memory)]);
        // Nothing may read this.
        memory.fill(0xee);
        match taken {
            Ok(()) => sent += 1,
            Err(error) => break assert_eq!(error, SendError::Full),
        }
        let _ = server.recv();
        assert!(sent < 100, "a stopped peer must fill");
    }
    assert!(sent > 2 && server.outbox_bytes(peer) >= MIB, "it has not taken everything");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    send(&mut *server, peer, &[]).unwrap();
    let Event::Message { message, .. } = next(&mut *server) else { panic!() };
    assert_eq!(message[..], (sent as u64).to_le_bytes());
    // Nor does the end of a connection wait for a stopped peer, or leave anything of it behind.
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    while server.send(peer, &[IoSlice::new(&memory)]).is_ok() {}
    server.disconnect(peer);
    assert!(server.is_bare());
    child.kill().unwrap();
    child.wait().unwrap();
}

over_both!(
    bulk_is_one_message_of_the_provider_and_read_where_it_arrived,
    who_keeps_messages_stops_none_that_follow,
    what_came_before_the_end_is_told_before_it,
    memory_is_the_callers_again_while_the_peer_is_stopped
);
