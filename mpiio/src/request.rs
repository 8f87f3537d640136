//! Nonblocking calls: the data is there or stored when the call returns, and the request is complete.
//!
//! Owns the generalized request that tells the program's MPI_Wait what was transferred.

use std::ffi::{c_int, c_void};
use std::panic::catch_unwind;

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::real;
use crate::transfer::Pending;

/// Fills a status with the outcome of a transfer.
///
/// # Safety
/// `status` is null, MPI_STATUS_IGNORE or the program's status.
pub(crate) unsafe fn fill(status: *mut MPI_Status, done: &Pending) -> Result<(), Failure> {
    if status_ignored(status) {
        return Ok(());
    }
    let mpi = mpi()?;
    // The datatype may have been freed since; bytes say the same.
    let bytes = i64::try_from(done.bytes).unwrap_or(i64::MAX);
    // SAFETY: the program's status, and a predefined type.
    unsafe {
        checked("MPI_Status_set_elements_x", (mpi.MPI_Status_set_elements_x)(status, MPI_BYTE(), bytes))?;
        checked("MPI_Status_set_cancelled", (mpi.MPI_Status_set_cancelled)(status, 0))
    }
}

/// A request that is complete already.
pub(crate) fn completed(done: Pending) -> Result<MPI_Request, Failure> {
    let mpi = mpi()?;
    let mut request = MPI_REQUEST_NULL();
    let state = Box::into_raw(Box::new(done));
    // SAFETY: functions of MPI's types; the state lives until `free_state` takes it back.
    let started = unsafe { (mpi.MPI_Grequest_start)(query, free_state, cancel, state.cast(), &raw mut request) };
    if let Err(failure) = checked("MPI_Grequest_start", started) {
        // SAFETY: MPI did not take the state over.
        drop(unsafe { Box::from_raw(state) });
        return Err(failure);
    }
    // SAFETY: a request that was started above and is completed once.
    checked("MPI_Grequest_complete", unsafe { (mpi.MPI_Grequest_complete)(request) })?;
    Ok(request)
}

unsafe extern "C" fn query(state: *mut c_void, status: *mut MPI_Status) -> c_int {
    catch_unwind(|| {
        // SAFETY: MPI passes the state of `completed`, alive until `free_state`.
        let Some(done) = (unsafe { state.cast::<Pending>().as_ref() }) else { return MPI_ERR_INTERN };
        // SAFETY: MPI's own status.
        match unsafe { fill(status, done) } {
            Ok(()) => MPI_SUCCESS,
            Err(failure) => failure.class(),
        }
    })
    .unwrap_or(MPI_ERR_INTERN)
}

unsafe extern "C" fn free_state(state: *mut c_void) -> c_int {
    if !state.is_null() {
        // SAFETY: the state of `completed`; MPI calls this once.
        drop(unsafe { Box::from_raw(state.cast::<Pending>()) });
    }
    MPI_SUCCESS
}

unsafe extern "C" fn cancel(_: *mut c_void, _: c_int) -> c_int {
    // The transfer is over: there is nothing to cancel.
    if real::mpi().is_ok() { MPI_SUCCESS } else { MPI_ERR_OTHER }
}
