//! What this process's independent transactions have read (docs/design.md §4 rule 15).
//!
//! Owns the read sets until the commit. A read is noted before its answer is given to the caller. Costs one look at a counter
//! where there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use talea_model::{Extent, Oid, TxId, View};
use talea_wire::data::{Read, ReadOf};

/// From so many reads on, those of an object become one of all of it.
const MAX_READS: usize = 16_384;

/// Read sets by transaction.
#[derive(Default)]
pub(crate) struct ReadSets {
    open: AtomicUsize,
    sets: Mutex<BTreeMap<TxId, BTreeSet<Read>>>,
}

impl ReadSets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TxId, BTreeSet<Read>>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction has begun.
    pub(crate) fn begin(&self, tx: TxId) {
        let mut sets = self.lock();
        sets.insert(tx, BTreeSet::new());
        self.open.store(sets.len(), Ordering::Release);
    }

    /// What it has read so far.
    pub(crate) fn of(&self, tx: TxId) -> BTreeSet<Read> {
        self.lock().get(&tx).cloned().unwrap_or_default()
    }

    /// It is over.
    pub(crate) fn end(&self, tx: TxId) {
        let mut sets = self.lock();
        sets.remove(&tx);
        self.open.store(sets.len(), Ordering::Release);
    }

    /// Whether reads in a view are to be noted.
    pub(crate) fn wants(&self, view: &View) -> bool {
        match view {
            View::Inside { tx, .. } if self.open.load(Ordering::Acquire) > 0 => self.lock().contains_key(tx),
            _ => false,
        }
    }

    /// Notes a read; ask [`wants`](Self::wants) first.
    pub(crate) fn note(&self, view: &View, oid: Oid, mut of: ReadOf) {
        if let ReadOf::Akey { extents, .. } = &mut of {
            *extents = Extent::merged(std::mem::take(extents));
        }
        let View::Inside { tx, .. } = view else { return };
        let mut sets = self.lock();
        let Some(set) = sets.get_mut(tx) else { return };
        let whole = Read { oid, of: ReadOf::Object };
        if set.contains(&whole) {
            return;
        }
        set.insert(Read { oid, of });
        if set.len() > MAX_READS {
            set.retain(|read| read.oid != oid);
            set.insert(whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talea_model::{Position, Stamp};

    #[test]
    fn reads_of_an_open_transaction_are_noted_once_and_many_become_one() {
        let sets = ReadSets::default();
        let inside = |tx| View::Inside { tx: TxId(tx), base: Stamp(1), position: Position(1) };
        assert!(!sets.wants(&inside(1)));
        sets.begin(TxId(1));
        assert!(sets.wants(&inside(1)) && !sets.wants(&inside(2)) && !sets.wants(&View::Latest));
        let dkey = |number: usize| ReadOf::Dkey(number.to_be_bytes().to_vec());
        for number in [1, 1, 2] {
            sets.note(&inside(1), Oid(7), dkey(number));
        }
        sets.note(&inside(1), Oid(8), dkey(1));
        assert_eq!(sets.of(TxId(1)).len(), 3);
        (0..=MAX_READS).for_each(|number| sets.note(&inside(1), Oid(7), dkey(number)));
        let left: Vec<Read> = sets.of(TxId(1)).into_iter().collect();
        assert_eq!(left.len(), 2, "the object as a whole, and the other one's: {left:?}");
        sets.end(TxId(1));
        assert!(!sets.wants(&inside(1)));
    }
}
