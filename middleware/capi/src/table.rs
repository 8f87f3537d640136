//! The table that shims get ([`talea_abi::Table`]): files for MPI-IO, preload and their like.
//!
//! Only translates between C's words and `talea_posix`.

use std::ffi::{c_char, c_int};

use talea_abi::{Blob, File, FileInfo, Piece, Table};
use talea_model::Summary;
use talea_posix::{CounterChange, Fault, Handle, Hints, OpenFlags};

use crate::boundary::{argument, bytes, error_text, optional_string, place, put, slice, slice_mut, string, table};
use crate::handles::Handles;
use crate::{meter, process};

mod epoch;

static FILES: Handles<File, Handle> = Handles::new("file");

static TABLE: Table = Table {
    size: size_of::<Table>(),
    version: talea_abi::VERSION,
    reserved: 0,
    error_text,
    blob_free,
    file_open,
    file_attach,
    file_close,
    file_info,
    file_write,
    file_read,
    file_size,
    file_set_size,
    file_flush,
    summary_merge,
    file_commit,
    file_advance,
    file_abort,
    file_fail,
    path_delete,
    file_counter,
    file_counters_drop,
    epoch_begin: epoch::begin,
    epoch_attach: epoch::attach,
    epoch_blob: epoch::blob,
    epoch_flush: epoch::flush,
    epoch_commit: epoch::commit,
    epoch_advance: epoch::advance,
    epoch_abort: epoch::abort,
    epoch_close: epoch::close,
    file_enter: epoch::file_enter,
    file_leave: epoch::file_leave,
    file_seal: epoch::file_seal,
    file_settle: epoch::file_settle,
};

/// The table of functions for shims, or null if the library does not speak `version`.
#[unsafe(no_mangle)]
pub extern "C" fn talea_table(version: u32) -> *const Table {
    if version == talea_abi::VERSION { &raw const TABLE } else { std::ptr::null() }
}

/// Gives bytes away as a blob.
///
/// # Safety
/// `out` is null or valid for writing.
unsafe fn give(out: *mut Blob, content: Vec<u8>) -> Result<(), Fault> {
    let content = content.into_boxed_slice();
    let blob = Blob { bytes: content.len(), data: Box::into_raw(content).cast() };
    // SAFETY: the caller says so.
    unsafe { put(out, blob, "result") }
}

unsafe extern "C" fn blob_free(blob: *mut Blob) {
    table(|| {
        // SAFETY: a blob that the caller has is null or valid.
        let Some(blob) = (unsafe { blob.as_mut() }) else { return Ok(()) };
        let (data, bytes) = (std::mem::replace(&mut blob.data, std::ptr::null_mut()), std::mem::take(&mut blob.bytes));
        if !data.is_null() {
            // SAFETY: `give` made it of a box of this length, and it is given back once: the blob is empty now.
            drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(data, bytes)) });
        }
        Ok(())
    });
}

fn open_flags(flags: u32) -> Result<OpenFlags, Fault> {
    use talea_abi::{OPEN_CREATE, OPEN_DELETE_ON_CLOSE, OPEN_EXCLUSIVE, OPEN_READ, OPEN_WRITE};
    let known = OPEN_READ | OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE | OPEN_DELETE_ON_CLOSE;
    if flags & !known != 0 || flags & (OPEN_READ | OPEN_WRITE) == 0 {
        return Err(argument(format!("unknown or no open flags: {flags:#x}")));
    }
    Ok(OpenFlags {
        write: flags & OPEN_WRITE != 0,
        create: flags & OPEN_CREATE != 0,
        exclusive: flags & OPEN_EXCLUSIVE != 0,
        delete_on_close: flags & OPEN_DELETE_ON_CLOSE != 0,
    })
}

unsafe extern "C" fn file_open(
    path: *const c_char,
    flags: u32,
    processes: u32,
    hints: *const c_char,
    shared: *mut Blob,
) -> c_int {
    table(|| {
        place(shared, "shared file")?;
        // SAFETY: strings are NUL-terminated or null by the table's contract.
        let (path, hints) = unsafe { (string(path, "path")?, optional_string(hints)) };
        let flags = open_flags(flags)?;
        let mut hints = Hints::parse(&String::from_utf8_lossy(hints.unwrap_or_default()))?;
        // SAFETY: these take nothing and cannot fail.
        hints.owner = unsafe { (0o644, libc::getuid(), libc::getgid()) };
        let blob = process::job()?.files.open(path, flags, processes, &hints)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(shared, blob) }
    })
}

unsafe extern "C" fn file_attach(shared: *const u8, count: usize, file: *mut *mut File) -> c_int {
    table(|| {
        place(file, "file")?;
        // SAFETY: valid for reading by the table's contract.
        let shared = unsafe { bytes(shared, count, "shared file") }?;
        let handle = process::job()?.files.attach(shared)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { put(file, FILES.add(handle), "file") }
    })
}

unsafe extern "C" fn file_close(file: *mut File) -> c_int {
    table(|| FILES.remove(file).map(drop))
}

unsafe extern "C" fn file_info(file: *const File, info: *mut FileInfo) -> c_int {
    table(|| {
        let told = FILES.get(file)?.info();
        let filled = FileInfo {
            founder: u32::from(told.founder),
            writable: u32::from(told.writable),
            chunk_bytes: told.chunk_bytes,
            summary_bytes: told.summary_bytes as u64,
            step: told.step.0,
            failed: u32::from(told.failed),
            processes: told.processes,
        };
        // SAFETY: null or valid for writing by the table's contract.
        unsafe { put(info, filled, "information") }
    })
}

