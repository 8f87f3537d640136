//! Updates: packed into few messages a target, in parts where nobody sees one without the others, all in flight together.
//!
//! Must never split what a call's semantics make one: an update outside of an epoch, and one with a condition.

use std::pin::pin;

use talea_fabric::endpoint::MAX_PAYLOAD_BYTES;
use talea_model::limit::MAX_ENTRIES;
use talea_model::{Extent, Oid, TargetId};
use talea_wire::data::{Body, Condition, Entry, Extents, More, ReadOf, ValueKind};

use super::parts::{Front, Gathered, PartsUpdate, checksum_of};
use super::plan::{Cost, ENTRY_BYTES, EXTENT_BYTES, HEADS_BYTES, Packer, PartBytes, cut, whole};
use super::updating::Updating;
use super::{Object, Write, check_key, checksum, done, note};
use crate::client::gather;
use crate::container::Container;
use crate::core::exchange::{Answer, Question};
use crate::epoch::Epoch;
use crate::error::{ClientError, Result};

/// One (dkey, akey) to update.
#[derive(Clone, Copy, Debug)]
pub struct EntryUpdate<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// Kind of value.
    pub kind: ValueKind,
    /// Condition.
    pub condition: Condition,
    /// Extents of an array in the order of the data; empty for single values.
    pub extents: &'a [Extent],
    /// The extents' records in order, or the value.
    pub data: &'a [u8],
}

impl Write<'_> {
    /// What a message carries at most. An update outside of an epoch is one, and a condition is judged over all that the message
    /// carries; in an epoch nobody sees one part without the others.
    fn part_bytes<E: Gathered>(&self, entries: &[E]) -> PartBytes {
        let conditional = |entry: &E| entry.gathered().0.condition != Condition::None;
        if !matches!(self, Write::Inside(_)) || entries.iter().any(conditional) {
            return PartBytes::WHOLE;
        }
        let bytes = |entry: &E| {
            let (first, more) = entry.gathered();
            first.data.len() + bytes_of(more)
        };
        PartBytes::of(entries.iter().map(bytes).sum())
    }
}

impl Container {
    /// Updates entries of several objects, all of them in flight together.
    pub fn update_all(&self, write: &Write<'_>, updates: &[(Oid, Vec<EntryUpdate<'_>>)]) -> Result<()> {
        let each = updates.iter().map(|(oid, entries)| async { self.object(*oid).update_async(write, entries).await });
        let all = self.client.block_on(gather(each.collect()))?;
        all.into_iter().collect()
    }
}

impl Object {
    /// Updates entries. Returns when all targets have applied them durably. Of entries that write the same records any may stay: a call
    /// may be several messages.
    pub fn update(&self, write: &Write<'_>, entries: &[EntryUpdate<'_>]) -> Result<()> {
        self.container.client.block_on_pinned(pin!(self.update_async(write, entries)))?
    }

    /// Asynchronous [`update`](Self::update). In flight, for its epoch, from this call on until it has ended or is dropped.
    pub fn update_async(&self, write: &Write<'_>, entries: &[EntryUpdate<'_>]) -> impl Future<Output = Result<()>> {
        self.update_gathered(write, entries)
    }

    /// As [`update`](Self::update), of data that lies in several pieces: they go into the message as they are.
    pub fn update_parts(&self, write: &Write<'_>, entries: &[PartsUpdate<'_>]) -> Result<()> {
        self.container.client.block_on_pinned(pin!(self.update_parts_async(write, entries)))?
    }

    /// Asynchronous [`update_parts`](Self::update_parts).
    pub fn update_parts_async(
        &self,
        write: &Write<'_>,
        entries: &[PartsUpdate<'_>],
    ) -> impl Future<Output = Result<()>> {
        self.update_gathered(write, entries)
    }

    fn update_gathered<E: Gathered>(&self, write: &Write<'_>, entries: &[E]) -> impl Future<Output = Result<()>> {
        let flight = write.epoch().filter(|_| !entries.is_empty()).map(Epoch::begin_update);
        // One future, none in another: moving it costs more than a small request.
        async move {
            let _flight = flight.transpose()?;
            if entries.is_empty() {
                return Ok(());
            }
            self.note_conditions(write, entries);
            let updating = Updating::begin(write.epoch()).await?;
            let part_bytes = write.part_bytes(entries);
            // Most calls are one message, which needs no packing.
            if let [entry] = entries
                && let Some(entry) = whole_entry(entry, part_bytes)?
            {
                let conditional = entry.condition != Condition::None;
                return updating.end(self.update_whole(write, entry).await.err(), conditional);
            }
            let pieces = entries.iter().map(|entry| update_pieces(entry, part_bytes)).collect::<Result<Vec<_>>>()?;
            let mut messages = self.pack_updates(pieces.into_iter().flatten().collect(), part_bytes)?;
            if !matches!(write, Write::Inside(_)) {
                check_autocommit(entries, messages.len())?;
            }
            let question = self.question("updating", TargetId(0), Some(write));
            let mut first_error = None;
            while !messages.is_empty() {
                let sent =
                    messages.drain(..).map(|(target, entries)| self.send_update(question, write, target, entries));
                let mut moved = vec![];
                for (entries, result) in gather(sent.collect()).await {
                    match result {
                        Ok(Answer::Done(..)) => {}
                        Ok(Answer::Moved) => moved.extend(entries),
                        Err(error) => _ = first_error.get_or_insert(error),
                    }
                }
                messages = self.pack_updates(moved, part_bytes)?;
            }
            let conditional = entries.iter().any(|entry| entry.gathered().0.condition != Condition::None);
            updating.end(first_error, conditional)
        }
    }

    /// A condition is a read (rule 15).
    fn note_conditions<E: Gathered>(&self, write: &Write<'_>, entries: &[E]) {
        let (reads, view) = (&self.container.client.shared.reads, write.view());
        if !reads.wants(&view) {
            return;
        }
        for entry in entries {
            let (entry, _) = entry.gathered();
            let (dkey, akey) = (entry.dkey.to_vec(), entry.akey.to_vec());
            match entry.condition {
                Condition::DkeyInsert | Condition::DkeyUpdate => reads.note(&view, self.oid, ReadOf::Dkey(dkey)),
                Condition::None if entry.kind != ValueKind::SingleMax => {}
                _ => reads.note(&view, self.oid, ReadOf::Akey { dkey, akey, extents: vec![] }),
            }
        }
    }

    /// An update that is one entry of one message.
    async fn update_whole(&self, write: &Write<'_>, entry: Entry<'_>) -> Result<()> {
        let question = self.question("updating", TargetId(0), Some(write));
        let dkey = entry.dkey;
        let mut entries = vec![entry];
        loop {
            let target = self.layout()?.leader_of(dkey);
            let answer;
            (entries, answer) = self.send_update(question, write, target, entries).await;
            if let Answer::Done(..) = answer? {
                return Ok(());
            }
        }
    }

    fn pack_updates<'a>(
        &self,
        entries: Vec<Entry<'a>>,
        part_bytes: PartBytes,
    ) -> Result<Vec<(TargetId, Vec<Entry<'a>>)>> {
        let layout = self.layout()?;
        let mut packer = Packer::new(part_bytes);
        for entry in entries {
            let cost = Cost::of(entry.dkey, entry.akey, entry.extents.len(), entry.data_bytes());
            packer.add(layout.leader_of(entry.dkey), cost, entry);
        }
        Ok(packer.messages())
    }

    async fn send_update<'a>(
        &self,
        question: Question,
        write: &Write<'_>,
        target: TargetId,
        mut entries: Vec<Entry<'a>>,
    ) -> (Vec<Entry<'a>>, Result<Answer<()>>) {
        entries.iter_mut().for_each(|entry| entry.checksum = sum_of(entry));
        let question = Question { target, ..question };
        let mut request = question.request(Body::Update(entries));
        let shared = &self.container.client.shared;
        let answer = shared.exchange(question, &mut request, |body| self.has_moved(body, target), done).await;
        note(write, target, &answer);
        let entries = if let Body::Update(entries) = request.body { entries } else { vec![] };
        (entries, answer)
    }
}

