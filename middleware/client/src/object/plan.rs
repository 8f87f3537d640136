//! Cutting entries to what one message may carry, and packing them into few messages.

use std::collections::BTreeMap;

use talea_fabric::endpoint::{MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES};
use talea_model::limit::{MAX_ENTRIES, MAX_EXTENTS, MAX_VALUE_BYTES};
use talea_model::{Extent, TargetId};
use talea_wire::data::request::HEAD_BYTES;
use talea_wire::data::{Extents, ValueKind};

use crate::error::{ClientError, Result};

/// Room for entries without their data, in bytes.
pub(super) const HEADS_BYTES: usize = MAX_MESSAGE_BYTES - MAX_PAYLOAD_BYTES - HEAD_BYTES;
pub(super) const ENTRY_BYTES: usize = 24;
pub(super) const EXTENT_BYTES: usize = 16;
/// Extents of one piece: with the largest keys it still fits.
const PIECE_EXTENTS: usize = 1024;

/// Bytes of a call's message at least, where the call is cut so that its parts are under way together.
const LEAST_PART_BYTES: usize = 256 * 1024;
/// Parts of such a call: the other side works on one while the next one is made ready.
const PARTS: usize = 4;
/// What the bytes of a part are a multiple of.
const PART_STEP_BYTES: usize = 64 * 1024;

/// How many bytes of data a message of a call carries at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartBytes(usize);

impl PartBytes {
    /// As much as a message may carry: right where a call's parts must be seen together.
    pub(super) const WHOLE: PartBytes = PartBytes(MAX_PAYLOAD_BYTES);

    /// Right for a call of so many bytes, if nobody minds that its parts are separate messages (docs/performance.md, "Parts of a call").
    pub(super) fn of(call_bytes: usize) -> Self {
        let part_bytes = call_bytes.div_ceil(PARTS).next_multiple_of(PART_STEP_BYTES);
        PartBytes(part_bytes.clamp(LEAST_PART_BYTES, MAX_PAYLOAD_BYTES))
    }

    /// The same for an array, of whose records one is the least that a message carries.
    fn for_records(self, record_bytes: usize) -> usize {
        self.0.max(record_bytes).min(MAX_VALUE_BYTES)
    }
}

const _: () = assert!(PIECE_EXTENTS * EXTENT_BYTES + 2 * talea_model::limit::MAX_KEY_BYTES + ENTRY_BYTES < HEADS_BYTES);

/// What an entry takes of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    entries: usize,
    extents: usize,
    head_bytes: usize,
    data_bytes: usize,
}

impl Cost {
    pub(super) fn of(dkey: &[u8], akey: &[u8], extents: usize, data_bytes: usize) -> Self {
        let head_bytes = ENTRY_BYTES + dkey.len() + akey.len() + extents * EXTENT_BYTES;
        Self { entries: 1, extents, head_bytes, data_bytes }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            extents: self.extents + other.extents,
            head_bytes: self.head_bytes + other.head_bytes,
            data_bytes: self.data_bytes + other.data_bytes,
        }
    }

    fn fits(self, part_bytes: PartBytes) -> bool {
        self.entries <= MAX_ENTRIES
            && self.extents <= MAX_EXTENTS
            && self.head_bytes <= HEADS_BYTES
            && self.data_bytes <= part_bytes.0
    }
}

/// Fills messages, target by target, in the order in which the items come.
pub(super) struct Packer<T> {
    part_bytes: PartBytes,
    open: BTreeMap<TargetId, (Cost, Vec<T>)>,
    full: Vec<(TargetId, Vec<T>)>,
}

impl<T> Packer<T> {
    pub(super) fn new(part_bytes: PartBytes) -> Self {
        Self { part_bytes, open: BTreeMap::new(), full: vec![] }
    }

