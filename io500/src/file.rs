//! MPI-IO, which rsmpi has no safe form of: the few calls that the patterns need.
//!
//! The one module with unsafe code here. Files are closed explicitly: a file dropped open is left to MPI_Finalize.
#![allow(unsafe_code, reason = "calls of MPI's C interface")]

use std::ffi::{CStr, CString, c_int};

use mpi::ffi;
use thiserror::Error;

/// A call of MPI-IO that failed.
#[derive(Debug, Error)]
#[error("{call} {path}: {text}")]
pub(crate) struct FileError {
    call: &'static str,
    path: String,
    text: String,
}

/// Which processes open a file together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// This one alone.
    Own,
    /// All.
    World,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Created and written.
    Write,
    /// Read.
    Read,
}

/// An open file.
pub(crate) struct File {
    handle: ffi::MPI_File,
    path: String,
}

fn checked(code: c_int, call: &'static str, path: &str) -> Result<(), FileError> {
    if code == 0 {
        return Ok(());
    }
    let mut text = [0; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length = 0;
    // SAFETY: MPI asks for room for MPI_MAX_ERROR_STRING bytes and terminates what it writes.
    let text = unsafe {
        ffi::MPI_Error_string(code, text.as_mut_ptr(), &raw mut length);
        CStr::from_ptr(text.as_ptr())
    };
    Err(FileError { call, path: path.to_owned(), text: text.to_string_lossy().into_owned() })
}

fn c_path(path: &str) -> Result<CString, FileError> {
    CString::new(path).map_err(|e| FileError { call: "open", path: path.to_owned(), text: e.to_string() })
}

/// A count as MPI takes it. The transfers here are a few MiB.
fn count(buffer: &[u8], path: &str) -> Result<c_int, FileError> {
    c_int::try_from(buffer.len()).map_err(|e| FileError {
        call: "transfer",
        path: path.to_owned(),
        text: e.to_string(),
    })
}

impl File {
    /// Opens `path`; collective over the group.
    pub(crate) fn open(path: &str, group: Group, mode: Mode) -> Result<File, FileError> {
        let name = c_path(path)?;
        let amode = match mode {
            Mode::Write => ffi::MPI_MODE_CREATE | ffi::MPI_MODE_WRONLY,
            Mode::Read => ffi::MPI_MODE_RDONLY,
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: a NUL-terminated path and a place for the handle; the statics are MPI's constants.
        let code = unsafe {
            let comm = if group == Group::Own { ffi::RSMPI_COMM_SELF } else { ffi::RSMPI_COMM_WORLD };
            ffi::MPI_File_open(comm, name.as_ptr(), amode.cast_signed(), ffi::RSMPI_INFO_NULL, &raw mut handle)
        };
        checked(code, "open", path).map(|()| File { handle, path: path.to_owned() })
    }

    /// Writes the buffer at a byte offset.
    pub(crate) fn write_at(&self, offset: u64, buffer: &[u8]) -> Result<(), FileError> {
        let count = count(buffer, &self.path)?;
        // SAFETY: an open file and a buffer of `count` bytes.
        let code = unsafe {
            ffi::MPI_File_write_at(
                self.handle,
                offset.cast_signed(),
                buffer.as_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                ffi::RSMPI_STATUS_IGNORE,
            )
        };
        checked(code, "write", &self.path)
    }

    /// Fills the buffer from a byte offset. What lies beyond the end stays as it was, and is found by the comparison.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        let count = count(buffer, &self.path)?;
        // SAFETY: an open file and a writable buffer of `count` bytes.
        let code = unsafe {
            ffi::MPI_File_read_at(
                self.handle,
                offset.cast_signed(),
                buffer.as_mut_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                ffi::RSMPI_STATUS_IGNORE,
            )
        };
        checked(code, "read", &self.path)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        // SAFETY: an open file.
        checked(unsafe { ffi::MPI_File_sync(self.handle) }, "sync", &self.path)
    }

    /// Closes; collective over the group that opened.
    pub(crate) fn close(mut self) -> Result<(), FileError> {
        // SAFETY: an open file, closed once.
        checked(unsafe { ffi::MPI_File_close(&raw mut self.handle) }, "close", &self.path)
    }

    /// Unlinks `path`.
    pub(crate) fn delete(path: &str) -> Result<(), FileError> {
        let name = c_path(path)?;
        // SAFETY: a NUL-terminated path.
        checked(unsafe { ffi::MPI_File_delete(name.as_ptr(), ffi::RSMPI_INFO_NULL) }, "delete", path)
    }
}
