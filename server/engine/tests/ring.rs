//! A target's thread behind real rings: raw clients write and read, one stalls, one vanishes.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use crc_fast::{CrcAlgorithm, checksum};
use talea_engine::{Effect, Hooks, Lease, Mail, Mailbox, Target, TargetOptions, spawn};
use talea_fabric::{
    Address, Clock, Credentials, Endpoint, Event, Hello, Listen, MuxEndpoint, PeerId, Policy, RealClock, SendError,
    Spin, client_endpoint, listen,
};
use talea_model::{
    ContainerId, Extent, MapVersion, ObjectClass, Oid, Order, PoolId, PoolMap, ServerId, SessionId, Stamp, TargetId,
    TargetInfo, TargetState, View,
};
use talea_tier::RamMedium;
use talea_vos::StoreOptions;
use talea_wire::data::request::Head;
use talea_wire::data::{Body, Condition, Entry, Reply, ReplyBody, Request, ValueKind};

const MIB: usize = 1 << 20;
const AUTO: Option<Order> = Some(Order::Auto { tied: None });

struct Server {
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
    address: Address,
    _wants: Receiver<Effect>,
    _directory: tempfile::TempDir,
}

fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

fn start() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("target.ring").to_string_lossy().into_owned();
    let how = Listen { ring_path: path, interface: None, spin: Spin::Never, targets: 1 };
    let (endpoint, addresses) = listen(&credentials(), &how).unwrap();
    let options = TargetOptions { id: TargetId(0), store: StoreOptions::default(), locked_ns: 0 };
    let (target, _) = Target::open(Box::new(RamMedium::new(256 << 20).unwrap()), options).unwrap();
    let (sender, wants) = channel();
    let hooks = Hooks {
        want: Box::new(move |_, effect| _ = sender.send(effect)),
        fatal: Box::new(|why| eprintln!("the target failed: {why}")),
    };
    let (mailbox, thread) = spawn(target, Box::new(endpoint), Arc::new(RealClock), hooks).unwrap();
    let target = TargetInfo {
        id: TargetId(0),
        server: ServerId(0),
        state: TargetState::Up,
        addresses: vec![],
        capacity_bytes: 0,
        incarnation: 0,
    };
    mailbox.send(Mail::Map(Arc::new(PoolMap {
        pool: PoolId(1),
        version: MapVersion(1),
        stamp: Stamp::ZERO,
        servers: vec![],
        targets: vec![target],
    })));
    mailbox.send(Mail::Containers(vec![ContainerId(1)]));
    mailbox.send(Mail::Lease(Lease::until(u64::MAX)));
    Server { mailbox, thread: Some(thread), address: addresses[0].clone(), _wants: wants, _directory: directory }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.mailbox.send(Mail::Stop);
        self.thread.take().map(JoinHandle::join);
    }
}

struct Client {
    endpoint: MuxEndpoint,
    peer: PeerId,
    session: u64,
    last: u64,
    answers: BTreeMap<u64, Vec<u8>>,
}

impl Client {
    fn connect(server: &Server, session: u64) -> Self {
        let mut endpoint = client_endpoint(&credentials(), Policy::Ring, Spin::Never).unwrap();
        let hello = Hello { session, pid: std::process::id(), server: None };
        let peer = endpoint.connect(&server.address, &hello, deadline()).unwrap();
        Client { endpoint, peer, session, last: 0, answers: BTreeMap::new() }
    }

    fn request(&mut self, order: Option<Order>, body: Body<'_>) -> Vec<u8> {
        self.last += 1;
        let head = Head {
            id: self.last,
            session: SessionId(self.session),
            sequence: if order.is_some() { self.last } else { 0 },
            acknowledged_below: 0,
            hlc: Stamp::ZERO,
            map_version: MapVersion(1),
            target: TargetId(0),
            deadline_ms: 0,
            container: ContainerId(1),
            oid: Oid::new(ObjectClass::S1, 3),
            order,
            view: View::Latest,
        };
        let request = Request { head, body };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        request.data().for_each(|data| bytes.extend_from_slice(data));
        bytes
    }

    fn send(&mut self, bytes: &[u8]) {
        while let Err(error) = self.endpoint.send(self.peer, &[IoSlice::new(bytes)]) {
            assert_eq!(error, SendError::Full);
            self.receive();
        }
    }

