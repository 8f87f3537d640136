//! The real MPI below the driver, found by name at run time.
//!
//! Owns symbol lookup: [`Symbol`] for the next definition of an interposed function, [`mpi`] for MPI's other functions that the
//! driver calls. Must never link libmpi, nor look anything up before it is called. The driver calls MPI by its `PMPI_` names, so that a profiler sees
//! the program's calls and not the driver's.
#![allow(non_snake_case, reason = "MPI's own names")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::*;

/// An interposed function's next definition, looked up once.
pub(crate) struct Symbol {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Symbol {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Symbol { name, address: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Address of the definition after this library's own, or null if no MPI is loaded.
    pub(crate) fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: dlsym takes a NUL-terminated name; RTLD_NEXT searches after the object that holds this call.
        let mut found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            found = in_private_library(self.name);
        }
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

/// Looks a name up in an MPI that is loaded, but not in the global scope.
fn in_private_library(name: &CStr) -> *mut c_void {
    for library in LIBRARIES {
        // SAFETY: a NUL-terminated name; RTLD_NOLOAD never loads anything. The handle is kept: the driver lives as long as the process.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            continue;
        }
        // SAFETY: an open handle and a NUL-terminated name.
        let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
        if !found.is_null() {
            return found;
        }
    }
    std::ptr::null_mut()
}

/// Looks a function or variable of MPI up, as the program itself would. Null if no MPI has it.
pub(crate) fn lookup(name: &CStr) -> *mut c_void {
    // SAFETY: dlsym takes a NUL-terminated name; RTLD_DEFAULT searches the global scope.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if found.is_null() { in_private_library(name) } else { found }
}

/// Declares the functions of MPI that the driver calls: one field each, and their loading.
macro_rules! mpi_functions {
    ($($name:ident ( $($kind:ty),* );)*) => {
        /// MPI's functions that the driver calls.
        #[cfg_attr(family = "openmpi", expect(dead_code, reason = "what it says of external32 is not what it packs"))]
        pub(crate) struct Mpi {
            $(pub(crate) $name: unsafe extern "C" fn($($kind),*) -> c_int,)*
        }

        impl Mpi {
            fn load() -> Result<Mpi, &'static str> {
                Ok(Mpi {
                    $($name: {
                        let address = lookup(mpi_functions!(@name $name));
                        if address.is_null() {
                            return Err(stringify!($name));
                        }
                        // SAFETY: the MPI standard and the family's ABI give the function of this name this type; a test
                        // compares the declaration with mpi.h.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($kind),*) -> c_int>(address) }
                    },)*
                })
            }
        }

        #[cfg(test)]
        pub(crate) const CALLED: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($kind)),*]),)*];
    };
    (@name $name:ident) => {
        match CStr::from_bytes_with_nul(concat!("P", stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => c"",
        }
    };
}

