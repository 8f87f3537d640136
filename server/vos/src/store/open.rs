//! Opening: a fresh medium gets a store, an old one gives its store back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use talea_model::PoolId;
use talea_tier::Medium;

use super::Store;
use super::memory::Memory;
use crate::error::PoolIdHex;
use crate::log::bytes::Writer;
use crate::log::chain::CHECKPOINT_LSN;
use crate::log::header::{
    FIRST_BLOCK, FoundSuperblock, SEGMENT_HEADER_BYTES, SUPERBLOCK_AT, SUPERBLOCK_BYTES, SegmentHeader, Superblock,
};
use crate::log::scan::{Scanned, scan};
use crate::log::{Log, Resume, Segment, SegmentUse};
use crate::space::{BLOCK_BYTES, Space};
use crate::{Recovered, StoreError, StoreOptions};

impl Store {
    /// Opens the store on a medium, making it if the medium is empty, and replays its log.
    pub fn open(mut medium: Box<dyn Medium>, options: StoreOptions) -> Result<(Store, Recovered), StoreError> {
        let capacity = medium.capacity_bytes() / BLOCK_BYTES * BLOCK_BYTES;
        let segment_bytes = match options.segment_bytes {
            0 => (capacity / 128).clamp(64 << 10, 4 << 20),
            bytes => bytes.next_multiple_of(BLOCK_BYTES),
        };
        if capacity < FIRST_BLOCK + 4 * segment_bytes {
            return Err(StoreError::Bad("the medium is too small for a store: 4 log segments are needed at least"));
        }
        let found = find_superblock(&*medium)?;
        let (superblock, memory, resume) = match found {
            Some(superblock) => {
                check_superblock(&superblock, &options, capacity)?;
                let (memory, resume) = recover(&mut *medium, &superblock, capacity)?;
                (superblock, memory, resume)
            }
            None => {
                let superblock = format(&mut *medium, &options, segment_bytes, capacity)?;
                (superblock, Memory::default(), first_resume(superblock.log, capacity)?)
            }
        };
        let recovered = Recovered {
            fresh: found.is_none(),
            horizon: memory.ledger.horizon(),
            ceiling: memory.ceiling,
            lost: memory.lost,
        };
        let log = Log::new(medium, superblock.nonce, segment_bytes, options.plant, resume);
        let scratch = Writer::default();
        let mut store = Store { log, memory, superblock, options, checkpoint: None, dump_bytes: 0, scratch };
        store.memory.sweep_wanted = true;
        Ok((store, recovered))
    }
}

/// The newer of the two superblocks; `None` on an empty medium.
fn find_superblock(medium: &dyn Medium) -> Result<Option<Superblock>, StoreError> {
    let mut best: Option<Superblock> = None;
    let (mut damaged, mut foreign, mut version) = (false, false, None);
    for at in SUPERBLOCK_AT {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        medium.read(at, &mut bytes)?;
        match Superblock::decode(&bytes) {
            FoundSuperblock::Whole(found) if best.is_none_or(|best| best.generation < found.generation) => {
                best = Some(found);
            }
            FoundSuperblock::Whole(_) | FoundSuperblock::Nothing => {}
            FoundSuperblock::Damaged => damaged = true,
            FoundSuperblock::Foreign => foreign = true,
            FoundSuperblock::Version(found) => version = Some(found),
        }
    }
    match (best, version) {
        (Some(best), _) => Ok(Some(best)),
        (None, Some(found)) => Err(StoreError::Version { found, supported: crate::log::header::FORMAT_VERSION }),
        _ if damaged => Err(StoreError::Superblock),
        _ if foreign => Err(StoreError::Foreign),
        _ => Ok(None),
    }
}

fn check_superblock(superblock: &Superblock, options: &StoreOptions, capacity: u64) -> Result<(), StoreError> {
    if options.pool != PoolId(0) && (superblock.pool, superblock.target) != (options.pool, options.target) {
        return Err(StoreError::Mismatch {
            found_pool: PoolIdHex(superblock.pool),
            found_target: superblock.target,
            pool: PoolIdHex(options.pool),
            target: options.target,
        });
    }
    if superblock.capacity_bytes > capacity {
        return Err(StoreError::Shrunk { made_bytes: superblock.capacity_bytes, found_bytes: capacity });
    }
    Ok(())
}