    fn receive(&mut self) {
        self.endpoint.wait(deadline());
        while let Some(event) = self.endpoint.recv() {
            match event {
                Event::Message { message, .. } => {
                    let id = Reply::decode(&message).unwrap().head.id;
                    self.answers.insert(id, message.to_vec());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, id: u64) -> Vec<u8> {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            self.receive();
        }
    }

    fn ask(&mut self, order: Option<Order>, body: Body<'_>) -> Vec<u8> {
        let bytes = self.request(order, body);
        self.send(&bytes);
        self.answer(self.last)
    }
}

fn deadline() -> u64 {
    RealClock.monotonic_ns() + 20_000_000_000
}

fn entry<'a>(dkey: &'a [u8], bytes: u64, data: &'a [u8]) -> Entry<'a> {
    Entry {
        dkey,
        akey: b"data",
        kind: ValueKind::Array { record_bytes: 1 },
        condition: Condition::None,
        extents: [Extent::new(0, bytes).unwrap()].into_iter().collect(),
        checksum: checksum(CrcAlgorithm::Crc32Iscsi, data) as u32,
        data,
        more: Default::default(),
    }
}

fn fetched(bytes: &[u8]) -> Vec<u8> {
    match Reply::decode(bytes).unwrap().body {
        ReplyBody::Fetched(entries) => {
            assert_eq!(entries[0].checksum, checksum(CrcAlgorithm::Crc32Iscsi, entries[0].data) as u32);
            entries[0].data.to_vec()
        }
        other => panic!("{other:?}"),
    }
}

fn done(bytes: &[u8]) {
    assert_eq!(Reply::decode(bytes).unwrap().body, ReplyBody::Done);
}

#[test]
fn raw_clients_write_and_read_what_others_wrote() {
    let server = start();
    let (mut one, mut two) = (Client::connect(&server, 1), Client::connect(&server, 2));
    for size in [1usize, 64, 4096, 70_000, MIB] {
        let data: Vec<u8> = (0..size).map(|n| (n * 31 + size) as u8).collect();
        let dkey = (size as u64).to_be_bytes();
        done(&one.ask(AUTO, Body::Update(vec![entry(&dkey, size as u64, &data)])));
        let found = two.ask(None, Body::Fetch(vec![entry(&dkey, size as u64, &[])]));
        assert!(fetched(&found) == data, "{size} bytes came back different");
    }
    // Many in flight: all are answered, each once.
    let ids: Vec<u64> = (0..500u64)
        .map(|n| {
            let data = n.to_le_bytes();
            let dkey = n.to_be_bytes();
            let bytes = one.request(AUTO, Body::Update(vec![entry(&dkey, 8, &data)]));
            one.send(&bytes);
            if n >= 32 {
                let answer = one.answer(one.last - 32);
                done(&answer);
            }
            one.last
        })
        .collect();
    ids[ids.len() - 32..].iter().for_each(|id| done(&one.answer(*id)));
}

#[test]
fn a_client_that_does_not_read_or_vanishes_hurts_itself_only() {
    let server = start();
    let mut good = Client::connect(&server, 1);
    let data = vec![7; MIB];
    done(&good.ask(AUTO, Body::Update(vec![entry(b"d", MIB as u64, &data)])));
    let mut lazy = Client::connect(&server, 2);
    for _ in 0..40 {
        let bytes = lazy.request(None, Body::Fetch(vec![entry(b"d", MIB as u64, &[])]));
        lazy.send(&bytes);
    }
    for _ in 0..20 {
        assert!(fetched(&good.ask(None, Body::Fetch(vec![entry(b"d", MIB as u64, &[])]))) == data);
    }
    // It wakes up and gets all that it asked for.
    (1..=40).for_each(|id| assert!(fetched(&lazy.answer(id)) == data));
    // Another one goes away in the middle.
    let mut gone = Client::connect(&server, 3);
    for _ in 0..10 {
        let bytes = gone.request(None, Body::Fetch(vec![entry(b"d", MIB as u64, &[])]));
        gone.send(&bytes);
    }
    drop(gone);
    assert!(fetched(&good.ask(None, Body::Fetch(vec![entry(b"d", MIB as u64, &[])]))) == data);
}
