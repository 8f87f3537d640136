//! A handle: one open of a file in one process.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use talea_abi::Code;
use talea_model::{Step, Summary};

use super::blob::{self, Base, Outcome, Shared};
use super::counter::{CounterChange, Counters};
use super::epoch::SharedEpoch;
use super::{Registry, group::Group, pieces};
use crate::Fault;
use crate::backing::{Backing, Snapshot, SnapshotAt};
use crate::namespace::{Namespace, file_size};
use crate::path::TaleaPath;

/// What a handle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its sync and close commit, with the summaries of the founding communicator.
    pub founder: bool,
    /// Open for writing.
    pub writable: bool,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// Size of a summary in bytes, equal on all processes of a founding.
    pub summary_bytes: usize,
    /// Step of the base, or of the step view.
    pub step: Step,
    /// A write of this process has failed in the present epoch, or there is none: its commit will be refused.
    pub failed: bool,
    /// Processes that share the epoch; 0 for a reader.
    pub processes: u32,
}

/// What a commit came to. Also a failed one has something that the other processes must take over.
pub struct CommitAnswer {
    /// Whether it went through.
    pub result: Result<(), Fault>,
    /// For [`Handle::advance`] on every process, this one included.
    pub outcome: Vec<u8>,
}

/// One open of a file. Dropping it closes it without a commit.
pub struct Handle {
    shared: Shared,
    backing: Arc<dyn Backing>,
    counters: Counters,
    kind: Side,
}

enum Side {
    Reader {
        base: RwLock<Base>,
        /// Held by the process that leased the base.
        lease: Mutex<Option<Box<dyn Snapshot>>>,
        fixed: bool,
    },
    Writer {
        group: Arc<Group>,
        founder: bool,
        registry: Arc<Registry>,
        /// The founder's last commit has been taken over.
        ended: Mutex<bool>,
    },
}

impl Handle {
    pub(super) fn reader(
        shared: Shared,
        backing: Arc<dyn Backing>,
        base: Base,
        lease: Option<Box<dyn Snapshot>>,
        fixed: bool,
    ) -> Self {
        Self::new(shared, backing, Side::Reader { base: RwLock::new(base), lease: Mutex::new(lease), fixed })
    }

    pub(super) fn writer(
        shared: Shared,
        backing: Arc<dyn Backing>,
        group: Arc<Group>,
        founder: bool,
        registry: Arc<Registry>,
    ) -> Self {
        Self::new(shared, backing, Side::Writer { group, founder, registry, ended: Mutex::new(false) })
    }

    fn new(shared: Shared, backing: Arc<dyn Backing>, kind: Side) -> Self {
        let counters = Counters::new(backing.clone(), shared.counters);
        Self { shared, backing, counters, kind }
    }

    /// Changes a counter that all processes of this collective open share; answers what it was before.
    pub fn counter(&self, number: u32, change: CounterChange) -> Result<i64, Fault> {
        self.counters.change(number, change)
    }

    /// Forgets counters, on one process, when no other uses them any more.
    pub fn drop_counters(&self, numbers: std::ops::RangeInclusive<u32>) -> Result<(), Fault> {
        self.counters.forget(numbers)
    }

    /// What the handle is.
    pub fn info(&self) -> Info {
        let (founder, writable, step, failed, processes) = match &self.kind {
            Side::Reader { base, .. } => (false, false, read(base).step, false, 0),
            Side::Writer { group, founder, .. } => {
                let founder = *founder && !group.is_solo() && !group.is_explicit();
                (founder, true, group.step(), group.has_failed(), group.sharers())
            }
        };
        let (chunk_bytes, summary_bytes) = (self.shared.chunk_bytes, self.shared.summary_bytes as usize);
        Info { founder, writable, chunk_bytes, summary_bytes, step, failed, processes }
    }

    pub(super) fn group(&self) -> Result<&Arc<Group>, Fault> {
        match &self.kind {
            Side::Writer { group, .. } => Ok(group),
            Side::Reader { .. } => Err(Fault::new(
                Code::ReadOnly,
                format!("'{}' is open for reading: open it for writing", self.shared.path.escape_ascii()),
            )),
        }
    }

    /// Writes all pieces into the file's epoch; returns when the targets have applied them.
    pub fn write(&self, pieces: &[(u64, &[u8])]) -> Result<(), Fault> {
        self.group()?.write(pieces)
    }

    /// Reads all pieces, holes as zeros; what lies beyond the returned size in bytes is not touched.
    pub fn read(&self, list: &mut [(u64, &mut [u8])]) -> Result<u64, Fault> {
        match &self.kind {
            Side::Writer { group, .. } => group.read(list),
            Side::Reader { base, .. } => {
                let base = *read(base);
                pieces::read(list, self.shared.chunk_bytes, base.bytes, |fetches| {
                    self.backing.fetch(base.view, self.shared.oid, fetches)
                })?;
                Ok(base.bytes)
            }
        }
    }

    /// Size in bytes as this handle sees it: for a writer the larger of base and pending.
    pub fn size(&self) -> Result<u64, Fault> {
        match &self.kind {
            Side::Writer { group, .. } => group.bytes(),
            Side::Reader { base, .. } => Ok(read(base).bytes),
        }
    }

    /// Sets the size on one process; the bytes are for [`advance`](Self::advance) on the others.
    pub fn set_size(&self, bytes: u64) -> Result<Vec<u8>, Fault> {
        blob::encode(&self.group()?.set_bytes(bytes)?)
    }

    /// Something failed that this library does not know of: the epoch must not commit.
    pub fn fail(&self) -> Result<(), Fault> {
        self.group()?.fail();
        Ok(())
    }

