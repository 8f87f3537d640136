//! Nodes and clients, joined by in-memory connections that keep their order and can break.

mod chaos;
mod compaction;
mod counts;
mod failover;
mod lease;
mod membership;
mod mended;
mod rules;
mod sessions;
mod stopped;
mod strangers;
mod tree;
mod view;

use std::collections::{BTreeMap, VecDeque};

use talea_model::{ContainerId, MapVersion, ServerInfo, Stamp, Step, Summary, TargetId, TargetInfo, TargetState, TxId};
use talea_wire::control::{Begun, Committed, Waited};
use talea_wire::log::{ContainerProperties, ProducerState};

use super::*;

const LEASE_MS: u64 = 2000;
const RUN: ContainerId = ContainerId(1);

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Node(usize, PeerId),
    Client(usize),
}

/// What the targets of a server were told.
#[derive(Default, Debug)]
struct Told {
    changes: Vec<TargetChange>,
    horizon: Position,
    lease_ns: Option<u64>,
    caught_up: Vec<u64>,
    failed: Vec<(u64, RefusalCode)>,
}

/// A client: what it was answered, by request.
#[derive(Default)]
struct Client {
    session: SessionId,
    last_id: u64,
    answers: BTreeMap<u64, Outcome>,
}

/// Everything.
struct World {
    now: Time,
    nodes: Vec<Option<Node>>,
    /// What the targets of a server that starts know already.
    horizon: Position,
    told: Vec<Told>,
    /// What each server's medium holds.
    media: Vec<Stored>,
    clients: Vec<Client>,
    /// Connections that are up: each end and the other.
    links: BTreeMap<End, End>,
    /// Messages on their way to an end.
    queues: BTreeMap<End, VecDeque<Vec<u8>>>,
    last_peer: u64,
    last_boot: u64,
    /// Pairs of servers that cannot reach each other.
    unreachable: Vec<(usize, usize)>,
    /// Pairs of servers between which messages are lost.
    silent: Vec<(usize, usize)>,
    /// The log's medium of each server, and its name.
    lives: Vec<u64>,
    watched: Vec<(usize, PeerId, u32)>,
    /// Processes of sessions, by the server that watches over them.
    processes: BTreeMap<(usize, SessionId), Process>,
    /// What each server noted.
    joined: Vec<Option<Joined>>,
    session_lease_ms: u64,
    /// Servers come back with what their targets stored.
    keeps_media: bool,
    stopped: stopped::Stopped,
    log_bound: LogBound,
    fan_out: FanOut,
    /// What becomes of messages between servers; none: they arrive at once.
    weather: Option<membership::Weather>,
    /// All records of the log so far, gathered while the replicas keep them.
    records: Vec<Record>,
}

impl World {
    /// Two servers, up and ready, and container 1.
    fn new() -> Self {
        Self::of(2)
    }

    /// So many servers.
    fn of(servers: usize) -> Self {
        World::empty(servers).begun()
    }

    /// Starts all servers and makes container 1.
    fn begun(mut self) -> Self {
        let servers = self.nodes.len();
        (0..servers).for_each(|server| self.start(server));
        self.advance(LEASE_MS);
        assert!((0..servers).all(|server| self.node(server).is_ready()));
        let client = self.client(0);
        let properties = ContainerProperties::default();
        self.ok(client, Request::ContainerCreate { name: "run".into(), properties, exist_ok: false });
        self
    }

