//! Reading a chain of segments back: finds the torn tail, and tells it from a loss (docs/formats.md).
//!
//! A crash can leave any part of what was written after the last flush. So a bad record is the tail unless something behind it
//! proves that it was durable: a later record says how far the log was flushed when it was made.

use std::ops::ControlFlow;

use talea_tier::{Medium, TierError};

use super::header::{RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes};
use super::record::{DataAt, kind};
use super::{NEXT_META_BYTES, Segment};

/// A record found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    /// Its number.
    pub(crate) lsn: u64,
    /// All records below it were durable when this one was made.
    pub(crate) flushed: u64,
    /// Its kind.
    pub(crate) kind: u8,
    /// What it says.
    pub(crate) meta: &'a [u8],
    /// Where the bytes of values in it lie on the medium.
    pub(crate) data: DataAt,
}

/// Where a chain ended.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// Its segments in order.
    pub(crate) segments: Vec<Segment>,
    /// Bytes of the last segment that hold records.
    pub(crate) filled: u64,
    /// Number after the last record.
    pub(crate) next_lsn: u64,
    /// Records that were durable are missing.
    pub(crate) lost: bool,
    /// Bytes of all records.
    pub(crate) bytes: u64,
    /// The last segment holds something else behind the last record.
    pub(crate) dirty_tail: bool,
    /// All records below it were durable, values and all: something written after a flush says so.
    pub(crate) proven: u64,
}

/// What follows at one place of a segment.
enum Next {
    Record { at: usize, header: RecordHeader },
    Segment { segment: Segment, first_lsn: u64 },
    End,
}

/// Reads the chain that begins with `first`, whose first record has number `first_lsn`, and takes record `until` for the torn tail
/// wherever it stands. `each` gets every record, those that lead to another segment too, and may stop it.
pub(crate) fn scan(
    medium: &dyn Medium,
    nonce: u64,
    first: Segment,
    first_lsn: u64,
    until: u64,
    mut each: impl FnMut(Found) -> ControlFlow<()>,
) -> Result<Scanned, TierError> {
    let mut scanned = Scanned {
        segments: vec![],
        filled: 0,
        next_lsn: first_lsn,
        lost: false,
        bytes: 0,
        dirty_tail: false,
        proven: 0,
    };
    let mut following = (first.len > 0).then_some(first);
    let mut bytes = Vec::new();
    while let Some(segment) = following.take() {
        let outside = segment.start.checked_add(segment.len).is_none_or(|end| end > medium.capacity_bytes());
        if outside || segment.len < SEGMENT_HEADER_BYTES as u64 || scanned.segments.contains(&segment) {
            scanned.lost = true;
            break;
        }
        scanned.segments.push(segment);
        bytes.resize(segment.len as usize, 0);
        medium.read(segment.start, &mut bytes)?;
        let header = SegmentHeader::decode(&bytes, segment, nonce);
        // A segment is linked to the next only when all before the record that leads there is durable.
        let linked = header.and_then(|header| header.next).map_or(0, |(_, first_lsn)| first_lsn.saturating_sub(1));
        scanned.proven = scanned.proven.max(linked);
        let mut at = SEGMENT_HEADER_BYTES;
        loop {
            if scanned.next_lsn >= until {
                break;
            }
            let (next, lost) = look(&bytes, at, nonce, segment, header, scanned.next_lsn);
            scanned.lost |= lost;
            match next {
                Next::Record { at: found_at, header } => {
                    let start = found_at + RECORD_HEADER_BYTES;
                    let meta = &bytes[start..start + header.meta_len as usize];
                    at = found_at + record_bytes(header.len as usize);
                    scanned.bytes += record_bytes(header.len as usize) as u64;
                    scanned.next_lsn = header.lsn + 1;
                    scanned.proven = scanned.proven.max(header.flushed);
                    scanned.filled = at as u64;
                    let data_at = segment.start + (start + meta.len()) as u64;
                    let data = DataAt { at: data_at, end: segment.start + (start + header.len as usize) as u64 };
                    let found = Found { lsn: header.lsn, flushed: header.flushed, kind: header.kind, meta, data };
                    if each(found).is_break() {
                        return Ok(scanned);
                    }
                    if header.kind == kind::NEXT {
                        following = Segment::from_next(meta);
                        scanned.lost |= following.is_none();
                        break;
                    }
                }
                Next::Segment { segment, first_lsn } => {
                    scanned.next_lsn = first_lsn;
                    following = Some(segment);
                    break;
                }
                Next::End => break,
            }
        }
        if following.is_none() {
            scanned.filled = at as u64;
            scanned.dirty_tail = bytes[at.min(bytes.len())..].iter().any(|byte| *byte != 0);
        }
    }
    Ok(scanned)
}

/// Finds what follows at `at`, and whether durable records are missing before it.
fn look(
    bytes: &[u8],
    at: usize,
    nonce: u64,
    segment: Segment,
    header: Option<SegmentHeader>,
    expected: u64,
) -> (Next, bool) {
    let find = |at: usize| bytes.get(at..).and_then(|rest| RecordHeader::find(rest, nonce, segment.number));
    if let Some((header, ..)) = find(at)
        && header.lsn == expected
    {
        return (Next::Record { at, header }, false);
    }
    // Damaged, or the tail. Records that survived a crash unflushed prove nothing; one made after a later flush does.
    let mut later = at;
    while later + RECORD_HEADER_BYTES <= bytes.len() {
        match find(later) {
            Some((header, ..)) if header.lsn > expected && header.flushed > expected => {
                return (Next::Record { at: later, header }, true);
            }
            Some((header, ..)) => later += record_bytes(header.len as usize),
            None => later += 8,
        }
    }
    match header.and_then(|header| header.next) {
        // The segment was full. Its last record only leads on: that alone may be torn, for nothing followed it yet.
        Some((next, first_lsn)) => {
            let lost = expected + 1 < first_lsn;
            (Next::Segment { segment: next, first_lsn: first_lsn.max(expected) }, lost)
        }
        None => (Next::End, false),
    }
}

impl Segment {
    /// The segment that a NEXT record leads to.
    fn from_next(meta: &[u8]) -> Option<Segment> {
        let meta: &[u8; NEXT_META_BYTES] = meta.try_into().ok()?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| meta[at + i]));
        Some(Segment { start: number(0), len: number(8), number: number(16) })
    }
}
