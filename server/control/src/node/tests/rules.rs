//! What a node owes its clients, its targets and the other servers.

use talea_wire::figures::ProcessFigures;

use super::*;

#[test]
fn every_server_follows_the_log_and_answers_in_its_order() {
    let mut world = World::new();
    for home in [0, 1, 0, 1] {
        let client = world.client(home);
        let tx = world.begin(client).tx;
        let committed = world.commit(client, tx).unwrap();
        assert!(world.node(home).pool().position() >= committed.position, "a home knows what its clients were told");
    }
    assert_eq!(world.node(0).pool(), world.node(1).pool());
    assert_eq!(world.told[0].changes, world.told[1].changes);
    assert_eq!(world.told[0].horizon, world.node(0).pool().position());
}

#[test]
fn a_home_has_applied_what_its_client_is_told() {
    let mut world = World::new();
    let client = world.client(1);
    let id = world.send(client, Request::Begin { container: RUN, collective: true });
    while !world.clients[client].answers.contains_key(&id) {
        assert!(world.deliver_one(usize::MAX), "an answer comes");
    }
    let Some(Ok(Reply::Begun(begun))) = world.clients[client].answers.remove(&id) else { panic!() };
    assert!(world.node(1).pool().position() >= begun.position);
}

#[test]
fn a_session_whose_opening_was_never_heard_of_is_swept() {
    let mut world = World::new();
    world.clients.push(Client::default());
    let client = world.clients.len() - 1;
    world.connect_client(client, 1);
    world.send(
        client,
        Request::SessionOpen {
            name: "unlucky".into(),
            secret: 1,
            resume: None,
            process: None,
            joined: vec![],
            attempt: 0,
        },
    );
    let before = world.node(0).pool().position();
    while world.node(0).pool().position() == before {
        assert!(world.deliver_one(0), "the leader opens it");
    }
    let link =
        world.links.keys().find(|end| matches!(end, End::Node(1, peer) if world.node_is_link(1, *peer))).copied();
    world.cut(link.unwrap());
    assert_eq!(world.node(0).pool().sessions_of(ServerId(1)).count(), 1);
    world.advance(200);
    assert_eq!(world.node(0).pool().sessions_of(ServerId(1)).count(), 0);
    let answer = world.clients[client].answers.pop_first().unwrap().1.unwrap_err();
    assert_eq!(answer.code, RefusalCode::NoLeader, "the outcome was unknown");
}

#[test]
fn a_process_s_last_word_reaches_the_leader_though_nobody_waits_for_the_answer() {
    let mut world = World::new();
    for home in [0, 1] {
        let client = world.client(home);
        let figures = ProcessFigures { rank: Some(home as u32), io_ns: 5, ..ProcessFigures::default() };
        world.send(client, Request::Report(figures));
        assert!(world.deliver_one(0), "its home hears it");
        world.cut(End::Client(client));
        world.settle();
    }
    for home in [0, 1] {
        let asker = world.client(home);
        let Reply::Reports(told) = world.ok(asker, Request::Reports) else { panic!("no reports") };
        let ranks: Vec<_> = told.lines.iter().map(|line| line.rank).collect();
        assert_eq!((told.processes, ranks), (2, vec![Some(0), Some(1)]));
    }
}

#[test]
fn rule_12_the_end_of_a_process_aborts_what_it_joined() {
    for home in [0, 1] {
        for died in [false, true] {
            let mut world = World::new();
            let (owner, writer) = (world.client(1 - home), world.client(home));
            let joined = world.begin(owner).tx;
            world.ok(writer, Request::Join { tx: joined });
            let left = world.begin(owner).tx;
            world.ok(writer, Request::Join { tx: left });
            world.ok(writer, Request::Leave { tx: left });
            let session = world.clients[writer].session;
            assert_eq!(world.processes[&(home, session)].pid, 1000 + writer as u32);
            match died {
                true => world.with(home, |node, now| node.session_died(now, session)),
                false => world.cut(End::Client(writer)),
            }
            world.settle();
            assert_eq!(world.commit(owner, joined).unwrap_err().code, RefusalCode::Closed);
            world.commit(owner, left).unwrap();
        }
    }
}

#[test]
fn a_session_can_be_closed_and_is_never_served_again() {
    for home in [0, 1] {
        let mut world = World::new();
        let client = world.client(home);
        let tx = world.begin(client).tx;
        assert_eq!(world.ok(client, Request::SessionClose), Reply::Done);
        let late = world.ask(client, Request::Begin { container: RUN, collective: true }).unwrap_err();
        assert_eq!(late.code, RefusalCode::SessionExpired);
        let other = world.client(home);
        assert_eq!(world.commit(other, tx).unwrap_err().code, RefusalCode::Closed);
        let foreign = world.clients[other].session;
        world.clients[client].session = foreign;
        let late = world.ask(client, Request::Begin { container: RUN, collective: true }).unwrap_err();
        assert_eq!(late.code, RefusalCode::SessionExpired, "another connection's session is no use");
    }
}

