//! Explicit epochs for programs: what `talea_mpi.h` looks up by name. They return MPI error codes, whose text MPI_Error_string
//! has, and call no error handler.
#![allow(non_camel_case_types, reason = "the names of the C API")]

use std::ffi::{CStr, c_char, c_int, c_void};

use super::{guarded, hand_over};
use crate::abi::*;
use crate::error::Failure;
use crate::explicit;
use crate::handle::{self, Named};
use crate::kin::Passed;
use crate::position::answer;

/// An epoch, as the program holds it: a number.
pub(crate) type talea_mpi_epoch = *mut c_void;

fn code(outcome: Result<(), Failure>) -> c_int {
    outcome.map_or_else(|failure| failure.code(), |()| MPI_SUCCESS)
}

/// # Safety
/// `container` is null or NUL-terminated, `epoch` null or valid for writing.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn talea_mpi_epoch_begin(
    comm: <MPI_Comm as Passed>::Word,
    container: *const c_char,
    epoch: *mut talea_mpi_epoch,
) -> c_int {
    hand_over!(c"talea_mpi_epoch_begin", (comm: <MPI_Comm as Passed>::Word, container: *const c_char, epoch: *mut talea_mpi_epoch) -> c_int, else MPI_ERR_OTHER);
    let comm = <MPI_Comm as Passed>::of(comm);
    code(guarded(|| {
        if container.is_null() || epoch.is_null() {
            return Err(Failure::refused(MPI_ERR_ARG, "the container's name or the pointer for the epoch is null"));
        }
        // SAFETY: not null, NUL-terminated as the header asks.
        let number = explicit::begin(comm, unsafe { CStr::from_ptr(container) })?;
        // SAFETY: not null, valid for writing as the header asks.
        unsafe { answer(epoch, std::ptr::without_provenance_mut(number)) }
    }))
}

/// # Safety
/// None: both handles are checked.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn talea_mpi_epoch_file(epoch: talea_mpi_epoch, file: MPI_File) -> c_int {
    hand_over!(c"talea_mpi_epoch_file", (epoch: talea_mpi_epoch, file: MPI_File) -> c_int, else MPI_ERR_OTHER);
    code(guarded(|| match handle::named(file) {
        Named::Open(file) => explicit::named(epoch.addr())?.add(&file),
        _ => Err(Failure::refused(MPI_ERR_FILE, "only open files below /talea/ take part in epochs")),
    }))
}

/// # Safety
/// `bytes` is null or valid, `blob` null or valid for writing `*bytes` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn talea_mpi_epoch_blob(
    epoch: talea_mpi_epoch,
    blob: *mut c_void,
    bytes: *mut usize,
) -> c_int {
    hand_over!(c"talea_mpi_epoch_blob", (epoch: talea_mpi_epoch, blob: *mut c_void, bytes: *mut usize) -> c_int, else MPI_ERR_OTHER);
    code(guarded(|| {
        let content = explicit::named(epoch.addr())?.blob()?;
        // SAFETY: null or valid as the header asks.
        let Some(size) = (unsafe { bytes.as_mut() }) else {
            return Err(Failure::refused(MPI_ERR_ARG, "the pointer for the size is null"));
        };
        let room = std::mem::replace(size, content.len());
        if blob.is_null() {
            return Ok(());
        }
        if room < content.len() {
            return Err(Failure::refused(MPI_ERR_ARG, format!("{} bytes are needed for the blob", content.len())));
        }
        // SAFETY: room for the content, as checked.
        unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), blob.cast(), content.len()) };
        Ok(())
    }))
}

/// # Safety
/// `objects` is null or valid for `objects_bytes` bytes, `step` null or valid for writing.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn talea_mpi_epoch_commit(
    epoch: talea_mpi_epoch,
    objects: *const c_void,
    objects_bytes: usize,
    step: *mut u64,
) -> c_int {
    hand_over!(c"talea_mpi_epoch_commit", (epoch: talea_mpi_epoch, objects: *const c_void, objects_bytes: usize, step: *mut u64) -> c_int, else MPI_ERR_OTHER);
    code(guarded(|| {
        let objects = (!objects.is_null() && objects_bytes > 0)
            // SAFETY: not null, valid for its size as the header asks.
            .then(|| unsafe { std::slice::from_raw_parts(objects.cast::<u8>(), objects_bytes) });
        let committed = explicit::named(epoch.addr())?.commit(objects)?;
        // SAFETY: null or valid for writing as the header asks.
        if step.is_null() { Ok(()) } else { unsafe { answer(step, committed) } }
    }))
}

/// # Safety
/// `epoch` is null or valid.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn talea_mpi_epoch_end(epoch: *mut talea_mpi_epoch) -> c_int {
    hand_over!(c"talea_mpi_epoch_end", (epoch: *mut talea_mpi_epoch) -> c_int, else MPI_ERR_OTHER);
    code(guarded(|| {
        // SAFETY: null or valid as the header asks.
        let Some(epoch) = (unsafe { epoch.as_mut() }) else {
            return Err(Failure::refused(MPI_ERR_ARG, "the pointer to the epoch is null"));
        };
        let number = std::mem::replace(epoch, std::ptr::null_mut()).addr();
        explicit::named(number)?.end(number)
    }))
}
