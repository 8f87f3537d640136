//! Requests to one target.

use smallvec::SmallVec;
use talea_model::limit::{MAX_ENTRIES, MAX_EXTENTS, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use talea_model::{ContainerId, Extent, MapVersion, Oid, Order, SessionId, Stamp, TargetId, View};
use zerocopy::byteorder::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Condition, Diff, Prepare, ValueKind, order_fields, order_of, take, view_fields, view_of};
use crate::{PROTOCOL_VERSION, WireError, codec};

/// What every request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number that the asker chose; the reply carries it back.
    pub id: u64,
    /// Session of the asker.
    pub session: SessionId,
    /// Sequence of an update in the session at this target, the same when it is sent again (rule 14); 0 for reads.
    pub sequence: u64,
    /// All sequences below this one have been answered: the target may forget their results.
    pub acknowledged_below: u64,
    /// Sender's clock.
    pub hlc: Stamp,
    /// Pool map that the asker placed the request by.
    pub map_version: MapVersion,
    /// The target that the request is for.
    pub target: TargetId,
    /// Milliseconds after which the asker has given up; a parked request is dropped then.
    pub deadline_ms: u32,
    /// Container.
    pub container: ContainerId,
    /// Object.
    pub oid: Oid,
    /// How an update is ordered; `None` for reads.
    pub order: Option<Order>,
    /// What a read sees, and what the conditions of an update are judged in.
    pub view: View,
}

/// Extents of an entry; most have one, and that one needs no allocation.
pub type Extents = SmallVec<[Extent; 1]>;

/// One (dkey, akey) of an update or fetch.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// Kind of value.
    pub kind: ValueKind,
    /// Condition (updates).
    pub condition: Condition,
    /// Extents of an array, in the order of the data; empty for single values.
    pub extents: Extents,
    /// CRC-32C of `data` (updates).
    pub checksum: u32,
    /// The data (updates): extents' records in order, or the value. Empty for fetches.
    pub data: &'a [u8],
    /// Data that goes on in other pieces of the sender's memory. Whoever receives an entry has all of it in `data`.
    pub more: More<'a>,
}

/// Pieces of memory that follow one another in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct More<'a> {
    /// Pieces.
    pub whole: &'a [&'a [u8]],
    /// One more.
    pub last: &'a [u8],
}

impl<'a> Entry<'a> {
    /// All pieces of its data.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        std::iter::once(self.data).chain(self.more.whole.iter().copied()).chain(std::iter::once(self.more.last))
    }

    /// Bytes of all of them.
    pub fn data_bytes(&self) -> usize {
        self.data.len() + self.more.whole.iter().map(|part| part.len()).sum::<usize>() + self.more.last.len()
    }
}

/// What is enumerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EnumerateKind {
    /// Objects of the container on this target; names are 16 bytes, the OID big-endian.
    Objects = 0,
    /// dkeys of the object on this target.
    Dkeys = 1,
    /// akeys of a dkey.
    Akeys = 2,
    /// Extents of an array akey; names are 16 bytes, index and count big-endian.
    Extents = 3,
}

