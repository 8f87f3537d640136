//! Recovery: checkpoint and log read back, the torn tail cut off, free space computed from what they name.
//!
//! A record can be whole while its values are torn, if a crash came before the flush that was to cover both. So the values of
//! records that nothing later proves to have been flushed are verified, and the first one that fails is the tail.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use talea_tier::{Media, Medium, TierError};

use super::memory::Memory;
use super::open::Sizes;
use crate::StoreError;
use crate::checksum::granules;
use crate::index::version::Place;
use crate::log::chain::CHECKPOINT_LSN;
use crate::log::header::Superblock;
use crate::log::record::kind;
use crate::log::scan::{Scanned, scan};
use crate::log::{Resume, Segment, SegmentUse};
use crate::spaces::Spaces;

/// Values in blocks that the log names.
#[derive(Default)]
pub(super) struct Named {
    /// Where they lie, and their bytes.
    runs: Vec<(u64, u64)>,
    /// Those of records that nothing read so far proves, by record.
    unproven: Vec<(u64, Place)>,
}

impl Named {
    /// A record names a value.
    pub(super) fn add(&mut self, lsn: u64, place: &Place) {
        if !place.inline && place.len > 0 {
            self.runs.push((place.offset, place.len.into()));
            self.unproven.push((lsn, place.clone()));
        }
    }

    /// All records below `flushed` were durable.
    fn prove(&mut self, flushed: u64) {
        if self.unproven.first().is_some_and(|(lsn, _)| *lsn < flushed) {
            self.unproven.retain(|(lsn, _)| *lsn >= flushed);
        }
    }

    /// The first record of which a value is torn.
    fn torn(&self, media: &Media) -> Result<Option<u64>, TierError> {
        let mut bytes = Vec::new();
        for (lsn, place) in &self.unproven {
            bytes.resize(place.len as usize, 0);
            match media.read(place.offset, &mut bytes) {
                Ok(()) if granules(&bytes).0 == place.granules => {}
                Ok(()) | Err(TierError::OutOfRange { .. }) => return Ok(Some(*lsn)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// What a pass over checkpoint and log found.
struct Pass {
    memory: Memory,
    scanned: Scanned,
    in_use: Vec<Segment>,
    /// Those of the checkpoint.
    checkpoint: Vec<Segment>,
}

/// Reads checkpoint and log.
pub(super) fn recover(
    media: &mut Media,
    superblock: &Superblock,
    sizes: Sizes,
) -> Result<(Memory, Resume), StoreError> {
    let mut pass = read(media, superblock, u64::MAX)?;
    // Where durable records are missing already, every one that is left counts.
    if !pass.memory.lost
        && let Some(torn) = pass.memory.named.torn(media)?
    {
        pass = read(media, superblock, torn)?;
    }
    cut_tail(media, &pass.scanned)?;
    let resume = resume_after(&mut pass, sizes);
    Ok((pass.memory, resume))
}

/// Reads checkpoint and log, the latter up to record `until`.
fn read(media: &Media, superblock: &Superblock, until: u64) -> Result<Pass, StoreError> {
    let mut memory = Memory::default();
    let (mut in_use, mut checkpoint): (Vec<Segment>, Vec<Segment>) = (Vec::new(), Vec::new());
    if superblock.checkpoint.len > 0 {
        let mut pinned = None;
        let scanned = scan(media, superblock.nonce, superblock.checkpoint, CHECKPOINT_LSN, u64::MAX, |found| {
            if found.kind == kind::NEXT {
                return ControlFlow::Continue(());
            }
            match memory.replay_checkpoint(&found) {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(segments)) => {
                    pinned = Some(segments);
                    ControlFlow::Break(())
                }
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        memory.lost |= scanned.lost || pinned.is_none();
        in_use.extend(&scanned.segments);
        checkpoint = scanned.segments;
        in_use.extend(pinned.unwrap_or_default());
    }
    let scanned = scan(media, superblock.nonce, superblock.log, superblock.first_lsn, until, |found| {
        memory.lost |= found.kind != kind::NEXT && memory.replay(&found).is_err();
        memory.named.prove(found.flushed);
        ControlFlow::Continue(())
    })?;
    memory.lost |= scanned.lost;
    memory.named.prove(scanned.proven);
    memory.end_replay();
    in_use.extend(&scanned.segments);
    Ok(Pass { memory, scanned, in_use, checkpoint })
}

/// Overwrites what survived of records behind the tail: they were never acknowledged, and must not come back later.
fn cut_tail(media: &mut Media, scanned: &Scanned) -> Result<(), StoreError> {
    if let Some(last) = scanned.segments.last().filter(|_| scanned.dirty_tail) {
        let zeros = vec![0; (last.len - scanned.filled) as usize];
        media.write(last.start + scanned.filled, &zeros)?;
        media.persist()?;
    }
    Ok(())
}

/// Finds out which blocks are free: not those that versions name, and, until the next checkpoint, not those that only the log
/// does.
fn resume_after(pass: &mut Pass, sizes: Sizes) -> Resume {
    let (memory, scanned) = (&mut pass.memory, &pass.scanned);
    let next_segment = pass.in_use.iter().map(|segment| segment.number).max().unwrap_or(0) + 1;
    let mut segments: BTreeMap<u64, SegmentUse> =
        pass.in_use.iter().map(|segment| (segment.start, SegmentUse { segment: *segment, live_bytes: 0 })).collect();
    let mut used: Vec<(u64, u64)> = segments.values().map(|used| (used.segment.start, used.segment.len)).collect();
    let versions = &memory.index.versions;
    for place in (0..versions.bound()).filter_map(|id| versions.live(id)) {
        if !place.inline {
            used.push((place.offset, place.len.into()));
            continue;
        }
        match segments.range_mut(..=place.offset).next_back() {
            Some((_, held)) if place.offset < held.segment.start + held.segment.len => {
                held.live_bytes += u64::from(place.len);
            }
            // A value in a segment that no list names: the medium is damaged.
            _ => memory.lost = true,
        }
    }
    let live: HashSet<u64> = used.iter().map(|(start, _)| *start).collect();
    let mut waiting = std::mem::take(&mut memory.named).runs;
    waiting.retain(|(start, _)| !live.contains(start));
    used.extend(&waiting);
    let mut space = sizes.without(used).unwrap_or_else(|_| {
        memory.lost = true;
        waiting.clear();
        Spaces::default()
    });
    waiting.into_iter().for_each(|(start, bytes)| space.retire(start, bytes));
    let nowhere = Segment { start: 0, len: 0, number: 0 };
    Resume {
        space,
        segments,
        chain: scanned.segments.clone(),
        checkpoint: std::mem::take(&mut pass.checkpoint),
        current: scanned.segments.last().copied().unwrap_or(nowhere),
        filled: scanned.filled,
        next_lsn: scanned.next_lsn,
        next_segment,
        since_checkpoint_bytes: scanned.bytes,
    }
}
