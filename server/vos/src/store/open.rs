//! Opening: a fresh medium gets a store, an old one gives its store back.

use std::collections::BTreeMap;

use talea_model::PoolId;
use talea_tier::{Address, Media, Medium, Tier};

use super::Store;
use super::memory::Memory;
use super::recover::recover;
use super::update::Keeping;
use crate::error::PoolIdHex;
use crate::log::bulk::{BULK_HEADER_BYTES, BulkHeader, FoundBulk};
use crate::log::bytes::Writer;
use crate::log::header::{
    FIRST_BLOCK, FIRST_BULK_BLOCK, FoundSuperblock, SEGMENT_HEADER_BYTES, SUPERBLOCK_AT, SUPERBLOCK_BYTES,
    SegmentHeader, Superblock,
};
use crate::log::{Log, Resume, Segment, SegmentUse};
use crate::space::BLOCK_BYTES;
use crate::spaces::{Bounds, Spaces};
use crate::{Recovered, StoreError, StoreOptions};

/// Where the header of a bulk tier lies.
pub(super) const BULK_HEADER_AT: u64 = Address::new(Tier::Bulk, 0).0;

/// The sizes of a store's tiers, in whole blocks.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Bytes of the tier with the log.
    pub(super) log: u64,
    /// Bytes of the tier for bulk; 0 if there is none.
    pub(super) bulk: u64,
}

impl Sizes {
    fn of(media: &Media) -> Self {
        let whole = |bytes: u64| bytes / BLOCK_BYTES * BLOCK_BYTES;
        let bulk = media.medium(Tier::Bulk).map_or(0, |bulk| bulk.capacity_bytes());
        Self { log: whole(media.capacity_bytes()), bulk: whole(bulk) }
    }

    /// Free space but what is used.
    pub(super) fn without(self, used: Vec<(u64, u64)>) -> Result<Spaces, crate::space::Overlap> {
        let bulk = |bytes| Bounds {
            first: Address::new(Tier::Bulk, FIRST_BULK_BLOCK).0,
            end: Address::new(Tier::Bulk, bytes).0,
        };
        let log = Bounds { first: FIRST_BLOCK, end: self.log };
        Spaces::without(log, (self.bulk > 0).then(|| bulk(self.bulk)), used)
    }
}

impl Store {
    /// Opens the store on its tiers (or on one medium), making it if they are empty, and replays its log.
    pub fn open(media: impl Into<Media>, options: StoreOptions) -> Result<(Store, Recovered), StoreError> {
        let mut media = media.into();
        let sizes = Sizes::of(&media);
        let capacity = sizes.log;
        let segment_bytes = match options.segment_bytes {
            0 => (capacity / 128).clamp(64 << 10, 4 << 20),
            bytes => bytes.next_multiple_of(BLOCK_BYTES),
        };
        if capacity < FIRST_BLOCK + 4 * segment_bytes {
            return Err(StoreError::Bad("the medium is too small for a store: 4 log segments are needed at least"));
        }
        let found = match begin(&mut media, &options, segment_bytes, sizes) {
            Ok(found) => found,
            Err(error) => {
                media.undo_open();
                return Err(error);
            }
        };
        let (superblock, memory, resume) = match found {
            Found::Old(superblock) => {
                let (memory, resume) = recover(&mut media, &superblock, sizes)?;
                (superblock, memory, resume)
            }
            Found::Made(superblock) => (superblock, Memory::default(), first_resume(superblock.log, sizes)?),
        };
        let recovered = Recovered {
            fresh: matches!(found, Found::Made(_)),
            horizon: memory.ledger.horizon(),
            ceiling: memory.ceiling,
            lost: memory.lost,
        };
        let mut resume = resume;
        let checkpoint_chain = std::mem::take(&mut resume.checkpoint);
        let mut log = Log::new(media, superblock.nonce, segment_bytes, options.plant, resume);
        log.sums = !superblock.unsummed;
        let scratch = Writer::default();
        let mut store = Store {
            keeping: Keeping::of(&log),
            compaction: None,
            garbage_left_bytes: 0,
            moving: Vec::new(),
            room_wanted: false,
            rounds: Default::default(),
            too_little_bytes: None,
            returning: Vec::new(),
            log,
            memory,
            superblock,
            options,
            checkpoint: None,
            dump_bytes: 0,
            scratch,
            items: 0,
            scrub: Default::default(),
            checkpoint_chain,
            rewrite: false,
        };
        store.memory.sweep_wanted = true;
        Ok((store, recovered))
    }
}

/// What the tiers hold.
enum Found {
    /// A store that was there.
    Old(Superblock),
    /// One that was made now.
    Made(Superblock),
}

/// Looks at the tiers: whose they are, and whether they are whole. Makes a store where there is nothing.
fn begin(media: &mut Media, options: &StoreOptions, segment_bytes: u64, sizes: Sizes) -> Result<Found, StoreError> {
    match find_superblock(media)? {
        Some(superblock) => {
            check_superblock(&superblock, options, sizes.log)?;
            check_bulk(media, &superblock, sizes)?;
            check_ends(media, &superblock)?;
            Ok(Found::Old(superblock))
        }
        None if is_beheaded(media)? => Err(StoreError::Beheaded),
        None => Ok(Found::Made(format(media, options, segment_bytes, sizes)?)),
    }
}

/// Whether records lie where the first segment of a log has them, on a medium without a superblock. A crash while a store is made leaves
/// no record: they come when the superblock is durable.
pub(super) fn is_beheaded(media: &Media) -> Result<bool, StoreError> {
    let at = FIRST_BLOCK + SEGMENT_HEADER_BYTES as u64;
    let mut bytes = [0; BLOCK_BYTES as usize - SEGMENT_HEADER_BYTES];
    media.read(at, &mut bytes)?;
    Ok(bytes.iter().any(|byte| *byte != 0))
}

