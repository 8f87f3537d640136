//! Replay: records of checkpoint and log applied to memory.

use talea_model::Extent;

use super::dump::{Restoring, decode_object};
use super::memory::Memory;
use super::state::decode_segments;
use crate::log::Segment;
use crate::log::bytes::Reader;
use crate::log::record::{BadRecord, Entry, Head, decode_follow, decode_punch, decode_value, kind};
use crate::log::scan::Found;
use crate::{ObjectRef, Punch};

impl Memory {
    /// Applies a record of a checkpoint. The last one gives the segments that hold values.
    pub(super) fn replay_checkpoint(&mut self, found: &Found) -> Result<Option<Vec<Segment>>, BadRecord> {
        if found.kind != kind::MORE {
            self.end_restoring();
        }
        match found.kind {
            kind::STATE => self.decode_state(found.meta)?,
            kind::OBJECT => {
                let (id, as_of) = decode_object(found, &mut self.index)?;
                self.as_of.objects.insert(id, as_of);
            }
            kind::DKEY => {
                let (restoring, as_of) = Restoring::begin(found, &mut self.index)?;
                self.as_of.dkeys.insert(restoring.dkey(), as_of);
                self.restoring = Some(restoring);
            }
            kind::MORE => self.restoring.as_mut().ok_or(BadRecord)?.go_on(found, &mut self.index)?,
            kind::END => return decode_segments(found.meta).map(Some),
            _ => return Err(BadRecord),
        }
        Ok(None)
    }

    /// Applies a record of the log.
    pub(super) fn replay(&mut self, found: &Found) -> Result<(), BadRecord> {
        let mut from = Reader::new(found.meta);
        match found.kind {
            kind::UPDATE => {
                let head = Head::decode(&mut from, found.lsn)?;
                self.replay_update(&head, from, found)?;
                self.note_done(&head.caller);
                self.ceiling = self.ceiling.max(head.tag.stamp);
            }
            kind::PUNCH => {
                let head = Head::decode(&mut from, found.lsn)?;
                let what = decode_punch(&mut from)?;
                if !self.knows(&head, &what, found.lsn) {
                    self.index.punch(head.at, what, head.tag).map_err(|_| BadRecord)?;
                }
                self.note_done(&head.caller);
                self.ceiling = self.ceiling.max(head.tag.stamp);
            }
            kind::FOLLOW => {
                let (changes, horizon) = decode_follow(&mut from)?;
                self.apply_changes(&changes, horizon);
            }
            kind::CEILING => self.ceiling = self.ceiling.max(talea_model::Stamp(from.u64()?)),
            kind::MARK => {}
            _ => return Err(BadRecord),
        }
        Ok(())
    }

    fn replay_update(&mut self, head: &Head, mut from: Reader, found: &Found) -> Result<(), BadRecord> {
        let mut values: Vec<(Extent, crate::index::version::Place)> = Vec::new();
        let (mut data, mut tag) = (found.data, head.tag);
        for _ in 0..from.u32()? {
            let entry = Entry::decode(&mut from)?;
            values.clear();
            for _ in 0..entry.values {
                let (extent, place) = decode_value(&mut from, &mut data)?;
                let record_bytes = u64::from(entry.record_bytes());
                if record_bytes != 0 && extent.count.checked_mul(record_bytes) != Some(place.len.into()) {
                    return Err(BadRecord);
                }
                self.named.add(found.lsn, &place);
                values.push((extent, place));
            }
            let (known, count) = (self.knows_dkey(head.at, entry.dkey, found.lsn), values.len() as u64);
            if !known && !self.index.destroyed.contains(&head.at.container) {
                let places = values.drain(..);
                let dkey = self.index.dkey_id(head.at, entry.dkey).map_err(|_| BadRecord)?;
                self.index.put(head.at.container, dkey, entry.akey, entry.kind, tag, places).map_err(|_| BadRecord)?;
            }
            tag.minor += count;
        }
        Ok(())
    }

    /// Whether the checkpoint, or the end of the container, made a punch superfluous.
    fn knows(&self, head: &Head, what: &Punch, lsn: u64) -> bool {
        let known = match what {
            Punch::Object => {
                let as_of = self.index.find_object(head.at).and_then(|id| self.as_of.objects.get(&id));
                as_of.is_some_and(|as_of| *as_of >= lsn)
            }
            Punch::Dkey(dkey) | Punch::Akey { dkey, .. } | Punch::Range { dkey, .. } => {
                self.knows_dkey(head.at, dkey, lsn)
            }
        };
        known || self.index.destroyed.contains(&head.at.container)
    }

    fn knows_dkey(&self, at: ObjectRef, dkey: &[u8], lsn: u64) -> bool {
        if self.as_of.dkeys.is_empty() {
            return false;
        }
        let as_of = self.index.find_dkey(at, dkey).and_then(|id| self.as_of.dkeys.get(&id));
        as_of.is_some_and(|as_of| *as_of >= lsn)
    }
}
