//! Objects: update, fetch, punch, enumerate, query.
//!
//! Entries over many dkeys are placed by the object's layout, packed into few messages a target, and all in flight together.
//! Checksums are made here and verified here (docs/design.md §3, I7).

use std::pin::pin;
use std::sync::Arc;

use talea_fabric::endpoint::MAX_PAYLOAD_BYTES;
use talea_model::limit::MAX_ENTRIES;
use talea_model::{Extent, Layout, Oid, Order, TargetId, View, key};
use talea_wire::data::{Body, Condition, Entry, Extents, More, QueryKind, ReadOf, ReplyBody, ReplyHead, ValueKind};

use crate::client::gather;
use crate::container::Container;
use crate::core::exchange::{Answer, Question};
use crate::epoch::Epoch;
use crate::error::{ClientError, Result};

mod fetch;
mod parts;
mod plan;
mod short;
#[cfg(test)]
mod tests;
mod updating;

pub use fetch::EntryFetch;
pub use parts::{PartsFetch, PartsUpdate};

use parts::{Front, Gathered, checksum_of};
use plan::{Cost, ENTRY_BYTES, EXTENT_BYTES, HEADS_BYTES, Packer, PartBytes, cut, whole};
use updating::Updating;

/// How updates take effect.
#[derive(Clone, Copy)]
pub enum Write<'a> {
    /// At once, alone: an autocommit of one dkey (but an object as a whole can be punched).
    Auto,
    /// At once for latest reads, and with the epoch's fate: an autocommit of one dkey.
    Tied(&'a Epoch),
    /// With the epoch.
    Inside(&'a Epoch),
}

impl<'a> Write<'a> {
    fn order(&self) -> Order {
        match self {
            Write::Auto => Order::Auto { tied: None },
            Write::Tied(epoch) => Order::Auto { tied: Some(epoch.tx()) },
            Write::Inside(epoch) => epoch.order(),
        }
    }

    /// What conditions are judged in.
    fn view(&self) -> View {
        match self {
            Write::Auto | Write::Tied(_) => View::Latest,
            Write::Inside(epoch) => epoch.view(),
        }
    }

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

    fn epoch(&self) -> Option<&'a Epoch> {
        match self {
            Write::Auto => None,
            Write::Tied(epoch) | Write::Inside(epoch) => Some(epoch),
        }
    }
}

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

/// What to punch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Punch<'a> {
    /// dkey; empty: the whole object.
    pub dkey: &'a [u8],
    /// akey; empty: the whole dkey.
    pub akey: &'a [u8],
    /// Range of an array; `None`: the whole akey.
    pub extent: Option<Extent>,
    /// Condition.
    pub condition: Condition,
}

/// An object of a container. Clones are cheap.
#[derive(Clone)]
pub struct Object {
    container: Container,
    oid: Oid,
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
    pub(crate) fn new(container: Container, oid: Oid) -> Self {
        Self { container, oid }
    }

    /// Its id.
    pub fn oid(&self) -> Oid {
        self.oid
    }

    /// Its container.
    pub fn container(&self) -> &Container {
        &self.container
    }

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

    /// Punches the object, a dkey, an akey or a range. The object as a whole, outside an epoch, is a transaction of its own
    /// where it lies on several targets.
    pub fn punch(&self, write: &Write<'_>, punch: &Punch<'_>) -> Result<()> {
        self.container.client.block_on(self.punch_async(write, punch))?
    }

    /// Asynchronous [`punch`](Self::punch). In flight, for its epoch, from this call on until it has ended or is dropped.
    pub fn punch_async(&self, write: &Write<'_>, punch: &Punch<'_>) -> impl Future<Output = Result<()>> {
        let flight = write.epoch().map(Epoch::begin_update);
        async move {
            let _flight = flight.transpose()?;
            self.punch_in_flight(write, punch).await
        }
    }