pub(super) fn check_autocommit<E: Gathered>(entries: &[E], messages: usize) -> Result<()> {
    if entries.iter().any(|entry| entry.gathered().0.dkey != entries[0].gathered().0.dkey) {
        let text = "an update outside an epoch covers one dkey: use an epoch, or one call a dkey";
        return Err(ClientError::Argument(text.to_owned()));
    }
    if messages > 1 {
        let extents: usize = entries.iter().map(|entry| entry.gathered().0.extents.len()).sum();
        let bytes = |entry: &E| entry.gathered().0.data.len() + bytes_of(entry.gathered().1);
        return Err(ClientError::TooLong(format!(
            "an update outside an epoch is one message, with at most {MAX_PAYLOAD_BYTES} bytes of data, {MAX_ENTRIES} entries, and \
             {HEADS_BYTES} bytes of keys and extents ({EXTENT_BYTES} an extent, {ENTRY_BYTES} an entry); here are bytes of \
             data: {}, entries: {}, extents: {extents}. Use an epoch, or several calls",
            entries.iter().map(bytes).sum::<usize>(),
            entries.len(),
        )));
    }
    Ok(())
}

/// An entry as wire entries that each fit a message.
fn update_pieces<E: Gathered>(entry: &E, part_bytes: PartBytes) -> Result<Vec<Entry<'_>>> {
    let (entry, more) = entry.gathered();
    check_key(entry.dkey)?;
    check_key(entry.akey)?;
    let pieces = cut(entry.kind, entry.extents, entry.data.len() + bytes_of(more), part_bytes)?;
    let mut left = Front::of(entry.data, more);
    let piece = |(extents, bytes): (Extents, usize)| {
        let (data, more) = left.take(bytes);
        let (dkey, akey, kind, condition) = (entry.dkey, entry.akey, entry.kind, entry.condition);
        Entry { dkey, akey, kind, condition, extents, checksum: 0, data, more }
    };
    Ok(pieces.into_iter().map(piece).collect())
}

/// An entry as one wire entry, if it is one.
fn whole_entry<E: Gathered>(entry: &E, part_bytes: PartBytes) -> Result<Option<Entry<'_>>> {
    let (EntryUpdate { dkey, akey, kind, condition, extents, data }, more) = entry.gathered();
    check_key(dkey)?;
    check_key(akey)?;
    let extents = whole(kind, extents, data.len() + bytes_of(more), part_bytes)?;
    Ok(extents.map(|extents| Entry { dkey, akey, kind, condition, extents, checksum: 0, data, more }))
}

fn sum_of(entry: &Entry<'_>) -> u32 {
    let is_one = entry.more.whole.is_empty() && entry.more.last.is_empty();
    if is_one { checksum(entry.data) } else { checksum_of(entry.parts()) }
}

fn bytes_of(more: More<'_>) -> usize {
    more.whole.iter().map(|part| part.len()).sum::<usize>() + more.last.len()
}
