//! The world that runs a store beside its model.
#![allow(dead_code)]

pub(crate) mod check;
pub(crate) mod disk;
pub(crate) mod kit;
pub(crate) mod seen;

use check::{Cursor, Through};
use disk::Disk;
use seen::{Done, Place, What, is_destroyed, seen};
use talea_model::{ContainerId, Extent, ObjectClass, Oid, Order, Position, SessionId, Stamp, TxId, View};
use talea_tier::Torn;
use talea_vos::checksum::crc32c;
use talea_vos::{Caller, Change, Condition, EntryUpdate, ObjectRef, Punch, Store, StoreError, StoreOptions, ValueKind};

/// One container that stays, and one that can be destroyed.
pub(crate) const CONTAINERS: [ContainerId; 2] = [ContainerId(1), ContainerId(2)];
/// Two in the first container, one in the other.
pub(crate) const OBJECTS: u8 = 3;
pub(crate) const DKEYS: u8 = 3;
/// All arrays end before it.
pub(crate) const RECORDS: u64 = 34;
/// Two arrays (small records, in the log; large ones, in blocks), a value, and a value that only grows.
pub(crate) const AKEYS: [&[u8]; 4] = [b"a", b"b", b"m", b"v"];

/// Number of cases: PROPTEST_CASES if it is set.
pub(crate) fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// Stamped so far below the newest stamp (but above what was promised to anybody).
    Auto(u64),
    Pending(usize),
    Tied(usize),
}

/// What one entry of an update writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell {
    Small { index: u64, count: u64 },
    Big { index: u64, count: u64 },
    Put { bytes: usize },
    Max { value: u8 },
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Begin,
    Update { who: Who, object: u8, entries: Vec<(u8, Cell)>, condition: u8 },
    Punch { who: Who, place: Place, level: u8, index: u64, count: u64, condition: u8 },
    Commit(usize),
    Abort(usize),
    Keep,
    Release(usize),
    Floor(u8),
    Destroy,
    Cursor { through: Through, limit: usize },
    Background(usize),
    Flush,
    Check,
    Crash(u64),
}

/// Dkey, akey, extents and data of an entry.
type Owned = ([u8; 8], usize, Vec<Extent>, Vec<u8>);

/// A store and its model.
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) store: Store,
    pub(crate) history: Vec<Done>,
    /// Length of the history at the last flush.
    flushed: usize,
    pub(crate) open: Vec<(TxId, u64)>,
    pub(crate) kept: Vec<u64>,
    pub(crate) floor: u64,
    pub(crate) clock: u64,
    next_tx: u64,
    cursor: Option<Cursor>,
}

fn options() -> StoreOptions {
    StoreOptions { nonce: 77, segment_bytes: 16 << 10, checkpoint_bytes: 3000, ..StoreOptions::default() }
}

pub(crate) fn oid(object: u8) -> Oid {
    Oid::new(ObjectClass::S1, object.into())
}

pub(crate) fn at(object: u8) -> ObjectRef {
    ObjectRef { container: CONTAINERS[usize::from(object == 2)], oid: oid(object) }
}

pub(crate) fn dkey_bytes(dkey: u8) -> [u8; 8] {
    u64::from(dkey).to_be_bytes()
}

pub(crate) fn kind(akey: usize) -> ValueKind {
    match akey {
        0 => ValueKind::Array { record_bytes: 2 },
        1 => ValueKind::Array { record_bytes: 3000 },
        2 => ValueKind::SingleMax,
        _ => ValueKind::Single,
    }
}

fn condition(number: u8) -> Condition {
    match number {
        1 => Condition::Insert,
        2 => Condition::Update,
        3 => Condition::DkeyInsert,
        4 => Condition::DkeyUpdate,
        _ => Condition::None,
    }
}

/// What a condition says of what a view holds: `Some(true)` it exists and must not, `Some(false)` the other way round.
fn refusal(condition: Condition, akey_there: bool, dkey_there: bool) -> Option<bool> {
    match condition {
        Condition::Insert if akey_there => Some(true),
        Condition::Update if !akey_there => Some(false),
        Condition::DkeyInsert if dkey_there => Some(true),
        Condition::DkeyUpdate if !dkey_there => Some(false),
        _ => None,
    }
}

fn both(change: impl Fn(ContainerId) -> Change) -> [Change; 2] {
    CONTAINERS.map(change)
}

