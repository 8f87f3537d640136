//! The core: requests in flight, timers, the endpoint, and who drives it.
//!
//! Owns all state of one client behind one lock. There is no thread here: whoever waits drives ([`block`]). The lock is never
//! held while anybody sleeps; the endpoint is taken out for that, and who needs it meanwhile wakes the sleeper. Must never
//! iterate in an order that a seed does not determine, and never touch anything in a forked child.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use smallvec::SmallVec;
use talea_fabric::{Address, Clock, Endpoint, Message, PeerId, SendError, Wall};
use talea_model::{Hlc, Layout, Oid, PoolMap, Stamp, TargetId, TxId};
use talea_wire::control::Body;

use crate::error::{ClientError, Result};
use crate::options::Tuning;

pub(crate) mod block;
mod calls;
mod dial;
pub(crate) mod drive;
pub(crate) mod driven;
pub(crate) mod exchange;
pub(crate) mod home;
pub(crate) mod homes;
pub(crate) mod link;
mod loans;
mod news;
pub(crate) mod place;
pub(crate) mod reads;
mod ticket;

use block::Parker;
use calls::Calls;
use dial::Dials;
use home::Home;
use link::{Link, PeerKey};
use loans::Loans;
use news::News;
use place::{Places, ShortWay};
pub(crate) use ticket::Ticket;

/// Layouts remembered; more are computed anew.
const LAYOUTS_MAX: usize = 1024;

/// What a request or timer ended with.
pub(crate) enum Outcome {
    /// A target's reply.
    Data(Message),
    /// The home server's answer.
    Control(Box<Body>),
    /// What has come of connecting.
    Dialed(Result<Option<PeerId>>),
    /// The connection is gone.
    Down,
    /// The time came.
    Timer,
    /// What was waited for may be there: room in a connection, a place in flight, a session.
    Go,
}

/// Whom a round of receiving has to wake.
pub(crate) type Wakers = SmallVec<[Waker; 4]>;

/// One client, shared by its handles.
pub(crate) struct Shared {
    state: Mutex<State>,
    endpoint_back: Condvar,
    /// Whether threads are parked; changed under the lock.
    any_parked: AtomicBool,
    waker: Arc<dyn talea_fabric::Waker>,
    pub(crate) clock: Arc<dyn Clock>,
    driven: driven::Driven,
    pub(crate) tuning: Tuning,
    pub(crate) node: String,
    pub(crate) places: Places,
    pub(crate) reads: reads::ReadSets,
    /// Which process it was made in, as a count of forks.
    forks: u64,
}

pub(crate) struct State {
    endpoint: Option<Box<dyn Endpoint>>,
    /// Threads that wait for the endpoint to come back.
    wanted: u32,
    /// Until when the endpoint's holder sleeps.
    sleeping_until_ns: Option<u64>,
    parked: Vec<Arc<Parker>>,
    calls: Calls,
    spare_heads: Vec<Vec<u8>>,
    loans: Loans,
    pub(crate) hlc: Hlc,
    wall: Wall,
    random: u64,
    map: Arc<PoolMap>,
    layouts: BTreeMap<Oid, Arc<Layout>>,
    home: Home,
    news: News,
    links: BTreeMap<TargetId, Link>,
    dials: Dials,
    /// Targets with a place in flight that somebody was woken for since the last round.
    offered: VecDeque<TargetId>,
    /// Transactions that this process writes in.
    pub(crate) joined: BTreeSet<TxId>,
    peers: BTreeMap<PeerId, PeerKey>,
    /// Calls that wait for room in a connection.
    full: Vec<u64>,
    /// Rounds of receiving since the timers were looked at.
    rounds: u32,
}

