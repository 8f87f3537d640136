//! Checkpoints: the index written down in portions, so that a restart replays little and space comes back.
//!
//! A checkpoint is fuzzy: updates go on while it is written. Each dkey says up to which log record it is described, and replay
//! skips those records. Aggregation goes on meanwhile: what the checkpoint names stays on the medium until the next one.

use std::collections::BTreeSet;

use talea_tier::{Tier, TierError};

use super::Store;
use super::dump::{Dumping, encode_dkey, encode_object};
use super::room::LEFT_BY_MOVING;
use super::state::encode_segments;
use crate::index::node::{Dkey, Object};
use crate::index::version::Bytes;
use crate::log::Segment;
use crate::log::bytes::Writer;
use crate::log::chain::Chain;
use crate::log::header::{SUPERBLOCK_AT, Superblock};
use crate::log::record::kind;
use crate::{Plant, StoreError};

/// A checkpoint under way.
pub(super) struct Checkpoint {
    chain: Chain,
    /// First segment of the log that it does not cover, and the number of its first record.
    log: Segment,
    first_lsn: u64,
    /// Log bytes written before it began.
    covered_bytes: u64,
    /// Segments that were in use when it began.
    older: Vec<u64>,
    /// Blocks that nothing names any more since before it began.
    waiting: Vec<(u64, u64)>,
    /// Bytes of values that may still move into it.
    may_move_bytes: u64,
    /// Bytes of values that moved into it.
    moved_bytes: u64,
    /// Segments with values that it names.
    named: BTreeSet<u64>,
    next_object: u32,
    next_dkey: u32,
    /// The dkey that it is in the middle of.
    dumping: Option<Dumping>,
}

/// Columns and values in one record of a checkpoint.
const PART_ITEMS: usize = 256;
/// Vacant numbers that count as one item.
const SKIPS: u32 = 64;

impl Store {
    /// Whether one could begin now.
    pub(super) fn may_checkpoint(&self) -> bool {
        !self.log.is_volatile()
            && self.too_little_bytes.is_none_or(|bytes| self.log.space.free_bytes() > bytes)
            && self.leases_leave_room()
    }

    /// Begins a checkpoint if one is due. Finding no room for it is no failure: it is tried again when there is more.
    pub(super) fn begin_wanted_checkpoint(&mut self) -> Result<(), StoreError> {
        if self.checkpoint.is_some() || !self.may_checkpoint() || !self.wants_checkpoint() {
            return Ok(());
        }
        let begun = self.begin_checkpoint();
        self.without_room(begun)
    }

    fn without_room(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        self.too_little_bytes = None;
        match result {
            Err(StoreError::NoSpace { .. } | StoreError::Tier(TierError::NoRoom { .. })) => {
                self.too_little_bytes = Some(self.log.space.free_bytes());
                Ok(())
            }
            result => result,
        }
    }

    /// Whether a checkpoint is worth its writing.
    pub(super) fn wants_checkpoint(&self) -> bool {
        let log = &self.log;
        let grown = match self.options.checkpoint_bytes {
            0 => log.since_checkpoint_bytes > (16 * log.segment_bytes()).max(2 * self.dump_bytes),
            bytes => log.since_checkpoint_bytes > bytes,
        };
        let (space, capacity) = (&log.space, log.capacity_bytes() + log.bulk_bytes());
        let back = space.waiting_bytes() + log.garbage_bytes;
        let scarce = space.free_bytes() < capacity / 8 && back > capacity / 64;
        let much = log.garbage_bytes > log.capacity_bytes() / 8;
        let asked = self.room_wanted && (back > 0 || log.since_checkpoint_bytes > 4 * log.segment_bytes());
        let needed = self.rewrite || asked || self.is_tight();
        needed || grown || scarce || much || space.wants_checkpoint(log.capacity_bytes(), log.bulk_bytes())
    }

