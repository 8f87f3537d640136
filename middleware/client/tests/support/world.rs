//! A client and a scripted server on the simulated fabric.
#![allow(dead_code)] // no test uses all of it

use std::collections::BTreeMap;
use std::future::Future;
use std::io::IoSlice;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use talea_client::{Client, Container, ContainerProperties, Object, ShortWay, Tuning};
use talea_fabric::sim::{SimEndpoint, SimNetwork};
use talea_fabric::{Address, Endpoint, Event, PeerId};
use talea_model::{
    ContainerId, MapVersion, ObjectClass, PoolId, PoolMap, Position, ServerId, ServerInfo, SessionId, Stamp, Step,
    TargetId, TargetInfo, TargetState, TxId,
};
use talea_wire::control::{Begun, Body, ContainerInfo, Envelope, Reply, Request};
use talea_wire::data::{self, ReplyBody, ReplyHead};
use talea_wire::{Refusal, RefusalCode, codec};

pub(crate) const SERVER: u32 = 0;
pub(crate) const CLIENT: u32 = 1;
/// Ahead of the clients' clocks, but plausible.
pub(crate) const STAMP: Stamp = Stamp::from_unix_us(talea_fabric::sim::SIM_START_US + 5_000_000);

/// What the target does with the n-th data request: session, sequence, and map version are noted before.
pub(crate) type Script = Box<dyn FnMut(usize, &data::Request<'_>) -> Vec<u8>>;

pub(crate) struct World {
    pub(crate) network: SimNetwork,
    server: SimEndpoint,
    pub(crate) client: Client,
    script: Script,
    pub(crate) seen: Vec<(u64, u64, MapVersion, usize)>,
    pub(crate) version: u32,
    /// State of the target in the home server's map.
    pub(crate) target: TargetState,
    /// What the home server was asked.
    pub(crate) asked: Vec<Request>,
    /// What it says to a commit.
    pub(crate) verdict: RefusalCode,
    /// The session that the home server gives.
    pub(crate) session: u64,
    /// When the network heals, whatever is wrong with it.
    pub(crate) heal_ns: u64,
    /// Sessions that connections said they belong to.
    hellos: BTreeMap<PeerId, u64>,
    /// Data requests of another session than their connection's.
    pub(crate) strange: usize,
}

pub(crate) fn map(version: u32, state: TargetState) -> PoolMap {
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
    pub(crate) fn new(script: impl FnMut(usize, &data::Request<'_>) -> Vec<u8> + 'static) -> Self {
        Self::with(ShortWay::Off, script)
    }

    pub(crate) fn with(
        short_way: ShortWay,
        script: impl FnMut(usize, &data::Request<'_>) -> Vec<u8> + 'static,
    ) -> Self {
        Self::near(short_way, usize::MAX, script)
    }

    /// A client that reads pieces of so many bytes in place in all views.
    pub(crate) fn near(
        short_way: ShortWay,
        near_bytes: usize,
        script: impl FnMut(usize, &data::Request<'_>) -> Vec<u8> + 'static,
    ) -> Self {
        let mut random = 7u64;
        let network = SimNetwork::new(move || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 16
        });
        let server = network.endpoint(SERVER);
        let tuning = Tuning { resend_ms: Some(50), deadline_ms: 2_000, short_way, near_bytes, ..Tuning::default() };
        let (endpoint, clock) = (Box::new(network.endpoint(CLIENT)), Arc::new(network.clock(CLIENT)));
        let client = Client::with_endpoint(endpoint, clock, Address::Sim(SERVER), 1, tuning);
        let (script, hellos) = (Box::new(script), BTreeMap::new());
        let (version, session, heal_ns, strange) = (1, 9, u64::MAX, 0);
        Self {
            network,
            server,
            client,
            script,
            seen: vec![],
            version,
            target: TargetState::Up,
            asked: vec![],
            verdict: RefusalCode::Unsupported,
            session,
            heal_ns,
            hellos,
            strange,
        }
    }

    /// Runs a future on virtual time.
    pub(crate) fn run<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        for _ in 0..100_000 {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
            let served = self.serve();
            if !self.client.drive() && !served {
                let timer_ns = self.client.next_deadline_ns();
                let next_ns = self.network.next_event_ns().map_or(timer_ns, |event_ns| event_ns.min(timer_ns));
                let next_ns = next_ns.min(self.heal_ns);
                assert_ne!(next_ns, u64::MAX, "nothing will ever happen");
                self.network.advance(next_ns);
                if next_ns == self.heal_ns {
                    self.network.heal();
                    self.heal_ns = u64::MAX;
                }
            }
        }
        panic!("a call hangs");
    }

    fn serve(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.server.recv() {
            any = true;
            if let Event::Up { peer, hello, .. } = &event {
                self.hellos.insert(*peer, hello.session);
            }
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
                    self.strange += usize::from(self.hellos.get(&peer) != Some(&head.session.0));
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
        self.asked.push(request.clone());
        let mut reply = control_reply(id, request, map(self.version, self.target), self.session);
        if let Request::Commit { .. } = request {
            let mut envelope: Envelope = codec::decode(&reply).unwrap();
            envelope.body = Body::Refused(Refusal::new(self.verdict, "scripted"));
            reply = codec::encode(&envelope).unwrap();
        }
        self.server.send(peer, &[IoSlice::new(&reply)]).unwrap();
    }

    /// Control requests of a kind so far.
    pub(crate) fn count(&self, kind: impl Fn(&Request) -> bool) -> usize {
        self.asked.iter().filter(|request| kind(request)).count()
    }

    pub(crate) fn object(&mut self) -> Object {
        let client = self.client.clone();
        let container: Container = self.run(client.container_open_async("c")).unwrap();
        container.object(client.new_oid(ObjectClass::S1))
    }
}

/// The home server's answer: one container, and its map.
pub(crate) fn control_reply(id: u64, request: &Request, map: PoolMap, session: u64) -> Vec<u8> {
    let info = ContainerInfo {
        container: ContainerId(1),
        name: "c".into(),
        properties: ContainerProperties::default(),
        step: Step(0),
        first_step: Step(1),
        open_transactions: 0,
        snapshots: vec![],
        producer: talea_client::ProducerState::Unknown,
        leases: 0,
        subscriptions: 0,
    };
    let body = match request {
        Request::SessionOpen { .. } => Body::Reply(Reply::Session { session: SessionId(session), map: map.clone() }),
        Request::ContainerOpen { .. } => Body::Reply(Reply::Container(info)),
        Request::Begin { container, .. } => Body::Reply(Reply::Begun(Begun {
            tx: TxId(1),
            container: *container,
            base: STAMP,
            position: Position(1),
            base_step: Step(0),
        })),
        Request::Map => Body::Reply(Reply::Map(map.clone())),
        _ => Body::Refused(Refusal::new(RefusalCode::Unsupported, "scripted")),
    };
    let (session, map_version) = (SessionId(session), map.version);
    let envelope = Envelope { id, hlc: STAMP, session, sequence: 0, deadline_ms: 0, map_version, body };
    codec::encode(&envelope).unwrap()
}

pub(crate) fn reply(request: &data::Request<'_>, body: ReplyBody<'_>) -> Vec<u8> {
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

pub(crate) fn refuse(request: &data::Request<'_>, code: RefusalCode) -> Vec<u8> {
    reply(request, ReplyBody::Refused(Refusal::new(code, "scripted")))
}
