//! The table's explicit epochs. Only translates between C's words and `talea_posix`.

use std::ffi::{c_char, c_int};

use talea_abi::{Blob, File, SharedEpoch};
use talea_model::Summary;
use talea_posix::Fault;

use super::{FILES, give};
use crate::boundary::{argument, bytes, place, put, slice_mut, string, table};
use crate::handles::Handles;
use crate::process;

static EPOCHS: Handles<SharedEpoch, talea_posix::SharedEpoch> = Handles::new("explicit epoch");

/// # Safety
/// `summary` is null or valid for `count` bytes.
unsafe fn summary_of(summary: *const u8, count: usize) -> Result<Summary, Fault> {
    // SAFETY: the caller says so.
    let encoded = unsafe { bytes(summary, count, "summary") }?;
    Summary::decode(encoded).map_err(|error| argument(error.to_string()))
}

pub(super) unsafe extern "C" fn begin(container: *const c_char, shared: *mut Blob) -> c_int {
    table(|| {
        place(shared, "shared epoch")?;
        // SAFETY: NUL-terminated or null by the table's contract.
        let name = unsafe { string(container, "container") }?;
        let name = std::str::from_utf8(name).map_err(|_| argument("a container's name is UTF-8"))?;
        let begun = process::job()?.files.epoch_begin(name)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(shared, begun) }
    })
}

pub(super) unsafe extern "C" fn attach(
    shared: *const u8,
    count: usize,
    epoch: *mut *mut SharedEpoch,
    summary_bytes: *mut u64,
) -> c_int {
    table(|| {
        place(epoch, "epoch")?;
        place(summary_bytes, "size")?;
        // SAFETY: valid for reading by the table's contract.
        let attached = process::job()?.files.epoch_attach(unsafe { bytes(shared, count, "shared epoch") }?)?;
        let size = attached.summary_bytes() as u64;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe {
            put(summary_bytes, size, "size")?;
            put(epoch, EPOCHS.add(attached), "epoch")
        }
    })
}

pub(super) unsafe extern "C" fn blob(epoch: *mut SharedEpoch, out: *mut Blob) -> c_int {
    table(|| {
        place(out, "blob")?;
        let content = EPOCHS.get(epoch)?.blob()?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(out, content) }
    })
}

pub(super) unsafe extern "C" fn flush(epoch: *mut SharedEpoch, summary: *mut u8, count: usize) -> c_int {
    table(|| {
        // SAFETY: valid for writing by the table's contract.
        let out = unsafe { slice_mut(summary, count, "summary") }?;
        EPOCHS.get(epoch)?.summary()?.encode(out).map_err(|error| argument(error.to_string()))
    })
}

pub(super) unsafe extern "C" fn commit(
    epoch: *mut SharedEpoch,
    summary: *const u8,
    count: usize,
    step: *mut u64,
    result: *mut Blob,
) -> c_int {
    table(|| {
        place(result, "result")?;
        // SAFETY: valid for reading by the table's contract.
        let merged = unsafe { summary_of(summary, count) }?;
        let (outcome, told) = EPOCHS.get(epoch)?.commit(&merged);
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(result, told) }?;
        let committed = outcome?;
        // SAFETY: null or valid for writing by the table's contract.
        unsafe { put(step, committed.0, "step") }
    })
}

pub(super) unsafe extern "C" fn advance(epoch: *mut SharedEpoch, result: *const u8, count: usize) -> c_int {
    // SAFETY: valid for reading by the table's contract.
    table(|| EPOCHS.get(epoch)?.advance(unsafe { bytes(result, count, "result") }?))
}

pub(super) unsafe extern "C" fn abort(epoch: *mut SharedEpoch) -> c_int {
    table(|| EPOCHS.get(epoch)?.abort())
}

pub(super) unsafe extern "C" fn close(epoch: *mut SharedEpoch) -> c_int {
    table(|| EPOCHS.remove(epoch).map(drop))
}

pub(super) unsafe extern "C" fn file_enter(file: *mut File, epoch: *mut SharedEpoch, outcome: *mut Blob) -> c_int {
    table(|| {
        place(outcome, "result")?;
        let entered = FILES.get(file)?.enter(&*EPOCHS.get(epoch)?)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(outcome, entered) }
    })
}

pub(super) unsafe extern "C" fn file_leave(file: *mut File, outcome: *mut Blob) -> c_int {
    table(|| {
        place(outcome, "result")?;
        let left = FILES.get(file)?.leave()?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(outcome, left) }
    })
}

pub(super) unsafe extern "C" fn file_seal(file: *mut File, summary: *mut u8, count: usize) -> c_int {
    table(|| {
        // SAFETY: valid for reading by the table's contract.
        let merged = unsafe { summary_of(summary, count) }?;
        let sealed = FILES.get(file)?.seal(merged)?;
        // SAFETY: valid for writing by the table's contract.
        let out = unsafe { slice_mut(summary, count, "summary") }?;
        sealed.encode(out).map_err(|error| argument(error.to_string()))
    })
}

pub(super) unsafe extern "C" fn file_settle(
    file: *mut File,
    result: *const u8,
    result_count: usize,
    summary: *const u8,
    summary_count: usize,
    outcome: *mut Blob,
) -> c_int {
    table(|| {
        place(outcome, "result")?;
        // SAFETY: valid for reading by the table's contract.
        let (result, merged) = unsafe { (bytes(result, result_count, "result")?, summary_of(summary, summary_count)?) };
        let settled = FILES.get(file)?.settle(result, &merged)?;
        // SAFETY: checked above, valid for writing by the table's contract.
        unsafe { give(outcome, settled) }
    })
}