#[test]
fn a_lost_server_is_declared_down_after_its_lease_and_not_before() {
    let mut world = World::new();
    let client = world.client(0);
    let remote = world.client(1);
    let tx = world.begin(client).tx;
    world.kill(1);
    world.advance(LEASE_MS - 600);
    assert!(world.node(0).pool().map().unwrap().is_up(TargetId(2)));
    world.advance(1000);
    assert!(!world.node(0).pool().map().unwrap().is_up(TargetId(2)));
    assert!(!world.node(0).pool().has_session(world.clients[remote].session), "its clients' sessions ended");
    assert_eq!(world.commit(client, tx).unwrap_err().code, RefusalCode::Closed);
    world.start(1);
    world.advance(1000);
    assert!(world.node(0).pool().map().unwrap().is_up(TargetId(2)));
    assert_eq!(world.node(0).pool(), world.node(1).pool());
    let tx = world.begin(client).tx;
    world.commit(client, tx).unwrap();
}

#[test]
fn a_server_that_returns_within_its_lease_but_forgot_aborts_what_is_open() {
    let mut world = World::new();
    let client = world.client(0);
    let remote = world.client(1);
    let tx = world.begin(client).tx;
    world.ok(remote, Request::Join { tx });
    world.kill(1);
    world.start(1);
    world.advance(100);
    assert_eq!(world.commit(client, tx).unwrap_err().code, RefusalCode::Closed);
    assert!(!world.node(0).pool().has_session(world.clients[remote].session));
}

#[test]
fn a_broken_connection_between_servers_costs_nothing_within_the_lease() {
    let mut world = World::new();
    let (client, remote) = (world.client(0), world.client(1));
    let tx = world.begin(client).tx;
    world.ok(remote, Request::Join { tx });
    let link =
        world.links.keys().find(|end| matches!(end, End::Node(1, peer) if world.node_is_link(1, *peer))).copied();
    world.cut(link.unwrap());
    let held = world.send(remote, Request::Begin { container: RUN, collective: true });
    world.settle();
    assert!(!world.clients[remote].answers.contains_key(&held), "kept until the leader is there again");
    world.advance(200);
    assert!(matches!(world.clients[remote].answers.remove(&held), Some(Ok(Reply::Begun(_)))));
    world.commit(client, tx).unwrap();
    assert!(world.may_serve(1));
}

#[test]
fn rule_11_a_follower_without_leader_stops_serving_and_says_whom_it_misses() {
    let mut world = World::new();
    let remote = world.client(1);
    let waiting = world.wait(remote, 0);
    world.settle();
    world.kill(0);
    world.with(1, |node, now| node.log_end(now, 7));
    let held = world.send(remote, Request::ContainerList);
    world.advance(LEASE_MS + 1);
    assert!(!world.may_serve(1));
    assert_eq!(world.told[1].failed, vec![(7, RefusalCode::NoLeader)]);
    let refusal = world.clients[remote].answers.remove(&held).unwrap().unwrap_err();
    assert!(refusal.code == RefusalCode::NoLeader && refusal.text.contains("server 0"), "{refusal}");
    let refusal = world.ask(remote, Request::Join { tx: TxId(1) }).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NoLeader, "nobody would abort what is joined now");
    world.advance(10_000);
    assert!(world.clients[remote].answers.contains_key(&waiting), "a wait ends within its deadline");
}

#[test]
fn a_leader_that_recovers_its_log_goes_on_and_aborts_what_was_open() {
    let mut world = World::new();
    let client = world.client(0);
    let tx = world.begin(client).tx;
    let committed = world.commit(client, tx).unwrap();
    let open = world.begin(client).tx;
    world.kill(0);
    world.advance(100);
    world.start(0);
    world.advance(3000);
    assert!((0..2).all(|server| world.node(server).is_ready()));
    assert_eq!(world.node(0).pool(), world.node(1).pool());
    let client = world.client(0);
    assert_eq!(world.commit(client, open).unwrap_err().code, RefusalCode::Closed);
    let tx = world.begin(client).tx;
    let next = world.commit(client, tx).unwrap();
    assert_eq!((next.step.0, next.stamp > committed.stamp), (committed.step.0 + 1, true));
}

#[test]
fn rule_8_catching_up_reaches_the_end_of_the_log() {
    let mut world = World::new();
    let client = world.client(0);
    let before = world.node(1).pool().position();
    world.send(client, Request::Begin { container: RUN, collective: true });
    // Only the leader hears of the begin; the follower's batch is still on its way when it asks.
    let to_leader = world.links[&End::Client(client)];
    let bytes = world.queues.get_mut(&to_leader).unwrap().pop_front().unwrap();
    let End::Node(0, peer) = to_leader else { panic!() };
    world.with(0, |node, now| node.message(now, peer, &bytes));
    world.with(1, |node, now| node.log_end(now, 1));
    assert!(world.told[1].caught_up.is_empty());
    world.settle();
    assert_eq!(world.told[1].caught_up, vec![1]);
    assert!(world.told[1].horizon > before);
    world.with(0, |node, now| node.log_end(now, 2));
    assert_eq!(world.told[0].caught_up, vec![2]);
}

