//! A server of the groups' world: one target, a member of several groups, on a medium that outlives its process.

use std::collections::BTreeMap;
use std::sync::Arc;

use talea_engine::group::{Command, GroupMap, Host, HostError, Options, Outcome, Unserved};
use talea_engine::{Now, Tenure};
use talea_model::{Position, TargetId, View};
use talea_tier::{SimMedium, Torn};
use talea_vos::{Change, FetchWhat, Store, StoreOptions};
use talea_wire::data::Request;

use super::log::{LEASE_NS, Record};
use super::net::{Answer, Ask, LOG, LogAsk, LogTell, Maps, Net, Node, Packet};
use super::program::place;
use crate::random::Random;

const CAPACITY_BYTES: u64 = 8 << 20;
const BEAT_NS: u64 = 80_000_000;
const POLL_NS: u64 = 5_000_000;

/// Who waits for what.
struct Waiting {
    client: Node,
    id: u64,
    /// Group, view and key of a read.
    read: Option<(View, u32)>,
}

struct Process {
    host: Host,
    tenure: Tenure,
    /// Until when the lease lasts, by its own clock.
    lease_ends_ns: u64,
    /// The log up to here is known, and was told to the host.
    known: Position,
    /// What the store knew when the process began: up to there only the last map counts.
    began_at: Position,
    early: (Vec<(Position, Change)>, Option<Maps>),
    waiting: BTreeMap<u64, Waiting>,
    next_ticket: u64,
    poll_ns: u64,
    beat_ns: u64,
}

pub(super) struct Server {
    pub(super) id: u32,
    groups: Arc<Vec<Vec<TargetId>>>,
    medium: SimMedium,
    pub(super) incarnation: u64,
    number: u64,
    process: Option<Process>,
    /// It does not run until then, and does not know.
    pub(super) stopped_until_ns: u64,
    clock_offset_us: i64,
    options: Options,
    random: Random,
}

impl Server {
    pub(super) fn new(
        id: u32,
        groups: Arc<Vec<Vec<TargetId>>>,
        options: Options,
        calm: bool,
        mut random: Random,
    ) -> Self {
        let clock_offset_us = if calm { 0 } else { random.below(400_000) as i64 - 200_000 };
        Server {
            id,
            groups,
            medium: SimMedium::new(CAPACITY_BYTES, Torn::Lines),
            incarnation: 1,
            number: 0,
            process: None,
            stopped_until_ns: 0,
            clock_offset_us,
            options,
            random,
        }
    }

