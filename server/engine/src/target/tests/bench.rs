//! A target with a hand-cranked world around it: time, log, peers.

use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use talea_fabric::{Hello, PeerId};
use talea_model::{
    ContainerId, Extent, MapVersion, ObjectClass, Oid, Order, PoolId, PoolMap, Position, ServerId, SessionId, Stamp,
    TargetId, TargetInfo, TargetState, TxId, View,
};
use talea_tier::{SimMedium, Torn};
use talea_vos::{Change, Recovered, StoreOptions};
use talea_wire::RefusalCode;
use talea_wire::data::request::Head;
use talea_wire::data::{Body, Condition, Differences, Entry, Located, Reply, ReplyBody, Request, StoreStat, ValueKind};

use crate::target::PoolChange;
use crate::{Effect, Lease, Now, Outbox, Target, TargetOptions};

pub(super) const RUN: ContainerId = ContainerId(1);
pub(super) const START_US: u64 = 1_700_000_000_000_000;
const CAPACITY_BYTES: u64 = 16 << 20;

/// An answer, without its borrow.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Done,
    Fetched(Vec<(bool, Vec<u8>)>),
    Names(Vec<Vec<u8>>, bool),
    Numbers(u64, u64),
    Stat(StoreStat),
    Located(Box<Located>),
    Prepared(Vec<TxId>),
    Differences(Differences),
    Refused(RefusalCode),
    StaleMap(MapVersion),
}

pub(super) struct Bench {
    pub(super) medium: SimMedium,
    pub(super) target: Target,
    pub(super) recovered: Recovered,
    pub(super) out: Outbox,
    pub(super) now: Now,
    pub(super) map: PoolMap,
    pub(super) position: Position,
    next_id: u64,
    pub(super) sequence: u64,
}

pub(super) fn oid() -> Oid {
    Oid::new(ObjectClass::S1, 7)
}

pub(super) fn map(version: u32) -> PoolMap {
    PoolMap {
        pool: PoolId(9),
        version: MapVersion(version),
        stamp: Stamp::ZERO,
        servers: vec![],
        targets: vec![TargetInfo {
            id: TargetId(0),
            server: ServerId(0),
            state: TargetState::Up,
            addresses: vec![],
            capacity_bytes: CAPACITY_BYTES,
            incarnation: 1,
        }],
    }
}

pub(super) fn options() -> TargetOptions {
    let store = StoreOptions { pool: PoolId(9), target: TargetId(0), nonce: 5, ..StoreOptions::default() };
    TargetOptions { id: TargetId(0), store, locked_ns: 1 }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(SimMedium::new(CAPACITY_BYTES, Torn::Lines), START_US)
    }

    /// A target (re)started on a medium; its world knows map 1, container [`RUN`], and gives it a lease for an hour.
    pub(super) fn on(medium: SimMedium, unix_us: u64) -> Self {
        let (target, recovered) = Target::open(Box::new(medium.clone()), options()).unwrap();
        let now = Now { monotonic_ns: 1, unix_us };
        let position = recovered.horizon;
        let out = Outbox::default();
        let mut bench = Bench { medium, target, recovered, out, now, map: map(1), position, next_id: 0, sequence: 0 };
        bench.target.set_map(Arc::new(map(1)));
        bench.target.set_containers([RUN]);
        bench.lease(3_600_000_000_000);
        bench.up(1);
        bench.finish();
        bench
    }

    /// The server's membership lease begins, and ends then.
    pub(super) fn lease(&mut self, until_ns: u64) {
        self.target.set_lease(Lease::until(until_ns));
    }

    pub(super) fn up(&mut self, peer: u64) {
        self.up_in(peer, peer);
    }

    /// A connection of a session.
    pub(super) fn up_in(&mut self, session: u64, peer: u64) {
        self.target.peer_up(PeerId(peer), Hello { session, pid: 1, server: None }, &mut self.out);
    }

    /// A head of peer 1 that asks for the latest state.
    pub(super) fn head(&mut self, order: Option<Order>, view: View) -> Head {
        self.next_id += 1;
        self.sequence += u64::from(order.is_some());
        Head {
            id: self.next_id,
            session: SessionId(1),
            sequence: if order.is_some() { self.sequence } else { 0 },
            acknowledged_below: 0,
            hlc: Stamp::from_unix_us(self.now.unix_us),
            map_version: self.map.version,
            target: TargetId(0),
            deadline_ms: 1000,
            container: RUN,
            oid: oid(),
            order,
            view,
        }
    }

    pub(super) fn send_raw(&mut self, peer: u64, bytes: &[u8]) {
        self.target.message(self.now, PeerId(peer), bytes, &mut self.out);
    }

    pub(super) fn send(&mut self, head: Head, body: Body<'_>) -> u64 {
        let bytes = encode(head, body);
        self.send_raw(head.session.0, &bytes);
        head.id
    }

    /// Ends the turn and gives the answers by request number.
    pub(super) fn finish(&mut self) -> Vec<(u64, Answer)> {
        self.target.finish(self.now, &mut self.out).unwrap();
        self.out.take().iter().map(|(_, outgoing)| answer(&[&outgoing.head[..], &outgoing.data].concat())).collect()
    }

    /// Asks one thing in a turn of its own; `None` if it was parked.
    pub(super) fn ask(&mut self, head: Head, body: Body<'_>) -> Option<Answer> {
        let id = self.send(head, body);
        self.finish().into_iter().find(|(answered, _)| *answered == id).map(|(_, answer)| answer)
    }

    pub(super) fn put(&mut self, order: Order, view: View, dkey: &[u8], value: &[u8]) -> Option<Answer> {
        let head = self.head(Some(order), view);
        self.ask(head, Body::Update(vec![single(dkey, value, Condition::None)]))
    }

    pub(super) fn get(&mut self, view: View, dkey: &[u8]) -> Option<Answer> {
        let head = self.head(None, view);
        self.ask(head, Body::Fetch(vec![single(dkey, &[], Condition::None)]))
    }

    /// The log goes on by one entry with these changes.
    pub(super) fn log(&mut self, changes: &[Change]) -> Position {
        self.position = Position(self.position.0 + 1);
        let changes = changes.iter().copied().map(PoolChange::Store).collect();
        self.target.follow(changes, self.position).unwrap();
        self.position
    }

    pub(super) fn effects(&mut self) -> Vec<Effect> {
        self.target.effects()
    }

    /// Answers the question for the log's end that must be among the effects.
    pub(super) fn answer_log_end(&mut self, position: Position) {
        let token = self.effects().into_iter().find_map(|effect| match effect {
            Effect::LogEnd { token } => Some(token),
            _ => None,
        });
        self.target.log_end(token.expect("the log's end was asked for"), position);
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp::from_unix_us(self.now.unix_us)
    }

    pub(super) fn later_us(&mut self, us: u64) {
        self.now.unix_us += us;
        self.now.monotonic_ns += us * 1000;
    }
}

