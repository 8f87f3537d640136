//! Collective epochs: begun once, written by many processes, committed once.

use std::ffi::{c_char, c_int, c_void};

use talea_client::{Committed, Epoch};
use talea_model::Summary;
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::types::{talea_container_t, talea_epoch_t, talea_step_t};
use crate::boundary::{argument, bytes, optional_string, place, public, put, slice_mut};
use crate::handles::Handles;

pub(crate) static EPOCHS: Handles<talea_epoch_t, Epoch> = Handles::new("epoch");

/// Targets that may join the pool between two processes' summaries.
const SPARE_TARGETS: usize = 64;

/// Begins a collective epoch.
///
/// # Safety
/// `out` is valid for writing; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_begin(container: *mut talea_container_t, out: *mut *mut talea_epoch_t) -> c_int {
    public(|| {
        place(out, "epoch")?;
        let epoch = CONTAINERS.get(container)?.begin(true).map_err(fault)?;
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, EPOCHS.add(epoch), "epoch") }
    })
}

/// Copies `content` to the caller and tells its size; TALEA_TOO_LONG if it does not fit.
///
/// # Safety
/// `size` is valid for reading and writing, `out` for writing `*size` bytes; null pointers are told.
unsafe fn copy_out(content: &[u8], out: *mut c_void, size: *mut usize) -> Result<(), Fault> {
    place(size, "size")?;
    // SAFETY: checked above, valid by the caller's contract.
    let capacity = unsafe { std::mem::replace(&mut *size, content.len()) };
    if out.is_null() {
        return Ok(());
    }
    if capacity < content.len() {
        return Err(Fault::new(
            talea_abi::Code::TooLong,
            format!("{capacity} bytes are too few: {} are needed", content.len()),
        ));
    }
    // SAFETY: valid for that many bytes by the caller's contract.
    unsafe { slice_mut(out.cast(), content.len(), "place for the bytes") }?.copy_from_slice(content);
    Ok(())
}

/// Bytes from which any process of the system's user can join the epoch. `*blob_bytes` is the room at `blob`, and then the size;
/// with a null `blob` only the size is told.
///
/// # Safety
/// `blob_bytes` is valid, `blob` null or valid for writing `*blob_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_blob(
    epoch: *mut talea_epoch_t,
    blob: *mut c_void,
    blob_bytes: *mut usize,
) -> c_int {
    public(|| {
        let content = EPOCHS.get(epoch)?.blob();
        // SAFETY: the caller's contract.
        unsafe { copy_out(&content, blob, blob_bytes) }
    })
}

/// This process's part of an epoch that another one began.
///
/// # Safety
/// `blob` is valid for reading `blob_bytes` bytes, `out` for writing; null pointers are told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_join(
    container: *mut talea_container_t,
    blob: *const c_void,
    blob_bytes: usize,
    out: *mut *mut talea_epoch_t,
) -> c_int {
    public(|| {
        place(out, "epoch")?;
        // SAFETY: the caller's contract.
        let blob = unsafe { bytes(blob.cast(), blob_bytes, "blob") }?;
        let epoch = CONTAINERS.get(container)?.join(blob).map_err(fault)?;
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, EPOCHS.add(epoch), "epoch") }
    })
}

/// What this process did in the epoch so far; TALEA_IN_FLIGHT while an update of it is in flight (take its end first:
/// talea_queue_poll). Used like talea_epoch_blob. All processes' summaries have the same size and are merged (talea_summary_merge) for
/// the one that commits.
///
/// # Safety
/// `summary_bytes` is valid, `summary` null or valid for writing `*summary_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_summary(
    epoch: *mut talea_epoch_t,
    summary: *mut c_void,
    summary_bytes: *mut usize,
) -> c_int {
    public(|| {
        let epoch = EPOCHS.get(epoch)?;
        let targets = epoch.container().client().map().targets.len();
        let mut content = vec![0; Summary::encoded_bytes(targets + SPARE_TARGETS)];
        epoch.try_summary().map_err(fault)?.encode(&mut content).map_err(|error| argument(error.to_string()))?;
        // SAFETY: the caller's contract.
        unsafe { copy_out(&content, summary, summary_bytes) }
    })
}

