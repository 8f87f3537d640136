//! The world's programs: how they begin, take their steps, stand still and die.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};

use talea_client::{Client, Tuning};
use talea_fabric::Address;
use talea_model::ServerId;

use super::World;
use crate::plant::Plant;
use crate::program::{Context, Family};
use crate::random::Random;
use crate::server::control_node;
use crate::stand::{self, Gate, Point, ProgramClock, Standing, Taken};
use crate::time::lock;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a step leaves: the rest of the work, whether anything was done, and whether all is.
pub(super) struct Step {
    work: Work,
    busy: bool,
    is_over: bool,
}

enum Task {
    Ready(Work),
    Standing(Standing<Step>),
    /// In a step.
    Away,
}

pub(super) struct Program {
    pub(super) what: String,
    pub(super) node: u32,
    client: Client,
    task: Task,
    /// Job and life, of writers.
    pub(super) job: Option<(u32, u32)>,
    /// Of a process that is to be killed when it has said its last words.
    family: Option<Arc<Mutex<Family>>>,
    gate: Gate,
    /// It does not run before, and since when; and how long the next stop lasts.
    stands_until_ns: u64,
    stood_at_ns: u64,
    stands_ns: u64,
}

impl Program {
    pub(super) fn set_family(&mut self, family: Arc<Mutex<Family>>) {
        self.family = Some(family);
    }

    /// When it has something to do without any message.
    pub(super) fn next_ns(&self, now_ns: u64) -> u64 {
        if self.stands_until_ns > now_ns {
            return self.stands_until_ns;
        }
        self.client.next_deadline_ns()
    }

    /// It is stopped (SIGSTOP) there, and goes on after so long.
    pub(super) fn stand(&mut self, now_ns: u64, point: Point, passes: u32, ns: u64) {
        // Once at a time.
        if self.stands_until_ns > now_ns || matches!(self.task, Task::Standing(_)) {
            return;
        }
        match point {
            Point::Between => self.stands_until_ns = now_ns + ns,
            point => {
                self.stands_ns = ns;
                self.gate.arm(point, passes);
            }
        }
    }

    /// Whether it stands still.
    pub(super) fn stands(&self, now_ns: u64) -> bool {
        self.stands_until_ns > now_ns
    }

    /// Whether it may be stopped there: of those that look for one thing each some take it that time does not pass for them, and only
    /// some pass there often.
    fn may_stand(&self, point: Point, moves: bool) -> bool {
        let kinds: &[&str] = match point {
            Point::Between => &["writer", "reader", "gazer"],
            Point::AtBoard => &["writer"],
            Point::BeforeCopy | Point::AfterCopy if moves => &["gazer"],
            Point::BeforeCopy | Point::AfterCopy => &["writer", "reader"],
        };
        kinds.iter().any(|kind| self.what.starts_with(kind))
    }

    /// Takes a step; whether anything was done, and whether it was the last.
    fn step(&mut self, now_ns: u64, is_blind: bool) -> (bool, bool) {
        let taken = match std::mem::replace(&mut self.task, Task::Away) {
            Task::Ready(mut work) => {
                let client = self.client.clone();
                stand::take(&self.gate, move || {
                    let mut busy = client.drive();
                    let is_over = work.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) == Poll::Ready(());
                    busy |= is_over;
                    Step { work, busy, is_over }
                })
            }
            Task::Standing(standing) => standing.go_on(self.stood_at_ns, is_blind),
            Task::Away => return (false, true),
        };
        match taken {
            Taken::Over(Step { work, busy, is_over }) => {
                self.task = Task::Ready(work);
                (busy, is_over)
            }
            Taken::Stands(standing) => {
                self.task = Task::Standing(standing);
                (self.stood_at_ns, self.stands_until_ns) = (now_ns, now_ns + self.stands_ns);
                (true, false)
            }
        }
    }
}

impl World {
    pub(super) fn spawn(&mut self, what: String, job: Option<(u32, u32)>, program: impl FnOnce(Context) -> Work) {
        let node = self.next_node;
        self.next_node += 1;
        let home = self.random.below(self.settings.servers.into()) as u32;
        if !self.settings.calm {
            self.network.set_clock_offset(node, 100_000 - self.random.below(2_000_000) as i64);
        }
        let gate = Gate::default();
        let tuning = Tuning {
            name: what.clone(),
            home: ServerId(home),
            deadline_ms: 5_000,
            resend_ms: Some(20),
            probe_ms: 200,
            short_way: self.windows.way(&gate),
            // Some read all that they can in place, others only snapshots: what is read here is small.
            near_bytes: if node.is_multiple_of(2) { 1 } else { usize::MAX },
            ..Tuning::default()
        };
        let client = Client::with_endpoint(
            Box::new(self.network.endpoint(node)),
            Arc::new(ProgramClock::new(self.network.clock(node), &gate)),
            Address::Sim(control_node(home)),
            self.random.draw(),
            tuning,
        );
        let context = Context {
            client: client.clone(),
            time: self.time.clone(),
            history: self.history.clone(),
            random: Arc::new(Mutex::new(self.random.fork())),
            gate: gate.clone(),
        };
        self.programs.push(Program {
            what,
            node,
            client,
            task: Task::Ready(program(context)),
            job,
            family: None,
            gate,
            stands_until_ns: 0,
            stood_at_ns: 0,
            stands_ns: 0,
        });
    }

    /// One of those that may be stopped is.
    pub(super) fn stand(&mut self, random: &mut Random, point: Point, passes: u32, ns: u64) {
        let now_ns = self.network.now_ns();
        let moves = self.settings.moves;
        let may_stand = |program: &&mut Program| program.may_stand(point, moves);
        let mut some: Vec<&mut Program> = self.programs.iter_mut().filter(may_stand).collect();
        let at = random.below(some.len() as u64) as usize;
        if let Some(program) = some.get_mut(at) {
            program.stand(now_ns, point, passes, ns);
        }
    }

    pub(super) fn poll_programs(&mut self) -> bool {
        let mut busy = false;
        let (network, time) = (&self.network, &self.time);
        let is_blind = self.settings.plant == Plant::BlindCopy;
        self.programs.retain_mut(|program| {
            if let Some(family) = &program.family
                && lock(family).last_words.is_some()
            {
                network.crash(program.node);
                lock(family).is_dead = true;
                time.moved();
                busy = true;
                return false;
            }
            let now_ns = network.now_ns();
            if program.stands_until_ns > now_ns {
                return true;
            }
            let (did, is_over) = program.step(now_ns, is_blind);
            busy |= did;
            !is_over
        });
        busy
    }
}
