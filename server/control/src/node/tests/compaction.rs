//! Logs that are cut, and servers that find records missing.

use super::*;

const BOUND: LogBound = LogBound { records: 64, bytes: 1 << 20 };

impl World {
    pub(super) fn cutting(servers: usize, log_bound: LogBound) -> Self {
        let mut world = World::empty(servers);
        world.log_bound = log_bound;
        (0..servers).for_each(|server| world.start(server));
        world.advance(LEASE_MS);
        let client = world.client(servers - 1);
        let properties = ContainerProperties { kept_steps: 8, ..ContainerProperties::default() };
        world.ok(client, Request::ContainerCreate { name: "run".into(), properties, exist_ok: false });
        world
    }

    /// Epochs that touch target 0, committed one after another.
    fn commits(&mut self, client: usize, count: usize) {
        let mut tx = self.begin(client).tx;
        for _ in 0..count {
            let summary = self.touched_here();
            let reply =
                self.ok(client, Request::Commit { tx, summary, attributes: vec![], manifest: None, next: true });
            let Reply::Committed(Committed { next: Some(next), .. }) = reply else { panic!("{reply:?}") };
            tx = next.tx;
        }
        self.ok(client, Request::Abort { tx, reason: "enough".into() });
    }

    /// An epoch that touches a target of this server.
    fn commit_at(&mut self, client: usize, server: usize) -> Committed {
        let tx = self.begin(client).tx;
        let mut summary = Summary { map_version: self.touched().map_version, ..Summary::default() };
        summary.touched.insert(TargetId(2 * server as u32));
        match self.ok(client, Request::Commit { tx, summary, attributes: vec![], manifest: None, next: false }) {
            Reply::Committed(committed) => committed,
            other => panic!("{other:?}"),
        }
    }

    fn touched_here(&self) -> Summary {
        let mut summary = Summary { map_version: self.touched().map_version, ..Summary::default() };
        summary.touched.insert(TargetId(0));
        summary
    }

    fn log_kept(&self, server: usize) -> (usize, usize, usize) {
        self.node(server).replica.as_ref().map_or((0, 0, 0), |replica| replica.kept())
    }

    fn assert_same(&self) {
        let leader = self.node(self.leader()).pool();
        for server in self.running() {
            assert_eq!(self.node(server).pool(), leader, "server {server}");
            assert!(self.node(server).is_ready());
            self.check_view(server);
        }
    }
}

#[test]
fn after_ten_thousand_commits_every_server_keeps_no_more_than_twice_the_bound() {
    for (servers, commits) in [(1, 1_000), (3, 10_000), (6, 1_000)] {
        let mut world = World::cutting(servers, BOUND);
        let client = world.client(servers - 1);
        world.commits(client, commits);
        world.advance(LEASE_MS);
        assert!(world.node(0).pool().position().0 > commits as u64);
        let most = 2 * BOUND.records as usize + 64;
        for server in 0..servers {
            let (records, entries, bytes) = world.log_kept(server);
            let stored = world.media[server].entries.len();
            assert!(records <= most && entries <= most && stored <= most, "{records} {entries} {stored}");
            assert!(bytes <= 1 << 20, "{bytes}");
            assert_eq!(world.states_told(server), 0, "who keeps up needs no state");
        }
        world.assert_same();
    }
}

#[test]
fn a_replica_that_is_down_does_not_keep_the_log_of_the_others_from_being_cut() {
    let mut world = World::cutting(3, BOUND);
    let client = world.client(0);
    world.kill(2);
    world.advance(4 * LEASE_MS);
    world.commits(client, 1_000);
    world.advance(LEASE_MS);
    for server in 0..2 {
        let (records, entries, _) = world.log_kept(server);
        assert!(records.max(entries) <= 3 * BOUND.records as usize, "{records} {entries}");
    }
}