    /// Begins a checkpoint.
    fn begin_checkpoint(&mut self) -> Result<(), StoreError> {
        self.free_gone();
        self.log.roll(0)?;
        let older = self.log.segments.keys().copied().filter(|start| *start != self.log.current().start).collect();
        let mut chain = Chain::start(&mut self.log)?;
        let mut payload = Writer::default();
        payload.begin_record();
        self.memory.encode_state(self.options.plant, &mut payload);
        if let Err(error) = chain.append(&mut self.log, kind::STATE, &mut payload, &[]) {
            self.give_up(&chain);
            return Err(error);
        }
        (self.rewrite, self.room_wanted, self.log.garbage_bytes) = (false, false, 0);
        self.rounds.begun += 1;
        // Values that move need room beside what describes them.
        let spare_bytes = self.log.space.free_in(Tier::Log).saturating_sub(self.checkpoint_bytes());
        let stays_bytes = LEFT_BY_MOVING * self.log.segment_bytes();
        self.checkpoint = Some(Checkpoint {
            may_move_bytes: spare_bytes.saturating_sub(stays_bytes),
            moved_bytes: 0,
            chain,
            log: self.log.current(),
            first_lsn: self.log.next_lsn(),
            covered_bytes: self.log.since_checkpoint_bytes,
            older,
            waiting: self.log.space.take_waiting(),
            named: BTreeSet::new(),
            next_object: 0,
            next_dkey: 0,
            dumping: None,
        });
        Ok(())
    }

    /// Goes on with a checkpoint; returns what is left of the budget.
    pub(super) fn write_checkpoint(&mut self, mut budget: usize) -> Result<usize, StoreError> {
        let Some(mut checkpoint) = self.checkpoint.take() else { return Ok(budget) };
        while budget > 0 {
            match self.write_next(&mut checkpoint, budget.min(PART_ITEMS)) {
                Ok(0) => {
                    let finished = self.finish_checkpoint(checkpoint);
                    return self.without_room(finished).map(|()| budget);
                }
                Ok(items) => {
                    self.items += items as u64;
                    budget = budget.saturating_sub(items);
                }
                Err(error) => {
                    self.abandon(checkpoint);
                    return self.without_room(Err(error)).map(|()| 0);
                }
            }
        }
        self.checkpoint = Some(checkpoint);
        Ok(0)
    }

    /// Writes the next node, or a part of one; returns how many items that were, 0 if there is nothing left.
    fn write_next(&mut self, checkpoint: &mut Checkpoint, limit: usize) -> Result<usize, StoreError> {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.begin_record();
        let result = self.find_next(checkpoint, limit, &mut payload);
        self.scratch = payload;
        result
    }

    fn find_next(
        &mut self,
        checkpoint: &mut Checkpoint,
        limit: usize,
        payload: &mut Writer,
    ) -> Result<usize, StoreError> {
        let as_of = self.log.next_lsn() - 1;
        let index = &self.memory.index;
        for _ in 0..SKIPS {
            if let Some(dumping) = checkpoint.dumping.take() {
                return self.write_part(checkpoint, dumping, kind::MORE, limit, payload);
            }
            if checkpoint.next_object < index.objects.bound() {
                checkpoint.next_object += 1;
                let object = index.objects.get(checkpoint.next_object - 1);
                let wanted =
                    |object: &&Object| !object.punches.is_empty() && !index.destroyed.contains(&object.at.container);
                if let Some(object) = object.filter(wanted) {
                    encode_object(object, as_of, &index.versions, payload);
                    return checkpoint.chain.append(&mut self.log, kind::OBJECT, payload, &[]).map(|_| 1);
                }
            } else if checkpoint.next_dkey < index.dkeys.bound() {
                checkpoint.next_dkey += 1;
                let id = checkpoint.next_dkey - 1;
                if index.dkeys.get(id).is_some_and(|node| !index.is_doomed(node)) {
                    return self.write_part(checkpoint, Dumping::new(id, as_of), kind::DKEY, limit, payload);
                }
            } else {
                return Ok(0);
            }
        }
        Ok(1)
    }

