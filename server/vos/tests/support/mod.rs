//! The model, and the world that runs a store beside it.
#![allow(dead_code)]

pub(crate) mod kit;

use std::collections::BTreeMap;

use talea_model::{ContainerId, Extent, LeaseId, ObjectClass, Oid, Order, Position, SessionId, Stamp, TxId, View};
use talea_tier::{SimMedium, Torn};
use talea_vos::checksum::crc32c;
use talea_vos::{
    Caller, Change, Condition, EntryUpdate, Enumerate, FetchWhat, ObjectRef, Punch, Query, Store, StoreError,
    StoreOptions, ValueKind,
};

pub(crate) const CONTAINER: ContainerId = ContainerId(1);
const RECORDS: u64 = 28;
/// Two arrays (small records, in the log; large ones, in blocks), a value, and a value that only grows.
const AKEYS: [&[u8]; 4] = [b"a", b"b", b"m", b"v"];

/// Number of cases: PROPTEST_CASES if it is set.
pub(crate) fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Auto,
    Pending(usize),
    Tied(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Begin,
    Write { who: Who, place: (u8, u8), big: bool, index: u64, count: u64 },
    Put { who: Who, place: (u8, u8), bytes: usize },
    Max { who: Who, place: (u8, u8), value: u8 },
    Punch { who: Who, place: (u8, u8), level: u8, index: u64, count: u64 },
    Commit(usize),
    Abort(usize),
    Keep,
    Release(usize),
    Floor(u8),
    Background(usize),
    Flush,
    Check,
    Crash(u64),
}

/// Something done, as the model remembers it.
#[derive(Clone, Debug)]
enum Done {
    Versions {
        order: Order,
        stamp: u64,
        place: (u8, u8),
        what: What,
    },
    Begin(TxId, u64),
    Commit(TxId, u64),
    Abort(TxId),
    Keep(u64),
    Release(u64),
    Floor(u64),
    /// A request that changed nothing, and only its number was noted.
    Nothing,
}

#[derive(Clone, Debug)]
enum What {
    Records { akey: usize, index: u64, records: Vec<Vec<u8>> },
    Value { akey: usize, value: Vec<u8> },
    PunchObject,
    PunchDkey,
    PunchAkey(usize),
    PunchRange { akey: usize, index: u64, count: u64 },
}

/// What a view sees: (object, dkey, akey) → records or value (at index 0).
type Seen = BTreeMap<(u8, u8, usize), BTreeMap<u64, Vec<u8>>>;

fn seen(history: &[Done], view: View) -> Seen {
    let fate = |tx: TxId| {
        history.iter().find_map(|done| match done {
            Done::Commit(t, stamp) if *t == tx => Some(Some(*stamp)),
            Done::Abort(t) if *t == tx => Some(None),
            _ => None,
        })
    };
    let (at, own) = match view {
        View::Latest => (u64::MAX, None),
        View::Snapshot { stamp, .. } => (stamp.0, None),
        View::Inside { tx, base, .. } => (base.0, Some(tx)),
    };
    let mut visible = Vec::new();
    for (number, done) in history.iter().enumerate() {
        let Done::Versions { order, stamp, place, what } = done else { continue };
        let rank = match *order {
            Order::Auto { tied: None } => (*stamp <= at).then_some((false, *stamp)),
            Order::Auto { tied: Some(tx) } if own == Some(tx) => Some((false, *stamp)),
            Order::Auto { tied: Some(tx) } => match fate(tx) {
                None => (view == View::Latest).then_some((false, *stamp)),
                Some(commit) => commit.filter(|c| (*c).max(*stamp) <= at).map(|_| (false, *stamp)),
            },
            Order::Pending(tx) if own == Some(tx) => Some((true, 0)),
            Order::Pending(tx) => fate(tx).flatten().filter(|c| *c <= at).map(|c| (false, c)),
        };
        visible.extend(rank.map(|rank| (rank, number, place, what)));
    }
    visible.sort_by_key(|(rank, number, ..)| (*rank, *number));
    let mut all = Seen::new();
    for (_, _, (object, dkey), what) in visible {
        let slot = |akey: usize| (*object, *dkey, akey);
        match what {
            What::Records { akey, index, records } => {
                let array = all.entry(slot(*akey)).or_default();
                array.extend((*index..).zip(records.iter().cloned()));
            }
            What::Value { akey, value } => {
                all.insert(slot(*akey), BTreeMap::from([(0, value.clone())]));
            }
            What::PunchObject => all.retain(|(o, ..), _| o != object),
            What::PunchDkey => all.retain(|(o, d, _), _| (o, d) != (object, dkey)),
            What::PunchAkey(akey) => {
                all.remove(&slot(*akey));
            }
            What::PunchRange { akey, index, count } => {
                if let Some(array) = all.get_mut(&slot(*akey)) {
                    array.retain(|at, _| *at < *index || *at >= index + count);
                }
            }
        }
    }
    all.retain(|_, records| !records.is_empty());
    all
}

