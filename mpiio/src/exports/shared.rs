//! Shared and ordered pointers: refused on a Talea file.
#![allow(non_snake_case, reason = "MPI's own names")]

use std::ffi::{c_int, c_void};

use super::on_file;
use crate::abi::*;
use crate::transfer::shared_pointer;

on_file! {
    MPI_File_read_shared PMPI_File_read_shared (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_iread_shared PMPI_File_iread_shared (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => { let _ = (buf, count, datatype, request,); shared_pointer() };
    MPI_File_read_ordered PMPI_File_read_ordered (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_read_ordered_begin PMPI_File_read_ordered_begin (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype) => { let _ = (buf, count, datatype,); shared_pointer() };
    MPI_File_read_ordered_end PMPI_File_read_ordered_end (file; buf: *mut c_void, status: *mut MPI_Status) => { let _ = (buf, status,); shared_pointer() };
    MPI_File_write_shared PMPI_File_write_shared (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_iwrite_shared PMPI_File_iwrite_shared (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => { let _ = (buf, count, datatype, request,); shared_pointer() };
    MPI_File_write_ordered PMPI_File_write_ordered (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_write_ordered_begin PMPI_File_write_ordered_begin (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype) => { let _ = (buf, count, datatype,); shared_pointer() };
    MPI_File_write_ordered_end PMPI_File_write_ordered_end (file; buf: *const c_void, status: *mut MPI_Status) => { let _ = (buf, status,); shared_pointer() };
    MPI_File_read_shared_c PMPI_File_read_shared_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_iread_shared_c PMPI_File_iread_shared_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => { let _ = (buf, count, datatype, request,); shared_pointer() };
    MPI_File_read_ordered_c PMPI_File_read_ordered_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_read_ordered_begin_c PMPI_File_read_ordered_begin_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype) => { let _ = (buf, count, datatype,); shared_pointer() };
    MPI_File_write_shared_c PMPI_File_write_shared_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_iwrite_shared_c PMPI_File_iwrite_shared_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => { let _ = (buf, count, datatype, request,); shared_pointer() };
    MPI_File_write_ordered_c PMPI_File_write_ordered_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => { let _ = (buf, count, datatype, status,); shared_pointer() };
    MPI_File_write_ordered_begin_c PMPI_File_write_ordered_begin_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype) => { let _ = (buf, count, datatype,); shared_pointer() };
    MPI_File_seek_shared PMPI_File_seek_shared (file; offset: MPI_Offset, whence: c_int) => { let _ = (offset, whence,); shared_pointer() };
    MPI_File_get_position_shared PMPI_File_get_position_shared (file; offset: *mut MPI_Offset) => { let _ = (offset,); shared_pointer() };
}
