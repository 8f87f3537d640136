//! One simulated server: its control plane and its targets, each on an endpoint of the in-process fabric.
//!
//! Owns what a shell of sockets and threads would own: it carries actions out, and it decides what survives a crash. Must
//! never add a rule of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use talea_control::TargetChange;
use talea_control::node::{Action, FanOut, Joined, LogBound, Node, NodeConfig, Note, StoreOp, Stored, Time};
use talea_engine::{Driver, Effect, Mail, PoolChange, Target, TargetOptions, Tenure};
use talea_fabric::{Clock, Endpoint, Event, Hello, PeerId, sim::SimClock, sim::SimEndpoint, sim::SimNetwork};
use talea_model::{PoolId, Position, ServerId, ServerInfo, SessionId, Stamp, TargetId, TargetInfo, TargetState};
use talea_vos::StoreOptions;

use crate::plant::Plant;
use crate::random::Random;
use crate::seam;
use crate::window::Windows;

mod media;

use media::{Media, fresh_media};

/// How long a healthy disk takes for one append to the log, in nanoseconds, at most.
pub(crate) const APPEND_NS: u64 = 200_000;
const LEASE_MS: u64 = 1_000;
const HEARTBEAT_MS: u64 = 200;
const SESSION_LEASE_MS: u64 = 1_500;

/// Fabric node of a server's control plane.
pub(crate) fn control_node(server: u32) -> u32 {
    10 + server
}

/// Fabric node of a target.
pub(crate) fn target_node(target: u32) -> u32 {
    1_000 + target
}

/// How many of what there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) servers: u32,
    /// Of each server.
    pub(crate) targets: u32,
    pub(crate) fan_out: FanOut,
    /// Their media are memory, which ends with the process.
    pub(crate) memory: bool,
    /// Bytes of a segment of their logs; 0: by their capacity.
    pub(crate) segment_bytes: u64,
}

/// A running server's process.
struct Process {
    node: Node,
    endpoint: SimEndpoint,
    drivers: Vec<Driver>,
    durable: Vec<Position>,
    /// Until when each driver's thread waits for its disk.
    blocked_ns: Vec<u64>,
    /// Changes of the log under way, and when they are done.
    storing: Option<(u64, Vec<StoreOp>)>,
    /// Notes under way, likewise.
    noting: Option<(u64, Vec<Note>)>,
    /// Sessions that were taken up again here, as far as a planted bug needs them.
    resumed: BTreeSet<SessionId>,
    /// Outer token → (driver, its token).
    asked: BTreeMap<u64, (usize, u64)>,
    /// Connections of clients, as far as a planted bug needs them.
    clients: BTreeSet<PeerId>,
    next_token: u64,
    delivered: Position,
    tenure: Tenure,
    /// What targets want of a control plane that hangs: by driver.
    wanted: VecDeque<(usize, Effect)>,
}

/// A server: its media, and its process while it runs.
pub(crate) struct SimServer {
    id: u32,
    servers: u32,
    targets: u32,
    /// Of each target.
    capacity_bytes: u64,
    network: SimNetwork,
    clock: SimClock,
    media: Media,
    process: Option<Process>,
    /// Its process does not run, and does not know.
    is_stopped: bool,
    /// Its control plane's thread does not run, and its targets do not know.
    is_hung: bool,
    /// Targets that served in the last turn.
    served: Vec<TargetId>,
    /// How long its disks take, in nanoseconds, at most.
    flush_ns: u64,
    plant: Plant,
    windows: Windows,
    fan_out: FanOut,
    memory: bool,
    segment_bytes: u64,
    /// Many cut their logs all the time.
    log_bound: LogBound,
    random: Random,
}

