//! Error handlers of Talea files: what a failure does before the call returns.
//!
//! MPI has no way to ask a handler for its function, so the driver notes each one as the program creates it. Must never call a handler with a
//! lock held or under `catch_unwind`: it may not return.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::abi::*;
use crate::error::Failure;
use crate::exports;
use crate::real;

/// An error handler in force.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    /// MPI's handle.
    pub(crate) handle: MPI_Errhandler,
    function: Option<FileErrhandlerFn>,
}

static CREATED: OnceLock<Mutex<HashMap<MPI_Errhandler, FileErrhandlerFn>>> = OnceLock::new();

/// Notes a handler that the program has created.
pub(crate) fn note(handle: MPI_Errhandler, function: FileErrhandlerFn) {
    let created = CREATED.get_or_init(Mutex::default);
    created.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, function);
}

impl Handler {
    /// The handler behind MPI's handle.
    pub(crate) fn of(handle: MPI_Errhandler) -> Handler {
        let function = CREATED
            .get()
            .and_then(|created| created.lock().unwrap_or_else(PoisonError::into_inner).get(&handle).copied());
        Handler { handle, function }
    }

    /// What the program set on MPI_FILE_NULL: it applies to files opened later and to failed opens.
    pub(crate) fn default_for_files() -> Handler {
        let mut handle = MPI_ERRORS_RETURN();
        // SAFETY: asks the real MPI about its null file, with a place for the answer.
        let value = unsafe { exports::real_file_get_errhandler(MPI_FILE_NULL(), &raw mut handle) };
        if value != Some(MPI_SUCCESS) {
            return Handler::of(MPI_ERRORS_RETURN());
        }
        let handler = Handler::of(handle);
        if let Ok(mpi) = real::mpi() {
            let mut reference = handle;
            // SAFETY: gives back the reference that the question above took.
            unsafe { (mpi.MPI_Errhandler_free)(&raw mut reference) };
        }
        handler
    }

    /// Applies the handler to a code; what it leaves is returned to the program.
    ///
    /// # Safety
    /// The program's handler function, if it has one, is sound to call with the file and the code.
    pub(crate) unsafe fn apply(self, mut file: MPI_File, comm: MPI_Comm, mut code: c_int, text: &str) -> c_int {
        if self.handle == MPI_ERRORS_ARE_FATAL() || self.handle == MPI_ERRORS_ABORT() {
            eprintln!("talea: fatal error on a file: {text}");
            if let Ok(mpi) = real::mpi() {
                // SAFETY: aborts the program's processes, as the handler demands.
                unsafe { (mpi.MPI_Abort)(comm, code) };
            }
        } else if let Some(function) = self.function {
            // SAFETY: C's type of a file error handler; both pointers live across the call.
            unsafe { function(&raw mut file, &raw mut code) };
        }
        code
    }
}

/// Raises the failure of a call that has no open file.
///
/// # Safety
/// As [`Handler::apply`].
pub(crate) unsafe fn raise_without_file(failure: &Failure) -> c_int {
    let code = failure.code();
    if crate::handle::forked() {
        return code;
    }
    // SAFETY: passed on to the caller.
    unsafe { Handler::default_for_files().apply(MPI_FILE_NULL(), MPI_COMM_WORLD(), code, &failure.to_string()) }
}
