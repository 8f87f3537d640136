//! Servers that are stopped for longer than their lease and go on: nobody gets from them what may be stale (rule 11).

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use crc_fast::{CrcAlgorithm, checksum};
use data::{client, container};
use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, SECRET, SYSTEM, Server, servers};
use talea_client::Client;
use talea_fabric::{
    Clock, Credentials, Endpoint, Event, Hello, MuxEndpoint, PeerId, Policy, RealClock, Spin, client_endpoint,
};
use talea_model::{ContainerId, MapVersion, ObjectClass, Oid, Order, SessionId, Stamp, TargetId, View};
use talea_wire::RefusalCode;
use talea_wire::data::request::Head;
use talea_wire::data::{Body, Condition, Entry, Reply, ReplyBody, Request, ValueKind};

/// What a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Served,
    StaleMap,
    Refused(RefusalCode),
}

/// A connection to a target that asks without looking at maps: what a process does that has not heard of a new one.
struct Raw {
    endpoint: MuxEndpoint,
    peer: PeerId,
    session: SessionId,
    target: TargetId,
    container: ContainerId,
    map: MapVersion,
    last: u64,
    answers: BTreeMap<u64, Answer>,
}

impl Raw {
    fn connect(server: &Server, target: TargetId, client: &Client, container: ContainerId) -> Self {
        let credentials = Credentials::new(SYSTEM, SECRET);
        let mut endpoint = client_endpoint(&credentials, Policy::Auto, Spin::Never).unwrap();
        let session = client.session();
        let hello = Hello { session: session.0, pid: std::process::id(), server: None };
        let deadline_ns = RealClock.monotonic_ns() + PATIENCE.as_nanos() as u64;
        let peer = endpoint.connect(&server.rings[0].parse().unwrap(), &hello, deadline_ns).unwrap();
        let map = client.status().unwrap().map.version;
        Raw { endpoint, peer, session, target, container, map, last: 0, answers: BTreeMap::new() }
    }

    fn send(&mut self, order: Option<Order>, body: Body<'_>) {
        self.last += 1;
        let head = Head {
            id: self.last,
            session: self.session,
            // Beyond those of the client whose session this is.
            sequence: if order.is_some() { 1_000_000 + self.last } else { 0 },
            acknowledged_below: 0,
            hlc: Stamp::ZERO,
            map_version: self.map,
            target: self.target,
            deadline_ms: 0,
            container: self.container,
            oid: Oid::new(ObjectClass::S1, 3),
            order,
            view: View::Latest,
        };
        let request = Request { head, body };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        request.data().for_each(|data| bytes.extend_from_slice(data));
        self.endpoint.send(self.peer, &[IoSlice::new(&bytes)]).unwrap();
    }

    fn put(&mut self, value: &[u8]) {
        self.send(Some(Order::Auto { tied: None }), Body::Update(vec![entry(value)]));
    }

    fn get(&mut self) {
        self.send(None, Body::Fetch(vec![entry(&[])]));
    }

    /// The answers to all that was asked.
    fn answers(&mut self) -> Vec<Answer> {
        let begun = Instant::now();
        while self.answers.len() < self.last as usize {
            assert!(begun.elapsed() < PATIENCE, "no answers: {:?}", self.answers);
            self.endpoint.wait(RealClock.monotonic_ns() + 100_000_000);
            while let Some(event) = self.endpoint.recv() {
                let Event::Message { message, .. } = event else { continue };
                let reply = Reply::decode(&message).unwrap();
                let answer = match reply.body {
                    ReplyBody::Refused(refusal) => Answer::Refused(refusal.code),
                    ReplyBody::StaleMap(_) => Answer::StaleMap,
                    _ => Answer::Served,
                };
                self.answers.insert(reply.head.id, answer);
            }
        }
        self.last = 0;
        std::mem::take(&mut self.answers).into_values().collect()
    }
}

fn entry(value: &[u8]) -> Entry<'_> {
    Entry {
        dkey: b"key",
        akey: b"data",
        kind: ValueKind::Single,
        condition: Condition::None,
        extents: Default::default(),
        data: value,
        more: Default::default(),
        checksum: checksum(CrcAlgorithm::Crc32Iscsi, value) as u32,
    }
}

fn is_up(client: &Client, target: TargetId) -> bool {
    client.status().unwrap().map.is_up(target)
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server of three is stopped until it counts as lost, and goes on with requests waiting on an old connection.
fn old_connection(stopped: usize) {
    let (_outer, all) = servers(3, r#","membership_lease_ms":1000"#);
    let home = client(&all[1], 20_000);
    let target = TargetId(stopped as u32 * 2);
    let run = container(&home).id();
    let signal = |signal| kill_process(Pid::from_child(&all[stopped].child), signal).unwrap();
    for round in 0..3 {
        let mut old = Raw::connect(&all[stopped], target, &home, run);
        old.put(b"before");
        old.get();
        assert_eq!(old.answers(), [Answer::Served; 2], "round {round}");
        signal(Signal::STOP);
        until("nobody missed it", || !is_up(&home, target));
        (0..8).for_each(|_| {
            old.get();
            old.put(b"late");
        });
        signal(Signal::CONT);
        let answers = old.answers();
        let allowed =
            [Answer::StaleMap, Answer::Refused(RefusalCode::ServerLost), Answer::Refused(RefusalCode::NoLeader)];
        assert!(answers.iter().all(|answer| allowed.contains(answer)), "round {round}: {answers:?}");
        until("it does not come back", || is_up(&home, target));
        let mut new = Raw::connect(&all[stopped], target, &home, run);
        // Its lease may be a moment behind its place in the map.
        let mut again = || {
            new.get();
            new.answers().pop()
        };
        let begun = Instant::now();
        while again() != Some(Answer::Served) {
            assert!(begun.elapsed() < PATIENCE, "round {round}: it serves no more");
        }
    }
}

#[test]
fn rule_11_a_follower_that_was_stopped_past_its_lease_answers_no_old_connection() {
    old_connection(2);
}

#[test]
fn rule_11_a_leader_that_was_stopped_past_its_lease_answers_no_old_connection() {
    old_connection(0);
}

#[test]
fn i9_a_lease_is_renewed_without_waking_a_target() {
    let (_outer, all) = servers(3, r#","membership_lease_ms":1000"#);
    let home = client(&all[1], 20_000);
    let turns = || [0, 2, 4].map(|target| home.target_stat(TargetId(target)).unwrap().turns);
    let before = turns();
    // Several leases long: the followers' were renewed at least four times, the leader's by each heartbeat of its log.
    std::thread::sleep(Duration::from_millis(3_000));
    for (before, after) in before.into_iter().zip(turns()) {
        // The question itself, its connection, and what was left to do in the background.
        assert!(after - before <= 8, "{} turns of an idle target", after - before);
    }
}
