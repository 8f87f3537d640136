//! Snapshots: views of a container that never change.

use std::ffi::{c_char, c_int};

use talea_client::{Snapshot, SnapshotAt};
use talea_model::Step;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::types::{talea_container_t, talea_snapshot_t};
use crate::boundary::{place, public, put, text};
use crate::handles::Handles;

pub(crate) static SNAPSHOTS: Handles<talea_snapshot_t, Snapshot> = Handles::new("snapshot");

/// Leases a snapshot of a step, or (`step` 0) of all that is committed now. It stays readable until it is closed or the process
/// ends.
///
/// # Safety
/// `out` is valid for writing; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_snapshot_open(
    container: *mut talea_container_t,
    step: u64,
    out: *mut *mut talea_snapshot_t,
) -> c_int {
    public(|| {
        place(out, "snapshot")?;
        let at = if step == 0 { SnapshotAt::Latest } else { SnapshotAt::Step(Step(step)) };
        let snapshot = CONTAINERS.get(container)?.snapshot(at).map_err(fault)?;
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, SNAPSHOTS.add(snapshot), "snapshot") }
    })
}

/// Leases a named snapshot.
///
/// # Safety
/// `name` is NUL-terminated, `out` valid for writing; null pointers are told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_snapshot_open_named(
    container: *mut talea_container_t,
    name: *const c_char,
    out: *mut *mut talea_snapshot_t,
) -> c_int {
    public(|| {
        place(out, "snapshot")?;
        let container = CONTAINERS.get(container)?;
        // SAFETY: the caller's contract.
        let at = SnapshotAt::Named(unsafe { text(name, "snapshot's name") }?.to_owned());
        let snapshot = container.snapshot(at).map_err(fault)?;
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, SNAPSHOTS.add(snapshot), "snapshot") }
    })
}

/// Names the state of a step, or (`step` 0) of all that is committed now; it survives until it is destroyed.
///
/// # Safety
/// `name` is NUL-terminated; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_snapshot_name(
    container: *mut talea_container_t,
    name: *const c_char,
    step: u64,
) -> c_int {
    public(|| {
        let at = if step == 0 { SnapshotAt::Latest } else { SnapshotAt::Step(Step(step)) };
        // SAFETY: the caller's contract.
        let name = unsafe { text(name, "snapshot's name") }?;
        CONTAINERS.get(container)?.snapshot_name(name, at).map_err(fault)
    })
}

/// Destroys a named snapshot.
///
/// # Safety
/// `name` is NUL-terminated; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_snapshot_destroy(container: *mut talea_container_t, name: *const c_char) -> c_int {
    public(|| {
        // SAFETY: the caller's contract.
        let name = unsafe { text(name, "snapshot's name") }?;
        CONTAINERS.get(container)?.snapshot_destroy(name).map_err(fault)
    })
}

/// Last step that the snapshot contains; 0 if there is none.
///
/// # Safety
/// `step` is valid for writing; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_snapshot_step(snapshot: *mut talea_snapshot_t, step: *mut u64) -> c_int {
    public(|| {
        let snapshot = SNAPSHOTS.get(snapshot)?;
        // SAFETY: null or valid by the caller's contract.
        unsafe { put(step, snapshot.step().0, "step") }
    })
}

/// Ends a snapshot's lease. A null pointer is fine.
///
/// # Safety
/// None: the handle is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_snapshot_close(snapshot: *mut talea_snapshot_t) {
    if !snapshot.is_null() {
        public(|| SNAPSHOTS.remove(snapshot).map(drop));
    }
}
