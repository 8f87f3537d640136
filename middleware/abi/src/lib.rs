//! The table of functions that libtalea hands to its shims.
//!
//! A process has one client, and it lives in `libtalea.so.0`. Shims (MPI-IO, preload, HDF5, libdaos, libdfs) stay thin: they
//! open that library when the first `/talea/` path is met and ask its one function [`TABLE_SYMBOL`] for this table. Owns the
//! table's layout and the loader; must never hold state of the client. Layouts only ever grow at the end.

use std::ffi::{c_char, c_int, c_void};

pub mod code;
pub mod loader;

pub use code::Code;

/// Version of the table; raised when a member changes its meaning (new members at the end do not raise it).
pub const VERSION: u32 = 2;
/// Soname of the library that holds the client.
pub const LIBRARY: &str = "libtalea.so.0";
/// Name of the function of type [`TableFn`] that the library exports.
pub const TABLE_SYMBOL: &[u8] = b"talea_table\0";
/// Returns the table, or null if `version` is one that the library does not speak.
pub type TableFn = unsafe extern "C" fn(version: u32) -> *const Table;

/// One contiguous piece of a list I/O call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Byte offset in the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// The caller's memory, valid for `bytes` until the call returns.
    pub memory: *mut c_void,
}

/// A growable answer: the caller passes `data = null, capacity = 0` and gives the result back to [`Table::blob_free`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    /// Bytes, owned by libtalea.
    pub data: *mut u8,
    /// Number of bytes.
    pub bytes: usize,
}

/// An open file of this process, opaque.
#[repr(C)]
pub struct File {
    _private: [u8; 0],
}

/// This process's part of an explicit epoch, opaque.
#[repr(C)]
pub struct SharedEpoch {
    _private: [u8; 0],
}

/// Open for reading.
pub const OPEN_READ: u32 = 1;
/// Open for writing: founds an epoch unless this process already has one open on the file.
pub const OPEN_WRITE: u32 = 2;
/// Create the file if it does not exist.
pub const OPEN_CREATE: u32 = 4;
/// With [`OPEN_CREATE`]: fail if it exists.
pub const OPEN_EXCLUSIVE: u32 = 8;
/// Abort the epoch at the last close, then unlink.
pub const OPEN_DELETE_ON_CLOSE: u32 = 16;

/// [`Table::file_commit`]: begin the next epoch in the same request (sync).
pub const COMMIT_NEXT: u32 = 1;
/// [`Table::file_commit`]: no epoch follows (close).
pub const COMMIT_LAST: u32 = 2;

/// [`Table::file_counter`]: adds, and answers what was there before.
pub const COUNTER_ADD: u32 = 1;
/// [`Table::file_counter`]: sets, and answers what was there before.
pub const COUNTER_SET: u32 = 2;
/// [`Table::file_counter`]: answers what is there.
pub const COUNTER_GET: u32 = 3;

/// What [`Table::file_info`] tells.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FileInfo {
    /// 1 if this handle founded the epoch: its sync and close commit. 0: its sync only flushes, or it reads only.
    pub founder: u32,
    /// 1 if opened for writing.
    pub writable: u32,
    /// Bytes of a chunk: one dkey of the file's object.
    pub chunk_bytes: u64,
    /// Size of [`Table::file_flush`]'s summary in bytes; equal on all processes that share the epoch.
    pub summary_bytes: u64,
    /// Step that a step view shows, or the step of the handle's base; 0 if none.
    pub step: u64,
    /// 1 if a write of this process has failed in the present epoch, or there is none: its commit will be refused.
    pub failed: u32,
    /// Processes that share the epoch: those that its founder was opened for. 0 if it reads only, or if the library is too old to tell.
    pub processes: u32,
}

/// Functions return 0 or a [`Code`] as a negative number; the text for the calling thread is [`Table::error_text`].
/// All are thread-safe. None may be called in a forked child. None calls MPI. Each ends within its deadline.
#[repr(C)]
pub struct Table {
    /// `sizeof` of this table in the library; members beyond it must not be read.
    pub size: usize,
    /// [`VERSION`] of the library.
    pub version: u32,
    /// Zero.
    pub reserved: u32,

