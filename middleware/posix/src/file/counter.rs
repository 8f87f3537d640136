//! Counters that the processes of one collective open share: shared file pointers and the tickets of atomic mode.
//!
//! A counter is an object whose dkeys are 1, 2, 3, …, each with the value that one change left. A change inserts the dkey after
//! the last one, on the condition that it is new: of two that try at once one wins, and the other looks again. A counter that
//! others change too is looked at first: two requests a change in place of three or four. Each change is an
//! autocommit (docs/design.md §7), so it neither waits for an epoch nor goes with it. Must never remove a dkey while anybody may
//! still insert: a process that has not looked for long would win with a number of the past.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use talea_abi::Code;
use talea_model::{Extent, ObjectClass, Oid, View};

use crate::Fault;
use crate::backing::{Backing, Condition, Fetch, Punch, Update, ValueKind};
use crate::inode::DATA;

/// Attempts of one change. Each one that fails is one that somebody else's change took.
const MAX_ATTEMPTS: usize = 1 << 20;
/// Bits of a counter's number in its object id.
const NUMBER_BITS: u32 = 31;
/// Bytes of a value.
const VALUE_BYTES: usize = 8;

/// What to do with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterChange {
    /// Only look.
    None,
    /// Add.
    Add(i64),
    /// Replace.
    Set(i64),
}

/// Changes that one look finds.
const LOOKED_AT: usize = 8;

/// How many changes a counter has seen, and its value after them.
type State = (u64, i64);

/// What this process knows of a counter.
#[derive(Clone, Copy)]
struct Known {
    state: State,
    /// Others have changed it since this process had last.
    contended: bool,
}

/// The counters of one collective open, as one process reaches them.
pub(super) struct Counters {
    backing: Arc<dyn Backing>,
    base: u64,
    /// Last known states: with luck the next change needs no look.
    known: Mutex<HashMap<u32, Known>>,
}

impl Counters {
    pub(super) fn new(backing: Arc<dyn Backing>, base: u64) -> Self {
        Self { backing, base, known: Mutex::default() }
    }

    fn object(&self, number: u32) -> Result<Oid, Fault> {
        if number >> NUMBER_BITS != 0 {
            return Err(Fault::new(Code::Argument, format!("a counter's number is below 2^{NUMBER_BITS}")));
        }
        let user = 1 << 95 | u128::from(self.base) << NUMBER_BITS | u128::from(number);
        Ok(Oid::new(ObjectClass::S1, user))
    }

