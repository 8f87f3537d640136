//! Replies of a target.

use serde::{Deserialize, Serialize};
use talea_model::limit::{MAX_ENTRIES, MAX_ENUMERATED, MAX_KEY_BYTES};
use talea_model::{MapVersion, PoolMap, Position, Stamp, TxId};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Differences, prepare, take};
use crate::refusal::MAX_TEXT_BYTES;
use crate::{PROTOCOL_VERSION, Refusal, RefusalCode, WireError, codec};

/// What every reply says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyHead {
    /// The request's number.
    pub id: u64,
    /// Target's clock.
    pub hlc: Stamp,
    /// Map that the target served under.
    pub map_version: MapVersion,
}

/// One entry of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched<'a> {
    /// Whether the akey has a value (in any of the asked extents).
    pub found: bool,
    /// Whether there was no hole in the asked extents. Holes read as zeros.
    pub filled: bool,
    /// Bytes of a record; 0 for single values.
    pub record_bytes: u32,
    /// CRC-32C of `data`.
    pub checksum: u32,
    /// The value, or the extents' records in order. Empty if the akey does not exist: an array reads as zeros then.
    pub data: &'a [u8],
}

/// Counts of durations by their binary order: place n counts those of at least 2^(n-1) and less than 2^n nanoseconds, the
/// last place all longer ones.
pub type Histogram = [u64; 32];

/// Counters of a target, and of one container on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStat {
    /// Bytes in use on the target's tiers.
    pub used_bytes: u64,
    /// Capacity of the target's tiers in bytes.
    pub capacity_bytes: u64,
    /// Bytes in use on its bulk tier; 0 if it has one tier for all.
    pub bulk_used_bytes: u64,
    /// Capacity of its bulk tier in bytes; 0 if it has one tier for all.
    pub bulk_capacity_bytes: u64,
    /// Bytes that nothing names any more and that come back soon: at the next checkpoint, or when readers' leases end.
    pub returning_bytes: u64,
    /// Versions in the store's index.
    pub versions: u64,
    /// Bytes appended to the store's log.
    pub log_bytes: u64,
    /// Records appended to the store's log.
    pub log_records: u64,
    /// Updates and punches served since start.
    pub updates: u64,
    /// Fetches served since start.
    pub fetches: u64,
    /// Bytes received in updates.
    pub bytes_in: u64,
    /// Bytes sent in fetches.
    pub bytes_out: u64,
    /// Bytes that clients said they read in place, past the target (docs/design.md §6, the short way).
    pub bytes_in_place: u64,
    /// Updates of open transactions of the asked container.
    pub pending_updates: u64,
    /// The target's horizon.
    pub horizon: Position,
    /// Bytes written into the asked container since start.
    pub container_bytes_in: u64,
    /// Turns since start: each takes what was there, flushes at most once, and answers.
    pub turns: u64,
    /// Flushes since start.
    pub flushes: u64,
    /// Requests refused since start.
    pub refused: u64,
    /// Requests that wait for the pool's log now.
    pub parked: u64,
    /// Connections now.
    pub peers: u64,
    /// How long updates and punches took, from their arrival at the target to their answer's leaving, whatever they waited for between.
    /// Counted only for half a minute after somebody has asked for counters: it costs nothing when nobody looks.
    pub update_times: Histogram,
    /// Their sum in nanoseconds.
    pub update_times_ns: u64,
    /// The same of fetches.
    pub fetch_times: Histogram,
    /// Their sum in nanoseconds.
    pub fetch_times_ns: u64,
    /// Places of its media that the target's scrubber knows to be damaged.
    pub damaged: u64,
}

/// How a process of the same node and user maps a target's medium.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// A path that opens the file behind it.
    pub path: String,
    /// Device number of the file.
    pub device: u64,
    /// Inode number of the file.
    pub inode: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Records that lie together on a medium, inside one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First record.
    pub index: u64,
    /// Records.
    pub count: u64,
    /// Where the version's first byte lies on the medium.
    pub offset: u64,
    /// Bytes of the version.
    pub bytes: u32,
    /// Bytes of the version before the first record.
    pub skip_bytes: u32,
    /// CRC-32C of those of the version's granules that hold records of the span.
    pub checksums: Vec<u32>,
}