    async fn punch_in_flight(&self, write: &Write<'_>, punch: &Punch<'_>) -> Result<()> {
        check_punch(punch)?;
        let (reads, view) = (&self.container.client.shared.reads, write.view());
        if punch.condition != Condition::None && reads.wants(&view) {
            let of = if punch.dkey.is_empty() { ReadOf::Object } else { ReadOf::Dkey(punch.dkey.to_vec()) };
            reads.note(&view, self.oid, of);
        }
        let layout = self.layout()?;
        if punch.dkey.is_empty() && layout.targets().len() > 1 {
            match write {
                Write::Inside(_) => {}
                Write::Tied(_) => return Err(ClientError::Unsupported("a tied punch of an object on several targets")),
                Write::Auto => return self.punch_in_transaction(punch).await,
            }
        }
        let updating = Updating::begin(write.epoch()).await?;
        let error = self.punch_all(write, punch, &layout).await;
        updating.end(error, punch.condition != Condition::None)
    }

    async fn punch_in_transaction(&self, punch: &Punch<'_>) -> Result<()> {
        let epoch = self.container.begin_async(false).await?;
        epoch.enter_async().await?;
        match self.punch_all(&Write::Inside(&epoch), punch, &*self.layout()?).await {
            None => epoch.commit_async(&epoch.try_summary()?, &[], false).await.committed.map(drop),
            Some(error) => {
                // The punch failed: that is the error to tell. The abort's own would only follow from it.
                let _ = epoch.abort_async("a punch failed").await;
                Err(error)
            }
        }
    }

    async fn punch_all(&self, write: &Write<'_>, punch: &Punch<'_>, layout: &Layout) -> Option<ClientError> {
        let leader;
        let targets = if punch.dkey.is_empty() {
            layout.targets()
        } else {
            leader = [layout.leader_of(punch.dkey)];
            &leader[..]
        };
        let question = self.question("punching", TargetId(0), Some(write));
        let sent = targets.iter().map(|target| self.send_punch(question, write, *target, punch)).collect();
        gather(sent).await.into_iter().find_map(|result| match result {
            Ok(Answer::Done(..)) => None,
            Ok(Answer::Moved) => {
                let why = "the pool map changed meanwhile".to_owned();
                Some(ClientError::Uncertain { what: "punching", why })
            }
            Err(error) => Some(error),
        })
    }

    async fn send_punch(
        &self,
        question: Question,
        write: &Write<'_>,
        target: TargetId,
        punch: &Punch<'_>,
    ) -> Result<Answer<()>> {
        let Punch { dkey, akey, extent, condition } = *punch;
        let question = Question { target, ..question };
        let mut request = question.request(Body::Punch { dkey, akey, extent, condition });
        let moved = |_: &Body<'_>| self.layout().is_ok_and(|layout| !layout.targets().contains(&target));
        let answer = self.container.client.shared.exchange(question, &mut request, moved, done).await;
        note(write, target, &answer);
        answer
    }

    /// Asks for two numbers; see [`QueryKind`].
    pub fn query(&self, view: &View, kind: QueryKind, dkey: &[u8], akey: &[u8]) -> Result<(u64, u64)> {
        self.container.client.block_on(self.query_async(view, kind, dkey, akey))?
    }

    /// Asynchronous [`query`](Self::query).
    pub async fn query_async(&self, view: &View, kind: QueryKind, dkey: &[u8], akey: &[u8]) -> Result<(u64, u64)> {
        let reads = &self.container.client.shared.reads;
        if reads.wants(view) {
            let (dkey, akey) = (dkey.to_vec(), akey.to_vec());
            let of = match kind {
                QueryKind::ArrayEnd => ReadOf::Akey { dkey, akey, extents: vec![] },
                QueryKind::MaxDkeyArrayEnd | QueryKind::MaxDkey | QueryKind::MinDkey => ReadOf::Object,
            };
            reads.note(view, self.oid, of);
        }
        let layout = self.layout()?;
        let leader;
        let targets = if kind == QueryKind::ArrayEnd {
            check_key(dkey)?;
            leader = [layout.leader_of(dkey)];
            &leader[..]
        } else {
            layout.targets()
        };
        let question = self.container.question("querying", TargetId(0), self.oid, None, *view);
        let asked =
            targets.iter().map(|target| self.ask_numbers(Question { target: *target, ..question }, kind, dkey, akey));
        let answers = gather(asked.collect()).await.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(merge_numbers(kind, &answers))
    }

