//! Sessions over broken connections and servers that come back: what lasts, and what ends when.

use super::*;

const SESSION_LEASE_MS: u64 = 10_000;

/// Servers whose media outlive them, with sessions that do, too.
fn lasting(servers: usize) -> World {
    World { session_lease_ms: SESSION_LEASE_MS, keeps_media: true, ..World::empty(servers) }.begun()
}

fn resume(world: &mut World, client: usize, home: usize, secret: u128) -> Outcome {
    world.connect_client(client, home);
    let resume = Some(world.clients[client].session);
    world.ask(client, Request::SessionOpen { name: "test".into(), secret, resume, process: None })
}

fn has_session(world: &World, client: usize) -> bool {
    world.node(0).pool().has_session(world.clients[client].session)
}

/// An epoch of the first client, in which the second one writes.
fn joined(world: &mut World, owner: usize, writer: usize) -> TxId {
    let tx = world.begin(owner).tx;
    world.ok(writer, Request::Join { tx });
    tx
}

#[test]
fn a_session_is_taken_up_again_and_what_it_asked_for_is_done_once() {
    for home in [0, 1] {
        let mut world = lasting(2);
        let client = world.client(home);
        let tx = world.begin(client).tx;
        world.ok(client, Request::Join { tx });
        let mut summary = Summary::default();
        summary.touched.insert(TargetId(0));
        let commit = Request::Commit { tx, summary, attributes: vec![], manifest: None, next: false };
        // The answer is lost with the connection.
        let id = world.clients[client].last_id + 1;
        world.clients[client].last_id = id;
        world.send_as(client, id, id, commit.clone());
        while world.node(0).pool().fate(tx) == Some(talea_model::Fate::Open) {
            assert!(world.deliver_one(usize::MAX), "the commit is applied");
        }
        world.cut(End::Client(client));
        world.advance(SESSION_LEASE_MS - 1000);
        let secret = 1;
        assert_eq!(resume(&mut world, client, home, secret + 1).unwrap_err().code, RefusalCode::SessionExpired);
        world.cut(End::Client(client));
        let Ok(Reply::Session { session, .. }) = resume(&mut world, client, home, secret) else { panic!() };
        assert_eq!(session, world.clients[client].session);
        world.advance(2 * SESSION_LEASE_MS);
        world.clients[client].answers.clear();
        world.send_as(client, 900, id, commit);
        world.settle();
        let Some(Ok(Reply::Committed(again))) = world.clients[client].answers.remove(&900) else { panic!() };
        assert_eq!((again.step, again.made_step), (Step(1), true), "what it did is told, and not done again");
        let Ok(Reply::Container(info)) = world.node(0).pool().container_by_name("run") else { panic!() };
        assert_eq!(info.step, Step(1));
    }
}

#[test]
fn a_session_that_nobody_takes_up_again_ends_with_its_lease() {
    for home in [0, 1] {
        let mut world = lasting(2);
        let (owner, writer) = (world.client(1 - home), world.client(home));
        let tx = joined(&mut world, owner, writer);
        world.cut(End::Client(writer));
        world.advance(SESSION_LEASE_MS - 100);
        assert!(has_session(&world, writer));
        world.advance(200);
        assert!(!has_session(&world, writer));
        assert_eq!(world.commit(owner, tx).unwrap_err().code, RefusalCode::Closed);
        assert_eq!(resume(&mut world, writer, home, 1).unwrap_err().code, RefusalCode::SessionExpired);
        let late = world.ask(writer, Request::Begin { container: RUN, collective: true }).unwrap_err();
        assert_eq!(late.code, RefusalCode::SessionExpired, "it is not executed under a session that has ended");
    }
}

#[test]
fn a_process_that_is_dead_has_no_lease() {
    let mut world = lasting(2);
    let (owner, writer) = (world.client(0), world.client(1));
    let tx = joined(&mut world, owner, writer);
    let session = world.clients[writer].session;
    world.cut(End::Client(writer));
    world.settle();
    world.with(1, |node, now| node.session_died(now, session));
    world.settle();
    assert_eq!(world.commit(owner, tx).unwrap_err().code, RefusalCode::Closed);
    assert!(world.processes.is_empty() || !world.processes.contains_key(&(1, session)), "it is watched no more");
}

