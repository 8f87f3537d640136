//! What goes wrong: which faults strike when, as the seed says, and what each of them does to the world.
//!
//! Must never do what a machine, a network or an administrator could not: every fault ends, and a disk that is lost takes no
//! more of the log with it than its other replicas can make up for.

use std::collections::BTreeMap;

use super::{JOBS, MS, TARGETS, World};
use crate::random::Random;
use crate::server::{APPEND_NS, control_node, target_node};
use crate::stand::Point;
use crate::time::lock;

/// All faults are over by then.
const FAULTS_END_NS: u64 = 4_000 * MS;
/// No fault begins later, and none lasts longer than what is left then.
const FAULTS_BEGIN_NS: u64 = FAULTS_END_NS - 2_500 * MS;
const LONGEST_MS: u64 = 2_000;

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// All processes of a job are killed.
    KillJob(u32),
    /// A server's process ends at once, with what it had not flushed.
    Crash(u32),
    /// The same, and its media are lost: targets, and replica of the log.
    LoseMedia(u32),
    /// It starts on what its media hold.
    Start(u32),
    /// SIGSTOP, and SIGCONT.
    Stop(u32),
    Continue(u32),
    /// A server's control plane hangs, and its targets do not; and goes on.
    Hang(u32),
    Unhang(u32),
    /// Servers of this mask cannot be reached by the others, nor reach them.
    Split(u32),
    /// A server can be reached by nobody, its clients included.
    Cut(u32),
    /// What one server sends to another does not arrive.
    OneWay(u32, u32),
    /// Connections between two servers break.
    Sever(u32, u32),
    /// Connections between a server and its clients break.
    HangUp(u32),
    Heal,
    /// A node's wall clock jumps.
    Jump(u32, i64),
    /// A flush of a server's disks takes up to so many nanoseconds.
    Disks(u32, u64),
    /// A client is stopped when it has passed there so often, and goes on after so many nanoseconds.
    Stand(Point, u32, u64),
}

impl Fault {
    /// By which they are counted; what only ends one has none.
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Fault::KillJob(_) => "job killed",
            Fault::Crash(_) => "crash",
            Fault::LoseMedia(_) => "media lost",
            Fault::Stop(_) => "stop",
            Fault::Hang(_) => "control hangs",
            Fault::Split(_) => "split",
            Fault::Cut(_) => "cut off",
            Fault::OneWay(..) => "one-way block",
            Fault::Sever(..) => "connections broken",
            Fault::HangUp(_) => "clients cut",
            Fault::Jump(..) => "clock jump",
            Fault::Disks(_, ns) if ns > APPEND_NS => "slow disks",
            Fault::Stand(..) => "client stopped",
            Fault::Start(_) | Fault::Continue(_) | Fault::Unhang(_) | Fault::Heal | Fault::Disks(..) => return None,
        })
    }
}

/// All kinds.
pub const FAULTS: [&str; 13] = [
    "job killed",
    "crash",
    "media lost",
    "stop",
    "control hangs",
    "split",
    "cut off",
    "one-way block",
    "connections broken",
    "clients cut",
    "clock jump",
    "slow disks",
    "client stopped",
];

/// How often each kind of fault struck.
pub type Struck = BTreeMap<&'static str, u64>;

/// The faults to come, the next one last.
#[derive(Default)]
pub(super) struct Plan {
    faults: Vec<(u64, Fault)>,
    pub(super) struck: Struck,
    /// When which fault struck, for people.
    pub(super) told: Vec<String>,
}