impl Shared {
    pub(crate) fn new(
        endpoint: Box<dyn Endpoint>,
        clock: Arc<dyn Clock>,
        home: Address,
        seed: u64,
        tuning: Tuning,
        node: String,
    ) -> Self {
        let waker = endpoint.waker();
        let map = PoolMap {
            pool: talea_model::PoolId(0),
            version: talea_model::MapVersion(0),
            stamp: Stamp::ZERO,
            servers: vec![],
            targets: vec![],
        };
        let state = State {
            endpoint: Some(endpoint),
            wanted: 0,
            sleeping_until_ns: None,
            parked: vec![],
            calls: Calls::default(),
            spare_heads: vec![],
            loans: Loans::default(),
            hlc: Hlc::default(),
            wall: Wall::default(),
            random: seed,
            map: Arc::new(map),
            layouts: BTreeMap::new(),
            home: Home::new((tuning.home, home), tuning.others.clone()),
            news: News::default(),
            links: BTreeMap::new(),
            dials: Dials::default(),
            offered: VecDeque::new(),
            joined: BTreeSet::new(),
            peers: BTreeMap::new(),
            full: vec![],
            rounds: 0,
        };
        let (state, endpoint_back, forks) = (Mutex::new(state), Condvar::new(), talea_fabric::fork::generation());
        let places = Places::new(tuning.short_way.clone());
        let reads = reads::ReadSets::default();
        Self {
            state,
            endpoint_back,
            any_parked: AtomicBool::new(false),
            waker,
            clock,
            driven: driven::Driven::new(),
            tuning,
            node,
            places,
            reads,
            forks,
        }
    }

    /// Whether this process was forked from the client's: then nothing here may be touched, the lock least of all.
    pub(crate) fn is_foreign(&self) -> bool {
        talea_fabric::fork::generation() != self.forks
    }

