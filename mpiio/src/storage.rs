//! libtalea, as the driver uses it: the table's functions with results instead of numbers.
//!
//! Loads libtalea at the first Talea path and never before. Must never interpret a blob or a summary.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use talea_abi::{Blob, Code, File, FileInfo, Piece, Table};

use crate::error::Failure;

pub(crate) mod epoch;

static TABLE: OnceLock<Result<&'static Table, String>> = OnceLock::new();

/// A function of this library, by whose address the loader finds the directory that libtalea lies in too.
fn beside() {}

/// libtalea's table, loaded at the first call.
pub(crate) fn table() -> Result<&'static Table, Failure> {
    TABLE
        .get_or_init(|| talea_abi::loader::load(beside).map_err(|e| e.to_string()))
        .as_ref()
        .copied()
        .map_err(|text| Failure::Storage { doing: "load", code: Code::NoSystem, text: text.clone() })
}

/// The table if it has been loaded before; for callbacks that must not load anything.
pub(crate) fn loaded() -> Option<&'static Table> {
    TABLE.get().and_then(|table| table.as_ref().ok().copied())
}

fn checked(table: &Table, doing: &'static str, value: c_int) -> Result<(), Failure> {
    if value == 0 {
        return Ok(());
    }
    // SAFETY: returns null or a NUL-terminated text that lives until this thread's next call.
    let text = unsafe { (table.error_text)() };
    let text = if text.is_null() {
        "no text".to_owned()
    } else {
        // SAFETY: not null, NUL-terminated, and copied at once.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    Err(Failure::Storage { doing, code: Code::from_return(value), text })
}

/// Copies a blob of libtalea and frees it.
fn take(table: &Table, mut blob: Blob) -> Vec<u8> {
    if blob.data.is_null() {
        return Vec::new();
    }
    // SAFETY: libtalea filled the blob: `bytes` readable bytes at `data`.
    let bytes = unsafe { std::slice::from_raw_parts(blob.data, blob.bytes) }.to_vec();
    // SAFETY: the blob came from libtalea and is freed once.
    unsafe { (table.blob_free)(&raw mut blob) };
    bytes
}

const NO_BLOB: Blob = Blob { data: std::ptr::null_mut(), bytes: 0 };

/// Opens `path` for `processes` processes; returns what each of them attaches with.
pub(crate) fn open(path: &CStr, flags: u32, processes: u32, hints: &CStr) -> Result<Vec<u8>, Failure> {
    let table = table()?;
    let mut blob = NO_BLOB;
    // SAFETY: NUL-terminated strings and an empty blob, as the table asks.
    let value = unsafe { (table.file_open)(path.as_ptr(), flags, processes, hints.as_ptr(), &raw mut blob) };
    checked(table, "open", value).map(|()| take(table, blob))
}

/// Unlinks `path`.
pub(crate) fn delete(path: &CStr) -> Result<(), Failure> {
    let table = table()?;
    // SAFETY: a NUL-terminated string.
    checked(table, "delete", unsafe { (table.path_delete)(path.as_ptr()) })
}

/// An open file of libtalea. Closed by [`Self::close`], else leaked: a forgotten handle must not commit or abort anything.
pub(crate) struct StorageFile {
    table: &'static Table,
    file: *mut File,
    closed: AtomicBool,
}

// SAFETY: the table's functions are thread-safe, and the pointer is opaque here.
unsafe impl Send for StorageFile {}
// SAFETY: as above.
unsafe impl Sync for StorageFile {}

impl StorageFile {
    /// Makes this process's handle.
    pub(crate) fn attach(shared: &[u8]) -> Result<StorageFile, Failure> {
        let table = table()?;
        let mut file = std::ptr::null_mut();
        // SAFETY: a readable blob and a place for the handle.
        checked(table, "attach", unsafe { (table.file_attach)(shared.as_ptr(), shared.len(), &raw mut file) })?;
        if file.is_null() {
            let text = "libtalea returned no handle".to_owned();
            return Err(Failure::Storage { doing: "attach", code: Code::Other, text });
        }
        Ok(StorageFile { table, file, closed: AtomicBool::new(false) })
    }

    /// What the handle is at this moment.
    pub(crate) fn info(&self) -> Result<FileInfo, Failure> {
        let mut info = FileInfo::default();
        // SAFETY: a live handle and a place for the answer.
        checked(self.table, "info", unsafe { (self.table.file_info)(self.file, &raw mut info) })?;
        Ok(info)
    }

    /// Writes all pieces.
    ///
    /// # Safety
    /// Each piece's memory is readable.
    pub(crate) unsafe fn write(&self, pieces: &[Piece]) -> Result<(), Failure> {
        // SAFETY: a live handle; the caller vouches for the pieces' memory.
        checked(self.table, "write", unsafe { (self.table.file_write)(self.file, pieces.as_ptr(), pieces.len()) })
    }

    /// Reads all pieces; returns the file's size in bytes.
    ///
    /// # Safety
    /// Each piece's memory is writable, and nobody else uses it.
    pub(crate) unsafe fn read(&self, pieces: &[Piece]) -> Result<u64, Failure> {
        let mut end = 0;
        // SAFETY: a live handle; the caller vouches for the pieces' memory.
        let value = unsafe { (self.table.file_read)(self.file, pieces.as_ptr(), pieces.len(), &raw mut end) };
        checked(self.table, "read", value).map(|()| end)
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> Result<u64, Failure> {
        let mut bytes = 0;
        // SAFETY: a live handle and a place for the answer.
        checked(self.table, "get_size", unsafe { (self.table.file_size)(self.file, &raw mut bytes) })?;
        Ok(bytes)
    }

    /// Sets the size; the answer is for the other ranks' [`Self::advance`].
    pub(crate) fn set_size(&self, bytes: u64) -> Result<Vec<u8>, Failure> {
        let mut blob = NO_BLOB;
        // SAFETY: a live handle and an empty blob.
        let value = unsafe { (self.table.file_set_size)(self.file, bytes, &raw mut blob) };
        checked(self.table, "set_size", value).map(|()| take(self.table, blob))
    }

    /// Ends this process's part of the epoch, filling `summary`.
    pub(crate) fn flush(&self, summary: &mut [u8]) -> Result<(), Failure> {
        // SAFETY: a live handle and a writable summary of the size that the caller asked for.
        let value = unsafe { (self.table.file_flush)(self.file, summary.as_mut_ptr(), summary.len()) };
        checked(self.table, "flush", value)
    }

    /// Commits with the merged summary. A failed commit may still have a result that begins the next epoch.
    pub(crate) fn commit(&self, summary: &[u8], flags: u32) -> (Result<(), Failure>, Vec<u8>) {
        let mut blob = NO_BLOB;
        // SAFETY: a live handle, a readable summary and an empty blob.
        let value =
            unsafe { (self.table.file_commit)(self.file, summary.as_ptr(), summary.len(), flags, &raw mut blob) };
        let outcome = checked(self.table, "commit", value);
        (outcome, take(self.table, blob))
    }

    /// Takes over what another process's commit or set_size answered.
    pub(crate) fn advance(&self, result: &[u8]) -> Result<(), Failure> {
        // SAFETY: a live handle and readable bytes.
        let value = unsafe { (self.table.file_advance)(self.file, result.as_ptr(), result.len()) };
        checked(self.table, "advance", value)
    }

    /// The epoch must not commit, for something failed that libtalea does not know of.
    pub(crate) fn fail(&self) -> Result<(), Failure> {
        // SAFETY: a live handle.
        checked(self.table, "fail", unsafe { (self.table.file_fail)(self.file) })
    }

    /// Aborts the handle's epoch.
    pub(crate) fn abort(&self) -> Result<(), Failure> {
        // SAFETY: a live handle.
        checked(self.table, "abort", unsafe { (self.table.file_abort)(self.file) })
    }

    /// Changes a counter that the ranks share; returns what it was before.
    pub(crate) fn counter(&self, number: u32, operation: u32, operand: i64) -> Result<i64, Failure> {
        let mut before = 0;
        // SAFETY: a live handle and a place for the answer.
        let value = unsafe { (self.table.file_counter)(self.file, number, operation, operand, &raw mut before) };
        checked(self.table, "shared counter", value).map(|()| before)
    }

    /// Forgets the counters from `first` to `last`.
    pub(crate) fn forget_counters(&self, first: u32, last: u32) -> Result<(), Failure> {
        // SAFETY: a live handle.
        checked(self.table, "shared counter", unsafe { (self.table.file_counters_drop)(self.file, first, last) })
    }

    /// Frees the handle: the last call on it.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // SAFETY: a live handle, given up here once; MPI forbids calls on a file that is being closed.
        checked(self.table, "close", unsafe { (self.table.file_close)(self.file) })
    }
}

/// `into = into + from`, inside an MPI reduction. False if libtalea is not there or refuses.
pub(crate) fn merge(into: &mut [u8], from: &[u8]) -> bool {
    let Some(table) = loaded() else { return false };
    let bytes = into.len().min(from.len());
    // SAFETY: both sides have `bytes` bytes.
    unsafe { (table.summary_merge)(into.as_mut_ptr(), from.as_ptr(), bytes) == 0 }
}

/// The container of a path of ours.
pub(crate) fn container_of(path: &CStr) -> &[u8] {
    let bytes = path.to_bytes();
    let rest = bytes.strip_prefix(b"/talea/").or_else(|| bytes.strip_prefix(b"talea:")).unwrap_or(bytes);
    rest.split(|byte| *byte == b'/').next().unwrap_or(rest)
}

/// Is this path ours?
pub(crate) fn is_talea(path: &CStr) -> bool {
    let bytes = path.to_bytes();
    // `/talea` alone is refused by us rather than made a local file by MPI.
    bytes == b"/talea" || bytes.starts_with(b"/talea/") || bytes.starts_with(b"talea:")
}