impl Plan {
    pub(super) fn is_over(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn next_ns(&self) -> u64 {
        self.faults.last().map_or(u64::MAX, |(at_ns, _)| *at_ns)
    }

    fn take_due(&mut self, now_ns: u64) -> Option<Fault> {
        self.faults.pop_if(|(at_ns, _)| *at_ns <= now_ns).map(|(_, fault)| fault)
    }

    fn add(&mut self, at_ns: u64, fault: Fault) {
        self.faults.push((at_ns, fault));
    }

    /// A fault, and its end some time later.
    fn spell(&mut self, random: &mut Random, fault: Fault, end: Fault) {
        let begin_ns = some_time(random);
        self.add(begin_ns, fault);
        self.add(begin_ns + (10 + random.below(LONGEST_MS)) * MS, end);
    }
}

fn some_time(random: &mut Random) -> u64 {
    random.below(FAULTS_BEGIN_NS) + 5 * MS
}

/// A mask of some of the servers: at least one, and not all.
fn some_of(random: &mut Random, servers: u32) -> u32 {
    1 + random.below((1 << servers) - 2) as u32
}

/// Whose media may be lost: one of the log's replicas, if that leaves a majority; else one that has none.
fn loser(random: &mut Random, servers: u32) -> u32 {
    match servers {
        2 => 1,
        _ => random.below(servers.into()) as u32,
    }
}

/// Clients that are stopped: more where what they read in place moves. Half of the stops end well before a lease does, half of them after it.
/// A seed's other faults are what they were without these.
fn plan_stops(plan: &mut Plan, seed: u64, moves: bool) {
    let mut random = Random::new(!seed);
    let most = if moves { 32 } else { 1 };
    for _ in 0..random.below(most + 1) {
        let point = match random.below(100) {
            0..12 => Point::Between,
            20..65 => Point::BeforeCopy,
            65..90 => Point::AfterCopy,
            _ => Point::AtBoard,
        };
        let ms = if random.chance(50) { 5 + random.below(400) } else { 1_000 + random.below(2_500) };
        plan.add(some_time(&mut random), Fault::Stand(point, random.below(6) as u32, ms * MS));
    }
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        let (servers, mut plan) = (self.settings.servers, Plan::default());
        let random = &mut self.random;
        for _ in 0..random.below(3) {
            plan.add(some_time(random), Fault::KillJob(random.below(JOBS.into()) as u32));
        }
        for server in 0..servers {
            if random.chance(40) {
                let crash_ns = some_time(random);
                let down_ns =
                    if random.chance(30) { random.below(5 * MS) } else { (20 + random.below(LONGEST_MS)) * MS };
                plan.add(crash_ns, Fault::Crash(server));
                plan.add(crash_ns + down_ns, Fault::Start(server));
            }
        }
        if random.chance(30) {
            let alone = 1 << random.below(servers.into());
            plan.spell(random, Fault::Split(alone), Fault::Heal);
        }
        let node = |random: &mut Random| random.below(servers.into()) as u32;
        if random.chance(30) {
            let offset_us = random.below(4_000_000) as i64 - 2_000_000;
            plan.add(some_time(random), Fault::Jump(control_node(node(random)), offset_us));
        }
        if random.chance(15) {
            let mask = some_of(random, servers);
            plan.spell(random, Fault::Split(mask), Fault::Heal);
        }
        if random.chance(15) {
            let server = node(random);
            plan.spell(random, Fault::Cut(server), Fault::Heal);
        }
        if random.chance(15) {
            let from = node(random);
            plan.spell(random, Fault::OneWay(from, (from + 1) % servers), Fault::Heal);
        }
        if random.chance(15) {
            let from = node(random);
            plan.add(some_time(random), Fault::Sever(from, (from + 1) % servers));
        }
        if random.chance(25) {
            let server = node(random);
            plan.spell(random, Fault::Stop(server), Fault::Continue(server));
        }
        if random.chance(15) {
            let (server, slow_ns) = (node(random), (2 + random.below(300)) * MS);
            plan.spell(random, Fault::Disks(server, slow_ns), Fault::Disks(server, APPEND_NS));
        }
        if random.chance(15) {
            let server = loser(random, servers);
            plan.spell(random, Fault::LoseMedia(server), Fault::Start(server));
        }
        if random.chance(20) {
            let server = node(random);
            plan.spell(random, Fault::Hang(server), Fault::Unhang(server));
        }
        for _ in 0..random.below(4) {
            plan.add(some_time(random), Fault::HangUp(node(random)));
        }
        plan_stops(&mut plan, self.settings.seed, self.settings.moves);
        plan.faults.sort_by_key(|(at_ns, _)| std::cmp::Reverse(*at_ns));
        self.plan = plan;
    }

