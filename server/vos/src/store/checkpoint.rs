//! Checkpoints: the index written down in portions, so that a restart replays little and space comes back.
//!
//! A checkpoint is fuzzy: updates go on while it is written. Each dkey says up to which log record it is described, and replay
//! skips those records. Nothing that only aggregation may take away is taken away while one is under way.

use super::Store;
use super::dump::{encode_dkey, encode_object};
use super::state::encode_segments;
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
    next_object: u32,
    next_dkey: u32,
}

impl Store {
    /// Whether a checkpoint is worth its writing.
    pub(super) fn wants_checkpoint(&self) -> bool {
        let log = &self.log;
        let grown = match self.options.checkpoint_bytes {
            0 => log.since_checkpoint_bytes > (16 * log.segment_bytes()).max(2 * self.dump_bytes),
            bytes => log.since_checkpoint_bytes > bytes,
        };
        grown || log.space.wants_checkpoint(log.capacity_bytes(), log.bulk_bytes())
    }

    /// Begins a checkpoint.
    pub(super) fn begin_checkpoint(&mut self) -> Result<(), StoreError> {
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
        self.checkpoint = Some(Checkpoint {
            chain,
            log: self.log.current(),
            first_lsn: self.log.next_lsn(),
            covered_bytes: self.log.since_checkpoint_bytes,
            older,
            waiting: self.log.space.take_waiting(),
            next_object: 0,
            next_dkey: 0,
        });
        Ok(())
    }

    /// Goes on with a checkpoint; returns what is left of the budget.
    pub(super) fn write_checkpoint(&mut self, mut budget: usize) -> Result<usize, StoreError> {
        let Some(mut checkpoint) = self.checkpoint.take() else { return Ok(budget) };
        while budget > 0 {
            match self.write_next(&mut checkpoint) {
                Ok(true) => budget -= 1,
                Ok(false) => {
                    self.finish_checkpoint(checkpoint)?;
                    return Ok(budget);
                }
                Err(error) => {
                    checkpoint.waiting.into_iter().for_each(|(start, len)| self.log.space.retire(start, len));
                    self.give_up(&checkpoint.chain);
                    return Err(error);
                }
            }
        }
        self.checkpoint = Some(checkpoint);
        Ok(0)
    }

    /// Writes the next node; false if there is none.
    fn write_next(&mut self, checkpoint: &mut Checkpoint) -> Result<bool, StoreError> {
        let as_of = self.log.next_lsn() - 1;
        let mut payload = std::mem::take(&mut self.scratch);
        payload.begin_record();
        let result = loop {
            if checkpoint.next_object < self.memory.index.objects.bound() {
                checkpoint.next_object += 1;
                let object = self.memory.index.objects.get(checkpoint.next_object - 1);
                if let Some(object) = object.filter(|object| !object.punches.is_empty()) {
                    encode_object(object, as_of, &self.memory.index.versions, &mut payload);
                    break checkpoint.chain.append(&mut self.log, kind::OBJECT, &mut payload, &[]).map(|_| true);
                }
            } else if checkpoint.next_dkey < self.memory.index.dkeys.bound() {
                checkpoint.next_dkey += 1;
                if self.memory.index.dkeys.get(checkpoint.next_dkey - 1).is_some() {
                    break self.write_dkey(checkpoint, as_of, &mut payload).map(|()| true);
                }
            } else {
                break Ok(false);
            }
        };
        self.scratch = payload;
        result
    }

    fn write_dkey(&mut self, checkpoint: &mut Checkpoint, as_of: u64, payload: &mut Writer) -> Result<(), StoreError> {
        let Some(node) = self.memory.index.dkeys.get(checkpoint.next_dkey - 1) else { return Ok(()) };
        let log = &self.log;
        let older = &checkpoint.older;
        // Values in old segments of which little is left move, so that the segments come back.
        let mover = |place: &crate::index::version::Place| {
            if !place.inline || place.len == 0 {
                return None;
            }
            let (start, used) = log.segments.range(..=place.offset).next_back()?;
            if older.binary_search(start).is_err() || used.live_bytes * 2 >= used.segment.len {
                return None;
            }
            let mut bytes = vec![0; place.len as usize];
            log.read(place.offset, &mut bytes).ok().map(|()| bytes)
        };
        let (moved, data) = encode_dkey(node, as_of, &self.memory.index.versions, &mover, payload);
        let appended = checkpoint.chain.append(&mut self.log, kind::DKEY, payload, &data)?;
        for moved in moved {
            let place = self.memory.index.versions.place_mut(moved.version);
            let (from, to) = (place.offset, appended.data_at + moved.at as u64);
            place.offset = to;
            let len = u64::from(place.len);
            self.log.count_live(from, len, false);
            self.log.count_live(to, len, true);
        }
        Ok(())
    }

    /// Makes the checkpoint the one that a restart begins with, and takes back what only the one before named.
    fn finish_checkpoint(&mut self, mut checkpoint: Checkpoint) -> Result<(), StoreError> {
        let held =
            |log: &crate::log::Log, start: &u64| log.segments.get(start).filter(|used| used.live_bytes > 0).copied();
        let pinned: Vec<Segment> =
            checkpoint.older.iter().filter_map(|start| held(&self.log, start)).map(|used| used.segment).collect();
        let mut payload = Writer::default();
        payload.begin_record();
        encode_segments(&pinned, &mut payload);
        if let Err(error) = checkpoint.chain.append(&mut self.log, kind::END, &mut payload, &[]) {
            checkpoint.waiting.into_iter().for_each(|(start, len)| self.log.space.retire(start, len));
            self.give_up(&checkpoint.chain);
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
        checkpoint.waiting.into_iter().for_each(|(start, len)| self.log.space.release(start, len));
        self.log.since_checkpoint_bytes -= checkpoint.covered_bytes;
        self.dump_bytes = checkpoint.chain.bytes;
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
