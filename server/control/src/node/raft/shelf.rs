//! What a replica keeps: its vote, its part of the log, and the newest snapshot of the pool.
//!
//! Owns their copy in memory, which openraft reads, and the order in which changes reach the medium: they leave as
//! [`StoreOp`]s, and openraft hears of a flush only after the shell said that it is done. Must never call anything durable
//! before that.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Cursor;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::{
    AsyncRuntime, EntryPayload, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot, StorageError,
    StorageIOError, StoredMembership,
};
use thiserror::Error;

use super::runtime::{Runtime, Sender, lock};
use super::{Entry, LogId, Membership, Meta, ReplicaId, TypeConfig, Vote};
use crate::pool::Pool;
use openraft::async_runtime::AsyncOneshotSendExt;

/// Bytes of log entries in one message, at most; one entry goes whatever its size.
const MESSAGE_BYTES: usize = 512 * 1024;

/// A change that the medium makes durable, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// The vote, whole.
    Vote(Vec<u8>),
    /// An entry at its index.
    Append {
        /// Its index.
        index: u64,
        /// The entry.
        bytes: Vec<u8>,
    },
    /// Entries from this index on go: another leader's took their place.
    Truncate {
        /// The first that goes.
        from: u64,
    },
    /// Entries up to this index go: a snapshot covers them.
    Purge {
        /// The last that goes.
        through: u64,
        /// What remains to be known of it.
        id: Vec<u8>,
    },
    /// The newest snapshot; older ones go.
    Snapshot(Vec<u8>),
}

/// What a medium held at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The last vote.
    pub vote: Option<Vec<u8>>,
    /// What is known of the last entry that went because a snapshot covers it.
    pub purged: Option<Vec<u8>>,
    /// Entries, ascending and without a gap.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// The newest snapshot.
    pub snapshot: Option<Vec<u8>>,
}

impl Stored {
    /// Whether nothing was ever stored.
    pub fn is_empty(&self) -> bool {
        *self == Stored::default()
    }

    /// Does what a medium does with an operation.
    pub fn apply(&mut self, op: StoreOp) {
        match op {
            StoreOp::Vote(bytes) => self.vote = Some(bytes),
            StoreOp::Append { index, bytes } => self.entries.push((index, bytes)),
            StoreOp::Truncate { from } => self.entries.retain(|(index, _)| *index < from),
            StoreOp::Purge { through, id } => {
                self.entries.retain(|(index, _)| *index > through);
                self.purged = Some(id);
            }
            StoreOp::Snapshot(bytes) => self.snapshot = Some(bytes),
        }
    }
}

/// What was stored is not what a replica stores.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the pool's log is damaged: {0}. Nothing was changed. Restore the file from a copy, or move its directory away: the other \
     replicas then bring this server up again"
)]
pub struct Damaged(pub String);

/// Who waits for a flush.
enum Waiting {
    Log(LogFlushed<TypeConfig>),
    Op(Sender<()>),
}

/// A snapshot: up to where it stands for the log, and the pool's image.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) meta: Meta,
    pub(super) image: Arc<Vec<u8>>,
}

impl Kept {
    /// As the medium keeps it: the length of what describes it, that, the image.
    #[allow(clippy::result_large_err)] // openraft's error, in openraft's traits
    fn encode(&self) -> Result<Vec<u8>, StorageError<ReplicaId>> {
        let meta = encode(&self.meta)?;
        let mut bytes = Vec::with_capacity(4 + meta.len() + self.image.len());
        bytes.extend((meta.len() as u32).to_le_bytes());
        bytes.extend(meta);
        bytes.extend(self.image.iter());
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (meta, image) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Kept { meta: decode(meta)?, image: Arc::new(image.to_vec()) })
    }
}

/// The state of the shelf.
#[derive(Default)]
pub(super) struct Inner {
    vote: Option<Vote>,
    log: BTreeMap<u64, (Entry, usize)>,
    /// Bytes of the log.
    log_bytes: usize,
    purged: Option<LogId>,
    pub(super) snapshot: Option<Kept>,
    ops: Vec<StoreOp>,
    waiting: Vec<Waiting>,
    flushing: Vec<Waiting>,
    is_busy: bool,
    pub(super) last_applied: Option<LogId>,
    pub(super) membership: Membership,
    /// Committed and in order, for the node.
    pub(super) applied: Vec<Committed>,
    /// A snapshot of the pool as it is after `last_applied`, laid ready before openraft is asked to make one.
    pub(super) ready: Option<Kept>,
}

