//! Punches: versions that hide what lies under them.

use talea_model::{Extent, Order, Stamp, View, key};

use super::Store;
use crate::log::Data;
use crate::log::record::{Head, encode_punch, kind};
use crate::{Caller, Condition, Judged, ObjectRef, Punch, StoreError, ValueKind};

impl Store {
    /// Hides what is there, from this version on. `Update` and `DkeyUpdate` ask that it exists (an object punch takes no other
    /// condition).
    #[allow(clippy::too_many_arguments)]
    pub fn punch(
        &mut self,
        at: ObjectRef,
        order: Order,
        stamp: Stamp,
        base: View,
        caller: Caller,
        what: Punch,
        condition: Condition,
    ) -> Result<(), StoreError> {
        self.punch_judged(at, order, stamp, base, caller, what, condition, None)
    }

    /// As [`punch`](Self::punch), with a condition that [`judge_some`](Self::judge_some) found to hold.
    #[allow(clippy::too_many_arguments)]
    pub fn punch_judged(
        &mut self,
        at: ObjectRef,
        order: Order,
        stamp: Stamp,
        base: View,
        caller: Caller,
        what: Punch,
        condition: Condition,
        judged: Option<Judged>,
    ) -> Result<(), StoreError> {
        if self.already_done(&caller) {
            return Ok(());
        }
        self.check_punch(at, &what)?;
        if condition != Condition::None {
            self.judge(at, base, &[what.ask(condition)], judged)?;
        }
        let tag = self.tag(at.container, order, stamp)?;
        self.punch_tagged(Head { at, tag, caller }, &what)
    }

    /// As [`update_committed`](Self::update_committed).
    pub fn punch_committed(
        &mut self,
        at: ObjectRef,
        commit: Stamp,
        caller: Caller,
        what: Punch,
    ) -> Result<(), StoreError> {
        if self.already_done(&caller) {
            return Ok(());
        }
        self.check_punch(at, &what)?;
        let tag = self.tag_committed(at.container, commit)?;
        self.punch_tagged(Head { at, tag, caller }, &what)
    }

    fn punch_tagged(&mut self, head: Head, what: &Punch) -> Result<(), StoreError> {
        self.refresh_reserve();
        match self.try_punch(head, what) {
            Err(full @ StoreError::NoSpace { .. }) => {
                self.make_room(full)?;
                self.try_punch(head, what).map_err(|error| self.room_to_come(error))
            }
            result => result,
        }
    }

    fn try_punch(&mut self, mut head: Head, what: &Punch) -> Result<(), StoreError> {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.begin_record();
        if !self.log.is_volatile() {
            head.encode(&mut payload);
            encode_punch(what, &mut payload);
        }
        let appended = self.log.append(kind::PUNCH, &mut payload, &Data::default());
        self.scratch = payload;
        head.tag.minor = appended?.lsn << 16;
        self.memory.index.punch(head.at, *what, head.tag)?;
        self.memory.note_done(&head.caller);
        self.memory.ceiling = self.memory.ceiling.max(head.tag.stamp);
        Ok(())
    }

    fn check_punch(&self, at: ObjectRef, what: &Punch) -> Result<(), StoreError> {
        let (dkey, akey) = match *what {
            Punch::Object => return Ok(()),
            Punch::Dkey(dkey) => (dkey, None),
            Punch::Akey { dkey, akey } => (dkey, Some(akey)),
            Punch::Range { dkey, akey, extent } => {
                if Extent::new(extent.index, extent.count).is_none() {
                    return Err(StoreError::Bad("an extent is empty or ends beyond the last index"));
                }
                let found = self.memory.index.dkey(at, dkey).and_then(|(_, node)| node.akey(akey));
                if let Some(found) = found
                    && found.kind() == ValueKind::Single
                    && !found.holds_nothing(&self.memory.index.versions)
                {
                    return Err(StoreError::Kind { found: "a single value".into(), asked: "an array".into() });
                }
                (dkey, Some(akey))
            }
        };
        key::check(dkey)?;
        akey.map_or(Ok(()), key::check)?;
        Ok(())
    }
}
