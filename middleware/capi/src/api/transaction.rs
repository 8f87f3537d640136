//! Independent transactions: reads and writes of one process, committed together if nothing that was read has changed.

use std::ffi::c_int;

use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::epoch::EPOCHS;
use super::types::{talea_container_t, talea_epoch_t};
use crate::boundary::{place, public, put};

/// Begins an independent transaction of this process. Its handle is used as that of an epoch: what is read and written inside of
/// it is noted and pending. talea_tx_commit commits it, talea_epoch_abort aborts it, talea_epoch_close gives it back (and aborts it
/// if it is open still). It makes no step.
///
/// # Safety
/// `out` is valid for writing; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_tx_open(container: *mut talea_container_t, out: *mut *mut talea_epoch_t) -> c_int {
    public(|| {
        place(out, "transaction")?;
        let transaction = CONTAINERS.get(container)?.tx_open().map_err(fault)?;
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, EPOCHS.add(transaction.into_epoch()), "transaction") }
    })
}

/// Commits a transaction. TALEA_CONFLICT: something that it has read was changed by another one, and nothing of it remains: begin it
/// anew. TALEA_IN_FLIGHT: updates of it have not ended, nothing was done, and it is open still: take their ends, then commit.
/// `stamp` (or NULL) gets the stamp of its commit.
///
/// # Safety
/// `stamp` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_tx_commit(transaction: *mut talea_epoch_t, stamp: *mut u64) -> c_int {
    public(|| {
        let committed = EPOCHS.get(transaction)?.commit_independent().map_err(fault)?;
        if stamp.is_null() {
            return Ok(());
        }
        // SAFETY: not null, valid by the caller's contract.
        unsafe { put(stamp, committed.stamp.0, "stamp") }
    })
}
