//! What is done to a store, exactly, so that it can be done again to another one; and what is known of it from outside.

use talea_model::{ContainerId, Extent, LeaseId, ObjectClass, Oid, Order, Position, SessionId, Stamp, TxId, View};
use talea_vos::checksum::crc32c;
use talea_vos::{
    Caller, Change, Condition, EntryUpdate, Enumerate, FetchWhat, ObjectRef, Punch, Query, Store, StoreError, ValueKind,
};

/// The container that stays, and the one that is destroyed.
const CONTAINERS: [ContainerId; 2] = [ContainerId(1), ContainerId(2)];
/// Records of each array that are written and read.
const RECORDS: u64 = 14;
/// Small records (in the log), large ones (in blocks from six on), a value, a value that only grows.
const AKEYS: [(&[u8], ValueKind); 4] = [
    (b"a", ValueKind::Array { record_bytes: 2 }),
    (b"b", ValueKind::Array { record_bytes: 700 }),
    (b"v", ValueKind::Single),
    (b"m", ValueKind::SingleMax),
];
const SESSION: SessionId = SessionId(5);

/// A small generator: the same seed gives the same run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Where something is written: container, object, dkey.
type Place = (usize, u8, u8);

/// One operation.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Follow(Vec<Change>),
    Write { how: How, akey: usize, extents: Vec<Extent>, data: Vec<u8> },
    Punch { how: How, level: u64, akey: usize, extent: Extent },
}

/// Under which order, by whom, where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    order: Order,
    stamp: Stamp,
    view: View,
    place: Place,
    acknowledged_below: u64,
}

fn at(place: Place) -> ObjectRef {
    ObjectRef { container: CONTAINERS[place.0], oid: Oid::new(ObjectClass::S1, place.1.into()) }
}

fn caller(number: u64, acknowledged_below: u64) -> Caller {
    Caller { session: SESSION, sequence: number, acknowledged_below }
}

impl Operation {
    /// Does it. Its number is its position in the pool's log, or its sequence number.
    pub(crate) fn apply(&self, number: u64, store: &mut Store) -> Result<(), StoreError> {
        match self {
            Self::Follow(changes) => store.follow(changes, Position(number)),
            Self::Write { how, akey, extents, data } => {
                let dkey = [b'd', how.place.2];
                let (akey, kind) = AKEYS[*akey];
                let (condition, checksum) = (Condition::None, crc32c(data));
                let entry = EntryUpdate { dkey: &dkey, akey, kind, condition, extents, data, checksum };
                let caller = caller(number, how.acknowledged_below);
                store.update(at(how.place), how.order, how.stamp, how.view, caller, &[entry])
            }
            Self::Punch { how, level, akey, extent } => {
                let dkey = &[b'd', how.place.2][..];
                let akey = AKEYS[*akey].0;
                let punch = match level {
                    0 => Punch::Object,
                    1 => Punch::Dkey(dkey),
                    2 => Punch::Akey { dkey, akey },
                    _ => Punch::Range { dkey, akey, extent: *extent },
                };
                let caller = caller(number, how.acknowledged_below);
                store.punch(at(how.place), how.order, how.stamp, how.view, caller, punch, Condition::None)
            }
        }
    }

    /// Whether a store has done it.
    pub(crate) fn is_done(&self, number: u64, store: &Store) -> bool {
        match self {
            Self::Follow(_) => store.ledger().horizon() >= Position(number),
            _ => store.already_done(&caller(number, 0)),
        }
    }
}

/// What is known from outside after some operations: which views there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    open: Vec<(TxId, u64)>,
    kept: Vec<u64>,
    floor: u64,
    clock: u64,
    begun: u64,
    destroyed: bool,
}

impl Journal {
    fn stamp(&mut self) -> Stamp {
        self.clock += 10;
        Stamp(self.clock)
    }

