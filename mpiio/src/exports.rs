//! The exported functions: every `MPI_File_*` of the site's MPI, under both its names.
//!
//! Owns the fork in the road: a Talea file's call goes to the driver under `catch_unwind`, any other to the real MPI untouched.
//! Must hold no logic beyond that.
#![allow(non_snake_case, reason = "MPI's own names")]

mod data;
mod epoch;
mod handles;
mod inquiry;
mod shared;

pub(crate) use handles::{real_errhandler_free, real_file_get_errhandler};

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::*;
use crate::error::Failure;
use crate::file::OpenFile;
use crate::handle::{self, Named};

/// What a call returns when the program uses a file function and no MPI is loaded at all.
const NO_MPI: c_int = MPI_ERR_INTERN;

/// Runs the driver's part of a call; nothing unwinds out of it.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Failure::Panic(text))
    })
}

/// Sends a call on a file handle to whom it belongs.
///
/// # Safety
/// `ours` and `real` are sound for the program's arguments.
unsafe fn dispatch(
    named: MPI_File,
    ours: impl FnOnce(&OpenFile) -> Result<(), Failure>,
    real: impl FnOnce() -> c_int,
) -> c_int {
    match handle::named(named) {
        Named::Foreign => real(),
        Named::Dead => {
            let failure = Failure::refused(
                MPI_ERR_FILE,
                "the file handle is closed, or belongs to the parent of this forked process",
            );
            // SAFETY: the handler is the program's own.
            unsafe { crate::errhandler::raise_without_file(&failure) }
        }
        Named::Open(file) => match guarded(|| ours(&file)) {
            Ok(()) => MPI_SUCCESS,
            Err(failure) => {
                let (handler, comm, code) = (file.state().handler, file.group.comm, failure.code());
                let text = format!("{}: {failure}", file.name());
                // The handler may not return: nothing may be held across it.
                drop(file);
                // SAFETY: the handler is the program's own.
                unsafe { handler.apply(named, comm, code, &text) }
            }
        },
    }
}

/// Returns what the driver of another family does with a call, if that family's MPI is in this process.
macro_rules! hand_over {
    ($name:expr, ($($argument:ident : $kind:ty),*) -> $result:ty $(, else $otherwise:expr)?) => {
        if let Some(foreign) = crate::kin::foreign() {
            let address = foreign.target($name);
            if address.is_null() {
                return $($otherwise)?;
            }
            // SAFETY: the function of this name, whose arguments arrived as they were passed.
            let target = unsafe {
                std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn($($kind),*) -> $result>(address)
            };
            // SAFETY: the program's own arguments, passed on.
            return unsafe { target($($argument),*) };
        }
    };
}
use hand_over;

/// Defines the functions whose first argument is a file, each under its two names, and lists their signatures for the tests.
macro_rules! on_file {
    ($($name:ident $profiled:ident ($file:ident; $($argument:ident : $kind:ty),*) => $ours:expr;)*) => {
        $(
            on_file!(@define $name ($file; $($argument : $kind),*) => $ours);
            on_file!(@define $profiled ($file; $($argument : $kind),*) => $ours);
        )*
        #[cfg(test)]
        pub(super) const SIGNATURES: &[(&str, &[&str])] =
            &[$((stringify!($name), &["MPI_File", $(stringify!($kind)),*]),)*];
    };
    (@define $name:ident ($file:ident; $($argument:ident : $kind:ty),*) => $ours:expr) => {
        /// # Safety
        /// As MPI says for the function of this name.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(fh: MPI_File $(, $argument: <$kind as crate::kin::Passed>::Word)*) -> c_int {
            crate::exports::hand_over!(
                crate::exports::on_file!(@cstr $name),
                (fh: MPI_File $(, $argument: <$kind as crate::kin::Passed>::Word)*) -> c_int,
                else crate::exports::NO_MPI
            );
            $(let $argument = <$kind as crate::kin::Passed>::of($argument);)*
            let real = || {
                static NEXT: crate::real::Symbol = crate::real::Symbol::new($crate::exports::on_file!(@cstr $name));
                let address = NEXT.address();
                if address.is_null() {
                    return crate::exports::NO_MPI;
                }
                // SAFETY: MPI's function of this name has this type.
                let next = unsafe {
                    std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn(MPI_File $(, $kind)*) -> c_int>(address)
                };
                // SAFETY: the program's own arguments, passed on.
                unsafe { next(fh $(, $argument)*) }
            };
            // SAFETY: the program's arguments are what MPI wants them to be.
            unsafe { crate::exports::dispatch(fh, |$file| { let _ = &$file; $ours }, real) }
        }
    };
    (@cstr $name:ident) => {
        match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => c"",
        }
    };
}
use on_file;

#[cfg(test)]
mod tests;