pub(super) const AUTO: Order = Order::Auto { tied: None };

pub(super) fn inside(tx: u64, base: Stamp, position: Position) -> View {
    View::Inside { tx: TxId(tx), base, position }
}

pub(super) fn snapshot(stamp: Stamp, position: Position) -> View {
    View::Snapshot { stamp, position, lease: talea_model::LeaseId(0) }
}

pub(super) fn value(bytes: &[u8]) -> Option<Answer> {
    Some(Answer::Fetched(vec![(true, bytes.to_vec())]))
}

pub(super) fn nothing() -> Option<Answer> {
    Some(Answer::Fetched(vec![(false, vec![])]))
}

pub(super) fn refused(code: RefusalCode) -> Option<Answer> {
    Some(Answer::Refused(code))
}

pub(super) fn crc(data: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, data) as u32
}

pub(super) fn single<'a>(dkey: &'a [u8], data: &'a [u8], condition: Condition) -> Entry<'a> {
    Entry {
        dkey,
        akey: b"a",
        kind: ValueKind::Single,
        condition,
        extents: Default::default(),
        checksum: crc(data),
        data,
        more: Default::default(),
    }
}

pub(super) fn array<'a>(dkey: &'a [u8], extent: Extent, data: &'a [u8]) -> Entry<'a> {
    let kind = ValueKind::Array { record_bytes: 1 };
    Entry { kind, extents: [extent].into_iter().collect(), ..single(dkey, data, Condition::None) }
}

pub(super) fn encode(head: Head, body: Body<'_>) -> Vec<u8> {
    let request = Request { head, body };
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    request.data().for_each(|data| bytes.extend_from_slice(data));
    bytes
}

pub(super) fn answer(bytes: &[u8]) -> (u64, Answer) {
    let reply = Reply::decode(bytes).unwrap();
    let answer = match reply.body {
        ReplyBody::Done => Answer::Done,
        ReplyBody::Fetched(entries) => {
            entries.iter().for_each(|entry| assert_eq!(entry.checksum, crc(entry.data), "I7"));
            Answer::Fetched(entries.iter().map(|entry| (entry.found, entry.data.to_vec())).collect())
        }
        ReplyBody::Names { names, more } => Answer::Names(names.iter().map(|name| name.to_vec()).collect(), more),
        ReplyBody::Numbers(a, b) => Answer::Numbers(a, b),
        ReplyBody::Stat(stat) => Answer::Stat(*stat),
        ReplyBody::Located(located) => Answer::Located(located),
        ReplyBody::Prepared(named) => Answer::Prepared(named),
        ReplyBody::Differences(differences) => Answer::Differences(*differences),
        ReplyBody::Refused(refusal) => {
            assert!(!refusal.text.is_empty());
            Answer::Refused(refusal.code)
        }
        ReplyBody::StaleMap(map) => Answer::StaleMap(map.version),
    };
    (reply.head.id, answer)
}
