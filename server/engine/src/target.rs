//! The target as a state machine: requests, the pool's log and time go in, replies and effects come out.
//!
//! Owns the store, the clock, the horizon's waiting room and the exactly-once answers. Must never do I/O on the fabric, read a
//! clock or draw randomness. A *turn* is any number of inputs followed by one [`Target::finish`]: what the inputs changed is made
//! durable by at most one flush, and only then do their replies leave (I4).

mod admit;
mod arrive;
pub(crate) mod clock;
mod counters;
mod error;
mod evict;
mod follow;
mod judge;
mod parked;
mod read;
mod resync;
mod scrub;
mod serve;
mod sessions;
#[cfg(test)]
mod tests;
mod watch;
pub(crate) mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use talea_fabric::PeerId;
use talea_fabric::endpoint::MAX_PAYLOAD_BYTES;
use talea_model::{ContainerId, PoolMap, PoolState, Position, SessionId, Stamp, TargetId, TxId};
use talea_tier::Media;
use talea_vos::{Change, Recovered, Store, StoreError, StoreOptions};
use talea_wire::data::Request;
use talea_wire::{Refusal, RefusalCode};
use thiserror::Error;

use crate::lease::Lease;
use crate::outbox::{Asked, Outbox};
use arrive::Peer;
use clock::TargetClock;
use counters::Counters;
use follow::Behind;
use judge::Changes;
use parked::Parked;
use sessions::Sessions;

/// Items of background work that one turn does at most.
const BACKGROUND_ITEMS: usize = 256;
/// Things of the index that enumerations and queries look at in one turn at most.
const TURN_LOOKS: usize = 8192;
/// A question for the log's end that got no answer is asked again after this time, in nanoseconds.
const ASK_AGAIN_NS: u64 = 1_000_000_000;

/// The time of an input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic nanoseconds, for deadlines.
    pub monotonic_ns: u64,
    /// Microseconds since the Unix epoch, for stamps.
    pub unix_us: u64,
}

/// What the pool's log tells a target.
#[derive(Clone, Debug)]
pub enum PoolChange {
    /// What its store needs to know.
    Store(Change),
    /// A container was made.
    Container(ContainerId),
    /// What must stay readable in a container (rule 13): all from `floor` on, and the `kept` stamps below it.
    Floor {
        /// The container.
        container: ContainerId,
        /// F; never goes back.
        floor: Stamp,
        /// All kept stamps below F.
        kept: Vec<Stamp>,
    },
    /// A session was opened.
    OpenSession(SessionId),
    /// The sessions that there are, for a target that starts in the middle of the log: the last one that was opened, and those that are open.
    Sessions(SessionId, Vec<SessionId>),
    /// A new pool map.
    Map(Arc<PoolMap>),
    /// All that matters of what was told up to the horizon: some of it was not told to this target, and is no longer kept.
    State(Arc<PoolState>),
}

/// What a target wants of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the pool service for the log's end and bring this target's horizon there; answered by [`Target::log_end`].
    LogEnd {
        /// To be given back.
        token: u64,
    },
    /// Somebody waits for this position: hurry if the log is known to be longer.
    CatchUp {
        /// The position.
        position: Position,
    },
    /// The horizon up to here is durable.
    Durable {
        /// The horizon.
        horizon: Position,
    },
    /// This peer breaks the rules, or its session is over: disconnect it.
    Drop {
        /// Who.
        peer: PeerId,
    },
}

/// What ends a target: it must not serve on, and its process with it.
#[derive(Debug, Error)]
pub enum Fatal {
    /// Its store failed.
    #[error("target {target}: {source}")]
    Store {
        /// Which target.
        target: TargetId,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// It missed so much of the pool's log that it cannot know any more what became of what it holds (rule 7).
    #[error(
        "target {target}: it was away for so long that nobody knows any more what became of transaction {tx}, which wrote here. \
         Nothing was changed. Move the server's data away and start it again: it comes back empty"
    )]
    Behind {
        /// Which target.
        target: TargetId,
        /// A transaction that wrote here.
        tx: TxId,
    },
}

/// How to start a target.
#[derive(Clone, Debug)]
pub struct TargetOptions {
    /// Its number.
    pub id: TargetId,
    /// Its store's options.
    pub store: StoreOptions,
    /// When its media were locked, in monotonic nanoseconds: no other process has served them since.
    pub locked_ns: u64,
}

/// The question for the log's end (rule 8): one in flight, and those who come later share the next one.
#[derive(Default)]
struct LogEnd {
    /// Token of the question in flight.
    asked: Option<(u64, u64)>,
    /// Token of the last question.
    last: u64,
    /// Answers that parked operations still need.
    answers: BTreeMap<u64, Position>,
}

