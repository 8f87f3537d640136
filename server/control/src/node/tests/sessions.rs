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
    world.ask(
        client,
        Request::SessionOpen { name: "test".into(), secret, resume, process: None, joined: vec![], attempt: 0 },
    )
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
    let Reply::Session { session, .. } = world.ok(
        far,
        Request::SessionOpen { name: "far".into(), secret: 1, resume: None, process: None, joined: vec![], attempt: 0 },
    ) else {
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

/// Takes the session up at another server, with what its process has joined.
fn moves(world: &mut World, client: usize, home: usize, joined: &[TxId], attempt: u64) -> Outcome {
    world.cut(End::Client(client));
    world.connect_client(client, home);
    let (resume, joined) = (Some(world.clients[client].session), joined.to_vec());
    world.ask(client, Request::SessionOpen { name: "test".into(), secret: 1, resume, process: None, joined, attempt })
}

fn run_info(world: &World, server: usize) -> talea_wire::control::ContainerInfo {
    match world.node(server).pool().container_by_name("run") {
        Ok(Reply::Container(info)) => info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_moves_with_all_that_hangs_on_it_when_its_home_is_lost_for_good() {
    for is_restarted in [false, true] {
        let mut world = lasting(3);
        let (owner, writer) = (world.client(0), world.client(1));
        let (tx, own) = (joined(&mut world, owner, writer), world.begin(writer).tx);
        world.ok(writer, Request::Join { tx: own });
        world.ok(writer, Request::SnapshotOpen { container: RUN, at: talea_wire::log::SnapshotAt::Latest });
        world.ok(writer, Request::Subscribe { container: RUN, after: Some(Step(0)) });
        let session = world.clients[writer].session;
        world.kill(1);
        let Ok(Reply::Session { session: same, .. }) = moves(&mut world, writer, 2, &[tx, own], 1) else { panic!() };
        assert_eq!(same, session);
        world.advance(3 * SESSION_LEASE_MS);
        assert!(has_session(&world, writer), "its home before is lost for longer than it would have waited for it");
        let info = run_info(&world, 0);
        assert_eq!((info.leases, info.subscriptions, info.open_transactions), (1, 1, 2));
        let mut summary = Summary { touched: Default::default(), ..world.touched() };
        summary.touched.insert(TargetId(0));
        let commit = Request::Commit { tx: own, summary, attributes: vec![], manifest: None, next: false };
        world.ok(writer, commit);
        // The server that it left has no say when it is back, with its notes.
        world.start(1);
        world.advance(2 * SESSION_LEASE_MS);
        assert!(has_session(&world, writer));
        if is_restarted {
            world.kill(2);
            world.start(2);
            world.advance(LEASE_MS);
        }
        world.with(2, |node, now| node.session_died(now, session));
        world.settle();
        assert_eq!(world.commit(owner, tx).unwrap_err().code, RefusalCode::Closed, "its writer is dead");
        let info = run_info(&world, 0);
        assert_eq!((info.leases, info.subscriptions, info.open_transactions), (0, 0, 0));
    }
}

#[test]
fn what_was_asked_for_at_the_home_before_is_done_once_after_a_move() {
    let mut world = lasting(3);
    let client = world.client(1);
    let tx = world.begin(client).tx;
    let commit = Request::Commit { tx, summary: world.touched(), attributes: vec![], manifest: None, next: false };
    let id = world.clients[client].last_id + 1;
    world.clients[client].last_id = id;
    world.send_as(client, id, id, commit.clone());
    while world.node(0).pool().fate(tx) == Some(talea_model::Fate::Open) {
        assert!(world.deliver_one(usize::MAX), "the commit is applied");
    }
    // The answer is lost with its home.
    world.kill(1);
    moves(&mut world, client, 2, &[tx], 1).unwrap();
    world.clients[client].answers.clear();
    world.send_as(client, 900, id, commit);
    world.settle();
    let Some(Ok(Reply::Committed(again))) = world.clients[client].answers.remove(&900) else { panic!() };
    assert_eq!((again.step, run_info(&world, 0).step), (Step(1), Step(1)));
}

#[test]
fn a_home_that_lives_has_no_say_in_a_session_that_left_it() {
    let mut world = lasting(3);
    let (owner, writer) = (world.client(0), world.client(1));
    let tx = joined(&mut world, owner, writer);
    moves(&mut world, writer, 2, &[tx], 3).unwrap();
    world.advance(2 * SESSION_LEASE_MS);
    assert!(has_session(&world, writer), "its lease there has run out, and nobody minds");
    let session = world.clients[writer].session;
    // With the next note that somebody waits for, what is of no use goes.
    let other = world.client(1);
    joined(&mut world, owner, other);
    assert!(!world.joined[1].clone().unwrap().contains_key(&session), "nothing is noted of it there any more");
    world.with(1, |node, now| node.session_died(now, session));
    world.settle();
    // An attempt that was overtaken changes nothing.
    let late = world.clients.len();
    world.clients.push(Client { session, ..Client::default() });
    assert_eq!(moves(&mut world, late, 0, &[], 2).unwrap_err().code, RefusalCode::SessionExpired);
    world.commit(owner, tx).unwrap();
    world.ok(writer, Request::Begin { container: RUN, collective: true });
}

#[test]
fn who_cannot_show_the_secret_moves_no_session() {
    let mut world = lasting(3);
    let writer = world.client(1);
    let tx = world.begin(writer).tx;
    let session = world.clients[writer].session;
    let thief = world.clients.len();
    world.clients.push(Client { session, ..Client::default() });
    let refusal = resume(&mut world, thief, 2, 99).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::SessionExpired);
    world.commit(writer, tx).unwrap();
}

#[test]
fn a_session_that_is_ended_by_hand_takes_what_it_joined_with_it() {
    for home in [0, 1] {
        let mut world = lasting(2);
        let (owner, writer) = (world.client(1 - home), world.client(home));
        let (tx, other) = (joined(&mut world, owner, writer), world.begin(owner).tx);
        let session = world.clients[writer].session;
        world.ok(owner, Request::Evict { session });
        assert!(!has_session(&world, writer));
        assert_eq!(world.commit(owner, tx).unwrap_err().code, RefusalCode::Closed);
        world.commit(owner, other).unwrap();
        assert_eq!(world.ask(owner, Request::Evict { session }).unwrap_err().code, RefusalCode::NotFound);
        let late = world.ask(writer, Request::Begin { container: RUN, collective: true }).unwrap_err();
        assert_eq!(late.code, RefusalCode::SessionExpired);
    }
}

#[test]
fn a_server_without_a_leader_tells_what_it_knows_and_which_replicas_it_misses() {
    let mut world = lasting(3);
    let client = world.client(0);
    world.begin(client);
    world.kill(1);
    world.kill(2);
    world.advance(3 * LEASE_MS);
    let told = world.ask(client, Request::Status);
    let Ok(Reply::Status(status)) = told else { panic!("{told:?}") };
    let why = status.unled.clone().unwrap();
    assert!(why.contains("no majority") && why.contains("0, 1, 2") && why.contains("misses 1, 2"), "{why}");
    assert_eq!((status.containers.len(), status.transactions.len()), (1, 1));
    let refusal = world.ask(client, Request::Begin { container: RUN, collective: true }).unwrap_err();
    assert!(refusal.code == RefusalCode::NoLeader && refusal.text.contains("no majority"), "{refusal}");
}

/// Targets that start again where they were know the log up to there, but not any more which sessions it opened.
#[test]
fn targets_that_start_in_the_middle_of_the_log_are_told_which_sessions_there_are() {
    for server in [0, 1] {
        let mut world = lasting(2);
        let (stays, goes) = (world.client(1 - server), world.client(1 - server));
        world.ok(goes, Request::SessionClose);
        world.horizon = world.node(0).pool().position();
        world.kill(server);
        world.start(server);
        world.advance(3 * LEASE_MS);
        let newest = world.client(1 - server);
        world.advance(LEASE_MS);
        let changes = &world.told[server].changes;
        let told = changes.iter().filter_map(|change| match change {
            TargetChange::Sessions { last, open } => Some((*last, open.clone())),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        let [(last, open)] = &told[..] else { panic!("told {} times", told.len()) };
        let session = |client: usize| world.clients[client].session;
        assert!(*last >= session(goes) && open.contains(&session(stays)) && !open.contains(&session(goes)), "{told:?}");
        assert!(changes.contains(&TargetChange::OpenSession { session: session(newest) }), "and of others one by one");
    }
}