/// What is queried. The answer is two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum QueryKind {
    /// One past the last record of an array (dkey, akey): (1, end) or (0, 0) if there is none.
    ArrayEnd = 0,
    /// Largest integer dkey that holds the array akey, and one past its last record; (u64::MAX, 0) if there is none.
    MaxDkeyArrayEnd = 1,
    /// Largest integer dkey of the object: (1, dkey) or (0, 0).
    MaxDkey = 2,
    /// Smallest integer dkey of the object: (1, dkey) or (0, 0).
    MinDkey = 3,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Body<'a> {
    /// Stores all entries with one fate; an autocommit covers one dkey.
    Update(Vec<Entry<'a>>),
    /// Reads all entries.
    Fetch(Vec<Entry<'a>>),
    /// Punches the object (empty dkey), a dkey (empty akey), an akey (no extent), or a range of an array.
    Punch {
        /// dkey or empty.
        dkey: &'a [u8],
        /// akey or empty.
        akey: &'a [u8],
        /// Range of records.
        extent: Option<Extent>,
        /// Condition.
        condition: Condition,
    },
    /// Lists names in order, after an anchor.
    Enumerate {
        /// What.
        kind: EnumerateKind,
        /// dkey or empty.
        dkey: &'a [u8],
        /// akey or empty.
        akey: &'a [u8],
        /// Last name received, or empty.
        after: &'a [u8],
        /// Most names wanted.
        limit: u16,
    },
    /// Asks for two numbers.
    Query {
        /// What.
        kind: QueryKind,
        /// dkey or empty.
        dkey: &'a [u8],
        /// akey or empty.
        akey: &'a [u8],
    },
    /// Asks where records lie, as far as one answer goes (docs/design.md §6, the short way).
    Locate {
        /// dkey.
        dkey: &'a [u8],
        /// akey of an array.
        akey: &'a [u8],
        /// Which.
        extent: Extent,
    },
    /// Counters of the target, and of the head's container on it.
    Stat {
        /// Bytes that the asker has read in place (the short way) since it last said so: the target cannot see them.
        read_in_place: u64,
    },
    /// Prepares the commit of an independent transaction, whose inside the head's view names.
    Prepare(Box<Prepare>),
    /// Asks what differs between two snapshots.
    Diff(Box<Diff>),
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    /// Head.
    pub head: Head,
    /// Body.
    pub body: Body<'a>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    version: U16,
    kind: u8,
    order_kind: u8,
    view_kind: u8,
    detail: u8,
    entries: U16,
    id: U64,
    session: U64,
    sequence: U64,
    acknowledged_below: U64,
    hlc: U64,
    map_version: U32,
    target: U32,
    deadline_ms: U32,
    data_bytes: U32,
    container: U64,
    oid: U128,
    order_tx: U64,
    view_tx: U64,
    view_stamp: U64,
    view_position: U64,
    view_lease: U64,
}

const _: () = assert!(size_of::<RawHead>() == HEAD_BYTES);
const _: () = assert!(size_of::<RawEntry>() == 24);
/// Bytes of a request's head.
pub const HEAD_BYTES: usize = 128;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    dkey_bytes: U16,
    akey_bytes: U16,
    kind: u8,
    condition: u8,
    extents: U16,
    record_bytes: U32,
    data_bytes: U32,
    checksum: U32,
    reserved: U32,
}

const UPDATE: u8 = 1;
const FETCH: u8 = 2;
const PUNCH: u8 = 3;
const ENUMERATE: u8 = 4;
const QUERY: u8 = 5;
const STAT: u8 = 6;
const LOCATE: u8 = 7;
const PREPARE: u8 = 8;
const DIFF: u8 = 9;