/// Where the records of an array lie, as the view of the question sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The medium.
    pub share: Share,
    /// How long from the sending of the request on the places may be read, in milliseconds.
    pub lease_ms: u32,
    /// Places named under the same number are valid for the new lease, too.
    pub generation: u64,
    /// Bytes of a granule, counted from a version's first byte.
    pub granule_bytes: u32,
    /// Bytes of a record; 0 if there is no such array.
    pub record_bytes: u32,
    /// One past the last record that this answers for.
    pub end: u64,
    /// Where a number can be looked at: as long as it is `change`, what is read inside of a transaction lies where this says.
    pub board: Option<Share>,
    /// What the board showed.
    pub change: u64,
    /// What there is, in order; between them are holes.
    pub spans: Vec<Span>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyBody<'a> {
    /// Applied and durable.
    Done,
    /// The entries of a fetch, in the asked order.
    Fetched(Vec<Fetched<'a>>),
    /// Names, and whether there are more.
    Names {
        /// Names in order.
        names: Vec<&'a [u8]>,
        /// Whether more follow.
        more: bool,
    },
    /// Two numbers.
    Numbers(u64, u64),
    /// Counters.
    Stat(Box<StoreStat>),
    /// Where records lie.
    Located(Box<Located>),
    /// Nothing that was read has changed, unless one of these transactions has committed by now.
    Prepared(Vec<TxId>),
    /// What differs.
    Differences(Box<Differences>),
    /// A no.
    Refused(Refusal),
    /// The request was placed by an old map; this is the new one.
    StaleMap(Box<PoolMap>),
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<'a> {
    /// Head.
    pub head: ReplyHead,
    /// Body.
    pub body: ReplyBody<'a>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHead {
    version: U16,
    kind: u8,
    more: u8,
    code: U16,
    entries: U16,
    id: U64,
    hlc: U64,
    map_version: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFetched {
    flags: U16,
    reserved: U16,
    record_bytes: U32,
    data_bytes: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<RawHead>() == 32);
const _: () = assert!(size_of::<RawFetched>() == 16);

const DONE: u8 = 129;
const FETCHED: u8 = 130;
const NAMES: u8 = 131;
const NUMBERS: u8 = 132;
const STAT: u8 = 133;
const REFUSED: u8 = 134;
const STALE_MAP: u8 = 135;
const LOCATED: u8 = 136;
const PREPARED: u8 = 137;
const DIFFERENCES: u8 = 138;

impl<'a> Reply<'a> {
    /// Appends the reply to `out`, all but a fetch's data, which follows in the same message in the order of the entries.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        match &self.body {
            ReplyBody::Done => self.put(DONE, 0, 0, 0, out),
            ReplyBody::Fetched(entries) => {
                self.put(FETCHED, 0, 0, entries.len(), out);
                for entry in entries {
                    let raw = RawFetched {
                        flags: (entry.found as u16 | (entry.filled as u16) << 1).into(),
                        reserved: 0.into(),
                        record_bytes: entry.record_bytes.into(),
                        data_bytes: (entry.data.len() as u32).into(),
                        checksum: entry.checksum.into(),
                    };
                    out.extend_from_slice(raw.as_bytes());
                }
            }
            ReplyBody::Names { names, more } => {
                self.put(NAMES, *more as u8, 0, names.len(), out);
                for name in names {
                    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
                    out.extend_from_slice(name);
                }
            }
            ReplyBody::Numbers(a, b) => {
                self.put(NUMBERS, 0, 0, 0, out);
                out.extend_from_slice(&a.to_le_bytes());
                out.extend_from_slice(&b.to_le_bytes());
            }
            ReplyBody::Stat(stat) => {
                self.put(STAT, 0, 0, 0, out);
                out.extend_from_slice(&codec::encode(&**stat)?);
            }
            ReplyBody::Located(located) => {
                self.put(LOCATED, 0, 0, 0, out);
                out.extend_from_slice(&codec::encode(&**located)?);
            }
            ReplyBody::Prepared(named) => {
                self.put(PREPARED, 0, 0, 0, out);
                out.extend_from_slice(&codec::encode(named)?);
            }
            ReplyBody::Differences(differences) => {
                self.put(DIFFERENCES, 0, 0, 0, out);
                out.extend_from_slice(&codec::encode(&**differences)?);
            }
            ReplyBody::Refused(refusal) => {
                self.put(REFUSED, 0, refusal.code as u16, 0, out);
                out.extend_from_slice(refusal.text.as_bytes());
            }
            ReplyBody::StaleMap(map) => {
                self.put(STALE_MAP, 0, 0, 0, out);
                out.extend_from_slice(&codec::encode(&**map)?);
            }
        }
        Ok(())
    }

    fn put(&self, kind: u8, more: u8, code: u16, entries: usize, out: &mut Vec<u8>) {
        let raw = RawHead {
            version: PROTOCOL_VERSION.into(),
            kind,
            more,
            code: code.into(),
            entries: (entries as u16).into(),
            id: self.head.id.into(),
            hlc: self.head.hlc.0.into(),
            map_version: self.head.map_version.0.into(),
            reserved: 0.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }

    /// Decodes a whole message. Limits are checked before anything is allocated.
    pub fn decode(message: &'a [u8]) -> Result<Self, WireError> {
        let (raw, mut rest) =
            RawHead::read_from_prefix(message).map_err(|_| WireError::Malformed("shorter than a reply's head"))?;
        if raw.version.get() != PROTOCOL_VERSION {
            return Err(WireError::Version(raw.version.get()));
        }
        let head =
            ReplyHead { id: raw.id.get(), hlc: Stamp(raw.hlc.get()), map_version: MapVersion(raw.map_version.get()) };
        let entries = raw.entries.get() as usize;
        let body = match raw.kind {
            DONE => ReplyBody::Done,
            FETCHED => ReplyBody::Fetched(take_fetched(&mut rest, entries)?),
            NAMES => ReplyBody::Names { names: take_names(&mut rest, entries)?, more: raw.more != 0 },
            NUMBERS => {
                let mut number = || -> Result<u64, WireError> {
                    Ok(take(&mut rest, 8)?.try_into().map(u64::from_le_bytes).unwrap_or_default())
                };
                ReplyBody::Numbers(number()?, number()?)
            }
            STAT => ReplyBody::Stat(codec::decode(std::mem::take(&mut rest))?),
            LOCATED => ReplyBody::Located(codec::decode(std::mem::take(&mut rest))?),
            PREPARED => {
                let named: Vec<TxId> = codec::decode(std::mem::take(&mut rest))?;
                prepare::check_named(&named)?;
                ReplyBody::Prepared(named)
            }
            DIFFERENCES => ReplyBody::Differences(codec::decode(std::mem::take(&mut rest))?),
            STALE_MAP => ReplyBody::StaleMap(codec::decode(std::mem::take(&mut rest))?),
            REFUSED => {
                let text = std::mem::take(&mut rest);
                let code = RefusalCode::from_u16(raw.code.get());
                let code =
                    code.filter(|_| text.len() <= MAX_TEXT_BYTES).ok_or(WireError::Malformed("unknown refusal"))?;
                ReplyBody::Refused(Refusal::new(code, String::from_utf8_lossy(text)))
            }
            _ => return Err(WireError::Malformed("unknown kind of reply")),
        };
        if rest.is_empty() { Ok(Reply { head, body }) } else { Err(WireError::Malformed("bytes left over")) }
    }
}

