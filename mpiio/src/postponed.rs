//! Failures of calls that one rank makes alone, kept until all ranks of the file meet.
//!
//! A program that goes on differently on one rank hangs: HDF5 1.10 leaves a flush on the rank whose write of metadata failed, and
//! the other ranks wait for it in a barrier. MPI lets writes be buffered until the sync (MPI 4.1 §14.6.1), so where several ranks
//! have the file open, an independent write that the storage refused returns, and the next collective write, sync or close fails
//! on all ranks for it. Owns what failed and where. Must never let an epoch commit in which something failed, nor give a read the
//! bytes that a failed write should have replaced.

use talea_abi::Code;

use crate::abi::*;
use crate::agree;
use crate::error::Failure;
use crate::file::OpenFile;
use crate::handle::{self, Named};
use crate::wishes;

/// The first failure of this rank in the epoch.
#[derive(Clone, Debug)]
pub(crate) struct Postponed {
    failure: Failure,
    /// Bytes that writes since then should have filled, from the first to past the last.
    missing: Option<(i64, i64)>,
}

/// Must a write that failed so, with good arguments, keep its epoch from committing on this rank? What another rank failed with is that
/// rank's to keep.
pub(crate) fn spoils(failure: &Failure) -> bool {
    match failure {
        Failure::Storage { .. } => is_of_storage(failure),
        Failure::Refused { class, .. } => matches!(*class, MPI_ERR_IO | MPI_ERR_CONVERSION),
        Failure::Remote { .. } => false,
        Failure::Mpi { .. } | Failure::Missing(_) | Failure::Panic(_) => true,
    }
}

/// Is it the storage's failure, and not the call's?
pub(crate) fn is_of_storage(failure: &Failure) -> bool {
    let Failure::Storage { code, .. } = failure else { return false };
    matches!(code, Code::ServerLost | Code::Deadline | Code::NoSpace | Code::Aborted | Code::DataLost | Code::Other)
}

impl OpenFile {
    /// Keeps a failure for later: the caller goes on as if the bytes from the first to past the last were `written`. Gives it back
    /// if it has to be told now: other ranks do not wait for this one, or take each write for committed.
    pub(crate) fn postpone(&self, failure: Failure, written: Option<(i64, i64)>) -> Result<(), Failure> {
        if !self.is_shared() || wishes::commits_writes(&self.hints) || self.state().atomic || !is_of_storage(&failure) {
            return Err(failure);
        }
        // It knows of writes that it has refused, and of nothing else that fails here.
        if self.storage.fail().is_err() {
            return Err(failure);
        }
        self.hand_to_founder(&failure);
        let mut state = self.state();
        let kept = state.postponed.get_or_insert(Postponed { failure, missing: None });
        let join = |(from, end): (i64, i64), missing: (i64, i64)| (from.min(missing.0), end.max(missing.1));
        kept.missing = written.map(|bytes| kept.missing.map_or(bytes, |missing| join(bytes, missing))).or(kept.missing);
        Ok(())
    }

    /// A write has failed, some of its data may be at the servers, and its rank is told now: nothing of the epoch may become visible.
    pub(crate) fn spoil(&self, failure: &Failure) {
        if !self.writable() {
            return;
        }
        // libtalea knows of what it has refused itself, and of nothing else that fails here. A dead handle cannot commit either.
        let _ = self.storage.fail();
        self.hand_to_founder(failure);
        self.state().spoiled.get_or_insert_with(|| failure.clone());
    }

    /// Processes that share the epoch.
    fn sharers(&self) -> u32 {
        let told = if self.writable() { self.storage.info().map_or(0, |info| info.processes) } else { 0 };
        told.max(self.group.size.cast_unsigned())
    }

    /// Do other processes wait for this one where the epoch ends? They may have opened the file by another handle than this one.
    fn is_shared(&self) -> bool {
        self.writable() && self.sharers() > 1
    }

    /// Do processes share the epoch that have no part in this handle, as when a rank opens a file by itself that all have open
    /// already? Then no call on this handle may tell what they do not hear of.
    pub(crate) fn is_part(&self) -> bool {
        self.sharers() > self.group.size.cast_unsigned()
    }

    /// What fails on such a handle is told by the one that founded the epoch.
    fn hand_to_founder(&self, failure: &Failure) {
        if !self.is_part() {
            return;
        }
        for named in handle::all() {
            let Named::Open(other) = handle::named(named) else { continue };
            if other.path == self.path && other.storage.info().is_ok_and(|info| info.founder != 0) {
                other.state().spoiled.get_or_insert_with(|| failure.clone());
            }
        }
    }

    /// What was kept in this epoch. Another handle of these processes may have ended the epoch since, and told its own ranks.
    fn kept(&self) -> Option<Postponed> {
        self.forget_what_is_over();
        self.state().postponed.clone()
    }

    fn forget_what_is_over(&self) {
        let any = {
            let state = self.state();
            state.postponed.is_some() || state.spoiled.is_some()
        };
        if any && self.storage.info().is_ok_and(|info| info.failed == 0) {
            self.end_postponed();
        }
    }

    /// Why this rank keeps the epoch from committing, told already or not: for calls in which all ranks hear of it.
    pub(crate) fn cause(&self) -> Option<Failure> {
        if self.is_part() {
            return None;
        }
        self.postponed().or_else(|| self.state().spoiled.clone())
    }

    /// What failed in this epoch and was kept.
    pub(crate) fn postponed(&self) -> Option<Failure> {
        self.kept().map(|kept| kept.failure)
    }

    /// All ranks are told, or what failed is dropped with its epoch. libtalea keeps that from its commit.
    pub(crate) fn end_postponed(&self) {
        let mut state = self.state();
        (state.postponed, state.spoiled) = (None, None);
    }

    /// Refuses a write into an epoch that will not commit: no deadline is waited for again.
    pub(crate) fn require_intact(&self) -> Result<(), Failure> {
        self.postponed().map_or(Ok(()), Err)
    }

    /// Refuses to read bytes that are not what this rank has written.
    pub(crate) fn require_written(&self, from: i64, end: i64) -> Result<(), Failure> {
        let overlaps = |(first, last): (i64, i64)| from < last && first < end;
        let kept = self.kept().filter(|kept| kept.missing.is_some_and(overlaps));
        kept.map_or(Ok(()), |kept| Err(kept.failure))
    }

    /// Its size in bytes; as far as this rank knows if the servers cannot be asked, and then the epoch fails.
    pub(crate) fn size(&self) -> Result<i64, Failure> {
        let bytes = self.storage.size().or_else(|failure| {
            if let Err(failure) = self.postpone(failure, None) {
                // Where each write is told at once, too: libraries ask for the size on one rank, and the others wait for its answer.
                if !self.is_shared() || !is_of_storage(&failure) {
                    return Err(failure);
                }
                self.spoil(&failure);
            }
            // SAFETY: no pieces.
            unsafe { self.storage.read(&[]) }
        });
        bytes.map(u64::cast_signed)
    }

    /// A sync that commits nothing: all ranks learn what has failed on any.
    pub(crate) fn compare(&self) -> Result<(), Failure> {
        agree::outcome(&self.group, self.cause().map_or(Ok(()), Err))
    }
}
