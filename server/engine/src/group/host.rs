//! The groups of one target on its store: carries a [`Member`]'s commands out.
//!
//! Owns that what a turn did is durable before anybody hears of it (I4), that a stamp stands under a durable ceiling (rule 10), and
//! what an update becomes where the pool's log is further than it was at the leader (rule 7). Must never do I/O but on its store.

use std::collections::BTreeMap;

use talea_model::placement::session_of_group;
use talea_model::{Fate, Order, Position, Stamp, TargetId, TxId, View};
use talea_vos::{Change, Recovered, Store, StoreError};
use talea_wire::WireError;
use talea_wire::data::Request;
use talea_wire::group::{Entry, Mark, Message};
use thiserror::Error;

use super::journal::Journal;
use super::{At, Command, GroupMap, Member, Need, Options, Plant, Ticket, update};
use crate::lease::Lease;
use crate::target::Now;
use crate::target::clock::TargetClock;

/// Items of background work that one turn does at most.
const BACKGROUND_ITEMS: usize = 256;
/// Turns that wrote something between two looks whether notes can be forgotten.
const FORGET_TURNS: u32 = 64;

/// What leaves a turn.
#[derive(Debug)]
pub enum Outcome {
    /// A message for another member.
    Send {
        /// Whom.
        to: TargetId,
        /// It.
        message: Vec<u8>,
    },
    /// An update is on all members.
    Done(Ticket),
    /// A read may be served from the store.
    Serve(Ticket),
    /// An update was refused, and why; whatever it met is on all members.
    Refused(Ticket, StoreError),
    /// To be asked again, of the leader or another member.
    Elsewhere(Ticket),
    /// Somebody waits for this position of the log.
    CatchUp(Position),
    /// For the pool: [`Command::Suspect`] or [`Command::Complete`] of a group.
    Tell {
        /// The group.
        group: Vec<TargetId>,
        /// What.
        command: Command,
    },
}

/// Why an update or a read is not taken.
#[derive(Debug, Error)]
pub enum Unserved {
    /// Another member leads, or none does yet.
    #[error("another member leads the group: ask it, or again")]
    Elsewhere(Option<TargetId>),
    /// The server's lease is over (rule 11).
    #[error("the server lost contact with the pool's leader and may not serve until it is back")]
    NoLease,
    /// The store's no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What ends a target.
#[derive(Debug, Error)]
pub enum HostError {
    /// Its store failed, or has no room for what the others of the group hold.
    #[error("what the group holds cannot be kept here: {0}")]
    Store(#[from] StoreError),
    /// Another member's message is none.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An update of a transaction whose fate nobody remembers.
    #[error(
        "the group's leader sent an update of transaction {0}, which closed so long ago that nobody here knows its fate"
    )]
    Fate(TxId),
}

struct Group {
    member: Member,
    journal: Journal,
}

/// The groups of a target.
pub struct Host {
    me: TargetId,
    store: Store,
    clock: TargetClock,
    groups: BTreeMap<Vec<TargetId>, Group>,
    lease: Lease,
    /// What leaves at the turn's end.
    held: Vec<Outcome>,
    /// Updates that will be refused when what they met is on all members.
    refused: BTreeMap<Ticket, StoreError>,
    dirty: bool,
    forget_in: u32,
    options: Options,
}