fn piece_bytes(piece: &Piece) -> Result<usize, Fault> {
    usize::try_from(piece.bytes).map_err(|_| argument("a piece is larger than memory"))
}

unsafe extern "C" fn file_write(file: *mut File, pieces: *const Piece, count: usize) -> c_int {
    table(|| {
        let handle = FILES.get(file)?;
        let mut list = Vec::with_capacity(count.min(1 << 16));
        // SAFETY: an array of `count` pieces by the table's contract.
        for piece in unsafe { slice(pieces, count, "list of pieces") }? {
            // SAFETY: each piece's memory is valid for reading until the call returns.
            let data = unsafe { slice(piece.memory.cast_const().cast(), piece_bytes(piece)?, "piece's memory") }?;
            meter::wrote(data.len());
            list.push((piece.offset, data));
        }
        handle.write(&list)
    })
}

unsafe extern "C" fn file_read(file: *mut File, pieces: *const Piece, count: usize, end: *mut u64) -> c_int {
    table(|| {
        let handle = FILES.get(file)?;
        let mut list = Vec::with_capacity(count.min(1 << 16));
        // SAFETY: an array of `count` pieces by the table's contract.
        for piece in unsafe { slice(pieces, count, "list of pieces") }? {
            // SAFETY: each piece's memory is valid for writing until the call returns; a program that lets pieces of one
            // read overlap breaks MPI's own rule.
            let data = unsafe { slice_mut(piece.memory.cast(), piece_bytes(piece)?, "piece's memory") }?;
            meter::read(data.len());
            list.push((piece.offset, data));
        }
        let bytes = handle.read(&mut list)?;
        if end.is_null() {
            return Ok(());
        }
        // SAFETY: valid for writing by the table's contract.
        unsafe { put(end, bytes, "file's size") }
    })
}

unsafe extern "C" fn file_size(file: *mut File, out: *mut u64) -> c_int {
    table(|| {
        let handle = FILES.get(file)?;
        // SAFETY: null or valid for writing by the table's contract.
        unsafe { put(out, handle.size()?, "size") }
    })
}

unsafe extern "C" fn file_set_size(file: *mut File, size_bytes: u64, truncated: *mut Blob) -> c_int {
    table(|| {
        place(truncated, "result")?;
        let outcome = FILES.get(file)?.set_size(size_bytes)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(truncated, outcome) }
    })
}

unsafe extern "C" fn file_flush(file: *mut File, summary: *mut u8, count: usize) -> c_int {
    table(|| {
        let handle = FILES.get(file)?;
        // SAFETY: valid for writing by the table's contract.
        let out = unsafe { slice_mut(summary, count, "summary") }?;
        handle.flush()?.encode(out).map_err(|error| argument(error.to_string()))
    })
}

unsafe extern "C" fn summary_merge(into: *mut u8, from: *const u8, count: usize) -> c_int {
    table(|| {
        // SAFETY: two arrays of `count` bytes that do not overlap, by the table's contract.
        let (into, from) = unsafe { (slice_mut(into, count, "summary")?, bytes(from, count, "summary")?) };
        talea_posix::file::merge_summaries(into, from)
    })
}

unsafe extern "C" fn file_commit(
    file: *mut File,
    summary: *const u8,
    count: usize,
    flags: u32,
    result: *mut Blob,
) -> c_int {
    table(|| {
        place(result, "result")?;
        let next = match flags {
            talea_abi::COMMIT_NEXT => true,
            talea_abi::COMMIT_LAST => false,
            _ => return Err(argument(format!("unknown commit flags: {flags:#x}"))),
        };
        let handle = FILES.get(file)?;
        // SAFETY: valid for reading by the table's contract.
        let summary = unsafe { bytes(summary, count, "summary") }?;
        let summary = Summary::decode(summary).map_err(|error| argument(error.to_string()))?;
        let answer = handle.commit(summary, next)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(result, answer.outcome) }?;
        answer.result
    })
}

unsafe extern "C" fn file_advance(file: *mut File, result: *const u8, count: usize) -> c_int {
    table(|| {
        let handle = FILES.get(file)?;
        // SAFETY: valid for reading by the table's contract.
        handle.advance(unsafe { bytes(result, count, "result") }?)
    })
}

unsafe extern "C" fn file_fail(file: *mut File) -> c_int {
    table(|| FILES.get(file)?.fail())
}

unsafe extern "C" fn file_abort(file: *mut File) -> c_int {
    table(|| FILES.get(file)?.abort())
}

unsafe extern "C" fn path_delete(path: *const c_char) -> c_int {
    table(|| {
        // SAFETY: NUL-terminated or null by the table's contract.
        let path = unsafe { string(path, "path") }?;
        process::job()?.files.unlink(path)
    })
}

unsafe extern "C" fn file_counter(
    file: *mut File,
    counter: u32,
    operation: u32,
    operand: i64,
    value: *mut i64,
) -> c_int {
    table(|| {
        place(value, "value")?;
        let change = match operation {
            talea_abi::COUNTER_ADD => CounterChange::Add(operand),
            talea_abi::COUNTER_SET => CounterChange::Set(operand),
            talea_abi::COUNTER_GET => CounterChange::None,
            _ => return Err(argument(format!("unknown operation on a counter: {operation}"))),
        };
        let before = FILES.get(file)?.counter(counter, change)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { put(value, before, "value") }
    })
}

unsafe extern "C" fn file_counters_drop(file: *mut File, first: u32, last: u32) -> c_int {
    table(|| FILES.get(file)?.drop_counters(first..=last))
}