    async fn ask_numbers(&self, question: Question, kind: QueryKind, dkey: &[u8], akey: &[u8]) -> Result<(u64, u64)> {
        let mut request = question.request(Body::Query { kind, dkey, akey });
        let read = |body: ReplyBody<'_>| match body {
            ReplyBody::Numbers(a, b) => Ok((a, b)),
            _ => Err(ClientError::unexpected("querying")),
        };
        match self.container.client.shared.exchange(question, &mut request, |_| false, read).await? {
            Answer::Done(numbers, _) => Ok(numbers),
            Answer::Moved => Err(ClientError::unexpected("querying")),
        }
    }

    pub(crate) fn layout(&self) -> Result<Arc<Layout>> {
        self.container.client.shared.layout(self.oid)
    }

    fn has_moved(&self, body: &Body<'_>, target: TargetId) -> bool {
        let (Body::Update(entries) | Body::Fetch(entries)) = body else { return false };
        self.layout().is_ok_and(|layout| entries.iter().any(|entry| layout.leader_of(entry.dkey) != target))
    }

    fn question(&self, what: &'static str, target: TargetId, write: Option<&Write<'_>>) -> Question {
        let view = write.map_or(View::Latest, Write::view);
        self.container.question(what, target, self.oid, write.map(Write::order), view)
    }
}

fn note(write: &Write<'_>, target: TargetId, answer: &Result<Answer<()>>) {
    if let (Some(epoch), Ok(Answer::Done((), head))) = (write.epoch(), answer) {
        let head: &ReplyHead = head;
        epoch.applied(target, head);
    }
}

fn done(body: ReplyBody<'_>) -> Result<()> {
    if body == ReplyBody::Done { Ok(()) } else { Err(ClientError::unexpected("updating")) }
}

/// Bytes that are copied and summed at a time: the sum finds them in the cache.
const CACHED_BYTES: usize = 32 * 1024;

fn checksum(data: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32
}

fn check_key(bytes: &[u8]) -> Result<()> {
    match key::check(bytes) {
        Ok(()) => Ok(()),
        Err(error @ talea_model::KeyError::TooLong(_)) => Err(ClientError::TooLong(error.to_string())),
        Err(error) => Err(ClientError::Argument(error.to_string())),
    }
}

fn check_punch(punch: &Punch<'_>) -> Result<()> {
    let fits = (!punch.dkey.is_empty() || punch.akey.is_empty()) && (!punch.akey.is_empty() || punch.extent.is_none());
    if !fits {
        return Err(ClientError::Argument("a punch of a range needs its akey, and of an akey its dkey".to_owned()));
    }
    [punch.dkey, punch.akey].into_iter().filter(|key| !key.is_empty()).try_for_each(check_key)
}

fn check_autocommit<E: Gathered>(entries: &[E], messages: usize) -> Result<()> {
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

/// The answer of the object from those of its targets.
fn merge_numbers(kind: QueryKind, answers: &[(u64, u64)]) -> (u64, u64) {
    let some = answers.iter().copied();
    match kind {
        QueryKind::ArrayEnd => answers.first().copied().unwrap_or((0, 0)),
        QueryKind::MaxDkeyArrayEnd => some.filter(|(_, end)| *end > 0).max().unwrap_or((u64::MAX, 0)),
        QueryKind::MaxDkey => some.filter(|(found, _)| *found == 1).max().unwrap_or((0, 0)),
        QueryKind::MinDkey => some.filter(|(found, _)| *found == 1).min().unwrap_or((0, 0)),
    }
}
