//! Conditions of updates and punches, judged in portions: what is punched under a key has to be gone through, and may be much.
//!
//! Must never let a judgement stand for a state that has changed since.

use talea_model::View;

use super::Store;
use super::walk::{LOOKS, Walk};
use crate::index::lens::Lens;
use crate::index::look::{Looks, Paused};
use crate::{Condition, EntryUpdate, ObjectRef, Plant, Punch, StoreError};

/// What a condition asks of.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The dkey; `None`: the object.
    pub dkey: Option<&'a [u8]>,
    /// The akey; `None`: the whole dkey.
    pub akey: Option<&'a [u8]>,
    /// The condition.
    pub condition: Condition,
}

impl<'a> EntryUpdate<'a> {
    /// What its condition asks.
    pub fn ask(&self) -> Ask<'a> {
        Ask { dkey: Some(self.dkey), akey: Some(self.akey), condition: self.condition }
    }
}

impl<'a> Punch<'a> {
    /// What a condition of it asks.
    pub fn ask(&self, condition: Condition) -> Ask<'a> {
        let (dkey, akey) = match *self {
            Punch::Object => (None, None),
            Punch::Dkey(dkey) => (Some(dkey), None),
            Punch::Akey { dkey, akey } | Punch::Range { dkey, akey, .. } => (Some(dkey), Some(akey)),
        };
        Ask { dkey, akey, condition }
    }
}

impl Ask<'_> {
    /// Whether it asks anything.
    pub fn asks(&self) -> bool {
        self.condition != Condition::None
    }
}

/// All conditions of a write held when the log had come so far.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    lsn: u64,
}

impl Store {
    /// Goes on judging the conditions of a write, looking at no more than `looks` things; the same arguments each time. `None`: it has
    /// not come to its end. Whoever lets others write to the same keys in between, or lets the horizon rise, begins anew.
    pub fn judge_some(
        &self,
        at: ObjectRef,
        base: View,
        asks: &[Ask<'_>],
        looks: usize,
        walk: &mut Walk,
    ) -> Result<Option<Judged>, StoreError> {
        let mut left = Looks::new(looks);
        let judged = self.judge_from(at, base, asks, &mut left, walk);
        walk.note(&left);
        judged.map(|done| done.ok().map(|()| Judged { lsn: self.log.next_lsn() }))
    }

    /// Judges all conditions at once, but for those that were judged in this very state.
    pub(super) fn judge(
        &self,
        at: ObjectRef,
        base: View,
        asks: &[Ask<'_>],
        judged: Option<Judged>,
    ) -> Result<(), StoreError> {
        if judged.is_some_and(|judged| judged.lsn == self.log.next_lsn()) {
            return Ok(());
        }
        let mut walk = Walk::default();
        while self.judge_some(at, base, asks, LOOKS, &mut walk)?.is_none() {}
        Ok(())
    }

    fn judge_from(
        &self,
        at: ObjectRef,
        base: View,
        asks: &[Ask<'_>],
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<Result<(), Paused>, StoreError> {
        while let Some(ask) = asks.get(walk.judged) {
            if ask.asks() && self.options.plant != Plant::Unconditional {
                let lens = self.lens(at.container, base)?;
                let Ok(exists) = self.exists(at, &lens, ask, looks, walk) else { return Ok(Err(Paused)) };
                judge_one(ask, exists)?;
            }
            walk.judged += 1;
            walk.cursor = Default::default();
        }
        Ok(Ok(()))
    }

    fn exists(
        &self,
        at: ObjectRef,
        lens: &Lens,
        ask: &Ask<'_>,
        looks: &mut Looks,
        walk: &mut Walk,
    ) -> Result<bool, Paused> {
        let index = &self.memory.index;
        looks.take()?;
        let Some(object) = index.object(at) else { return Ok(false) };
        let Some(dkey) = ask.dkey else { return index.object_seen(object, lens, &mut walk.cursor, looks) };
        let Some(node) = index.seek(object, dkey).1.and_then(|id| index.dkeys.get(id)) else { return Ok(false) };
        let above = index.hidden_object(object, lens);
        match ask.akey {
            Some(akey) if matches!(ask.condition, Condition::Insert | Condition::Update) => {
                let hidden = index.hidden_dkey(node, lens, above);
                let Some(akey) = node.akey(akey) else { return Ok(false) };
                index.akey_seen(akey, lens, hidden, &mut walk.cursor, looks)
            }
            _ => index.dkey_seen(node, lens, above, &mut walk.cursor, looks),
        }
    }
}

fn judge_one(ask: &Ask<'_>, exists: bool) -> Result<(), StoreError> {
    match ask.condition {
        Condition::Update if ask.dkey.is_none() && exists => Ok(()),
        Condition::Update if ask.dkey.is_none() => Err(StoreError::NotFound),
        _ if ask.dkey.is_none() => Err(StoreError::Bad("an object can be punched if it exists, or in any case")),
        Condition::Insert | Condition::DkeyInsert if exists => Err(StoreError::Exists),
        Condition::Update | Condition::DkeyUpdate if !exists => Err(StoreError::NotFound),
        _ => Ok(()),
    }
}
