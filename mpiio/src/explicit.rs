//! Explicit epochs over a communicator: any number of files, and objects of the same container, that one commit makes visible.
//!
//! Owns the order of their commit: each file's summaries are reduced and its size is written, then those of objects, then rank 0
//! commits once, and one broadcast tells all. The next epoch begins with that commit. Must never commit a part of it.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::abi::*;
use crate::agree::{self, Reduced, Reduction};
use crate::error::Failure;
use crate::file::{Group, OpenFile};
use crate::storage;
use crate::storage::epoch::{self, StorageEpoch};
use crate::{commit, handle};

/// An open explicit epoch.
pub(crate) struct Explicit {
    group: Group,
    container: Vec<u8>,
    /// The same on all its ranks, and of no other epoch.
    mark: i64,
    storage: StorageEpoch,
    reduction: Reduction,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// In the order in which they entered, the same on all ranks.
    files: Vec<Weak<OpenFile>>,
    /// On rank 0: merged summaries of files that were closed since the last commit.
    closed: Vec<Vec<u8>>,
    /// Why the epoch can no longer commit.
    broken: Option<Failure>,
}

/// Epochs by the numbers that the program has for them; never given twice.
static OPEN: Mutex<(usize, BTreeMap<usize, Arc<Explicit>>)> = Mutex::new((0, BTreeMap::new()));

fn open() -> MutexGuard<'static, (usize, BTreeMap<usize, Arc<Explicit>>)> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The epoch of this number.
pub(crate) fn named(number: usize) -> Result<Arc<Explicit>, Failure> {
    open().1.get(&number).cloned().ok_or_else(epoch::unknown)
}

/// Begins an epoch in a container; returns its number. Collective over `comm`.
pub(crate) fn begin(comm: MPI_Comm, container: &CStr) -> Result<usize, Failure> {
    if handle::forked() {
        return Err(Failure::refused(MPI_ERR_OTHER, "a forked child cannot use MPI: begin epochs in the parent"));
    }
    let group = Group::duplicate(comm)?;
    match begin_in(group, container) {
        Ok(explicit) => {
            let mut open = open();
            open.0 += 1;
            let number = open.0;
            open.1.insert(number, Arc::new(explicit));
            Ok(number)
        }
        Err(failure) => {
            group.free();
            Err(failure)
        }
    }
}

fn begin_in(group: Group, container: &CStr) -> Result<Explicit, Failure> {
    let begun = if group.rank == 0 { epoch::begin(container) } else { Ok(Vec::new()) };
    let (outcome, blob) = split(begun);
    let (outcome, blob) = agree::broadcast(&group, outcome, blob)?;
    outcome?;
    let attached = StorageEpoch::attach(&blob);
    let attached = attached.and_then(|storage| Ok((Reduction::new(&group, storage.summary_bytes)?, storage)));
    let (reduction, storage) = agree::outcome(&group, attached)?;
    let mut mark = DefaultHasher::new();
    blob.hash(&mut mark);
    let mark = (mark.finish() >> 1).cast_signed();
    let container = container.to_bytes().to_vec();
    Ok(Explicit { group, container, mark, storage, reduction, inner: Mutex::default() })
}

/// Is there an epoch of the container that holds `path`? For `talea_epoch=explicit`, before anything is opened.
pub(crate) fn require_one_for(path: &CStr) -> Result<(), Failure> {
    let container = storage::container_of(path);
    let any = open().1.values().any(|explicit| explicit.container == container);
    if any { Ok(()) } else { Err(none_for(container)) }
}

fn none_for(container: &[u8]) -> Failure {
    let text = format!(
        "talea_epoch=explicit, and no explicit epoch of container {} is open on these ranks: begin one with talea_mpi_epoch_begin() \
         (talea_mpi.h) before, or use sync, close or none",
        String::from_utf8_lossy(container)
    );
    Failure::refused(MPI_ERR_UNSUPPORTED_OPERATION, text)
}

/// Takes a file that has just been opened with `talea_epoch=explicit` into the epoch of its container that was begun last on its ranks;
/// one that shares the epoch of another handle is in that handle's. Collective over the file's communicator.
pub(crate) fn enter_last(file: &OpenFile) -> Result<(), Failure> {
    let founder = file.storage.info().map(|info| info.founder != 0);
    let container = storage::container_of(&file.path);
    let found = founder.and_then(|founder| {
        if !founder {
            return Ok(None);
        }
        let fits = |explicit: &&Arc<Explicit>| {
            (explicit.group.size, explicit.group.rank) == (file.group.size, file.group.rank)
                && explicit.container == container
        };
        open().1.values().rev().find(fits).cloned().map(Some).ok_or_else(|| none_for(container))
    });
    let mark = found.as_ref().ok().and_then(Option::as_ref).map_or(-1, |explicit| explicit.mark);
    let (found, [most, least]) = agree::outcome_and_maximum(&file.group, found, [mark, -mark])?;
    if most != -least {
        let text = "talea_epoch=explicit: the ranks have begun different explicit epochs last: take the file in with talea_mpi_epoch_file()";
        return Err(Failure::refused(MPI_ERR_NOT_SAME, text));
    }
    found.map_or(Ok(()), |explicit| explicit.add(file))
}