    fn empty(servers: usize) -> Self {
        World {
            now: Time { monotonic_ns: 1_000_000_000, unix_us: 1_800_000_000_000_000 },
            nodes: (0..servers).map(|_| None).collect(),
            horizon: Position(0),
            told: (0..servers).map(|_| Told::default()).collect(),
            media: vec![Stored::default(); servers],
            clients: Vec::new(),
            links: BTreeMap::new(),
            queues: BTreeMap::new(),
            last_peer: 0,
            last_boot: 0,
            unreachable: Vec::new(),
            silent: Vec::new(),
            lives: (100..100 + servers as u64).collect(),
            watched: Vec::new(),
            processes: BTreeMap::new(),
            joined: vec![None; servers],
            session_lease_ms: 0,
            keeps_media: false,
            stopped: stopped::Stopped::default(),
            log_bound: LogBound::default(),
            fan_out: FanOut::default(),
            weather: None,
            records: Vec::new(),
        }
    }

    fn start(&mut self, server: usize) {
        self.last_boot += 1;
        let id = ServerId(server as u32);
        let target = |n: u32| TargetInfo {
            id: TargetId(n),
            server: id,
            state: TargetState::Up,
            addresses: vec![format!("sim:{n}")],
            capacity_bytes: 1 << 30,
            incarnation: if self.keeps_media { 1 } else { self.last_boot },
        };
        let config = NodeConfig {
            server: ServerInfo { id, host: "host".into(), node: "node".into(), control: Vec::new() },
            targets: (0..2).map(|n| target(server as u32 * 2 + n)).collect(),
            seeds: (0..self.nodes.len() as u32).map(|id| (ServerId(id), vec![format!("sim:{id}")])).collect(),
            servers_expected: self.nodes.len(),
            boot: self.last_boot,
            life: self.lives[server],
            pool: 42,
            lease_ms: LEASE_MS,
            heartbeat_ms: 500,
            horizon: self.horizon,
            log_bound: self.log_bound,
            fan_out: self.fan_out,
            session_lease_ms: self.session_lease_ms,
            notes_last: true,
            joined: self.joined[server].clone(),
        };
        self.joined[server].get_or_insert_default();
        self.nodes[server] = Some(Node::new(config, self.now, self.media[server].clone()).unwrap());
        self.told[server] = Told::default();
        self.act(server);
    }

    fn node(&self, server: usize) -> &Node {
        self.nodes[server].as_ref().unwrap()
    }

    /// The server is gone; its connections end at the other side.
    fn kill(&mut self, server: usize) {
        self.nodes[server] = None;
        let ends: Vec<End> =
            self.links.keys().filter(|end| matches!(end, End::Node(s, _) if *s == server)).copied().collect();
        ends.into_iter().for_each(|end| self.cut(end));
    }

    /// Breaks a connection: both ends that are still there learn it.
    fn cut(&mut self, end: End) {
        let Some(other) = self.links.remove(&end) else { return };
        self.links.remove(&other);
        for gone in [end, other] {
            self.queues.remove(&gone);
            if let End::Node(server, peer) = gone {
                self.peer_down(server, peer);
            }
        }
    }

    /// Whether a server's targets may serve now, as far as they were told.
    fn may_serve(&self, server: usize) -> bool {
        self.told[server].lease_ns.is_some_and(|until_ns| self.now.monotonic_ns < until_ns)
    }

