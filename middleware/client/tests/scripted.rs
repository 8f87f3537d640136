//! The client against a scripted server on the simulated fabric: what it sends, how often, and what it makes of the answers.

#[path = "support/world.rs"]
mod world;

use talea_client::{ClientError, Condition, EntryFetch, EntryUpdate, ErrorKind, ValueKind, Write};
use talea_model::{Extent, Oid, ServerId, TargetState, View};
use talea_wire::RefusalCode;
use talea_wire::control::Request;
use talea_wire::data::{self, Fetched, ReplyBody};
use world::{CLIENT, SERVER, STAMP, World, map, refuse, reply};

fn value(data: &[u8]) -> EntryUpdate<'_> {
    EntryUpdate { dkey: b"k", akey: b"a", kind: ValueKind::Single, condition: Condition::None, extents: &[], data }
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_sequence() {
    let mut world = World::new(|n, request| if n < 3 { vec![] } else { reply(request, ReplyBody::Done) });
    let object = world.object();
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    world.run(object.update_async(&Write::Auto, &[value(b"w")])).unwrap();
    let sent: Vec<(u64, u64)> = world.seen.iter().map(|(sequence, below, ..)| (*sequence, *below)).collect();
    assert_eq!(sent, [(1, 1), (1, 1), (1, 1), (2, 2)]);
}

#[test]
fn busy_is_tried_again_and_a_refusal_is_not() {
    let mut world = World::new(|n, request| match n {
        1 | 2 => refuse(request, RefusalCode::Busy),
        _ => refuse(request, RefusalCode::NoSpace),
    });
    let object = world.object();
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert_eq!((error.kind(), world.seen.len()), (ErrorKind::NoSpace, 3));
}

#[test]
fn a_class_that_is_not_built_yet_is_not_supported_and_nobody_is_asked() {
    let mut world = World::new(|_, request| reply(request, ReplyBody::Done));
    let container = world.object().container().clone();
    for class in ["RP_2", "EC_4P2GX", "L1"] {
        let object = container.object(Oid::new(class.parse().unwrap(), 1));
        let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(class), "{error}");
    }
    assert_eq!(world.seen.len(), 0);
}

#[test]
fn a_stale_map_is_taken_and_the_request_sent_anew() {
    let mut world = World::new(|n, request| match n {
        1 => reply(request, ReplyBody::StaleMap(Box::new(map(5, TargetState::Up)))),
        _ => reply(request, ReplyBody::Done),
    });
    let object = world.object();
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    let versions: Vec<u32> = world.seen.iter().map(|(_, _, version, _)| version.0).collect();
    assert_eq!(versions, [1, 5]);
}

#[test]
fn a_target_that_the_map_calls_down_is_lost_at_once() {
    let mut world = World::new(|_, request| reply(request, ReplyBody::StaleMap(Box::new(map(2, TargetState::Down)))));
    let object = world.object();
    let began_ns = world.network.now_ns();
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert!(
        matches!(&error, ClientError::ServerLost { server: ServerId(0), host, .. } if host == "scripted"),
        "{error}"
    );
    assert!(world.network.now_ns() - began_ns < 1_000_000_000, "not only at the deadline");
}

#[test]
fn a_target_that_is_up_again_is_found_by_asking_though_nobody_else_tells_of_it() {
    let mut world = World::new(|n, request| match n {
        1 => reply(request, ReplyBody::StaleMap(Box::new(map(2, TargetState::Down)))),
        _ => reply(request, ReplyBody::Done),
    });
    let object = world.object();
    (world.version, world.target) = (2, TargetState::Down);
    for _ in 0..100 {
        world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    }
    let asked = world.count(|request| *request == Request::Map);
    assert!(asked <= 2, "asked {asked} times for what may come in a while");
    (world.version, world.target) = (3, TargetState::Up);
    world.network.advance(world.network.now_ns() + 60_000_000);
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    assert_eq!(world.seen.len(), 2);
}

#[test]
fn a_changed_map_reaches_the_client_with_the_next_control_reply() {
    let mut world = World::new(|_, request| reply(request, ReplyBody::Done));
    let client = world.client.clone();
    let object = world.object();
    (world.version, world.target) = (2, TargetState::Down);
    world.run(client.container_open_async("c")).unwrap();
    world.run(client.container_open_async("c")).unwrap();
    assert_eq!((client.map().version.0, world.count(|request| *request == Request::Map)), (2, 1));
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert!(world.seen.is_empty(), "the target is known to be down");
}