/// One target. See the module's description.
pub struct Target {
    id: TargetId,
    store: Store,
    clock: TargetClock,
    map: Option<Arc<PoolMap>>,
    /// Containers there are, once somebody has said which.
    containers: Option<BTreeSet<ContainerId>>,
    /// Kept stamps below each floor, as its store was told.
    kept: BTreeMap<ContainerId, BTreeSet<Stamp>>,
    /// The incarnation under which the pool has to know it before it serves.
    incarnation: Option<u64>,
    peers: BTreeMap<PeerId, Peer>,
    /// Connections since it was opened.
    connections: u64,
    /// The last request that was copied, for its room.
    copy: Vec<u8>,
    /// What the request being served is.
    asked: Asked,
    sessions: Sessions,
    /// When connections of ended sessions are looked at next.
    evict_ns: u64,
    /// Independent transactions that were prepared here and are not over as far as the horizon knows.
    prepared: BTreeSet<TxId>,
    parked: Parked,
    behind: Behind,
    changes: Changes,
    log_end: LogEnd,
    effects: Vec<Effect>,
    counters: Counters,
    /// The server's membership lease (rule 11).
    lease: Lease,
    caught_up_asked: Position,
    durable: Position,
    /// Something was written since the last flush.
    dirty: bool,
    /// Parked operations may have become ready.
    recheck: bool,
    /// Background work may be left.
    background: bool,
    /// An update found the store full in this turn, and did the turn's share of making room.
    full: bool,
    /// Things of the index that enumerations and queries may still look at in this turn.
    looks: usize,
    /// The same of fetches, of which the last one may look at more; and whether one that had to wait for that was served in this turn.
    fetch_looks: usize,
    late_fetch: bool,
    /// Others may still read in place what an earlier process named, which had ended by then.
    restarted_ns: Option<u64>,
    /// What the count of blocks given back began with, as readers in place are told it.
    first_generation: u64,
    /// Counts what may change places that were named inside of transactions, as far as somebody was named some since the last change.
    change: u64,
    watched: bool,
    /// From when on nobody relies on a board of the process before this one, and where in the pool's log this one begins.
    alone_ns: u64,
    begins: Option<Position>,
    flushes: u64,
    /// When the scrubber goes on, in monotonic nanoseconds.
    scrub_at_ns: u64,
    /// When an idle target is woken for it.
    wake_to_scrub_ns: u64,
    /// Passes of the scrubber that have ended, and how many had at the last write.
    /// Where the log says that the medium is damaged.
    damage_told: BTreeSet<u64>,
    scrub_passes: u64,
    written_in_pass: u64,
}

impl Target {
    /// Opens the target's store on a medium. Serves nothing until it has a map and a lease.
    pub fn open(media: impl Into<Media>, options: TargetOptions) -> Result<(Target, Recovered), Fatal> {
        let id = options.id;
        let store = StoreOptions { max_answer_bytes: MAX_PAYLOAD_BYTES as u64, ..options.store };
        let (store, recovered) = Store::open(media, store).map_err(|source| Fatal::Store { target: id, source })?;
        let kept = follow::kept_of(&store);
        let alone_ns = if store.board().is_some() { options.locked_ns + read::HELD_NS } else { 0 };
        let target = Target {
            id,
            store,
            clock: TargetClock::after(recovered.ceiling),
            map: None,
            containers: None,
            kept,
            incarnation: None,
            peers: BTreeMap::new(),
            connections: 0,
            copy: Vec::new(),
            asked: Asked::default(),
            sessions: Sessions::default(),
            evict_ns: u64::MAX,
            prepared: BTreeSet::new(),
            parked: Parked::default(),
            behind: Behind::default(),
            changes: Changes::default(),
            log_end: LogEnd::default(),
            effects: Vec::new(),
            counters: Counters::default(),
            lease: Lease::default(),
            caught_up_asked: Position(0),
            durable: recovered.horizon,
            dirty: true,
            recheck: false,
            background: true,
            full: false,
            looks: TURN_LOOKS,
            fetch_looks: TURN_LOOKS,
            late_fetch: false,
            restarted_ns: (!recovered.fresh).then_some(options.locked_ns),
            first_generation: 0,
            change: 0,
            watched: false,
            alone_ns,
            begins: None,
            flushes: 0,
            scrub_at_ns: 0,
            wake_to_scrub_ns: u64::MAX,
            damage_told: BTreeSet::new(),
            scrub_passes: 0,
            written_in_pass: 0,
        };
        Ok((target, recovered))
    }

