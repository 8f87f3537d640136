//! A leader that goes, and another that takes its place.

use super::*;

pub(super) const TICK_MS: u64 = 200;

impl World {
    /// Three or more servers, and container 1 made from the last one.
    pub(super) fn with_replicas(servers: usize) -> Self {
        let mut world = World::of(servers);
        let client = world.client(servers - 1);
        let properties = ContainerProperties::default();
        world.ask(client, Request::ContainerCreate { name: "run".into(), properties, exist_ok: true }).unwrap();
        world
    }

    /// Lets time pass until a request is answered.
    pub(super) fn answer(&mut self, client: usize, id: u64) -> Outcome {
        for _ in 0..100 {
            if let Some(answer) = self.clients[client].answers.remove(&id) {
                return answer;
            }
            self.advance(TICK_MS);
        }
        panic!("no answer")
    }

    pub(super) fn commit_through(&mut self, client: usize) -> Committed {
        let id = self.send(client, Request::Begin { container: RUN, collective: true });
        let Ok(Reply::Begun(begun)) = self.answer(client, id) else { panic!() };
        let summary = self.touched();
        let id = self
            .send(client, Request::Commit { tx: begun.tx, summary, attributes: vec![], manifest: None, next: false });
        match self.answer(client, id) {
            Ok(Reply::Committed(committed)) => committed,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_log_has_one_replica_on_two_servers_three_on_three_and_five_on_five() {
    for (servers, replicas) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5)] {
        let world = World::of(servers);
        assert_eq!(world.node(world.leader()).replicas().len(), replicas, "{servers} servers");
    }
}

#[test]
fn commits_go_on_when_the_leader_is_killed() {
    for servers in [3, 5] {
        let mut world = World::with_replicas(servers);
        let leader = world.leader();
        let home = (leader + 1) % servers;
        let client = world.client(home);
        let before = world.commit_through(client);
        world.kill(leader);
        let after = world.commit_through(client);
        assert_eq!(after.step.0, before.step.0 + 1);
        assert!(after.stamp > before.stamp, "rule 2 holds over the change");
        assert_ne!(world.leader(), leader);
        world.start(leader);
        world.advance(3 * LEASE_MS);
        let states: Vec<&Pool> = (0..servers).map(|server| world.node(server).pool()).collect();
        assert!(states.iter().all(|pool| *pool == states[0]));
        assert!((0..servers).all(|server| world.node(server).is_ready()));
    }
}

#[test]
fn rule_14_a_commit_whose_leader_dies_before_it_answers_counts_once() {
    for deliveries in 0..24 {
        let mut world = World::with_replicas(3);
        let leader = world.leader();
        let client = world.client((leader + 1) % 3);
        let tx = world.begin(client).tx;
        let summary = world.touched();
        let id = world.send(client, Request::Commit { tx, summary, attributes: vec![], manifest: None, next: false });
        for choice in 0..deliveries {
            world.deliver_one(choice);
        }
        world.kill(leader);
        let Ok(Reply::Committed(committed)) = world.answer(client, id) else { panic!("after {deliveries}") };
        assert_eq!(committed.step, Step(1), "after {deliveries} deliveries");
        world.advance(LEASE_MS);
        let steps = world.node(world.leader()).pool().waited(RUN, Step(0), 9);
        let Some(Ok(Reply::Waited(Waited::Steps { steps, .. }))) = steps else { panic!() };
        assert_eq!(steps.len(), 1, "after {deliveries} deliveries");
    }
}

#[test]
fn rule_11_a_leader_that_is_cut_off_stops_serving_before_the_others_go_on_without_it() {
    let mut world = World::with_replicas(3);
    let old = world.leader();
    let (client, cut_off) = (world.client((old + 1) % 3), world.client(old));
    for other in (0..3).filter(|other| *other != old) {
        world.set_reachable(old, other, false);
    }
    world.with(old, |node, now| node.log_end(now, 7));
    let asked = world.send(cut_off, Request::ContainerList);
    let before = world.commit_through(client);
    let new = (0..3).find(|server| *server != old && world.node(*server).is_leader()).expect("another leader");
    assert!(!world.node(old).is_leader(), "nobody vouches for it");
    world.advance(LEASE_MS * 2);
    assert!(!world.may_serve(old));
    let is_theirs_up = (0..2).any(|n| world.node(new).pool().map().unwrap().is_up(TargetId(old as u32 * 2 + n)));
    assert!(!is_theirs_up, "it is down for all others");
    let _ = world.clients[cut_off].answers.remove(&asked);
    (0..3).filter(|other| *other != old).for_each(|other| world.set_reachable(old, other, true));
    world.advance(LEASE_MS * 2);
    assert!((0..3).all(|server| world.node(server).is_ready()));
    assert_eq!(world.commit_through(client).step.0, before.step.0 + 1);
}

#[test]
fn all_replicas_restarted_on_their_media_know_everything() {
    let mut world = World::with_replicas(3);
    let client = world.client(0);
    let before = world.commit_through(client);
    (0..3).for_each(|server| world.kill(server));
    (0..3).for_each(|server| world.start(server));
    world.advance(3 * LEASE_MS);
    assert!((0..3).all(|server| world.node(server).is_ready()));
    let client = world.client(2);
    assert_eq!(world.commit_through(client).step.0, before.step.0 + 1);
}

#[test]
fn a_system_that_misses_a_server_starts_without_it_whichever_it_is() {
    for missing in 0..3 {
        let mut world = World::with_replicas(3);
        let client = world.client(0);
        let before = world.commit_through(client);
        (0..3).for_each(|server| world.kill(server));
        (0..3).filter(|server| *server != missing).for_each(|server| world.start(server));
        world.advance(4 * LEASE_MS);
        let client = world.client((missing + 1) % 3);
        let map = world.node(world.leader()).pool().map().cloned().unwrap();
        assert!(!map.is_up(TargetId(missing as u32 * 2)), "it says what it misses");
        let tx = world.begin(client).tx;
        let summary = Summary { map_version: map.version, ..Summary::default() };
        world.ok(client, Request::Commit { tx, summary, attributes: vec![], manifest: None, next: false });
        assert_eq!(world.node(world.leader()).pool().container_info(RUN).unwrap().step, before.step);
    }
}
