//! The target as a state machine: requests, the pool's log and time go in, replies and effects come out.
//!
//! Owns the store, the clock, the horizon's waiting room and the exactly-once answers. Must never do I/O on the fabric, read a
//! clock or draw randomness. A *turn* is any number of inputs followed by one [`Target::finish`]: what the inputs changed is made
//! durable by at most one flush, and only then do their replies leave (I4).

mod admit;
mod clock;
mod error;
mod parked;
mod read;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use talea_fabric::endpoint::MAX_PAYLOAD_BYTES;
use talea_fabric::{Hello, PeerId};
use talea_model::{ContainerId, PoolMap, Position, SessionId, Stamp, TargetId, TxId};
use talea_tier::Media;
use talea_vos::{Change, Recovered, Store, StoreError, StoreOptions};
use talea_wire::data::{Body, Reply, ReplyBody, ReplyHead, Request, StoreStat};
use talea_wire::{Refusal, RefusalCode};
use thiserror::Error;

use crate::outbox::{MAX_QUEUED, Outbox, Outgoing};
use admit::Gate;
use clock::TargetClock;
use parked::{Parked, ParkedOp, Wait};

/// Items of background work that one turn does at most.
const BACKGROUND_ITEMS: usize = 256;
/// Bytes that the scrubber verifies at a time, and how long it then rests: 4 MiB a second.
const SCRUB_BYTES: u64 = 256 << 10;
const SCRUB_EVERY_NS: u64 = 62_500_000;
/// How often an idle target is woken for a portion, and how long it then sleeps after a whole pass over what did not change.
const IDLE_SCRUB_EVERY_NS: u64 = 2_000_000_000;
const SCRUB_AGAIN_NS: u64 = 3_600_000_000_000;
/// Things of the index that enumerations and queries look at in one turn at most.
const TURN_LOOKS: usize = 8192;
/// Ended sessions remembered so that their late requests are refused.
const ENDED_SESSIONS: usize = 65_536;
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
    /// A new pool map.
    Map(Arc<PoolMap>),
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
    /// This peer breaks the rules: disconnect it.
    Drop {
        /// Who.
        peer: PeerId,
    },
}

/// What ends a target: it must not serve on, and its process with it.
#[derive(Debug, Error)]
#[error("target {target}: {source}")]
pub struct Fatal {
    /// Which target.
    pub target: TargetId,
    /// Why.
    #[source]
    pub source: StoreError,
}

/// How to start a target.
#[derive(Clone, Debug)]
pub struct TargetOptions {
    /// Its number.
    pub id: TargetId,
    /// Its store's options.
    pub store: StoreOptions,
}

struct Peer {
    hello: Hello,
    ended: bool,
}

#[derive(Default)]
struct Counters {
    updates: u64,
    fetches: u64,
    bytes_in: u64,
    bytes_out: u64,
    bytes_in_place: u64,
    container_bytes_in: BTreeMap<ContainerId, u64>,
    turns: u64,
    refused: u64,
    watch: watch::Watch,
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
    /// Kept stamps below each floor, as this process told its store.
    kept: BTreeMap<ContainerId, BTreeSet<Stamp>>,
    /// The incarnation under which the pool has to know it before it serves.
    incarnation: Option<u64>,
    peers: BTreeMap<PeerId, Peer>,
    ended: BTreeSet<SessionId>,
    /// Independent transactions that were prepared here and are not over as far as the horizon knows.
    prepared: BTreeSet<TxId>,
    parked: Parked,
    log_end: LogEnd,
    effects: Vec<Effect>,
    counters: Counters,
    /// When the server's membership lease ends (rule 11), in monotonic nanoseconds.
    lease_until_ns: u64,
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
    /// Others may still read in place what an earlier process named.
    restarted: bool,
    /// What the count of blocks given back began with, as readers in place are told it.
    first_generation: u64,
    flushes: u64,
    /// When the scrubber goes on, in monotonic nanoseconds.
    scrub_at_ns: u64,
    /// When an idle target is woken for it.
    wake_to_scrub_ns: u64,
    /// Passes of the scrubber that have ended, and how many had at the last write.
    scrub_passes: u64,
    written_in_pass: u64,
}

