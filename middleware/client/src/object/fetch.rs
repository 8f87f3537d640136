//! Fetching entries into the caller's memory.

use std::pin::pin;

use smallvec::{SmallVec, smallvec};
use talea_model::{Extent, TargetId, View};
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition, Entry, Extents, Fetched, More, ReadOf, ReplyBody, ValueKind};

use super::parts::{Asked, Out, PartsFetch, Places, Scattered, clear, copy_and_sum, room};
use super::plan::{Cost, Packer, PartBytes, cut, whole};
use super::{Object, check_key};
use crate::client::gather;
use crate::core::exchange::{Answer, Question};
use crate::error::{ClientError, Result};

/// One (dkey, akey) to fetch, and where to.
#[derive(Debug)]
pub struct EntryFetch<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// Kind of value.
    pub kind: ValueKind,
    /// Extents of an array; empty for single values.
    pub extents: &'a [Extent],
    /// Gets the extents' records in order, whose size it must have (holes read as zeros), or as much of a value as fits.
    pub out: &'a mut [u8],
    /// Result: whether there is a value, or any record in the extents.
    pub found: bool,
    /// Result: whether there was no hole in the extents.
    pub filled: bool,
    /// Result: bytes of the value, also if `out` is smaller; of an array the bytes asked for.
    pub bytes: usize,
}

impl<'a> EntryFetch<'a> {
    /// A single value.
    pub fn single(dkey: &'a [u8], akey: &'a [u8], out: &'a mut [u8]) -> Self {
        Self { dkey, akey, kind: ValueKind::Single, extents: &[], out, found: false, filled: false, bytes: 0 }
    }

    /// Records of an array.
    pub fn array(dkey: &'a [u8], akey: &'a [u8], record_bytes: u32, extents: &'a [Extent], out: &'a mut [u8]) -> Self {
        let kind = ValueKind::Array { record_bytes };
        Self { dkey, akey, kind, extents, out, found: false, filled: false, bytes: 0 }
    }
}

/// What is known of an entry, or of a piece of it.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) found: bool,
    pub(super) filled: bool,
    pub(super) bytes: usize,
}

impl Found {
    fn join(&mut self, piece: Found) {
        self.found |= piece.found;
        self.filled &= piece.filled;
        self.bytes += piece.bytes;
    }
}

/// A piece of an entry that fits a message.
pub(super) struct Piece<'k, 'o> {
    pub(super) index: usize,
    pub(super) entry: Entry<'k>,
    pub(super) out: Out<'o>,
}

impl Piece<'_, '_> {
    /// Bytes of its places.
    pub(super) fn bytes(&self) -> usize {
        room(&self.out)
    }
}

/// Pieces of a call or message; most have one, and that one needs no allocation.
pub(super) type Pieces<'k, 'o> = SmallVec<[Piece<'k, 'o>; 1]>;
type Messages<'k, 'o> = SmallVec<[(TargetId, Pieces<'k, 'o>); 1]>;
/// What came of a message: its pieces, and what was found of each, or `None` if it belongs elsewhere.
type Answered<'k, 'o> = (TargetId, Pieces<'k, 'o>, Result<Option<SmallVec<[Found; 1]>>>);