impl<'a> Request<'a> {
    /// Appends head and entries to `out`, all but the data, which follows in the same message in the order of the entries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Punch, enumerate and query use the entry's form for their keys.
        let plain = |dkey, akey| Entry {
            dkey,
            akey,
            kind: ValueKind::Single,
            condition: Condition::None,
            extents: Extents::new(),
            checksum: 0,
            data: &[],
            more: More::default(),
        };
        match &self.body {
            Body::Update(entries) => self.put(UPDATE, 0, entries, out),
            Body::Fetch(entries) => self.put(FETCH, 0, entries, out),
            Body::Punch { dkey, akey, extent, condition } => {
                let entry =
                    Entry { extents: extent.iter().copied().collect(), condition: *condition, ..plain(dkey, akey) };
                self.put(PUNCH, 0, &[entry], out);
            }
            Body::Enumerate { kind, dkey, akey, after, limit } => {
                let entry = Entry { checksum: *limit as u32, data: after, ..plain(dkey, akey) };
                self.put(ENUMERATE, *kind as u8, &[entry], out);
                out.extend_from_slice(after);
            }
            Body::Query { kind, dkey, akey } => self.put(QUERY, *kind as u8, &[plain(dkey, akey)], out),
            Body::Locate { dkey, akey, extent } => {
                let extents = Extents::from([*extent]);
                self.put(LOCATE, 0, &[Entry { extents, ..plain(dkey, akey) }], out);
            }
            Body::Stat { read_in_place: 0 } => self.put(STAT, 0, &[], out),
            Body::Stat { read_in_place } => {
                let extents = Extents::from([Extent { index: *read_in_place, count: 1 }]);
                self.put(STAT, 0, &[Entry { extents, ..plain(&[], &[]) }], out);
            }
            Body::Prepare(prepare) => self.put_encoded(PREPARE, &**prepare, out),
            Body::Diff(diff) => self.put_encoded(DIFF, &**diff, out),
        }
    }

    /// The data that follows what [`encode`](Self::encode) made: the pieces of each entry, some of which are empty.
    pub fn data(&self) -> impl Iterator<Item = &'a [u8]> {
        let entries: &[Entry<'a>] = if let Body::Update(entries) = &self.body { entries } else { &[] };
        entries.iter().flat_map(|entry| entry.parts())
    }

    /// A body without entries, in the codec of control messages.
    fn put_encoded<T: serde::Serialize>(&self, kind: u8, body: &T, out: &mut Vec<u8>) {
        // What cannot be encoded is over the limit of a message, and as an empty one it is refused by whoever decodes it.
        let data = codec::encode(body).unwrap_or_default();
        let whole = Entry {
            dkey: &[],
            akey: &[],
            kind: ValueKind::Single,
            condition: Condition::None,
            extents: Extents::new(),
            checksum: 0,
            data: &data,
            more: More::default(),
        };
        self.put(kind, 0, &[whole], out);
        out.extend_from_slice(&data);
    }

    fn put(&self, kind: u8, detail: u8, entries: &[Entry<'_>], out: &mut Vec<u8>) {
        let head = &self.head;
        let (order_kind, order_tx) = order_fields(head.order);
        let (view_kind, view_tx, view_stamp, view_position, view_lease) = view_fields(head.view);
        let data_bytes: usize = entries.iter().map(Entry::data_bytes).sum();
        let raw = RawHead {
            version: PROTOCOL_VERSION.into(),
            kind,
            order_kind,
            view_kind,
            detail,
            entries: (entries.len() as u16).into(),
            id: head.id.into(),
            session: head.session.0.into(),
            sequence: head.sequence.into(),
            acknowledged_below: head.acknowledged_below.into(),
            hlc: head.hlc.0.into(),
            map_version: head.map_version.0.into(),
            target: head.target.0.into(),
            deadline_ms: head.deadline_ms.into(),
            data_bytes: (data_bytes as u32).into(),
            container: head.container.0.into(),
            oid: head.oid.0.into(),
            order_tx: order_tx.into(),
            view_tx: view_tx.into(),
            view_stamp: view_stamp.into(),
            view_position: view_position.into(),
            view_lease: view_lease.into(),
        };
        out.extend_from_slice(raw.as_bytes());
        entries.iter().for_each(|entry| put_entry(entry, out));
    }

    /// Decodes a whole message. Limits are checked before anything is allocated.
    pub fn decode(message: &'a [u8]) -> Result<Self, WireError> {
        let (front, data) = message.split_at(data_at(message));
        Self::decode_parts(front, data)
    }

    /// Decodes a message whose data lies elsewhere than what comes before it, from [`data_at`] on.
    pub fn decode_parts(front: &'a [u8], mut data: &'a [u8]) -> Result<Self, WireError> {
        let (raw, mut rest) =
            RawHead::read_from_prefix(front).map_err(|_| WireError::Malformed("shorter than a request's head"))?;
        if raw.version.get() != PROTOCOL_VERSION {
            return Err(WireError::Version(raw.version.get()));
        }
        let view =
            (raw.view_kind, raw.view_tx.get(), raw.view_stamp.get(), raw.view_position.get(), raw.view_lease.get());
        let head = Head {
            id: raw.id.get(),
            session: SessionId(raw.session.get()),
            sequence: raw.sequence.get(),
            acknowledged_below: raw.acknowledged_below.get(),
            hlc: Stamp(raw.hlc.get()),
            map_version: MapVersion(raw.map_version.get()),
            target: TargetId(raw.target.get()),
            deadline_ms: raw.deadline_ms.get(),
            container: ContainerId(raw.container.get()),
            oid: Oid(raw.oid.get()),
            order: order_of(raw.order_kind, raw.order_tx.get())?,
            view: view_of(view)?,
        };
        let (mut entries, claims) = take_entries(&mut rest, raw.entries.get() as usize)?;
        let mut left = raw.data_bytes.get() as usize;
        for (entry, bytes) in entries.iter_mut().zip(claims) {
            left = left.checked_sub(bytes).ok_or(WireError::Malformed("more data than the head says"))?;
            // A fetch's entry claims no data.
            entry.data = take(&mut data, bytes)?;
        }
        if left != 0 || !rest.is_empty() || !data.is_empty() {
            return Err(WireError::Malformed("bytes left over"));
        }
        Ok(Request { head, body: body_of(raw.kind, raw.detail, head.order, entries)? })
    }
}