impl Target {
    /// Opens the target's store on a medium. Serves nothing until it has a map and a lease.
    pub fn open(media: impl Into<Media>, options: TargetOptions) -> Result<(Target, Recovered), Fatal> {
        let id = options.id;
        let store = StoreOptions { max_answer_bytes: MAX_PAYLOAD_BYTES as u64, ..options.store };
        let (store, recovered) = Store::open(media, store).map_err(|source| Fatal { target: id, source })?;
        let target = Target {
            id,
            store,
            clock: TargetClock::after(recovered.ceiling),
            map: None,
            containers: None,
            kept: BTreeMap::new(),
            incarnation: None,
            peers: BTreeMap::new(),
            ended: BTreeSet::new(),
            prepared: BTreeSet::new(),
            parked: Parked::default(),
            log_end: LogEnd::default(),
            effects: Vec::new(),
            counters: Counters::default(),
            lease_until_ns: 0,
            caught_up_asked: Position(0),
            durable: recovered.horizon,
            dirty: true,
            recheck: false,
            background: true,
            full: false,
            looks: TURN_LOOKS,
            restarted: !recovered.fresh,
            first_generation: 0,
            flushes: 0,
            scrub_at_ns: 0,
            wake_to_scrub_ns: u64::MAX,
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

    /// A peer connected.
    pub fn peer_up(&mut self, peer: PeerId, hello: Hello) {
        let ended = self.ended.contains(&SessionId(hello.session));
        self.peers.insert(peer, Peer { hello, ended });
    }

    /// A peer is gone: so is what it waited for.
    pub fn peer_down(&mut self, peer: PeerId, out: &mut Outbox) {
        self.peers.remove(&peer);
        self.parked.forget(peer);
        out.forget(peer);
    }

    /// A request arrived. The bytes are no longer needed when this returns.
    pub fn message(&mut self, now: Now, peer: PeerId, bytes: &[u8], out: &mut Outbox) {
        self.tick(now);
        let waiting = out.waiting_for(peer);
        if waiting >= MAX_QUEUED {
            self.effects.push(Effect::Drop { peer });
            self.peer_down(peer, out);
            return;
        }
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(error) => {
                // The number may be wrong too, but a broken client that gets an answer is easier to mend.
                let id = bytes.get(8..16).and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes);
                let text = format!("target {}: {error}", self.id);
                self.refuse(now, peer, id, Refusal::new(RefusalCode::Malformed, text), out);
                return;
            }
        };
        if let Err(refusal) = self.admit(now, peer, &request, waiting) {
            self.refuse(now, peer, request.head.id, refusal, out);
            return;
        }
        self.clock.observe(request.head.hlc);
        self.attempt(now, peer, &request, None, out);
        let walk = self.parked.walk.take();
        if let Some(wait) = self.take_wait() {
            let deadline_ns = now.monotonic_ns.saturating_add(admit::deadline_ns(request.head.deadline_ms));
            let op = ParkedOp { peer, bytes: bytes.to_vec(), deadline_ns, wait, walk };
            if let Err(refusal) = self.parked.push(op) {
                self.refuse(now, peer, request.head.id, refusal, out);
            }
        }
    }