impl Object {
    /// Fetches entries; their results stand in them.
    pub fn fetch(&self, view: &View, entries: &mut [EntryFetch<'_>]) -> Result<()> {
        self.container.client.block_on_pinned(pin!(self.fetch_async(view, entries)))?
    }

    /// Asynchronous [`fetch`](Self::fetch).
    pub fn fetch_async(&self, view: &View, entries: &mut [EntryFetch<'_>]) -> impl Future<Output = Result<()>> {
        self.fetch_scattered(view, entries)
    }

    /// As [`fetch`](Self::fetch), into several pieces of memory.
    pub fn fetch_parts(&self, view: &View, entries: &mut [PartsFetch<'_, '_>]) -> Result<()> {
        self.container.client.block_on_pinned(pin!(self.fetch_parts_async(view, entries)))?
    }

    /// Asynchronous [`fetch_parts`](Self::fetch_parts).
    pub fn fetch_parts_async(
        &self,
        view: &View,
        entries: &mut [PartsFetch<'_, '_>],
    ) -> impl Future<Output = Result<()>> {
        self.fetch_scattered(view, entries)
    }

    async fn fetch_scattered<'k, E: Scattered<'k>>(&self, view: &View, entries: &mut [E]) -> Result<()> {
        self.note_reads(view, entries);
        let mut results: SmallVec<[Found; 1]> =
            smallvec![Found { found: false, filled: true, bytes: 0 }; entries.len()];
        let mut pieces = Pieces::new();
        // What is seen in the latest state of a call's entries is seen together, message by message.
        let part_bytes = match view {
            View::Latest => PartBytes::WHOLE,
            _ => PartBytes::of(entries.iter().map(Scattered::bytes).sum()),
        };
        for (index, entry) in entries.iter_mut().enumerate() {
            push_pieces(index, entry, part_bytes, &mut pieces)?;
        }
        let question = self.container.question("fetching", TargetId(0), self.oid, None, *view);
        let (pieces, silent) = self.fetch_short(question, pieces, |index, one| results[index].join(one)).await?;
        let pieces = match self.may_be_near(*view, &pieces) {
            true => Box::pin(self.fetch_near(question, pieces, silent, |index, one| results[index].join(one))).await?,
            false => pieces,
        };
        let mut messages = self.pack_fetches(pieces, part_bytes)?;
        let mut first_error = None;
        while !messages.is_empty() {
            let (mut moved, mut halves) = (Pieces::new(), Messages::new());
            for (target, mut pieces, result) in self.send_fetches(question, messages).await {
                match result {
                    Ok(Some(found)) => {
                        pieces.iter().zip(found).for_each(|(piece, one)| results[piece.index].join(one));
                    }
                    Ok(None) => moved.append(&mut pieces),
                    // Single values may be larger than their buffers: fewer of them then.
                    Err(error) if pieces.len() > 1 && is_too_long(&error) => {
                        let half = pieces.drain(pieces.len() / 2..).collect();
                        halves.extend([(target, pieces), (target, half)]);
                    }
                    Err(error) => _ = first_error.get_or_insert(error),
                }
            }
            messages = self.pack_fetches(moved, part_bytes)?;
            messages.append(&mut halves);
        }
        drop(messages);
        if let Some(error) = first_error {
            return Err(error);
        }
        for (entry, result) in entries.iter_mut().zip(results) {
            entry.tell(Found { filled: result.filled && result.found, ..result });
        }
        Ok(())
    }

    fn note_reads<'k, E: Scattered<'k>>(&self, view: &View, entries: &[E]) {
        let reads = &self.container.client.shared.reads;
        if reads.wants(view) {
            for entry in entries {
                let entry = entry.asked();
                let (dkey, akey, extents) = (entry.dkey.to_vec(), entry.akey.to_vec(), entry.extents.to_vec());
                reads.note(view, self.oid, ReadOf::Akey { dkey, akey, extents });
            }
        }
    }

    fn pack_fetches<'k, 'o>(&self, pieces: Pieces<'k, 'o>, part_bytes: PartBytes) -> Result<Messages<'k, 'o>> {
        if pieces.is_empty() {
            return Ok(Messages::new());
        }
        let layout = self.layout()?;
        if let [piece] = &pieces[..] {
            return Ok(smallvec![(layout.leader_of(piece.entry.dkey), pieces)]);
        }
        let mut packer = Packer::new(part_bytes);
        for piece in pieces {
            let Entry { dkey, akey, ref extents, .. } = piece.entry;
            let cost = Cost::of(dkey, akey, extents.len(), piece.bytes());
            packer.add(layout.leader_of(dkey), cost, piece);
        }
        Ok(packer.messages().into_iter().map(|(target, pieces)| (target, pieces.into())).collect())
    }

    async fn send_fetches<'k, 'o>(
        &self,
        question: Question,
        mut messages: Messages<'k, 'o>,
    ) -> SmallVec<[Answered<'k, 'o>; 1]> {
        if messages.len() == 1
            && let Some((target, pieces)) = messages.pop()
        {
            return smallvec![self.send_fetch(question, target, pieces).await];
        }
        let sent = messages.into_iter().map(|(target, pieces)| self.send_fetch(question, target, pieces));
        Box::pin(gather(sent.collect())).await.into()
    }

    async fn send_fetch<'k, 'o>(
        &self,
        question: Question,
        target: TargetId,
        mut pieces: Pieces<'k, 'o>,
    ) -> Answered<'k, 'o> {
        let question = Question { target, ..question };
        let entries = pieces.iter().map(|piece| piece.entry.clone()).collect();
        let mut request = question.request(Body::Fetch(entries));
        let read = |body: ReplyBody<'_>| match body {
            ReplyBody::Fetched(fetched) if fetched.len() == pieces.len() => {
                pieces.iter_mut().zip(&fetched).map(|(piece, one)| self.take(piece, one, target)).collect()
            }
            _ => Err(ClientError::unexpected("fetching")),
        };
        let moved = |body: &Body<'_>| self.has_moved(body, target);
        let result = match self.container.client.shared.exchange(question, &mut request, moved, read).await {
            Ok(Answer::Done(found, _)) => Ok(Some(found)),
            Ok(Answer::Moved) => Ok(None),
            Err(error) => Err(error),
        };
        (target, pieces, result)
    }

    /// Copies and verifies one entry's data. Wrong bytes do not stay in the caller's memory.
    fn take(&self, piece: &mut Piece<'_, '_>, fetched: &Fetched<'_>, target: TargetId) -> Result<Found> {
        let Fetched { found, filled, data, .. } = *fetched;
        let mut bytes = data.len();
        if let ValueKind::Array { record_bytes } = piece.entry.kind {
            // 0: there is no such array.
            if (found || fetched.record_bytes != 0) && fetched.record_bytes != record_bytes {
                let text = format!("the array has records of {} bytes, not {record_bytes}", fetched.record_bytes);
                return Err(ClientError::Argument(text));
            }
            bytes = piece.bytes();
            if data.is_empty() {
                clear(&mut piece.out);
            } else if data.len() != bytes {
                return Err(ClientError::unexpected("fetching"));
            }
        }
        if copy_and_sum(data, &mut piece.out) != fetched.checksum {
            clear(&mut piece.out);
            return Err(ClientError::DataLost {
                oid: self.oid,
                dkey: piece.entry.dkey.escape_ascii().to_string(),
                akey: piece.entry.akey.escape_ascii().to_string(),
                target: target.0,
            });
        }
        Ok(Found { found, filled, bytes })
    }
}

fn is_too_long(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::TooLong)
}

fn push_pieces<'k: 'o, 'o, E: Scattered<'k>>(
    index: usize,
    entry: &'o mut E,
    part_bytes: PartBytes,
    pieces: &mut Pieces<'k, 'o>,
) -> Result<()> {
    let (Asked { dkey, akey, kind, extents }, bytes) = (entry.asked(), entry.bytes());
    check_key(dkey)?;
    check_key(akey)?;
    let mut places = Places::new(entry.places());
    let single = !matches!(kind, ValueKind::Array { .. });
    // A single value is as large as it is: its buffer's size says nothing.
    let one =
        if single && extents.is_empty() { Some(Extents::new()) } else { whole(kind, extents, bytes, part_bytes)? };
    let sizes: SmallVec<[(Extents, usize); 1]> = match one {
        Some(extents) => smallvec![(extents, bytes)],
        None => cut(kind, extents, bytes, part_bytes)?.into(),
    };
    for (extents, bytes) in sizes {
        let (condition, more) = (Condition::None, More::default());
        let entry = Entry { dkey, akey, kind, condition, extents, checksum: 0, data: &[], more };
        pieces.push(Piece { index, entry, out: places.take(bytes) });
    }
    Ok(())
}