/// The number of the request that a reply answers, and the target's clock, without decoding the rest.
pub fn id_and_hlc(message: &[u8]) -> Option<(u64, Stamp)> {
    RawHead::read_from_prefix(message).ok().map(|(raw, _)| (raw.id.get(), Stamp(raw.hlc.get())))
}

fn take_fetched<'a>(rest: &mut &'a [u8], count: usize) -> Result<Vec<Fetched<'a>>, WireError> {
    if count > MAX_ENTRIES {
        return Err(WireError::OverLimit { what: "entries", found: count, limit: MAX_ENTRIES });
    }
    let mut heads = take(rest, count * size_of::<RawFetched>())?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let raw = RawFetched::read_from_bytes(take(&mut heads, size_of::<RawFetched>())?)
            .map_err(|_| WireError::Malformed("shorter than its entries"))?;
        let flags = raw.flags.get();
        entries.push(Fetched {
            found: flags & 1 != 0,
            filled: flags & 2 != 0,
            record_bytes: raw.record_bytes.get(),
            checksum: raw.checksum.get(),
            data: take(rest, raw.data_bytes.get() as usize)?,
        });
    }
    Ok(entries)
}

fn take_names<'a>(rest: &mut &'a [u8], count: usize) -> Result<Vec<&'a [u8]>, WireError> {
    if count > MAX_ENUMERATED {
        return Err(WireError::OverLimit { what: "names", found: count, limit: MAX_ENUMERATED });
    }
    (0..count)
        .map(|_| {
            let bytes = take(rest, 2)?;
            let length = u16::from_le_bytes([bytes[0], bytes[1]]) as usize;
            if length > MAX_KEY_BYTES {
                return Err(WireError::OverLimit { what: "name bytes", found: length, limit: MAX_KEY_BYTES });
            }
            take(rest, length)
        })
        .collect()
}
