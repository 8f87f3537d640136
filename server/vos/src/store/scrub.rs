//! The scrubber: everything on the medium that something still names is read again and verified, in portions (docs/design.md I7).
//!
//! Owns what is known to be damaged. Must never change a value: a damaged one keeps reading as DATA_LOST. A damaged log or
//! checkpoint is written anew from memory, which has all of it.

use std::collections::BTreeMap;

use talea_tier::Medium;

use super::Store;
use super::open::{BULK_HEADER_AT, find_superblock};
use crate::checksum::{GRANULE_BYTES, crc32c};
use crate::index::version::VersionId;
use crate::log::Segment;
use crate::log::bulk::{BULK_HEADER_BYTES, BulkHeader};
use crate::log::header::{
    FoundSuperblock, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SUPERBLOCK_AT, SUPERBLOCK_BYTES,
    SegmentHeader, Superblock, record_bytes,
};
use crate::log::record::kind;
use crate::{Damage, DamageKind, Scrubbed, StoreError};

/// Places that are remembered; more are counted.
const REMEMBERED: usize = 1024;
/// What looking at one thing costs beside its bytes.
const LOOK_BYTES: u64 = 64;
/// What a read costs beside its bytes where a medium must be asked for them.
const ASK_BYTES: u64 = 16 << 10;
/// Bytes of records that are read at once there.
const WINDOW_BYTES: u64 = 64 << 10;

/// A pass over the medium.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    stage: Stage,
    passes: u64,
    bytes: u64,
    /// How often a medium was read that is not mapped.
    asked: u64,
    /// By offset, with the pass that last met it.
    damage: BTreeMap<u64, (Damage, u64)>,
    window: Window,
}

/// Bytes that were read in this portion, of a medium that is not mapped.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn part(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(usize::try_from(len).ok()?)?)
    }
}

/// Where a pass is.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Superblocks,
    /// Records of the log's and the checkpoint's segments: those to do, and how far the last one is done.
    Records { left: Vec<(Segment, DamageKind)>, at: u64 },
    /// Values by number of their version.
    Values { next: VersionId },
}

impl Store {
    /// Verifies about `budget_bytes` more of what is on the medium, and one thing at least. Asking a medium that is not mapped counts as
    /// 16 KiB each time.
    pub fn scrub(&mut self, budget_bytes: u64) -> Result<Scrubbed, StoreError> {
        if !self.log.sums {
            return Ok(Scrubbed::default());
        }
        let mut scrub = std::mem::take(&mut self.scrub);
        // What it holds may have changed since.
        scrub.window.bytes.clear();
        let (before, asked, passes) = (scrub.bytes, scrub.asked, scrub.passes);
        let spent = |scrub: &Scrub| scrub.bytes - before + (scrub.asked - asked) * ASK_BYTES;
        let mut result = Ok(());
        while result.is_ok() && spent(&scrub) < budget_bytes.max(1) && scrub.passes == passes {
            result = self.scrub_next(&mut scrub);
        }
        let done = Scrubbed { bytes: scrub.bytes - before, passes: scrub.passes, damaged: scrub.damage.len() as u64 };
        self.scrub = scrub;
        result.map(|()| done)
    }

    /// Somebody who read a value has found it damaged. The scrubber forgets it if a whole pass does not meet it again.
    pub fn note_damage(&mut self, offset: u64) {
        self.scrub.note(offset, GRANULE_BYTES as u64, DamageKind::Value);
    }

