//! Sync and close: the end of a collective epoch.
//!
//! Every rank flushes; one reduction brings the summaries to rank 0, which commits; one broadcast brings the outcome back; all
//! take it over. Owns that order. Must never commit on more than one rank, nor return before all ranks know the outcome.

use std::sync::Arc;

use talea_abi::{COMMIT_LAST, COMMIT_NEXT};

use crate::abi::*;
use crate::agree::{self, Reduced};
use crate::error::Failure;
use crate::file::OpenFile;
use crate::{handle, pointer, storage, wishes};

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The epoch; another one follows.
    Epoch,
    /// The handle.
    Handle,
}

/// `MPI_File_sync`.
pub(crate) fn sync(file: &OpenFile) -> Result<(), Failure> {
    // The program's hint may leave commits to the close. What was written is at the servers in either case.
    if file.writable() && matches!(wishes::sync_commits(&file.hints), Ok(false)) {
        file.await_transfers();
        return file.compare();
    }
    commit_now(file)
}

/// Commits whatever hints say; another epoch follows.
pub(crate) fn commit_now(file: &OpenFile) -> Result<(), Failure> {
    settle(file, End::Epoch)
}

/// `MPI_File_close`: the handle is dead afterwards, also if its epoch did not commit.
pub(crate) fn close(named: MPI_File) -> Result<(), Failure> {
    let Some(file) = handle::remove(named) else {
        return Err(Failure::refused(MPI_ERR_FILE, "the file handle is closed already"));
    };
    let outcome = if file.amode & MPI_MODE_DELETE_ON_CLOSE != 0 {
        delete_on_close(&file)
    } else if file.writable() {
        settle(&file, End::Handle)
    } else {
        file.await_transfers();
        let numbers = file.state().counters.numbers();
        let agreed = agree::outcome_and_maximum(&file.group, Ok(()), numbers);
        agreed.and_then(|((), numbers)| if file.group.rank == 0 { pointer::forget(&file, numbers) } else { Ok(()) })
    };
    let closed = file.storage.close();
    release(file);
    outcome.and(closed)
}

/// Frees MPI's objects of a file that is gone.
fn release(file: Arc<OpenFile>) {
    file.reduction.free();
    if let Some(node) = file.node.get() {
        node.free();
    }
    file.replace_view(crate::view::View::plain());
    let handler = file.state().handler;
    handler.release();
    file.group.free();
}

fn settle(file: &OpenFile, end: End) -> Result<(), Failure> {
    let group = &file.group;
    file.await_transfers();
    let counters = file.state().counters.numbers();
    let kept = file.cause();
    let reduced = file.reduction.run(group, counters, |summary| flush(file, summary))?;
    let (outcome, result) = if group.rank == 0 { decide(file, end, reduced) } else { (Ok(()), Vec::new()) };
    let (outcome, result) = agree::broadcast(group, outcome, result)?;
    let advanced = if result.is_empty() { Ok(()) } else { file.storage.advance(&result) };
    // On all ranks alike. After a failed commit, for what failed first says more than that the commit was refused for it; and where
    // another handle or an explicit epoch commits later, for that refusal is all that anybody would hear.
    if outcome.is_err() || (result.is_empty() && file.writable()) {
        agree::outcome(group, kept.map_or(Ok(()), Err))?;
    }
    outcome.and(advanced)
}

/// Ends this rank's part of the epoch. libtalea knows that something has failed in it, and refuses the commit as it begins the next epoch.
pub(crate) fn flush(file: &OpenFile, summary: &mut [u8]) -> Result<(), Failure> {
    if !file.is_part() {
        file.end_postponed();
    }
    file.storage.flush(summary)
}

/// What rank 0 does with the merged summary.
fn decide(file: &OpenFile, end: End, reduced: Reduced) -> (Result<(), Failure>, Vec<u8>) {
    if end == End::Handle {
        // Every rank has come here, so none uses them any more. What cannot be forgotten is a few bytes, and no failure of the close.
        let _ = pointer::forget(file, reduced.numbers);
    }
    let explicit = file.state().explicit.clone();
    match (explicit, end) {
        (Some(explicit), End::Handle) => return (explicit.collect(file, reduced), Vec::new()),
        (Some(_), End::Epoch) => return (reduced.flushed, Vec::new()),
        (None, _) => {}
    }
    let Reduced { flushed, summary, .. } = reduced;
    let info = match file.storage.info() {
        Ok(info) => info,
        Err(failure) => return (Err(failure), Vec::new()),
    };
    if info.writable != 0 && info.founder == 0 {
        // Another handle of these processes founded the epoch, and its sync or close commits.
        return (flushed, Vec::new());
    }
    if let Err(failure) = flushed {
        if info.writable != 0 {
            // What was not flushed must not be committed in part; the abort's own failure would only hide the cause.
            let _ = file.storage.abort();
        }
        return (Err(failure), Vec::new());
    }
    file.storage.commit(&summary, if end == End::Epoch { COMMIT_NEXT } else { COMMIT_LAST })
}

/// Aborts, then unlinks, when every rank has stopped writing.
fn delete_on_close(file: &OpenFile) -> Result<(), Failure> {
    let group = &file.group;
    file.await_transfers();
    let counters = file.state().counters.numbers();
    let kept = file.postponed();
    let reduced = file.reduction.run(group, counters, |summary| {
        // Nothing is committed: a flush that fails is no failure of this close, but a write that nobody has heard of is.
        let _ = flush(file, summary);
        kept.map_or(Ok(()), Err)
    })?;
    let outcome = if group.rank == 0 {
        let _ = pointer::forget(file, reduced.numbers);
        let aborted = if file.writable() { file.storage.abort() } else { Ok(()) };
        let closed = file.storage.close();
        let deleted = match storage::delete(&file.path) {
            // libtalea may have unlinked it at the handle's end.
            Err(failure) if failure.class() == MPI_ERR_NO_SUCH_FILE => Ok(()),
            other => other,
        };
        reduced.flushed.and(aborted).and(closed).and(deleted)
    } else {
        Ok(())
    };
    agree::broadcast(group, outcome, Vec::new())?.0
}