    /// Ends this process's part of the epoch: all that its handles on the file wrote is at the targets, and counted.
    pub fn flush(&self) -> Result<Summary, Fault> {
        match &self.kind {
            Side::Writer { group, .. } => group.flush(),
            Side::Reader { .. } => Ok(Summary { hlc: self.backing.hlc(), ..Summary::default() }),
        }
    }

    /// Commits with the merged summary, on one process; with `next` another epoch begins in the same request. A read-only
    /// handle takes a new base instead.
    pub fn commit(&self, merged: Summary, next: bool) -> Result<CommitAnswer, Fault> {
        match &self.kind {
            Side::Reader { base, lease, fixed } => {
                self.backing.observe(merged.hlc);
                let fresh = if *fixed || !next { *read(base) } else { self.refresh(lease)? };
                Ok(CommitAnswer { result: Ok(()), outcome: blob::encode(&Outcome::Base(fresh))? })
            }
            Side::Writer { group, founder, .. } => {
                if !founder || group.is_solo() || group.is_explicit() {
                    return Err(Fault::new(Code::Argument, "only the handle that founded the epoch commits it"));
                }
                let committed = group.commit(merged, next);
                Ok(CommitAnswer { result: committed.result, outcome: blob::encode(&committed.outcome)? })
            }
        }
    }

    fn refresh(&self, lease: &Mutex<Option<Box<dyn Snapshot>>>) -> Result<Base, Fault> {
        let snapshot = self.backing.snapshot(SnapshotAt::Latest)?;
        let view = snapshot.view();
        let size = file_size(&*self.backing, view, self.shared.oid)?;
        let step = snapshot.step();
        *lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
        Ok(Base { view, bytes: size.bytes, step })
    }

    /// Takes over what a process of the communicator did by [`commit`](Self::commit) or [`set_size`](Self::set_size).
    pub fn advance(&self, outcome: &[u8]) -> Result<(), Fault> {
        match (&self.kind, blob::decode(outcome)?) {
            (Side::Reader { base, .. }, Outcome::Base(fresh)) => {
                *base.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                Ok(())
            }
            (Side::Writer { group, founder, ended, .. }, outcome) => {
                let last = matches!(&outcome, Outcome::Closed { next: None, .. });
                if *founder && last {
                    *ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
                }
                group.advance(outcome)
            }
            (Side::Reader { .. }, _) => Err(Fault::new(Code::Argument, "this result belongs to another file")),
        }
    }

    /// The file's further writes belong to an explicit epoch, which commits them. On one process, after a commit; the bytes are for
    /// [`advance`](Self::advance) on the others.
    pub fn enter(&self, epoch: &SharedEpoch) -> Result<Vec<u8>, Fault> {
        let group = self.group()?;
        if group.is_explicit() {
            return Err(Fault::new(Code::Conflict, "the file takes part in an explicit epoch already"));
        }
        blob::encode(&group.enter(&epoch.blob()?)?)
    }

    /// The file's further writes belong to an epoch of its own again. On one process; the bytes are as for [`enter`](Self::enter).
    pub fn leave(&self) -> Result<Vec<u8>, Fault> {
        blob::encode(&self.group()?.leave()?)
    }

    /// Writes the file's size into the explicit epoch, on one process, before its commit or the file's close.
    pub fn seal(&self, merged: Summary) -> Result<Summary, Fault> {
        let (sealed, written) = self.group()?.seal_explicit(merged)?;
        if let (Side::Writer { registry, .. }, Some((tx, file))) = (&self.kind, written) {
            registry.wrote(tx, file);
        }
        Ok(sealed)
    }

    /// What the commit of an explicit epoch came to for this file, for [`advance`](Self::advance) on every process.
    pub fn settle(&self, result: &[u8], merged: &Summary) -> Result<Vec<u8>, Fault> {
        blob::encode(&self.group()?.settled(&blob::decode(result)?, merged))
    }

    /// Aborts the epoch, on one process; a file to be deleted on close is unlinked.
    pub fn abort(&self) -> Result<(), Fault> {
        let aborted = match &self.kind {
            Side::Writer { group, .. } => group.abort("the program asked for it"),
            Side::Reader { .. } => Ok(()),
        };
        if !self.shared.delete_on_close {
            return aborted;
        }
        let path = TaleaPath::parse(&self.shared.path)?;
        let space = Namespace::new(self.backing.clone(), talea_model::View::Latest);
        match space.unlink(&path.names) {
            // A file that was created in the epoch has vanished with it.
            Err(fault) if fault.code != Code::NotFound => Err(fault),
            _ => aborted,
        }
    }

    /// Sync of a process by itself (fsync, close outside of MPI): flush, commit, advance.
    pub fn sync(&self) -> Result<(), Fault> {
        let summary = self.flush()?;
        if self.info().writable && !self.info().founder {
            return Ok(());
        }
        let answer = self.commit(summary, true)?;
        self.advance(&answer.outcome)?;
        answer.result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Side::Writer { group, founder, registry, ended } = &self.kind {
            if *founder && !group.is_explicit() && !*ended.lock().unwrap_or_else(PoisonError::into_inner) {
                group.orphan();
            }
            registry.release(self.backing.name(), group);
        }
    }
}

fn read(base: &RwLock<Base>) -> std::sync::RwLockReadGuard<'_, Base> {
    base.read().unwrap_or_else(PoisonError::into_inner)
}

/// Merges encoded summaries: `into = into + from`.
pub fn merge_summaries(into: &mut [u8], from: &[u8]) -> Result<(), Fault> {
    let bad = |error: talea_model::summary::BadSummary| Fault::new(Code::Argument, error.to_string());
    let mut merged = Summary::decode(into).map_err(bad)?;
    merged.merge(&Summary::decode(from).map_err(bad)?);
    merged.encode(into).map_err(bad)
}