#[test]
fn a_server_that_missed_what_is_gone_gets_the_state_in_its_place() {
    // Server 2 of three has a replica, server 5 of six has none.
    for (servers, away) in [(3, 2), (6, 5), (3, 0)] {
        let mut world = World::cutting(servers, BOUND);
        let home = (away + 1) % servers;
        let others: Vec<usize> = (0..servers).filter(|server| *server != away).collect();
        let (client, gone) = (world.client(home), world.client(away));
        let waits = world.client(away);
        let last = world.commit_at(client, home).step;
        let open = world.begin(gone).tx;
        let waiting = world.wait(waits, last.0);
        world.settle();
        others.iter().for_each(|other| world.set_reachable(away, *other, false));
        world.advance(2 * LEASE_MS);
        let properties = ContainerProperties::default();
        let made = Request::ContainerCreate { name: "new".into(), properties, exist_ok: false };
        world.ok(client, made);
        let missed = world.commit_at(client, home).step;
        for _ in 0..3 * BOUND.records {
            let client = world.client(home);
            world.ok(client, Request::SnapshotOpen { container: RUN, at: talea_wire::log::SnapshotAt::Latest });
            world.ok(client, Request::SessionClose);
        }
        others.iter().for_each(|other| world.set_reachable(away, *other, true));
        world.advance(2 * LEASE_MS);
        assert_eq!(world.states_told(away), 1, "{servers} servers: it lacked records that are gone");
        world.assert_same();
        let fate = world.node(away).pool().fate(open);
        assert_eq!(fate, Some(talea_model::Fate::Aborted), "who wrote in it was lost with its server");
        assert!(world.ask(gone, Request::Begin { container: RUN, collective: true }).is_err(), "its session has ended");
        let told = world.waited(waits, waiting);
        assert!(matches!(told, Some(Waited::Steps { steps, .. }) if steps.last().unwrap().step == missed), "{servers}");
    }
}

#[test]
fn a_restart_begins_with_the_image_and_goes_on_with_the_records_behind_it() {
    for (servers, records) in [(1, 7), (3, 7), (3, 64)] {
        let mut world = World::cutting(servers, LogBound { records, ..BOUND });
        let client = world.client(0);
        world.commits(client, 200);
        let named = Request::SnapshotName {
            container: RUN,
            name: "kept".into(),
            at: talea_wire::log::SnapshotAt::Step(Step(200)),
        };
        world.ok(client, named);
        let before = world.node(0).pool().clone();
        (0..servers).for_each(|server| world.kill(server));
        assert!(world.media.iter().all(|media| media.snapshot.is_some() && media.purged.is_some()));
        (0..servers).for_each(|server| world.start(server));
        world.advance(4 * LEASE_MS);
        world.assert_same();
        let (now, then) = (world.node(0).pool().container_info(RUN), before.container_info(RUN));
        let (now, then) = (now.unwrap(), then.unwrap());
        assert_eq!((now.step, now.first_step, &now.snapshots), (then.step, then.first_step, &then.snapshots));
        assert!(world.node(0).pool().ceiling() > before.ceiling(), "rule 2 holds over it");
        let client = world.client(0);
        world.commits(client, 3);
        assert_eq!(world.node(0).pool().container_info(RUN).unwrap().step, Step(203));
    }
}

#[test]
fn a_new_leader_serves_servers_that_lack_what_is_gone_before_its_own_image() {
    let mut world = World::cutting(6, BOUND);
    let client = world.client(1);
    (0..5).for_each(|other| world.set_reachable(5, other, false));
    world.advance(4 * LEASE_MS);
    world.commits(client, 300);
    world.kill(world.leader());
    world.advance(2 * LEASE_MS);
    (0..5).for_each(|other| world.set_reachable(5, other, true));
    world.advance(4 * LEASE_MS);
    assert_eq!(world.states_told(5), 1);
    world.assert_same();
}

#[test]
fn an_image_of_many_parts_arrives_whole() {
    let mut world = World::cutting(6, BOUND);
    let client = world.client(1);
    (0..5).for_each(|other| world.set_reachable(5, other, false));
    world.advance(4 * LEASE_MS);
    for number in 0..300 {
        let tx = world.begin(client).tx;
        let summary = world.touched_here();
        let attributes = vec![number as u8; 16 * 1024];
        world.ok(client, Request::Commit { tx, summary, attributes, manifest: None, next: false });
        let at = talea_wire::log::SnapshotAt::Step(Step(number + 1));
        world.ok(client, Request::SnapshotName { container: RUN, name: format!("s{number}"), at });
        let session = world.client(1);
        world.ok(session, Request::Subscribe { container: RUN, after: Some(Step(number)) });
    }
    let image = world.node(world.leader()).pool().to_image().unwrap();
    assert!(image.len() > 4 * raft::PART_BYTES, "{}", image.len());
    (0..5).for_each(|other| world.set_reachable(5, other, true));
    world.advance(4 * LEASE_MS);
    world.assert_same();
}

#[test]
fn an_image_that_is_not_what_was_written_is_refused() {
    let world = World::cutting(1, BOUND);
    let image = world.node(0).pool().to_image().unwrap();
    assert_eq!(&Pool::from_image(&image).unwrap(), world.node(0).pool());
    for at in 0..image.len() {
        let mut bad = image.clone();
        bad[at] ^= 1;
        assert!(Pool::from_image(&bad).is_err(), "byte {at}");
        assert!(Pool::from_image(&image[..at]).is_err(), "cut off at {at}");
    }
}
