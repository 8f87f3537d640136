//! What differs between two snapshots, and going back to one.

use std::ffi::{c_char, c_int, c_void};

use talea_client::{Differs, SnapshotAt};
use talea_model::Step;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::snapshot::SNAPSHOTS;
use super::types::{
    TALEA_ADDED, TALEA_CHANGED, TALEA_REMOVED, talea_container_t, talea_difference_fn, talea_difference_t,
    talea_extent_t, talea_key_t, talea_oid_t, talea_snapshot_t, talea_step_t,
};
use crate::boundary::{argument, bytes, public, put, text};

/// Gives what was written between two snapshots to `each`, in order of object, dkey, akey and record. What counts is that it was
/// written, not whether the bytes are others.
///
/// # Safety
/// `each` is a function that can be called with `context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_snapshot_diff(
    container: *mut talea_container_t,
    from: *mut talea_snapshot_t,
    to: *mut talea_snapshot_t,
    each: talea_difference_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        let each = each.ok_or_else(|| argument("no function to give the differences to"))?;
        let (from, to) = (SNAPSHOTS.get(from)?, SNAPSHOTS.get(to)?);
        let mut differences = container.differences(&from.view(), &to.view(), None).map_err(fault)?;
        while let Some(one) = differences.next().map_err(fault)? {
            let place = &one.place;
            let given = talea_difference_t {
                oid: talea_oid_t { hi: (place.oid.0 >> 64) as u64, lo: place.oid.0 as u64 },
                key: talea_key_t {
                    dkey: place.dkey.as_ptr().cast(),
                    dkey_bytes: place.dkey.len(),
                    akey: place.akey.as_ptr().cast(),
                    akey_bytes: place.akey.len(),
                },
                record_bytes: one.record_bytes,
                how: match one.how {
                    Differs::Added => TALEA_ADDED,
                    Differs::Changed => TALEA_CHANGED,
                    Differs::Removed => TALEA_REMOVED,
                },
                extent: talea_extent_t { index: one.extent.index, count: one.extent.count },
            };
            // SAFETY: the caller's contract; what is given lives through the call.
            if unsafe { each(context, &given) } != 0 {
                break;
            }
        }
        Ok(())
    })
}

/// Makes a step whose contents are those of an earlier step or (`name` not NULL) of a named snapshot. What lies between stays
/// readable; what others commit meanwhile stays. Without any difference there is no new step, and `step` (or NULL) gets the last one.
///
/// # Safety
/// `name` is null or NUL-terminated, `attributes` valid for its size, `step` null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_rollback(
    container: *mut talea_container_t,
    to_step: u64,
    name: *const c_char,
    attributes: *const c_void,
    attributes_bytes: usize,
    step: *mut talea_step_t,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        // SAFETY: the caller's contract.
        let attributes = unsafe { bytes(attributes.cast(), attributes_bytes, "attributes") }?;
        let at = match (name.is_null(), to_step) {
            // SAFETY: the caller's contract.
            (false, 0) => SnapshotAt::Named(unsafe { text(name, "snapshot's name") }?.to_owned()),
            (true, 1..) => SnapshotAt::Step(Step(to_step)),
            _ => return Err(argument("a rollback goes to a step or to a named snapshot: give one of them")),
        };
        let committed = container.rollback(at, attributes).map_err(fault)?;
        if step.is_null() {
            return Ok(());
        }
        let (number, stamp) = (committed.step.0, committed.stamp.0);
        // SAFETY: not null, valid by the caller's contract.
        unsafe { put(step, talea_step_t { step: number, stamp, latest_step: number }, "step") }
    })
}
