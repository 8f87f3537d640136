//! Servers that are stopped, not killed: their connections stand, and nothing comes over them.

use super::failover::TICK_MS;
use super::*;

/// How long a connection to a stopped server takes to fail: the kernel accepts it, and nobody answers.
pub(super) const DIAL_MS: u64 = 2_000;

/// Who is stopped, and what that holds up.
#[derive(Default)]
pub(super) struct Stopped {
    pub(super) servers: Vec<usize>,
    /// Connections whose end a stopped server has not seen.
    missed: Vec<(usize, PeerId)>,
    /// Attempts at stopped servers: when they fail, from where, to whom.
    pub(super) dials: Vec<(u64, usize, ServerId)>,
}

impl Stopped {
    pub(super) fn hears(&self, end: &End) -> bool {
        !matches!(end, End::Node(server, _) if self.servers.contains(server))
    }

    pub(super) fn next_dial(&self) -> Option<u64> {
        self.dials.iter().map(|(at_ns, ..)| *at_ns).min()
    }
}

impl World {
    pub(super) fn stop(&mut self, server: usize) {
        self.stopped.servers.push(server);
    }

    /// It goes on where it was, at a later time.
    pub(super) fn go_on(&mut self, server: usize) {
        self.stopped.servers.retain(|stopped| *stopped != server);
        let (missed, rest) = self.stopped.missed.drain(..).partition(|(missed, _)| *missed == server);
        self.stopped.missed = rest;
        let missed: Vec<(usize, PeerId)> = missed;
        missed.into_iter().for_each(|(server, peer)| self.peer_down(server, peer));
    }

    pub(super) fn running(&self) -> impl Iterator<Item = usize> {
        let is_running = |server: &usize| self.nodes[*server].is_some() && !self.stopped.servers.contains(server);
        (0..self.nodes.len()).filter(is_running)
    }

    pub(super) fn peer_down(&mut self, server: usize, peer: PeerId) {
        match self.stopped.servers.contains(&server) {
            true => self.stopped.missed.push((server, peer)),
            false => self.with(server, |node, now| node.peer_down(now, peer)),
        }
    }

    pub(super) fn fail_dials(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let (due, rest) = self.stopped.dials.drain(..).partition(|(at_ns, ..)| *at_ns <= now_ns);
        self.stopped.dials = rest;
        let due: Vec<(u64, usize, ServerId)> = due;
        due.into_iter().for_each(|(_, server, to)| self.with(server, |node, now| node.server_unreachable(now, to)));
    }
}

#[test]
fn nobody_but_the_leader_is_lost_when_it_is_stopped_and_it_follows_when_it_goes_on() {
    for (servers, stop_ms) in [3, 4, 5, 6].into_iter().flat_map(|servers| (0..8).map(move |part| (servers, part * 97)))
    {
        let what = format!("{servers} servers, stopped after {stop_ms} ms");
        let mut world = World::with_replicas(servers);
        let old = world.leader();
        let others: Vec<usize> = (0..servers).filter(|server| *server != old).collect();
        let (writer, reader) = (world.client(others[0]), world.client(others[1]));
        let before = world.commit_through(writer);
        world.advance(stop_ms);
        let waits = world.wait(reader, before.step.0);
        world.stop(old);
        let after = world.commit_through(writer);
        assert_eq!(after.step.0, before.step.0 + 1, "{what}");
        world.advance(TICK_MS);
        let told = world.waited(reader, waits);
        assert!(matches!(told, Some(Waited::Steps { steps, .. }) if steps.len() == 1), "{what}: the reader is told");
        world.advance(4 * LEASE_MS);
        let new = world.running().find(|server| world.node(*server).is_leader()).expect("another leader");
        let map = world.node(new).pool().map().cloned().unwrap();
        for server in others {
            let is_up = (0..2).all(|n| map.is_up(TargetId(server as u32 * 2 + n)));
            assert!(is_up && world.may_serve(server), "{what}: server {server} is not lost");
        }
        assert!(!map.is_up(TargetId(old as u32 * 2)), "{what}: the stopped one is");
        world.go_on(old);
        world.advance(2 * LEASE_MS);
        assert!(!world.node(old).is_leader() && world.node(new).is_leader(), "{what}");
        assert!((0..servers).all(|server| world.node(server).is_ready()), "{what}");
        assert!((0..servers).all(|server| world.node(server).pool() == world.node(new).pool()), "{what}");
        assert_eq!(world.commit_through(writer).step.0, after.step.0 + 1, "{what}");
    }
}
