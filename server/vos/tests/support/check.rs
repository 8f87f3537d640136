//! Comparing all that a store can be asked with the model, at every live view.

use std::collections::{BTreeMap, BTreeSet};

use talea_model::{Extent, LeaseId, Position, Stamp, View};
use talea_vos::checksum::crc32c;
use talea_vos::{Answer, Enumerate, FetchWhat, Listed, ObjectRef, Query, StoreError, ValueKind, Walk};

use super::seen::{Seen, is_destroyed, pending, seen};
use super::{AKEYS, DKEYS, OBJECTS, RECORDS, World, at, dkey_bytes, kind, oid};

/// What a cursor goes through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Through {
    Objects,
    Dkeys(u8),
    Akeys(u8, u8),
    Extents(u8, u8, usize),
}

/// An enumeration that goes on while the store changes under it.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) stamp: u64,
    /// Length of the history once its stamp was kept.
    pub(crate) begun: usize,
    through: Through,
    found: Vec<Listed>,
    /// The page that is being turned: how much it may hold, and what it has.
    page: Option<(usize, Walk)>,
}

/// Things that a walk looks at before it stops, to go on after the next action.
const LOOKS: usize = 8;

impl Cursor {
    pub(crate) fn new(stamp: u64, begun: usize, through: Through) -> Self {
        Self { stamp, begun, through, found: Vec::new(), page: None }
    }
}

pub(crate) fn snapshot(stamp: u64) -> View {
    View::Snapshot { stamp: Stamp(stamp), position: Position(0), lease: LeaseId(0) }
}

type Akey<'a> = Option<&'a BTreeMap<u64, Vec<u8>>>;

impl World {
    /// Compares all live views.
    pub(crate) fn check(&self) {
        self.compare(View::Latest);
        for (tx, base) in &self.open {
            self.compare(View::Inside { tx: *tx, base: Stamp(*base), position: Position(0) });
        }
        let recent = (self.floor..=self.clock + 10).step_by(1 + (self.clock - self.floor) as usize / 7);
        for stamp in recent.chain(self.kept.iter().copied()) {
            self.compare(snapshot(stamp));
        }
        if self.floor > 0 && !self.kept.contains(&(self.floor - 1)) {
            let mut out = Vec::new();
            let below = self.store.fetch(at(0), snapshot(self.floor - 1), b"d", b"a", FetchWhat::Single, &mut out);
            assert!(matches!(below, Err(StoreError::BelowFloor { .. })));
        }
        for object in 0..OBJECTS {
            assert_eq!(self.store.pending_on(at(object), None), pending(&self.history, object, None));
            for dkey in 0..DKEYS {
                let found = self.store.pending_on(at(object), Some(&dkey_bytes(dkey)));
                assert_eq!(found, pending(&self.history, object, Some(dkey)), "object {object}, dkey {dkey}");
            }
        }
    }

    fn compare(&self, view: View) {
        let expected = seen(&self.history, view);
        for object in (0..OBJECTS).filter(|object| *object != 2 || !is_destroyed(&self.history)) {
            for dkey in 0..DKEYS {
                for akey in 0..AKEYS.len() {
                    self.compare_akey(view, (object, dkey, akey), expected.get(&(object, dkey, akey)));
                }
                self.compare_list(&expected, view, Through::Akeys(object, dkey));
            }
            self.compare_list(&expected, view, Through::Dkeys(object));
            self.compare_queries(&expected, view, object);
        }
        self.compare_list(&expected, view, Through::Objects);
        if is_destroyed(&self.history) {
            let gone = self.store.enumerate(at(2), view, Enumerate::Dkeys, None, 9);
            assert!(matches!(gone, Err(StoreError::Destroyed(_))));
        }
    }