#[test]
fn a_server_that_comes_back_knows_who_writes_in_what() {
    // The one with the only replica of the log, and the one without.
    for home in [0, 1] {
        for dies in [false, true] {
            let mut world = lasting(2);
            let (owner, writer) = (world.client(1 - home), world.client(home));
            let (tx, other) = (joined(&mut world, owner, writer), world.begin(owner).tx);
            let session = world.clients[writer].session;
            world.kill(home);
            world.processes.clear();
            world.start(home);
            // Longer than any lease: its process is alive, and may compute for a day.
            world.advance(3 * SESSION_LEASE_MS);
            assert!(has_session(&world, writer) && world.processes[&(home, session)].pid == 1000 + writer as u32);
            if dies {
                world.with(home, |node, now| node.session_died(now, session));
                world.settle();
            }
            assert_eq!(world.commit(owner, tx).is_ok(), !dies);
            world.commit(owner, other).unwrap();
            if !dies {
                resume(&mut world, writer, home, 1).unwrap();
            }
        }
    }
}

#[test]
fn a_remote_client_of_a_server_that_came_back_has_a_lease() {
    let mut world = lasting(2);
    let (owner, writer) = (world.client(0), world.client(1));
    // Its home cannot watch over its process.
    let far = world.clients.len();
    world.clients.push(Client::default());
    let peer = world.peer();
    world.link(End::Client(far), End::Node(1, peer));
    world.with(1, |node, now| node.peer_up(now, peer, Hello { session: 0, pid: 7, server: None }, None));
    let Reply::Session { session, .. } =
        world.ok(far, Request::SessionOpen { name: "far".into(), secret: 1, resume: None, process: None })
    else {
        panic!()
    };
    world.clients[far].session = session;
    let (near, its) = (joined(&mut world, owner, writer), joined(&mut world, owner, far));
    world.kill(1);
    world.start(1);
    world.advance(SESSION_LEASE_MS + 1000);
    assert!(has_session(&world, writer) && !has_session(&world, far));
    world.commit(owner, near).unwrap();
    assert_eq!(world.commit(owner, its).unwrap_err().code, RefusalCode::Closed);
}

#[test]
fn what_a_server_that_is_lost_for_good_knew_may_have_been_anything() {
    let mut world = lasting(2);
    let (owner, writer) = (world.client(0), world.client(1));
    let tx = joined(&mut world, owner, writer);
    world.kill(1);
    world.advance(2 * LEASE_MS);
    assert!(!world.node(0).pool().map().unwrap().is_up(TargetId(2)), "it counts as lost");
    assert!(has_session(&world, writer), "and may come back");
    let later = world.begin(owner).tx;
    world.advance(SESSION_LEASE_MS);
    assert!(!has_session(&world, writer));
    assert_eq!(world.commit(owner, tx).unwrap_err().code, RefusalCode::Closed);
    assert_eq!(
        world.node(0).pool().fate(later),
        Some(talea_model::Fate::Open),
        "it began when nobody could join there"
    );
}

#[test]
fn a_server_that_has_lost_its_notes_says_so() {
    let mut world = lasting(2);
    let (owner, writer) = (world.client(0), world.client(1));
    let tx = joined(&mut world, owner, writer);
    world.kill(1);
    world.joined[1] = None;
    world.start(1);
    world.advance(LEASE_MS);
    let refusal = world.commit(owner, tx).unwrap_err();
    assert!(refusal.code == RefusalCode::Closed && refusal.text.contains("without who wrote through it"), "{refusal}");
}

#[test]
fn what_is_left_and_closed_is_not_noted_for_ever() {
    let mut world = lasting(2);
    let (owner, writer) = (world.client(0), world.client(1));
    for _ in 0..300 {
        let tx = joined(&mut world, owner, writer);
        world.commit(owner, tx).unwrap();
    }
    let left = joined(&mut world, owner, writer);
    world.ok(writer, Request::Leave { tx: left });
    joined(&mut world, owner, writer);
    let noted = world.joined[1].clone().unwrap();
    assert!(noted.values().all(|joined| joined.len() < 130 && !joined.contains(&left)), "{noted:?}");
    world.ok(writer, Request::SessionClose);
    let other = world.client(1);
    joined(&mut world, owner, other);
    assert_eq!(world.joined[1].clone().unwrap().into_keys().collect::<Vec<_>>(), [world.clients[other].session]);
}