impl Host {
    /// The groups on a store that was opened. `process`: a number that no earlier process of the target had.
    pub fn open(
        me: TargetId,
        process: u64,
        store: Store,
        recovered: &Recovered,
        groups: impl IntoIterator<Item = Vec<TargetId>>,
        options: Options,
        now: Now,
    ) -> Result<Self, HostError> {
        let mut host = Host {
            me,
            store,
            clock: TargetClock::after(recovered.ceiling),
            groups: BTreeMap::new(),
            lease: Lease::default(),
            held: Vec::new(),
            refused: BTreeMap::new(),
            dirty: true,
            forget_in: FORGET_TURNS,
            options,
        };
        for key in groups {
            let mut journal = Journal::of(&key);
            let mut found = journal.open(&host.store)?;
            let mut remove = journal.leftovers(&host.store)?;
            // The turn that it is of was not flushed, or its update would be there: nobody has heard of it.
            if let Some(last) = found.last.filter(|last| !update::is_done(&host.store, &key, options.plant, last)) {
                found.held.entries.pop();
                remove.push(last.place.seq);
            }
            for seq in remove {
                let stamp = host.clock.stamp(now.unix_us);
                journal.remove(&mut host.store, stamp, seq)?;
            }
            let member = Member::open(me, process, found.held, options);
            host.groups.insert(key, Group { member, journal });
        }
        Ok(host)
    }

    /// Its store, to be read from where a read is to be served.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A member.
    pub fn member(&self, group: &[TargetId]) -> Option<&Member> {
        self.groups.get(group).map(|group| &group.member)
    }

    /// The server may serve as long as this holds (rule 11).
    pub fn set_lease(&mut self, lease: Lease) {
        self.lease = lease;
    }

    /// A clock value for a message.
    pub fn hlc(&mut self, now: Now) -> Stamp {
        self.clock.tick(now.unix_us)
    }

    /// A message carried this stamp (rule 1).
    pub fn observe(&mut self, hlc: Stamp) {
        self.clock.observe(hlc);
    }

    fn at(&mut self, now: Now) -> At {
        At { now_ns: now.monotonic_ns, stamp: self.clock.stamp(now.unix_us), unix_us: now.unix_us }
    }

    /// The pool's log, in order, up to a position: what the store needs, and the maps of groups. After a restart from the
    /// position on that no mark of a group had reached when it was confirmed.
    pub fn follow(
        &mut self,
        now: Now,
        changes: &[(Position, Change)],
        maps: &[(Vec<TargetId>, GroupMap)],
        horizon: Position,
    ) -> Result<(), HostError> {
        let known = self.store.ledger().horizon();
        let mut new = Vec::with_capacity(changes.len());
        for (_, change) in changes.iter().filter(|(position, _)| *position > known) {
            if let Change::EndSession(session) = *change {
                new.extend(self.groups.keys().map(|key| Change::EndSession(session_of_group(session, key))));
            }
            new.push(*change);
        }
        if horizon > known {
            self.store.follow(&new, horizon)?;
            self.dirty = true;
        }
        for (position, change) in changes {
            let (tx, fate) = match *change {
                Change::Commit(tx, stamp) => {
                    self.clock.applied(stamp);
                    (tx, Fate::Committed(stamp))
                }
                Change::Abort(tx) => (tx, Fate::Aborted),
                _ => continue,
            };
            self.groups.values_mut().for_each(|group| group.member.closed(tx, *position, fate));
        }
        for (key, map) in maps {
            let at = self.at(now);
            if let Some(group) = self.groups.get_mut(key) {
                group.member.set_map(at, map.clone());
            }
        }
        let at = self.at(now);
        self.groups.values_mut().for_each(|group| group.member.through(at, horizon));
        self.carry_out(now)
    }

    /// A message of another target.
    pub fn message(&mut self, now: Now, bytes: &[u8]) -> Result<(), HostError> {
        let message = Message::decode(bytes)?;
        self.clock.observe(message.hlc);
        let at = self.at(now);
        if let Some(group) = self.groups.get_mut(&message.group) {
            group.member.message(at, message.from, message.term, message.body);
        }
        self.carry_out(now)
    }

