//! A libtalea without servers: files in `$TALEA_MOCK_DIR`, an epoch as a pending copy, a commit as a rename.
//!
//! A test asset: it lets the driver run under real MPI programs, and fails on purpose where `$TALEA_MOCK_FAIL` says
//! (`CALL:RANK`, by the number that mpiexec gives in the environment). Must never be installed.

mod files;

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};

use files::MockFile;
use talea_abi::{Blob, Code, File, FileInfo, Piece, SharedEpoch, Table, VERSION};

/// A refusal: code and text.
type Answer<T> = Result<T, (Code, String)>;

thread_local! {
    static TEXT: RefCell<CString> = RefCell::default();
}

fn status(answer: Answer<()>) -> c_int {
    match answer {
        Ok(()) => 0,
        Err((code, text)) => {
            TEXT.with(|cell| *cell.borrow_mut() = CString::new(text).unwrap_or_default());
            code.negated()
        }
    }
}

/// Fails here if the test wants this call to fail on this rank.
fn planned(call: &str) -> Answer<()> {
    let plan = std::env::var("TALEA_MOCK_FAIL").unwrap_or_default();
    let rank =
        ["PMI_RANK", "OMPI_COMM_WORLD_RANK"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    if plan.split(',').any(|one| one == format!("{call}:{rank}")) {
        return Err((Code::ServerLost, format!("server 1 is lost (planned failure of {call} on rank {rank})")));
    }
    Ok(())
}

unsafe extern "C" fn error_text() -> *const c_char {
    TEXT.with(|cell| cell.borrow().as_ptr())
}

fn give(bytes: Vec<u8>) -> Blob {
    let bytes = bytes.into_boxed_slice();
    let length = bytes.len();
    Blob { data: Box::into_raw(bytes).cast(), bytes: length }
}

unsafe extern "C" fn blob_free(blob: *mut Blob) {
    // SAFETY: the test's driver gives back what `give` made.
    unsafe {
        if let Some(blob) = blob.as_mut().filter(|blob| !blob.data.is_null()) {
            drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(blob.data, blob.bytes)));
            blob.data = std::ptr::null_mut();
        }
    }
}

/// The mock behind a handle.
///
/// # Safety
/// `file` came from `file_attach` and is not closed.
unsafe fn mock<'a>(file: *const File) -> &'a MockFile {
    // SAFETY: the caller vouches for it.
    unsafe { &*file.cast::<MockFile>() }
}

unsafe extern "C" fn file_open(
    path: *const c_char,
    flags: u32,
    processes: u32,
    hints: *const c_char,
    shared: *mut Blob,
) -> c_int {
    // SAFETY: the driver passes NUL-terminated strings and a place for the blob.
    let (path, hints) = unsafe { (CStr::from_ptr(path), CStr::from_ptr(hints)) };
    let opened = planned("open").and_then(|()| files::open(&path.to_string_lossy(), flags, processes));
    files::trace(&format!("open {processes} {}", hints.to_string_lossy().replace('\n', ";")));
    status(opened.map(|bytes| {
        // SAFETY: as above.
        unsafe { *shared = give(bytes) }
    }))
}

unsafe extern "C" fn file_attach(shared: *const u8, bytes: usize, file: *mut *mut File) -> c_int {
    // SAFETY: the driver passes the blob of `file_open` and a place for the handle.
    let shared = unsafe { std::slice::from_raw_parts(shared, bytes) };
    status(planned("attach").and_then(|()| MockFile::attach(shared)).map(|made| {
        // SAFETY: as above.
        unsafe { *file = Box::into_raw(Box::new(made)).cast() }
    }))
}

unsafe extern "C" fn file_close(file: *mut File) -> c_int {
    // SAFETY: the driver closes a handle once.
    let closed = unsafe { Box::from_raw(file.cast::<MockFile>()) };
    closed.leave();
    0
}

unsafe extern "C" fn file_info(file: *const File, info: *mut FileInfo) -> c_int {
    // SAFETY: a live handle and a place for the answer.
    unsafe { *info = mock(file).info() };
    0
}

unsafe extern "C" fn file_write(file: *mut File, pieces: *const Piece, count: usize) -> c_int {
    // SAFETY: a live handle and `count` pieces.
    let (file, pieces) = unsafe { (mock(file), std::slice::from_raw_parts(pieces, count)) };
    // SAFETY: the pieces' memory is readable.
    status(unsafe { file.write(pieces) })
}

unsafe extern "C" fn file_read(file: *mut File, pieces: *const Piece, count: usize, end: *mut u64) -> c_int {
    // SAFETY: a live handle and `count` pieces.
    let (file, pieces) = unsafe { (mock(file), std::slice::from_raw_parts(pieces, count)) };
    // SAFETY: the pieces' memory is writable, and `end` a place for the answer.
    status(unsafe { file.read(pieces).map(|size| *end = size) })
}

unsafe extern "C" fn file_size(file: *mut File, bytes: *mut u64) -> c_int {
    // SAFETY: a live handle and a place for the answer.
    status(planned("size").map(|()| unsafe { *bytes = mock(file).size() }))
}

