//! Updates and punches.
//!
//! Must never acknowledge: that is the turn's end, after the flush.

use smallvec::SmallVec;
use talea_model::{Extent, Order, Stamp};
use talea_vos::{Ask, Caller, EntryUpdate, ObjectRef, Punch, StoreError};
use talea_wire::data::request::Head;
use talea_wire::data::{self, Body, Request};

use super::{Now, Target};

/// Updates of one session that are remembered at most. Its client's oldest one that is still under way would have to be overtaken by as
/// many.
pub(super) const MAX_UNACKNOWLEDGED: usize = 65_536;

impl Target {
    /// Does a write, once: one that was done before (rule 14) changes nothing and is well. False if it goes on in the next turn.
    pub(super) fn write(&mut self, now: Now, request: &Request<'_>) -> Result<bool, StoreError> {
        let head = &request.head;
        let caller =
            Caller { session: head.session, sequence: head.sequence, acknowledged_below: head.acknowledged_below };
        // A resent write is acknowledged with the turn's flush: the first one may not be durable yet.
        if caller.session.0 != 0 && self.store.already_done(&caller) {
            return Ok(true);
        }
        if self.store.is_unacknowledged(&caller, MAX_UNACKNOWLEDGED) {
            return Err(StoreError::Unacknowledged { most: MAX_UNACKNOWLEDGED });
        }
        // Another one found the store full in this turn, and did the turn's share of making room.
        if self.full && matches!(request.body, Body::Update(_)) {
            return Err(StoreError::RoomToCome { needed_bytes: 0 });
        }
        let order = head.order.unwrap_or(Order::Auto { tied: None });
        let stamp = self.stamp(now, order)?;
        let at = ObjectRef { container: head.container, oid: head.oid };
        self.dirty = true;
        self.places_change();
        match &request.body {
            Body::Update(entries) => {
                let entries: SmallVec<[EntryUpdate<'_>; 4]> = entries.iter().map(entry_update).collect();
                let asks: SmallVec<[Ask<'_>; 4]> = entries.iter().map(EntryUpdate::ask).collect();
                let Some(judged) = self.judge(at, head.view, &asks)? else { return Ok(false) };
                let done = self.store.update_judged(at, order, stamp, head.view, caller, &entries, judged);
                self.full |= matches!(done, Err(StoreError::RoomToCome { .. }));
                done?;
                entries.iter().for_each(|entry| self.changes.note(Some(at), Some(entry.dkey)));
                self.count(head, entries.iter().map(|entry| entry.data.len() as u64).sum());
            }
            Body::Punch { dkey, akey, extent, condition } => {
                let what = punch_of(dkey, akey, *extent);
                let condition = condition_of(*condition);
                let Some(judged) = self.judge(at, head.view, &[what.ask(condition)])? else { return Ok(false) };
                self.store.punch_judged(at, order, stamp, head.view, caller, what, condition, judged)?;
                self.changes.note(Some(at), Some(dkey));
                self.count(head, 0);
            }
            _ => return Err(StoreError::Bad("a read came as a write")),
        }
        Ok(true)
    }

    /// The stamp of an autocommit, under a ceiling that stands in the log before the update does (rule 10).
    fn stamp(&mut self, now: Now, order: Order) -> Result<Stamp, StoreError> {
        match order {
            Order::Pending(_) => Ok(Stamp::ZERO),
            Order::Auto { .. } => {
                let stamp = self.clock.stamp(now.unix_us);
                self.raise_ceiling()?;
                Ok(stamp)
            }
        }
    }

    /// Places that readers inside of transactions know are not to be relied on any more: they see that before anybody hears of the change.
    pub(super) fn places_change(&mut self) {
        if std::mem::take(&mut self.watched) {
            self.change += 1;
            self.store.post(self.change);
        }
    }

    fn count(&mut self, head: &Head, bytes: u64) {
        self.counters.updates += 1;
        self.counters.bytes_in += bytes;
        *self.counters.container_bytes_in.entry(head.container).or_default() += bytes;
    }
}

/// What a request punches.
pub(crate) fn punch_of<'a>(dkey: &'a [u8], akey: &'a [u8], extent: Option<Extent>) -> Punch<'a> {
    match (dkey.is_empty(), akey.is_empty(), extent) {
        (true, ..) => Punch::Object,
        (_, true, _) => Punch::Dkey(dkey),
        (_, _, None) => Punch::Akey { dkey, akey },
        (_, _, Some(extent)) => Punch::Range { dkey, akey, extent },
    }
}

pub(crate) fn entry_update<'a>(entry: &'a data::Entry<'a>) -> EntryUpdate<'a> {
    EntryUpdate {
        dkey: entry.dkey,
        akey: entry.akey,
        kind: kind_of(entry.kind),
        condition: condition_of(entry.condition),
        extents: &entry.extents,
        data: entry.data,
        checksum: entry.checksum,
    }
}

fn kind_of(kind: data::ValueKind) -> talea_vos::ValueKind {
    match kind {
        data::ValueKind::Single => talea_vos::ValueKind::Single,
        data::ValueKind::SingleMax => talea_vos::ValueKind::SingleMax,
        data::ValueKind::Array { record_bytes } => talea_vos::ValueKind::Array { record_bytes },
    }
}

pub(crate) fn condition_of(condition: data::Condition) -> talea_vos::Condition {
    match condition {
        data::Condition::None => talea_vos::Condition::None,
        data::Condition::Insert => talea_vos::Condition::Insert,
        data::Condition::Update => talea_vos::Condition::Update,
        data::Condition::DkeyInsert => talea_vos::Condition::DkeyInsert,
        data::Condition::DkeyUpdate => talea_vos::Condition::DkeyUpdate,
    }
}
