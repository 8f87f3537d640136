//! The world: servers, programs, network and faults on one virtual time line, all of it decided by a seed.

mod faults;
mod programs;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use talea_control::FanOut;
use talea_fabric::sim::{Link, SimNetwork};
use talea_model::{Position, TargetId};

use self::faults::Plan;
pub use self::faults::{FAULTS, Struck};
use self::programs::Program;
use crate::history::History;
use crate::plant::Plant;
use crate::program::{self, Family, Job, WRITERS};
use crate::random::Random;
use crate::server::{Shape, SimServer, control_node, target_node};
use crate::time::{Timeline, lock};
use crate::window::Windows;

const TARGETS: u32 = 2;
const JOBS: u32 = 2;
const READERS: u32 = 2;
const TRANSACTORS: u32 = 3;
const INSERTERS: u32 = 2;
const GAZERS: u32 = 4;
/// Bytes of a segment where values are moved all the time.
const SHORT_SEGMENT_BYTES: u64 = 8 << 10;
/// Capacity of a target in bytes, and of one that the programs fill.
const CAPACITY_BYTES: u64 = 2 << 20;
const SMALL_BYTES: u64 = 320 << 10;
const MS: u64 = 1_000_000;
/// Rounds (epochs) of each job.
const ROUNDS: u64 = 8;
/// A job that was killed runs again so often.
const LIVES: u32 = 3;
/// Everything must have ended by then.
const END_NS: u64 = 120_000 * MS;
/// Events at one instant beyond which the world is stuck.
const INSTANT_TURNS: u32 = 100_000;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// How many servers: their log has 1, 3 or 5 replicas.
    pub servers: u32,
    /// A planted bug.
    pub plant: Plant,
    /// No faults at all: a quiet network and nobody dies.
    pub calm: bool,
    /// How many servers each passes the log on to; 0: the leader tells all of them itself.
    pub width: u32,
    /// Targets lie in memory: what a server holds ends with its process.
    pub memory: bool,
    /// Values are written over all the time, so that what is read in place moves and its blocks are used again.
    pub moves: bool,
}

impl Settings {
    /// A seed with faults and without a planted bug, on as many servers as the seed says.
    pub fn of(seed: u64) -> Self {
        const SERVERS: [u32; 8] = [2, 3, 2, 3, 5, 4, 3, 5];
        // A chain, or a tree with two children each: where there are five servers, and half of the time.
        let width = if seed / 8 % 2 == 1 { 1 + (seed / 16 % 2) as u32 } else { 0 };
        let (servers, moves) = (SERVERS[(seed % 8) as usize], seed % 7 == 3);
        // Values move most where nothing has to be made durable.
        let memory = seed / 32 % 4 == 3 || moves && (seed / 7).is_multiple_of(2);
        Self { seed, servers, plant: Plant::None, calm: false, width, memory, moves }
    }

    fn fan_out(&self) -> FanOut {
        match self.width {
            0 => FanOut::default(),
            width => FanOut { direct: 0, width: width as usize },
        }
    }

    /// The command that runs it again.
    pub fn replay(&self) -> String {
        let Self { seed, servers, plant, calm, width, memory, moves } = self;
        let calm = if *calm { " --calm" } else { "" };
        let plant = plant.name();
        format!(
            "cargo run -p talea-simulation -- --seed {seed} --servers {servers} --width {width} --memory {memory} --moves {moves} --plant {plant}{calm}"
        )
    }
}

/// What a run yielded.
pub struct Run {
    /// For the checker.
    pub history: History,
    /// Equal for equal runs: a sum of all that was delivered, when, to whom.
    pub digest: [u8; 32],
    /// Virtual time that it took, in nanoseconds.
    pub took_ns: u64,
    /// Messages sent.
    pub messages: u64,
    /// Copies that clients made in place.
    pub in_place: u64,
    /// Copies in place in which a client stood still, and those of which other bytes came to lie there meanwhile.
    pub stood: (u64, u64),
    /// Faults that struck, by kind.
    pub struck: Struck,
    /// When which fault struck, for people.
    pub told: Vec<String>,
}