    /// Entries of the pool's log were applied up to `horizon`.
    pub fn follow(&mut self, changes: Vec<PoolChange>, horizon: Position) -> Result<(), Fatal> {
        let mut store = Vec::with_capacity(changes.len());
        let mut incarnation = self.store.incarnation();
        for change in changes {
            match change {
                PoolChange::Store(change) => {
                    self.note(&change);
                    store.push(change);
                }
                PoolChange::Container(container) => {
                    self.containers.iter_mut().for_each(|known| _ = known.insert(container));
                    store.push(Change::Container(container));
                }
                PoolChange::Floor { container, floor, kept } => self.set_floor(container, floor, kept, &mut store),
                PoolChange::Map(map) => {
                    let now = map.target(self.id).map_or(incarnation, |target| target.incarnation);
                    if std::mem::replace(&mut incarnation, now) != now {
                        store.push(Change::Incarnation(now));
                    }
                    self.set_map(map);
                }
            }
        }
        self.store.follow(&store, horizon).map_err(|source| self.fatal(source))?;
        self.raise_ceiling().map_err(|source| self.fatal(source))?;
        self.background |= !store.is_empty();
        self.dirty = true;
        self.recheck = true;
        Ok(())
    }

    /// A pool map, also outside of the log's order; an older one is ignored.
    pub fn set_map(&mut self, map: Arc<PoolMap>) {
        if self.map.as_ref().is_none_or(|known| known.version < map.version) {
            self.map = Some(map);
            self.recheck = true;
        }
    }

    /// The containers there are, when a target starts in the middle of the log.
    pub fn set_containers(&mut self, containers: impl IntoIterator<Item = ContainerId>) {
        self.containers.get_or_insert_default().extend(containers);
        self.recheck = true;
    }

    /// The server may serve until then (rule 11); a lease never shrinks, but see [`fence`](Self::fence).
    pub fn lease(&mut self, until_ns: u64) {
        self.lease_until_ns = self.lease_until_ns.max(until_ns);
    }

