//! What lies on a medium, record by record, with every checksum verified: for people, after something went wrong.
//!
//! Must never change anything, and never stop at the first thing that is damaged.

use std::ops::ControlFlow;

use talea_model::{PoolId, TargetId};
use talea_tier::{Address, Media, Medium, Tier};

use self::describe::{describe, kind_name};
use super::memory::Memory;
use super::open::is_beheaded;
use crate::StoreError;
use crate::checksum::granules;
use crate::index::version::Place;
use crate::log::Segment;
use crate::log::bulk::{BULK_HEADER_BYTES, BulkHeader, FoundBulk};
use crate::log::chain::CHECKPOINT_LSN;
use crate::log::header::{
    FoundSuperblock, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SUPERBLOCK_AT, SUPERBLOCK_BYTES, SegmentHeader,
    Superblock,
};
use crate::log::record::{BadRecord, kind};
use crate::log::scan::{Found as Record, scan};

mod describe;

/// A run of the medium that holds records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFound {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Its number.
    pub number: u64,
}

impl From<Segment> for SegmentFound {
    fn from(segment: Segment) -> Self {
        Self { start: segment.start, len: segment.len, number: segment.number }
    }
}

/// What an undamaged superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperblockFields {
    /// The larger one holds.
    pub generation: u64,
    /// The pool.
    pub pool: PoolId,
    /// The target.
    pub target: TargetId,
    /// Bytes of the medium.
    pub capacity_bytes: u64,
    /// Bytes of the bulk tier.
    pub bulk_bytes: u64,
    /// First segment of the log.
    pub log: SegmentFound,
    /// Its first record.
    pub first_lsn: u64,
    /// First segment of the checkpoint; length 0 if there is none.
    pub checkpoint: SegmentFound,
    /// Values carry no checksums: nothing says whether they are whole.
    pub unsummed: bool,
}

/// What lies where a superblock should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperblockFound {
    /// Its offset.
    pub at: u64,
    /// Whole, damaged, empty, foreign, or of another version.
    pub state: String,
    /// What it says.
    pub fields: Option<SuperblockFields>,
}

/// A whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFound {
    /// `log` or `checkpoint`.
    pub chain: &'static str,
    /// Where its values or their end lie.
    pub at: u64,
    /// Its number, in a checkpoint from 0.
    pub lsn: u64,
    /// Its kind.
    pub kind: &'static str,
    /// Bytes behind its header.
    pub bytes: u64,
    /// All records below it were durable when this one was made.
    pub flushed: u64,
    /// What it says.
    pub what: String,
}

/// Something found, in the order of the medium's use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A superblock.
    Superblock(SuperblockFound),
    /// The header of the bulk tier.
    Bulk(String),
    /// The chain goes on in a segment.
    Segment {
        /// `log` or `checkpoint`.
        chain: &'static str,
        /// The segment.
        segment: SegmentFound,
    },
    /// A record.
    Record(RecordFound),
    /// A chain's end.
    End {
        /// `log` or `checkpoint`.
        chain: &'static str,
        /// Its records.
        records: u64,
        /// Their bytes.
        bytes: u64,
        /// Number that the next one would have.
        next_lsn: u64,
    },
    /// How the log ends.
    Tail(String),
    /// Something is damaged.
    Problem {
        /// Where (a [`talea_tier::Address`]).
        address: u64,
        /// What, and what follows from it.
        text: String,
    },
}

/// Looks at everything that the newest superblock leads to. Returns the number of problems.
pub fn inspect(media: &Media, mut each: impl FnMut(Found)) -> Result<u64, StoreError> {
    let mut looking = Looking { media, problems: 0, each: &mut each };
    let Some(superblock) = looking.superblocks()? else { return Ok(looking.problems) };
    looking.size(Tier::Log, superblock.capacity_bytes);
    looking.bulk(&superblock)?;
    if superblock.checkpoint.len > 0 {
        looking.checkpoint(&superblock)?;
    }
    looking.log(&superblock)?;
    Ok(looking.problems)
}

