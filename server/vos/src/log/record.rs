//! Records of the log, byte by byte (docs/formats.md). All numbers are little-endian.
//!
//! Must never trust what it decodes: a record that passed its checksum may still come from a damaged or foreign medium.

use std::collections::BTreeSet;

use talea_model::{ContainerId, Extent, Fate, Oid, Position, SessionId, Stamp, TxId};

use super::bytes::{Reader, Writer};
use crate::checksum::Granules;
use crate::index::version::{Place, Tag};
use crate::{Caller, Change, ObjectRef, Punch, ValueKind};

/// Kinds of records.
pub(crate) mod kind {
    /// Entries of one update.
    pub(crate) const UPDATE: u8 = 1;
    /// A punch.
    pub(crate) const PUNCH: u8 = 2;
    /// Entries of the pool's log.
    pub(crate) const FOLLOW: u8 = 3;
    /// The clock's ceiling.
    pub(crate) const CEILING: u8 = 4;
    /// Nothing; carries how far the log was flushed.
    pub(crate) const MARK: u8 = 5;
    /// The log goes on in another segment.
    pub(crate) const NEXT: u8 = 6;
    /// Checkpoint: what is not in objects.
    pub(crate) const STATE: u8 = 16;
    /// Checkpoint: an object's punches.
    pub(crate) const OBJECT: u8 = 17;
    /// Checkpoint: a dkey, or the first part of one.
    pub(crate) const DKEY: u8 = 18;
    /// Checkpoint: its end, and the segments that hold values.
    pub(crate) const END: u8 = 19;
    /// Checkpoint: the next part of the dkey before.
    pub(crate) const MORE: u8 = 20;
}

/// Bytes that are no record of their kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRecord;

/// What all updates and punches begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The object.
    pub at: ObjectRef,
    /// Order of its versions; `minor` is that of the first.
    pub tag: Tag,
    /// Who asked.
    pub caller: Caller,
}

impl Head {
    /// Appends the head.
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u64(self.at.container.0);
        out.u128(self.at.oid.0);
        let (in_tx, asked) = (self.tag.tx.0 != 0, self.caller.session.0 != 0);
        out.u8(u8::from(in_tx) | u8::from(self.tag.tied) << 1 | u8::from(asked) << 2);
        out.u64(self.tag.stamp.0);
        if in_tx {
            out.u64(self.tag.tx.0);
        }
        if asked {
            out.u64(self.caller.session.0);
            out.u64(self.caller.sequence);
            out.u64(self.caller.acknowledged_below);
        }
    }

    /// Reads the head of the record with number `lsn`.
    pub(crate) fn decode(from: &mut Reader, lsn: u64) -> Result<Self, BadRecord> {
        let at = ObjectRef { container: ContainerId(from.u64()?), oid: Oid(from.u128()?) };
        let flags = from.u8()?;
        let stamp = Stamp(from.u64()?);
        let tx = TxId(if flags & 1 != 0 { from.u64()? } else { 0 });
        let tag = Tag { stamp, from: stamp, minor: lsn << 16, tx, tied: flags & 2 != 0 };
        let caller = match flags & 4 {
            0 => Caller::default(),
            _ => Caller { session: SessionId(from.u64()?), sequence: from.u64()?, acknowledged_below: from.u64()? },
        };
        Ok(Self { at, tag, caller })
    }
}

/// Appends a tag.
pub(crate) fn encode_tag(tag: &Tag, out: &mut Writer) {
    out.u64(tag.stamp.0);
    out.u64(tag.from.0);
    out.u64(tag.minor);
    out.u64(tag.tx.0);
    out.u8(tag.tied.into());
}

/// Reads a tag.
pub(crate) fn decode_tag(from: &mut Reader) -> Result<Tag, BadRecord> {
    Ok(Tag {
        stamp: Stamp(from.u64()?),
        from: Stamp(from.u64()?),
        minor: from.u64()?,
        tx: TxId(from.u64()?),
        tied: from.u8()? != 0,
    })
}

/// One akey of an update record.
pub(crate) struct Entry<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// What it holds.
    pub kind: ValueKind,
    /// Number of values that follow.
    pub values: u32,
}

impl<'a> Entry<'a> {
    /// Appends the entry without its values.
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.key(self.dkey);
        out.key(self.akey);
        out.u32(self.record_bytes());
        out.u32(self.values);
    }

    /// Bytes of a record; 0 for single values.
    pub(crate) fn record_bytes(&self) -> u32 {
        match self.kind {
            ValueKind::Single | ValueKind::SingleMax => 0,
            ValueKind::Array { record_bytes } => record_bytes,
        }
    }

    /// Reads an entry without its values.
    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<Self, BadRecord> {
        let (dkey, akey) = (from.key()?, from.key()?);
        let kind = match from.u32()? {
            0 => ValueKind::Single,
            record_bytes => ValueKind::Array { record_bytes },
        };
        Ok(Self { dkey, akey, kind, values: from.u32()? })
    }
}

/// Appends a value: its extent, where it lies (unless that is the record's data), its checksums.
pub(crate) fn encode_value(extent: Extent, place: &Place, out: &mut Writer) {
    out.u64(extent.index);
    out.u64(extent.count);
    out.u32(place.len);
    out.u8(place.inline.into());
    if !place.inline {
        out.u64(place.offset);
    }
    place.granules.iter().for_each(|crc| out.u32(*crc));
}

