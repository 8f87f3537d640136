//! The ABI of Open MPI 4 and 5: `libmpi.so.40`. Predefined objects are addresses of variables of that library.
//!
//! Must hold nothing but declarations and the look-up of those variables.
#![allow(non_camel_case_types, reason = "MPI's own names")]

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::abi::{MPI_File, MPI_Status, integers};

/// An MPI object: the address of a structure.
pub(crate) type Handle = usize;

/// For messages.
pub(crate) const FAMILY: &str = "Open MPI (libmpi.so.40)";
/// Names under which libraries of this ABI may be loaded privately (Python loads extension modules RTLD_LOCAL).
pub(crate) const LIBRARIES: [&CStr; 2] = [c"libmpi.so.40", c"libmpi.so"];

/// Its compiler, and whether its mpi.h has the large-count functions of MPI 4.
#[cfg(test)]
pub(crate) const COMPILER: (&str, bool) = ("mpicc.openmpi", false);

/// `MPI_STATUS_IGNORE`.
pub(crate) fn status_ignored(status: *const MPI_Status) -> bool {
    status.is_null()
}

/// Declares predefined objects: functions that look the variable up once. 0 if no MPI is loaded.
macro_rules! variables {
    ($($name:ident = $variable:literal;)*) => {
        $(#[allow(non_snake_case, reason = "MPI's own names")]
        pub(crate) fn $name() -> Handle {
            static KNOWN: AtomicUsize = AtomicUsize::new(0);
            let known = KNOWN.load(Ordering::Relaxed);
            if known != 0 {
                return known;
            }
            let found = crate::real::lookup($variable).addr();
            KNOWN.store(found, Ordering::Relaxed);
            found
        })*
    };
}

variables! {
    MPI_COMM_NULL = c"ompi_mpi_comm_null";
    MPI_COMM_WORLD = c"ompi_mpi_comm_world";
    MPI_BYTE = c"ompi_mpi_byte";
    MPI_LONG_LONG = c"ompi_mpi_long_long_int";
    MPI_SHORT_INT = c"ompi_mpi_short_int";
    MPI_DATATYPE_NULL = c"ompi_mpi_datatype_null";
    MPI_INFO_NULL = c"ompi_mpi_info_null";
    MPI_REQUEST_NULL = c"ompi_request_null";
    MPI_OP_NULL = c"ompi_mpi_op_null";
    MPI_MAX = c"ompi_mpi_op_max";
    MPI_ERRHANDLER_NULL = c"ompi_mpi_errhandler_null";
    MPI_ERRORS_ARE_FATAL = c"ompi_mpi_errors_are_fatal";
    MPI_ERRORS_RETURN = c"ompi_mpi_errors_return";
}

/// Open MPI has it from version 5 on, where it is an address of its own.
#[allow(non_snake_case, reason = "MPI's own name")]
pub(crate) fn MPI_ERRORS_ABORT() -> Handle {
    let found = crate::real::lookup(c"ompi_mpi_errors_abort").addr();
    if found == 0 { usize::MAX } else { found }
}

/// No file.
#[allow(non_snake_case, reason = "MPI's own name")]
pub(crate) fn MPI_FILE_NULL() -> MPI_File {
    crate::real::lookup(c"ompi_mpi_file_null")
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
    MPI_MAX_ERROR_STRING: c_int = 256;
    MPI_MAX_INFO_KEY: c_int = 36;
    MPI_MAX_INFO_VAL: c_int = 256;
    MPI_COMM_TYPE_SHARED: c_int = 0;
    MPI_COMBINER_NAMED: c_int = 0;
    MPI_COMBINER_DUP: c_int = 1;
    MPI_COMBINER_CONTIGUOUS: c_int = 2;
    MPI_COMBINER_VECTOR: c_int = 3;
    MPI_COMBINER_HVECTOR: c_int = 5;
    MPI_COMBINER_INDEXED: c_int = 6;
    MPI_COMBINER_HINDEXED: c_int = 8;
    MPI_COMBINER_INDEXED_BLOCK: c_int = 9;
    MPI_COMBINER_STRUCT: c_int = 11;
    MPI_COMBINER_SUBARRAY: c_int = 12;
    MPI_COMBINER_DARRAY: c_int = 13;
    MPI_COMBINER_F90_REAL: c_int = 14;
    MPI_COMBINER_F90_COMPLEX: c_int = 15;
    MPI_COMBINER_F90_INTEGER: c_int = 16;
    MPI_COMBINER_RESIZED: c_int = 17;
    MPI_COMBINER_HINDEXED_BLOCK: c_int = 18;
    MPI_ORDER_FORTRAN: c_int = 1;
    MPI_DISTRIBUTE_BLOCK: c_int = 0;
    MPI_DISTRIBUTE_CYCLIC: c_int = 1;
    MPI_DISTRIBUTE_NONE: c_int = 2;
    MPI_DISTRIBUTE_DFLT_DARG: c_int = -1;
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
    MPI_ERR_UNSUPPORTED_DATAREP: c_int = 51;
    MPI_ERR_UNSUPPORTED_OPERATION: c_int = 52;
}

/// None is a constant.
#[cfg(test)]
pub(crate) const OBJECTS: &[(&str, i64)] = &[];