/// A store and its model.
pub(crate) struct World {
    medium: SimMedium,
    store: Store,
    history: Vec<Done>,
    /// Length of the history at the last flush.
    flushed: usize,
    open: Vec<(TxId, u64)>,
    kept: Vec<u64>,
    floor: u64,
    clock: u64,
    next_tx: u64,
}

fn options() -> StoreOptions {
    StoreOptions { nonce: 77, segment_bytes: 16 << 10, checkpoint_bytes: 3000, ..StoreOptions::default() }
}

fn at(object: u8) -> ObjectRef {
    ObjectRef { container: CONTAINER, oid: Oid::new(ObjectClass::S1, object.into()) }
}

fn kind(akey: usize) -> ValueKind {
    match akey {
        0 => ValueKind::Array { record_bytes: 2 },
        1 => ValueKind::Array { record_bytes: 3000 },
        2 => ValueKind::SingleMax,
        _ => ValueKind::Single,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let medium = SimMedium::new(6 << 20, Torn::Lines);
        let (store, recovered) = Store::open(Box::new(medium.clone()), options()).unwrap();
        assert!(recovered.fresh && !recovered.lost);
        Self {
            medium,
            store,
            history: Vec::new(),
            flushed: 0,
            open: Vec::new(),
            kept: Vec::new(),
            floor: 0,
            clock: 100,
            next_tx: 1,
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
            Who::Auto => (Order::Auto { tied: None }, self.stamp(), View::Latest),
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

    fn follow(&mut self, change: Change, done: Done) {
        let position = Position(self.history.len() as u64 + 1);
        self.store.follow(&[change], position).unwrap();
        self.history.push(done);
    }

    fn update(&mut self, who: Who, place: (u8, u8), what: What) {
        let Some((order, stamp, base)) = self.order(who) else { return };
        let caller = self.caller();
        let dkey = [b'd', place.1];
        let (akey, extents, data) = match &what {
            What::Records { akey, index, records } => {
                (*akey, vec![Extent { index: *index, count: records.len() as u64 }], records.concat())
            }
            What::Value { akey, value } => (*akey, vec![], value.clone()),
            _ => unreachable!(),
        };
        let kept = match (kind(akey), &what) {
            (ValueKind::SingleMax, What::Value { value, .. }) => {
                seen(&self.history, base).get(&(place.0, place.1, akey)).is_none_or(|held| held[&0] < *value)
            }
            _ => true,
        };
        let entry = EntryUpdate {
            dkey: &dkey,
            akey: AKEYS[akey],
            kind: kind(akey),
            condition: Condition::None,
            extents: &extents,
            data: &data,
            checksum: crc32c(&data),
        };
        self.store.update(at(place.0), order, Stamp(stamp), base, caller, &[entry]).unwrap();
        let done = Done::Versions { order, stamp, place, what };
        self.history.push(if kept { done } else { Done::Nothing });
    }

    fn punch(&mut self, who: Who, place: (u8, u8), what: What) {
        let Some((order, stamp, base)) = self.order(who) else { return };
        let dkey = &[b'd', place.1];
        let punch = match what {
            What::PunchObject => Punch::Object,
            What::PunchDkey => Punch::Dkey(dkey),
            What::PunchAkey(akey) => Punch::Akey { dkey, akey: AKEYS[akey] },
            What::PunchRange { akey, index, count } => {
                Punch::Range { dkey, akey: AKEYS[akey], extent: Extent { index, count } }
            }
            _ => unreachable!(),
        };
        let caller = self.caller();
        self.store.punch(at(place.0), order, Stamp(stamp), base, caller, punch, Condition::None).unwrap();
        self.history.push(Done::Versions { order, stamp, place, what });
    }

    pub(crate) fn run(&mut self, action: &Action) {
        let salt = self.history.len() as u8;
        match *action {
            Action::Begin => {
                let (tx, base) = (TxId(self.next_tx), self.clock);
                self.next_tx += 1;
                self.follow(Change::Keep(CONTAINER, Stamp(base)), Done::Keep(base));
                self.follow(Change::Begin(tx), Done::Begin(tx, base));
                self.open.push((tx, base));
                self.kept.push(base);
            }
            Action::Write { who, place, big, index, count } => {
                let bytes = if big { 3000 } else { 2 };
                let records = (0..count).map(|n| vec![salt.wrapping_mul(31).wrapping_add(n as u8); bytes]).collect();
                self.update(who, place, What::Records { akey: big.into(), index, records });
            }
            Action::Put { who, place, bytes } => {
                self.update(who, place, What::Value { akey: 3, value: vec![salt; bytes] });
            }
            Action::Max { who, place, value } => {
                self.update(who, place, What::Value { akey: 2, value: vec![0, value] });
            }
            Action::Punch { who, place, level, index, count } => {
                let what = match level {
                    0 => What::PunchObject,
                    1 => What::PunchDkey,
                    2 => What::PunchAkey(index as usize % 4),
                    _ => What::PunchRange { akey: index as usize % 2, index, count },
                };
                self.punch(who, place, what);
            }
            Action::Commit(n) | Action::Abort(n) if !self.open.is_empty() => {
                let (tx, base) = self.open.remove(n % self.open.len());
                if matches!(action, Action::Commit(_)) {
                    let stamp = self.stamp();
                    self.follow(Change::Commit(tx, Stamp(stamp)), Done::Commit(tx, stamp));
                } else {
                    self.follow(Change::Abort(tx), Done::Abort(tx));
                }
                self.release(base);
            }
            Action::Commit(_) | Action::Abort(_) => {}
            Action::Keep => {
                self.kept.push(self.clock);
                self.follow(Change::Keep(CONTAINER, Stamp(self.clock)), Done::Keep(self.clock));
            }
            Action::Release(n) => {
                // Bases of open transactions stay.
                let bases: Vec<u64> = self.open.iter().map(|(_, base)| *base).collect();
                let free: Vec<u64> = self.kept.iter().copied().filter(|stamp| !bases.contains(stamp)).collect();
                if !free.is_empty() {
                    self.release(free[n % free.len()]);
                }
            }
            Action::Floor(n) => {
                let floor = self.floor + (self.clock - self.floor) * u64::from(n) / 255;
                self.floor = floor.max(self.floor);
                self.follow(Change::Floor(CONTAINER, Stamp(floor)), Done::Floor(floor));
            }
            Action::Background(budget) => {
                self.store.background(budget).unwrap();
            }
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

    fn release(&mut self, stamp: u64) {
        let at = self.kept.iter().position(|kept| *kept == stamp).unwrap();
        self.kept.remove(at);
        self.follow(Change::Release(CONTAINER, Stamp(stamp)), Done::Release(stamp));
    }

    fn crash(&mut self, seed: u64) {
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 11
        };
        let survived = if seed == 0 { self.medium.crash(&mut || 0) } else { self.medium.crash(&mut random) };
        let (store, recovered) = Store::open(Box::new(survived.clone()), options()).unwrap();
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
        (self.medium, self.store) = (survived, store);
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
    }

    /// Compares all live views.
    pub(crate) fn check(&self) {
        self.compare(View::Latest);
        for (tx, base) in &self.open {
            self.compare(View::Inside { tx: *tx, base: Stamp(*base), position: Position(0) });
        }
        let recent = (self.floor..=self.clock + 10).step_by(1 + (self.clock - self.floor) as usize / 7);
        for stamp in recent.chain(self.kept.iter().copied()) {
            self.compare(View::Snapshot { stamp: Stamp(stamp), position: Position(0), lease: LeaseId(0) });
        }
    }

    fn compare(&self, view: View) {
        let expected = seen(&self.history, view);
        for object in 0..2 {
            for dkey in 0..2 {
                for akey in 0..4 {
                    self.compare_akey(view, (object, dkey, akey), expected.get(&(object, dkey, akey)));
                }
            }
            let dkeys = self.store.enumerate(at(object), view, Enumerate::Dkeys, None, 100).unwrap();
            let there = |dkey: &u8| expected.keys().any(|(o, d, _)| (o, d) == (&object, dkey));
            let keys: Vec<_> = (0..2u8).filter(there).map(|dkey| vec![b'd', dkey]).collect();
            assert_eq!(dkeys.into_iter().map(|listed| listed.key).collect::<Vec<_>>(), keys, "{view:?}");
        }
        let objects = self.store.enumerate(at(0), view, Enumerate::Objects, None, 100).unwrap();
        assert_eq!(objects.len(), (0..2).filter(|o| expected.keys().any(|(object, ..)| object == o)).count());
    }

    fn compare_akey(
        &self,
        view: View,
        (object, dkey, akey): (u8, u8, usize),
        expected: Option<&BTreeMap<u64, Vec<u8>>>,
    ) {
        let (dkey, mut out) = ([b'd', dkey], Vec::new());
        let place = (view, object, dkey[1], akey);
        let fetch = |what, out: &mut Vec<u8>| -> Result<_, StoreError> {
            self.store.fetch(at(object), view, &dkey, AKEYS[akey], what, out)
        };
        let ValueKind::Array { record_bytes } = kind(akey) else {
            let fetched = fetch(FetchWhat::Single, &mut out).unwrap();
            assert_eq!(fetched.found.then_some(&out), expected.map(|value| &value[&0]), "{place:?}");
            return;
        };
        let fetched = fetch(FetchWhat::Array(&[Extent { index: 0, count: RECORDS }]), &mut out).unwrap();
        assert_eq!(fetched.found, expected.is_some(), "{place:?}");
        let hole = vec![0; record_bytes as usize];
        let record = |at: u64| expected.and_then(|records| records.get(&at)).unwrap_or(&hole).clone();
        if let Some(records) = expected {
            assert_eq!(out, (0..RECORDS).flat_map(record).collect::<Vec<u8>>(), "{place:?}");
            assert_eq!(fetched.filled, records.len() as u64 == RECORDS);
            assert_eq!(fetched.checksum, crc32c(&out));
        }
        let end = self.store.query(at(object), view, Query::ArrayEnd { dkey: &dkey, akey: AKEYS[akey] }).unwrap().end;
        assert_eq!(end, expected.map_or(0, |records| records.keys().last().unwrap() + 1), "{place:?}");
        let what = Enumerate::Extents { dkey: &dkey, akey: AKEYS[akey] };
        let runs = self.store.enumerate(at(object), view, what, None, 100).unwrap();
        let covered: Vec<u64> = runs.iter().flat_map(|run| run.extent.index..run.extent.end()).collect();
        assert_eq!(covered, expected.into_iter().flatten().map(|(at, _)| *at).collect::<Vec<_>>(), "{place:?}");
    }
}