    /// The next operation; `acknowledged` are the operations known to be durable.
    pub(crate) fn choose(&self, random: &mut Random, acknowledged: u64) -> Operation {
        let mut next = self.clone();
        let pick = random.next() as usize;
        let open = (!self.open.is_empty()).then(|| self.open[pick % self.open.len()]);
        match (random.below(20), open) {
            (0 | 1, _) if self.open.len() < 4 => {
                let base = Stamp(self.clock);
                Operation::Follow(vec![Change::Keep(CONTAINERS[0], base), Change::Begin(TxId(self.begun + 1))])
            }
            (2, Some((tx, base))) => {
                let (stamp, base) = (next.stamp(), Change::Release(CONTAINERS[0], Stamp(base)));
                Operation::Follow(vec![Change::Commit(tx, stamp), base])
            }
            (3, Some((tx, base))) if random.below(2) == 0 => {
                Operation::Follow(vec![Change::Abort(tx), Change::Release(CONTAINERS[0], Stamp(base))])
            }
            (4, _) if random.below(3) == 0 => Operation::Follow(vec![Change::Keep(CONTAINERS[0], Stamp(self.clock))]),
            (5, _) if random.below(2) == 0 && !self.loose().is_empty() => {
                let loose = self.loose();
                Operation::Follow(vec![Change::Release(CONTAINERS[0], Stamp(loose[pick % loose.len()]))])
            }
            (6 | 7, _) => {
                let floor = self.floor + (self.clock - self.floor) * random.below(256) / 255;
                Operation::Follow(vec![Change::Floor(CONTAINERS[0], Stamp(floor))])
            }
            (8, _) if random.below(12) == 0 && !self.destroyed => {
                Operation::Follow(vec![Change::DestroyContainer(CONTAINERS[1])])
            }
            (9 | 10, open) => next.choose_punch(random, open, acknowledged),
            (_, open) => next.choose_write(random, open, acknowledged),
        }
    }

    /// Kept stamps that are no base of an open transaction.
    fn loose(&self) -> Vec<u64> {
        let mut loose = self.kept.clone();
        for (_, base) in &self.open {
            if let Some(at) = loose.iter().position(|stamp| stamp == base) {
                loose.remove(at);
            }
        }
        loose
    }

    fn how(&mut self, random: &mut Random, open: Option<(TxId, u64)>, acknowledged: u64) -> How {
        let second = !self.destroyed && random.below(8) == 0;
        let place = (usize::from(second), random.below(2) as u8, random.below(2) as u8);
        let acknowledged_below = if random.below(2) == 0 { acknowledged + 1 } else { 0 };
        let (order, stamp, view) = match open {
            Some((tx, base)) if random.below(3) > 0 => {
                (Order::Pending(tx), Stamp::ZERO, View::Inside { tx, base: Stamp(base), position: Position(0) })
            }
            Some((tx, _)) if random.below(4) == 0 => (Order::Auto { tied: Some(tx) }, self.stamp(), View::Latest),
            _ => (Order::Auto { tied: None }, self.stamp(), View::Latest),
        };
        How { order, stamp, view, place, acknowledged_below }
    }

    fn choose_write(&mut self, random: &mut Random, open: Option<(TxId, u64)>, acknowledged: u64) -> Operation {
        let (how, akey) = (self.how(random, open, acknowledged), random.below(4) as usize);
        let (value, mut extents) = (random.next() as u8, Vec::new());
        let bytes = match AKEYS[akey].1 {
            ValueKind::Array { record_bytes } => {
                let index = random.below(RECORDS);
                let count = 1 + random.below((RECORDS - index).min(10));
                extents.push(Extent { index, count });
                count as usize * record_bytes as usize
            }
            ValueKind::Single => random.below(7000) as usize,
            ValueKind::SingleMax => 2,
        };
        let data = (0..bytes).map(|at| value.wrapping_add((at / 64) as u8)).collect();
        Operation::Write { how, akey, extents, data }
    }

    fn choose_punch(&mut self, random: &mut Random, open: Option<(TxId, u64)>, acknowledged: u64) -> Operation {
        let (how, level) = (self.how(random, open, acknowledged), random.below(5));
        let index = random.below(RECORDS);
        let extent = Extent { index, count: 1 + random.below(RECORDS - index) };
        Operation::Punch { how, level, akey: random.below(if level >= 3 { 2 } else { 4 }) as usize, extent }
    }

