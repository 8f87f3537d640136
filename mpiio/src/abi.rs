//! The MPICH ABI: types and constants that all MPIs with `libmpi.so.12` share (MPICH, Intel MPI, Cray MPICH, MVAPICH2).
//!
//! Written by hand because that ABI is frozen by agreement, so the driver builds on machines without any MPI; a test compares
//! each number here, and each prototype of [`crate::exports`], with the site's own `mpi.h`. Must hold nothing but declarations.
#![allow(non_camel_case_types, reason = "MPI's own names")]

use std::ffi::{c_int, c_void};

pub(crate) type MPI_Comm = c_int;
pub(crate) type MPI_Datatype = c_int;
pub(crate) type MPI_Info = c_int;
pub(crate) type MPI_Group = c_int;
pub(crate) type MPI_Op = c_int;
pub(crate) type MPI_Request = c_int;
pub(crate) type MPI_Errhandler = c_int;
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
pub(crate) type UserFn = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_int, *mut MPI_Datatype);
pub(crate) type QueryFn = unsafe extern "C" fn(*mut c_void, *mut MPI_Status) -> c_int;
pub(crate) type FreeFn = unsafe extern "C" fn(*mut c_void) -> c_int;
pub(crate) type CancelFn = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
pub(crate) type DeleteAttrFn = unsafe extern "C" fn(MPI_Comm, c_int, *mut c_void, *mut c_void) -> c_int;
pub(crate) type CopyAttrFn = unsafe extern "C" fn();

/// Declares constants and, for the comparison with `mpi.h`, their list.
macro_rules! constants {
    ($($name:ident : $kind:ty = $value:expr;)*) => {
        $(pub(crate) const $name: $kind = $value;)*
        #[cfg(test)]
        pub(crate) const CONSTANTS: &[(&str, i64)] = &[$((stringify!($name), $value as i64),)*];
    };
}

constants! {
    MPI_SUCCESS: c_int = 0;
    MPI_COMM_NULL: MPI_Comm = 0x0400_0000;
    MPI_COMM_WORLD: MPI_Comm = 0x4400_0000;
    MPI_BYTE: MPI_Datatype = 0x4c00_010d;
    MPI_LONG_LONG: MPI_Datatype = 0x4c00_0809;
    MPI_SHORT_INT: MPI_Datatype = 0x8c00_0003_u32.cast_signed();
    MPI_DATATYPE_NULL: MPI_Datatype = 0x0c00_0000;
    MPI_INFO_NULL: MPI_Info = 0x1c00_0000;
    MPI_REQUEST_NULL: MPI_Request = 0x2c00_0000;
    MPI_OP_NULL: MPI_Op = 0x1800_0000;
    MPI_MAX: MPI_Op = 0x5800_0001;
    MPI_ERRORS_ARE_FATAL: MPI_Errhandler = 0x5400_0000;
    MPI_ERRORS_RETURN: MPI_Errhandler = 0x5400_0001;
    MPI_ERRORS_ABORT: MPI_Errhandler = 0x5400_0003;

    MPI_MODE_CREATE: c_int = 1;
    MPI_MODE_RDONLY: c_int = 2;
    MPI_MODE_WRONLY: c_int = 4;
    MPI_MODE_RDWR: c_int = 8;
    MPI_MODE_DELETE_ON_CLOSE: c_int = 16;
    MPI_MODE_UNIQUE_OPEN: c_int = 32;
    MPI_MODE_EXCL: c_int = 64;
    MPI_MODE_APPEND: c_int = 128;
    MPI_MODE_SEQUENTIAL: c_int = 256;
    MPI_SEEK_SET: c_int = 600;
    MPI_SEEK_CUR: c_int = 602;
    MPI_SEEK_END: c_int = 604;
    MPI_MAX_ERROR_STRING: c_int = 512;
    MPI_MAX_INFO_KEY: c_int = 255;
    MPI_MAX_INFO_VAL: c_int = 1024;

    MPI_COMBINER_NAMED: c_int = 1;
    MPI_COMBINER_DUP: c_int = 2;
    MPI_COMBINER_CONTIGUOUS: c_int = 3;
    MPI_COMBINER_VECTOR: c_int = 4;
    MPI_COMBINER_HVECTOR: c_int = 6;
    MPI_COMBINER_INDEXED: c_int = 7;
    MPI_COMBINER_HINDEXED: c_int = 9;
    MPI_COMBINER_INDEXED_BLOCK: c_int = 10;
    MPI_COMBINER_STRUCT: c_int = 12;
    MPI_COMBINER_SUBARRAY: c_int = 13;
    MPI_COMBINER_DARRAY: c_int = 14;
    MPI_COMBINER_F90_REAL: c_int = 15;
    MPI_COMBINER_F90_COMPLEX: c_int = 16;
    MPI_COMBINER_F90_INTEGER: c_int = 17;
    MPI_COMBINER_RESIZED: c_int = 18;
    MPI_COMBINER_HINDEXED_BLOCK: c_int = 19;
    MPI_ORDER_FORTRAN: c_int = 57;
    MPI_DISTRIBUTE_BLOCK: c_int = 121;
    MPI_DISTRIBUTE_CYCLIC: c_int = 122;
    MPI_DISTRIBUTE_NONE: c_int = 123;
    MPI_DISTRIBUTE_DFLT_DARG: c_int = -49767;

    MPI_ERR_BUFFER: c_int = 1;
    MPI_ERR_COUNT: c_int = 2;
    MPI_ERR_TYPE: c_int = 3;
    MPI_ERR_ARG: c_int = 12;
    MPI_ERR_OTHER: c_int = 15;
    MPI_ERR_INTERN: c_int = 16;
    MPI_ERR_ACCESS: c_int = 20;
    MPI_ERR_AMODE: c_int = 21;
    MPI_ERR_BAD_FILE: c_int = 22;
    MPI_ERR_FILE_EXISTS: c_int = 25;
    MPI_ERR_FILE: c_int = 27;
    MPI_ERR_IO: c_int = 32;
    MPI_ERR_NOT_SAME: c_int = 35;
    MPI_ERR_NO_SPACE: c_int = 36;
    MPI_ERR_NO_SUCH_FILE: c_int = 37;
    MPI_ERR_READ_ONLY: c_int = 40;
    MPI_ERR_UNSUPPORTED_DATAREP: c_int = 43;
    MPI_ERR_UNSUPPORTED_OPERATION: c_int = 44;
}

/// `MPI_STATUS_IGNORE`.
pub(crate) fn status_ignored(status: *mut MPI_Status) -> bool {
    status.is_null() || status.addr() == 1
}