impl Inner {
    /// Entries that are kept, and their bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.log.len(), self.log_bytes)
    }

    fn count_bytes(&mut self) {
        self.log_bytes = self.log.values().map(|(_, bytes)| bytes).sum();
    }
}

/// What the log says has happened.
#[derive(Debug)]
pub(in crate::node) enum Committed {
    /// An entry.
    Entry(Entry),
    /// A snapshot took the place of all entries so far: the pool as it was after the last of them.
    Snapshot(Box<Pool>),
}

/// The shelf, shared by openraft's parts.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Mutex<Inner>>);

impl Shelf {
    /// Takes over what the medium held.
    pub(super) fn open(stored: &Stored) -> Result<Self, Damaged> {
        let mut inner = Inner::default();
        let wrong = |what: &str| Damaged(what.to_owned());
        if let Some(bytes) = &stored.vote {
            let mut vote: Vote = decode(bytes).ok_or_else(|| wrong("its vote cannot be read"))?;
            // Whoever led before leads again only after a new election: it has forgotten what it had promised.
            vote.committed = false;
            inner.vote = Some(vote);
        }
        if let Some(bytes) = &stored.purged {
            inner.purged = Some(decode(bytes).ok_or_else(|| wrong("where it begins cannot be read"))?);
        }
        if let Some(bytes) = &stored.snapshot {
            let kept = Kept::decode(bytes).ok_or_else(|| wrong("its snapshot cannot be read"))?;
            let pool = Pool::from_image(&kept.image).map_err(|error| Damaged(format!("its snapshot: {error}")))?;
            inner.last_applied = kept.meta.last_log_id;
            inner.membership = kept.meta.last_membership.clone();
            inner.applied.push(Committed::Snapshot(Box::new(pool)));
            inner.snapshot = Some(kept);
        }
        let mut next = inner.purged.map(|id| id.index + 1);
        for (index, bytes) in &stored.entries {
            if next.is_some_and(|next| next != *index) {
                return Err(Damaged(format!("entry {} is missing", next.unwrap_or_default())));
            }
            next = Some(index + 1);
            let entry: Entry = decode(bytes).ok_or_else(|| Damaged(format!("entry {index} cannot be read")))?;
            if entry.log_id.index != *index {
                return Err(Damaged(format!("entry {index} claims to be entry {}", entry.log_id.index)));
            }
            inner.log.insert(*index, (entry, bytes.len()));
        }
        if inner.log.is_empty() || inner.purged.is_some() || inner.log.contains_key(&0) {
            inner.count_bytes();
        } else {
            return Err(wrong("its first entries are missing"));
        }
        Ok(Shelf(Arc::new(Mutex::new(inner))))
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut lock(&self.0))
    }

    /// What is to be made durable now, if the medium is not busy.
    pub(super) fn take_ops(&self) -> Option<Vec<StoreOp>> {
        let mut inner = lock(&self.0);
        if inner.is_busy || inner.ops.is_empty() {
            return None;
        }
        inner.is_busy = true;
        inner.flushing = std::mem::take(&mut inner.waiting);
        Some(std::mem::take(&mut inner.ops))
    }

    /// What was taken last is durable.
    pub(super) fn stored(&self) {
        let flushed = {
            let mut inner = lock(&self.0);
            inner.is_busy = false;
            std::mem::take(&mut inner.flushing)
        };
        for waiting in flushed {
            match waiting {
                Waiting::Log(callback) => callback.log_io_completed(Ok(())),
                // A task that waits no more needs no answer.
                Waiting::Op(sender) => drop(sender.send(())),
            }
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

#[allow(clippy::result_large_err)] // openraft's error, in openraft's traits
fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StorageError<ReplicaId>> {
    postcard::to_stdvec(value).map_err(|error| StorageIOError::write(&error).into())
}

impl RaftLogReader<TypeConfig> for Shelf {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<ReplicaId>> {
        Ok(lock(&self.0).log.range(range).map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError<ReplicaId>> {
        let inner = lock(&self.0);
        let (mut bytes, mut entries) = (0, Vec::new());
        for (_, (entry, entry_bytes)) in inner.log.range(start..end) {
            bytes += entry_bytes;
            if !entries.is_empty() && bytes > MESSAGE_BYTES {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for Shelf {
    type LogReader = Shelf;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<ReplicaId>> {
        let inner = lock(&self.0);
        let last = inner.log.last_key_value().map(|(_, (entry, _))| entry.log_id);
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: last.or(inner.purged) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError<ReplicaId>> {
        let (sender, durable) = Runtime::oneshot();
        {
            let mut inner = lock(&self.0);
            inner.vote = Some(*vote);
            inner.ops.push(StoreOp::Vote(encode(vote)?));
            inner.waiting.push(Waiting::Op(sender));
        }
        durable.await.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError<ReplicaId>> {
        Ok(lock(&self.0).vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError<ReplicaId>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut inner = lock(&self.0);
        for entry in entries {
            let (index, bytes) = (entry.log_id.index, encode(&entry)?);
            inner.log_bytes += bytes.len();
            inner.log.insert(index, (entry, bytes.len()));
            inner.ops.push(StoreOp::Append { index, bytes });
        }
        inner.waiting.push(Waiting::Log(callback));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError<ReplicaId>> {
        let mut inner = lock(&self.0);
        inner.log.split_off(&log_id.index);
        inner.count_bytes();
        inner.ops.push(StoreOp::Truncate { from: log_id.index });
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError<ReplicaId>> {
        let mut inner = lock(&self.0);
        inner.log = inner.log.split_off(&(log_id.index + 1));
        inner.count_bytes();
        inner.purged = Some(log_id);
        let id = encode(&log_id)?;
        inner.ops.push(StoreOp::Purge { through: log_id.index, id });
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for Shelf {
    type SnapshotBuilder = Shelf;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError<ReplicaId>> {
        let inner = lock(&self.0);
        Ok((inner.last_applied, inner.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<ReplicaId>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut inner = lock(&self.0);
        let mut answers = Vec::new();
        for entry in entries {
            inner.last_applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = &entry.payload {
                inner.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            inner.applied.push(Committed::Entry(entry));
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<ReplicaId>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<ReplicaId>> {
        let (sender, durable) = Runtime::oneshot();
        let kept = Kept { meta: meta.clone(), image: Arc::new(snapshot.into_inner()) };
        let pool = Pool::from_image(&kept.image);
        let pool = pool.map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), &error))?;
        {
            let mut inner = lock(&self.0);
            inner.ops.push(StoreOp::Snapshot(kept.encode()?));
            inner.waiting.push(Waiting::Op(sender));
            inner.last_applied = meta.last_log_id;
            inner.membership = meta.last_membership.clone();
            inner.applied.push(Committed::Snapshot(Box::new(pool)));
            inner.snapshot = Some(kept);
        }
        durable.await.map_err(|error| StorageIOError::write_snapshot(None, &error).into())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError<ReplicaId>> {
        let current = lock(&self.0).snapshot.clone();
        Ok(current.map(|kept| Snapshot { meta: kept.meta, snapshot: Box::new(Cursor::new(kept.image.to_vec())) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Shelf {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<ReplicaId>> {
        let (sender, durable) = Runtime::oneshot();
        let kept = {
            let mut inner = lock(&self.0);
            let Some(kept) = inner.ready.take() else {
                let text = std::io::Error::other("the pool's state was not laid ready");
                return Err(StorageIOError::read_snapshot(None, &text).into());
            };
            // One that was installed meanwhile is newer, and entries may have gone for it.
            let newer = inner.snapshot.clone().filter(|known| known.meta.last_log_id >= kept.meta.last_log_id);
            if let Some(Kept { meta, image }) = newer {
                return Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(image.to_vec())) });
            }
            inner.ops.push(StoreOp::Snapshot(kept.encode()?));
            inner.waiting.push(Waiting::Op(sender));
            inner.snapshot = Some(kept.clone());
            kept
        };
        // The entries that it covers go only once it is durable.
        durable.await.map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        Ok(Snapshot { meta: kept.meta, snapshot: Box::new(Cursor::new(kept.image.to_vec())) })
    }
}
