//! The client against a scripted server on the simulated fabric: what it sends, how often, and what it makes of the answers.

use std::future::Future;
use std::io::IoSlice;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use talea_client::{
    Client, ClientError, Condition, Container, ContainerProperties, EntryFetch, EntryUpdate, ErrorKind, Object, Tuning,
    ValueKind, Write,
};
use talea_fabric::sim::{SimEndpoint, SimNetwork};
use talea_fabric::{Address, Endpoint, Event, PeerId};
use talea_model::{
    ContainerId, MapVersion, ObjectClass, PoolId, PoolMap, ServerId, ServerInfo, SessionId, Stamp, Step, TargetId,
    TargetInfo, TargetState, View,
};
use talea_wire::control::{Body, ContainerInfo, Envelope, Reply, Request};
use talea_wire::data::{self, Fetched, ReplyBody, ReplyHead};
use talea_wire::{Refusal, RefusalCode, codec};

const SERVER: u32 = 0;
const CLIENT: u32 = 1;
/// Ahead of the clients' clocks, but plausible.
const STAMP: Stamp = Stamp::from_unix_us(talea_fabric::sim::SIM_START_US + 5_000_000);

/// What the target does with the n-th data request: session, sequence, and map version are noted before.
type Script = Box<dyn FnMut(usize, &data::Request<'_>) -> Vec<u8>>;

struct World {
    network: SimNetwork,
    server: SimEndpoint,
    client: Client,
    script: Script,
    seen: Vec<(u64, u64, MapVersion, usize)>,
    version: u32,
}

fn map(version: u32, state: TargetState) -> PoolMap {
    let target = TargetInfo {
        id: TargetId(0),
        server: ServerId(0),
        state,
        addresses: vec![Address::Sim(SERVER).to_string()],
        capacity_bytes: 0,
        incarnation: 0,
    };
    let server = ServerInfo { id: ServerId(0), host: "scripted".into(), node: "n".into(), control: vec![] };
    let (pool, version, stamp) = (PoolId(1), MapVersion(version), Stamp::ZERO);
    PoolMap { pool, version, stamp, servers: vec![server], targets: vec![target] }
}

impl World {
    fn new(script: impl FnMut(usize, &data::Request<'_>) -> Vec<u8> + 'static) -> Self {
        let mut random = 7u64;
        let network = SimNetwork::new(move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 16
        });
        let server = network.endpoint(SERVER);
        let tuning = Tuning { resend_ms: Some(50), deadline_ms: 2_000, ..Tuning::default() };
        let (endpoint, clock) = (Box::new(network.endpoint(CLIENT)), Arc::new(network.clock(CLIENT)));
        let client = Client::with_endpoint(endpoint, clock, Address::Sim(SERVER), 1, tuning);
        Self { network, server, client, script: Box::new(script), seen: vec![], version: 1 }
    }

    /// Runs a future on virtual time.
    fn run<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        for _ in 0..100_000 {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
            let served = self.serve();
            if !self.client.drive() && !served {
                let timer_ns = self.client.next_deadline_ns();
                let next_ns = self.network.next_event_ns().map_or(timer_ns, |event_ns| event_ns.min(timer_ns));
                assert_ne!(next_ns, u64::MAX, "nothing will ever happen");
                self.network.advance(next_ns);
            }
        }
        panic!("a call hangs");
    }

    fn serve(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.server.recv() {
            any = true;
            let Event::Message { peer, message } = event else { continue };
            match codec::decode::<Envelope>(&message) {
                Ok(Envelope { id, body: Body::Request(request), .. }) => self.control(peer, id, &request),
                _ => {
                    let request = data::Request::decode(&message).unwrap();
                    let entries = match &request.body {
                        data::Body::Update(entries) | data::Body::Fetch(entries) => entries.len(),
                        _ => 0,
                    };
                    let head = request.head;
                    self.seen.push((head.sequence, head.acknowledged_below, head.map_version, entries));
                    let reply = (self.script)(self.seen.len(), &request);
                    if !reply.is_empty() {
                        self.server.send(peer, &[IoSlice::new(&reply)]).unwrap();
                    }
                }
            }
        }
        any
    }

    fn control(&mut self, peer: PeerId, id: u64, request: &Request) {
        let info = ContainerInfo {
            container: ContainerId(1),
            name: "c".into(),
            properties: ContainerProperties::default(),
            step: Step(0),
            first_step: Step(1),
            open_transactions: 0,
            snapshots: vec![],
            producer: talea_client::ProducerState::Unknown,
            subscriptions: 0,
        };
        let body = match request {
            Request::SessionOpen { .. } => {
                Body::Reply(Reply::Session { session: SessionId(9), map: map(self.version, TargetState::Up) })
            }
            Request::ContainerOpen { .. } => Body::Reply(Reply::Container(info)),
            Request::Map => Body::Reply(Reply::Map(map(self.version, TargetState::Up))),
            _ => Body::Refused(Refusal::new(RefusalCode::Unsupported, "scripted")),
        };
        let envelope = Envelope { id, hlc: STAMP, session: SessionId(9), sequence: 0, deadline_ms: 0, body };
        self.server.send(peer, &[IoSlice::new(&codec::encode(&envelope).unwrap())]).unwrap();
    }

    fn object(&mut self) -> Object {
        let client = self.client.clone();
        let container: Container = self.run(client.container_open_async("c")).unwrap();
        container.object(client.new_oid(ObjectClass::S1))
    }
}