    /// Changes a counter; answers what it was before.
    pub(super) fn change(&self, number: u32, change: CounterChange) -> Result<i64, Fault> {
        let oid = self.object(number)?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&number).copied();
        let mut state = match known {
            Some(Known { state, contended: false }) if change != CounterChange::None => state,
            Some(Known { state, .. }) => self.newer(oid, state)?,
            None => self.last(oid)?,
        };
        // A counter that was looked at stays one of many until a look finds nothing new.
        let mut contended = known.is_some_and(|known| known.state != state);
        for _ in 0..MAX_ATTEMPTS {
            let (changes, value) = state;
            let next = match change {
                CounterChange::None => {
                    self.note(number, Known { state, contended });
                    return Ok(value);
                }
                CounterChange::Add(delta) => value.checked_add(delta),
                CounterChange::Set(value) => Some(value),
            };
            let next = next.ok_or_else(|| Fault::new(Code::TooLong, "a counter would exceed 2^63"))?;
            if self.insert(oid, changes + 1, next)? {
                self.note(number, Known { state: (changes + 1, next), contended });
                return Ok(value);
            }
            (state, contended) = (self.newer(oid, state)?, true);
        }
        Err(Fault::new(Code::Deadline, "a shared counter did not come to rest: try again"))
    }

    fn note(&self, number: u32, known: Known) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(number, known);
    }

    /// The state by now, in one request if there were few changes after `state`.
    fn newer(&self, oid: Oid, state: State) -> Result<State, Fault> {
        let dkeys: [[u8; 8]; LOOKED_AT] = std::array::from_fn(|next| (state.0 + 1 + next as u64).to_be_bytes());
        let mut values = [[0; VALUE_BYTES]; LOOKED_AT];
        let mut fetches: Vec<Fetch<'_>> = dkeys
            .iter()
            .zip(&mut values)
            .map(|(dkey, out)| Fetch {
                dkey,
                akey: DATA,
                extents: vec![Extent { index: 0, count: VALUE_BYTES as u64 }],
                out,
                found: false,
                bytes: 0,
            })
            .collect();
        self.backing.fetch(View::Latest, oid, &mut fetches)?;
        // Changes follow one another: what lies behind a gap came after the look had begun.
        let found = fetches.iter().take_while(|fetch| fetch.found).count();
        drop(fetches);
        match found {
            0 => Ok(state),
            LOOKED_AT => self.last(oid),
            _ => Ok((state.0 + found as u64, i64::from_le_bytes(values[found - 1]))),
        }
    }

    /// The state by now.
    fn last(&self, oid: Oid) -> Result<State, Fault> {
        let Some((changes, _)) = self.backing.last_array(View::Latest, oid, DATA)? else { return Ok((0, 0)) };
        let mut value = [0; VALUE_BYTES];
        let dkey = changes.to_be_bytes();
        let extents = vec![Extent { index: 0, count: VALUE_BYTES as u64 }];
        let mut fetch = [Fetch { dkey: &dkey, akey: DATA, extents, out: &mut value, found: false, bytes: 0 }];
        self.backing.fetch(View::Latest, oid, &mut fetch)?;
        Ok((changes, i64::from_le_bytes(value)))
    }

    /// Makes the change of this number, unless somebody else has made it.
    fn insert(&self, oid: Oid, change: u64, value: i64) -> Result<bool, Fault> {
        let (dkey, data) = (change.to_be_bytes(), value.to_le_bytes());
        let entry = Update {
            dkey: &dkey,
            akey: DATA,
            kind: ValueKind::Array { record_bytes: 1 },
            condition: Condition::Insert,
            extents: vec![Extent { index: 0, count: VALUE_BYTES as u64 }],
            data: &data,
        };
        match self.backing.update(oid, &[entry]) {
            Ok(()) => Ok(true),
            Err(fault) if matches!(fault.code, Code::Exists | Code::Conflict) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Removes counters.
    pub(super) fn forget(&self, numbers: RangeInclusive<u32>) -> Result<(), Fault> {
        for number in numbers {
            self.backing.punch(self.object(number)?, Punch::Object, Condition::None)?;
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::System;
    use crate::backing::memory::Memory;

    #[test]
    fn of_many_adders_each_gets_a_place_of_its_own() {
        let backing = Memory::default().container("run").unwrap();
        let mut places: Vec<i64> = std::thread::scope(|scope| {
            let adders: Vec<_> = (0..4)
                .map(|_| {
                    let counters = Counters::new(backing.clone(), 7);
                    scope.spawn(move || {
                        (0..50).map(|_| counters.change(3, CounterChange::Add(5)).unwrap()).collect::<Vec<_>>()
                    })
                })
                .collect();
            adders.into_iter().flat_map(|adder| adder.join().unwrap()).collect()
        });
        places.sort_unstable();
        assert_eq!(places, (0..200).map(|place| place * 5).collect::<Vec<_>>());
        let late = Counters::new(backing.clone(), 7);
        assert_eq!(late.change(3, CounterChange::None).unwrap(), 1000);
        assert_eq!(late.change(3, CounterChange::Set(12)).unwrap(), 1000);
        assert_eq!(late.change(3, CounterChange::None).unwrap(), 12);
        // Others are others, and a forgotten one starts again.
        assert_eq!(late.change(4, CounterChange::Add(1)).unwrap(), 0);
        assert_eq!(Counters::new(backing, 8).change(3, CounterChange::None).unwrap(), 0);
        late.forget(3..=4).unwrap();
        assert_eq!(late.change(3, CounterChange::Add(1)).unwrap(), 0);
    }
}
