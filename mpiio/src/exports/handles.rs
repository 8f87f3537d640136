//! Functions that make, end or convert handles, and MPI_Error_string.
#![allow(non_snake_case, reason = "MPI's own names")]

use std::ffi::{CStr, c_char, c_int, c_void};

use super::{NO_MPI, guarded, hand_over, on_file};
use crate::abi::*;
use crate::errhandler::{self, Handler};
use crate::error::Failure;
use crate::handle::{self, Named};
use crate::kin::Passed;
use crate::representation::{self, Conversion};
use crate::{commit, error, kin, open, storage};

/// Calls the next definition of a function.
macro_rules! next {
    ($name:ident : fn($($kind:ty),*) -> $result:ty; ($($argument:expr),*) else $otherwise:expr) => {{
        static NEXT: crate::real::Symbol = crate::real::Symbol::new(on_file!(@cstr $name));
        let address = NEXT.address();
        if address.is_null() {
            $otherwise
        } else {
            // SAFETY: MPI's function of this name has this type.
            let next = unsafe {
                std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn($($kind),*) -> $result>(address)
            };
            // SAFETY: the program's own arguments, passed on.
            unsafe { next($($argument),*) }
        }
    }};
}

/// Defines one function under its two names; `$real` is the call of the next definition, `$path` the argument that names a file.
macro_rules! both {
    ($name:ident, $profiled:ident, ($($argument:ident : $kind:ty),*) -> $result:ty, $(path $path:ident,)? else $otherwise:expr,
     |$real:ident| $body:expr) => {
        both!(@define $name, ($($argument : $kind),*) -> $result, ($($path)?), $otherwise, |$real| $body);
        both!(@define $profiled, ($($argument : $kind),*) -> $result, ($($path)?), $otherwise, |$real| $body);
    };
    (@define $name:ident, ($($argument:ident : $kind:ty),*) -> $result:ty, ($($path:ident)?), $otherwise:expr,
     |$real:ident| $body:expr) => {
        /// # Safety
        /// As MPI says for the function of this name.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: <$kind as Passed>::Word),*) -> $result {
            $(
                // SAFETY: MPI wants a NUL-terminated string.
                if let Some(code) = kin::foreign().and_then(|foreign| unsafe { foreign.refuse($path) }) {
                    return code;
                }
            )?
            hand_over!(on_file!(@cstr $name), ($($argument: <$kind as Passed>::Word),*) -> $result, else $otherwise);
            $(let $argument = <$kind as Passed>::of($argument);)*
            let $real = || next!($name: fn($($kind),*) -> $result; ($($argument),*) else $otherwise);
            $body
        }
    };
}

/// The path if it is ours.
///
/// # Safety
/// `path` is null or NUL-terminated.
unsafe fn talea_path<'a>(path: *const c_char) -> Option<&'a CStr> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null; MPI wants a NUL-terminated string.
    let path = unsafe { CStr::from_ptr(path) };
    storage::is_talea(path).then_some(path)
}

/// Turns an outcome without a file into a return value.
fn returned(outcome: Result<(), Failure>) -> c_int {
    match outcome {
        Ok(()) => MPI_SUCCESS,
        // SAFETY: the handler is the program's own.
        Err(failure) => unsafe { errhandler::raise_without_file(&failure) },
    }
}

both!(MPI_File_open, PMPI_File_open,
    (comm: MPI_Comm, filename: *const c_char, amode: c_int, info: MPI_Info, fh: *mut MPI_File) -> c_int, path filename,
    else NO_MPI,
    |real| {
        // SAFETY: MPI wants a NUL-terminated string.
        let Some(path) = (unsafe { talea_path(filename) }) else { return real() };
        if fh.is_null() {
            return returned(Err(Failure::refused(MPI_ERR_ARG, "the pointer for the file handle is null")));
        }
        // SAFETY: not null; MPI wants a place for a handle.
        unsafe { fh.write(MPI_FILE_NULL()) };
        returned(guarded(|| open::open(comm, path, amode, info)).map(|opened| {
            // SAFETY: as above.
            unsafe { fh.write(opened) }
        }))
    }
);