/// Reads a value. Inline ones lie one after the other in the record's data.
pub(crate) fn decode_value(from: &mut Reader, data: &mut DataAt) -> Result<(Extent, Place), BadRecord> {
    let (index, count) = (from.u64()?, from.u64()?);
    let extent = Extent { index, count };
    index.checked_add(count).ok_or(BadRecord)?;
    let (len, inline) = (from.u32()?, from.u8()? != 0);
    let offset = if inline { data.take(len)? } else { from.u64()? };
    let granules = decode_granules(len, from)?;
    offset.checked_add(len.into()).ok_or(BadRecord)?;
    Ok((extent, Place { offset, len, inline, hole: false, granules }))
}

/// Where on the medium the next value of a record's data lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataAt {
    /// First byte.
    pub at: u64,
    /// One past the last byte of the data.
    pub end: u64,
}

impl DataAt {
    /// The place of a value of `len` bytes.
    pub(crate) fn take(&mut self, len: u32) -> Result<u64, BadRecord> {
        let at = self.at;
        self.at = at.checked_add(len.into()).filter(|next| *next <= self.end).ok_or(BadRecord)?;
        Ok(at)
    }
}

/// Reads the checksums of `len` bytes.
pub(crate) fn decode_granules(len: u32, from: &mut Reader) -> Result<Granules, BadRecord> {
    (0..(len as usize).div_ceil(crate::checksum::GRANULE_BYTES)).map(|_| from.u32()).collect()
}

/// Appends what is punched.
pub(crate) fn encode_punch(what: &Punch, out: &mut Writer) {
    match what {
        Punch::Object => out.u8(0),
        Punch::Dkey(dkey) => {
            out.u8(1);
            out.key(dkey);
        }
        Punch::Akey { dkey, akey } => {
            out.u8(2);
            out.key(dkey);
            out.key(akey);
        }
        Punch::Range { dkey, akey, extent } => {
            out.u8(3);
            out.key(dkey);
            out.key(akey);
            out.u64(extent.index);
            out.u64(extent.count);
        }
    }
}

/// Reads what is punched.
pub(crate) fn decode_punch<'a>(from: &mut Reader<'a>) -> Result<Punch<'a>, BadRecord> {
    Ok(match from.u8()? {
        0 => Punch::Object,
        1 => Punch::Dkey(from.key()?),
        2 => Punch::Akey { dkey: from.key()?, akey: from.key()? },
        3 => Punch::Range {
            dkey: from.key()?,
            akey: from.key()?,
            extent: Extent::new(from.u64()?, from.u64()?).ok_or(BadRecord)?,
        },
        _ => return Err(BadRecord),
    })
}

/// Appends changes and the horizon that they lead to.
pub(crate) fn encode_follow(changes: &[Change], horizon: Position, out: &mut Writer) {
    out.u64(horizon.0);
    out.u32(changes.len() as u32);
    for change in changes {
        let (kind, a, b) = match *change {
            Change::Begin(tx) => (1, tx.0, 0),
            Change::Commit(tx, stamp) => (2, tx.0, stamp.0),
            Change::Abort(tx) => (3, tx.0, 0),
            Change::Floor(container, stamp) => (4, container.0, stamp.0),
            Change::Keep(container, stamp) => (5, container.0, stamp.0),
            Change::Release(container, stamp) => (6, container.0, stamp.0),
            Change::DestroyContainer(container) => (7, container.0, 0),
            Change::EndSession(session) => (8, session.0, 0),
            Change::Container(container) => (9, container.0, 0),
            Change::Incarnation(incarnation) => (10, incarnation, 0),
        };
        out.u8(kind);
        out.u64(a);
        out.u64(b);
    }
}

/// Reads changes and the horizon that they lead to.
pub(crate) fn decode_follow(from: &mut Reader) -> Result<(Vec<Change>, Position), BadRecord> {
    let horizon = Position(from.u64()?);
    let count = from.count(17)?;
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let (kind, a, b) = (from.u8()?, from.u64()?, from.u64()?);
        changes.push(match kind {
            1 => Change::Begin(TxId(a)),
            2 => Change::Commit(TxId(a), Stamp(b)),
            3 => Change::Abort(TxId(a)),
            4 => Change::Floor(ContainerId(a), Stamp(b)),
            5 => Change::Keep(ContainerId(a), Stamp(b)),
            6 => Change::Release(ContainerId(a), Stamp(b)),
            7 => Change::DestroyContainer(ContainerId(a)),
            8 => Change::EndSession(SessionId(a)),
            9 => Change::Container(ContainerId(a)),
            10 => Change::Incarnation(a),
            _ => return Err(BadRecord),
        });
    }
    Ok((changes, horizon))
}

/// One session's requests that were done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// The caller has seen the answers below it.
    pub acknowledged_below: u64,
    /// Done at or above it.
    pub sequences: BTreeSet<u64>,
}

/// A fate as two numbers.
pub(crate) fn encode_fate(fate: Fate, out: &mut Writer) {
    let (kind, stamp) = match fate {
        Fate::Open => (0, 0),
        Fate::Committed(stamp) => (1, stamp.0),
        Fate::Aborted => (2, 0),
    };
    out.u8(kind);
    out.u64(stamp);
}

/// Reads a fate.
pub(crate) fn decode_fate(from: &mut Reader) -> Result<Fate, BadRecord> {
    match (from.u8()?, from.u64()?) {
        (0, _) => Ok(Fate::Open),
        (1, stamp) => Ok(Fate::Committed(Stamp(stamp))),
        (2, _) => Ok(Fate::Aborted),
        _ => Err(BadRecord),
    }
}