    /// An update or a punch for a group that this target leads. It is taken, and acknowledged by [`Outcome::Done`] when it is on all
    /// members; or it is not, and changed nothing.
    pub fn update(
        &mut self,
        now: Now,
        key: &[TargetId],
        ticket: Ticket,
        request: &Request<'_>,
    ) -> Result<(), Unserved> {
        if !self.lease.holds(now.monotonic_ns) {
            return Err(Unserved::NoLease);
        }
        let at = self.at(now);
        let head = &request.head;
        let caller = update::caller_of(request, key, self.options.plant);
        let Some(group) = self.groups.get_mut(key) else { return Err(Unserved::Elsewhere(None)) };
        let leader = group.member.leader();
        if caller.session.0 == 0 {
            return Err(StoreError::Bad("an update of a redundancy group needs a session").into());
        }
        if self.store.already_done(&caller) {
            return settled(group.member.settle(ticket), leader);
        }
        let tx = match head.order.unwrap_or(Order::Auto { tied: None }) {
            Order::Auto { tied: None } => TxId(0),
            Order::Auto { tied: Some(_) } => {
                return Err(
                    StoreError::Unsupported("names that are tied to a transaction, in redundancy groups").into()
                );
            }
            Order::Pending(tx) => tx,
        };
        if let Some(fate @ (Fate::Committed(_) | Fate::Aborted)) = self.store.ledger().fate(tx)
            && tx != TxId(0)
        {
            return Err(StoreError::Closed { tx, fate }.into());
        }
        if !group.member.is_ready() {
            return Err(Unserved::Elsewhere(leader));
        }
        let bytes = match update::resolve(&self.store, request) {
            Ok(Some(bytes)) => bytes,
            // Nothing of it is larger than what is there.
            Ok(None) => return settled(group.member.settle(ticket), leader),
            Err(error @ (StoreError::Exists | StoreError::NotFound)) => {
                self.refused.insert(ticket, error);
                return settled(group.member.settle(ticket), leader);
            }
            Err(error) => return Err(error.into()),
        };
        let Some((place, stamp)) = group.member.propose(at, tx) else { return Err(Unserved::Elsewhere(leader)) };
        let entry = Entry { place, stamp, tx, request: bytes.into() };
        self.clock.serve(stamp);
        self.dirty = true;
        if let Err(error) = self.apply(now, key, &entry) {
            return Err(match error {
                HostError::Store(error) => Unserved::Store(error),
                _ => StoreError::Bad("an update that cannot be read again").into(),
            });
        }
        if let Some(group) = self.groups.get_mut(key) {
            group.member.proposed(entry, ticket);
        }
        Ok(())
    }

    /// A read of a group in a view; it is served by [`Outcome::Serve`] when it may be.
    pub fn read(&mut self, now: Now, key: &[TargetId], ticket: Ticket, view: View) -> Result<(), Unserved> {
        if !self.lease.holds(now.monotonic_ns) {
            return Err(Unserved::NoLease);
        }
        let need = match view {
            View::Latest => Need::Latest,
            View::Snapshot { stamp, position, .. } | View::Inside { base: stamp, position, .. } => {
                self.clock.serve(stamp);
                Need::Snapshot(Mark { stamp, position })
            }
        };
        let at = self.at(now);
        let Some(group) = self.groups.get_mut(key) else { return Err(Unserved::Elsewhere(None)) };
        group.member.read(at, ticket, need);
        Ok(())
    }

    /// Ends a turn: sends, writes, flushes, and only then lets things go.
    pub fn finish(&mut self, now: Now) -> Result<Vec<Outcome>, HostError> {
        let at = self.at(now);
        for group in self.groups.values_mut() {
            group.member.tick(at);
            group.member.finish(at);
        }
        self.carry_out(now)?;
        if let Some(to) = self.clock.wanted_ceiling() {
            self.store.raise_ceiling(to)?;
            self.clock.raised(to);
            self.dirty = true;
        }
        if std::mem::take(&mut self.dirty) {
            self.forget_in -= 1;
            if self.forget_in == 0 {
                self.forget_in = FORGET_TURNS;
                let stamp = self.clock.stamp(now.unix_us);
                Journal::forget(&mut self.store, stamp)?;
            }
            self.store.background(BACKGROUND_ITEMS)?;
            self.store.flush()?;
        }
        let (mut held, holds) = (std::mem::take(&mut self.held), self.lease.holds(now.monotonic_ns));
        if !holds {
            for outcome in &mut held {
                if let Outcome::Done(ticket) | Outcome::Refused(ticket, _) | Outcome::Serve(ticket) = *outcome {
                    *outcome = Outcome::Elsewhere(ticket);
                }
            }
        }
        Ok(held)
    }