#[test]
fn a_verdict_is_taken_and_only_who_has_lost_the_leader_is_asked_again() {
    for (verdict, is_final) in [(RefusalCode::ServerLost, true), (RefusalCode::NoLeader, false)] {
        let mut world = World::new(|_, request| reply(request, ReplyBody::Done));
        world.verdict = verdict;
        let client = world.client.clone();
        let container = world.run(client.container_open_async("c")).unwrap();
        let epoch = world.run(container.begin_async(true)).unwrap();
        let outcome = world.run(epoch.commit_async(&epoch.summary(), b"", false));
        let error = outcome.committed.map(drop).unwrap_err();
        assert!(error.kind() == ErrorKind::ServerLost && error.to_string().contains("scripted"), "{error}");
        let commits = world.count(|request| matches!(request, Request::Commit { .. }));
        assert_eq!(commits == 1, is_final, "{verdict:?}: sent {commits} times");
    }
}

#[test]
fn silence_ends_at_the_deadline() {
    let mut world = World::new(|_, _| vec![]);
    let object = world.object();
    let began_ns = world.network.now_ns();
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    assert_eq!(world.network.now_ns() - began_ns, 2_000_000_000);
}

#[test]
fn a_broken_connection_is_made_again_and_a_dead_server_is_named() {
    let mut world = World::new(|_, request| reply(request, ReplyBody::Done));
    let object = world.object();
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    world.network.sever(SERVER, CLIENT);
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    world.network.crash(SERVER);
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerLost, "{error}");
}

#[test]
fn a_connection_names_the_session_that_its_requests_belong_to() {
    let mut world = World::new(|_, request| reply(request, ReplyBody::Done));
    let object = world.object();
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    // The client cannot connect, asks for a map meanwhile, and gets another session with it.
    world.network.sever(SERVER, CLIENT);
    world.network.advance(world.network.now_ns() + 1_000_000);
    world.client.drive();
    world.network.partition(&[SERVER], &[CLIENT]);
    (world.session, world.heal_ns) = (10, world.network.now_ns() + 20_000_000);
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    assert_eq!((world.seen.len(), world.strange), (2, 0));
}

#[test]
fn bytes_that_do_not_match_their_checksum_are_not_returned() {
    let mut world = World::new(|n, request| {
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, b"data") as u32;
        let data: &[u8] = if n == 1 { b"data" } else { b"dataX" };
        reply(request, ReplyBody::Fetched(vec![Fetched { found: true, filled: true, record_bytes: 0, checksum, data }]))
    });
    let object = world.object();
    let mut out = [0; 8];
    world.run(object.fetch_async(&View::Latest, &mut [EntryFetch::single(b"k", b"a", &mut out)])).unwrap();
    assert_eq!(&out, b"data\0\0\0\0");
    let mut out = [0; 8];
    let error = world.run(object.fetch_async(&View::Latest, &mut [EntryFetch::single(b"k", b"a", &mut out)]));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::DataLost);
    assert_eq!(out, [0; 8]);
}

#[test]
fn a_hole_of_an_array_with_other_records_is_an_argument_s_error() {
    let mut world = World::new(|_, request| {
        let data = &[0; 64][..];
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32;
        reply(
            request,
            ReplyBody::Fetched(vec![Fetched { found: false, filled: false, record_bytes: 8, checksum, data }]),
        )
    });
    let object = world.object();
    let (extents, mut out) = ([Extent::new(0, 8).unwrap()], [0; 8]);
    let error =
        world.run(object.fetch_async(&View::Latest, &mut [EntryFetch::array(b"k", b"a", 1, &extents, &mut out)]));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Argument);
}

#[test]
fn many_entries_travel_in_few_messages_and_the_clock_follows() {
    let mut world = World::new(|_, request| {
        assert!(request.head.hlc > STAMP, "past all that the server said");
        let data::Body::Fetch(entries) = &request.body else { return reply(request, ReplyBody::Done) };
        let none = Fetched { found: false, filled: false, record_bytes: 0, checksum: 0, data: &[] };
        reply(request, ReplyBody::Fetched(vec![none; entries.len()]))
    });
    let object = world.object();
    let mut outs = vec![[1u8; 4]; 2000];
    let keys: Vec<Vec<u8>> = (0..2000).map(|n| format!("{n}").into_bytes()).collect();
    let mut entries: Vec<_> = outs.iter_mut().zip(&keys).map(|(out, key)| EntryFetch::single(key, b"a", out)).collect();
    world.run(object.fetch_async(&View::Latest, &mut entries)).unwrap();
    assert!(entries.iter().all(|entry| !entry.found && entry.bytes == 0));
    let counts: Vec<usize> = world.seen.iter().map(|(.., count)| *count).collect();
    assert_eq!(counts, [1024, 976]);
}
