//! Replicas whose log is lost, and servers that do not come back: others take their place.

use super::*;

/// Longer than the leader waits before it gives a lost server's replica to another.
const AWAY_MS: u64 = 14 * LEASE_MS;

impl World {
    /// The server comes back without its log, as one with RAM tiers does, or one whose medium is new.
    fn lose(&mut self, server: usize) {
        self.kill(server);
        self.media[server] = Stored::default();
        self.lives[server] += 1_000;
        self.start(server);
    }

    fn voters(&self) -> Vec<(usize, u64)> {
        let ids = self.node(self.leader()).replicas();
        ids.iter().map(|id| (id.server.0 as usize, id.life)).collect()
    }

    fn lives_of(&self, servers: &[usize]) -> Vec<(usize, u64)> {
        servers.iter().map(|server| (*server, self.lives[*server])).collect()
    }

    /// A commit of an epoch that wrote at one server, whoever leads by then.
    fn commit_there(&mut self, client: usize, server: usize) -> Committed {
        let id = self.send(client, Request::Begin { container: RUN, collective: true });
        let Ok(Reply::Begun(begun)) = self.answer(client, id) else { panic!() };
        let mut summary = Summary { map_version: self.touched().map_version, ..Summary::default() };
        summary.touched.insert(TargetId(2 * server as u32));
        let id = self
            .send(client, Request::Commit { tx: begun.tx, summary, attributes: vec![], manifest: None, next: false });
        match self.answer(client, id) {
            Ok(Reply::Committed(committed)) => committed,
            other => panic!("{other:?}"),
        }
    }

    fn agree(&self) {
        let leader = self.node(self.leader()).pool();
        for server in self.running() {
            assert_eq!(self.node(server).pool(), leader, "server {server}");
            assert!(self.node(server).is_ready(), "server {server}");
        }
    }
}

#[test]
fn a_server_that_lost_its_log_is_a_replica_again_and_one_more_loss_stops_nothing() {
    for (servers, log_bound) in [(3, 4), (3, 1_000), (5, 4)] {
        for lost in 0..3 {
            let mut world = World::cutting(servers, LogBound { records: log_bound, bytes: 1 << 20 });
            let client = world.client((lost + 1) % servers);
            let before = world.commit_through(client);
            world.lose(lost);
            world.advance(5 * LEASE_MS);
            let all: Vec<usize> = (0..servers).collect();
            assert_eq!(world.voters(), world.lives_of(&all), "the one that it was is none any more");
            world.agree();
            // As many as a majority survives, none of which is the one that came back.
            let mut others = (0..servers).filter(|server| *server != lost && *server != (lost + 1) % servers);
            for _ in 0..servers / 2 {
                world.kill(others.next().unwrap());
            }
            let after = world.commit_through(client);
            assert_eq!(after.step.0, before.step.0 + 1, "{servers} servers, {lost} came back empty");
            assert!(after.stamp > before.stamp);
        }
    }
}

#[test]
fn all_servers_lose_their_logs_one_after_another_and_the_pool_lives_on() {
    let mut world = World::with_replicas(3);
    for round in 1..=6 {
        let lost = round % 3;
        let client = world.client((lost + 1) % 3);
        assert_eq!(world.commit_through(client).step, Step(round as u64));
        world.lose(lost);
        world.advance(5 * LEASE_MS);
    }
    assert_eq!(world.voters(), world.lives_of(&[0, 1, 2]));
    world.agree();
}

#[test]
fn a_server_that_stays_away_is_replaced_by_a_spare_one_after_a_bounded_time() {
    for (servers, lost) in [(4, 1), (4, 0), (6, 2), (6, 0)] {
        let mut world = World::with_replicas(servers);
        let client = world.client(servers - 1);
        world.commit_there(client, servers - 1);
        let count = world.voters().len();
        world.kill(lost);
        world.advance(4 * LEASE_MS);
        assert!(world.voters().iter().any(|(server, _)| *server == lost), "it may come back soon");
        world.advance(AWAY_MS);
        let voters = world.voters();
        assert_eq!(voters.len(), count);
        assert!(voters.iter().all(|(server, _)| *server != lost), "{voters:?}");
        // Of what the log had at first, only one less than a majority is left.
        let before = world.commit_there(client, servers - 1);
        let next = (0..servers - 1).find(|server| *server != lost).unwrap();
        world.kill(next);
        assert_eq!(world.commit_there(client, servers - 1).step.0, before.step.0 + 1);
        // It comes back with its old log, counts no more, and disturbs nobody.
        world.start(lost);
        world.advance(5 * LEASE_MS);
        let leader = world.leader();
        let terms = |world: &World| world.node(leader).replica.as_ref().unwrap().leading().term;
        let term = terms(&world);
        world.advance(5 * LEASE_MS);
        assert_eq!((world.leader(), terms(&world)), (leader, term), "nobody is elected anew");
        world.agree();
        assert_eq!(world.commit_there(client, servers - 1).step.0, before.step.0 + 2);
    }
}

#[test]
fn without_a_spare_the_place_of_a_lost_server_is_kept() {
    let mut world = World::with_replicas(3);
    let client = world.client(1);
    world.commit_there(client, 1);
    world.kill(2);
    world.advance(AWAY_MS);
    assert_eq!(world.voters(), world.lives_of(&[0, 1, 2]));
    world.start(2);
    world.advance(4 * LEASE_MS);
    assert_eq!(world.voters(), world.lives_of(&[0, 1, 2]));
    world.kill(0);
    world.commit_there(client, 1);
}

#[test]
fn one_that_lost_its_log_elects_nobody_under_its_old_name() {
    // Of three, one is down, and one has forgotten that it voted: there is no majority, and none must be made.
    let mut world = World::with_replicas(3);
    let client = world.client(0);
    world.commit_through(client);
    let leader = world.leader();
    let others: Vec<usize> = (0..3).filter(|server| *server != leader).collect();
    world.kill(leader);
    world.lose(others[0]);
    world.advance(10 * LEASE_MS);
    assert!((0..3).all(|server| world.nodes[server].as_ref().is_none_or(|node| !node.is_leader())));
    world.start(leader);
    world.advance(5 * LEASE_MS);
    assert_eq!(world.voters(), world.lives_of(&[0, 1, 2]));
    world.agree();
}