    /// When [`finish`](Self::finish) has something to do without any input.
    pub fn next_deadline(&self) -> u64 {
        self.groups.values().map(|group| group.member.next_deadline()).min().unwrap_or(u64::MAX)
    }

    fn carry_out(&mut self, now: Now) -> Result<(), HostError> {
        let keys: Vec<Vec<TargetId>> = self.groups.keys().cloned().collect();
        for key in keys {
            let commands = self.groups.get_mut(&key).map(|group| group.member.take_commands()).unwrap_or_default();
            for command in commands {
                self.act(now, &key, command)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, now: Now, key: &[TargetId], command: Command) -> Result<(), HostError> {
        let outcome = match command {
            Command::Apply(entry) => {
                self.dirty = true;
                return self.apply(now, key, &entry);
            }
            Command::Trim(through) => {
                let (clock, store) = (&mut self.clock, &mut self.store);
                if let Some(group) = self.groups.get_mut(key) {
                    group.journal.trim(store, through, || clock.stamp(now.unix_us))?;
                    self.dirty = true;
                }
                return Ok(());
            }
            Command::Send { to, term, body } => {
                let hlc = self.clock.tick(now.unix_us);
                let message = Message { group: key.to_vec(), from: self.me, hlc, term, body };
                Outcome::Send { to, message: message.encode()? }
            }
            Command::Done(ticket) => match self.refused.remove(&ticket) {
                Some(error) => Outcome::Refused(ticket, error),
                None => Outcome::Done(ticket),
            },
            Command::Serve(ticket) => Outcome::Serve(ticket),
            Command::Elsewhere(ticket) => {
                self.refused.remove(&ticket);
                Outcome::Elsewhere(ticket)
            }
            Command::CatchUp(position) => Outcome::CatchUp(position),
            command @ (Command::Suspect { .. } | Command::Complete { .. }) => {
                Outcome::Tell { group: key.to_vec(), command }
            }
        };
        self.held.push(outcome);
        Ok(())
    }

    /// Notes an entry and does it. If that fails nothing of it is kept.
    fn apply(&mut self, now: Now, key: &[TargetId], entry: &Entry) -> Result<(), HostError> {
        let Some(group) = self.groups.get(key) else { return Ok(()) };
        let closed = match self.store.ledger().fate(entry.tx).filter(|_| entry.tx != TxId(0)) {
            None | Some(Fate::Open) => None,
            // The leader took it when it knew less: what became of the transaction becomes of it.
            Some(_) => Some(group.member.fate(entry.tx).ok_or(HostError::Fate(entry.tx))?),
        };
        let void = closed == Some(Fate::Aborted) || closed.is_some() && self.options.plant == Plant::OwnFate;
        let stamp = self.clock.stamp(now.unix_us);
        group.journal.note(&mut self.store, stamp, entry, void)?;
        if void {
            return Ok(());
        }
        let commit = if let Some(Fate::Committed(commit)) = closed { Some(commit) } else { None };
        let done = update::carry_out(&mut self.store, key, self.options.plant, entry, commit);
        if done.is_err() {
            let stamp = self.clock.stamp(now.unix_us);
            group.journal.remove(&mut self.store, stamp, entry.place.seq)?;
        }
        done
    }
}

fn settled(is_settled: bool, leader: Option<TargetId>) -> Result<(), Unserved> {
    if is_settled { Ok(()) } else { Err(Unserved::Elsewhere(leader)) }
}