    fn now(&self, now_ns: u64) -> Now {
        // Long after the epoch, so that clocks may lag.
        let unix_us = (1_000_000_000 + now_ns / 1_000).saturating_add_signed(self.clock_offset_us);
        Now { monotonic_ns: now_ns, unix_us }
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Its clock jumps.
    pub(super) fn jump(&mut self, by_us: i64) {
        self.clock_offset_us += by_us;
    }

    pub(super) fn host(&self) -> Option<&Host> {
        self.process.as_ref().map(|process| &process.host)
    }

    pub(super) fn start(&mut self, now_ns: u64) -> Result<(), HostError> {
        self.number += 1;
        let options = StoreOptions { nonce: self.random.draw(), ..StoreOptions::default() };
        let (store, recovered) = Store::open(Box::new(self.medium.clone()), options)?;
        assert!(!recovered.lost, "server {}: a crash lost part of a log that was flushed", self.id);
        let me = TargetId(self.id);
        let own = self.groups.iter().filter(|group| group.contains(&me)).cloned();
        let now = self.now(now_ns);
        let host = Host::open(me, self.number, store, &recovered, own, self.options, now)?;
        self.process = Some(Process {
            host,
            tenure: Tenure::default(),
            lease_ends_ns: 0,
            known: Position(0),
            began_at: recovered.horizon,
            early: Default::default(),
            waiting: BTreeMap::new(),
            next_ticket: 1,
            poll_ns: now_ns,
            beat_ns: now_ns,
        });
        Ok(())
    }

    /// Ends the process at once, with what it had not flushed.
    pub(super) fn crash(&mut self) {
        if self.process.take().is_some() {
            self.medium = self.medium.crash(&mut || self.random.draw());
            self.stopped_until_ns = 0;
        }
    }

    /// Its medium is lost; it is down.
    pub(super) fn lose_medium(&mut self) {
        self.medium = SimMedium::new(CAPACITY_BYTES, Torn::Lines);
        self.incarnation += 1;
    }

    pub(super) fn next_ns(&self, now_ns: u64) -> u64 {
        let Some(process) = &self.process else { return u64::MAX };
        if self.stopped_until_ns > now_ns {
            return self.stopped_until_ns;
        }
        process.poll_ns.min(process.beat_ns).min(process.host.next_deadline())
    }

    /// Timers.
    pub(super) fn tick(&mut self, net: &mut Net) -> Result<(), HostError> {
        let now_ns = net.now_ns;
        if self.stopped_until_ns > now_ns || self.next_ns(now_ns) > now_ns {
            return Ok(());
        }
        let (id, number, incarnation, now) = (self.id, self.number, self.incarnation, self.now(now_ns));
        let Some(process) = self.process.as_mut() else { return Ok(()) };
        if process.beat_ns <= now_ns {
            process.beat_ns = now_ns + BEAT_NS;
            process.tell_log(net, now, id, LogAsk::Beat { server: id, process: number, incarnation, sent_ns: now_ns });
        }
        if process.poll_ns <= now_ns {
            process.poll(net, now, id);
        }
        process.finish(net, now, id, &self.groups)
    }

    /// A message; dropped if nobody is there.
    pub(super) fn receive(&mut self, net: &mut Net, from: Node, packet: Packet) -> Result<(), HostError> {
        let (id, number, now) = (self.id, self.number, self.now(net.now_ns));
        let Some(process) = self.process.as_mut() else { return Ok(()) };
        match packet {
            Packet::Group(bytes) if process.known >= process.began_at && process.known.0 > 0 => {
                process.host.message(now, &bytes)?;
            }
            Packet::Request { id: request, group, hlc, ask } => {
                process.host.observe(hlc);
                let Some(key) = self.groups.get(group) else { return Ok(()) };
                process.request(net, now, (id, from, request), key, ask);
            }
            Packet::LogTell { hlc, tell } => {
                process.host.observe(hlc);
                process.told(net, now, id, number, tell, &self.groups)?;
            }
            _ => {}
        }
        process.finish(net, now, id, &self.groups)
    }
}

impl Process {
    fn tell_log(&mut self, net: &mut Net, now: Now, id: u32, ask: LogAsk) {
        let hlc = self.host.hlc(now);
        net.send(id, LOG, Packet::LogAsk { hlc, ask });
    }

    fn poll(&mut self, net: &mut Net, now: Now, id: u32) {
        self.poll_ns = now.monotonic_ns + POLL_NS;
        self.tell_log(net, now, id, LogAsk::Follow { server: id, after: self.known });
    }