    /// Text of this thread's last error, with its remedy; valid until the thread's next call.
    pub error_text: unsafe extern "C" fn() -> *const c_char,
    /// Frees a blob's bytes; a null blob is fine.
    pub blob_free: unsafe extern "C" fn(blob: *mut Blob),

    /// Opens `path` (`/talea/CONTAINER/PATH`, `talea:` alias, or a step view) on ONE process of the communicator: resolves or
    /// creates the file, takes the base snapshot, begins the epoch if writable. `hints` is "key=value\n…" from the MPI info
    /// object or null. The blob can be given to any number of processes, each of which attaches, the opener included.
    /// `processes` is the size of the founding communicator.
    pub file_open: unsafe extern "C" fn(
        path: *const c_char,
        flags: u32,
        processes: u32,
        hints: *const c_char,
        shared: *mut Blob,
    ) -> c_int,
    /// Makes this process's handle from a blob of [`Self::file_open`].
    pub file_attach: unsafe extern "C" fn(shared: *const u8, bytes: usize, file: *mut *mut File) -> c_int,
    /// Frees the handle without committing. If it is the last of this process on an open epoch that nobody commits, the
    /// process leaves the epoch. Undo of a failed collective open, and the end of every handle.
    pub file_close: unsafe extern "C" fn(file: *mut File) -> c_int,
    /// Tells what the handle is.
    pub file_info: unsafe extern "C" fn(file: *const File, info: *mut FileInfo) -> c_int,

    /// Writes all pieces (list I/O) into the file's epoch. Returns when the targets have applied them. A failure is also
    /// remembered in the epoch's summary, so that its commit fails on all processes.
    pub file_write: unsafe extern "C" fn(file: *mut File, pieces: *const Piece, count: usize) -> c_int,
    /// Reads all pieces; holes read as zeros. `end` gets the file's size in bytes as this handle sees it (pieces at or beyond
    /// it are not touched, a piece across it is filled up to it).
    pub file_read: unsafe extern "C" fn(file: *mut File, pieces: *const Piece, count: usize, end: *mut u64) -> c_int,
    /// Size in bytes: the larger of the base and the epoch's pending one.
    pub file_size: unsafe extern "C" fn(file: *mut File, bytes: *mut u64) -> c_int,
    /// Sets the size on ONE process, ordered with the epoch's writes, punching what lies beyond it; other processes' handles
    /// learn it from `truncated`, a blob for [`Self::file_advance`].
    pub file_set_size: unsafe extern "C" fn(file: *mut File, bytes: u64, truncated: *mut Blob) -> c_int,

    /// Ends this process's part of an epoch: fills `summary` (of [`FileInfo::summary_bytes`]) with what it touched.
    pub file_flush: unsafe extern "C" fn(file: *mut File, summary: *mut u8, bytes: usize) -> c_int,
    /// Merges two summaries, associative and commutative: `into = into + from`. Makes an MPI reduction of it.
    pub summary_merge: unsafe extern "C" fn(into: *mut u8, from: *const u8, bytes: usize) -> c_int,
    /// Commits on ONE process with the merged summary ([`COMMIT_NEXT`] or [`COMMIT_LAST`]). For a read-only handle: takes a
    /// new base. The result, also of a failed commit that could begin a next epoch, goes to all processes' `file_advance`.
    /// A failed commit returns its error and the epoch is aborted.
    pub file_commit:
        unsafe extern "C" fn(file: *mut File, summary: *const u8, bytes: usize, flags: u32, result: *mut Blob) -> c_int,
    /// Takes over the result of another process's commit or set_size.
    pub file_advance: unsafe extern "C" fn(file: *mut File, result: *const u8, bytes: usize) -> c_int,
    /// Aborts the handle's epoch (delete-on-close, a failed close). On ONE process.
    pub file_abort: unsafe extern "C" fn(file: *mut File) -> c_int,