fn split(result: Result<Vec<u8>, Failure>) -> (Result<(), Failure>, Vec<u8>) {
    match result {
        Ok(bytes) => (Ok(()), bytes),
        Err(failure) => (Err(failure), Vec::new()),
    }
}

/// Runs `work` on rank 0 and gives its bytes to the file on every rank. Collective.
fn told_to_all(file: &OpenFile, work: impl FnOnce() -> Result<Vec<u8>, Failure>) -> Result<(), Failure> {
    let (outcome, bytes) = split(if file.group.rank == 0 { work() } else { Ok(Vec::new()) });
    let (outcome, bytes) = agree::broadcast(&file.group, outcome, bytes)?;
    outcome?;
    agree::outcome(&file.group, file.storage.advance(&bytes))
}

impl Explicit {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file's further writes belong to the epoch. Collective over the file's communicator; what was written before commits now.
    pub(crate) fn add(self: &Arc<Self>, file: &OpenFile) -> Result<(), Failure> {
        agree::outcome(&file.group, self.check(file))?;
        commit::commit_now(file)?;
        told_to_all(file, || file.storage.enter(&self.storage))?;
        file.state().explicit = Some(self.clone());
        self.inner().files.extend(file.shared().as_ref().map(Arc::downgrade));
        Ok(())
    }

    fn check(&self, file: &OpenFile) -> Result<(), Failure> {
        file.require_writable()?;
        if file.state().explicit.is_some() {
            return Err(Failure::refused(MPI_ERR_ARG, "the file takes part in an explicit epoch already"));
        }
        if file.storage.info()?.founder == 0 {
            let text = "only the handle that opened the file first can take it into an explicit epoch";
            return Err(Failure::refused(MPI_ERR_ARG, text));
        }
        if (file.group.size, file.group.rank) == (self.group.size, self.group.rank) {
            return Ok(());
        }
        let text =
            "the file was opened on another communicator than the epoch: both need the same ranks in the same order";
        Err(Failure::refused(MPI_ERR_NOT_SAME, text))
    }

    /// The epoch as libtalea's C API joins it, to write objects in it. Local.
    pub(crate) fn blob(&self) -> Result<Vec<u8>, Failure> {
        self.storage.blob()
    }

    /// On rank 0: a file that is closed before the commit leaves its part here.
    pub(crate) fn collect(&self, file: &OpenFile, reduced: Reduced) -> Result<(), Failure> {
        let Reduced { flushed, mut summary, .. } = reduced;
        let sealed = flushed.and_then(|()| file.storage.seal(&mut summary));
        let mut inner = self.inner();
        match &sealed {
            Ok(()) => inner.closed.push(summary),
            Err(failure) => inner.broken = Some(failure.clone()),
        }
        sealed
    }

    /// Commits all that its files and objects wrote, and begins the next epoch. `objects` is this rank's summary of what it wrote
    /// through the C API. Returns the step. Collective.
    pub(crate) fn commit(&self, objects: Option<&[u8]>) -> Result<u64, Failure> {
        let files: Vec<Arc<OpenFile>> = self.inner().files.iter().filter_map(Weak::upgrade).collect();
        let mut parts = Vec::new();
        let mut kept = Ok(());
        for file in &files {
            file.await_transfers();
            kept = kept.and(file.cause().map_or(Ok(()), Err));
            let reduced = file.reduction.run(&file.group, [i64::MIN; 2], |summary| commit::flush(file, summary))?;
            parts.push(reduced);
        }
        let mine = |summary: &mut [u8]| {
            self.storage.flush(summary)?;
            match objects {
                Some(objects) if objects.len() != summary.len() || !storage::merge(summary, objects) => {
                    Err(Failure::refused(MPI_ERR_ARG, "the summary of the objects is not one of talea_epoch_summary"))
                }
                _ => Ok(()),
            }
        };
        let total = self.reduction.run(&self.group, [i64::MIN; 2], mine)?;
        let (outcome, told) =
            if self.group.rank == 0 { self.decide(&files, parts, total) } else { (Ok(()), Vec::new()) };
        let (outcome, told) = agree::broadcast(&self.group, outcome, told)?;
        let taken = agree::outcome(&self.group, self.take_over(&files, &told));
        if outcome.is_err() {
            // On all ranks alike: what failed first says more than that the commit was refused for it.
            agree::outcome(&self.group, kept)?;
        }
        outcome.and(taken)
    }