struct World {
    settings: Settings,
    network: SimNetwork,
    time: Timeline,
    random: Random,
    servers: Vec<SimServer>,
    windows: Windows,
    programs: Vec<Program>,
    history: Arc<Mutex<History>>,
    done: Arc<Mutex<bool>>,
    plan: Plan,
    next_node: u32,
    /// The log's position up to which any server knows it, and the targets that are down there.
    down: (Position, BTreeSet<TargetId>),
}

/// Runs one seed to its end.
pub fn run(settings: Settings) -> Run {
    let mut world = World::new(settings);
    world.start();
    world.run_until(|world| {
        let now_ns = world.network.now_ns();
        let is_over = |program: &Program| program.job.is_none() && !program.stands(now_ns);
        world.programs.iter().all(is_over) && world.plan.is_over()
    });
    *lock(&world.done) = true;
    world.run_until(|world| world.programs.is_empty());
    world.note_hanging();
    // Only a resting system can be asked: leases of the dead have to run out first.
    let rest_ns = world.network.now_ns() + 7_000 * MS;
    world.run_until(|world| world.network.now_ns() >= rest_ns);
    world.spawn("audit".to_owned(), None, |context| Box::pin(program::audit(context)));
    world.run_until(|world| world.programs.is_empty());
    world.note_hanging();
    let history = std::mem::take(&mut *lock(&world.history));
    Run {
        history,
        digest: world.network.digest(),
        took_ns: world.network.now_ns(),
        messages: world.network.messages_sent(),
        in_place: world.windows.copies(),
        stood: world.windows.stood(),
        struck: world.plan.struck,
        told: world.plan.told,
    }
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut random = Random::new(settings.seed);
        let mut chance = random.fork();
        let network = SimNetwork::new(move || chance.draw());
        let faulty = Link {
            delay_min_ns: 2_000,
            delay_max_ns: 2_000 + random.below(400_000),
            loss_ppm: random.below(20_000) as u32,
            duplicate_ppm: random.below(20_000) as u32,
            ..Link::default()
        };
        network.set_default_link(if settings.calm { Link::default() } else { faulty });
        let windows = Windows::new(settings.plant);
        let is_small = !settings.calm && random.chance(10);
        let capacity_bytes = if is_small { SMALL_BYTES } else { CAPACITY_BYTES };
        let servers = (0..settings.servers)
            .map(|id| {
                SimServer::new(
                    id,
                    Shape {
                        servers: settings.servers,
                        targets: TARGETS,
                        fan_out: settings.fan_out(),
                        memory: settings.memory,
                        segment_bytes: if settings.moves { SHORT_SEGMENT_BYTES } else { 0 },
                    },
                    capacity_bytes,
                    &network,
                    &windows,
                    settings.plant,
                    random.fork(),
                )
            })
            .collect();
        Self {
            settings,
            time: Timeline::new(&network),
            network,
            random,
            servers,
            windows,
            programs: vec![],
            history: Arc::default(),
            done: Arc::default(),
            plan: Plan::default(),
            next_node: 5_000,
            down: Default::default(),
        }
    }

    fn start(&mut self) {
        self.servers.iter_mut().for_each(SimServer::start);
        for job in 0..JOBS {
            self.spawn_job(job, 0);
        }
        let done = self.done.clone();
        for reader in 0..READERS {
            let done = done.clone();
            self.spawn(format!("reader {reader}"), None, move |context| {
                Box::pin(program::reader(context, reader, done))
            });
        }
        let follower = done.clone();
        self.spawn("follower".to_owned(), None, move |context| Box::pin(program::follower(context, 0, follower)));
        for number in 0..TRANSACTORS {
            let done = done.clone();
            self.spawn(format!("transactor {number}"), None, |context| Box::pin(program::transactor(context, done)));
        }
        for number in 0..INSERTERS {
            let done = done.clone();
            self.spawn(format!("inserter {number}"), None, |context| Box::pin(program::inserter(context, done)));
        }
        let visitor = done.clone();
        self.spawn("visitor".to_owned(), None, |context| Box::pin(program::visitor(context, visitor)));
        let (teller, keeper) = (done.clone(), done);
        self.spawn("teller".to_owned(), None, |context| Box::pin(program::teller(context, teller)));
        self.spawn("keeper".to_owned(), None, |context| Box::pin(program::keeper(context, keeper)));
        self.spawn_family();
        if self.settings.moves {
            self.spawn_movers();
        }
        if !self.settings.calm {
            self.skew_clocks();
            self.plan_faults();
        }
    }

    fn spawn_family(&mut self) {
        let family: Arc<Mutex<Family>> = Arc::default();
        let mother = family.clone();
        self.spawn("mother".to_owned(), None, |context| Box::pin(program::mother(context, mother)));
        let orphan = family.clone();
        self.spawn("orphan".to_owned(), None, |context| Box::pin(program::orphan(context, orphan)));
        if let Some(orphan) = self.programs.last_mut() {
            orphan.set_family(family);
        }
    }

    fn spawn_movers(&mut self) {
        let done = self.done.clone();
        for gazer in 0..GAZERS {
            let done = done.clone();
            self.spawn(format!("gazer {gazer}"), None, move |context| Box::pin(program::gazer(context, gazer, done)));
        }
        self.spawn("mover".to_owned(), None, |context| Box::pin(program::mover(context, done)));
    }

    /// Clocks of different nodes never agree.
    fn skew_clocks(&mut self) {
        for server in 0..self.settings.servers {
            let targets = (0..TARGETS).map(|target| target_node(server * TARGETS + target));
            for node in std::iter::once(control_node(server)).chain(targets) {
                self.network.set_clock_offset(node, self.random.below(200_000) as i64 - 100_000);
            }
        }
    }

    fn spawn_job(&mut self, job: u32, life: u32) {
        let shared = Arc::new(Mutex::new(Job::default()));
        for writer in 0..WRITERS {
            let shared = shared.clone();
            self.spawn(format!("writer {writer} of job {job}"), Some((job, life)), move |context| {
                Box::pin(program::writer(context, shared, writer, ROUNDS))
            });
        }
    }

    /// Goes on until `over`, or until the end of time.
    fn run_until(&mut self, over: impl Fn(&World) -> bool) {
        loop {
            self.instant();
            let next_ns = self.next_ns();
            if over(self) || self.network.now_ns() >= END_NS || next_ns == u64::MAX {
                return;
            }
            self.network.advance(next_ns.max(self.network.now_ns() + 1));
        }
    }

    /// Everything that happens at this instant.
    fn instant(&mut self) {
        self.strike_due();
        for _ in 0..INSTANT_TURNS {
            let moves = self.time.moves();
            let mut busy = false;
            for server in 0..self.servers.len() {
                busy |= self.servers[server].turn();
                self.judge_service(server);
            }
            busy |= self.poll_programs();
            if !busy && self.time.moves() == moves {
                return;
            }
        }
        panic!("seed {}: the world does not come to rest at {} ns", self.settings.seed, self.network.now_ns());
    }

    /// Rule 11: who is down in the pool's log, as far as it is applied anywhere, has no lease and serves nothing.
    fn judge_service(&mut self, server: usize) {
        for target in self.servers[server].take_served() {
            if self.down.1.contains(&target) {
                let (position, at_us) = (self.down.0, self.network.now_ns() / 1_000);
                let what =
                    format!("target {target} served at {at_us} us, and the log at {position} says that it is down");
                lock(&self.history).served_late.push(what);
            }
        }
        if let Some(newer) = self.servers[server].down().filter(|(position, _)| *position > self.down.0) {
            self.down = newer;
        }
    }

    fn next_ns(&self) -> u64 {
        let servers = self.servers.iter().map(SimServer::next_deadline_ns);
        let clients = self.programs.iter().map(|program| program.next_ns(self.network.now_ns()));
        let network = self.network.next_event_ns().unwrap_or(u64::MAX);
        servers.chain(clients).chain([network, self.plan.next_ns(), self.time.next_wake_ns()]).min().unwrap_or(u64::MAX)
    }

    fn note_hanging(&mut self) {
        let hanging = std::mem::take(&mut self.programs).into_iter().map(|program| program.what);
        lock(&self.history).hanging.extend(hanging);
    }
}