    /// Unlinks a path.
    pub path_delete: unsafe extern "C" fn(path: *const c_char) -> c_int,

    /// A counter that all processes of one collective open share; it starts at zero. `counter` below 2^31 names it, `operation` is
    /// one of `COUNTER_*`. Atomic, and a transaction of its own: at once for all, whatever becomes of the epoch.
    pub file_counter:
        unsafe extern "C" fn(file: *mut File, counter: u32, operation: u32, operand: i64, value: *mut i64) -> c_int,
    /// Forgets the counters from `first` to `last`. On ONE process, when no other uses them any more.
    pub file_counters_drop: unsafe extern "C" fn(file: *mut File, first: u32, last: u32) -> c_int,

    /// Begins an explicit epoch in a container, on ONE process; each process attaches with the blob, that one included.
    pub epoch_begin: unsafe extern "C" fn(container: *const c_char, shared: *mut Blob) -> c_int,
    /// Makes this process's part of an explicit epoch; tells the size of its summaries.
    pub epoch_attach: unsafe extern "C" fn(
        shared: *const u8,
        bytes: usize,
        epoch: *mut *mut SharedEpoch,
        summary_bytes: *mut u64,
    ) -> c_int,
    /// The open epoch as `talea_epoch_join` wants it.
    pub epoch_blob: unsafe extern "C" fn(epoch: *mut SharedEpoch, blob: *mut Blob) -> c_int,
    /// A summary of nothing but this process's clock and what it wrote through this handle.
    pub epoch_flush: unsafe extern "C" fn(epoch: *mut SharedEpoch, summary: *mut u8, bytes: usize) -> c_int,
    /// Commits on ONE process, with the merged summaries of all files; the next epoch begins in the same request. Also a failed
    /// commit may have a result.
    pub epoch_commit: unsafe extern "C" fn(
        epoch: *mut SharedEpoch,
        summary: *const u8,
        bytes: usize,
        step: *mut u64,
        result: *mut Blob,
    ) -> c_int,
    /// Takes over the result of a commit, on every process.
    pub epoch_advance: unsafe extern "C" fn(epoch: *mut SharedEpoch, result: *const u8, bytes: usize) -> c_int,
    /// Aborts what is not committed, on ONE process.
    pub epoch_abort: unsafe extern "C" fn(epoch: *mut SharedEpoch) -> c_int,
    /// Frees this process's part.
    pub epoch_close: unsafe extern "C" fn(epoch: *mut SharedEpoch) -> c_int,
    /// A file, whose own epoch was committed just before, goes on in an explicit epoch, on ONE process; `outcome` is for the
    /// others' [`Self::file_advance`]. Its sync and close only flush from now on.
    pub file_enter: unsafe extern "C" fn(file: *mut File, epoch: *mut SharedEpoch, outcome: *mut Blob) -> c_int,
    /// The reverse.
    pub file_leave: unsafe extern "C" fn(file: *mut File, outcome: *mut Blob) -> c_int,
    /// Writes the file's size into the explicit epoch, on ONE process, with the file's merged summary, which it extends.
    pub file_seal: unsafe extern "C" fn(file: *mut File, summary: *mut u8, bytes: usize) -> c_int,
    /// What a result of [`Self::epoch_commit`] means for a file, for every process's [`Self::file_advance`].
    pub file_settle: unsafe extern "C" fn(
        file: *mut File,
        result: *const u8,
        result_bytes: usize,
        summary: *const u8,
        summary_bytes: usize,
        outcome: *mut Blob,
    ) -> c_int,

    /// Something of the program's has failed that this library does not know of: the epoch's commit will be refused as after a failed
    /// write. Local.
    pub file_fail: unsafe extern "C" fn(file: *mut File) -> c_int,
}

// SAFETY: the table holds plain function pointers and numbers; nothing in it is bound to a thread.
unsafe impl Sync for Table {}
