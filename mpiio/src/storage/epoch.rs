//! libtalea's explicit epochs, as the driver uses them.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use talea_abi::{Blob, Code, SharedEpoch, Table};

use super::{NO_BLOB, StorageFile, checked, table, take};
use crate::error::Failure;

/// Begins an epoch; returns what each process attaches with.
pub(crate) fn begin(container: &CStr) -> Result<Vec<u8>, Failure> {
    let table = table()?;
    let mut blob = NO_BLOB;
    // SAFETY: a NUL-terminated string and an empty blob.
    let value = unsafe { (table.epoch_begin)(container.as_ptr(), &raw mut blob) };
    checked(table, "begin an epoch", value).map(|()| take(table, blob))
}

/// This process's part of an explicit epoch. Freed by [`Self::close`].
pub(crate) struct StorageEpoch {
    table: &'static Table,
    epoch: *mut SharedEpoch,
    closed: AtomicBool,
    /// Bytes of a summary.
    pub(crate) summary_bytes: u64,
}

// SAFETY: the table's functions are thread-safe, and the pointer is opaque here.
unsafe impl Send for StorageEpoch {}
// SAFETY: as above.
unsafe impl Sync for StorageEpoch {}

impl StorageEpoch {
    /// Makes this process's part.
    pub(crate) fn attach(shared: &[u8]) -> Result<StorageEpoch, Failure> {
        let table = table()?;
        let (mut epoch, mut summary_bytes) = (std::ptr::null_mut(), 0);
        // SAFETY: a readable blob and places for the answers.
        let value =
            unsafe { (table.epoch_attach)(shared.as_ptr(), shared.len(), &raw mut epoch, &raw mut summary_bytes) };
        checked(table, "attach to an epoch", value)?;
        Ok(StorageEpoch { table, epoch, closed: AtomicBool::new(false), summary_bytes })
    }

    /// Calls a function that fills a blob.
    fn ask(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Table, *mut SharedEpoch, *mut Blob) -> i32,
    ) -> Result<Vec<u8>, Failure> {
        let mut blob = NO_BLOB;
        let value = call(self.table, self.epoch, &raw mut blob);
        checked(self.table, doing, value).map(|()| take(self.table, blob))
    }

    /// The open epoch, as libtalea's C API joins it.
    pub(crate) fn blob(&self) -> Result<Vec<u8>, Failure> {
        // SAFETY: a live epoch and an empty blob.
        self.ask("tell an epoch", |table, epoch, blob| unsafe { (table.epoch_blob)(epoch, blob) })
    }

    /// What this process wrote in it by this handle: nothing, in the form of a summary.
    pub(crate) fn flush(&self, summary: &mut [u8]) -> Result<(), Failure> {
        // SAFETY: a live epoch and a writable summary.
        let value = unsafe { (self.table.epoch_flush)(self.epoch, summary.as_mut_ptr(), summary.len()) };
        checked(self.table, "flush an epoch", value)
    }

    /// Commits with the merged summary: the step or why not, and a result for all.
    pub(crate) fn commit(&self, summary: &[u8]) -> (Result<u64, Failure>, Vec<u8>) {
        let (mut blob, mut step) = (NO_BLOB, 0);
        // SAFETY: a live epoch, a readable summary, places for the answers.
        let value = unsafe {
            (self.table.epoch_commit)(self.epoch, summary.as_ptr(), summary.len(), &raw mut step, &raw mut blob)
        };
        let outcome = checked(self.table, "commit", value).map(|()| step);
        (outcome, take(self.table, blob))
    }

    /// Takes a commit's result over.
    pub(crate) fn advance(&self, result: &[u8]) -> Result<(), Failure> {
        // SAFETY: a live epoch and readable bytes.
        let value = unsafe { (self.table.epoch_advance)(self.epoch, result.as_ptr(), result.len()) };
        checked(self.table, "advance", value)
    }

    /// Aborts what is not committed.
    pub(crate) fn abort(&self) -> Result<(), Failure> {
        // SAFETY: a live epoch.
        checked(self.table, "abort", unsafe { (self.table.epoch_abort)(self.epoch) })
    }

    /// Frees it: the last call.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // SAFETY: a live epoch, given up here once.
        checked(self.table, "close", unsafe { (self.table.epoch_close)(self.epoch) })
    }
}

impl StorageFile {
    fn ask(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Table, *mut talea_abi::File, *mut Blob) -> i32,
    ) -> Result<Vec<u8>, Failure> {
        let mut blob = NO_BLOB;
        let value = call(self.table, self.file, &raw mut blob);
        checked(self.table, doing, value).map(|()| take(self.table, blob))
    }

    /// Goes on in an explicit epoch; the answer is for the other ranks' [`Self::advance`].
    pub(crate) fn enter(&self, epoch: &StorageEpoch) -> Result<Vec<u8>, Failure> {
        let other = epoch.epoch;
        // SAFETY: a live file, a live epoch and an empty blob.
        self.ask("enter an epoch", |table, file, blob| unsafe { (table.file_enter)(file, other, blob) })
    }

    /// Goes on in an epoch of its own.
    pub(crate) fn leave(&self) -> Result<Vec<u8>, Failure> {
        // SAFETY: a live file and an empty blob.
        self.ask("leave an epoch", |table, file, blob| unsafe { (table.file_leave)(file, blob) })
    }

    /// Writes the file's size into the explicit epoch, and what that touched into the summary.
    pub(crate) fn seal(&self, summary: &mut [u8]) -> Result<(), Failure> {
        // SAFETY: a live handle and a summary.
        let value = unsafe { (self.table.file_seal)(self.file, summary.as_mut_ptr(), summary.len()) };
        checked(self.table, "flush", value)
    }

    /// What a commit's result means for the file.
    pub(crate) fn settle(&self, result: &[u8], summary: &[u8]) -> Result<Vec<u8>, Failure> {
        let (a, b) = ((result.as_ptr(), result.len()), (summary.as_ptr(), summary.len()));
        // SAFETY: a live file, readable bytes and an empty blob.
        self.ask("commit", |table, file, blob| unsafe { (table.file_settle)(file, a.0, a.1, b.0, b.1, blob) })
    }
}

/// A failure that says that there is no such epoch.
pub(crate) fn unknown() -> Failure {
    Failure::Storage {
        doing: "find an epoch",
        code: Code::Argument,
        text: "this is no open explicit epoch: it was ended, or never one".to_owned(),
    }
}