#[test]
fn rule_17_the_four_outcomes_of_a_wait() {
    for home in [0, 1] {
        let mut world = World::new();
        let (producer, consumer) = (world.client(0), world.client(home));
        let active = Request::Producer { container: None, state: ProducerState::Active };
        world.ok(producer, active.clone());
        let id = world.wait(consumer, 0);
        world.settle();
        assert_eq!(world.waited(consumer, id), None);
        let tx = world.begin(producer).tx;
        world.commit(producer, tx).unwrap();
        let steps = world.waited(consumer, id);
        assert!(matches!(steps, Some(Waited::Steps { ref steps, latest: Step(1) }) if steps.len() == 1), "{steps:?}");

        let id = world.wait(consumer, 1);
        world.advance(9_700);
        assert_eq!(world.waited(consumer, id), None);
        world.advance(299);
        assert_eq!(world.waited(consumer, id), Some(Waited::NotReady), "before the deadline");

        let id = world.wait(consumer, 1);
        world.ok(producer, Request::Producer { container: None, state: ProducerState::Ended });
        assert_eq!(world.waited(consumer, id), Some(Waited::End));

        world.ok(producer, active);
        let id = world.wait(consumer, 1);
        world.settle();
        world.cut(End::Client(producer));
        world.settle();
        assert_eq!(world.waited(consumer, id), Some(Waited::ProducerLost));
    }
}

#[test]
fn rule_1_a_clock_too_far_ahead_is_refused_before_anything_is_appended() {
    for home in [0, 1] {
        let mut world = World::new();
        let client = world.client(home);
        let tx = world.begin(client).tx;
        let ahead = Stamp::from_unix_us(world.now.unix_us + limit::MAX_CLOCK_AHEAD_MS * 1000 + 1_000);
        let logged = world.node(0).pool().position();
        let summary = Summary { hlc: ahead, ..world.touched() };
        let refusal = world
            .ask(client, Request::Commit { tx, summary, attributes: vec![], manifest: None, next: false })
            .unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Clock);
        assert_eq!(world.node(0).pool().position(), logged);
        let committed = world.commit(client, tx).unwrap();
        assert!(committed.stamp < ahead, "it left no trace in the clock");
    }
}

#[test]
fn clients_cannot_speak_for_servers_and_garbage_ends_a_connection() {
    let mut world = World::new();
    let client = world.client(0);
    let ended = Request::SessionEnded { session: SessionId(1), joined: vec![], orderly: false };
    assert_eq!(world.ask(client, ended).unwrap_err().code, RefusalCode::Access);
    let End::Node(home, peer) = world.links[&End::Client(client)] else { panic!() };
    world.with(home, |node, now| node.message(now, peer, b"no message"));
    world.settle();
    assert!(!world.links.contains_key(&End::Client(client)));
    assert!(!world.node(0).pool().has_session(world.clients[client].session));
}

#[test]
fn creating_what_another_just_created_is_fine_if_asked_so() {
    let mut world = World::new();
    let (a, b) = (world.client(0), world.client(1));
    let request =
        Request::ContainerCreate { name: "x".into(), properties: ContainerProperties::default(), exist_ok: true };
    let ids = [world.send(a, request.clone()), world.send(b, request)];
    world.settle();
    let answers = [world.clients[a].answers.remove(&ids[0]), world.clients[b].answers.remove(&ids[1])];
    assert_eq!(answers[0], answers[1]);
    assert!(matches!(answers[0], Some(Ok(Reply::Container(_)))));
}

#[test]
fn requests_before_the_pool_begins_are_told_to_come_back() {
    let mut world = World::empty(2);
    world.start(0);
    world.clients.push(Client::default());
    world.connect_client(0, 0);
    let refusal = world
        .ask(
            0,
            Request::SessionOpen {
                name: "early".into(),
                secret: 1,
                resume: None,
                process: None,
                joined: vec![],
                attempt: 0,
            },
        )
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Busy);
    world.start(1);
    world.settle();
    assert!(
        world
            .ask(
                0,
                Request::SessionOpen {
                    name: "early".into(),
                    secret: 1,
                    resume: None,
                    process: None,
                    joined: vec![],
                    attempt: 0
                }
            )
            .is_ok(),
        "the same connection"
    );
}

impl World {
    fn node_is_link(&self, server: usize, peer: PeerId) -> bool {
        matches!(&self.node(server).role, Role::Follower(follower) if follower.is_link(peer))
    }
}