    fn compare_akey(&self, view: View, (object, dkey, akey): (u8, u8, usize), expected: Akey) {
        let (dkey, mut out) = (dkey_bytes(dkey), Vec::new());
        let place = (view, object, dkey, akey);
        let fetch = |what, out: &mut Vec<u8>| -> Result<_, StoreError> {
            self.store.fetch(at(object), view, &dkey, AKEYS[akey], what, out)
        };
        let ValueKind::Array { record_bytes } = kind(akey) else {
            let fetched = fetch(FetchWhat::Single, &mut out).unwrap();
            assert_eq!(fetched.found.then_some(&out), expected.map(|value| &value[&0]), "{place:?}");
            return;
        };
        // Everything, and two parts that begin and end anywhere.
        let salt = self.history.len() as u64;
        let parts =
            [Extent { index: salt % 11, count: 1 + salt % 9 }, Extent { index: salt % 17, count: 1 + salt % 5 }];
        for extents in [&[Extent { index: 0, count: RECORDS }][..], &parts] {
            out.clear();
            let fetched = fetch(FetchWhat::Array(extents), &mut out).unwrap();
            let asked: Vec<u64> = extents.iter().flat_map(|extent| extent.index..extent.end()).collect();
            let there = asked.iter().filter(|at| expected.is_some_and(|records| records.contains_key(at))).count();
            assert_eq!(fetched.found, there > 0, "{place:?}");
            if expected.is_none() {
                assert!(out.iter().all(|byte| *byte == 0) && !fetched.filled, "{place:?}");
                continue;
            }
            let hole = vec![0; record_bytes as usize];
            let record = |at: &u64| expected.and_then(|records| records.get(at)).unwrap_or(&hole).clone();
            let right: Vec<u8> = asked.iter().flat_map(record).collect();
            let wrong =
                asked.iter().zip(out.chunks(hole.len()).zip(right.chunks(hole.len()))).find(|(_, (a, b))| a != b);
            let wrong = wrong.map(|(at, (found, right))| (at, found[0], right[0]));
            assert!(out == right, "{place:?}: {} of {} bytes, first wrong {wrong:?}", out.len(), right.len());
            assert_eq!(fetched.filled, there == asked.len(), "{place:?}");
            assert_eq!(fetched.checksum, crc32c(&out), "{place:?}");
        }
        let end = self.ask(at(object), view, Query::ArrayEnd { dkey: &dkey, akey: AKEYS[akey] }).end;
        assert_eq!(end, end_of(expected), "{place:?}");
        let what = Enumerate::Extents { dkey: &dkey, akey: AKEYS[akey] };
        let runs = self.list(at(object), view, what);
        let covered: Vec<u64> = runs.iter().flat_map(|run| run.extent.index..run.extent.end()).collect();
        assert_eq!(covered, expected.into_iter().flatten().map(|(at, _)| *at).collect::<Vec<_>>(), "{place:?}");
    }

    /// All of an enumeration, in the smallest portions.
    fn list(&self, at: ObjectRef, view: View, what: Enumerate) -> Vec<Listed> {
        let mut walk = Walk::default();
        while !self.store.enumerate_some(at, view, what, None, 100, LOOKS, &mut walk).unwrap() {}
        walk.into_listed()
    }

    fn ask(&self, at: ObjectRef, view: View, what: Query) -> Answer {
        let mut walk = Walk::default();
        while !self.store.query_some(at, view, what, LOOKS, &mut walk).unwrap() {}
        walk.into_answer()
    }

    fn compare_queries(&self, expected: &Seen, view: View, object: u8) {
        let ask = |what| self.ask(at(object), view, what);
        let there = |dkey: &u8| expected.keys().any(|(o, d, _)| (o, d) == (&object, dkey));
        let key = |dkey: u8| talea_model::Key::from_u64(dkey.into());
        assert_eq!(ask(Query::MinDkey).dkey, (0..DKEYS).find(there).map(key), "{view:?}");
        assert_eq!(ask(Query::MaxDkey).dkey, (0..DKEYS).rev().find(there).map(key), "{view:?}");
        for (akey, name) in AKEYS.iter().enumerate().take(2) {
            let answer = ask(Query::MaxDkeyArrayEnd { akey: name });
            let last = (0..DKEYS).rev().find_map(|dkey| Some((dkey, expected.get(&(object, dkey, akey))?)));
            assert_eq!(answer.dkey, last.map(|(dkey, _)| key(dkey)), "{view:?}");
            assert_eq!(answer.end, end_of(last.map(|(_, records)| records)), "{view:?}");
        }
    }