    pub(crate) fn check_process(&self) -> Result<()> {
        if self.is_foreign() { Err(ClientError::Forked) } else { Ok(()) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless a thread has it, this one included.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock().ok()
    }

    /// The state with the endpoint in it; brings its sleeping holder back first.
    pub(crate) fn lock_with_endpoint(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.endpoint.is_some() {
            return state;
        }
        state.wanted += 1;
        while state.endpoint.is_none() {
            self.waker.wake();
            state = self.wait_for_endpoint(state);
        }
        state.wanted -= 1;
        // A driver that made way may go on when the lock is free.
        self.endpoint_back.notify_all();
        state
    }

    fn wait_for_endpoint<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.endpoint_back.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a time.
    pub(crate) async fn pause(&self, until_ns: u64) {
        let ticket = self.ticket();
        ticket.arm(&mut self.lock(), None, until_ns);
        ticket.outcome().await;
    }

    /// Sends, waiting for room until the deadline. The ticket is armed for the answer before anything is sent.
    pub(crate) async fn transmit(
        &self,
        ticket: &Ticket<'_>,
        peer: PeerId,
        parts: &[IoSlice<'_>],
        (answer_until_ns, deadline_ns): (u64, u64),
    ) -> std::result::Result<(), SendError> {
        loop {
            let room = {
                let mut state = self.lock_with_endpoint();
                ticket.arm(&mut state, Some(peer), answer_until_ns);
                match state.endpoint.as_deref_mut().map_or(Err(SendError::Gone), |e| e.send(peer, parts)) {
                    Err(SendError::Full) if self.now_ns() < deadline_ns => {}
                    result => return result,
                }
                drop(state);
                self.ticket()
            };
            {
                let mut state = self.lock();
                room.arm(&mut state, Some(peer), deadline_ns);
                state.full.push(room.id);
            }
            room.outcome().await;
        }
    }

    /// Whether a target's medium may be within reach of the short way: of servers of this node whose rings we would use.
    pub(crate) fn may_read_in_place(&self, target: TargetId) -> bool {
        if let Some(near) = self.places.is_near(target) {
            return near;
        }
        let near = match self.places.way() {
            ShortWay::Off => false,
            ShortWay::Through(_) => true,
            ShortWay::Mapped => self.nearest(target).is_some_and(|address| matches!(address, Address::Ring { .. })),
        };
        if !near {
            self.places.refuse(target);
        }
        near
    }

    pub(crate) fn map(&self) -> Arc<PoolMap> {
        self.lock().map.clone()
    }

    /// Layout of an object under the present map.
    pub(crate) fn layout(&self, oid: Oid) -> Result<Arc<Layout>> {
        let mut state = self.lock();
        if let Some(layout) = state.layouts.get(&oid) {
            return Ok(layout.clone());
        }
        let class = oid.class().ok_or_else(|| {
            ClientError::Argument(format!("object id {oid} names no object class: make ids with Oid::new or Client::new_oid, in C with talea_object_id or talea_object_new"))
        })?;
        if !class.is_supported() {
            return Err(ClientError::UnsupportedClass(class));
        }
        let layout = Layout::of(oid, &state.map)
            .map(Arc::new)
            .ok_or_else(|| ClientError::Argument(format!("the pool has too few targets for object class {class}")))?;
        if state.layouts.len() >= LAYOUTS_MAX {
            state.layouts.clear();
        }
        state.layouts.insert(oid, layout.clone());
        Ok(layout)
    }

    /// Takes a map if it is newer.
    pub(crate) fn take_map(&self, map: PoolMap) {
        let wakers = self.lock().take_map(map);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Advances the clock past a stamp, and makes one for a message.
    pub(crate) fn observe(&self, stamp: Stamp) {
        self.lock().hlc.observe(stamp);
    }

    /// A stamp past everything that this process has seen.
    pub(crate) fn tick(&self) -> Stamp {
        let unix_us = self.clock.unix_us();
        self.lock().hlc.tick(unix_us)
    }

    /// Pauses as the given attempt of several asks for.
    pub(crate) async fn back_off(&self, attempt: u32, deadline_ns: u64) {
        let pause_ns = self.lock().backoff_ns(attempt, &self.tuning);
        self.pause((self.now_ns() + pause_ns).min(deadline_ns)).await;
    }

    /// A random number from the client's seed.
    pub(crate) fn random_u64(&self) -> u64 {
        self.lock().random_u64()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_foreign() {
            // The parent's connections: not even closing is ours.
            if let Ok(state) = self.state.get_mut() {
                std::mem::forget(state.endpoint.take());
            }
        } else {
            self.goodbye();
        }
    }
}

impl State {
    pub(crate) fn random_u64(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A pause for the given attempt, in nanoseconds: doubling, with jitter.
    fn backoff_ns(&mut self, attempt: u32, tuning: &Tuning) -> u64 {
        let ms = (tuning.backoff_ms << attempt.min(16)).min(tuning.backoff_max_ms).max(1);
        ms * 500_000 + self.random_u64() % (ms * 500_000)
    }

    /// The number of a message that nobody waits for an answer to.
    fn number_of_nobody(&mut self) -> u64 {
        let id = self.calls.add();
        self.calls.remove(id);
        id
    }

    fn complete(&mut self, id: u64, outcome: Outcome) -> Option<Waker> {
        let call = self.calls.get(id)?;
        // An answer is never replaced by less than an answer.
        if matches!(call.outcome, Some(Outcome::Data(_) | Outcome::Control(_))) {
            return None;
        }
        let waker = call.waker.take();
        if let Outcome::Data(Message::Lent(_)) = &outcome {
            self.loans.add(id);
        }
        call.outcome = Some(outcome);
        self.calls.stop_timer(id);
        waker
    }

    /// Completes all calls that wait for a peer.
    fn complete_peer(&mut self, peer: PeerId, wakers: &mut Wakers) {
        let ids = self.calls.of_peer(peer);
        wakers.extend(ids.into_iter().filter_map(|id| self.complete(id, Outcome::Down)));
    }

    fn take_map(&mut self, map: PoolMap) -> Wakers {
        let mut wakers = Wakers::new();
        if map.version > self.map.version {
            self.map = Arc::new(map);
            self.layouts.clear();
            let lost: Vec<PeerId> = self
                .links
                .iter()
                .filter(|(target, _)| !self.map.is_up(**target))
                .filter_map(|(_, link)| link.peer)
                .collect();
            lost.into_iter().for_each(|peer| self.complete_peer(peer, &mut wakers));
        }
        wakers
    }

    fn next_driver(&mut self) -> Option<Arc<Parker>> {
        if self.endpoint.is_some() { self.parked.pop() } else { None }
    }

    /// When something is to be done next, in monotonic nanoseconds.
    pub(crate) fn next_deadline_ns(&mut self) -> u64 {
        self.calls.next_timer_ns()
    }
}
