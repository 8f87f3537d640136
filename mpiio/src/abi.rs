//! What all MPIs have in common in C: types of functions and of numbers. What differs is in [`crate::family`].
//!
//! Must hold nothing but declarations; a test compares each number of the family, and each prototype of [`crate::exports`],
//! with the site's own `mpi.h`.
#![allow(non_camel_case_types, reason = "MPI's own names")]

use std::ffi::{c_int, c_void};

pub(crate) use crate::family::*;

pub(crate) type MPI_Comm = Handle;
pub(crate) type MPI_Datatype = Handle;
pub(crate) type MPI_Info = Handle;
pub(crate) type MPI_Group = Handle;
pub(crate) type MPI_Op = Handle;
pub(crate) type MPI_Request = Handle;
pub(crate) type MPI_Errhandler = Handle;
pub(crate) type MPI_Fint = c_int;
pub(crate) type MPI_Aint = isize;
pub(crate) type MPI_Offset = i64;
pub(crate) type MPI_Count = i64;
/// A file handle: an address, ours ([`crate::handle`]) or the real MPI's.
pub(crate) type MPI_File = *mut c_void;
/// The driver never looks into a status; MPI's own functions fill it.
pub(crate) type MPI_Status = c_void;

/// C type of a file error handler; the arguments after the first two are not passed.
pub(crate) type FileErrhandlerFn = unsafe extern "C" fn(*mut MPI_File, *mut c_int, ...);
/// C types of a data representation's functions.
pub(crate) type ConversionFn =
    unsafe extern "C" fn(*mut c_void, MPI_Datatype, c_int, *mut c_void, MPI_Offset, *mut c_void) -> c_int;
pub(crate) type LargeConversionFn =
    unsafe extern "C" fn(*mut c_void, MPI_Datatype, MPI_Count, *mut c_void, MPI_Offset, *mut c_void) -> c_int;
pub(crate) type ExtentFn = unsafe extern "C" fn(MPI_Datatype, *mut MPI_Aint, *mut c_void) -> c_int;
pub(crate) type UserFn = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_int, *mut MPI_Datatype);
pub(crate) type QueryFn = unsafe extern "C" fn(*mut c_void, *mut MPI_Status) -> c_int;
pub(crate) type FreeFn = unsafe extern "C" fn(*mut c_void) -> c_int;
pub(crate) type CancelFn = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
pub(crate) type DeleteAttrFn = unsafe extern "C" fn(MPI_Comm, c_int, *mut c_void, *mut c_void) -> c_int;
pub(crate) type CopyAttrFn =
    unsafe extern "C" fn(MPI_Comm, c_int, *mut c_void, *mut c_void, *mut c_void, *mut c_int) -> c_int;

/// Declares a family's numbers and, for the comparison with `mpi.h`, their list.
macro_rules! integers {
    ($($name:ident : $kind:ty = $value:expr;)*) => {
        $(pub(crate) const $name: $kind = $value;)*
        #[cfg(test)]
        pub(crate) const INTEGERS: &[(&str, i64)] = &[$((stringify!($name), $value as i64),)*];
    };
}

/// Declares a family's predefined objects, where they are constants.
#[allow(unused_macros, reason = "one family has none")]
macro_rules! objects {
    ($($name:ident = $value:expr;)*) => {
        $(#[allow(non_snake_case, reason = "MPI's own names")]
        pub(crate) const fn $name() -> Handle {
            $value
        })*
        #[cfg(test)]
        pub(crate) const OBJECTS: &[(&str, i64)] = &[$((stringify!($name), $name() as i64),)*];
    };
}
#[allow(unused_imports, reason = "one family has none")]
pub(crate) use {integers, objects};