    /// The server's lease is over.
    pub fn fence(&mut self) {
        self.lease_until_ns = 0;
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

    /// Ends a turn: looks at the parked operations again, drops the late ones, flushes if anything was written, and lets the
    /// replies go.
    pub fn finish(&mut self, now: Now, out: &mut Outbox) -> Result<(), Fatal> {
        self.tick(now);
        if std::mem::take(&mut self.recheck) || self.parked.wants_turn() {
            self.run_ready(now, out);
        }
        (self.full, self.looks) = (false, TURN_LOOKS);
        for op in self.parked.expired(now.monotonic_ns) {
            let id = Request::decode(&op.bytes).map_or(0, |request| request.head.id);
            let text = format!("target {}: {}", self.id, op.wait.late(self.store.ledger().horizon()));
            self.refuse(now, op.peer, id, Refusal::new(RefusalCode::Deadline, text), out);
        }
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

    /// A turn begins.
    pub fn begin_turn(&mut self) {
        self.counters.turns += 1;
        self.counters.watch.begin(self.counters.updates, self.counters.fetches);
    }

    /// Whether somebody has asked for counters lately, so that the turn's end is worth a look at the clock.
    pub fn is_watched(&self, now: Now) -> bool {
        self.counters.watch.is_on(now)
    }

    /// The turn that began took so long, its answers included.
    pub fn end_turn(&mut self, took_ns: u64) {
        self.counters.watch.end(self.counters.updates, self.counters.fetches, took_ns);
    }

    /// Verifies a little more of what is stored: in turns that the target has anyway, and seldom in one of its own.
    fn scrub(&mut self, now: Now) -> Result<(), Fatal> {
        if self.dirty {
            self.written_in_pass = self.scrub_passes;
        }
        if now.monotonic_ns < self.scrub_at_ns {
            return Ok(());
        }
        let scrubbed = self.store.scrub(SCRUB_BYTES).map_err(|source| self.fatal(source))?;
        self.scrub_passes = scrubbed.passes;
        self.scrub_at_ns = now.monotonic_ns.saturating_add(SCRUB_EVERY_NS);
        // The pass that was under way at the last write has not seen all of it; the one after has.
        let seen = self.scrub_passes >= self.written_in_pass + 2;
        let rest_ns = if seen { SCRUB_AGAIN_NS } else { IDLE_SCRUB_EVERY_NS };
        self.wake_to_scrub_ns = now.monotonic_ns.saturating_add(rest_ns);
        // A damaged log is written anew in the background.
        self.background |= scrubbed.damaged > 0;
        Ok(())
    }

    /// Wants since the last call.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`finish`](Self::finish) has something to do without any input; `u64::MAX`: never.
    pub fn next_deadline(&self) -> u64 {
        if self.background || self.recheck || self.parked.wants_turn() {
            return 0;
        }
        let again = self.log_end.asked.map_or(u64::MAX, |(_, since)| since.saturating_add(ASK_AGAIN_NS));
        self.parked.next_deadline().min(again).min(self.wake_to_scrub_ns)
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::Commit(tx, stamp) => {
                self.prepared.remove(tx);
                self.clock.applied(*stamp);
            }
            Change::Abort(tx) => _ = self.prepared.remove(tx),
            Change::DestroyContainer(container) => {
                self.containers.iter_mut().for_each(|known| _ = known.remove(container));
                self.kept.remove(container);
                self.counters.container_bytes_in.remove(container);
            }
            Change::EndSession(session) => {
                self.ended.insert(*session);
                if self.ended.len() > ENDED_SESSIONS {
                    self.ended.pop_first();
                }
                let of_it = self.peers.values_mut().filter(|peer| peer.hello.session == session.0);
                of_it.for_each(|peer| peer.ended = true);
            }
            _ => {}
        }
    }

    /// The pool says which stamps are kept; the store counts them.
    fn set_floor(&mut self, container: ContainerId, floor: Stamp, kept: Vec<Stamp>, store: &mut Vec<Change>) {
        let now: BTreeSet<Stamp> = kept.into_iter().collect();
        let before = self.kept.insert(container, now.clone()).unwrap_or_default();
        store.extend(now.difference(&before).map(|stamp| Change::Keep(container, *stamp)));
        store.push(Change::Floor(container, floor));
        store.extend(before.difference(&now).map(|stamp| Change::Release(container, *stamp)));
    }

    fn run_ready(&mut self, now: Now, out: &mut Outbox) {
        let horizon = self.store.ledger().horizon();
        let map = self.map.as_ref().map(|map| map.version);
        for mut op in self.parked.ready(horizon, map, &self.log_end.answers) {
            let Ok(request) = Request::decode(&op.bytes) else { continue };
            self.parked.walk = op.walk.take();
            self.attempt(now, op.peer, &request, Some(op.wait), out);
            let walk = self.parked.walk.take();
            if let Some(wait) = self.take_wait() {
                (op.wait, op.walk) = (wait, walk);
                let (peer, id) = (op.peer, request.head.id);
                if let Err(refusal) = self.parked.push(op) {
                    self.refuse(now, peer, id, refusal, out);
                }
            }
        }
        let oldest = self.parked.oldest_token();
        self.log_end.answers.retain(|token, _| *token >= oldest);
    }

    /// Serves a request, refuses it, or leaves in `self.parked` what it has to wait for.
    fn attempt(&mut self, now: Now, peer: PeerId, request: &Request<'_>, waited: Option<Wait>, out: &mut Outbox) {
        let id = request.head.id;
        match self.gate(now, peer, request, waited) {
            Gate::Wait(wait) => {
                if let Wait::Horizon(position) = wait
                    && position > self.caught_up_asked
                {
                    self.caught_up_asked = position;
                    self.effects.push(Effect::CatchUp { position });
                }
                self.parked.wanted = Some(wait);
            }
            Gate::Refuse(refusal) => self.refuse(now, peer, id, refusal, out),
            Gate::StaleMap(map) => {
                let map = Box::new(PoolMap::clone(&map));
                self.reply(now, peer, id, ReplyBody::StaleMap(map), out);
            }
            Gate::Go => {
                let served = match &request.body {
                    Body::Update(_) | Body::Punch { .. } => self.write(now, request).map(|()| {
                        self.reply(now, peer, id, ReplyBody::Done, out);
                    }),
                    Body::Stat { read_in_place } => {
                        // Who only tells what it read does not look.
                        if *read_in_place == 0 {
                            self.counters.watch.look(now);
                        }
                        self.counters.bytes_in_place = self.counters.bytes_in_place.saturating_add(*read_in_place);
                        let stat = self.stat(request.head.container);
                        self.reply(now, peer, id, ReplyBody::Stat(stat), out);
                        Ok(())
                    }
                    _ => self.read(now, peer, request, out),
                };
                if matches!(served, Err(StoreError::RoomToCome { .. })) {
                    self.parked.wanted = Some(Wait::Room);
                } else if let Err(error) = served {
                    let refusal = error::refusal(self.id, &request.head, &error);
                    self.refuse(now, peer, id, refusal, out);
                }
            }
        }
    }

    fn take_wait(&mut self) -> Option<Wait> {
        self.parked.wanted.take()
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

    fn raise_ceiling(&mut self) -> Result<(), StoreError> {
        if let Some(to) = self.clock.wanted_ceiling() {
            self.store.raise_ceiling(to)?;
            self.clock.raised(to);
            self.dirty = true;
        }
        Ok(())
    }

    fn fatal(&self, source: StoreError) -> Fatal {
        Fatal { target: self.id, source }
    }

    fn refuse(&mut self, now: Now, peer: PeerId, id: u64, refusal: Refusal, out: &mut Outbox) {
        self.counters.refused += 1;
        self.reply(now, peer, id, ReplyBody::Refused(refusal), out);
    }

    fn reply(&mut self, now: Now, peer: PeerId, id: u64, body: ReplyBody<'_>, out: &mut Outbox) {
        let head = self.encoded(now, id, body, out);
        out.hold(peer, Outgoing { head, data: Vec::new() });
    }

    /// A reply's head and entries.
    fn encoded(&mut self, now: Now, id: u64, body: ReplyBody<'_>, out: &mut Outbox) -> Vec<u8> {
        let map_version = self.map.as_ref().map_or_else(Default::default, |map| map.version);
        let head = ReplyHead { id, hlc: self.clock.tick(now.unix_us), map_version };
        let mut bytes = out.buffer();
        if let Err(error) = (Reply { head, body }).encode(&mut bytes) {
            bytes.clear();
            let text = format!("target {}: the answer cannot be encoded: {error}", self.id);
            let refused = ReplyBody::Refused(Refusal::new(RefusalCode::Internal, text));
            // A refusal holds nothing that could fail to encode.
            let _ = Reply { head, body: refused }.encode(&mut bytes);
        }
        bytes
    }

    /// The counters, for somebody who looks now and then.
    pub(crate) fn looked_at(&mut self, now: Now) -> StoreStat {
        self.counters.watch.look(now);
        self.stat(ContainerId(0))
    }

    fn stat(&self, container: ContainerId) -> StoreStat {
        let store = self.store.stats();
        StoreStat {
            used_bytes: store.used_bytes,
            capacity_bytes: store.capacity_bytes,
            versions: store.versions,
            log_bytes: store.log_bytes,
            log_records: store.records,
            updates: self.counters.updates,
            fetches: self.counters.fetches,
            bytes_in: self.counters.bytes_in,
            bytes_out: self.counters.bytes_out,
            bytes_in_place: self.counters.bytes_in_place,
            pending_updates: self.store.pending_updates(container),
            horizon: self.store.ledger().horizon(),
            container_bytes_in: self.counters.container_bytes_in.get(&container).copied().unwrap_or(0),
            turns: self.counters.turns,
            flushes: self.flushes,
            refused: self.counters.refused,
            parked: self.parked.len() as u64,
            peers: self.peers.len() as u64,
            update_turns: self.counters.watch.update_turns,
            fetch_turns: self.counters.watch.fetch_turns,
            damaged: store.damaged,
        }
    }
}