/// Where a message's data begins, as its head says; at its end if it has none or is none.
pub fn data_at(message: &[u8]) -> usize {
    let data_bytes = RawHead::read_from_prefix(message).map_or(0, |(raw, _)| raw.data_bytes.get() as usize);
    message.len().checked_sub(data_bytes).filter(|at| *at >= size_of::<RawHead>()).unwrap_or(message.len())
}

fn put_entry(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let (kind, record_bytes) = match entry.kind {
        ValueKind::Single => (1, 0),
        ValueKind::SingleMax => (2, 0),
        ValueKind::Array { record_bytes } => (3, record_bytes),
    };
    let raw = RawEntry {
        dkey_bytes: (entry.dkey.len() as u16).into(),
        akey_bytes: (entry.akey.len() as u16).into(),
        kind,
        condition: entry.condition as u8,
        extents: (entry.extents.len() as u16).into(),
        record_bytes: record_bytes.into(),
        data_bytes: (entry.data_bytes() as u32).into(),
        checksum: entry.checksum.into(),
        reserved: 0.into(),
    };
    out.extend_from_slice(raw.as_bytes());
    out.extend_from_slice(entry.dkey);
    out.extend_from_slice(entry.akey);
    for extent in &entry.extents {
        out.extend_from_slice(&extent.index.to_le_bytes());
        out.extend_from_slice(&extent.count.to_le_bytes());
    }
}

/// Entries without their data, and how much data each claims.
fn take_entries<'a>(rest: &mut &'a [u8], count: usize) -> Result<(Vec<Entry<'a>>, SmallVec<[usize; 4]>), WireError> {
    over("entries", count, MAX_ENTRIES)?;
    let mut extents_left = MAX_EXTENTS;
    let (mut entries, mut claims) = (Vec::with_capacity(count), SmallVec::new());
    for _ in 0..count {
        let raw = RawEntry::read_from_bytes(take(rest, size_of::<RawEntry>())?)
            .map_err(|_| WireError::Malformed("shorter than its entries"))?;
        over("key bytes", raw.dkey_bytes.get().max(raw.akey_bytes.get()) as usize, MAX_KEY_BYTES)?;
        let dkey = take(rest, raw.dkey_bytes.get() as usize)?;
        let akey = take(rest, raw.akey_bytes.get() as usize)?;
        let extents = raw.extents.get() as usize;
        extents_left = extents_left.checked_sub(extents).ok_or(WireError::OverLimit {
            what: "extents of a request",
            found: MAX_EXTENTS - extents_left + extents,
            limit: MAX_EXTENTS,
        })?;
        let extents = take(rest, extents * 16)?
            .chunks_exact(16)
            .map(|bytes| {
                let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
                Extent::new(number(0), number(8)).ok_or(WireError::Malformed("empty or overflowing extent"))
            })
            .collect::<Result<_, _>>()?;
        let kind = match (raw.kind, raw.record_bytes.get()) {
            (1, 0) => ValueKind::Single,
            (2, 0) => ValueKind::SingleMax,
            (3, record_bytes @ 1..) => {
                over("record bytes", record_bytes as usize, MAX_VALUE_BYTES)?;
                ValueKind::Array { record_bytes }
            }
            _ => return Err(WireError::Malformed("unknown kind of value")),
        };
        let condition = Condition::from_u8(raw.condition)?;
        let (checksum, more) = (raw.checksum.get(), More::default());
        let entry = Entry { dkey, akey, kind, condition, extents, checksum, data: &[], more };
        entries.push(entry);
        claims.push(raw.data_bytes.get() as usize);
    }
    Ok((entries, claims))
}

fn over(what: &'static str, found: usize, limit: usize) -> Result<(), WireError> {
    if found > limit { Err(WireError::OverLimit { what, found, limit }) } else { Ok(()) }
}