both!(MPI_File_close, PMPI_File_close, (fh: *mut MPI_File) -> c_int, else NO_MPI, |real| {
    // SAFETY: null, or the program's place of a handle.
    let Some(&named) = (unsafe { fh.as_ref() }) else { return real() };
    let (handler, comm, text) = match handle::named(named) {
        Named::Foreign => return real(),
        Named::Dead => {
            let text = "the file handle is closed already, or belongs to the parent of this forked process";
            return returned(Err(Failure::refused(MPI_ERR_FILE, text)));
        }
        Named::Open(file) => (file.state().handler, MPI_COMM_WORLD(), file.name().into_owned()),
    };
    let outcome = guarded(|| commit::close(named));
    // SAFETY: not null, as above. The handle is gone whatever the outcome.
    unsafe { fh.write(MPI_FILE_NULL()) };
    match outcome {
        Ok(()) => MPI_SUCCESS,
        // SAFETY: the handler is the program's own.
        Err(failure) => unsafe { handler.apply(named, comm, failure.code(), &format!("{text}: {failure}")) },
    }
});

both!(MPI_File_delete, PMPI_File_delete, (filename: *const c_char, info: MPI_Info) -> c_int, path filename, else NO_MPI, |real| {
    // SAFETY: MPI wants a NUL-terminated string.
    let Some(path) = (unsafe { talea_path(filename) }) else { return real() };
    returned(guarded(|| storage::delete(path)))
});

both!(MPI_File_c2f, PMPI_File_c2f, (file: MPI_File) -> MPI_Fint, else 0, |real| {
    handle::to_fortran(file).unwrap_or_else(real)
});

both!(MPI_File_f2c, PMPI_File_f2c, (file: MPI_Fint) -> MPI_File, else MPI_FILE_NULL(), |real| {
    handle::from_fortran(file).unwrap_or_else(real)
});

// MPI 5.0 §20.4: the same integers in C. An MPI that lacks them has no program that calls them.
both!(MPI_File_toint, PMPI_File_toint, (file: MPI_File) -> c_int, else 0, |real| {
    handle::to_fortran(file).unwrap_or_else(real)
});

both!(MPI_File_fromint, PMPI_File_fromint, (file: c_int) -> MPI_File, else MPI_FILE_NULL(), |real| {
    handle::from_fortran(file).unwrap_or_else(real)
});

both!(MPI_File_create_errhandler, PMPI_File_create_errhandler,
    (function: Option<FileErrhandlerFn>, errhandler: *mut MPI_Errhandler) -> c_int, else NO_MPI,
    |real| {
        let value = real();
        // SAFETY: null, or the program's place for the handle that MPI has just filled.
        if let (MPI_SUCCESS, Some(function), Some(&made)) = (value, function, unsafe { errhandler.as_ref() }) {
            errhandler::note(made, function);
        }
        value
    }
);

both!(MPI_File_call_errhandler, PMPI_File_call_errhandler, (fh: MPI_File, errorcode: c_int) -> c_int, else NO_MPI, |real| {
    let (handler, comm): (Handler, MPI_Comm) = match handle::named(fh) {
        Named::Foreign => return real(),
        Named::Dead => return returned(Err(Failure::refused(MPI_ERR_FILE, "the file handle is closed"))),
        Named::Open(file) => (file.state().handler, file.group.comm),
    };
    // SAFETY: the handler is the program's own.
    unsafe { handler.call(fh, comm, errorcode) };
    MPI_SUCCESS
});

/// Registers a representation here and with the real MPI, whose local files may not know any (Open MPI's do not): that is told
/// when a program sets a view with it.
///
/// # Safety
/// `name` is null or NUL-terminated.
unsafe fn registered(
    real: impl FnOnce() -> c_int,
    name: *const c_char,
    conversions: [Conversion; 2],
    extent: Option<ExtentFn>,
    state: *mut c_void,
) -> c_int {
    let (false, Some(extent)) = (name.is_null(), extent) else { return real() };
    let [read, write] = conversions;
    // SAFETY: not null, NUL-terminated as MPI wants it.
    let name = unsafe { CStr::from_ptr(name) };
    let noted = guarded(|| representation::note(name, read, write, extent, state));
    if noted.is_ok() {
        real();
    }
    returned(noted)
}

both!(MPI_Register_datarep, PMPI_Register_datarep,
    (name: *const c_char, read: Option<ConversionFn>, write: Option<ConversionFn>, extent: Option<ExtentFn>, state: *mut c_void) -> c_int,
    else NO_MPI,
    |real| {
        let conversions = [read, write].map(|function| function.map_or(Conversion::None, Conversion::Small));
        // SAFETY: the program's own arguments.
        unsafe { registered(real, name, conversions, extent, state) }
    }
);

