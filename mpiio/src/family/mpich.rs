//! The MPICH ABI: what all MPIs with `libmpi.so.12` share (MPICH, Intel MPI, Cray MPICH, MVAPICH2).
//!
//! Written by hand because that ABI is frozen by agreement, so the driver builds on machines without any MPI; a test compares
//! each number here with the site's own `mpi.h`. Must hold nothing but declarations.
#![allow(non_camel_case_types, reason = "MPI's own names")]

use std::ffi::{CStr, c_int};

use crate::abi::{MPI_File, MPI_Status, integers, objects};

/// An MPI object: a number.
pub(crate) type Handle = c_int;

/// For messages.
pub(crate) const FAMILY: &str = "the MPICH family (libmpi.so.12)";
/// Names under which libraries of this ABI may be loaded privately (Python loads extension modules RTLD_LOCAL).
pub(crate) const LIBRARIES: [&CStr; 3] = [c"libmpich.so.12", c"libmpi.so.12", c"libmpi.so"];

/// Its compiler, and whether its mpi.h has the large-count functions of MPI 4.
#[cfg(test)]
pub(crate) const COMPILER: (&str, bool) = ("mpicc.mpich", true);

/// `MPI_STATUS_IGNORE`.
pub(crate) fn status_ignored(status: *const MPI_Status) -> bool {
    status.is_null() || status.addr() == 1
}

objects! {
    MPI_COMM_NULL = 0x0400_0000;
    MPI_COMM_WORLD = 0x4400_0000;
    MPI_BYTE = 0x4c00_010d;
    MPI_LONG_LONG = 0x4c00_0809;
    MPI_SHORT_INT = 0x8c00_0003_u32.cast_signed();
    MPI_DATATYPE_NULL = 0x0c00_0000;
    MPI_INFO_NULL = 0x1c00_0000;
    MPI_REQUEST_NULL = 0x2c00_0000;
    MPI_OP_NULL = 0x1800_0000;
    MPI_MAX = 0x5800_0001;
    MPI_ERRHANDLER_NULL = 0x1400_0000;
    MPI_ERRORS_ARE_FATAL = 0x5400_0000;
    MPI_ERRORS_RETURN = 0x5400_0001;
    MPI_ERRORS_ABORT = 0x5400_0003;
}

/// No file.
#[allow(non_snake_case, reason = "MPI's own name")]
pub(crate) const fn MPI_FILE_NULL() -> MPI_File {
    std::ptr::null_mut()
}

integers! {
    MPI_SUCCESS: c_int = 0;
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
    MPI_DISPLACEMENT_CURRENT: c_int = -54278278;
    MPI_MAX_ERROR_STRING: c_int = 512;
    MPI_MAX_INFO_KEY: c_int = 255;
    MPI_MAX_INFO_VAL: c_int = 1024;
    MPI_COMM_TYPE_SHARED: c_int = 1;
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
    MPI_ERR_CONVERSION: c_int = 23;
    MPI_ERR_DUP_DATAREP: c_int = 24;
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
