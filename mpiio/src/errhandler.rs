//! Error handlers of Talea files: what a failure does before the call returns.
//!
//! MPI has no way to ask a handler for its function, nor to keep one alive, so the driver notes each handler as the program creates it and
//! sees each free: a handler lives on while a file uses it (MPI 4.1 §9.3.4), and what MPI_File_get_errhandler gives is the program's to free.
//! Must never call a handler with a lock held or under `catch_unwind`: it may not return; nor call MPI with a lock held.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::abi::*;
use crate::error::Failure;
use crate::exports;
use crate::real;

/// How MPICH's C++ binding calls a C++ function: kind of object (1: file), its handle, the code, the function.
pub(crate) type CxxCall = unsafe extern "C" fn(c_int, *mut c_int, *mut c_int, Option<FileErrhandlerFn>);
/// A file, in the C++ binding's words.
const CXX_FILE: c_int = 1;

/// An error handler in force.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    /// MPI's handle.
    pub(crate) handle: MPI_Errhandler,
    function: Option<FileErrhandlerFn>,
    cxx: Option<CxxCall>,
}

/// A handler that the program has created, or one of MPI's own that the driver has lent: some MPIs count references of these too.
#[derive(Default)]
struct Made {
    function: Option<FileErrhandlerFn>,
    cxx: Option<CxxCall>,
    /// Files of the driver's that use it.
    files: usize,
    /// References that MPI_File_get_errhandler gave to the program and that MPI does not know of.
    lent: usize,
    /// References of MPI's that the driver has to give back when nobody uses the handler any more.
    owed: usize,
}

type Table = HashMap<MPI_Errhandler, Made>;

fn table() -> MutexGuard<'static, Table> {
    static MADE: OnceLock<Mutex<Table>> = OnceLock::new();
    MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a handler that the program has created.
pub(crate) fn note(handle: MPI_Errhandler, function: FileErrhandlerFn) {
    table().insert(handle, Made { function: Some(function), ..Made::default() });
}

/// Notes that a handler's function is C++.
pub(crate) fn note_cxx(handle: MPI_Errhandler, call: CxxCall) {
    if let Some(made) = table().get_mut(&handle) {
        made.cxx = Some(call);
    }
}

/// The program frees a reference to a handler. Returns whether the driver takes that over: the real MPI is not to be called.
pub(crate) fn freed(handle: MPI_Errhandler) -> bool {
    let owed = {
        let mut table = table();
        let Some(made) = table.get_mut(&handle) else { return false };
        if made.lent > 0 {
            made.lent -= 1;
        } else if made.files > 0 {
            made.owed += 1;
        } else {
            return false;
        }
        made.settle()
    };
    give_back(handle, owed);
    true
}

impl Made {
    /// References to give back now.
    fn settle(&mut self) -> usize {
        if self.files > 0 || self.lent > 0 { 0 } else { std::mem::take(&mut self.owed) }
    }
}

fn give_back(handle: MPI_Errhandler, references: usize) {
    for _ in 0..references {
        let mut reference = handle;
        // SAFETY: a reference that the driver has got from MPI, or that the program gave up.
        unsafe { exports::real_errhandler_free(&raw mut reference) };
    }
}

impl Handler {
    /// The handler behind MPI's handle.
    fn of(handle: MPI_Errhandler) -> Handler {
        let table = table();
        let made = table.get(&handle);
        Handler { handle, function: made.and_then(|made| made.function), cxx: made.and_then(|made| made.cxx) }
    }

    /// The handler behind MPI's handle, for a file: it stays alive until [`Handler::release`].
    pub(crate) fn hold(handle: MPI_Errhandler) -> Handler {
        if let Some(made) = table().get_mut(&handle) {
            made.files += 1;
        }
        Handler::of(handle)
    }

    /// A file uses the handler no more.
    pub(crate) fn release(self) {
        let owed = match table().get_mut(&self.handle) {
            Some(made) => {
                made.files = made.files.saturating_sub(1);
                made.settle()
            }
            None => 0,
        };
        give_back(self.handle, owed);
    }

    /// The handle as MPI_File_get_errhandler gives it: a reference that the program frees.
    pub(crate) fn lend(self) -> MPI_Errhandler {
        table().entry(self.handle).or_default().lent += 1;
        self.handle
    }

    /// What the program set on MPI_FILE_NULL, held: it applies to files opened later and to failed opens.
    pub(crate) fn default_for_files() -> Handler {
        let mut handle = MPI_ERRORS_RETURN();
        // SAFETY: asks the real MPI about its null file, with a place for the answer.
        let value = unsafe { exports::real_file_get_errhandler(MPI_FILE_NULL(), &raw mut handle) };
        if value != Some(MPI_SUCCESS) {
            return Handler::of(MPI_ERRORS_RETURN());
        }
        // The question took a reference of MPI's; it is kept as long as the file.
        let noted = table().get_mut(&handle).map(|made| made.owed += 1).is_some();
        if !noted {
            give_back(handle, 1);
        }
        Handler::hold(handle)
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
        } else if self.cxx.is_some() {
            // The C++ binding calls the handler itself (MPI_File_call_errhandler) when the call has returned.
        } else if let Some(function) = self.function {
            // SAFETY: C's type of a file error handler; both pointers live across the call.
            unsafe { function(&raw mut file, &raw mut code) };
        }
        code
    }

    /// `MPI_File_call_errhandler`: as [`Handler::apply`], and a C++ function is called through its binding.
    ///
    /// # Safety
    /// As [`Handler::apply`].
    pub(crate) unsafe fn call(self, mut file: MPI_File, comm: MPI_Comm, mut code: c_int) {
        if let Some(call) = self.cxx {
            let place: *mut MPI_File = &raw mut file;
            // SAFETY: the binding reads an MPI_File from the place and makes the object of its class that the function wants.
            unsafe { call(CXX_FILE, place.cast::<c_void>().cast(), &raw mut code, self.function) };
        } else {
            // SAFETY: passed on to the caller.
            unsafe { self.apply(file, comm, code, "the program called the file's error handler") };
        }
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
    let handler = Handler::default_for_files();
    // It may not return, so the reference is given back before; MPI_FILE_NULL has one of its own.
    handler.release();
    // SAFETY: passed on to the caller.
    unsafe { handler.apply(MPI_FILE_NULL(), MPI_COMM_WORLD(), code, &failure.to_string()) }
}