    /// The target's number.
    pub fn id(&self) -> TargetId {
        self.id
    }

    /// Serves only once a map shows it under this incarnation: one that it has come back under without (some of) its log.
    pub fn set_incarnation(&mut self, incarnation: u64) {
        self.incarnation = Some(incarnation);
    }

    /// Its store, to be looked at.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Flushes since it was opened.
    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Requests that wait.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// The containers there are, when a target starts in the middle of the log.
    pub fn set_containers(&mut self, containers: impl IntoIterator<Item = ContainerId>) {
        self.containers.get_or_insert_default().extend(containers);
        self.recheck = true;
    }

    /// The server may serve as long as this holds (rule 11).
    pub fn set_lease(&mut self, lease: Lease) {
        self.lease = lease;
    }

    /// Requests that nothing stood against and that the store was asked for, since it was opened.
    pub fn passed(&self) -> u64 {
        self.counters.passed
    }

    /// The answer to [`Effect::LogEnd`].
    pub fn log_end(&mut self, token: u64, position: Position) {
        if self.log_end.asked.is_some_and(|(asked, _)| asked == token) {
            self.log_end.asked = None;
            self.recheck = true;
        }
        // An answer serves everybody who asked no later.
        if token <= self.log_end.last {
            self.log_end.answers.insert(token, position);
        }
    }

    /// The replies that their peers took have left: whoever waited for that may go on.
    pub(crate) fn sent(&mut self, out: &Outbox) {
        self.recheck |= self.parked.can_answer(out);
    }

    /// Ends a turn: looks at the parked operations again, drops the late ones, flushes if anything was written, and lets the
    /// replies go.
    pub fn finish(&mut self, now: Now, out: &mut Outbox) -> Result<(), Fatal> {
        self.tick(now);
        if !self.behind.is_empty() {
            self.catch_up()?;
        }
        if std::mem::take(&mut self.recheck) || self.parked.wants_turn() {
            self.run_ready(now, out);
        }
        (self.full, self.looks) = (false, TURN_LOOKS);
        (self.late_fetch, self.fetch_looks) = (false, TURN_LOOKS);
        if !self.parked.wants_to_go_on() {
            self.changes.forget();
        }
        for op in self.parked.expired(now.monotonic_ns) {
            let id = Request::decode(&op.bytes).map_or(0, |request| request.head.id);
            let text = format!("target {}: {}", self.id, op.wait.late(self.store.ledger().horizon()));
            self.refuse(now, op.peer, id, Refusal::new(RefusalCode::Deadline, text), out);
        }
        self.evict(now, out);
        self.ask(now);
        if self.background || self.dirty {
            self.background = self.store.background(BACKGROUND_ITEMS).map_err(|source| self.fatal(source))?;
            self.dirty = true;
        }
        self.scrub(now)?;
        let horizon = self.store.ledger().horizon();
        if self.dirty {
            self.store.flush().map_err(|source| self.fatal(source))?;
            self.dirty = false;
            self.flushes += 1;
        }
        if horizon > self.durable {
            self.durable = horizon;
            self.effects.push(Effect::Durable { horizon });
        }
        out.release();
        Ok(())
    }

    /// Wants since the last call.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`finish`](Self::finish) has something to do without any input; `u64::MAX`: never.
    pub fn next_deadline(&self) -> u64 {
        // Who waits for room, and only for leases to end, lets the target sleep so long.
        let for_room = self.parked.wants_room() || !self.behind.is_empty();
        let room_ns = if for_room { self.store.room_at().unwrap_or(0) } else { u64::MAX };
        if self.background || self.recheck || self.parked.wants_to_go_on() {
            return 0;
        }
        let again = self.log_end.asked.map_or(u64::MAX, |(_, since)| since.saturating_add(ASK_AGAIN_NS));
        self.parked.next_deadline().min(again).min(self.wake_to_scrub_ns).min(room_ns).min(self.evict_ns)
    }

    /// Asks for the log's end if somebody waits for a question that is not yet asked, or whose answer got lost.
    fn ask(&mut self, now: Now) {
        if let Some((_, since)) = self.log_end.asked
            && now.monotonic_ns >= since.saturating_add(ASK_AGAIN_NS)
        {
            self.log_end.asked = None;
        }
        if self.log_end.asked.is_none() && self.parked.unanswered(&self.log_end.answers) {
            let token = self.log_end.last + 1;
            self.log_end.last = token;
            self.log_end.asked = Some((token, now.monotonic_ns));
            self.effects.push(Effect::LogEnd { token });
        }
    }

    fn fatal(&self, source: StoreError) -> Fatal {
        Fatal::Store { target: self.id, source }
    }
}