mpi_functions! {
    MPI_Abort(MPI_Comm, c_int);
    MPI_Add_error_code(c_int, *mut c_int);
    MPI_Add_error_string(c_int, *const c_char);
    MPI_Allgather(*const c_void, c_int, MPI_Datatype, *mut c_void, c_int, MPI_Datatype, MPI_Comm);
    MPI_Allreduce(*const c_void, *mut c_void, c_int, MPI_Datatype, MPI_Op, MPI_Comm);
    MPI_Alltoall(*const c_void, c_int, MPI_Datatype, *mut c_void, c_int, MPI_Datatype, MPI_Comm);
    MPI_Bcast(*mut c_void, c_int, MPI_Datatype, c_int, MPI_Comm);
    MPI_Comm_create_keyval(Option<CopyAttrFn>, Option<DeleteAttrFn>, *mut c_int, *mut c_void);
    MPI_Comm_dup(MPI_Comm, *mut MPI_Comm);
    MPI_Comm_free(*mut MPI_Comm);
    MPI_Comm_group(MPI_Comm, *mut MPI_Group);
    MPI_Comm_rank(MPI_Comm, *mut c_int);
    MPI_Comm_set_attr(MPI_Comm, c_int, *mut c_void);
    MPI_Comm_set_errhandler(MPI_Comm, MPI_Errhandler);
    MPI_Comm_size(MPI_Comm, *mut c_int);
    MPI_Comm_split_type(MPI_Comm, c_int, c_int, MPI_Info, *mut MPI_Comm);
    MPI_Comm_test_inter(MPI_Comm, *mut c_int);
    MPI_Error_class(c_int, *mut c_int);
    MPI_Grequest_complete(MPI_Request);
    MPI_Grequest_start(QueryFn, FreeFn, CancelFn, *mut c_void, *mut MPI_Request);
    MPI_Info_create(*mut MPI_Info);
    MPI_Info_get(MPI_Info, *const c_char, c_int, *mut c_char, *mut c_int);
    MPI_Info_get_nkeys(MPI_Info, *mut c_int);
    MPI_Info_get_nthkey(MPI_Info, c_int, *mut c_char);
    MPI_Info_set(MPI_Info, *const c_char, *const c_char);
    MPI_Op_create(UserFn, c_int, *mut MPI_Op);
    MPI_Op_free(*mut MPI_Op);
    MPI_Pack_external(*const c_char, *const c_void, c_int, MPI_Datatype, *mut c_void, MPI_Aint, *mut MPI_Aint);
    MPI_Pack_external_size(*const c_char, c_int, MPI_Datatype, *mut MPI_Aint);
    MPI_Reduce(*const c_void, *mut c_void, c_int, MPI_Datatype, MPI_Op, c_int, MPI_Comm);
    MPI_Sendrecv(*const c_void, c_int, MPI_Datatype, c_int, c_int, *mut c_void, c_int, MPI_Datatype, c_int, c_int, MPI_Comm, *mut MPI_Status);
    MPI_Status_set_cancelled(*mut MPI_Status, c_int);
    MPI_Status_set_elements_x(*mut MPI_Status, MPI_Datatype, MPI_Count);
    MPI_Type_commit(*mut MPI_Datatype);
    MPI_Type_contiguous(c_int, MPI_Datatype, *mut MPI_Datatype);
    MPI_Type_dup(MPI_Datatype, *mut MPI_Datatype);
    MPI_Type_free(*mut MPI_Datatype);
    MPI_Type_get_contents(MPI_Datatype, c_int, c_int, c_int, *mut c_int, *mut MPI_Aint, *mut MPI_Datatype);
    MPI_Type_get_envelope(MPI_Datatype, *mut c_int, *mut c_int, *mut c_int, *mut c_int);
    MPI_Type_get_extent_x(MPI_Datatype, *mut MPI_Count, *mut MPI_Count);
    MPI_Unpack_external(*const c_char, *const c_void, MPI_Aint, *mut MPI_Aint, *mut c_void, c_int, MPI_Datatype);
    MPI_Type_size_x(MPI_Datatype, *mut MPI_Count);
}

type EnvelopeFn = unsafe extern "C" fn(
    MPI_Datatype,
    *mut MPI_Count,
    *mut MPI_Count,
    *mut MPI_Count,
    *mut MPI_Count,
    *mut c_int,
) -> c_int;
type ContentsFn = unsafe extern "C" fn(
    MPI_Datatype,
    MPI_Count,
    MPI_Count,
    MPI_Count,
    MPI_Count,
    *mut c_int,
    *mut MPI_Aint,
    *mut MPI_Count,
    *mut MPI_Datatype,
) -> c_int;

/// Functions of MPI 4 that the driver uses where they are: an older MPI has no datatypes with large counts.
#[derive(Default)]
pub(crate) struct LargeCounts {
    /// `MPI_Type_get_envelope_c`.
    pub(crate) envelope: Option<EnvelopeFn>,
    /// `MPI_Type_get_contents_c`.
    pub(crate) contents: Option<ContentsFn>,
}

/// MPI's functions for large counts.
pub(crate) fn large_counts() -> &'static LargeCounts {
    static FOUND: OnceLock<LargeCounts> = OnceLock::new();
    FOUND.get_or_init(|| {
        let (envelope, contents) = (lookup(c"PMPI_Type_get_envelope_c"), lookup(c"PMPI_Type_get_contents_c"));
        if envelope.is_null() || contents.is_null() {
            return LargeCounts::default();
        }
        // SAFETY: MPI 4.1 §5.1.13 gives the functions of these names these types.
        unsafe {
            LargeCounts {
                envelope: Some(std::mem::transmute::<*mut c_void, EnvelopeFn>(envelope)),
                contents: Some(std::mem::transmute::<*mut c_void, ContentsFn>(contents)),
            }
        }
    })
}

static MPI: OnceLock<Result<Mpi, &'static str>> = OnceLock::new();

/// MPI's functions, or the name of the first one that the loaded MPI lacks.
pub(crate) fn mpi() -> Result<&'static Mpi, &'static str> {
    MPI.get_or_init(Mpi::load).as_ref().map_err(|name| *name)
}
