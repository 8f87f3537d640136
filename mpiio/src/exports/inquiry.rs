//! Views, pointers, sizes, hints, consistency and error handlers of an open file.
#![allow(non_snake_case, reason = "MPI's own names")]

use std::ffi::{c_char, c_int};

use super::on_file;
use crate::abi::*;
use crate::errhandler::Handler;
use crate::error::Failure;
use crate::file::OpenFile;
use crate::position::{self, answer};
use crate::size::{self, Change};
use crate::{commit, info, pointer};

on_file! {
    MPI_File_set_size PMPI_File_set_size (file; size: MPI_Offset) => size::change(file, size, Change::Exactly);
    MPI_File_preallocate PMPI_File_preallocate (file; size: MPI_Offset) => size::change(file, size, Change::AtLeast);
    MPI_File_get_size PMPI_File_get_size (file; size: *mut MPI_Offset) => answer(size, file.size()?);
    MPI_File_get_group PMPI_File_get_group (file; group: *mut MPI_Group) => answer(group, position::group(file)?);
    MPI_File_get_amode PMPI_File_get_amode (file; amode: *mut c_int) => answer(amode, file.amode);
    MPI_File_set_info PMPI_File_set_info (file; info: MPI_Info) => info::read(info).map(drop);
    MPI_File_get_info PMPI_File_get_info (file; info_used: *mut MPI_Info) => answer(info_used, info::write(&file.hints)?);
    MPI_File_set_view PMPI_File_set_view (file; disp: MPI_Offset, etype: MPI_Datatype, filetype: MPI_Datatype, datarep: *const c_char, info: MPI_Info) => { let _ = info; position::set_view(file, disp, etype, filetype, datarep) };
    MPI_File_get_view PMPI_File_get_view (file; disp: *mut MPI_Offset, etype: *mut MPI_Datatype, filetype: *mut MPI_Datatype, datarep: *mut c_char) => position::get_view(file, disp, etype, filetype, datarep);
    MPI_File_seek PMPI_File_seek (file; offset: MPI_Offset, whence: c_int) => position::seek(file, offset, whence);
    MPI_File_get_position PMPI_File_get_position (file; offset: *mut MPI_Offset) => { file.require_random()?; answer(offset, file.state().position) };
    MPI_File_get_byte_offset PMPI_File_get_byte_offset (file; offset: MPI_Offset, disp: *mut MPI_Offset) => answer(disp, position::byte_offset(file, offset)?);
    MPI_File_get_type_extent PMPI_File_get_type_extent (file; datatype: MPI_Datatype, extent: *mut MPI_Aint) => answer(extent, position::type_extent(file, datatype)? as MPI_Aint);
    MPI_File_get_type_extent_c PMPI_File_get_type_extent_c (file; datatype: MPI_Datatype, extent: *mut MPI_Count) => answer(extent, position::type_extent(file, datatype)?);
    MPI_File_set_atomicity PMPI_File_set_atomicity (file; flag: c_int) => pointer::set_atomicity(file, flag);
    MPI_File_get_atomicity PMPI_File_get_atomicity (file; flag: *mut c_int) => answer(flag, c_int::from(file.state().atomic));
    MPI_File_sync PMPI_File_sync (file; ) => commit::sync(file);
    MPI_File_set_errhandler PMPI_File_set_errhandler (file; errhandler: MPI_Errhandler) => set_errhandler(file, errhandler);
    MPI_File_get_errhandler PMPI_File_get_errhandler (file; errhandler: *mut MPI_Errhandler) => {
        let handler = file.state().handler;
        // Lent only when there is a place for it.
        answer(errhandler, handler.handle).map(|()| { handler.lend(); })
    };
}

fn set_errhandler(file: &OpenFile, errhandler: MPI_Errhandler) -> Result<(), Failure> {
    let new = Handler::hold(errhandler);
    let old = std::mem::replace(&mut file.state().handler, new);
    old.release();
    Ok(())
}
