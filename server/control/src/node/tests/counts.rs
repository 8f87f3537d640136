//! I5 by counting: a commit costs the same whatever was written and by however many.

use super::*;

/// What one commit of an epoch cost that `writers` joined and whose largest write ended at `end_bytes`.
fn cost(writers: usize, end_bytes: u64) -> Counters {
    let mut world = World::new();
    let clients: Vec<usize> = (0..writers).map(|n| world.client(n % 2)).collect();
    let tx = world.begin(clients[0]).tx;
    clients.iter().for_each(|client| drop(world.ok(*client, Request::Join { tx })));
    let mut summary = world.touched();
    for writer in 1..writers {
        summary.merge(&Summary { size: (0, end_bytes * writer as u64), ..world.touched() });
    }
    let before = world.node(0).counters();
    world.ok(clients[0], Request::Commit { tx, summary, attributes: b"step".to_vec(), manifest: None, next: false });
    let after = world.node(0).counters();
    Counters {
        entries: after.entries - before.entries,
        log_bytes: after.log_bytes - before.log_bytes,
        messages_in: after.messages_in - before.messages_in,
        messages_out: after.messages_out - before.messages_out,
    }
}

#[test]
fn i5_a_commit_is_one_entry_whatever_was_written() {
    let small = cost(1, 1 << 20);
    assert_eq!((small.entries, small.messages_in, small.messages_out), (1, 1, 2), "one batch, one answer");
    // Varints: the size's and the tx's own digits may differ by a few bytes, nothing else.
    for other in [cost(64, 1 << 20), cost(1, 1 << 30), cost(64, 1 << 30)] {
        assert_eq!(Counters { log_bytes: 0, ..other }, Counters { log_bytes: 0, ..small });
        assert!(other.log_bytes.abs_diff(small.log_bytes) <= 16, "{other:?} {small:?}");
    }
}

/// What one commit of an epoch that so many writers joined costs a system of so many servers.
#[derive(Clone, Copy, Debug)]
struct Spread {
    /// Messages that the busiest server sent.
    busiest: u64,
    /// Messages that all servers sent.
    total: u64,
    /// Bytes of the log that the commit took.
    log_bytes: u64,
}

fn spread(world: &mut World, writers: usize) -> Spread {
    let servers = world.nodes.len();
    world.advance(LEASE_MS);
    let clients = world.clients(writers);
    let tx = world.begin(clients[0]).tx;
    clients.iter().for_each(|client| _ = world.send(*client, Request::Join { tx }));
    world.settle();
    assert!(clients.iter().all(|client| world.clients[*client].answers.len() == 1), "all have joined");
    world.advance(LEASE_MS);
    let counters = |world: &World| (0..servers).map(|server| world.node(server).counters()).collect::<Vec<_>>();
    let before = counters(world);
    // Time stands still: no heartbeat is among them.
    let committed = world.commit(clients[writers - 1], tx).unwrap();
    assert!((0..servers).all(|server| world.node(server).pool().position() >= committed.position), "all servers know");
    let after = counters(world);
    let sent = before.iter().zip(&after).map(|(before, after)| after.messages_out - before.messages_out);
    let leader = world.leader();
    Spread {
        busiest: sent.clone().max().unwrap(),
        total: sent.sum(),
        log_bytes: after[leader].log_bytes - before[leader].log_bytes,
    }
}

/// The busiest server's messages stay below 64 + 4·log2(servers + writers), and do not grow: a leader tells a few servers and the
/// other replicas, whatever the number of servers and writers.
fn assert_spread(servers: usize, writers: usize) -> World {
    let mut world = World::of(servers);
    let aim = 64.0 + 4.0 * ((servers + writers) as f64).log2();
    let spread = spread(&mut world, writers);
    println!("{servers} servers, {writers} writers: {spread:?}");
    assert!(spread.busiest as f64 <= aim && spread.busiest <= 32, "{servers} servers, {writers} writers: {spread:?}");
    assert!(spread.total <= servers as u64 + 40, "{servers} servers, {writers} writers: {spread:?}");
    assert!(spread.log_bytes < 64, "{servers} servers, {writers} writers: {spread:?}");
    world
}

/// What membership, the log's own heartbeats included, takes a second while nobody asks for anything: messages sent and received by the
/// busiest server, and sent by all. Each server has two heartbeats a second.
fn assert_membership(world: &mut World) {
    let servers = world.nodes.len();
    world.advance(LEASE_MS);
    let counters = |world: &World| (0..servers).map(|server| world.node(server).counters()).collect::<Vec<_>>();
    let before = counters(world);
    world.advance(2 * LEASE_MS);
    let after = counters(world);
    let passed = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (after.messages_out - before.messages_out, after.messages_in - before.messages_in));
    let second = |messages: u64| messages * 1000 / (2 * LEASE_MS);
    let busiest = passed.clone().map(|(sent, received)| second(sent + received)).max().unwrap();
    let leader = passed.clone().nth(world.leader()).map(|(sent, received)| second(sent + received)).unwrap();
    let total = second(passed.map(|(sent, _)| sent).sum());
    println!(
        "{servers} servers: {busiest} messages a second in and out of the busiest, {leader} of the leader, {total} sent by all"
    );
    // Question and answer of each heartbeat on each of 16 connections, and of the log's heartbeats with four other replicas.
    assert!(busiest <= 2 * (2 * 16) + 4 * 2 * 1000 / (LEASE_MS / 16) + 64, "{servers} servers: {busiest}");
    assert!(total <= 4 * servers as u64 + 2 * busiest, "{servers} servers: {total} in all");
}

#[test]
fn membership_of_a_few_servers_and_of_many_costs_the_busiest_the_same() {
    [2, 5, 17, 18, 100].into_iter().for_each(|servers| assert_membership(&mut World::of(servers)));
}

#[test]
fn messages_of_a_commit_are_few_whatever_the_number_of_servers_and_writers() {
    let cases = [(2, 1), (2, 1000), (5, 1), (5, 100), (16, 16), (17, 1000), (18, 1), (64, 64), (128, 128), (256, 1)];
    cases.into_iter().for_each(|(servers, writers)| drop(assert_spread(servers, writers)));
}

#[test]
fn messages_of_a_commit_of_a_thousand_servers_and_a_thousand_writers() {
    let mut world = assert_spread(1000, 1000);
    assert_membership(&mut world);
}

#[test]
fn messages_of_a_commit_of_a_hundred_thousand_processes() {
    assert_spread(18, 100_000);
}

impl World {
    /// So many clients with sessions, at home at all servers in turn.
    fn clients(&mut self, count: usize) -> Vec<usize> {
        let first = self.clients.len();
        for number in 0..count {
            self.clients.push(Client::default());
            self.connect_client(first + number, number % self.nodes.len());
            self.send(
                first + number,
                Request::SessionOpen {
                    name: "test".into(),
                    secret: 1,
                    resume: None,
                    process: None,
                    joined: vec![],
                    attempt: 0,
                },
            );
            if number % 4096 == 4095 {
                self.settle();
            }
        }
        self.settle();
        for client in &mut self.clients[first..] {
            let Some((_, Ok(Reply::Session { session, .. }))) = client.answers.pop_first() else { panic!() };
            client.session = session;
        }
        (first..first + count).collect()
    }
}