    /// Rank 0's part: one commit, and what it means for each file.
    fn decide(&self, files: &[Arc<OpenFile>], parts: Vec<Reduced>, total: Reduced) -> (Result<(), Failure>, Vec<u8>) {
        let mut inner = self.inner();
        let mut summaries = Vec::new();
        let mut broken = inner.broken.take().map_or(Ok(()), Err).and(total.flushed);
        let mut sum = total.summary;
        for (file, Reduced { flushed, mut summary, .. }) in files.iter().zip(parts) {
            broken = broken.and(flushed).and_then(|()| file.storage.seal(&mut summary));
            summaries.push(summary);
        }
        for part in summaries.iter().chain(&std::mem::take(&mut inner.closed)) {
            if broken.is_ok() && !storage::merge(&mut sum, part) {
                let text = "libtalea could not merge the summaries of the epoch's files";
                broken = Err(Failure::refused(MPI_ERR_INTERN, text));
            }
        }
        if let Err(failure) = broken {
            // Nothing of it may be committed; the abort's own failure would only hide the cause.
            let _ = self.storage.abort();
            return (Err(failure), Vec::new());
        }
        let (outcome, result) = self.storage.commit(&sum);
        let mut told = Told { step: outcome.as_ref().copied().unwrap_or(0), parts: vec![result] };
        let mut settled = Ok(());
        for (file, summary) in files.iter().zip(&summaries) {
            match file.storage.settle(&told.parts[0], summary) {
                Ok(part) => told.parts.push(part),
                Err(failure) => {
                    told.parts.push(Vec::new());
                    settled = Err(failure);
                }
            }
        }
        (outcome.map(drop).and(settled), told.encode())
    }

    /// Every rank's part after the broadcast; returns the step.
    fn take_over(&self, files: &[Arc<OpenFile>], told: &[u8]) -> Result<u64, Failure> {
        if told.is_empty() {
            return Ok(0);
        }
        let told = Told::decode(told);
        let mut outcome = self.storage.advance(told.parts.first().map_or(&[], Vec::as_slice));
        for (file, part) in files.iter().zip(told.parts.iter().skip(1)) {
            outcome = outcome.and(file.storage.advance(part));
        }
        outcome.map(|()| told.step)
    }

    /// Ends the epoch: what is not committed is aborted, and its files go on each with an epoch of its own. Collective.
    pub(crate) fn end(self: &Arc<Self>, number: usize) -> Result<(), Failure> {
        open().1.remove(&number);
        let files: Vec<Arc<OpenFile>> = self.inner().files.iter().filter_map(Weak::upgrade).collect();
        let mut outcome = Ok(());
        for file in &files {
            file.await_transfers();
            file.state().explicit = None;
            // Gone with the epoch, as what was written in it is.
            file.end_postponed();
            outcome = outcome.and(told_to_all(file, || file.storage.leave()));
        }
        let aborted = if self.group.rank == 0 { self.storage.abort() } else { Ok(()) };
        let aborted = agree::outcome(&self.group, aborted);
        let closed = self.storage.close();
        self.reduction.free();
        self.group.free();
        outcome.and(aborted).and(closed)
    }
}

/// What rank 0 tells after a commit: the step, and the results for the epoch and for each file.
struct Told {
    step: u64,
    parts: Vec<Vec<u8>>,
}

impl Told {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.step.to_ne_bytes().to_vec();
        for part in &self.parts {
            bytes.extend((part.len() as u64).to_ne_bytes());
            bytes.extend(part);
        }
        bytes
    }

    /// From bytes of the same program on another rank; a part that is cut short is empty.
    fn decode(bytes: &[u8]) -> Told {
        let (step, mut rest) = bytes.split_at_checked(8).unwrap_or_default();
        let step = step.try_into().map_or(0, u64::from_ne_bytes);
        let mut parts = Vec::new();
        while let Some((front, after)) = rest.split_at_checked(8) {
            let length = front.try_into().map_or(0, u64::from_ne_bytes);
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(after.len());
            parts.push(after[..length].to_vec());
            rest = &after[length..];
        }
        Told { step, parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rank_0_tells_arrives_part_by_part() {
        let told = Told { step: 9, parts: vec![vec![1, 2, 3], vec![], vec![4]] };
        let back = Told::decode(&told.encode());
        assert_eq!((back.step, &back.parts), (told.step, &told.parts));
        assert!(Told::decode(&[]).parts.is_empty());
        assert_eq!(Told::decode(&told.encode()[..18]).parts, [[1, 2]]);
    }
}