    /// An operation was done.
    pub(crate) fn note(&mut self, operation: &Operation) {
        let changes = match operation {
            Operation::Follow(changes) => changes,
            Operation::Write { how, .. } | Operation::Punch { how, .. } => {
                self.clock = self.clock.max(how.stamp.0);
                return;
            }
        };
        for change in changes {
            match *change {
                Change::Begin(tx) => {
                    self.begun = tx.0;
                    self.open.push((tx, self.clock));
                }
                Change::Commit(tx, stamp) => {
                    self.clock = self.clock.max(stamp.0);
                    self.open.retain(|(open, _)| *open != tx);
                }
                Change::Abort(tx) => self.open.retain(|(open, _)| *open != tx),
                Change::Keep(_, stamp) => self.kept.push(stamp.0),
                Change::Release(_, stamp) => {
                    if let Some(at) = self.kept.iter().position(|kept| *kept == stamp.0) {
                        self.kept.remove(at);
                    }
                }
                Change::Floor(_, stamp) => self.floor = self.floor.max(stamp.0),
                Change::DestroyContainer(_) => self.destroyed = true,
                Change::EndSession(_) | Change::Container(_) | Change::Incarnation(_) => {}
            }
        }
    }

    /// All views that can be read.
    fn views(&self) -> Vec<View> {
        let snapshot = |stamp| View::Snapshot { stamp: Stamp(stamp), position: Position(0), lease: LeaseId(0) };
        let inside = |(tx, base): &(TxId, u64)| View::Inside { tx: *tx, base: Stamp(*base), position: Position(0) };
        let recent = (0..4).map(|part| self.floor + (self.clock + 5 - self.floor) * part / 3);
        let stamps: std::collections::BTreeSet<u64> = recent.chain(self.kept.iter().copied()).collect();
        let mut views = vec![View::Latest];
        views.extend(self.open.iter().map(inside));
        views.extend(stamps.into_iter().map(snapshot));
        views
    }

    /// Everything that can be read: what was asked, and a digest of the answer.
    pub(crate) fn observe(&self, store: &Store) -> Vec<(Question, u64)> {
        let mut seen = Vec::new();
        for view in self.views() {
            for container in 0..2 {
                for object in 0..2 {
                    observe_object(store, view, (container, object), &mut seen);
                }
            }
        }
        seen
    }
}

/// What was asked: view, kind of question, container and object, dkey, akey.
pub(crate) type Question = (View, &'static str, (usize, u8), u8, usize);

fn digest<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> u64 {
    let text = match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(StoreError::Destroyed(_)) => "destroyed".to_owned(),
        Err(error) => format!("failed: {error}"),
    };
    u64::from(crc32c(text.as_bytes())) | (text.len() as u64) << 32
}

fn observe_object(store: &Store, view: View, (container, object): (usize, u8), seen: &mut Vec<(Question, u64)>) {
    let object_ref = at((container, object, 0));
    let mut add = |what, dkey, akey, digest| seen.push(((view, what, (container, object), dkey, akey), digest));
    add("dkeys", 0, 0, digest(store.enumerate(object_ref, view, Enumerate::Dkeys, None, 100)));
    add("last dkey", 0, 0, digest(store.query(object_ref, view, Query::MaxDkey)));
    let mut out = Vec::new();
    for number in 0..2 {
        let dkey = [b'd', number];
        add("akeys", number, 0, digest(store.enumerate(object_ref, view, Enumerate::Akeys { dkey: &dkey }, None, 100)));
        for (akey_number, (akey, kind)) in AKEYS.iter().enumerate() {
            out.clear();
            let extents = [Extent { index: 0, count: RECORDS }];
            let array = matches!(kind, ValueKind::Array { .. });
            let what = if array { FetchWhat::Array(&extents) } else { FetchWhat::Single };
            let fetched = store.fetch(object_ref, view, &dkey, akey, what, &mut out);
            // Where nothing is, aggregation may have taken the record size away, and with it the zeros.
            let fetched = fetched.map(|fetched| fetched.found.then(|| (fetched.filled, out.len(), crc32c(&out))));
            add("fetch", number, akey_number, digest(fetched));
            if array {
                let runs = store.enumerate(object_ref, view, Enumerate::Extents { dkey: &dkey, akey }, None, 100);
                add("extents", number, akey_number, digest(runs));
            }
        }
    }
}
