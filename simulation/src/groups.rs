//! The groups' world: redundancy groups of two and three members (docs/design.md §4 rule 9), on real stores over simulated media.
//!
//! The members are the engine's own ([`talea_engine::group`]); their pool's log is a small one, for who is live and who is complete
//! is all that they need of it. Servers crash, stop, are cut off from each other and from the log one way or both, lose
//! their media where another complete member is there, come back at once or when they have been excluded, and their clocks jump.

mod check;
mod log;
mod net;
mod program;
mod server;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use talea_engine::group::{HostError, Options, Plant};
use talea_model::{Step, TargetId};

pub use self::check::Seen;
use self::log::Log;
use self::net::{LOG, Net, Node, Packet};
use self::program::{AUTO, Context, Shared};
use self::server::Server;
use crate::Violation;
use crate::history::{Cell, History};
use crate::program::CELLS;
use crate::random::Random;

const MS: u64 = 1_000_000;
const GROUPS: usize = 4;
const READERS: u32 = 3;
/// Faults begin before this time, and are over soon after.
const FAULTS_NS: u64 = 2_500 * MS;
const END_NS: u64 = 60_000 * MS;
/// Turns at one instant beyond which the world is stuck.
const INSTANT_TURNS: u32 = 100_000;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// A planted bug.
    pub plant: Plant,
    /// No faults.
    pub calm: bool,
}

impl Settings {
    /// A seed with faults and without a planted bug.
    pub fn of(seed: u64) -> Self {
        Settings { seed, plant: Plant::None, calm: false }
    }

    /// The command that runs it again.
    pub fn replay(&self) -> String {
        let calm = if self.calm { " --calm" } else { "" };
        let plant = crate::Plant::all().find(|plant| plant.group() == self.plant && self.plant != Plant::None);
        let plant = plant.unwrap_or_default().name();
        format!("cargo run -p talea-simulation -- --groups --seed {} --plant {plant}{calm}", self.seed)
    }
}

/// What a run yielded.
#[derive(Debug, Default)]
pub struct Run {
    /// What programs did and saw.
    pub history: History,
    /// Reads of autocommits.
    pub seen: Vec<Seen>,
    /// What the checker found.
    pub violations: Vec<Violation>,
    /// Equal for equal runs.
    pub digest: u64,
    /// Messages sent.
    pub messages: u64,
    /// Updates acknowledged, and refused.
    pub updates: u64,
    /// Updates refused.
    pub refused: u64,
    /// How often a server was excluded, and a member declared complete again.
    pub excluded: u64,
    /// Members that had missed something and got it.
    pub completed: u64,
    /// Members that were complete at the end, of how many.
    pub complete: (usize, usize),
    /// Faults, by kind.
    pub struck: BTreeMap<&'static str, u64>,
}

/// Kinds of faults.
pub const FAULTS: [&str; 7] = ["crash", "restart", "lose medium", "stop", "cut", "cut from log", "clock jump"];

#[derive(Clone, Copy)]
enum Fault {
    Crash(u32),
    LoseMedium(u32),
    Start(u32),
    Stop(u32, u64),
    Cut(Node, Node, bool, u64),
    Mend(Node, Node),
    Jump(u32, i64),
}

/// What runs, and its name.
type Program = (String, Pin<Box<dyn Future<Output = ()>>>);

struct World {
    random: Random,
    shared: Rc<RefCell<Shared>>,
    log: Log,
    servers: Vec<Server>,
    groups: Arc<Vec<Vec<TargetId>>>,
    programs: Vec<Program>,
    /// Programs that have to end by themselves.
    writers: Vec<Program>,
    plan: BTreeMap<(u64, u64), Fault>,
    next_node: Node,
    struck: BTreeMap<&'static str, u64>,
    fatal: Vec<String>,
}

