//! Servers and clients of a control plane, as `talead` and libtalea would be.

#![allow(missing_docs, dead_code, unreachable_pub, clippy::new_without_default)] // a test's helper, of which not every test uses all

use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use talea_control::TargetChange;
use talea_control::shell::{
    self, Control, ControlConfig, ControlError, ControlHandle, FanOut, Listeners, LogBound, TargetLink,
};
use talea_fabric::member::Spin;
use talea_fabric::{
    Address, Clock, Credentials, Endpoint, Event, FabricError, Hello, PeerId, RealClock, StreamEndpoint, node_id,
};
use talea_model::{
    ContainerId, Fate, Ledger, MapVersion, Position, ServerId, SessionId, Stamp, Summary, TargetId, TargetInfo,
    TargetState, TxId,
};
use talea_wire::control::{Begun, Body, Committed, Envelope, Reply, Request};
use talea_wire::log::ContainerProperties;
use talea_wire::{Refusal, codec};

/// The system's secret in tests.
pub fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

/// Where a system's sockets lie.
pub struct System {
    pub directory: tempfile::TempDir,
    pub lease_ms: u64,
}

/// What the targets of a server were told.
#[derive(Default)]
pub struct Told {
    pub horizon: Position,
    pub ledger: Ledger,
    pub serving: bool,
    pub ready: bool,
    pub caught_up: Vec<u64>,
    /// Targets that are down in the last map.
    pub down: usize,
}

struct Link(Arc<Mutex<Told>>);

impl TargetLink for Link {
    fn deliver(&mut self, changes: Vec<TargetChange>, horizon: Position) {
        let mut told = self.0.lock().unwrap();
        for change in changes {
            match change {
                TargetChange::Begin { tx, .. } => told.ledger.begin(tx),
                TargetChange::Commit { tx, stamp } => drop(told.ledger.close(tx, Fate::Committed(stamp))),
                TargetChange::Abort { tx } => drop(told.ledger.close(tx, Fate::Aborted)),
                TargetChange::Map(map) => {
                    told.down = map.targets.iter().filter(|target| target.state == TargetState::Down).count();
                }
                _ => {}
            }
        }
        assert!(horizon > told.horizon);
        told.horizon = horizon;
    }
    fn lease(&mut self, until_ns: Option<u64>) {
        self.0.lock().unwrap().serving = until_ns.is_some();
    }
    fn caught_up(&mut self, token: u64, result: Result<(), Refusal>) {
        result.unwrap();
        self.0.lock().unwrap().caught_up.push(token);
    }
    fn pool_ready(&mut self) {
        self.0.lock().unwrap().ready = true;
    }
}

/// A running control plane with one target.
pub struct Server {
    pub addresses: Vec<Address>,
    pub handle: ControlHandle,
    control: Option<Control>,
    told: Arc<Mutex<Told>>,
}

impl Server {
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    /// Fate of a transaction as its targets know it.
    pub fn fate(&self, tx: TxId) -> Option<Fate> {
        self.told().ledger.fate(tx)
    }

    pub fn stop(&self) {
        self.handle.stop();
    }

    pub fn end(mut self) -> Result<(), ControlError> {
        self.control.take().unwrap().stop()
    }

    /// Messages that this server, the leader, has received so far.
    pub fn messages(&self) -> u64 {
        let mut client = Client::without_session(&credentials(), &self.addresses[0]).unwrap();
        match client.ok(Request::Status) {
            Reply::Status(status) => status.counters.messages_in,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            let _ = control.stop();
        }
    }
}

impl System {
    pub fn new() -> Self {
        System { directory: tempfile::tempdir().unwrap(), lease_ms: 1000 }
    }

    /// Two servers, of which 0 leads; both are ready.
    pub fn two_servers(&self) -> (Server, Server) {
        let zero = self.start(0, 2, Vec::new(), None, 0).unwrap();
        let one = self.start(1, 2, zero.addresses.clone(), None, 0).unwrap();
        wait_for(|| zero.told().ready && one.told().ready);
        (zero, one)
    }

    /// A server that leads alone, with its log in a file.
    pub fn durable_server(&self, incarnation: u64) -> Result<Server, ControlError> {
        let server = self.start(0, 1, Vec::new(), Some(self.directory.path().join("log")), incarnation)?;
        wait_for(|| server.told().ready);
        Ok(server)
    }

    pub fn start(
        &self,
        id: u32,
        servers: usize,
        leader_addresses: Vec<Address>,
        log_directory: Option<std::path::PathBuf>,
        incarnation: u64,
    ) -> Result<Server, ControlError> {
        let path = self.directory.path().join(format!("server-{id}.sock")).to_string_lossy().into_owned();
        let unix = Address::Unix { node: node_id().to_owned(), path };
        let listeners = Listeners::bind(&[unix, Address::Tcp { host_port: "127.0.0.1:0".into() }])?;
        let addresses = listeners.addresses().to_vec();
        let config = ControlConfig {
            server: ServerId(id),
            host: "localhost".into(),
            credentials: credentials(),
            seeds: std::collections::BTreeMap::from([(ServerId(0), leader_addresses)]),
            servers_expected: servers,
            targets: vec![TargetInfo {
                id: TargetId(id),
                server: ServerId(id),
                state: TargetState::Up,
                addresses: Vec::new(),
                capacity_bytes: 1 << 30,
                incarnation,
            }],
            boot: RealClock.monotonic_ns(),
            pool: 9,
            lease_ms: self.lease_ms,
            log_directory,
            horizon: Position(0),
            log_bound: LogBound::default(),
            fan_out: FanOut::default(),
            session_lease_ms: 0,
        };
        let told = Arc::new(Mutex::new(Told::default()));
        let (handle, inbox) = shell::channel();
        let control = shell::start(config, listeners, Box::new(Link(told.clone())), handle.clone(), inbox)?;
        Ok(Server { addresses, handle, control: Some(control), told })
    }
}

