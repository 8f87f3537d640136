//! A target's thread behind real rings: raw clients write and read, one stalls, one vanishes.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use crc_fast::{CrcAlgorithm, checksum};
use talea_engine::{Effect, Hooks, Lease, Mail, Mailbox, Target, TargetOptions, spawn, spawn_together};
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
    targets: Vec<(Mailbox, Address)>,
    thread: Option<JoinHandle<()>>,
    _wants: Receiver<Effect>,
    directory: tempfile::TempDir,
}

fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

/// A target that listens, and its address.
fn open(directory: &Path, number: u32) -> (Target, MuxEndpoint, Address) {
    let path = directory.join(format!("{number}.ring")).to_string_lossy().into_owned();
    let how = Listen { ring_path: path, interface: None, provider: None, spin: Spin::Never, targets: 1 };
    let (endpoint, addresses) = listen(&credentials(), &how).unwrap();
    let options = TargetOptions { id: TargetId(number), store: StoreOptions::default(), locked_ns: 0 };
    let (target, _) = Target::open(Box::new(RamMedium::new(256 << 20).unwrap()), options).unwrap();
    (target, endpoint, addresses[0].clone())
}

fn info(number: u32) -> TargetInfo {
    TargetInfo {
        id: TargetId(number),
        server: ServerId(0),
        state: TargetState::Up,
        addresses: vec![],
        capacity_bytes: 0,
        incarnation: 0,
    }
}

/// One target with a thread of its own.
fn start() -> Server {
    start_targets(1)
}

/// So many targets with one thread.
fn start_targets(count: u32) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let (sender, wants) = channel();
    let hooks = Hooks {
        want: Box::new(move |_, effect| _ = sender.send(effect)),
        fatal: Box::new(|why| eprintln!("the target failed: {why}")),
    };
    let (mut opened, mut addresses) = (vec![], vec![]);
    for number in 0..count {
        let (target, endpoint, address) = open(directory.path(), number);
        opened.push((target, endpoint));
        addresses.push(address);
    }
    let clock = Arc::new(RealClock);
    let (mailboxes, thread) = if count == 1 {
        let (target, endpoint) = opened.remove(0);
        let (mailbox, thread) = spawn(target, Box::new(endpoint), clock, hooks).unwrap();
        (vec![mailbox], thread)
    } else {
        spawn_together(opened, Spin::Never, clock, hooks).unwrap()
    };
    for mailbox in &mailboxes {
        mailbox.send(Mail::Map(Arc::new(PoolMap {
            pool: PoolId(1),
            version: MapVersion(1),
            stamp: Stamp::ZERO,
            servers: vec![],
            targets: (0..count).map(info).collect(),
        })));
        mailbox.send(Mail::Containers(vec![ContainerId(1)]));
        mailbox.send(Mail::Lease(Lease::until(u64::MAX)));
    }
    let targets = mailboxes.into_iter().zip(addresses).collect();
    Server { targets, thread: Some(thread), _wants: wants, directory }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.targets.iter().for_each(|(mailbox, _)| mailbox.send(Mail::Stop));
        self.thread.take().map(JoinHandle::join);
    }
}

struct Client {
    endpoint: MuxEndpoint,
    peer: PeerId,
    target: u32,
    session: u64,
    last: u64,
    answers: BTreeMap<u64, Vec<u8>>,
}

impl Client {
    fn connect(server: &Server, session: u64) -> Self {
        Self::connect_to(server, 0, session)
    }

    fn connect_to(server: &Server, target: u32, session: u64) -> Self {
        let mut endpoint = client_endpoint(&credentials(), Policy::Ring, Spin::Never).unwrap();
        let hello = Hello { session, pid: std::process::id(), server: None };
        let peer = endpoint.connect(&server.targets[target as usize].1, &hello, deadline()).unwrap();
        Client { endpoint, peer, target, session, last: 0, answers: BTreeMap::new() }
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
            target: TargetId(self.target),
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

#[test]
fn targets_that_share_a_thread_serve_each_its_own_clients() {
    let server = start_targets(3);
    let connect = |target| Client::connect_to(&server, target, u64::from(target) + 1);
    let mut clients: Vec<Client> = (0..3).map(connect).collect();
    let data = |target: u32| vec![target as u8 + 1; 5000];
    for client in &mut clients {
        let data = data(client.target);
        done(&client.ask(AUTO, Body::Update(vec![entry(b"d", 5000, &data)])));
    }
    for client in &mut clients {
        let found = client.ask(None, Body::Fetch(vec![entry(b"d", 5000, &[])]));
        assert!(fetched(&found) == data(client.target), "target {} answers with what is its own", client.target);
    }
    // One that is busy all the time and never waits for answers does not keep the others from being served, nor from hearing of newcomers.
    let mut busy = Client::connect_to(&server, 1, 9);
    let update = [7; 64];
    let mut ask = |client: &mut Client| {
        let bytes = busy.request(AUTO, Body::Update(vec![entry(b"e", 64, &update)]));
        busy.send(&bytes);
        fetched(&client.ask(None, Body::Fetch(vec![entry(b"d", 5000, &[])])))
    };
    for round in 0..300 {
        let mut late = (round % 100 == 0).then(|| Client::connect_to(&server, 2, 100 + round));
        let client = late.as_mut().unwrap_or(&mut clients[0]);
        assert!(ask(client) == data(client.target));
    }
    (1..=300).for_each(|id| done(&busy.answer(id)));
}

/// Processor time of the threads of a name, in nanoseconds.
fn cpu_ns(of: &str) -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten().map(|thread| thread.path());
    let named =
        threads.filter(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == of));
    let time = |path: std::path::PathBuf| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    named.filter_map(time).sum()
}

#[test]
fn a_silent_stranger_and_idle_clients_cost_no_processor_time() {
    // One with a client, the other with nobody but the stranger.
    let (shared, alone) = (start_targets(2), start());
    let mut client = Client::connect(&shared, 1);
    done(&client.ask(AUTO, Body::Update(vec![entry(b"d", 3, b"abc")])));
    let call = |server: &Server, path| std::os::unix::net::UnixStream::connect(server.directory.path().join(path));
    let strangers = [call(&shared, "1.ring").unwrap(), call(&alone, "0.ring").unwrap()];
    // Longer than a stranger may take to prove himself.
    std::thread::sleep(std::time::Duration::from_millis(6_000));
    let before = ["target-0-1", "target-0"].map(cpu_ns);
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    let after = ["target-0-1", "target-0"].map(cpu_ns);
    for (before, after) in before.into_iter().zip(after) {
        assert!(before > 0 && after - before < 20_000_000, "an idle thread used {} ns in a second", after - before);
    }
    for stranger in &strangers {
        stranger.set_nonblocking(true).unwrap();
        assert!(matches!(std::io::Read::read(&mut &*stranger, &mut [0; 1]), Ok(0)), "the stranger was sent away");
    }
    done(&client.ask(AUTO, Body::Update(vec![entry(b"d", 3, b"def")])));
}