unsafe extern "C" fn file_set_size(file: *mut File, bytes: u64, truncated: *mut Blob) -> c_int {
    // SAFETY: a live handle and a place for the blob.
    unsafe { status(mock(file).set_size(bytes).map(|()| *truncated = give(Vec::new()))) }
}

unsafe extern "C" fn file_flush(file: *mut File, summary: *mut u8, bytes: usize) -> c_int {
    // SAFETY: a live handle and a summary of the size that `file_info` told.
    let (file, summary) = unsafe { (mock(file), std::slice::from_raw_parts_mut(summary, bytes)) };
    status(planned("flush").map(|()| file.flush(summary)))
}

unsafe extern "C" fn summary_merge(into: *mut u8, from: *const u8, bytes: usize) -> c_int {
    // SAFETY: two summaries of this size.
    let (into, from) =
        unsafe { (std::slice::from_raw_parts_mut(into, bytes), std::slice::from_raw_parts(from, bytes)) };
    files::merge(into, from);
    0
}

unsafe extern "C" fn file_commit(
    file: *mut File,
    summary: *const u8,
    bytes: usize,
    flags: u32,
    result: *mut Blob,
) -> c_int {
    // SAFETY: a live handle and a merged summary.
    let (file, summary) = unsafe { (mock(file), std::slice::from_raw_parts(summary, bytes)) };
    let (outcome, next) = file.commit(summary, flags, planned("commit"));
    // SAFETY: a place for the blob.
    unsafe { *result = give(next) };
    status(outcome)
}

unsafe extern "C" fn file_advance(file: *mut File, result: *const u8, bytes: usize) -> c_int {
    // SAFETY: a live handle and a result of `file_commit`.
    let (file, result) = unsafe { (mock(file), std::slice::from_raw_parts(result, bytes)) };
    status(file.advance(result))
}

unsafe extern "C" fn file_fail(file: *mut File) -> c_int {
    // SAFETY: a live handle.
    unsafe { mock(file).fail() };
    0
}

unsafe extern "C" fn file_abort(file: *mut File) -> c_int {
    // SAFETY: a live handle.
    unsafe { mock(file) }.abort();
    0
}

unsafe extern "C" fn path_delete(path: *const c_char) -> c_int {
    // SAFETY: a NUL-terminated string.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    status(files::delete(&path))
}

unsafe extern "C" fn file_counter(
    file: *mut File,
    number: u32,
    operation: u32,
    operand: i64,
    value: *mut i64,
) -> c_int {
    // SAFETY: a live handle and a place for the answer.
    unsafe { status(mock(file).counter(number, operation, operand).map(|before| *value = before)) }
}

unsafe extern "C" fn file_counters_drop(file: *mut File, first: u32, last: u32) -> c_int {
    // SAFETY: a live handle.
    unsafe { mock(file) }.drop_counters(first, last);
    0
}

/// The mock has no explicit epochs: they are tested with real servers.
fn no_epochs() -> c_int {
    status(Err((Code::Unsupported, "the mock has no explicit epochs".to_owned())))
}

unsafe extern "C" fn epoch_begin(_: *const c_char, _: *mut Blob) -> c_int {
    no_epochs()
}

unsafe extern "C" fn epoch_attach(_: *const u8, _: usize, _: *mut *mut SharedEpoch, _: *mut u64) -> c_int {
    no_epochs()
}

unsafe extern "C" fn epoch_blob(_: *mut SharedEpoch, _: *mut Blob) -> c_int {
    no_epochs()
}

unsafe extern "C" fn epoch_flush(_: *mut SharedEpoch, _: *mut u8, _: usize) -> c_int {
    no_epochs()
}

unsafe extern "C" fn epoch_commit(_: *mut SharedEpoch, _: *const u8, _: usize, _: *mut u64, _: *mut Blob) -> c_int {
    no_epochs()
}

unsafe extern "C" fn epoch_advance(_: *mut SharedEpoch, _: *const u8, _: usize) -> c_int {
    no_epochs()
}

unsafe extern "C" fn epoch_end(_: *mut SharedEpoch) -> c_int {
    no_epochs()
}

unsafe extern "C" fn file_enter(_: *mut File, _: *mut SharedEpoch, _: *mut Blob) -> c_int {
    no_epochs()
}

unsafe extern "C" fn file_leave(_: *mut File, _: *mut Blob) -> c_int {
    no_epochs()
}

unsafe extern "C" fn file_seal(_: *mut File, _: *mut u8, _: usize) -> c_int {
    no_epochs()
}

unsafe extern "C" fn file_settle(_: *mut File, _: *const u8, _: usize, _: *const u8, _: usize, _: *mut Blob) -> c_int {
    no_epochs()
}

static TABLE: Table = Table {
    size: size_of::<Table>(),
    version: VERSION,
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
    epoch_begin,
    epoch_attach,
    epoch_blob,
    epoch_flush,
    epoch_commit,
    epoch_advance,
    epoch_abort: epoch_end,
    epoch_close: epoch_end,
    file_enter,
    file_leave,
    file_seal,
    file_settle,
};

/// The one exported function.
#[unsafe(no_mangle)]
pub extern "C" fn talea_table(version: u32) -> *const Table {
    if version == VERSION { &raw const TABLE } else { std::ptr::null() }
}