/// Writes an empty store. The superblock's magic number comes last: a crash before leaves an empty medium.
fn format(
    medium: &mut dyn Medium,
    options: &StoreOptions,
    segment_bytes: u64,
    capacity_bytes: u64,
) -> Result<Superblock, StoreError> {
    let log = Segment { start: FIRST_BLOCK, len: segment_bytes, number: 1 };
    let superblock = Superblock {
        generation: 0,
        pool: options.pool,
        target: options.target,
        nonce: options.nonce,
        capacity_bytes,
        log,
        first_lsn: 1,
        checkpoint: Segment { start: 0, len: 0, number: 0 },
    };
    let bytes = superblock.encode();
    medium.write(log.start, &SegmentHeader { segment: log, next: None }.encode(options.nonce))?;
    medium.write(SUPERBLOCK_AT[0] + 8, &bytes[8..])?;
    medium.persist()?;
    medium.write(SUPERBLOCK_AT[0], &bytes)?;
    medium.persist()?;
    Ok(superblock)
}

fn first_resume(current: Segment, capacity: u64) -> Result<Resume, StoreError> {
    let used = SegmentUse { segment: current, live_bytes: 0 };
    let space = Space::without(FIRST_BLOCK, capacity, vec![(current.start, current.len)]);
    Ok(Resume {
        space: space.map_err(|_| StoreError::Superblock)?,
        segments: BTreeMap::from([(current.start, used)]),
        current,
        filled: SEGMENT_HEADER_BYTES as u64,
        next_lsn: 1,
        next_segment: 2,
        since_checkpoint_bytes: 0,
    })
}

/// Reads checkpoint and log.
fn recover(medium: &mut dyn Medium, superblock: &Superblock, capacity: u64) -> Result<(Memory, Resume), StoreError> {
    let mut memory = Memory::default();
    let mut in_use: Vec<Segment> = Vec::new();
    if superblock.checkpoint.len > 0 {
        let mut pinned = None;
        let scanned = scan(medium, superblock.nonce, superblock.checkpoint, CHECKPOINT_LSN, |found| {
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
        in_use.extend(scanned.segments);
        in_use.extend(pinned.unwrap_or_default());
    }
    let scanned = scan(medium, superblock.nonce, superblock.log, superblock.first_lsn, |found| {
        if memory.replay(&found).is_err() {
            memory.lost = true;
        }
        ControlFlow::Continue(())
    })?;
    memory.lost |= scanned.lost;
    memory.index.versions.take_freed();
    in_use.extend(&scanned.segments);
    cut_tail(medium, &scanned)?;
    let resume = resume_after(&mut memory, &scanned, in_use, capacity);
    Ok((memory, resume))
}

/// Overwrites what survived of records behind the tail: they were never acknowledged, and must not come back later.
fn cut_tail(medium: &mut dyn Medium, scanned: &Scanned) -> Result<(), StoreError> {
    if let Some(last) = scanned.segments.last().filter(|_| scanned.dirty_tail) {
        let zeros = vec![0; (last.len - scanned.filled) as usize];
        medium.write(last.start + scanned.filled, &zeros)?;
        medium.persist()?;
    }
    Ok(())
}

/// Finds out which blocks are free, by what versions name.
fn resume_after(memory: &mut Memory, scanned: &Scanned, in_use: Vec<Segment>, capacity: u64) -> Resume {
    let next_segment = in_use.iter().map(|segment| segment.number).max().unwrap_or(0) + 1;
    let mut segments: BTreeMap<u64, SegmentUse> =
        in_use.into_iter().map(|segment| (segment.start, SegmentUse { segment, live_bytes: 0 })).collect();
    let mut used: Vec<(u64, u64)> = segments.values().map(|used| (used.segment.start, used.segment.len)).collect();
    for place in memory.index.versions.places().filter(|place| place.len > 0) {
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
    let space = Space::without(FIRST_BLOCK, capacity, used).unwrap_or_else(|_| {
        memory.lost = true;
        Space::default()
    });
    let nowhere = Segment { start: 0, len: 0, number: 0 };
    Resume {
        space,
        segments,
        current: scanned.segments.last().copied().unwrap_or(nowhere),
        filled: scanned.filled,
        next_lsn: scanned.next_lsn,
        next_segment,
        since_checkpoint_bytes: scanned.bytes,
    }
}
