//! Files that are still open at MPI_Finalize.
//!
//! MPI_Finalize first deletes the attributes of MPI_COMM_SELF, where HDF5 and others close their files, and those of
//! MPI_COMM_WORLD() after them: so ours hangs on MPI_COMM_WORLD() and finds only what nobody closed. Must never run for a process
//! that ends otherwise: then nothing is committed.

use std::ffi::{c_int, c_void};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::handle::{self, Named};

static ARMED: AtomicBool = AtomicBool::new(false);

/// Sets the attribute, once.
pub(crate) fn arm() -> Result<(), Failure> {
    if ARMED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let mpi = mpi()?;
    let mut keyval = 0;
    // SAFETY: functions of MPI's types, and a place for the key.
    let value = unsafe {
        (mpi.MPI_Comm_create_keyval)(Some(not_copied), Some(on_finalize), &raw mut keyval, std::ptr::null_mut())
    };
    checked("MPI_Comm_create_keyval", value)?;
    // SAFETY: a key made above; the attribute's value is not used.
    checked("MPI_Comm_set_attr", unsafe { (mpi.MPI_Comm_set_attr)(MPI_COMM_WORLD(), keyval, std::ptr::null_mut()) })
}

/// A duplicate of the communicator does not get the attribute.
unsafe extern "C" fn not_copied(
    _: MPI_Comm,
    _: c_int,
    _: *mut c_void,
    _: *mut c_void,
    _: *mut c_void,
    copied: *mut c_int,
) -> c_int {
    if !copied.is_null() {
        // SAFETY: MPI's own flag.
        unsafe { copied.write(0) };
    }
    MPI_SUCCESS
}

unsafe extern "C" fn on_finalize(_: MPI_Comm, _: c_int, _: *mut c_void, _: *mut c_void) -> c_int {
    if !handle::forked() && catch_unwind(close_all).is_err() {
        eprintln!("talea: closing the files left open at MPI_Finalize failed internally");
    }
    MPI_SUCCESS
}

/// Closes in the order of opening, which all ranks of a communicator share.
fn close_all() {
    let mut open: Vec<_> = handle::all()
        .into_iter()
        .filter_map(|named| match handle::named(named) {
            Named::Open(file) => Some((file.sequence, named, file.group.rank, file.name().into_owned())),
            Named::Foreign | Named::Dead => None,
        })
        .collect();
    open.sort_unstable_by_key(|(sequence, ..)| *sequence);
    for (_, named, rank, name) in open {
        let outcome = crate::commit::close(named);
        match outcome {
            _ if rank != 0 => {}
            Ok(()) => eprintln!(
                "talea: warning: {name} was still open at MPI_Finalize; it was closed, and what it held committed"
            ),
            Err(failure) => {
                eprintln!("talea: {name} was still open at MPI_Finalize and could not be committed: {failure}")
            }
        }
    }
}
