//! Objects: update, fetch, punch, enumerate, query.
//!
//! Entries over many dkeys are placed by the object's layout, packed into few messages a target, and all in flight together.
//! Checksums are made here and verified here (docs/design.md §3, I7).

use std::sync::Arc;

use talea_model::{Extent, Layout, Oid, Order, TargetId, View, key};
use talea_wire::data::{Body, Condition, QueryKind, ReadOf, ReplyBody, ReplyHead};

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
mod update;
mod updating;

pub use fetch::EntryFetch;
pub use parts::{PartsFetch, PartsUpdate};
pub use update::EntryUpdate;

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

    fn epoch(&self) -> Option<&'a Epoch> {
        match self {
            Write::Auto => None,
            Write::Tied(epoch) | Write::Inside(epoch) => Some(epoch),
        }
    }
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