/// Merges two summaries, in any order: into = into + from.
///
/// # Safety
/// Both are valid for `summary_bytes` bytes and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_summary_merge(into: *mut c_void, from: *const c_void, summary_bytes: usize) -> c_int {
    public(|| {
        // SAFETY: the caller's contract.
        let into = unsafe { slice_mut(into.cast(), summary_bytes, "summary") }?;
        // SAFETY: the caller's contract.
        let from = unsafe { bytes(from.cast(), summary_bytes, "summary") }?;
        talea_posix::file::merge_summaries(into, from)
    })
}

/// The summary to commit with: the caller's, or (null) that of this process alone.
///
/// # Safety
/// `summary` is null or valid for reading its size.
pub(super) unsafe fn merged(epoch: &Epoch, summary: *const c_void, summary_bytes: usize) -> Result<Summary, Fault> {
    if summary.is_null() {
        return epoch.try_summary().map_err(fault);
    }
    // SAFETY: the caller says so.
    let content = unsafe { bytes(summary.cast(), summary_bytes, "summary") }?;
    Summary::decode(content).map_err(|error| argument(error.to_string()))
}

pub(super) fn step_of(committed: &Committed) -> talea_step_t {
    let step = committed.step.0;
    talea_step_t { step, stamp: committed.stamp.0, latest_step: step }
}

/// Commits on ONE process, with the merged summaries of all that wrote (NULL: this process alone did). `attributes` travel with
/// the step to its followers. `step` (or NULL) gets the step; without updates there is none, and it gets the last one.
///
/// TALEA_IN_FLIGHT: updates of this handle have not ended, in a queue or in another thread. TALEA_ARGUMENT: this process has written
/// since the summary was taken. Nothing was committed then and nothing is lost: the epoch is open still, and can be committed when
/// the updates' ends were taken (talea_queue_poll), or with a new summary.
///
/// # Safety
/// Arrays are valid for their sizes, `step` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_commit(
    epoch: *mut talea_epoch_t,
    summary: *const c_void,
    summary_bytes: usize,
    attributes: *const c_void,
    attributes_bytes: usize,
    step: *mut talea_step_t,
) -> c_int {
    public(|| {
        let epoch = EPOCHS.get(epoch)?;
        // SAFETY: the caller's contract.
        let attributes = unsafe { bytes(attributes.cast(), attributes_bytes, "attributes") }?;
        // SAFETY: the caller's contract.
        let merged = unsafe { merged(&epoch, summary, summary_bytes) }?;
        let committed = epoch.commit(&merged, attributes, false).committed.map_err(fault)?;
        if step.is_null() {
            return Ok(());
        }
        // SAFETY: not null, valid by the caller's contract.
        unsafe { put(step, step_of(&committed), "step") }
    })
}

/// Aborts on ONE process: nothing of the epoch remains. `reason`, for people, may be NULL.
///
/// # Safety
/// `reason` is null or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_abort(epoch: *mut talea_epoch_t, reason: *const c_char) -> c_int {
    public(|| {
        let epoch = EPOCHS.get(epoch)?;
        // SAFETY: the caller's contract.
        let reason = unsafe { optional_string(reason) }.unwrap_or(b"the program asked for it");
        epoch.abort(&String::from_utf8_lossy(reason)).map_err(fault)
    })
}

/// Gives this process's part back; one that was neither committed nor aborted is left to the others. A null pointer is fine.
///
/// # Safety
/// None: the handle is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_close(epoch: *mut talea_epoch_t) {
    if !epoch.is_null() {
        public(|| EPOCHS.remove(epoch).map(drop));
    }
}