both!(MPI_Register_datarep_c, PMPI_Register_datarep_c,
    (name: *const c_char, read: Option<LargeConversionFn>, write: Option<LargeConversionFn>, extent: Option<ExtentFn>, state: *mut c_void) -> c_int,
    else NO_MPI,
    |real| {
        let conversions = [read, write].map(|function| function.map_or(Conversion::None, Conversion::Large));
        // SAFETY: the program's own arguments.
        unsafe { registered(real, name, conversions, extent, state) }
    }
);

both!(MPI_Errhandler_free, PMPI_Errhandler_free, (errhandler: *mut MPI_Errhandler) -> c_int, else NO_MPI, |real| {
    // SAFETY: null, or the program's place of a handle.
    match unsafe { errhandler.as_ref() } {
        Some(&handle) if errhandler::freed(handle) => {
            // SAFETY: not null.
            unsafe { errhandler.write(MPI_ERRHANDLER_NULL()) };
            MPI_SUCCESS
        }
        _ => real(),
    }
});

/// MPICH's C++ binding tells MPI by this how the functions of its handlers are called.
///
/// # Safety
/// As the binding calls it: a handle of MPI's, and its own function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn MPII_Errhandler_set_cxx(
    handle: <MPI_Errhandler as Passed>::Word,
    call: Option<errhandler::CxxCall>,
) {
    hand_over!(
        c"MPII_Errhandler_set_cxx",
        (handle: <MPI_Errhandler as Passed>::Word, call: Option<errhandler::CxxCall>) -> ()
    );
    let handle = <MPI_Errhandler as Passed>::of(handle);
    if let Some(call) = call {
        errhandler::note_cxx(handle, call);
    }
    static NEXT: crate::real::Symbol = crate::real::Symbol::new(c"MPII_Errhandler_set_cxx");
    let address = NEXT.address();
    if !address.is_null() {
        // SAFETY: the library's function of this name has this type.
        let next = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(MPI_Errhandler, Option<errhandler::CxxCall>)>(
                address,
            )
        };
        // SAFETY: the program's own arguments, passed on.
        unsafe { next(handle, call) }
    }
}

both!(MPI_Error_string, PMPI_Error_string, (code: c_int, string: *mut c_char, length: *mut c_int) -> c_int, else NO_MPI, |real| {
    // SAFETY: the program's own arguments.
    if unsafe { error::error_string(code, string, length) } { MPI_SUCCESS } else { real() }
});

/// The real MPI's error handler of a real file or of MPI_FILE_NULL; `None` without an MPI.
///
/// # Safety
/// As MPI says for MPI_File_get_errhandler.
pub(crate) unsafe fn real_file_get_errhandler(file: MPI_File, errhandler: *mut MPI_Errhandler) -> Option<c_int> {
    let value =
        next!(PMPI_File_get_errhandler: fn(MPI_File, *mut MPI_Errhandler) -> c_int; (file, errhandler) else NO_MPI);
    (value != NO_MPI).then_some(value)
}

/// The real MPI's MPI_Errhandler_free.
///
/// # Safety
/// As MPI says for MPI_Errhandler_free.
pub(crate) unsafe fn real_errhandler_free(errhandler: *mut MPI_Errhandler) {
    let _ = next!(PMPI_Errhandler_free: fn(*mut MPI_Errhandler) -> c_int; (errhandler) else NO_MPI);
}

#[cfg(test)]
pub(super) const SIGNATURES: &[(&str, &[&str])] = &[
    ("MPI_File_open", &["MPI_Comm", "*const c_char", "c_int", "MPI_Info", "*mut MPI_File"]),
    ("MPI_File_close", &["*mut MPI_File"]),
    ("MPI_File_delete", &["*const c_char", "MPI_Info"]),
    ("MPI_File_c2f", &["MPI_File"]),
    ("MPI_File_f2c", &["MPI_Fint"]),
    ("MPI_File_create_errhandler", &["Option<FileErrhandlerFn>", "*mut MPI_Errhandler"]),
    ("MPI_File_call_errhandler", &["MPI_File", "c_int"]),
    ("MPI_Errhandler_free", &["*mut MPI_Errhandler"]),
    ("MPI_Error_string", &["c_int", "*mut c_char", "*mut c_int"]),
];
