//! Servers that follow the log through each other.

use super::*;

const MS: u64 = 1_000_000;

impl World {
    /// Each server passes the log on to so many others.
    pub(super) fn spreading(servers: usize, width: usize) -> Self {
        Self::spreading_and_cutting(servers, width, LogBound::default())
    }

    pub(super) fn spreading_and_cutting(servers: usize, width: usize, log_bound: LogBound) -> Self {
        let mut world = World::empty(servers);
        (world.fan_out, world.log_bound) = (FanOut { direct: 0, width }, log_bound);
        (0..servers).for_each(|server| world.start(server));
        world.advance(LEASE_MS);
        let client = world.client(servers - 1);
        let properties = ContainerProperties { kept_steps: 8, ..ContainerProperties::default() };
        world.ok(client, Request::ContainerCreate { name: "run".into(), properties, exist_ok: false });
        world.advance(LEASE_MS);
        world
    }

    /// Through whom a server follows; none: the leader itself.
    fn source(&self, server: usize) -> Option<usize> {
        let Role::Follower(follower) = &self.node(server).role else { return None };
        (0..self.nodes.len()).find(|other| follower.upstream.is_server(ServerId(*other as u32)))
    }

    /// Servers between the leader and this one, and this one.
    fn depth(&self, server: usize) -> usize {
        std::iter::successors(Some(server), |server| self.source(*server)).count()
    }

    /// Servers that the leader tells itself.
    fn fed(&self) -> usize {
        let Role::Leader(leader) = &self.node(self.leader()).role else { return 0 };
        leader.followers.values().filter(|follower| follower.is_fed()).count()
    }

    fn assert_all_agree(&self, what: &str) {
        let leader = self.node(self.leader()).pool();
        for server in self.running() {
            assert_eq!(self.node(server).pool(), leader, "{what}: server {server}");
            assert!(self.may_serve(server), "{what}: server {server} serves");
            self.check_view(server);
        }
    }

    fn is_lost(&self, server: usize) -> bool {
        !self.node(self.leader()).pool().map().unwrap().is_up(TargetId(2 * server as u32))
    }