impl World {
    pub(crate) fn new(torn: Torn) -> Self {
        Self::on(Disk::one(8 << 20, torn))
    }

    /// On a medium that does not persist.
    pub(crate) fn in_memory() -> Self {
        let disk = Disk::one(8 << 20, Torn::Lines);
        disk.log.is_memory();
        Self::on(disk)
    }

    /// With a tier for bulk.
    pub(crate) fn on_two() -> Self {
        Self::on(Disk::two(6 << 20, 8 << 20))
    }

    fn on(disk: Disk) -> Self {
        let (store, recovered) = Store::open(disk.media(), options()).unwrap();
        assert!(recovered.fresh && !recovered.lost);
        Self {
            disk,
            store,
            history: Vec::new(),
            flushed: 0,
            open: Vec::new(),
            kept: Vec::new(),
            floor: 0,
            clock: 100,
            next_tx: 1,
            cursor: None,
        }
    }

    fn stamp(&mut self) -> u64 {
        self.clock += 10;
        self.clock
    }

    /// Order, stamp and view of an update; `None` if there is no such transaction.
    fn order(&mut self, who: Who) -> Option<(Order, u64, View)> {
        let pick = |n: usize| (!self.open.is_empty()).then(|| self.open[n % self.open.len()]);
        Some(match who {
            Who::Auto(late) => {
                let promised = self.kept.iter().copied().max().unwrap_or(0).max(self.floor);
                let stamp = self.stamp().saturating_sub(late).max(promised + 1);
                (Order::Auto { tied: None }, stamp, View::Latest)
            }
            Who::Pending(n) => {
                let (tx, base) = pick(n)?;
                let view = View::Inside { tx, base: Stamp(base), position: Position(0) };
                (Order::Pending(tx), 0, view)
            }
            Who::Tied(n) => {
                let (tx, _) = pick(n)?;
                (Order::Auto { tied: Some(tx) }, self.stamp(), View::Latest)
            }
        })
    }

    /// The number of the next thing done is its sequence number, and its log position.
    fn caller(&self) -> Caller {
        Caller { session: SessionId(5), sequence: self.history.len() as u64 + 1, acknowledged_below: 0 }
    }

    fn follow(&mut self, changes: &[Change], done: Done) {
        let position = Position(self.history.len() as u64 + 1);
        self.store.follow(changes, position).unwrap();
        self.history.push(done);
    }

    /// Compares an outcome with what the model expects; true if it was done.
    fn outcome(&self, object: u8, result: &Result<(), StoreError>, refused: Option<bool>) -> bool {
        match result {
            Err(StoreError::Destroyed(_)) => assert!(object == 2 && is_destroyed(&self.history)),
            Err(StoreError::Exists) => assert_eq!(refused, Some(true)),
            Err(StoreError::NotFound) => assert_eq!(refused, Some(false)),
            Ok(()) => assert!(refused.is_none() && !(object == 2 && is_destroyed(&self.history))),
            other => panic!("{other:?}"),
        }
        result.is_ok()
    }

    fn update(&mut self, who: Who, object: u8, entries: &[(u8, Cell)], number: u8) {
        let Some((order, stamp, base)) = self.order(who) else { return };
        let (caller, condition, held) = (self.caller(), condition(number), seen(&self.history, base));
        let auto = matches!(order, Order::Auto { .. });
        let salt = self.history.len() as u8;
        let (mut parts, mut refused) = (Vec::new(), None);
        let mut owned: Vec<Owned> = Vec::new();
        for (number, (dkey, cell)) in entries.iter().enumerate() {
            let dkey = if auto { entries[0].0 } else { *dkey };
            let salt = salt.wrapping_mul(31).wrapping_add(number as u8 * 7);
            let what = written(*cell, salt);
            let (akey, extents, data) = match &what {
                What::Records { akey, index, records } => {
                    (*akey, vec![Extent { index: *index, count: records.len() as u64 }], records.concat())
                }
                What::Value { akey, value } => (*akey, vec![], value.clone()),
                _ => unreachable!(),
            };
            let of_akey = held.get(&(object, dkey, akey));
            let dkey_there = held.keys().any(|(o, d, _)| (*o, *d) == (object, dkey));
            refused = refused.or(refusal(condition, of_akey.is_some(), dkey_there));
            if kind(akey) != ValueKind::SingleMax || of_akey.is_none_or(|held| held[&0] < data) {
                parts.push(((object, dkey), what));
            }
            owned.push((dkey_bytes(dkey), akey, extents, data));
        }
        let entries: Vec<EntryUpdate> = owned
            .iter()
            .map(|(dkey, akey, extents, data)| {
                let (akey, kind, checksum) = (AKEYS[*akey], kind(*akey), crc32c(data));
                EntryUpdate { dkey, akey, kind, condition, extents, data, checksum }
            })
            .collect();
        let result = self.store.update(at(object), order, Stamp(stamp), base, caller, &entries);
        if self.outcome(object, &result, refused) {
            self.history.push(if parts.is_empty() { Done::Nothing } else { Done::Versions { order, stamp, parts } });
        }
    }

