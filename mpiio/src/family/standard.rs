//! The standard ABI of MPI 5.0 (chapter 20): `libmpi_abi.so.1`, the same for every MPI that offers it.
//!
//! Must hold nothing but declarations.
#![allow(non_camel_case_types, reason = "MPI's own names")]

use std::ffi::{CStr, c_int};

use crate::abi::{MPI_File, MPI_Status, integers, objects};

/// An MPI object: an opaque pointer, whose predefined values are small numbers.
pub(crate) type Handle = usize;

/// For messages.
pub(crate) const FAMILY: &str = "the MPI-5 standard ABI (libmpi_abi.so.1)";
/// Names under which libraries of this ABI may be loaded privately (Python loads extension modules RTLD_LOCAL).
pub(crate) const LIBRARIES: [&CStr; 2] = [c"libmpi_abi.so.1", c"libmpi_abi.so"];

/// Its compiler, and whether its mpi.h has the large-count functions of MPI 4.
#[cfg(test)]
pub(crate) const COMPILER: (&str, bool) = ("mpicc", true);

/// `MPI_STATUS_IGNORE`.
pub(crate) fn status_ignored(status: *const MPI_Status) -> bool {
    status.is_null()
}

objects! {
    MPI_COMM_NULL = 0x100;
    MPI_COMM_WORLD = 0x101;
    MPI_BYTE = 0x247;
    MPI_LONG_LONG = 0x20b;
    MPI_SHORT_INT = 0x22c;
    MPI_DATATYPE_NULL = 0x200;
    MPI_INFO_NULL = 0x130;
    MPI_REQUEST_NULL = 0x180;
    MPI_OP_NULL = 0x20;
    MPI_MAX = 0x23;
    MPI_ERRHANDLER_NULL = 0x140;
    MPI_ERRORS_ARE_FATAL = 0x141;
    MPI_ERRORS_RETURN = 0x143;
    MPI_ERRORS_ABORT = 0x142;
}

/// No file.
#[allow(non_snake_case, reason = "MPI's own name")]
pub(crate) const fn MPI_FILE_NULL() -> MPI_File {
    std::ptr::without_provenance_mut(0x118)
}

integers! {
    MPI_SUCCESS: c_int = 0;
    MPI_MODE_CREATE: c_int = 2;
    MPI_MODE_RDONLY: c_int = 16;
    MPI_MODE_WRONLY: c_int = 256;
    MPI_MODE_RDWR: c_int = 32;
    MPI_MODE_DELETE_ON_CLOSE: c_int = 4;
    MPI_MODE_UNIQUE_OPEN: c_int = 128;
    MPI_MODE_EXCL: c_int = 8;
    MPI_MODE_APPEND: c_int = 1;
    MPI_MODE_SEQUENTIAL: c_int = 64;
    MPI_SEEK_SET: c_int = 403;
    MPI_SEEK_CUR: c_int = 401;
    MPI_SEEK_END: c_int = 402;
    MPI_DISPLACEMENT_CURRENT: c_int = -1;
    MPI_MAX_ERROR_STRING: c_int = 512;
    MPI_MAX_INFO_KEY: c_int = 256;
    MPI_MAX_INFO_VAL: c_int = 1024;
    MPI_COMM_TYPE_SHARED: c_int = 221;
    MPI_COMBINER_NAMED: c_int = 101;
    MPI_COMBINER_DUP: c_int = 102;
    MPI_COMBINER_CONTIGUOUS: c_int = 103;
    MPI_COMBINER_VECTOR: c_int = 104;
    MPI_COMBINER_HVECTOR: c_int = 105;
    MPI_COMBINER_INDEXED: c_int = 106;
    MPI_COMBINER_HINDEXED: c_int = 107;
    MPI_COMBINER_INDEXED_BLOCK: c_int = 108;
    MPI_COMBINER_STRUCT: c_int = 110;
    MPI_COMBINER_SUBARRAY: c_int = 111;
    MPI_COMBINER_DARRAY: c_int = 112;
    MPI_COMBINER_F90_REAL: c_int = 113;
    MPI_COMBINER_F90_COMPLEX: c_int = 114;
    MPI_COMBINER_F90_INTEGER: c_int = 115;
    MPI_COMBINER_RESIZED: c_int = 116;
    MPI_COMBINER_HINDEXED_BLOCK: c_int = 109;
    MPI_ORDER_FORTRAN: c_int = 15;
    MPI_DISTRIBUTE_BLOCK: c_int = 17;
    MPI_DISTRIBUTE_CYCLIC: c_int = 18;
    MPI_DISTRIBUTE_NONE: c_int = 16;
    MPI_DISTRIBUTE_DFLT_DARG: c_int = 19;
    MPI_ERR_BUFFER: c_int = 1;
    MPI_ERR_COUNT: c_int = 2;
    MPI_ERR_TYPE: c_int = 3;
    MPI_ERR_ARG: c_int = 13;
    MPI_ERR_OTHER: c_int = 16;
    MPI_ERR_INTERN: c_int = 17;
    MPI_ERR_ACCESS: c_int = 20;
    MPI_ERR_AMODE: c_int = 21;
    MPI_ERR_BAD_FILE: c_int = 23;
    MPI_ERR_CONVERSION: c_int = 25;
    MPI_ERR_DUP_DATAREP: c_int = 27;
    MPI_ERR_FILE_EXISTS: c_int = 28;
    MPI_ERR_FILE: c_int = 30;
    MPI_ERR_IO: c_int = 35;
    MPI_ERR_NOT_SAME: c_int = 40;
    MPI_ERR_NO_SPACE: c_int = 41;
    MPI_ERR_NO_SUCH_FILE: c_int = 42;
    MPI_ERR_READ_ONLY: c_int = 45;
    MPI_ERR_UNSUPPORTED_DATAREP: c_int = 54;
    MPI_ERR_UNSUPPORTED_OPERATION: c_int = 55;
}
