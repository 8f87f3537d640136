//! Clients without a session: they may look, and hold no more connections than a server has for them.

use super::*;
use crate::node::clients::MAX_STRANGERS;

fn connect(world: &mut World) -> PeerId {
    let peer = world.peer();
    let hello = Hello { session: 0, pid: 7, server: None };
    world.with(0, |node, now| node.peer_up(now, peer, hello, None));
    peer
}

fn say(world: &mut World, peer: PeerId, request: Request) {
    let (hlc, session, map_version) = (Stamp(0), SessionId(0), MapVersion(0));
    let envelope =
        Envelope { id: 1, hlc, session, sequence: 0, deadline_ms: 60_000, map_version, body: Body::Request(request) };
    let bytes = codec::encode(&envelope).unwrap();
    world.with(0, |node, now| node.message(now, peer, &bytes));
}

#[test]
fn of_too_many_connections_without_a_session_the_one_that_was_silent_longest_goes() {
    let mut world = World::empty(3).begun();
    let client = world.client(0);
    let before = world.node(0).peers.len();
    let speaks = connect(&mut world);
    let waits = connect(&mut world);
    say(&mut world, waits, Request::Wait { container: RUN, after: Step(0), limit: 1 });
    let silent: Vec<PeerId> = (2..MAX_STRANGERS).map(|_| connect(&mut world)).collect();
    assert_eq!(world.node(0).peers.len(), before + MAX_STRANGERS);
    world.advance(100);
    say(&mut world, speaks, Request::ContainerList);
    (0..3).for_each(|_| _ = connect(&mut world));
    let is_there = |world: &World, peer: &PeerId| world.node(0).peers.contains_key(peer);
    assert_eq!(world.node(0).peers.len(), before + MAX_STRANGERS);
    let gone: Vec<&PeerId> = silent.iter().filter(|peer| !is_there(&world, peer)).collect();
    assert_eq!(gone, [&silent[0], &silent[1], &silent[2]]);
    assert!(is_there(&world, &speaks) && is_there(&world, &waits));
    // Servers and those that have sessions are none of them, and a session can be had.
    world.ok(client, Request::ContainerList);
    assert!(world.begin(client).tx > TxId(0));
    world.client(0);
    (0..3).for_each(|server| assert!(world.node(server).is_ready()));
}