/// Checks that opening had not to make a tier longer to have it as long as it was made: what lay behind its end is gone.
fn check_ends(media: &Media, superblock: &Superblock) -> Result<(), StoreError> {
    for (tier, made_bytes) in [(Tier::Log, superblock.capacity_bytes), (Tier::Bulk, superblock.bulk_bytes)] {
        let found_bytes = media.medium(tier).map_or(0, |medium| medium.found_bytes());
        if found_bytes < made_bytes {
            return Err(StoreError::Cut { tier, made_bytes, found_bytes });
        }
    }
    Ok(())
}

/// The newer of the two superblocks; `None` on an empty medium.
pub(crate) fn find_superblock(medium: &dyn Medium) -> Result<Option<Superblock>, StoreError> {
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
    if superblock.unsummed {
        return Err(StoreError::Unsummed);
    }
    if superblock.capacity_bytes > capacity {
        return Err(StoreError::Shrunk { made_bytes: superblock.capacity_bytes, found_bytes: capacity });
    }
    Ok(())
}

/// Checks that the bulk tier is the one that the log knows.
fn check_bulk(media: &Media, superblock: &Superblock, sizes: Sizes) -> Result<(), StoreError> {
    match (superblock.bulk_bytes, sizes.bulk) {
        (0, 0) => return Ok(()),
        (0, _) => return Err(StoreError::Bulk("it was made with one tier: give it none for bulk")),
        (_, 0) => return Err(StoreError::Bulk("there is none, and it was made with one: name it in the tier")),
        (made_bytes, found_bytes) if made_bytes > found_bytes => {
            return Err(StoreError::Shrunk { made_bytes, found_bytes });
        }
        _ => {}
    }
    let mut bytes = [0; BULK_HEADER_BYTES];
    media.read(BULK_HEADER_AT, &mut bytes)?;
    match BulkHeader::decode(&bytes) {
        FoundBulk::Whole(found) if found.nonce == superblock.nonce => Ok(()),
        FoundBulk::Whole(_) => Err(StoreError::Bulk("it belongs to another store: name the one that belongs to this")),
        FoundBulk::Damaged => Err(StoreError::Bulk("its header is damaged: restore it from a copy")),
        FoundBulk::Nothing => Err(StoreError::Bulk("it is empty: name the one that belongs to this")),
        FoundBulk::Foreign => Err(StoreError::Foreign),
    }
}

/// Gives an empty bulk tier its header; what belongs to somebody else is left alone.
fn format_bulk(media: &mut Media, superblock: &Superblock) -> Result<(), StoreError> {
    let mut bytes = [0; BULK_HEADER_BYTES];
    media.read(BULK_HEADER_AT, &mut bytes)?;
    match BulkHeader::decode(&bytes) {
        FoundBulk::Nothing => {}
        // A crash may have come between this header and the superblock; and what a log in memory named is gone with it.
        FoundBulk::Whole(found)
            if !media.is_persistent() || (found.pool, found.target) == (superblock.pool, superblock.target) => {}
        FoundBulk::Damaged if !media.is_persistent() => {}
        FoundBulk::Whole(_) => return Err(StoreError::Bulk("it belongs to another store: name an empty one")),
        FoundBulk::Damaged => return Err(StoreError::Bulk("it is damaged or of another version: name an empty one")),
        FoundBulk::Foreign => return Err(StoreError::Foreign),
    }
    Ok(media.write_padded(BULK_HEADER_AT, &BulkHeader::of(superblock).encode())?)
}

/// Writes an empty store, with both superblocks: damage to one does not cost it. The first one's magic number comes last: a crash
/// before leaves an empty medium.
fn format(
    medium: &mut Media,
    options: &StoreOptions,
    segment_bytes: u64,
    sizes: Sizes,
) -> Result<Superblock, StoreError> {
    let capacity_bytes = sizes.log;
    let log = Segment { start: FIRST_BLOCK, len: segment_bytes, number: 1 };
    let mut superblock = Superblock {
        generation: 0,
        pool: options.pool,
        target: options.target,
        nonce: options.nonce,
        capacity_bytes,
        log,
        first_lsn: 1,
        checkpoint: Segment { start: 0, len: 0, number: 0 },
        bulk_bytes: sizes.bulk,
        unsummed: options.unsummed,
    };
    if sizes.bulk > 0 {
        format_bulk(medium, &superblock)?;
    }
    let bytes = superblock.encode();
    medium.write_padded(log.start, &SegmentHeader { segment: log, next: None }.encode(options.nonce))?;
    medium.write(SUPERBLOCK_AT[0] + 8, &bytes[8..])?;
    medium.persist()?;
    medium.write(SUPERBLOCK_AT[0], &bytes)?;
    medium.persist()?;
    superblock.generation = 1;
    medium.write_padded(SUPERBLOCK_AT[1], &superblock.encode())?;
    medium.persist()?;
    Ok(superblock)
}

fn first_resume(current: Segment, sizes: Sizes) -> Result<Resume, StoreError> {
    let used = SegmentUse { segment: current, live_bytes: 0 };
    let space = sizes.without(vec![(current.start, current.len)]);
    Ok(Resume {
        space: space.map_err(|_| StoreError::Superblock)?,
        segments: BTreeMap::from([(current.start, used)]),
        chain: vec![current],
        checkpoint: Vec::new(),
        current,
        filled: SEGMENT_HEADER_BYTES as u64,
        next_lsn: 1,
        next_segment: 2,
        since_checkpoint_bytes: 0,
    })
}
