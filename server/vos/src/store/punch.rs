//! Punches: versions that hide what lies under them.

use talea_model::{Extent, Order, Stamp, View, key};

use super::Store;
use crate::log::Data;
use crate::log::record::{Head, encode_punch, kind};
use crate::{Caller, Condition, ObjectRef, Punch, StoreError, ValueKind};

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
        if self.already_done(&caller) {
            return Ok(());
        }
        self.check_punch(at, base, &what, condition)?;
        self.refresh_reserve();
        match self.try_punch(at, order, stamp, caller, &what) {
            Err(full @ StoreError::NoSpace { .. }) => {
                self.make_room(full)?;
                self.try_punch(at, order, stamp, caller, &what).map_err(|error| self.room_to_come(error))
            }
            result => result,
        }
    }

    fn try_punch(
        &mut self,
        at: ObjectRef,
        order: Order,
        stamp: Stamp,
        caller: Caller,
        what: &Punch,
    ) -> Result<(), StoreError> {
        let mut head = Head { at, tag: self.tag(at.container, order, stamp)?, caller };
        let mut payload = std::mem::take(&mut self.scratch);
        payload.begin_record();
        if !self.log.is_volatile() {
            head.encode(&mut payload);
            encode_punch(what, &mut payload);
        }
        let appended = self.log.append(kind::PUNCH, &mut payload, &Data::default());
        self.scratch = payload;
        head.tag.minor = appended?.lsn << 16;
        self.memory.index.punch(at, *what, head.tag)?;
        self.memory.note_done(&caller);
        self.memory.ceiling = self.memory.ceiling.max(head.tag.stamp);
        Ok(())
    }

    fn check_punch(&self, at: ObjectRef, base: View, what: &Punch, condition: Condition) -> Result<(), StoreError> {
        let (dkey, akey) = match *what {
            Punch::Object => return self.check_object_condition(at, base, condition),
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
        self.check_condition(at, base, dkey, akey, condition)
    }

    fn check_object_condition(&self, at: ObjectRef, base: View, condition: Condition) -> Result<(), StoreError> {
        if condition == Condition::None {
            return Ok(());
        }
        let lens = self.lens(at.container, base)?;
        let exists = self.memory.index.object(at).is_some_and(|object| self.memory.index.object_exists(object, &lens));
        match condition {
            Condition::Update if !exists => Err(StoreError::NotFound),
            Condition::Update => Ok(()),
            _ => Err(StoreError::Bad("an object can be punched if it exists, or in any case")),
        }
    }
}