    fn compare_list(&self, expected: &Seen, view: View, through: Through) {
        let (object, what) = asked(&through);
        let found = self.list(object, view, what.as_enumerate());
        assert_eq!(keys_of(&found), expected_keys(expected, through), "{view:?} {through:?}");
        if let Through::Akeys(..) = through {
            let kind_of = |listed: &Listed| AKEYS.iter().position(|akey| **akey == *listed.key).map(kind);
            let kinds = found.iter().map(|listed| match kind_of(listed) {
                Some(ValueKind::SingleMax) => Some(ValueKind::Single),
                other => other,
            });
            assert!(kinds.eq(found.iter().map(|listed| listed.kind)));
        }
    }

    /// Looks for a part of the next page, or takes it; true when that was the last one, and all pages together were as the model says.
    pub(crate) fn turn_page(&self, cursor: &mut Cursor, limit: usize) -> bool {
        let (object, what) = asked(&cursor.through);
        let after = cursor.found.last().map(|listed| listed.key.clone());
        let view = snapshot(cursor.stamp);
        let (limit, mut walk) = cursor.page.take().unwrap_or_else(|| (limit, Walk::default()));
        let what = what.as_enumerate();
        match self.store.enumerate_some(object, view, what, after.as_deref(), limit, LOOKS, &mut walk) {
            Err(StoreError::Destroyed(_)) if is_destroyed(&self.history) => return true,
            whole if !whole.as_ref().unwrap() => {
                cursor.page = Some((limit, walk));
                return false;
            }
            _ => {}
        }
        let page = walk.into_listed();
        let done = page.len() < limit;
        assert!(page.len() <= limit);
        cursor.found.extend(page);
        if done {
            let expected = seen(&self.history, view);
            assert_eq!(keys_of(&cursor.found), expected_keys(&expected, cursor.through), "{cursor:?}");
        }
        done
    }
}

/// A question that owns its keys.
struct Asked {
    through: Through,
    dkey: [u8; 8],
}

impl Asked {
    fn as_enumerate(&self) -> Enumerate<'_> {
        match self.through {
            Through::Objects => Enumerate::Objects,
            Through::Dkeys(_) => Enumerate::Dkeys,
            Through::Akeys(..) => Enumerate::Akeys { dkey: &self.dkey },
            Through::Extents(_, _, akey) => Enumerate::Extents { dkey: &self.dkey, akey: AKEYS[akey] },
        }
    }
}

fn asked(through: &Through) -> (ObjectRef, Asked) {
    let (object, dkey) = match *through {
        Through::Objects => (0, 0),
        Through::Dkeys(object) => (object, 0),
        Through::Akeys(object, dkey) | Through::Extents(object, dkey, _) => (object, dkey),
    };
    (at(object), Asked { through: *through, dkey: dkey_bytes(dkey) })
}

fn keys_of(found: &[Listed]) -> Vec<(Vec<u8>, Extent)> {
    found.iter().map(|listed| (listed.key.clone(), listed.extent)).collect()
}

fn expected_keys(expected: &Seen, through: Through) -> Vec<(Vec<u8>, Extent)> {
    let plain = |keys: BTreeSet<Vec<u8>>| keys.into_iter().map(|key| (key, Extent::default())).collect();
    match through {
        Through::Objects => {
            plain(expected.keys().filter(|k| k.0 != 2).map(|k| oid(k.0).0.to_be_bytes().into()).collect())
        }
        Through::Dkeys(o) => plain(expected.keys().filter(|k| k.0 == o).map(|k| dkey_bytes(k.1).into()).collect()),
        Through::Akeys(o, d) => {
            plain(expected.keys().filter(|k| (k.0, k.1) == (o, d)).map(|k| AKEYS[k.2].into()).collect())
        }
        Through::Extents(o, d, akey) => {
            let mut runs: Vec<Extent> = Vec::new();
            for at in expected.get(&(o, d, akey)).into_iter().flat_map(|records| records.keys()) {
                match runs.last_mut().filter(|run| run.end() == *at) {
                    Some(run) => run.count += 1,
                    None => runs.push(Extent { index: *at, count: 1 }),
                }
            }
            runs.into_iter().map(|run| (run.index.to_be_bytes().into(), run)).collect()
        }
    }
}

fn end_of(records: Akey) -> u64 {
    records.and_then(|records| records.keys().last()).map_or(0, |last| last + 1)
}