/// A client with a session.
pub struct Client {
    endpoint: StreamEndpoint,
    peer: PeerId,
    session: SessionId,
    last_id: u64,
    pub deadline_ms: u64,
}

impl Client {
    /// At home at a server, by its Unix (0) or TCP (1) address.
    pub fn connect(_system: &System, server: &Server, address: usize) -> Self {
        Self::at(&credentials(), &server.addresses[address])
    }

    pub fn at(credentials: &Credentials, address: &Address) -> Self {
        let mut client = Self::without_session(credentials, address).unwrap();
        match client.ok(Request::SessionOpen {
            name: "test".into(),
            secret: 1,
            resume: None,
            process: None,
            joined: vec![],
            attempt: 0,
        }) {
            Reply::Session { session, .. } => client.session = session,
            other => panic!("{other:?}"),
        }
        client
    }

    pub fn without_session(credentials: &Credentials, address: &Address) -> Result<Self, FabricError> {
        let mut endpoint = StreamEndpoint::new(credentials, Spin::Never).unwrap();
        let hello = Hello { session: 0, pid: std::process::id(), server: None };
        let peer = endpoint.connect(address, &hello, RealClock.monotonic_ns() + 10_000_000_000)?;
        Ok(Client { endpoint, peer, session: SessionId(0), last_id: 0, deadline_ms: 10_000 })
    }

    pub fn send(&mut self, request: Request) -> u64 {
        self.last_id += 1;
        let envelope = Envelope {
            id: self.last_id,
            hlc: Stamp::ZERO,
            session: self.session,
            sequence: if self.session == SessionId(0) { 0 } else { self.last_id },
            deadline_ms: self.deadline_ms,
            map_version: MapVersion(0),
            body: Body::Request(request),
        };
        let bytes = codec::encode(&envelope).unwrap();
        self.endpoint.send(self.peer, &[IoSlice::new(&bytes)]).unwrap();
        self.last_id
    }

    /// Sends until the server takes no more; true if the connection was ended.
    pub fn flood(&mut self, request: Request, messages: usize) -> bool {
        for _ in 0..messages {
            self.last_id += 1;
            let body = Body::Request(request.clone());
            let (id, session) = (self.last_id, self.session);
            let envelope = Envelope {
                id,
                hlc: Stamp::ZERO,
                session,
                sequence: 0,
                deadline_ms: self.deadline_ms,
                map_version: MapVersion(0),
                body,
            };
            let bytes = codec::encode(&envelope).unwrap();
            let end = Instant::now() + Duration::from_secs(20);
            loop {
                match self.endpoint.send(self.peer, &[IoSlice::new(&bytes)]) {
                    Ok(()) => break,
                    Err(talea_fabric::SendError::Full) if Instant::now() < end => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(_) => return true,
                }
            }
        }
        false
    }

    pub fn answer(&mut self, id: u64) -> Result<Reply, Refusal> {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            match self.endpoint.recv() {
                Some(Event::Message { message, .. }) => {
                    let envelope: Envelope = codec::decode(&message).unwrap();
                    match envelope.body {
                        Body::Reply(reply) if envelope.id == id => return Ok(reply),
                        Body::Refused(refusal) if envelope.id == id => return Err(refusal),
                        _ => {}
                    }
                }
                Some(Event::Down { .. }) => panic!("the server ended the connection"),
                Some(Event::Up { .. } | Event::Connected { .. }) => {}
                None => self.endpoint.wait(RealClock.monotonic_ns() + 50_000_000),
            }
        }
        panic!("no answer to request {id}");
    }

    pub fn ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        let id = self.send(request);
        self.answer(id)
    }

    pub fn ok(&mut self, request: Request) -> Reply {
        self.ask(request).unwrap()
    }
}

pub fn create(client: &mut Client, name: &str) -> ContainerId {
    let properties = ContainerProperties::default();
    match client.ok(Request::ContainerCreate { name: name.into(), properties, exist_ok: true }) {
        Reply::Container(info) => info.container,
        other => panic!("{other:?}"),
    }
}

pub fn begin(client: &mut Client, container: ContainerId) -> Begun {
    match client.ok(Request::Begin { container, collective: true }) {
        Reply::Begun(begun) => begun,
        other => panic!("{other:?}"),
    }
}

pub fn commit(client: &mut Client, tx: TxId, targets: &[u32]) -> Result<Committed, Refusal> {
    let mut summary = Summary { map_version: MapVersion(u32::MAX), ..Summary::default() };
    targets.iter().for_each(|target| summary.touched.insert(TargetId(*target)));
    match client.ask(Request::Commit { tx, summary, attributes: Vec::new(), manifest: None, next: false })? {
        Reply::Committed(committed) => Ok(committed),
        other => panic!("{other:?}"),
    }
}

/// Waits until something holds, and fails if it never does.
pub fn wait_for(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "it never came to hold");
        std::thread::sleep(Duration::from_millis(2));
    }
}