    fn with(&mut self, server: usize, input: impl FnOnce(&mut Node, Time)) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[server] {
            input(node, now);
            self.act(server);
        }
    }

    fn peer(&mut self) -> PeerId {
        self.last_peer += 1;
        PeerId(self.last_peer)
    }

    fn act(&mut self, server: usize) {
        let Some(node) = &mut self.nodes[server] else { return };
        let actions = node.take_actions();
        self.gather(server);
        let mut has_stored = false;
        for action in actions {
            match action {
                Action::Send { peer, bytes } => {
                    let other = self.links.get(&End::Node(server, peer));
                    let is_lost = |other: &&End| matches!(other, End::Node(other, _) if self.is_silent(server, *other));
                    if let Some(other) = other.filter(|other| !is_lost(other)).copied() {
                        match (&mut self.weather, other) {
                            (Some(weather), End::Node(..)) => weather.send(self.now.monotonic_ns, other, bytes),
                            _ => self.queues.entry(other).or_default().push_back(bytes),
                        }
                    }
                }
                Action::Close { peer } => {
                    if let Some(other) = self.links.remove(&End::Node(server, peer)) {
                        self.links.remove(&other);
                        self.queues.remove(&End::Node(server, peer));
                        if let End::Node(other, peer) = other {
                            self.peer_down(other, peer);
                        }
                    }
                }
                Action::Store { ops } => {
                    ops.into_iter().for_each(|op| self.media[server].apply(op));
                    let now = self.now;
                    self.nodes[server].iter_mut().for_each(|node| node.stored(now));
                    // What follows from it comes after the other actions.
                    has_stored = true;
                }
                Action::Deliver { changes, horizon } => {
                    assert!(horizon > self.told[server].horizon, "the horizon never goes back");
                    self.told[server].changes.extend(changes);
                    self.told[server].horizon = horizon;
                }
                Action::CatchUpDone { token } => self.told[server].caught_up.push(token),
                Action::CatchUpFailed { token, refusal } => self.told[server].failed.push((token, refusal.code)),
                Action::Lease { until_ns } => self.told[server].lease_ns = until_ns,
                Action::Note { notes } => {
                    let joined = self.joined[server].get_or_insert_default();
                    for note in notes {
                        match note {
                            Note::Join { session, tx } => _ = joined.entry(session).or_default().insert(tx),
                            Note::Leave { session, tx } => _ = joined.entry(session).or_default().remove(&tx),
                            Note::End { session } => _ = joined.remove(&session),
                        }
                    }
                    let now = self.now;
                    self.nodes[server].iter_mut().for_each(|node| node.noted(now));
                    has_stored = true;
                }
                Action::WatchProcess { session, process } => _ = self.processes.insert((server, session), process),
                Action::Unwatch { session } => _ = self.processes.remove(&(server, session)),
                Action::Watch { peer, pid } => self.watched.push((server, peer, pid)),
                Action::Connect { server: to, .. } => self.connect(server, to),
            }
        }
        if has_stored {
            self.act(server);
        }
    }

    fn connect(&mut self, server: usize, to: ServerId) {
        let other = to.0 as usize;
        if self.stopped.servers.contains(&other) {
            return self.stopped.dials.push((self.now.monotonic_ns + stopped::DIAL_MS * 1_000_000, server, to));
        }
        if !self.can_reach(server, other) || self.nodes[other].is_none() {
            return self.with(server, |node, now| node.server_unreachable(now, to));
        }
        let (ours, theirs) = (self.peer(), self.peer());
        self.link(End::Node(server, ours), End::Node(other, theirs));
        let hello = Hello { session: 0, pid: 0, server: Some(server as u32) };
        self.with(other, |node, now| node.peer_up(now, theirs, hello, None));
        self.with(server, |node, now| node.server_up(now, to, ours));
    }

    fn can_reach(&self, a: usize, b: usize) -> bool {
        !self.unreachable.contains(&(a.min(b), a.max(b))) && !self.is_silent(a, b)
    }

    /// Whether nothing arrives between two servers, though their connections stand.
    fn is_silent(&self, a: usize, b: usize) -> bool {
        self.silent.contains(&(a.min(b), a.max(b)))
    }

    /// Makes two servers reach each other, or not; connections that they have break.
    fn set_reachable(&mut self, a: usize, b: usize, reachable: bool) {
        let pair = (a.min(b), a.max(b));
        self.unreachable.retain(|known| *known != pair);
        if !reachable {
            self.unreachable.push(pair);
            self.cut_servers(a, b);
        }
    }

    /// Breaks the connections between two servers.
    fn cut_servers(&mut self, a: usize, b: usize) {
        let is_between = |end: &End, other: &End| matches!((end, other), (End::Node(from, _), End::Node(to, _)) if (*from, *to) == (a, b));
        let ends: Vec<End> =
            self.links.iter().filter(|(end, other)| is_between(end, other)).map(|(end, _)| *end).collect();
        ends.into_iter().for_each(|end| self.cut(end));
    }

    /// All records, as the replicas held them when they were new.
    fn records(&self) -> Vec<Record> {
        self.records.clone()
    }

    /// Takes the records that are new.
    fn gather(&mut self, server: usize) {
        let Some(replica) = self.nodes[server].as_ref().and_then(|node| node.replica.as_ref()) else { return };
        let known = self.records.last().map_or(Position(0), |record| record.position);
        if let Some(new) = replica.tail.after(known) {
            self.records.extend(new.map(|(record, _)| record.clone()));
        }
    }

    /// The server that leads; the newest, if an old one does not know yet.
    fn leader(&self) -> usize {
        (0..self.nodes.len())
            .find(|server| self.nodes[*server].as_ref().is_some_and(Node::is_leader))
            .expect("a leader")
    }

    fn link(&mut self, a: End, b: End) {
        self.links.insert(a, b);
        self.links.insert(b, a);
    }

    /// Delivers one message of those that can be delivered, the `choice`th modulo their number.
    fn deliver_one(&mut self, choice: usize) -> bool {
        self.queues.retain(|_, queue| !queue.is_empty());
        let stopped = &self.stopped;
        let ends: Vec<End> = self.queues.keys().filter(|end| stopped.hears(end)).copied().collect();
        let Some(end) = ends.get(choice % ends.len().max(1)).copied() else { return false };
        self.deliver_to(end);
        true
    }

    fn deliver_to(&mut self, end: End) {
        let Some(queue) = self.queues.get_mut(&end) else { return };
        let bytes = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&end);
        }
        let Some(bytes) = bytes else { return };
        match end {
            End::Node(server, peer) => self.with(server, |node, now| node.message(now, peer, &bytes)),
            End::Client(client) => self.clients[client].receive(&bytes),
        }
    }

    /// Delivers what is on its way now, as if all of it took the same time.
    fn round(&mut self) {
        let now: Vec<(End, usize)> = self.queues.iter().map(|(end, queue)| (*end, queue.len())).collect();
        now.into_iter().for_each(|(end, count)| (0..count).for_each(|_| self.deliver_to(end)));
    }

    /// Delivers everything; time stands still.
    fn settle(&mut self) {
        while let Some(end) = self.queues.keys().find(|end| self.stopped.hears(end)).copied() {
            self.deliver_to(end);
        }
    }

    /// Lets time pass, from deadline to deadline.
    fn advance(&mut self, ms: u64) {
        let end_ns = self.now.monotonic_ns + ms * 1_000_000;
        loop {
            self.settle();
            let deadlines = self.running().filter_map(|server| self.node(server).next_deadline());
            let next_ns = deadlines
                .chain(self.stopped.next_dial())
                .chain(self.weather.as_ref().and_then(membership::Weather::next_ns))
                .min()
                .unwrap_or(u64::MAX)
                .max(self.now.monotonic_ns)
                .min(end_ns);
            self.now.unix_us += (next_ns - self.now.monotonic_ns) / 1000;
            self.now.monotonic_ns = next_ns;
            self.fail_dials();
            let arrived = self.weather.as_mut().map_or_else(Vec::new, |weather| weather.arrived(next_ns));
            arrived.into_iter().for_each(|(end, bytes)| self.queues.entry(end).or_default().push_back(bytes));
            self.settle();
            for server in self.running().collect::<Vec<_>>() {
                let is_due =
                    self.nodes[server].as_ref().and_then(Node::next_deadline).is_some_and(|at_ns| at_ns <= next_ns);
                if is_due {
                    self.with(server, |node, now| node.tick(now));
                    let after = self.nodes[server].as_ref().and_then(Node::next_deadline);
                    assert!(
                        after.is_none_or(|at_ns| at_ns > next_ns),
                        "a tick leaves nothing due: the shell would spin"
                    );
                }
            }
            if next_ns == end_ns {
                break self.settle();
            }
        }
    }

    /// A client with a session, at home at a server.
    fn client(&mut self, home: usize) -> usize {
        let client = self.clients.len();
        self.clients.push(Client::default());
        self.connect_client(client, home);
        let opened = self.ok(
            client,
            Request::SessionOpen {
                name: "test".into(),
                secret: 1,
                resume: None,
                process: None,
                joined: vec![],
                attempt: 0,
            },
        );
        let Reply::Session { session, .. } = opened else { panic!("{opened:?}") };
        self.clients[client].session = session;
        client
    }

    fn connect_client(&mut self, client: usize, home: usize) {
        let peer = self.peer();
        self.link(End::Client(client), End::Node(home, peer));
        let hello = Hello { session: 0, pid: 1000 + client as u32, server: None };
        self.with(home, |node, now| {
            let process = Process { pid: hello.pid, start_ticks: 1, machine: 1 };
            node.peer_up(now, peer, hello, Some(process));
        });
    }

    /// Sends a request, and says under which number its answer will come.
    fn send(&mut self, client: usize, request: Request) -> u64 {
        let id = self.clients[client].last_id + 1;
        self.clients[client].last_id = id;
        self.send_as(client, id, id, request);
        id
    }

    fn send_as(&mut self, client: usize, id: u64, sequence: u64, request: Request) {
        let is_open = matches!(request, Request::SessionOpen { .. });
        let envelope = Envelope {
            id,
            hlc: Stamp(0),
            session: self.clients[client].session,
            sequence: if is_open { 0 } else { sequence },
            deadline_ms: 10_000,
            map_version: MapVersion(0),
            body: Body::Request(request),
        };
        if let Some(other) = self.links.get(&End::Client(client)) {
            self.queues.entry(*other).or_default().push_back(codec::encode(&envelope).unwrap());
        }
    }

    fn ask(&mut self, client: usize, request: Request) -> Outcome {
        let id = self.send(client, request);
        self.settle();
        self.clients[client].answers.remove(&id).expect("an answer")
    }

    fn ok(&mut self, client: usize, request: Request) -> Reply {
        self.ask(client, request).unwrap()
    }

    fn begin(&mut self, client: usize) -> Begun {
        match self.ok(client, Request::Begin { container: RUN, collective: true }) {
            Reply::Begun(begun) => begun,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, client: usize, tx: TxId) -> Result<Committed, Refusal> {
        match self.ask(
            client,
            Request::Commit { tx, summary: self.touched(), attributes: vec![], manifest: None, next: false },
        )? {
            Reply::Committed(committed) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }

    /// A summary of updates at targets 0 and 2.
    fn touched(&self) -> Summary {
        let version = self.nodes.iter().flatten().filter_map(|node| node.pool().map()).map(|map| map.version).max();
        let mut summary = Summary { map_version: version.unwrap(), ..Summary::default() };
        [0, 2].into_iter().for_each(|target| summary.touched.insert(TargetId(target)));
        summary
    }

    fn wait(&mut self, client: usize, after: u64) -> u64 {
        self.send(client, Request::Wait { container: RUN, after: Step(after), limit: 10 })
    }

    fn waited(&mut self, client: usize, id: u64) -> Option<Waited> {
        match self.clients[client].answers.remove(&id) {
            Some(Ok(Reply::Waited(waited))) => Some(waited),
            None => None,
            Some(other) => panic!("{other:?}"),
        }
    }
}

impl Client {
    fn receive(&mut self, bytes: &[u8]) {
        let envelope: Envelope = codec::decode(bytes).unwrap();
        let outcome = match envelope.body {
            Body::Reply(reply) => Ok(reply),
            Body::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        };
        assert!(self.answers.insert(envelope.id, outcome).is_none(), "one answer a request");
    }
}