    /// An epoch that touches a target of the leader's.
    fn commit_now(&mut self, client: usize) -> Committed {
        let tx = self.begin(client).tx;
        let mut summary = Summary { map_version: self.touched().map_version, ..Summary::default() };
        summary.touched.insert(TargetId(2 * self.leader() as u32));
        match self.ok(client, Request::Commit { tx, summary, attributes: vec![], manifest: None, next: false }) {
            Reply::Committed(committed) => committed,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_leader_tells_a_few_and_all_hear_everything() {
    for (servers, width) in [(3, 1), (5, 1), (5, 2), (9, 2), (20, 3)] {
        let what = format!("{servers} servers, {width} children each");
        let mut world = World::spreading(servers, width);
        assert_eq!(world.fed(), width.min(servers - 1), "{what}");
        assert_eq!(
            (0..servers).filter(|server| world.source(*server).is_some()).count(),
            servers - 1 - width,
            "{what}"
        );
        for home in 0..servers {
            let client = world.client(home);
            let committed = world.commit_now(client);
            for server in 0..servers {
                assert!(
                    world.node(server).pool().position() >= committed.position,
                    "{what}: at once, by messages alone"
                );
            }
        }
        world.assert_all_agree(&what);
    }
}

#[test]
fn few_servers_follow_the_leader_itself_and_more_do_not() {
    for (servers, fed) in [(17, 16), (18, 8)] {
        let mut world = World::of(servers);
        world.advance(LEASE_MS);
        assert_eq!(world.fed(), fed, "{servers} servers");
    }
}

#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    Stopped,
    CutFromAll,
    /// Its children cannot reach it, the leader can.
    CutFromChildren,
}

#[test]
fn who_follows_through_a_lost_server_goes_on_without_it_and_keeps_its_lease() {
    for loss in [Loss::Killed, Loss::Stopped, Loss::CutFromAll, Loss::CutFromChildren] {
        for width in [1, 2] {
            let what = format!("{loss:?}, {width} children each");
            let mut world = World::spreading(9, width);
            let leader = world.leader();
            // The one that most follow through, directly or not.
            let lost = (0..9).find(|server| *server != leader && world.source(*server).is_none()).unwrap();
            let others: Vec<usize> = (0..9).filter(|server| *server != lost).collect();
            let children: Vec<usize> =
                others.iter().copied().filter(|other| world.source(*other) == Some(lost)).collect();
            assert_eq!(children.len(), width, "{what}");
            match loss {
                Loss::Killed => world.kill(lost),
                Loss::Stopped => world.stop(lost),
                Loss::CutFromAll => others.iter().for_each(|other| world.set_reachable(lost, *other, false)),
                Loss::CutFromChildren => children.iter().for_each(|child| world.set_reachable(lost, *child, false)),
            }
            let client = world.client(leader);
            let committed = world.commit_now(client);
            let began_ns = world.now.monotonic_ns;
            let is_behind =
                |world: &World| others.iter().any(|other| world.node(*other).pool().position() < committed.position);
            while is_behind(&world) {
                world.advance(10);
                assert!(others.iter().all(|other| world.may_serve(*other)), "{what}: all others serve all the time");
                assert!(world.now.monotonic_ns - began_ns < LEASE_MS * MS / 2, "{what}: within half a lease");
            }
            world.advance(2 * LEASE_MS);
            assert!(
                others.iter().all(|other| !world.is_lost(*other) && world.may_serve(*other)),
                "{what}: nobody else is lost"
            );
            assert_eq!(world.is_lost(lost), !matches!(loss, Loss::CutFromChildren), "{what}");
            // It comes back, and passes the log on again.
            match loss {
                Loss::Killed => world.start(lost),
                Loss::Stopped => world.go_on(lost),
                Loss::CutFromAll | Loss::CutFromChildren => world.unreachable.clear(),
            }
            world.advance(4 * LEASE_MS);
            world.assert_all_agree(&what);
            assert!(children.iter().all(|child| world.source(*child) == Some(lost)), "{what}: as before");
            assert_eq!(world.fed(), width, "{what}");
        }
    }
}

#[test]
fn rule_8_catching_up_through_others_reaches_the_end_as_it_was_and_asks_the_leader_once() {
    for (servers, width) in [(5, 1), (9, 2), (40, 3), (100, 8)] {
        let mut world = World::spreading(servers, width);
        let (leader, client) = (world.leader(), world.client(world.leader()));
        // What is committed here is on its way to nobody yet when all ask.
        world.send(client, Request::Begin { container: RUN, collective: true });
        let to_leader = world.links[&End::Client(client)];
        world.deliver_to(to_leader);
        while world.node(leader).pool().state().last_tx == TxId(0) {
            assert!(world.deliver_one(0));
        }
        let end = world.node(leader).pool().position();
        for server in (0..servers).filter(|server| *server != leader) {
            for token in 0..3 {
                world.with(server, |node, now| node.log_end(now, token));
            }
        }
        let before = world.node(leader).counters();
        while !world.queues.is_empty() {
            world.round();
        }
        for server in (0..servers).filter(|server| *server != leader) {
            assert!(world.told[server].horizon >= end, "server {server}");
            let mut told = world.told[server].caught_up.clone();
            told.sort_unstable();
            assert_eq!(told, [0, 1, 2], "server {server}");
        }
        let asked = world.node(leader).counters().messages_in - before.messages_in;
        // Of each child two questions for each level below the leader, and what the replicas say of the entry.
        let depth = (0..servers).map(|server| world.depth(server)).max().unwrap();
        assert!(asked <= 2 * (width * depth) as u64 + 24, "{asked} messages to the leader, of {servers} servers");
    }
}

#[test]
fn rule_8_an_end_that_was_asked_for_before_is_not_told() {
    // A chain: one has asked when the last one asks it. What it is answered is older than the last one's question.
    let mut world = World::spreading(7, 1);
    let leader = world.leader();
    let (middle, last) = (5, 6);
    assert_eq!(world.source(last), Some(middle));
    let client = world.client(leader);
    world.with(middle, |node, now| node.log_end(now, 1));
    let (to_source, _) = world.queues.iter().find(|(_, queue)| !queue.is_empty()).unwrap();
    let (to_source, to_middle) = (*to_source, world.links[to_source]);
    world.deliver_to(to_source);
    while let Some(end) = world.queues.keys().find(|end| **end != to_middle).copied() {
        world.deliver_to(end);
    }
    world.send(client, Request::Begin { container: RUN, collective: true });
    while let Some(end) = world.queues.keys().find(|end| **end != to_middle).copied() {
        world.deliver_to(end);
    }
    let end = world.node(leader).pool().position();
    assert!(world.node(last).pool().position() < end);
    world.with(last, |node, now| node.log_end(now, 2));
    while let Some(end) = world.queues.keys().find(|end| **end != to_middle).copied() {
        world.deliver_to(end);
    }
    while world.told[last].caught_up.is_empty() {
        let next = world.queues.keys().next().copied().expect("an answer comes");
        world.deliver_to(next);
    }
    assert!(world.told[last].horizon >= end, "what was committed before it asked");
}

#[test]
fn heartbeats_of_all_reach_the_leader_in_a_few_messages() {
    for (servers, width) in [(9, 2), (40, 3), (100, 8)] {
        let mut world = World::spreading(servers, width);
        let leader = world.leader();
        let before: Vec<Counters> = (0..servers).map(|server| world.node(server).counters()).collect();
        world.advance(10 * LEASE_MS);
        assert!((0..servers).all(|server| world.may_serve(server) && !world.is_lost(server)), "{servers} servers");
        let sent = |server: usize| world.node(server).counters().messages_in - before[server].messages_in;
        let rounds = 10 * LEASE_MS / 500;
        // Two messages of each child and what the replicas answer to Raft's own heartbeats, of which there are four.
        let raft = 4 * 10 * LEASE_MS / (LEASE_MS / 16) + 4 * rounds;
        assert!(
            sent(leader) <= 3 * rounds * width as u64 + raft,
            "{servers} servers: {} messages to the leader",
            sent(leader)
        );
        let follower = (0..servers)
            .filter(|server| !world.node(leader).replicas().iter().any(|id| id.server.0 as usize == *server));
        let busiest = follower.map(sent).max().unwrap();
        assert!(
            busiest <= 2 * rounds * (1 + width as u64),
            "{servers} servers: {busiest} messages to the busiest of the others"
        );
    }
}

#[test]
fn rule_11_who_is_silent_is_lost_though_the_one_that_it_follows_through_is_not() {
    let mut world = World::spreading(9, 2);
    let silent = (0..9).find(|server| world.source(*server).is_some_and(|over| world.source(over).is_some())).unwrap();
    world.stop(silent);
    let until_ns = world.told[silent].lease_ns.unwrap();
    while !world.is_lost(silent) {
        world.advance(10);
        assert!(world.now.monotonic_ns < until_ns + LEASE_MS * MS, "it is noticed");
    }
    assert!(world.now.monotonic_ns >= until_ns + LEASE_MS * MS / 8, "after its lease and the drift of clocks");
    assert!((0..9).all(|server| server == silent || !world.is_lost(server)));
    world.go_on(silent);
    assert!(!world.may_serve(silent));
    world.advance(3 * LEASE_MS);
    world.assert_all_agree("it is back");
}

#[test]
fn rule_11_servers_that_are_cut_off_together_confirm_each_other_nothing() {
    for width in [1, 2] {
        let mut world = World::spreading(9, width);
        let leader = world.leader();
        // All that follow through one server that follows the leader itself, and that server.
        let first = (0..9).rfind(|server| *server != leader && world.source(*server).is_none()).unwrap();
        let is_below = |world: &World, server: usize| {
            std::iter::successors(Some(server), |server| world.source(*server)).any(|above| above == first)
        };
        let cut: Vec<usize> = (0..9).filter(|server| *server != leader && is_below(&world, *server)).collect();
        // Connections stand, and nothing comes over them from one side to the other.
        // Most of the log's replicas stay with the leader.
        let cut: Vec<usize> = cut.into_iter().filter(|server| width == 2 || *server > 4).collect();
        let others: Vec<usize> = (0..9).filter(|server| !cut.contains(server)).collect();
        assert!(
            cut.len() > 1 && cut.iter().any(|server| world.source(*server).is_some_and(|above| cut.contains(&above)))
        );
        cut.iter().for_each(|a| others.iter().for_each(|b| world.silent.push((*a.min(b), *a.max(b)))));
        let until_ns = cut.iter().filter_map(|server| world.told[*server].lease_ns).max().unwrap();
        while cut.iter().any(|server| !world.is_lost(*server)) {
            world.advance(10);
            assert!(world.now.monotonic_ns < until_ns + LEASE_MS * MS, "it is noticed");
        }
        let served_ns = cut.iter().filter_map(|server| world.told[*server].lease_ns).max();
        assert!(served_ns.is_none_or(|served_ns| served_ns <= world.now.monotonic_ns), "none of them serves any more");
        assert!(others.iter().all(|server| !world.is_lost(*server) && world.may_serve(*server)));
        world.silent.clear();
        world.advance(4 * LEASE_MS);
        world.assert_all_agree("they are back");
    }
}

#[test]
fn another_leader_is_the_root_of_another_tree() {
    for (servers, width) in [(5, 1), (9, 2), (30, 3)] {
        let what = format!("{servers} servers, {width} children each");
        let mut world = World::spreading(servers, width);
        let old = world.leader();
        let client = world.client(servers - 1);
        world.kill(old);
        world.advance(2 * LEASE_MS);
        let new = world.leader();
        assert_ne!(new, old);
        assert!((0..servers).all(|server| server == old || !world.is_lost(server)), "{what}: nobody else is lost");
        world.commit_now(client);
        world.start(old);
        world.advance(4 * LEASE_MS);
        world.assert_all_agree(&what);
        assert_eq!(world.fed(), width, "{what}");
    }
}

#[test]
fn who_lacks_what_nobody_on_its_way_keeps_gets_the_state_from_the_leader_and_then_follows_through_others() {
    let mut world = World::spreading_and_cutting(9, 2, LogBound { records: 64, bytes: 1 << 20 });
    let client = world.client(world.leader());
    let away = 8;
    (0..8).for_each(|other| world.set_reachable(away, other, false));
    world.advance(2 * LEASE_MS);
    (0..300).for_each(|_| _ = world.commit_now(client));
    world.unreachable.clear();
    world.advance(4 * LEASE_MS);
    assert_eq!(world.states_told(away), 1);
    world.assert_all_agree("it is back");
    assert!(world.source(away).is_some());
}

/// Rule 11 fences who may serve no more, and nobody else: servers that stop for less than what is left of a lease between two
/// heartbeats are lost to nobody, and neither are those that follow through them.
#[test]
fn rule_11_pauses_shorter_than_a_lease_fence_nobody() {
    let mut pauses = 0;
    for seed in 0..24u64 {
        let (servers, width) = [(9, 1), (9, 2), (20, 3), (40, 8)][seed as usize % 4];
        let mut world = World::spreading(servers, width);
        let leader = world.leader();
        let version = world.node(leader).pool().map().unwrap().version;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..40 {
            // The leader and the log's other replicas go on: another leader is another test's subject.
            let stopped: Vec<usize> = (0..1 + draw(3)).map(|_| 5 + draw(servers as u64 - 5) as usize).collect();
            stopped.iter().filter(|server| **server != leader).for_each(|server| world.stop(*server));
            world.advance(1 + draw(LEASE_MS / 3));
            let on: Vec<usize> = std::mem::take(&mut world.stopped.servers);
            pauses += on.len();
            on.into_iter().for_each(|server| world.go_on(server));
            world.advance(1 + draw(LEASE_MS / 2));
        }
        world.advance(LEASE_MS);
        let map = world.node(leader).pool().map().unwrap();
        assert_eq!(
            map.version, version,
            "seed {seed}, {servers} servers: nobody was declared lost, and nobody came back"
        );
        world.assert_all_agree(&format!("seed {seed}"));
    }
    assert!(pauses > 1_000, "{pauses} pauses");
}