    fn punch(&mut self, who: Who, place: Place, what: What, number: u8) {
        let Some((order, stamp, base)) = self.order(who) else { return };
        let held = seen(&self.history, base);
        let mut condition = condition(number);
        let dkey = &dkey_bytes(place.1);
        let object_there = held.keys().any(|(o, ..)| *o == place.0);
        let dkey_there = held.keys().any(|(o, d, _)| (o, d) == (&place.0, &place.1));
        let akey_there = |akey: usize| held.contains_key(&(place.0, place.1, akey));
        let (punch, refused) = match what {
            What::PunchObject => {
                condition = if number.is_multiple_of(2) { Condition::None } else { Condition::Update };
                (Punch::Object, refusal(condition, object_there, false))
            }
            What::PunchDkey => (Punch::Dkey(dkey), refusal(condition, dkey_there, dkey_there)),
            What::PunchAkey(akey) => {
                (Punch::Akey { dkey, akey: AKEYS[akey] }, refusal(condition, akey_there(akey), dkey_there))
            }
            What::PunchRange { akey, index, count } => {
                let range = Punch::Range { dkey, akey: AKEYS[akey], extent: Extent { index, count } };
                (range, refusal(condition, akey_there(akey), dkey_there))
            }
            _ => unreachable!(),
        };
        let result = self.store.punch(at(place.0), order, Stamp(stamp), base, self.caller(), punch, condition);
        if self.outcome(place.0, &result, refused) {
            self.history.push(Done::Versions { order, stamp, parts: vec![(place, what)] });
        }
    }

    pub(crate) fn run(&mut self, action: &Action) {
        match *action {
            Action::Begin => {
                let (tx, base) = (TxId(self.next_tx), self.clock);
                self.next_tx += 1;
                self.follow(&both(|container| Change::Keep(container, Stamp(base))), Done::Keep(base));
                self.follow(&[Change::Begin(tx)], Done::Begin(tx, base));
                self.open.push((tx, base));
                self.kept.push(base);
            }
            Action::Update { who, object, ref entries, condition } => self.update(who, object, entries, condition),
            Action::Punch { who, place, level, index, count, condition } => {
                let what = match level {
                    0 => What::PunchObject,
                    1 => What::PunchDkey,
                    2 => What::PunchAkey(index as usize % 4),
                    _ => What::PunchRange { akey: index as usize % 2, index, count },
                };
                self.punch(who, place, what, condition);
            }
            Action::Commit(n) | Action::Abort(n) => self.close(n, matches!(action, Action::Commit(_))),
            Action::Keep => self.keep(),
            Action::Release(n) => self.release_some(n),
            Action::Floor(n) => {
                let floor = self.floor + (self.clock - self.floor) * u64::from(n) / 255;
                self.floor = floor.max(self.floor);
                self.follow(&both(|container| Change::Floor(container, Stamp(floor))), Done::Floor(floor));
            }
            Action::Destroy if !is_destroyed(&self.history) => {
                self.follow(&[Change::DestroyContainer(CONTAINERS[1])], Done::Destroy);
            }
            Action::Destroy => {}
            Action::Cursor { through, limit } => self.go_through(through, limit),
            Action::Background(budget) => _ = self.store.background(budget).unwrap(),
            Action::Flush => {
                self.store.flush().unwrap();
                self.flushed = self.history.len();
            }
            Action::Check => self.check(),
            Action::Crash(seed) => {
                self.crash(seed);
                self.check();
            }
        }
    }