fn reply(request: &data::Request<'_>, body: ReplyBody<'_>) -> Vec<u8> {
    let head = ReplyHead { id: request.head.id, hlc: STAMP, map_version: request.head.map_version };
    let data: Vec<u8> = match &body {
        ReplyBody::Fetched(entries) => entries.iter().flat_map(|entry| entry.data.to_vec()).collect(),
        _ => vec![],
    };
    let mut out = vec![];
    data::Reply { head, body }.encode(&mut out).unwrap();
    out.extend(data);
    out
}

fn refuse(request: &data::Request<'_>, code: RefusalCode) -> Vec<u8> {
    reply(request, ReplyBody::Refused(Refusal::new(code, "scripted")))
}

fn value(data: &[u8]) -> EntryUpdate<'_> {
    EntryUpdate { dkey: b"k", akey: b"a", kind: ValueKind::Single, condition: Condition::None, extents: &[], data }
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_sequence() {
    let mut world = World::new(|n, request| if n < 3 { vec![] } else { reply(request, ReplyBody::Done) });
    let object = world.object();
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    world.run(object.update_async(&Write::Auto, &[value(b"w")])).unwrap();
    let sent: Vec<(u64, u64)> = world.seen.iter().map(|(sequence, below, ..)| (*sequence, *below)).collect();
    assert_eq!(sent, [(1, 1), (1, 1), (1, 1), (2, 2)]);
}

#[test]
fn busy_is_tried_again_and_a_refusal_is_not() {
    let mut world = World::new(|n, request| match n {
        1 | 2 => refuse(request, RefusalCode::Busy),
        _ => refuse(request, RefusalCode::NoSpace),
    });
    let object = world.object();
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert_eq!((error.kind(), world.seen.len()), (ErrorKind::NoSpace, 3));
}

#[test]
fn a_stale_map_is_taken_and_the_request_sent_anew() {
    let mut world = World::new(|n, request| match n {
        1 => reply(request, ReplyBody::StaleMap(Box::new(map(5, TargetState::Up)))),
        _ => reply(request, ReplyBody::Done),
    });
    let object = world.object();
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    let versions: Vec<u32> = world.seen.iter().map(|(_, _, version, _)| version.0).collect();
    assert_eq!(versions, [1, 5]);
}

#[test]
fn a_target_that_the_map_calls_down_is_lost_at_once() {
    let mut world = World::new(|_, request| reply(request, ReplyBody::StaleMap(Box::new(map(2, TargetState::Down)))));
    let object = world.object();
    let began_ns = world.network.now_ns();
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert!(
        matches!(&error, ClientError::ServerLost { server: ServerId(0), host, .. } if host == "scripted"),
        "{error}"
    );
    assert!(world.network.now_ns() - began_ns < 1_000_000_000, "not only at the deadline");
}

#[test]
fn silence_ends_at_the_deadline() {
    let mut world = World::new(|_, _| vec![]);
    let object = world.object();
    let began_ns = world.network.now_ns();
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    assert_eq!(world.network.now_ns() - began_ns, 2_000_000_000);
}

#[test]
fn a_broken_connection_is_made_again_and_a_dead_server_is_named() {
    let mut world = World::new(|_, request| reply(request, ReplyBody::Done));
    let object = world.object();
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    world.network.sever(SERVER, CLIENT);
    world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap();
    world.network.crash(SERVER);
    let error = world.run(object.update_async(&Write::Auto, &[value(b"v")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerLost, "{error}");
}

#[test]
fn bytes_that_do_not_match_their_checksum_are_not_returned() {
    let mut world = World::new(|n, request| {
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, b"data") as u32;
        let data: &[u8] = if n == 1 { b"data" } else { b"dataX" };
        reply(request, ReplyBody::Fetched(vec![Fetched { found: true, filled: true, record_bytes: 0, checksum, data }]))
    });
    let object = world.object();
    let mut out = [0; 8];
    world.run(object.fetch_async(&View::Latest, &mut [EntryFetch::single(b"k", b"a", &mut out)])).unwrap();
    assert_eq!(&out, b"data\0\0\0\0");
    let mut out = [0; 8];
    let error = world.run(object.fetch_async(&View::Latest, &mut [EntryFetch::single(b"k", b"a", &mut out)]));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::DataLost);
    assert_eq!(out, [0; 8]);
}

#[test]
fn many_entries_travel_in_few_messages_and_the_clock_follows() {
    let mut world = World::new(|_, request| {
        assert!(request.head.hlc > STAMP, "past all that the server said");
        let data::Body::Fetch(entries) = &request.body else { return reply(request, ReplyBody::Done) };
        let none = Fetched { found: false, filled: false, record_bytes: 0, checksum: 0, data: &[] };
        reply(request, ReplyBody::Fetched(vec![none; entries.len()]))
    });
    let object = world.object();
    let mut outs = vec![[1u8; 4]; 2000];
    let keys: Vec<Vec<u8>> = (0..2000).map(|n| format!("{n}").into_bytes()).collect();
    let mut entries: Vec<_> = outs.iter_mut().zip(&keys).map(|(out, key)| EntryFetch::single(key, b"a", out)).collect();
    world.run(object.fetch_async(&View::Latest, &mut entries)).unwrap();
    assert!(entries.iter().all(|entry| !entry.found && entry.bytes == 0));
    let counts: Vec<usize> = world.seen.iter().map(|(.., count)| *count).collect();
    assert_eq!(counts, [1024, 976]);
}