    fn told(
        &mut self,
        net: &mut Net,
        now: Now,
        id: u32,
        number: u64,
        tell: LogTell,
        groups: &[Vec<TargetId>],
    ) -> Result<(), HostError> {
        match tell {
            LogTell::Granted { process, sent_ns, end } if process == number => {
                // A gap: what was decided meanwhile has to be known first.
                let holds = self.lease_ends_ns > now.monotonic_ns;
                if !holds {
                    self.tenure.set(None);
                }
                if holds || self.known >= end {
                    self.lease_ends_ns = self.lease_ends_ns.max(sent_ns + LEASE_NS);
                    if let Some(lease) = self.tenure.set(Some(self.lease_ends_ns)) {
                        self.host.set_lease(lease);
                    }
                } else {
                    self.beat_ns = now.monotonic_ns + 2_000_000;
                    self.poll(net, now, id);
                }
            }
            LogTell::Records { after, records } if after <= self.known => {
                let skip = (self.known.0 - after.0) as usize;
                let more = records.len() > skip;
                self.follow(now, records.into_iter().skip(skip), groups)?;
                if more {
                    self.poll(net, now, id);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn follow(
        &mut self,
        now: Now,
        records: impl Iterator<Item = Record>,
        groups: &[Vec<TargetId>],
    ) -> Result<(), HostError> {
        let (mut changes, mut last) = std::mem::take(&mut self.early);
        let mut maps: Vec<(Vec<TargetId>, GroupMap)> = Vec::new();
        let known = self.known;
        for record in records {
            self.known.0 += 1;
            match record {
                Record::Begin(tx) => changes.push((self.known, Change::Begin(tx))),
                Record::Commit(tx, stamp) => changes.push((self.known, Change::Commit(tx, stamp))),
                Record::Abort(tx) => changes.push((self.known, Change::Abort(tx))),
                Record::Map(all) if self.known <= self.began_at => last = Some(all),
                Record::Map(all) => maps.extend(groups.iter().cloned().zip(all)),
                Record::Snapshot => {}
            }
        }
        if self.known < self.began_at {
            self.early = (changes, last);
        } else if self.known > known {
            let last = last.into_iter().flat_map(|all| groups.iter().cloned().zip(all));
            let maps: Vec<_> = last.chain(maps).collect();
            self.host.follow(now, &changes, &maps, self.known)?;
        }
        Ok(())
    }

    fn request(
        &mut self,
        net: &mut Net,
        now: Now,
        (id, client, request): (u32, Node, u64),
        key: &[TargetId],
        ask: Ask,
    ) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let mut waiting = Waiting { client, id: request, read: None };
        let taken = match ask {
            Ask::Update(bytes) => match Request::decode(&bytes) {
                Ok(request) => self.host.update(now, key, ticket, &request),
                Err(error) => panic!("a program's request: {error}"),
            },
            Ask::Read { view, key: read } => {
                waiting.read = Some((view, read));
                self.host.read(now, key, ticket, view)
            }
        };
        let answer = match taken {
            Ok(()) => {
                self.waiting.insert(ticket, waiting);
                return;
            }
            Err(Unserved::Elsewhere(leader)) => Answer::Elsewhere(leader),
            Err(Unserved::NoLease) => Answer::Elsewhere(None),
            Err(Unserved::Store(_)) => Answer::Refused,
        };
        self.answer(net, now, id, &waiting, answer);
    }

    fn answer(&mut self, net: &mut Net, now: Now, id: u32, waiting: &Waiting, answer: Answer) {
        let hlc = self.host.hlc(now);
        net.send(id, waiting.client, Packet::Reply { id: waiting.id, hlc, answer });
    }

    fn finish(&mut self, net: &mut Net, now: Now, id: u32, groups: &[Vec<TargetId>]) -> Result<(), HostError> {
        for outcome in self.host.finish(now)? {
            match outcome {
                Outcome::Send { to, message } => net.send(id, to.0, Packet::Group(message)),
                Outcome::Done(ticket) => self.close(net, now, id, ticket, Answer::Done),
                Outcome::Refused(ticket, _) => self.close(net, now, id, ticket, Answer::Refused),
                Outcome::Elsewhere(ticket) => self.close(net, now, id, ticket, Answer::Elsewhere(None)),
                Outcome::Serve(ticket) => {
                    let read = self.waiting.get(&ticket).and_then(|waiting| waiting.read);
                    if let Some((view, key)) = read {
                        let answer = Answer::Value(self.fetch(view, key));
                        self.close(net, now, id, ticket, answer);
                    }
                }
                Outcome::CatchUp(position) => {
                    if position > self.known && self.poll_ns > now.monotonic_ns + 1_000_000 {
                        self.poll(net, now, id);
                    }
                }
                Outcome::Tell { command: Command::Suspect { member, map }, .. } => {
                    self.tell_log(net, now, id, LogAsk::Suspect { member, map });
                }
                Outcome::Tell { group, command: Command::Complete { member, map } } => {
                    if let Some(group) = groups.iter().position(|known| *known == group) {
                        self.tell_log(net, now, id, LogAsk::Complete { group, member, map });
                    }
                }
                Outcome::Tell { .. } => {}
            }
        }
        Ok(())
    }

    fn close(&mut self, net: &mut Net, now: Now, id: u32, ticket: u64, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            self.answer(net, now, id, &waiting, answer);
        }
    }

    fn fetch(&self, view: View, key: u32) -> u64 {
        let place = place(key);
        let mut bytes = Vec::new();
        match self.host.store().fetch(place.at, view, &place.dkey, place.akey, FetchWhat::Single, &mut bytes) {
            Ok(_) => bytes.try_into().map(u64::from_le_bytes).unwrap_or_default(),
            Err(error) => panic!("a simulated store: {error}"),
        }
    }
}