    /// An item that is larger than a part goes alone.
    pub(super) fn add(&mut self, target: TargetId, cost: Cost, item: T) {
        let (used, items) = self.open.entry(target).or_insert_with(|| (Cost::default(), vec![]));
        let with = used.plus(cost);
        if items.is_empty() || with.fits(self.part_bytes) {
            *used = with;
        } else {
            self.full.push((target, std::mem::take(items)));
            *used = cost;
        }
        items.push(item);
    }

    pub(super) fn messages(mut self) -> Vec<(TargetId, Vec<T>)> {
        self.full.extend(self.open.into_iter().map(|(target, (_, items))| (target, items)));
        self.full
    }
}

/// Checks that an entry's extents and bytes belong together and to its kind.
fn check(kind: ValueKind, extents: &[Extent], data_bytes: usize) -> Result<()> {
    let argument = |text: &str| Err(ClientError::Argument(text.to_owned()));
    let ValueKind::Array { record_bytes } = kind else {
        if !extents.is_empty() {
            return argument("a single value has no extents");
        }
        if data_bytes > MAX_VALUE_BYTES {
            let text =
                format!("a single value of {data_bytes} bytes is over the limit of {MAX_VALUE_BYTES}: use an array");
            return Err(ClientError::TooLong(text));
        }
        return Ok(());
    };
    let record_bytes = record_bytes as usize;
    if record_bytes == 0 || record_bytes > MAX_VALUE_BYTES {
        return argument("a record has 1 byte to 1 MiB");
    }
    let sized = |extent: &Extent| usize::try_from(extent.count).ok()?.checked_mul(record_bytes);
    let total = extents.iter().try_fold(0usize, |sum, extent| sum.checked_add(sized(extent)?));
    if total != Some(data_bytes) {
        return argument("the buffer's size is not that of the extents");
    }
    if data_bytes == 0 || extents.iter().any(|extent| Extent::new(extent.index, extent.count).is_none()) {
        return argument("an array's entry needs extents that are not empty and do not overflow");
    }
    Ok(())
}

/// The entry's extents if it is one piece, so that nothing has to be cut or packed.
pub(super) fn whole(
    kind: ValueKind,
    extents: &[Extent],
    data_bytes: usize,
    part_bytes: PartBytes,
) -> Result<Option<Extents>> {
    check(kind, extents, data_bytes)?;
    let most_bytes = if let ValueKind::Array { record_bytes } = kind {
        part_bytes.for_records(record_bytes as usize)
    } else {
        MAX_VALUE_BYTES
    };
    let fits = extents.len() < PIECE_EXTENTS && data_bytes <= most_bytes;
    Ok(fits.then(|| Extents::from_slice(extents)))
}

/// The pieces of an entry, each with its extents and bytes, in the order of the data.
pub(super) fn cut(
    kind: ValueKind,
    extents: &[Extent],
    data_bytes: usize,
    part_bytes: PartBytes,
) -> Result<Vec<(Extents, usize)>> {
    check(kind, extents, data_bytes)?;
    let ValueKind::Array { record_bytes } = kind else { return Ok(vec![(Extents::new(), data_bytes)]) };
    let record_bytes = record_bytes as usize;
    let mut pieces: Vec<(Extents, usize)> = vec![];
    let most_bytes = part_bytes.for_records(record_bytes);
    let records_max = (most_bytes / record_bytes) as u64;
    for extent in extents {
        let mut rest = *extent;
        while rest.count > 0 {
            let open = pieces
                .last_mut()
                .filter(|(extents, bytes)| extents.len() < PIECE_EXTENTS && bytes + record_bytes <= most_bytes);
            let (piece, bytes) = match open {
                Some(piece) => piece,
                None => {
                    pieces.push((Extents::new(), 0));
                    let at = pieces.len() - 1;
                    &mut pieces[at]
                }
            };
            let room = records_max - (*bytes / record_bytes) as u64;
            let count = rest.count.min(room);
            piece.push(Extent { index: rest.index, count });
            *bytes += count as usize * record_bytes;
            rest = Extent { index: rest.index + count, count: rest.count - count };
        }
    }
    Ok(pieces)
}
