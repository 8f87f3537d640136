//! Collective epochs over an MPI communicator for Rust programs that use rsmpi (the `mpi` crate), and communicators that follow a
//! container's steps: what `talea_mpi.h` is for C.
//!
//! The functions are found in the MPI-IO driver, which `talea run` preloads; there is nothing to link with. Must never decide
//! anything on one rank alone: each function marked collective is called by all ranks, and returns the same class on all.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;

use mpi::ffi;
use mpi::topology::Communicator;
use thiserror::Error;

mod follow;

pub use follow::{Followed, Follower};

/// What an MPI function or the driver refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct MpiError {
    /// MPI's error code.
    pub code: i32,
    /// MPI's text, which names the remedy.
    pub text: String,
}

type Result<T> = std::result::Result<T, MpiError>;

fn checked(code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let mut text = [0 as c_char; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length = 0;
    // SAFETY: a buffer of the size that MPI asks for; MPI ends the text with a NUL inside it.
    let told = unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr(), &raw mut length) };
    // SAFETY: as above; the last byte stays zero.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
    Err(MpiError { code, text: if told == 0 { text } else { format!("MPI error {code}") } })
}

/// A function of the driver by its name, or what it means that there is none.
fn driver(name: &CStr) -> Result<*mut c_void> {
    // SAFETY: a NUL-terminated name, looked for in the global scope.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if found.is_null() {
        let text = "Talea's MPI-IO driver is not loaded: start the program with `talea run`".to_owned();
        return Err(MpiError { code: ffi::MPI_ERR_UNSUPPORTED_OPERATION.cast_signed(), text });
    }
    Ok(found)
}

/// Calls a function of the driver; its types are those of `talea_mpi.h`.
macro_rules! call {
    ($name:literal ($($kind:ty),*), $($argument:expr),*) => {{
        let address = driver($name)?;
        // SAFETY: `talea_mpi.h` gives the function of this name this type.
        let function = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($kind),*) -> c_int>(address) };
        // SAFETY: each place that is passed is valid for the call.
        checked(unsafe { function($($argument),*) })
    }};
}

/// An open row of epochs over a communicator: each commit begins the next one. Must be ended by [`end`](Self::end), which is
/// collective; one that is dropped stays open, and what it holds dies with the job.
pub struct Epoch {
    handle: *mut c_void,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", self.handle.addr())
    }
}

impl Epoch {
    /// Begins an epoch in a container. Collective over `comm`.
    pub fn begin(comm: &impl Communicator, container: &str) -> Result<Epoch> {
        let name = std::ffi::CString::new(container).map_err(|_| MpiError {
            code: ffi::MPI_ERR_ARG.cast_signed(),
            text: "a container's name has no NUL byte".to_owned(),
        })?;
        let mut handle = std::ptr::null_mut();
        call!(
            c"talea_mpi_epoch_begin"(ffi::MPI_Comm, *const c_char, *mut *mut c_void),
            comm.as_raw(),
            name.as_ptr(),
            &raw mut handle
        )?;
        Ok(Epoch { handle })
    }

    /// Takes an open file of the same container into the epoch: what it holds so far commits now, and from here on its sync and
    /// close commit nothing. Collective.
    ///
    /// # Safety
    /// `file` is an open file of this process.
    pub unsafe fn file(&self, file: ffi::MPI_File) -> Result<()> {
        call!(c"talea_mpi_epoch_file"(*mut c_void, ffi::MPI_File), self.handle, file)
    }

    /// The open epoch in the form that `talea_client`'s containers join, to write objects in it. Local; after each commit there is
    /// another one.
    pub fn blob(&self) -> Result<Vec<u8>> {
        let mut bytes = 0_usize;
        let nowhere = std::ptr::null_mut();
        call!(c"talea_mpi_epoch_blob"(*mut c_void, *mut c_void, *mut usize), self.handle, nowhere, &raw mut bytes)?;
        let mut blob = vec![0_u8; bytes];
        let place = blob.as_mut_ptr().cast();
        call!(c"talea_mpi_epoch_blob"(*mut c_void, *mut c_void, *mut usize), self.handle, place, &raw mut bytes)?;
        blob.truncate(bytes);
        Ok(blob)
    }

    /// Commits all that the files wrote, and this rank's objects, whose summary `objects` is; returns the step. If a write failed on
    /// any rank it fails on all, and nothing becomes visible. Collective.
    pub fn commit(&self, objects: Option<&[u8]>) -> Result<u64> {
        let (data, bytes) = objects.map_or((std::ptr::null(), 0), |objects| (objects.as_ptr().cast(), objects.len()));
        let mut step = 0_u64;
        call!(
            c"talea_mpi_epoch_commit"(*mut c_void, *const c_void, usize, *mut u64),
            self.handle,
            data,
            bytes,
            &raw mut step
        )?;
        Ok(step)
    }

    /// Ends it: what is not committed is gone, and the files go on each with an epoch of its own. Collective.
    pub fn end(mut self) -> Result<()> {
        call!(c"talea_mpi_epoch_end"(*mut *mut c_void), &raw mut self.handle)
    }
}