    /// What the scrubber or a reader found damaged, and the scrubber has not found whole since.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.scrub.damage.values().map(|(damage, _)| damage)
    }

    /// Bytes that were verified since the store was opened, and places known to be damaged.
    pub(super) fn scrubbed(&self) -> (u64, u64) {
        (self.scrub.bytes, self.scrub.damage.len() as u64)
    }

    fn scrub_next(&mut self, scrub: &mut Scrub) -> Result<(), StoreError> {
        match std::mem::take(&mut scrub.stage) {
            Stage::Superblocks => {
                self.scrub_superblocks(scrub)?;
                self.scrub_bulk_header(scrub)?;
                let log = self.log.chain.iter().map(|segment| (*segment, DamageKind::Log));
                let checkpoint = self.checkpoint_chain.iter().map(|segment| (*segment, DamageKind::Checkpoint));
                scrub.stage = Stage::Records { left: log.chain(checkpoint).collect(), at: 0 };
            }
            Stage::Records { mut left, at } => {
                if let Some((segment, kind)) = left.pop() {
                    match self.scrub_record(scrub, segment, kind, at)? {
                        Some(at) => {
                            left.push((segment, kind));
                            scrub.stage = Stage::Records { left, at };
                        }
                        None => scrub.stage = Stage::Records { left, at: 0 },
                    }
                } else {
                    scrub.stage = Stage::Values { next: 0 };
                }
            }
            Stage::Values { next } if next < self.memory.index.versions.bound() => {
                self.scrub_value(scrub, next)?;
                scrub.stage = Stage::Values { next: next + 1 };
            }
            Stage::Values { .. } => {
                scrub.passes += 1;
                let pass = scrub.passes;
                scrub.damage.retain(|_, (_, met)| *met == pass);
            }
        }
        Ok(())
    }

    fn scrub_superblocks(&mut self, scrub: &mut Scrub) -> Result<(), StoreError> {
        let mut damaged = false;
        for (number, at) in SUPERBLOCK_AT.into_iter().enumerate() {
            let mut bytes = [0; SUPERBLOCK_BYTES];
            self.log.read(at, &mut bytes)?;
            scrub.bytes += LOOK_BYTES;
            let current = self.superblock.generation % 2 == number as u64;
            let right = match Superblock::decode(&bytes) {
                FoundSuperblock::Whole(found) => !current || found == self.superblock,
                FoundSuperblock::Nothing => !current,
                _ => false,
            };
            if !right {
                damaged = true;
                scrub.note(at, SUPERBLOCK_BYTES as u64, DamageKind::Superblock);
            }
        }
        // Two more generations take the places of both.
        for _ in 0..if damaged { 2 } else { 0 } {
            self.superblock.generation += 1;
            self.write_superblock()?;
        }
        Ok(())
    }

    fn scrub_bulk_header(&mut self, scrub: &mut Scrub) -> Result<(), StoreError> {
        if self.superblock.bulk_bytes == 0 {
            return Ok(());
        }
        let (right, mut bytes) = (BulkHeader::of(&self.superblock).encode(), [0; BULK_HEADER_BYTES]);
        self.log.read(BULK_HEADER_AT, &mut bytes)?;
        scrub.bytes += LOOK_BYTES;
        if bytes != right {
            scrub.note(BULK_HEADER_AT, BULK_HEADER_BYTES as u64, DamageKind::BulkHeader);
            self.log.write_raw(BULK_HEADER_AT, &right)?;
            self.log.persist()?;
        }
        Ok(())
    }

    /// Verifies the header of a segment, or the record at `at`. Gives where the next record is, if there is one.
    fn scrub_record(
        &mut self,
        scrub: &mut Scrub,
        segment: Segment,
        what: DamageKind,
        at: u64,
    ) -> Result<Option<u64>, StoreError> {
        scrub.bytes += LOOK_BYTES;
        if self.log.segments.get(&segment.start).is_none_or(|used| used.segment != segment) {
            return Ok(None);
        }
        match self.verify_record(scrub, segment, at)? {
            Verified::Next(next) => {
                scrub.bytes += next - at;
                Ok(Some(next))
            }
            Verified::End => Ok(None),
            Verified::Damaged => {
                scrub.note(segment.start + at, segment.len - at, what);
                self.rewrite = true;
                Ok(None)
            }
        }
    }

    fn verify_record(&self, scrub: &mut Scrub, segment: Segment, at: u64) -> Result<Verified, StoreError> {
        let nonce = self.log.nonce();
        if at == 0 {
            let bytes = self.look(scrub, segment.start, SEGMENT_HEADER_BYTES as u64, segment.len)?;
            let whole = SegmentHeader::decode(bytes, segment, nonce).is_some();
            return Ok(if whole { Verified::Next(SEGMENT_HEADER_BYTES as u64) } else { Verified::Damaged });
        }
        let (end, start) = (self.log.written(segment), segment.start + at);
        if at >= end {
            return Ok(Verified::End);
        }
        if at + RECORD_HEADER_BYTES as u64 > segment.len {
            return Ok(Verified::Damaged);
        }
        let header = self.look(scrub, start, RECORD_HEADER_BYTES as u64, end - at)?;
        let bytes = RecordHeader::announced(header).filter(|bytes| at + bytes <= segment.len);
        let Some(bytes) = bytes else { return Ok(Verified::Damaged) };
        let record = self.look(scrub, start, bytes, end - at)?;
        Ok(match RecordHeader::find(record, nonce, segment.number) {
            None => Verified::Damaged,
            Some((header, ..)) if matches!(header.kind, kind::NEXT | kind::END) => Verified::End,
            Some((header, ..)) => Verified::Next(at + record_bytes(header.len as usize) as u64),
        })
    }

    /// Bytes as they are on the medium: in place, or read together with what follows them up to `most`.
    fn look<'a>(&'a self, scrub: &'a mut Scrub, offset: u64, len: u64, most: u64) -> Result<&'a [u8], StoreError> {
        if let Some(bytes) = self.log.bytes(offset, len) {
            return Ok(bytes);
        }
        if scrub.window.part(offset, len).is_none() {
            scrub.asked += 1;
            scrub.window.start = offset;
            scrub.window.bytes.resize(len.max(most.min(WINDOW_BYTES)) as usize, 0);
            if let Err(error) = self.log.read(offset, &mut scrub.window.bytes) {
                scrub.window.bytes.clear();
                return Err(error);
            }
        }
        Ok(scrub.window.part(offset, len).unwrap_or_default())
    }

    fn scrub_value(&mut self, scrub: &mut Scrub, id: VersionId) -> Result<(), StoreError> {
        let versions = &self.memory.index.versions;
        let Some(place) = versions.live(id) else {
            scrub.bytes += 1;
            return Ok(());
        };
        let granules = versions.granules(id);
        for (number, expected) in granules.iter().enumerate() {
            let from = (number * GRANULE_BYTES) as u64;
            let len = (u64::from(place.len) - from).min(GRANULE_BYTES as u64);
            let found = crc32c(self.look(scrub, place.offset + from, len, len)?);
            if found != *expected {
                scrub.note(place.offset + from, len, DamageKind::Value);
            }
            scrub.bytes += len;
        }
        scrub.bytes += LOOK_BYTES;
        Ok(())
    }

    /// Whether the superblock on the medium is the one in memory; for tests of the scrubber.
    #[doc(hidden)]
    pub fn superblock_is_sound(&self, medium: &dyn Medium) -> bool {
        find_superblock(medium).is_ok_and(|found| found == Some(self.superblock))
    }
}

/// What lies at one place of a segment.
enum Verified {
    Next(u64),
    End,
    Damaged,
}

impl Scrub {
    fn note(&mut self, offset: u64, bytes: u64, kind: DamageKind) {
        if self.damage.len() < REMEMBERED || self.damage.contains_key(&offset) {
            // Found in the pass that is under way: it counts as met when that ends.
            self.damage.insert(offset, (Damage { kind, offset, bytes }, self.passes + 1));
        }
    }
}