fn body_of<'a>(kind: u8, detail: u8, order: Option<Order>, mut entries: Vec<Entry<'a>>) -> Result<Body<'a>, WireError> {
    let writes = matches!(kind, UPDATE | PUNCH);
    if writes != order.is_some() {
        return Err(WireError::Malformed("updates carry an order, reads carry none"));
    }
    if matches!(kind, UPDATE | FETCH) {
        if entries.is_empty() {
            return Err(WireError::Malformed("no entries"));
        }
        entries.iter().try_for_each(|entry| check_entry(entry, writes))?;
        return Ok(if writes { Body::Update(entries) } else { Body::Fetch(entries) });
    }
    if kind == STAT && entries.is_empty() {
        return Ok(Body::Stat { read_in_place: 0 });
    }
    let (Some(entry), true) = (entries.pop(), entries.is_empty()) else {
        return Err(WireError::Malformed("wrong number of entries"));
    };
    let (dkey, akey) = (entry.dkey, entry.akey);
    match kind {
        PREPARE => Ok(Body::Prepare(Box::new(codec::decode::<Prepare>(entry.data)?.check()?))),
        DIFF => Ok(Body::Diff(Box::new(codec::decode::<Diff>(entry.data)?.check()?))),
        PUNCH if entry.extents.len() <= 1 && (!dkey.is_empty() || akey.is_empty()) => {
            let extent = entry.extents.first().copied();
            if extent.is_some() && akey.is_empty() {
                return Err(WireError::Malformed("a range needs its akey"));
            }
            Ok(Body::Punch { dkey, akey, extent, condition: entry.condition })
        }
        ENUMERATE => {
            use EnumerateKind::*;
            let kind = [Objects, Dkeys, Akeys, Extents].into_iter().find(|kind| *kind as u8 == detail);
            let kind = kind.ok_or(WireError::Malformed("unknown enumeration"))?;
            over("anchor bytes", entry.data.len(), MAX_KEY_BYTES)?;
            Ok(Body::Enumerate {
                kind,
                dkey,
                akey,
                after: entry.data,
                limit: entry.checksum.min(u16::MAX as u32) as u16,
            })
        }
        LOCATE if entry.extents.len() == 1 && !dkey.is_empty() && !akey.is_empty() => {
            Ok(Body::Locate { dkey, akey, extent: entry.extents[0] })
        }
        STAT if entry.extents.len() == 1 && dkey.is_empty() && akey.is_empty() => {
            Ok(Body::Stat { read_in_place: entry.extents[0].index })
        }
        QUERY => {
            use QueryKind::*;
            let kind = [ArrayEnd, MaxDkeyArrayEnd, MaxDkey, MinDkey].into_iter().find(|kind| *kind as u8 == detail);
            Ok(Body::Query { kind: kind.ok_or(WireError::Malformed("unknown query"))?, dkey, akey })
        }
        _ => Err(WireError::Malformed("unknown kind of request")),
    }
}

fn check_entry(entry: &Entry<'_>, writes: bool) -> Result<(), WireError> {
    if entry.dkey.is_empty() || entry.akey.is_empty() {
        return Err(WireError::Malformed("empty key"));
    }
    let ValueKind::Array { record_bytes } = entry.kind else {
        let fits = entry.extents.is_empty() && entry.data.len() <= MAX_VALUE_BYTES && (writes || entry.data.is_empty());
        return if fits {
            Ok(())
        } else {
            Err(WireError::Malformed("a single value has no extents and fits its limit"))
        };
    };
    let bytes = entry.extents.iter().try_fold(0u64, |sum, extent| {
        extent.count.checked_mul(record_bytes as u64).and_then(|bytes| sum.checked_add(bytes))
    });
    let claimed = bytes.filter(|bytes| *bytes > 0).ok_or(WireError::Malformed("no extents, or an overflow"))?;
    if writes && claimed != entry.data.len() as u64 || !writes && !entry.data.is_empty() {
        return Err(WireError::Malformed("data and extents differ in size"));
    }
    over("bytes of a fetch", usize::try_from(claimed).unwrap_or(usize::MAX), MAX_VALUE_BYTES)
}
