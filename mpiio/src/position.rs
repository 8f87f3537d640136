//! Views, pointers and what else a program asks of a handle without touching data.

use std::ffi::{CStr, c_char, c_int};

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::file::OpenFile;
use crate::representation::Representation;
use crate::view::View;
use crate::{datatype, pointer};

/// Writes an answer into the program's memory.
///
/// # Safety
/// `place` is null or the program's pointer to a `T`.
pub(crate) unsafe fn answer<T>(place: *mut T, value: T) -> Result<(), Failure> {
    if place.is_null() {
        return Err(Failure::refused(MPI_ERR_ARG, "the pointer for the answer is null"));
    }
    // SAFETY: not null, and the caller vouches for it.
    unsafe { place.write(value) };
    Ok(())
}

/// `MPI_File_set_view`.
///
/// # Safety
/// `representation` is null or NUL-terminated.
pub(crate) unsafe fn set_view(
    file: &OpenFile,
    displacement: i64,
    etype: MPI_Datatype,
    filetype: MPI_Datatype,
    representation: *const c_char,
) -> Result<(), Failure> {
    if representation.is_null() {
        return Err(Failure::refused(MPI_ERR_ARG, "the data representation is null: use \"native\""));
    }
    // SAFETY: not null; MPI wants a NUL-terminated string.
    let representation = Representation::named(unsafe { CStr::from_ptr(representation) })?;
    let displacement = displacement_of(file, displacement)?;
    file.replace_view(View::new(displacement, etype, filetype, representation, file.writable())?);
    Ok(())
}

/// Where a view starts: in MPI_MODE_SEQUENTIAL where the shared pointer is, and never else there (MPI 4.1 §14.3).
fn displacement_of(file: &OpenFile, displacement: i64) -> Result<i64, Failure> {
    let sequential = file.amode & MPI_MODE_SEQUENTIAL != 0;
    if sequential != (displacement == i64::from(MPI_DISPLACEMENT_CURRENT)) {
        let text =
            "MPI_DISPLACEMENT_CURRENT is for files opened with MPI_MODE_SEQUENTIAL, and no other displacement is";
        return Err(Failure::refused(MPI_ERR_ARG, text));
    }
    if sequential { pointer::place_in_bytes(file) } else { Ok(displacement) }
}

/// `MPI_File_get_view`.
///
/// # Safety
/// The pointers are the program's; `representation` has room for MPI_MAX_DATAREP_STRING bytes.
pub(crate) unsafe fn get_view(
    file: &OpenFile,
    displacement: *mut MPI_Offset,
    etype: *mut MPI_Datatype,
    filetype: *mut MPI_Datatype,
    representation: *mut c_char,
) -> Result<(), Failure> {
    let view = file.view();
    if representation.is_null() {
        return Err(Failure::refused(MPI_ERR_ARG, "the pointer for the answer is null"));
    }
    let name = view.representation.name().to_bytes_with_nul();
    // SAFETY: passed on to the caller; the names are shorter than MPI_MAX_DATAREP_STRING.
    unsafe {
        answer(displacement, view.displacement)?;
        answer(etype, view.etype.given()?)?;
        answer(filetype, view.filetype.given()?)?;
        std::ptr::copy_nonoverlapping(name.as_ptr().cast(), representation, name.len());
    }
    Ok(())
}

/// `MPI_File_seek`.
pub(crate) fn seek(file: &OpenFile, offset: i64, whence: c_int) -> Result<(), Failure> {
    file.require_random()?;
    let base = match whence {
        MPI_SEEK_SET => 0,
        MPI_SEEK_CUR => file.state().position,
        MPI_SEEK_END => {
            let size = file.size()?.cast_unsigned();
            file.view().etypes_in(size)
        }
        other => {
            return Err(Failure::refused(MPI_ERR_ARG, format!("{other} is no whence: use MPI_SEEK_SET, _CUR or _END")));
        }
    };
    let position = base.checked_add(offset).filter(|position| *position >= 0).ok_or_else(|| {
        Failure::refused(MPI_ERR_ARG, format!("seeking by {offset} leads before the start of the view or beyond 2^63"))
    })?;
    file.state().position = position;
    Ok(())
}

/// `MPI_File_get_byte_offset`.
pub(crate) fn byte_offset(file: &OpenFile, offset: i64) -> Result<i64, Failure> {
    file.view().byte_offset(offset)
}

/// `MPI_File_get_group`.
pub(crate) fn group(file: &OpenFile) -> Result<MPI_Group, Failure> {
    let mut group = 0;
    // SAFETY: the file's own communicator, and a place for the group.
    checked("MPI_Comm_group", unsafe { (mpi()?.MPI_Comm_group)(file.group.comm, &raw mut group) })?;
    Ok(group)
}

/// `MPI_File_get_type_extent`: what it is in the view's representation.
pub(crate) fn type_extent(file: &OpenFile, handle: MPI_Datatype) -> Result<i64, Failure> {
    datatype::flatten_in(handle, &file.view().representation).map(|layout| layout.extent())
}