struct Looking<'a> {
    media: &'a Media,
    problems: u64,
    each: &'a mut dyn FnMut(Found),
}

impl Looking<'_> {
    fn problem(&mut self, address: u64, text: String) {
        self.problems += 1;
        (self.each)(Found::Problem { address, text });
    }

    fn superblocks(&mut self) -> Result<Option<Superblock>, StoreError> {
        let (mut best, mut damaged): (Option<Superblock>, Vec<u64>) = (None, Vec::new());
        for at in SUPERBLOCK_AT {
            let mut bytes = [0; SUPERBLOCK_BYTES];
            self.media.read(at, &mut bytes)?;
            let (state, fields) = match Superblock::decode(&bytes) {
                FoundSuperblock::Whole(found) => {
                    if best.is_none_or(|best| best.generation < found.generation) {
                        best = Some(found);
                    }
                    ("whole".to_owned(), Some(fields(&found)))
                }
                FoundSuperblock::Version(version) => (format!("of format version {version}"), None),
                FoundSuperblock::Damaged => ("damaged".to_owned(), None),
                FoundSuperblock::Nothing => ("empty".to_owned(), None),
                FoundSuperblock::Foreign => ("not Talea's".to_owned(), None),
            };
            if fields.is_none() && state != "empty" {
                damaged.push(at);
            }
            (self.each)(Found::Superblock(SuperblockFound { at, state, fields }));
        }
        if best.is_none() && damaged.is_empty() && is_beheaded(self.media)? {
            let text = "there is no superblock, and records of a log lie behind its place: the medium's beginning was overwritten, and what \
                        is on it cannot be found; put back a whole copy";
            self.problem(SUPERBLOCK_AT[0], text.to_owned());
        }
        for at in damaged {
            let text = match best {
                Some(_) => {
                    "this superblock cannot be used; the other one leads to what follows, and may be the older one"
                }
                None => "this superblock cannot be used, and there is no other",
            };
            self.problem(at, text.to_owned());
        }
        Ok(best)
    }

    /// A medium that is shorter than it was has lost what lay behind its end.
    fn size(&mut self, tier: Tier, made_bytes: u64) {
        let Some(found_bytes) = self.media.medium(tier).map(|medium| medium.capacity_bytes()) else { return };
        if found_bytes < made_bytes {
            let text = format!(
                "the medium ends here, {made_bytes} bytes were used when the last superblock was written: it was cut off, and what lay behind \
                 is lost; do not start a server on it before it is restored"
            );
            self.problem(Address::new(tier, found_bytes).0, text);
        }
    }

    fn bulk(&mut self, superblock: &Superblock) -> Result<(), StoreError> {
        let address = Address::new(Tier::Bulk, 0).0;
        let given = self.media.medium(Tier::Bulk).is_some();
        if superblock.bulk_bytes == 0 || !given {
            if superblock.bulk_bytes > 0 {
                (self.each)(Found::Bulk("was not given: values in it are not verified".to_owned()));
            }
            return Ok(());
        }
        self.size(Tier::Bulk, superblock.bulk_bytes);
        let mut bytes = [0; BULK_HEADER_BYTES];
        self.media.read(address, &mut bytes)?;
        match BulkHeader::decode(&bytes) {
            FoundBulk::Whole(found) if found.nonce == superblock.nonce => {
                (self.each)(Found::Bulk(format!("belongs to this store, {} bytes", found.capacity_bytes)));
            }
            FoundBulk::Whole(_) => self.problem(address, "this bulk tier belongs to another store".to_owned()),
            FoundBulk::Nothing => {
                self.problem(address, "the bulk tier's header cannot be used: it is empty".to_owned())
            }
            FoundBulk::Damaged => {
                self.problem(address, "the bulk tier's header cannot be used: it is damaged".to_owned())
            }
            FoundBulk::Foreign => self.problem(
                address,
                "the bulk tier's header cannot be used: it is not Talea's, or its first bytes are damaged".to_owned(),
            ),
        }
        Ok(())
    }

    fn checkpoint(&mut self, superblock: &Superblock) -> Result<(), StoreError> {
        let mut ended = false;
        let mut walk = Walk::new("checkpoint", CHECKPOINT_LSN, self.media, superblock);
        let (mut memory, mut known) = (Memory::default(), 0);
        let scanned = scan(self.media, superblock.nonce, superblock.checkpoint, CHECKPOINT_LSN, u64::MAX, |found| {
            if found.kind == kind::NEXT {
                walk.record(&found, describe(&found), &mut *self.each);
                return ControlFlow::Continue(());
            }
            // Into a memory of its own: damage in one record must not hide what is in the next. Only parts of a dkey share one.
            if found.kind != kind::MORE {
                (memory, known) = (Memory::default(), 0);
            }
            let result = memory.replay_checkpoint(&found);
            let versions = &memory.index.versions;
            let places: Vec<Place> = (known..versions.bound()).filter_map(|id| versions.place(id)).collect();
            known = versions.bound();
            let what = match (&result, found.kind) {
                (Ok(Some(segments)), _) => format!("{} older segments hold values", segments.len()),
                (_, kind::STATE) => memory.describe(),
                _ => memory.describe_keys(&places),
            };
            walk.record(&found, result.map(|_| (what, places)), &mut *self.each);
            ended |= found.kind == kind::END;
            if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.problems += walk.problems;
        self.finish(&walk, &scanned.segments, scanned.bytes, scanned.next_lsn);
        if !ended || scanned.lost {
            self.problem(superblock.checkpoint.start, "the checkpoint is not whole: what it held is lost".to_owned());
        }
        Ok(())
    }

    fn log(&mut self, superblock: &Superblock) -> Result<(), StoreError> {
        let mut walk = Walk::new("log", superblock.first_lsn, self.media, superblock);
        let mut unproven = Vec::new();
        let scanned = scan(self.media, superblock.nonce, superblock.log, superblock.first_lsn, u64::MAX, |found| {
            unproven.retain(|(lsn, _)| *lsn >= found.flushed);
            let before = walk.torn.len();
            walk.record(&found, describe(&found), &mut *self.each);
            unproven.extend(walk.torn.drain(before..).map(|address| (found.lsn, address)));
            ControlFlow::Continue(())
        })?;
        self.problems += walk.problems;
        self.finish(&walk, &scanned.segments, scanned.bytes, scanned.next_lsn);
        if scanned.lost {
            let text = "durable records of the log are missing: a target with it answers every read with DATA_LOST";
            self.problem(superblock.log.start, text.to_owned());
        }
        if scanned.dirty_tail {
            let text = "what follows the last record is none: a write that a crash cut short, or what lay there before; the next start clears it";
            (self.each)(Found::Tail(text.to_owned()));
        }
        if let Some((lsn, address)) = unproven.iter().find(|(lsn, _)| *lsn >= scanned.proven) {
            let text = format!(
                "record {lsn} was never flushed and its value at {} is torn: the log ends before it",
                Address(*address)
            );
            (self.each)(Found::Tail(text));
        }
        Ok(())
    }

    fn finish(&mut self, walk: &Walk, segments: &[Segment], bytes: u64, next_lsn: u64) {
        for segment in segments {
            let mut header = [0; SEGMENT_HEADER_BYTES];
            let read = self.media.read(segment.start, &mut header).is_ok();
            if !read || SegmentHeader::decode(&header, *segment, walk.nonce).is_none() {
                let text = format!("the header of segment {} is damaged", segment.number);
                self.problem(segment.start, text);
            }
            (self.each)(Found::Segment { chain: walk.chain, segment: (*segment).into() });
        }
        let next_lsn = if next_lsn >= CHECKPOINT_LSN { next_lsn - CHECKPOINT_LSN } else { next_lsn };
        (self.each)(Found::End { chain: walk.chain, records: walk.records, bytes, next_lsn });
    }
}

/// A walk along a chain.
struct Walk<'a> {
    chain: &'static str,
    expected: u64,
    records: u64,
    problems: u64,
    /// Addresses of values in blocks that are not what their record says, where that may be a crash.
    torn: Vec<u64>,
    media: &'a Media,
    /// There is no bulk tier, or it was given.
    has_bulk: bool,
    /// Salt of the checksums.
    nonce: u64,
    /// Values carry checksums.
    sums: bool,
    /// Reads values back.
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(chain: &'static str, expected: u64, media: &'a Media, superblock: &Superblock) -> Self {
        let (sums, has_bulk) = (!superblock.unsummed, superblock.bulk_bytes == 0 || media.medium(Tier::Bulk).is_some());
        let nonce = superblock.nonce;
        Self {
            chain,
            expected,
            records: 0,
            problems: 0,
            torn: Vec::new(),
            media,
            has_bulk,
            nonce,
            sums,
            buffer: Vec::new(),
        }
    }

    fn record(
        &mut self,
        found: &Record,
        described: Result<(String, Vec<Place>), BadRecord>,
        each: &mut dyn FnMut(Found),
    ) {
        let number = |lsn: u64| if lsn >= CHECKPOINT_LSN { lsn - CHECKPOINT_LSN } else { lsn };
        let at = found.data.at - (RECORD_HEADER_BYTES + found.meta.len()) as u64;
        if found.lsn != self.expected {
            let text = format!("records {} to {} are damaged or missing", number(self.expected), number(found.lsn) - 1);
            self.problem(at, text, each);
        }
        (self.expected, self.records) = (found.lsn + 1, self.records + 1);
        // Where values carry no checksums, records that tell of them are not written to be read again.
        let described =
            if self.sums { described } else { described.or(Ok(("values without checksums".to_owned(), Vec::new()))) };
        let (what, places) = described.unwrap_or_else(|BadRecord| {
            self.problem(at, format!("record {} makes no sense", number(found.lsn)), each);
            ("makes no sense".to_owned(), Vec::new())
        });
        each(Found::Record(RecordFound {
            chain: self.chain,
            at,
            lsn: number(found.lsn),
            kind: kind_name(found.kind),
            bytes: found.meta.len() as u64 + (found.data.end - found.data.at),
            flushed: found.flushed,
            what,
        }));
        for place in places.iter().filter(|place| place.len > 0 && !place.hole) {
            let skipped = !self.has_bulk && Address(place.offset).tier() == Some(Tier::Bulk);
            if skipped || self.is_whole(place) {
                continue;
            }
            // A value in blocks of a record that nothing proves may be torn; all others were durable.
            if self.chain == "log" && !place.inline {
                self.torn.push(place.offset);
            }
            let text = format!("a value of {} bytes, named by record {}, is damaged", place.len, number(found.lsn));
            self.problem(place.offset, text, each);
        }
    }

    fn problem(&mut self, address: u64, text: String, each: &mut dyn FnMut(Found)) {
        self.problems += 1;
        each(Found::Problem { address, text });
    }

    fn is_whole(&mut self, place: &Place) -> bool {
        self.buffer.resize(place.len as usize, 0);
        let read = self.media.read(place.offset, &mut self.buffer).is_ok();
        read && (!self.sums || granules(&self.buffer).0 == place.granules)
    }
}

fn fields(superblock: &Superblock) -> SuperblockFields {
    SuperblockFields {
        generation: superblock.generation,
        pool: superblock.pool,
        target: superblock.target,
        capacity_bytes: superblock.capacity_bytes,
        bulk_bytes: superblock.bulk_bytes,
        log: superblock.log.into(),
        first_lsn: superblock.first_lsn,
        checkpoint: superblock.checkpoint.into(),
        unsummed: superblock.unsummed,
    }
}