impl SimServer {
    pub(crate) fn new(
        id: u32,
        Shape { servers, targets, fan_out, memory, segment_bytes }: Shape,
        capacity_bytes: u64,
        network: &SimNetwork,
        windows: &Windows,
        plant: Plant,
        mut random: Random,
    ) -> Self {
        network.set_host(control_node(id), id);
        for target in 0..targets {
            network.set_host(target_node(id * targets + target), id);
        }
        let media = fresh_media(targets, capacity_bytes, memory);
        Self {
            id,
            servers,
            targets,
            capacity_bytes,
            network: network.clone(),
            clock: network.clock(control_node(id)),
            media: Media { targets: media, log: Stored::default(), life: random.draw(), joined: None, incarnation: 1 },
            process: None,
            is_stopped: false,
            is_hung: false,
            served: vec![],
            flush_ns: APPEND_NS,
            plant,
            windows: windows.clone(),
            fan_out,
            memory,
            segment_bytes,
            log_bound: log_bound(&mut random),
            random,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    fn time(&self) -> Time {
        Time { monotonic_ns: self.clock.monotonic_ns(), unix_us: self.clock.unix_us() }
    }

    /// Starts the process on its media.
    pub(crate) fn start(&mut self) {
        let mut drivers = Vec::new();
        let mut durable = Vec::new();
        for index in 0..self.targets {
            let id = TargetId(self.id * self.targets + index);
            let store = StoreOptions {
                pool: PoolId(7),
                target: id,
                nonce: self.random.draw(),
                plant: self.plant.store(),
                segment_bytes: self.segment_bytes,
                ..StoreOptions::default()
            };
            let medium = Box::new(self.media.targets[index as usize].clone());
            self.windows.share(&medium);
            let clock = Arc::new(self.network.clock(target_node(id.0)));
            let locked_ns = clock.monotonic_ns();
            let (mut target, recovered) = match Target::open(medium, TargetOptions { id, store, locked_ns }) {
                Ok(opened) => opened,
                Err(error) => panic!("server {} cannot restart: {error}", self.id),
            };
            assert!(!recovered.lost, "server {}: a crash lost part of a log that was flushed", self.id);
            target.set_incarnation(self.media.incarnation);
            durable.push(recovered.horizon);
            let endpoint = Box::new(self.network.endpoint(target_node(id.0)));
            let mut driver = Driver::new(target, endpoint, clock);
            if recovered.horizon.0 == 0 {
                mail(&mut driver, Mail::Containers(vec![]));
            }
            drivers.push(driver);
        }
        let config = self.config(durable.iter().copied().min().unwrap_or_default());
        let node = match Node::new(config, self.time(), self.media.log.clone()) {
            Ok(node) => node,
            Err(damaged) => panic!("server {} cannot restart: {damaged}", self.id),
        };
        self.media.joined.get_or_insert_default();
        self.process = Some(Process {
            node,
            endpoint: self.network.endpoint(control_node(self.id)),
            drivers,
            durable,
            blocked_ns: vec![0; self.targets as usize],
            storing: None,
            noting: None,
            resumed: BTreeSet::new(),
            asked: BTreeMap::new(),
            clients: BTreeSet::new(),
            next_token: 1,
            delivered: Position(0),
            tenure: Tenure::default(),
            wanted: VecDeque::new(),
        });
    }

    fn config(&mut self, horizon: Position) -> NodeConfig {
        let server = ServerInfo {
            id: ServerId(self.id),
            host: format!("sim{}", self.id),
            node: format!("sim{}", self.id),
            control: vec![format!("sim:{}", control_node(self.id))],
        };
        let target = |id: u32| TargetInfo {
            id: TargetId(id),
            server: ServerId(self.id),
            state: TargetState::Up,
            addresses: vec![format!("sim:{}", target_node(id))],
            capacity_bytes: self.capacity_bytes,
            incarnation: self.media.incarnation,
        };
        NodeConfig {
            server,
            targets: (self.id * self.targets..(self.id + 1) * self.targets).map(target).collect(),
            seeds: (0..self.servers).map(|id| (ServerId(id), vec![format!("sim:{}", control_node(id))])).collect(),
            servers_expected: self.servers as usize,
            boot: self.random.draw(),
            life: self.media.life,
            pool: 7,
            lease_ms: LEASE_MS,
            heartbeat_ms: HEARTBEAT_MS,
            horizon,
            log_bound: self.log_bound,
            fan_out: self.fan_out,
            session_lease_ms: SESSION_LEASE_MS,
            notes_last: true,
            joined: match self.plant {
                Plant::ForgetJoins => Some(Joined::new()),
                _ => self.media.joined.clone(),
            },
        }
    }

    /// Ends the process at once. Unflushed bytes survive as chance decides; an append under way is there or not.
    pub(crate) fn crash(&mut self) {
        let Some(process) = self.process.take() else { return };
        (self.is_stopped, self.is_hung) = (false, false);
        if let Some((_, ops)) = process.storing
            && self.random.chance(50)
        {
            ops.into_iter().for_each(|op| self.media.log.apply(op));
        }
        if let Some((_, notes)) = process.noting
            && self.random.chance(50)
        {
            self.media.note(notes);
        }
        if self.memory {
            let targets = fresh_media(self.targets, self.capacity_bytes, true);
            (self.media.targets, self.media.incarnation, self.media.joined) = (targets, self.next_incarnation(), None);
        } else {
            for medium in &mut self.media.targets {
                *medium = medium.crash(&mut || self.random.draw());
            }
        }
        self.network.crash(control_node(self.id));
        for target in 0..self.targets {
            self.network.crash(target_node(self.id * self.targets + target));
        }
    }

    /// Its media are lost; it is down. Where it starts again it begins anew, and says so (rule 10).
    pub(crate) fn lose_media(&mut self) {
        let targets = fresh_media(self.targets, self.capacity_bytes, self.memory);
        let incarnation = self.next_incarnation();
        self.media = Media { targets, log: Stored::default(), life: self.random.draw(), joined: None, incarnation };
    }

    /// Under which it begins anew on empty media.
    fn next_incarnation(&self) -> u64 {
        self.media.incarnation + u64::from(self.plant != Plant::SilentLoss)
    }

    /// Stops the process, or lets it go on: time passes meanwhile, and messages wait.
    pub(crate) fn set_stopped(&mut self, is_stopped: bool) {
        self.is_stopped = is_stopped;
    }

    /// Its control plane hangs, or goes on: its targets serve meanwhile, and wait for nobody.
    pub(crate) fn set_hung(&mut self, is_hung: bool) {
        self.is_hung = is_hung;
    }

    /// The log's position up to which this server knows it, and the targets that are down there.
    pub(crate) fn down(&self) -> Option<(Position, BTreeSet<TargetId>)> {
        let pool = self.process.as_ref()?.node.pool();
        let targets = pool.map()?.targets.iter().filter(|target| target.state == TargetState::Down);
        Some((pool.position(), targets.map(|target| target.id).collect()))
    }

    /// Targets that served since this was asked last.
    pub(crate) fn take_served(&mut self) -> Vec<TargetId> {
        std::mem::take(&mut self.served)
    }

    /// How long its disks take from now on, in nanoseconds, at most.
    pub(crate) fn set_flush(&mut self, flush_ns: u64) {
        self.flush_ns = flush_ns;
    }

    /// Does what is to be done now; says whether there was anything.
    pub(crate) fn turn(&mut self) -> bool {
        let now = self.time();
        let mut busy = !self.is_hung && self.turn_control(now);
        let Some(process) = self.process.as_mut().filter(|_| !self.is_stopped) else { return false };
        for index in 0..process.drivers.len() {
            if process.blocked_ns[index] > now.monotonic_ns {
                continue;
            }
            let passed = process.drivers[index].target().passed();
            if process.turn_target(index) {
                busy = true;
                if self.flush_ns > APPEND_NS {
                    process.blocked_ns[index] = now.monotonic_ns + self.random.below(self.flush_ns);
                }
            }
            let target = process.drivers[index].target();
            if target.passed() > passed {
                self.served.push(target.id());
            }
        }
        if self.is_hung {
            return busy;
        }
        process.take_wishes(now, self.plant);
        loop {
            let actions = process.node.take_actions();
            if actions.is_empty() {
                return busy;
            }
            busy = true;
            for action in actions {
                process.act(action, now, self.id, self.plant, self.random.below(self.flush_ns));
            }
        }
    }

    /// What the control plane's thread hears.
    fn turn_control(&mut self, now: Time) -> bool {
        let Some(process) = self.process.as_mut().filter(|_| !self.is_stopped) else { return false };
        let mut busy = false;
        while let Some(event) = process.endpoint.recv() {
            busy = true;
            match event {
                // The end of a simulated process is seen by its connection's end alone.
                Event::Up { peer, hello, .. } => {
                    if hello.server.is_none() {
                        process.clients.insert(peer);
                    }
                    process.node.peer_up(now, peer, hello, None);
                }
                Event::Message { peer, message } => {
                    let position = process.node.pool().position();
                    match seam::answered(self.plant, position, &message).filter(|_| !process.node.is_leader()) {
                        Some(answer) => _ = process.endpoint.send(peer, &[IoSlice::new(&answer)]),
                        None => {
                            process.node.message(now, peer, &seam::heard(self.plant, &mut process.resumed, &message))
                        }
                    }
                }
                Event::Connected { .. } => {}
                Event::Down { peer } if self.plant == Plant::Deaf && process.clients.contains(&peer) => {}
                Event::Down { peer } => process.node.peer_down(now, peer),
            }
        }
        if process.storing.as_ref().is_some_and(|(done_ns, _)| *done_ns <= now.monotonic_ns)
            && let Some((_, ops)) = process.storing.take()
        {
            busy = true;
            ops.into_iter().for_each(|op| self.media.log.apply(op));
            process.node.stored(now);
        }
        if process.noting.as_ref().is_some_and(|(done_ns, _)| *done_ns <= now.monotonic_ns)
            && let Some((_, notes)) = process.noting.take()
        {
            busy = true;
            self.media.note(notes);
            process.node.noted(now);
        }
        if process.node.next_deadline().is_some_and(|deadline_ns| deadline_ns <= now.monotonic_ns) {
            process.node.tick(now);
        }
        busy
    }

    /// When there is something to do without any message.
    pub(crate) fn next_deadline_ns(&self) -> u64 {
        let Some(process) = self.process.as_ref().filter(|_| !self.is_stopped) else { return u64::MAX };
        let now_ns = self.clock.monotonic_ns();
        let driver = |(driver, blocked_ns): (&Driver, &u64)| match *blocked_ns > now_ns {
            true => *blocked_ns,
            false => driver.next_deadline(),
        };
        let drivers = process.drivers.iter().zip(&process.blocked_ns).map(driver).min().unwrap_or(u64::MAX);
        if self.is_hung {
            return drivers;
        }
        let node = process.node.next_deadline().unwrap_or(u64::MAX);
        let stored = process.storing.as_ref().map_or(u64::MAX, |(done_ns, _)| *done_ns);
        let noted = process.noting.as_ref().map_or(u64::MAX, |(done_ns, _)| *done_ns);
        drivers.min(node).min(stored).min(noted)
    }
}

impl Process {
    fn turn_target(&mut self, index: usize) -> bool {
        let mut wants = Vec::new();
        let events = match self.drivers[index].turn(&mut wants) {
            Ok(events) => events,
            Err(fatal) => panic!("a target ended: {fatal}"),
        };
        let busy = events > 0 || !wants.is_empty();
        self.wanted.extend(wants.into_iter().map(|want| (index, want)));
        busy
    }

    /// What the control plane hears from its targets.
    fn take_wishes(&mut self, now: Time, plant: Plant) {
        while let Some((index, want)) = self.wanted.pop_front() {
            match want {
                Effect::Durable { horizon } => {
                    self.durable[index] = horizon;
                    let all = self.durable.iter().copied().min().unwrap_or_default();
                    self.node.targets_durable(now, all);
                }
                Effect::LogEnd { token } if plant == Plant::NoCatchUp => {
                    mail(&mut self.drivers[index], Mail::LogEnd { token, position: self.delivered });
                }
                Effect::LogEnd { token } => {
                    let outer = self.next_token;
                    self.next_token += 1;
                    self.asked.insert(outer, (index, token));
                    self.node.log_end(now, outer);
                }
                Effect::CatchUp { .. } | Effect::Drop { .. } => {}
            }
        }
    }

    /// What a server's targets are told of its lease.
    fn lease(&mut self, until_ns: Option<u64>, plant: Plant) {
        let until_ns = match plant {
            Plant::EndlessLease => Some(u64::MAX),
            _ => until_ns,
        };
        if let Some(lease) = self.tenure.set(until_ns) {
            self.drivers.iter_mut().for_each(|driver| mail(driver, Mail::Lease(lease.clone())));
        }
    }

    fn act(&mut self, action: Action, now: Time, server: u32, plant: Plant, flush_ns: u64) {
        match action {
            // A full connection loses it: the protocol above must live with that.
            Action::Send { peer, bytes } => {
                let is_leader = self.node.is_leader();
                let _ = self.endpoint.send(peer, &[IoSlice::new(&seam::said(plant, is_leader, &bytes))]);
            }
            Action::Close { peer } => self.endpoint.disconnect(peer),
            Action::Store { ops } => self.storing = Some((now.monotonic_ns + flush_ns, ops)),
            Action::Note { notes } => self.noting = Some((now.monotonic_ns + flush_ns, notes)),
            Action::Deliver { changes, horizon } => {
                self.delivered = self.delivered.max(horizon);
                for (index, driver) in self.drivers.iter_mut().enumerate() {
                    let changes =
                        changes.iter().filter_map(|change| translated(change, plant, server, index)).collect();
                    mail(driver, Mail::Follow { changes, horizon });
                }
            }
            Action::CatchUpDone { token } => {
                if let Some((index, token)) = self.asked.remove(&token) {
                    mail(&mut self.drivers[index], Mail::LogEnd { token, position: self.delivered });
                }
            }
            Action::CatchUpFailed { token, .. } => drop(self.asked.remove(&token)),
            Action::Lease { until_ns } => self.lease(until_ns, plant),
            Action::Watch { .. } | Action::WatchProcess { .. } | Action::Unwatch { .. } => {}
            Action::Connect { server: to, .. } => {
                let address = talea_fabric::Address::Sim(control_node(to.0));
                let hello = Hello { server: Some(server), ..Hello::default() };
                match self.endpoint.connect(&address, &hello, u64::MAX) {
                    Ok(peer) => self.node.server_up(now, to, peer),
                    Err(_) => self.node.server_unreachable(now, to),
                }
            }
        }
    }
}

/// Two of three logs are cut before anything is long gone, so that servers that come back find records missing.
fn log_bound(random: &mut Random) -> LogBound {
    match random.chance(67) {
        true => LogBound { records: 1 + random.below(24), bytes: 1 << 20 },
        false => LogBound::default(),
    }
}

fn mail(driver: &mut Driver, mail: Mail) {
    if let Err(fatal) = driver.mail(mail) {
        panic!("a target ended: {fatal}");
    }
}

/// A change in the engine's words, spoilt as the plant says.
fn translated(change: &TargetChange, plant: Plant, server: u32, index: usize) -> Option<PoolChange> {
    let mut change = change.clone();
    if let (Plant::NothingKept, TargetChange::Floor { kept, .. }) = (plant, &mut change) {
        kept.clear();
    }
    if let TargetChange::Commit { tx, stamp } = &mut change {
        if plant == Plant::StaleTable && server == 0 && index == 0 && tx.0 % 4 == 0 {
            return None;
        }
        if plant == Plant::LateStamp {
            // Below what the log has issued: a snapshot of the last milliseconds gets it after the fact.
            *stamp = Stamp::from_unix_us(stamp.unix_us().saturating_sub(3_000));
        }
    }
    match change {
        TargetChange::Commit { tx, .. } if plant == Plant::HalfCommit && server == 1 && index == 0 => {
            Some(talead::pool_change(TargetChange::Abort { tx }))
        }
        change => Some(talead::pool_change(change)),
    }
}
