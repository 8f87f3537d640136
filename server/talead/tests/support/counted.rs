//! An endpoint that counts what passes it, and that can be held in the state that a test wants: asleep as the other side sees it, or
//! awake.
//!
//! Doorbells are counted by the kernel: nobody reads these eventfds, so that each holds how often it was rung.
#![allow(dead_code, unreachable_pub, missing_docs)] // no test uses all of it

use std::fs;
use std::io::IoSlice;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use talea_fabric::endpoint::Waker;
use talea_fabric::{Address, Endpoint, Event, FabricError, Hello, Member, MuxEndpoint, PeerId, SendError};

/// Where the server says in a ring what it sleeps for: see the fabric's `ring/layout.rs`.
const SERVER_SLEEPS_AT: u64 = 768;

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The home server's control plane.
    Home,
    /// A target.
    Target,
}

/// The two doorbells and the memory of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Rung by the server.
    ours: RawFd,
    /// Rung by us.
    theirs: RawFd,
    memory: u64,
}

#[derive(Clone, Debug)]
struct Connection {
    peer: PeerId,
    address: String,
    kind: Kind,
    sent: u64,
    received: u64,
    ring: Option<Ring>,
}

/// What happened at an endpoint.
#[derive(Default)]
pub struct Traffic {
    connections: Mutex<Vec<Connection>>,
    /// Never says that it sleeps.
    awake: AtomicBool,
    /// To be called once when it says that it sleeps, before it does.
    asleep: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Traffic {
    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap()
    }

    /// Messages sent to and received from such, so far.
    pub fn messages(&self, kind: Kind) -> (u64, u64) {
        let all = self.lock();
        let of = all.iter().filter(|one| one.kind == kind);
        of.fold((0, 0), |(sent, received), one| (sent + one.sent, received + one.received))
    }

    /// The ring that leads to this address.
    pub fn ring(&self, address: &str) -> Ring {
        let all = self.lock();
        all.iter().rev().find(|one| one.address == address).and_then(|one| one.ring).expect("there is a ring")
    }

    /// Whether every target that was spoken with was reached through a ring. A doorbell does not tell: none is rung for who is awake.
    pub fn is_by_rings(&self) -> bool {
        let all = self.lock();
        let mut targets = all.iter().filter(|one| one.kind == Kind::Target).peekable();
        targets.peek().is_some() && targets.all(|one| one.ring.is_some() && one.received > 0)
    }

    /// From now on it never sleeps, or does again.
    pub fn stay_awake(&self, awake: bool) {
        self.awake.store(awake, Relaxed);
    }

    /// Does this once when the endpoint has said that it sleeps, and has not slept yet.
    pub fn when_asleep(&self, act: impl FnOnce() + Send + 'static) {
        *self.asleep.lock().unwrap() = Some(Box::new(act));
    }
}

impl Ring {
    /// How often the server has rung.
    pub fn rung_by_server(&self) -> u64 {
        count(self.ours)
    }

    /// How often we have.
    pub fn rung_by_us(&self) -> u64 {
        count(self.theirs)
    }

    /// Whether the server says that it sleeps.
    pub fn server_sleeps(&self) -> bool {
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, self.memory + SERVER_SLEEPS_AT).unwrap();
        u64::from_ne_bytes(word) != 0
    }
}

/// What an eventfd holds.
fn count(eventfd: RawFd) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{eventfd}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("eventfd-count:")).expect("it is an eventfd");
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Where rings are mapped.
pub fn rings() -> Vec<u64> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let ring = |line: &str| {
        let (from, _) = line.split_once('-')?;
        line.contains("memfd:talea-ring").then(|| u64::from_str_radix(from, 16).unwrap())
    };
    maps.lines().filter_map(ring).collect()
}

/// How often a thread has slept, as the kernel counts it: giving way to others is no sleep.
fn sleeps(status: &str) -> u64 {
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Whether a thread is that of this target, or one that several share: `target-3`, `target-2-5`.
fn serves(comm: &str, target: u32) -> bool {
    let Some(numbers) = comm.trim().strip_prefix("target-") else { return false };
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if (first..=last).contains(&target))
}

/// How often the thread of a process's target has slept.
pub fn sleeps_of(pid: u32, target: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let is_it =
        |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| serves(&comm, target));
    let task = tasks.into_iter().find(is_it).expect("the target has a thread");
    sleeps(&task.join("status").to_string_lossy())
}

/// How often the calling thread has slept.
pub fn sleeps_of_this_thread() -> u64 {
    sleeps("/proc/thread-self/status")
}

/// See the module's description.
pub struct Counted {
    inner: MuxEndpoint,
    traffic: Arc<Traffic>,
}

impl Counted {
    /// Over another one, and what it will have counted.
    pub fn new(inner: MuxEndpoint) -> (Self, Arc<Traffic>) {
        let traffic: Arc<Traffic> = Arc::default();
        (Self { inner, traffic: traffic.clone() }, traffic)
    }

    /// As the endpoint's own wait without spinning, but that something happens between what it says and what it does.
    fn sleep_after(&mut self, act: Box<dyn FnOnce() + Send>) {
        if self.inner.before_sleep() {
            act();
            self.inner.sleep(20_000_000_000);
        } else {
            // Something came that the test does not wait for.
            *self.traffic.asleep.lock().unwrap() = Some(act);
        }
        self.inner.after_sleep();
    }
}

impl Endpoint for Counted {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        let (fds, memory) = (self.inner.descriptors(), rings());
        let peer = self.inner.connect(address, hello, deadline_ns)?;
        let kind = match address {
            Address::Ring { .. } | Address::Libfabric { .. } | Address::Datagrams { .. } => Kind::Target,
            _ => Kind::Home,
        };
        let ring = matches!(address, Address::Ring { .. }).then(|| {
            let new: Vec<RawFd> = self.inner.descriptors().into_iter().filter(|fd| !fds.contains(fd)).collect();
            let [_socket, ours, theirs] = new[..] else { panic!("a ring has a socket and two doorbells: {new:?}") };
            let memory = rings().into_iter().find(|at| !memory.contains(at)).expect("a ring is mapped");
            Ring { ours, theirs, memory }
        });
        let address = address.to_string();
        self.traffic.lock().push(Connection { peer, address, kind, sent: 0, received: 0, ring });
        Ok(peer)
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        self.inner.send(peer, parts)?;
        let mut all = self.traffic.lock();
        all.iter_mut().filter(|one| one.peer == peer).for_each(|one| one.sent += 1);
        Ok(())
    }

    fn recv(&mut self) -> Option<Event> {
        let event = self.inner.recv();
        if let Some(Event::Message { peer, .. }) = &event {
            let mut all = self.traffic.lock();
            all.iter_mut().filter(|one| one.peer == *peer).for_each(|one| one.received += 1);
        }
        event
    }

    fn wait(&mut self, deadline_ns: u64) {
        if self.traffic.awake.load(Relaxed) {
            return std::thread::yield_now();
        }
        let act = self.traffic.asleep.lock().unwrap().take();
        match act {
            Some(act) => self.sleep_after(act),
            None => self.inner.wait(deadline_ns),
        }
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.inner.disconnect(peer);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.inner.waker()
    }
}