    fn close(&mut self, n: usize, commit: bool) {
        if self.open.is_empty() {
            return;
        }
        let (tx, base) = self.open.remove(n % self.open.len());
        if commit {
            let stamp = self.stamp();
            self.follow(&[Change::Commit(tx, Stamp(stamp))], Done::Commit(tx, stamp));
        } else {
            self.follow(&[Change::Abort(tx)], Done::Abort(tx));
        }
        self.release(base);
    }

    fn keep(&mut self) {
        let stamp = self.clock;
        self.kept.push(stamp);
        self.follow(&both(|container| Change::Keep(container, Stamp(stamp))), Done::Keep(stamp));
    }

    fn release(&mut self, stamp: u64) {
        let at = self.kept.iter().position(|kept| *kept == stamp).unwrap();
        self.kept.remove(at);
        self.follow(&both(|container| Change::Release(container, Stamp(stamp))), Done::Release(stamp));
    }

    fn release_some(&mut self, n: usize) {
        // Bases of open transactions stay, and what a cursor reads.
        let mut held: Vec<u64> = self.open.iter().map(|(_, base)| *base).collect();
        held.extend(self.cursor.iter().map(|cursor| cursor.stamp));
        let free: Vec<u64> = self.kept.iter().copied().filter(|stamp| !held.contains(stamp)).collect();
        if !free.is_empty() {
            self.release(free[n % free.len()]);
        }
    }

    /// Begins to go through something at a kept stamp, or turns a page.
    fn go_through(&mut self, through: Through, limit: usize) {
        let Some(mut cursor) = self.cursor.take() else {
            self.keep();
            self.cursor = Some(Cursor::new(self.clock, self.history.len(), through));
            return;
        };
        if self.turn_page(&mut cursor, limit) {
            self.release(cursor.stamp);
        } else {
            self.cursor = Some(cursor);
        }
    }

    fn crash(&mut self, seed: u64) {
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 11
        };
        let survived = if seed == 0 { self.disk.crash(&mut || 0) } else { self.disk.crash(&mut random) };
        let (store, recovered) = Store::open(survived.media(), options()).unwrap();
        assert!(!recovered.lost, "nothing durable was lost");
        // What is left is a beginning of what was done, and holds all that was flushed.
        let was_done = |number: usize| match &self.history[number - 1] {
            Done::Versions { .. } | Done::Nothing => {
                let caller = Caller { session: SessionId(5), sequence: number as u64, acknowledged_below: 0 };
                store.already_done(&caller)
            }
            _ => recovered.horizon.0 >= number as u64,
        };
        let left = (1..=self.history.len()).take_while(|number| was_done(*number)).count();
        assert!(left >= self.flushed, "{left} of {} flushed are left", self.flushed);
        assert!((left + 1..=self.history.len()).all(|number| !was_done(number)), "a hole in what is left");
        (self.disk, self.store) = (survived, store);
        self.history.truncate(left);
        self.flushed = left;
        self.remember();
        assert!(recovered.ceiling.0 <= self.clock);
    }

    /// Rebuilds what follows from the history.
    fn remember(&mut self) {
        (self.open, self.kept, self.floor) = (Vec::new(), Vec::new(), 0);
        for done in &self.history {
            match *done {
                Done::Begin(tx, base) => self.open.push((tx, base)),
                Done::Commit(tx, _) | Done::Abort(tx) => self.open.retain(|(open, _)| *open != tx),
                Done::Keep(stamp) => self.kept.push(stamp),
                Done::Release(stamp) => {
                    let at = self.kept.iter().position(|kept| *kept == stamp).unwrap();
                    self.kept.remove(at);
                }
                Done::Floor(floor) => self.floor = self.floor.max(floor),
                _ => {}
            }
        }
        // A base whose begin was lost after it was kept stays kept: harmless.
        let left = self.history.len();
        self.cursor.take_if(|cursor| cursor.begun > left);
    }
}

fn written(cell: Cell, salt: u8) -> What {
    let records = |bytes: usize, count: u64| (0..count).map(|n| vec![salt.wrapping_add(n as u8); bytes]).collect();
    match cell {
        Cell::Small { index, count } => What::Records { akey: 0, index, records: records(2, count) },
        Cell::Big { index, count } => What::Records { akey: 1, index, records: records(3000, count) },
        Cell::Put { bytes } => What::Value { akey: 3, value: vec![salt; bytes] },
        Cell::Max { value } => What::Value { akey: 2, value: vec![0, value] },
    }
}