/// Runs one seed to its end, and checks it.
pub fn run(settings: Settings) -> Run {
    let mut world = World::new(settings);
    world.spawn_all();
    if !settings.calm {
        world.plan_faults();
    }
    world.run_until(|world| world.writers.is_empty() && world.plan.is_empty());
    world.shared.borrow_mut().done = true;
    world.run_until(|world| world.programs.is_empty());
    // Leases of the dead run out, and who is back catches up.
    let rest_ns = world.now_ns() + 3_000 * MS;
    world.run_until(|world| world.now_ns() >= rest_ns);
    let complete = world.complete();
    let context = world.context();
    world.writers.push(("audit".to_owned(), Box::pin(program::audit(context, complete.clone()))));
    world.run_until(|world| world.writers.is_empty());
    world.end(&complete)
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut random = Random::new(settings.seed ^ 0x9a0c);
        let count = 3 + random.below(3) as u32;
        // One list of members is one group.
        let mut groups: Vec<Vec<TargetId>> = Vec::new();
        while groups.len() < GROUPS {
            let group = members(&mut random, count, 2 + groups.len() % 2);
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let groups = Arc::new(groups);
        // Some remember all, so that even an empty member catches up; others next to nothing.
        let keep_entries = if random.chance(50) { 1 << 40 } else { 4 };
        let options = Options { keep_entries, plant: settings.plant };
        let servers =
            (0..count).map(|id| Server::new(id, groups.clone(), options, settings.calm, random.fork())).collect();
        let shared = Shared {
            net: Net::new(random.fork(), settings.calm),
            replies: BTreeMap::new(),
            log_replies: BTreeMap::new(),
            wakes: BTreeSet::new(),
            history: History::default(),
            seen: Vec::new(),
            acked: BTreeMap::new(),
            told: Default::default(),
            done: false,
            updates: 0,
            refused: 0,
        };
        World {
            log: Log::new(count, groups.to_vec()),
            random,
            shared: Rc::new(RefCell::new(shared)),
            servers,
            groups,
            programs: Vec::new(),
            writers: Vec::new(),
            plan: BTreeMap::new(),
            next_node: 1_000,
            struck: BTreeMap::new(),
            fatal: Vec::new(),
        }
    }

    fn now_ns(&self) -> u64 {
        self.shared.borrow().net.now_ns
    }

    fn context(&mut self) -> Context {
        self.next_node += 1;
        Context::new(&self.shared, self.next_node, &self.groups, self.random.fork())
    }

    fn spawn_all(&mut self) {
        for server in 0..self.servers.len() {
            let started = self.servers[server].start(0);
            self.note(started);
        }
        let share =
            |cells: std::ops::Range<Cell>, of: Cell| -> Vec<Cell> { cells.filter(|cell| cell % 2 == of).collect() };
        for half in 0..2 {
            let context = self.context();
            let writer = program::auto_writer(context, share(AUTO, half), 150);
            self.writers.push((format!("writer of autocommits {half}"), Box::pin(writer)));
            let context = self.context();
            let writer = program::epoch_writer(context, share(0..CELLS, half), 40);
            self.writers.push((format!("writer of epochs {half}"), Box::pin(writer)));
            let context = self.context();
            self.writers.push((format!("inserter {half}"), Box::pin(program::inserter(context))));
        }
        for reader in 0..READERS {
            let context = self.context();
            self.programs.push((format!("reader {reader}"), Box::pin(program::reader(context))));
        }
    }

    fn plan_faults(&mut self) {
        for _ in 0..3 + self.random.below(14) {
            let at_ns = 50 * MS + self.random.below(FAULTS_NS);
            let servers = self.servers.len() as u64;
            let server = self.random.below(servers) as u32;
            let other = (server + 1 + self.random.below(servers - 1) as u32) % servers as u32;
            // Short ones end before anybody's lease does.
            let short = self.random.chance(50);
            let lasts_ns = MS + self.random.below(if short { 100 * MS } else { 1_200 * MS });
            let fault = match self.random.below(11) {
                0..2 => {
                    self.isolate(at_ns, server);
                    continue;
                }
                kind => self.fault(kind - 2, server, other, lasts_ns),
            };
            self.put(at_ns, fault);
            if matches!(fault, Fault::Crash(_) | Fault::LoseMedium(_)) {
                self.put(at_ns + lasts_ns, Fault::Start(server));
            }
        }
    }

    fn fault(&mut self, kind: u64, server: u32, other: u32, lasts_ns: u64) -> Fault {
        match kind {
            0..2 => Fault::Crash(server),
            2 => Fault::LoseMedium(server),
            3 => Fault::Stop(server, lasts_ns),
            4..6 => Fault::Cut(server, other, self.random.chance(50), lasts_ns),
            6 => Fault::Cut(server, LOG, self.random.chance(50), lasts_ns),
            7 => Fault::Cut(LOG, server, false, lasts_ns),
            _ => Fault::Jump(server, self.random.below(2_000_000) as i64 - 1_000_000),
        }
    }

    /// A server is alone with its clients, for longer than its lease lasts; and then finds some before others.
    fn isolate(&mut self, at_ns: u64, server: u32) {
        let others = (0..self.servers.len() as u32).filter(|other| *other != server).chain([LOG]);
        for other in others.collect::<Vec<_>>() {
            let begins_ns = at_ns + self.random.below(10 * MS);
            let lasts_ns = 300 * MS + self.random.below(700 * MS);
            self.put(begins_ns, Fault::Cut(server, other, true, lasts_ns));
        }
    }

    fn put(&mut self, at_ns: u64, fault: Fault) {
        let number = self.plan.len() as u64 + self.random.below(1 << 40);
        self.plan.insert((at_ns, number), fault);
    }

    fn strike(&mut self, fault: Fault) {
        let now_ns = self.now_ns();
        let mut mends = Vec::new();
        let name = match fault {
            Fault::Crash(server) => {
                self.servers[server as usize].crash();
                "crash"
            }
            Fault::LoseMedium(server) => {
                self.servers[server as usize].crash();
                if !self.log.may_lose(server) {
                    return;
                }
                self.servers[server as usize].lose_medium();
                self.log.lose(server, self.servers[server as usize].incarnation);
                "lose medium"
            }
            Fault::Start(server) if self.servers[server as usize].is_up() => return,
            Fault::Start(server) => {
                let started = self.servers[server as usize].start(now_ns);
                self.note(started);
                "restart"
            }
            Fault::Stop(server, lasts_ns) => {
                self.servers[server as usize].stopped_until_ns = now_ns + lasts_ns;
                "stop"
            }
            Fault::Cut(from, to, both, lasts_ns) => {
                mends.push((now_ns + lasts_ns, Fault::Mend(from, to)));
                if both {
                    mends.push((now_ns + lasts_ns, Fault::Mend(to, from)));
                    self.shared.borrow_mut().net.set_cut(to, from, true);
                }
                self.shared.borrow_mut().net.set_cut(from, to, true);
                if from == LOG || to == LOG { "cut from log" } else { "cut" }
            }
            Fault::Mend(from, to) => {
                self.shared.borrow_mut().net.set_cut(from, to, false);
                return;
            }
            Fault::Jump(server, by_us) => {
                self.servers[server as usize].jump(by_us);
                "clock jump"
            }
        };
        mends.into_iter().for_each(|(at_ns, fault)| self.put(at_ns, fault));
        *self.struck.entry(name).or_default() += 1;
    }

    fn note(&mut self, result: Result<(), HostError>) {
        self.fatal.extend(result.err().map(|error| error.to_string()));
    }

    fn run_until(&mut self, over: impl Fn(&World) -> bool) {
        loop {
            self.instant();
            let next_ns = self.next_ns();
            if over(self) || !self.fatal.is_empty() || self.now_ns() >= END_NS || next_ns == u64::MAX {
                return;
            }
            let now_ns = self.now_ns();
            self.shared.borrow_mut().net.now_ns = next_ns.max(now_ns + 1);
        }
    }

    fn instant(&mut self) {
        let now_ns = self.now_ns();
        while let Some(fault) =
            self.plan.first_entry().filter(|first| first.key().0 <= now_ns).map(|first| first.remove())
        {
            self.strike(fault);
        }
        self.log.tick(now_ns);
        for _ in 0..INSTANT_TURNS {
            let mut busy = self.deliver();
            self.strike_completers();
            for server in 0..self.servers.len() {
                let ticked = self.servers[server].tick(&mut self.shared.borrow_mut().net);
                self.note(ticked);
            }
            busy |= self.poll();
            if !busy || !self.fatal.is_empty() {
                return;
            }
        }
        panic!("the groups' world does not come to rest at {now_ns} ns");
    }

    /// Brings over what is due. Whoever is stopped finds it later.
    fn deliver(&mut self) -> bool {
        let mut busy = false;
        let mut later = Vec::new();
        loop {
            let Some((from, to, packet)) = self.shared.borrow_mut().net.take() else { break };
            busy = true;
            let now_ns = self.now_ns();
            match packet {
                Packet::LogAsk { hlc, ask } => {
                    self.log.observe(hlc);
                    let stamp = self.log.stamp(1_000_000_000 + now_ns / 1_000);
                    if let Some(tell) = self.log.ask(now_ns, ask) {
                        self.shared.borrow_mut().net.send(LOG, from, Packet::LogTell { hlc: stamp, tell });
                    }
                }
                Packet::Reply { id, hlc, answer } => {
                    self.shared.borrow_mut().replies.insert((to, id), (hlc, answer));
                }
                Packet::LogTell { tell, .. } if to >= 1_000 => {
                    self.shared.borrow_mut().log_replies.entry(to).or_default().push(tell);
                }
                packet => {
                    let server = &mut self.servers[to as usize];
                    if server.stopped_until_ns > now_ns {
                        later.push((server.stopped_until_ns, from, to, packet));
                        continue;
                    }
                    let received = server.receive(&mut self.shared.borrow_mut().net, from, packet);
                    self.note(received);
                }
            }
        }
        for (at_ns, from, to, packet) in later {
            self.shared.borrow_mut().net.put_off(at_ns, from, to, packet);
        }
        busy
    }

    /// Now and then the others of a group are lost right when a member is declared complete: it must have everything.
    fn strike_completers(&mut self) {
        let Some((group, member)) = self.log.just_completed.take() else { return };
        let now_ns = self.now_ns();
        if now_ns > FAULTS_NS || !self.random.chance(15) {
            return;
        }
        let others: Vec<u32> =
            self.groups[group].iter().filter(|other| **other != member).map(|other| other.0).collect();
        for server in others {
            self.strike(Fault::LoseMedium(server));
            self.put(now_ns + 20 * MS, Fault::Start(server));
        }
    }

    fn poll(&mut self) -> bool {
        let mut waker = TaskContext::from_waker(Waker::noop());
        let before = (self.programs.len(), self.writers.len());
        self.programs.retain_mut(|(_, program)| program.as_mut().poll(&mut waker) == Poll::Pending);
        self.writers.retain_mut(|(_, program)| program.as_mut().poll(&mut waker) == Poll::Pending);
        before != (self.programs.len(), self.writers.len())
    }

    fn next_ns(&mut self) -> u64 {
        let now_ns = self.now_ns();
        let mut shared = self.shared.borrow_mut();
        while shared.wakes.first().is_some_and(|wake_ns| *wake_ns <= now_ns) {
            shared.wakes.pop_first();
        }
        let wake_ns = shared.wakes.first().copied().unwrap_or(u64::MAX);
        let servers = self.servers.iter().map(|server| server.next_ns(now_ns)).min().unwrap_or(u64::MAX);
        let plan = self.plan.first_key_value().map_or(u64::MAX, |((at_ns, _), _)| *at_ns);
        wake_ns.min(servers).min(plan).min(shared.net.next_ns()).min(self.log.next_ns())
    }

    /// Who is live and complete, of each group.
    fn complete(&self) -> Vec<Vec<TargetId>> {
        let maps = self.log.maps();
        let complete = |map: &talea_engine::group::GroupMap| {
            let holds = map.members.iter().filter(|member| member.live && member.complete);
            holds.map(|member| member.target).collect()
        };
        maps.iter().map(complete).collect()
    }

    fn end(self, complete: &[Vec<TargetId>]) -> Run {
        let mut shared = self.shared.borrow_mut();
        let mut history = std::mem::take(&mut shared.history);
        let commits = self.log.fates.iter().filter_map(|(tx, commit)| Some((*tx, (*commit)?)));
        let mut commits: Vec<_> = commits.collect();
        commits.sort_by_key(|(_, stamp)| *stamp);
        history.steps = (1..).map(Step).zip(commits).collect();
        let hanging = self.programs.iter().chain(&self.writers).map(|(name, _)| name.clone());
        history.hanging.extend(hanging);
        let mut violations: Vec<Violation> = if self.fatal.is_empty() { crate::check(&history) } else { Vec::new() };
        check::seen(&shared.seen, &mut violations);
        violations.extend(self.fatal.iter().map(|what| Violation { invariant: "fatal", what: what.clone() }));
        for (key, complete) in self.groups.iter().zip(complete) {
            let places = complete.iter().filter_map(|target| {
                let member = self.servers[target.0 as usize].host()?.member(key)?;
                Some((*target, member.places().collect()))
            });
            check::orders(&places.collect::<Vec<_>>(), &mut violations);
            if complete.is_empty() {
                let what = format!("no complete member of the group {key:?} is there when all is at rest");
                violations.push(Violation { invariant: "I8", what });
            }
        }
        Run {
            history,
            seen: std::mem::take(&mut shared.seen),
            violations,
            digest: shared.net.digest(),
            messages: shared.net.sent(),
            updates: shared.updates,
            refused: shared.refused,
            excluded: self.log.excluded,
            completed: self.log.completed,
            complete: (complete.iter().map(Vec::len).sum(), self.groups.iter().map(Vec::len).sum()),
            struck: self.struck.clone(),
        }
    }
}

/// Some members in some order.
fn members(random: &mut Random, servers: u32, width: usize) -> Vec<TargetId> {
    let mut all: Vec<TargetId> = (0..servers).map(TargetId).collect();
    for at in 0..width {
        let other = at + random.below((all.len() - at) as u64) as usize;
        all.swap(at, other);
    }
    all.truncate(width);
    all
}