    /// The faults of this instant.
    pub(super) fn strike_due(&mut self) {
        while let Some(fault) = self.plan.take_due(self.network.now_ns()) {
            if let Some(name) = fault.name() {
                *self.plan.struck.entry(name).or_default() += 1;
            }
            let at_us = self.network.now_ns() / 1_000;
            self.plan.told.push(format!("{}.{:06} s: {fault:?}", at_us / 1_000_000, at_us % 1_000_000));
            self.strike(fault);
        }
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::KillJob(job) => self.kill_job(job),
            Fault::Crash(server) => self.crash(server),
            Fault::LoseMedia(server) => {
                self.crash(server);
                self.servers[server as usize].lose_media();
                lock(&self.history).media_lost = true;
            }
            Fault::Start(server) => {
                if !self.servers[server as usize].is_up() {
                    self.servers[server as usize].start();
                }
            }
            Fault::Stop(server) => self.servers[server as usize].set_stopped(true),
            Fault::Continue(server) => self.servers[server as usize].set_stopped(false),
            Fault::Hang(server) => self.servers[server as usize].set_hung(true),
            Fault::Unhang(server) => self.servers[server as usize].set_hung(false),
            Fault::Split(mask) => {
                let all = 0..self.settings.servers;
                let (some, others): (Vec<u32>, Vec<u32>) = all.partition(|server| mask & (1 << server) != 0);
                let control = |servers: Vec<u32>| servers.into_iter().map(control_node).collect::<Vec<u32>>();
                self.network.partition(&control(some), &control(others));
            }
            Fault::Cut(server) => self.cut(server),
            Fault::OneWay(from, to) => self.network.block(control_node(from), control_node(to)),
            Fault::Sever(a, b) => self.network.sever(control_node(a), control_node(b)),
            Fault::HangUp(server) => {
                self.programs.iter().for_each(|program| self.network.sever(program.node, control_node(server)));
            }
            Fault::Heal => self.network.heal(),
            Fault::Jump(node, offset_us) => self.network.set_clock_offset(node, offset_us),
            Fault::Disks(server, flush_ns) => self.servers[server as usize].set_flush(flush_ns),
            Fault::Stand(point, passes, ns) => {
                let mut random = Random::new(self.settings.seed ^ self.network.now_ns());
                self.stand(&mut random, point, passes, ns);
            }
        }
    }

    fn crash(&mut self, server: u32) {
        self.servers[server as usize].crash();
        lock(&self.history).media_lost |= self.settings.memory;
        // Its clock may be another one when it is back.
        for target in 0..TARGETS {
            let offset_us = self.random.below(4_000_000) as i64 - 2_000_000;
            self.network.set_clock_offset(target_node(server * TARGETS + target), offset_us);
        }
    }

    fn cut(&mut self, server: u32) {
        let nodes = |server: u32| {
            let targets = (0..TARGETS).map(move |target| target_node(server * TARGETS + target));
            std::iter::once(control_node(server)).chain(targets)
        };
        let others = (0..self.settings.servers).filter(|other| *other != server).flat_map(nodes);
        let others: Vec<u32> = others.chain(self.programs.iter().map(|program| program.node)).collect();
        self.network.partition(&nodes(server).collect::<Vec<u32>>(), &others);
    }

    /// `kill -9` of all processes of a job, as the end of one rank brings about; it runs again.
    fn kill_job(&mut self, job: u32) {
        let life =
            self.programs.iter().filter_map(|program| program.job).find(|(of, _)| *of == job).map(|(_, life)| life);
        let Some(life) = life else { return };
        for program in self.programs.iter().filter(|program| program.job == Some((job, life))) {
            // First the network, so that nothing a destructor says gets out.
            self.network.crash(program.node);
        }
        self.programs.retain(|program| program.job != Some((job, life)));
        if life + 1 < super::LIVES {
            self.spawn_job(job, life + 1);
        }
    }
}