    fn write_part(
        &mut self,
        checkpoint: &mut Checkpoint,
        mut dumping: Dumping,
        kind: u8,
        limit: usize,
        payload: &mut Writer,
    ) -> Result<usize, StoreError> {
        let index = &self.memory.index;
        // A number may stand for another dkey by now, if the container was destroyed.
        let same = |node: &&Dkey| kind == kind::DKEY || node.written;
        let Some(node) = index.dkeys.get(dumping.dkey).filter(same) else { return Ok(1) };
        let Some(at) = index.objects.get(node.object).map(|object| object.at) else { return Ok(1) };
        let (log, older, named) = (&self.log, &checkpoint.older, &mut checkpoint.named);
        let may_move_bytes = &mut checkpoint.may_move_bytes;
        // Values in old segments of which little is left move, so that the segments come back.
        let mut mover = |place: Bytes| {
            if !place.inline || place.len == 0 {
                return None;
            }
            let (start, used) = log.segments.range(..=place.offset).next_back()?;
            let sparse = older.binary_search(start).is_ok() && used.live_bytes * 2 < used.segment.len;
            if sparse && u64::from(place.len) <= *may_move_bytes {
                *may_move_bytes -= u64::from(place.len);
                let mut bytes = vec![0; place.len as usize];
                if log.read(place.offset, &mut bytes).is_ok() {
                    return Some(bytes);
                }
            }
            named.insert(*start);
            None
        };
        let part = encode_dkey((at, node), &mut dumping, &index.versions, &mut mover, limit, payload);
        let appended = checkpoint.chain.append(&mut self.log, kind, payload, &part.data)?;
        if !part.moved.is_empty() {
            let segment = self.log.segments.range(..=appended.data_at).next_back().map(|(start, _)| *start);
            checkpoint.named.extend(segment);
        }
        for moved in part.moved {
            let versions = &mut self.memory.index.versions;
            let bytes = versions.bytes(moved.version);
            let to = appended.data_at + moved.at as u64;
            checkpoint.moved_bytes += u64::from(bytes.len);
            versions.set_offset(moved.version, to);
            self.log.count_live(bytes.offset, bytes.len.into(), false);
            self.log.count_live(to, bytes.len.into(), true);
        }
        self.memory.index.dkeys.must(dumping.dkey).written = !part.done;
        if !part.done {
            checkpoint.dumping = Some(dumping);
        } else if kind == kind::MORE {
            // Whatever aggregation could not do in it meanwhile.
            self.memory.index.mark_restless(dumping.dkey);
            self.memory.sweep_wanted = true;
        }
        Ok(part.items)
    }

    fn abandon(&mut self, checkpoint: Checkpoint) {
        if let Some(dumping) = &checkpoint.dumping
            && let Some(node) = self.memory.index.dkeys.get_mut(dumping.dkey)
        {
            node.written = false;
        }
        checkpoint.waiting.into_iter().for_each(|(start, len)| self.log.space.retire(start, len));
        self.give_up(&checkpoint.chain);
    }

    /// Makes the checkpoint the one that a restart begins with, and takes back what only the one before named.
    fn finish_checkpoint(&mut self, mut checkpoint: Checkpoint) -> Result<(), StoreError> {
        let named = std::mem::take(&mut checkpoint.named);
        let held = |log: &crate::log::Log, start: &u64| {
            log.segments.get(start).filter(|used| used.live_bytes > 0 || named.contains(start)).copied()
        };
        let pinned: Vec<Segment> =
            checkpoint.older.iter().filter_map(|start| held(&self.log, start)).map(|used| used.segment).collect();
        let mut payload = Writer::default();
        payload.begin_record();
        encode_segments(&pinned, &mut payload);
        if let Err(error) = checkpoint.chain.append(&mut self.log, kind::END, &mut payload, &[]) {
            self.abandon(checkpoint);
            return Err(error);
        }
        if self.options.plant != Plant::EarlySuperblock {
            self.log.flush()?;
        }
        self.superblock.generation += 1;
        self.superblock.log = checkpoint.log;
        self.superblock.first_lsn = checkpoint.first_lsn;
        self.superblock.checkpoint = checkpoint.chain.first;
        self.superblock.capacity_bytes = self.log.capacity_bytes();
        self.write_superblock()?;
        for start in checkpoint.older {
            if held(&self.log, &start).is_none()
                && let Some(used) = self.log.segments.remove(&start)
            {
                self.log.space.release(start, used.segment.len);
            }
        }
        self.returning.append(&mut checkpoint.waiting);
        self.log.since_checkpoint_bytes -= checkpoint.covered_bytes;
        self.dump_bytes = checkpoint.chain.bytes.saturating_sub(checkpoint.moved_bytes);
        self.log.chain.retain(|segment| segment.number >= checkpoint.log.number);
        self.checkpoint_chain = checkpoint.chain.segments;
        Ok(())
    }

    /// Writes the superblock into the place of the older of the two, and makes it durable.
    pub(super) fn write_superblock(&mut self) -> Result<(), StoreError> {
        let at = SUPERBLOCK_AT[(self.superblock.generation % 2) as usize];
        self.log.write_raw(at, &Superblock::encode(&self.superblock))?;
        self.log.persist()
    }

    /// Takes back the segments of a chain that nothing will point to. Those that values moved into stay until a later checkpoint.
    fn give_up(&mut self, chain: &Chain) {
        for segment in &chain.segments {
            if self.log.segments.get(&segment.start).is_some_and(|used| used.live_bytes == 0) {
                self.log.segments.remove(&segment.start);
                self.log.space.release(segment.start, segment.len);
            }
        }
    }
}
