//! The shared pointer: in no order, and in the order of the ranks.
#![allow(non_snake_case, reason = "MPI's own names")]

use std::ffi::{c_int, c_void};

use super::data::buffer;
use super::on_file;
use crate::abi::*;
use crate::pointer;
use crate::position::answer;
use crate::transfer::Direction::{Read, Write};
use crate::transfer::split::{self, SplitPlace};
use crate::transfer::{self, Place};

on_file! {
    MPI_File_read_shared PMPI_File_read_shared (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Read, Place::Shared, buffer(buf, count.into(), datatype), status);
    MPI_File_iread_shared PMPI_File_iread_shared (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::Shared, buffer(buf, count.into(), datatype), request);
    MPI_File_read_ordered PMPI_File_read_ordered (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Read, Place::Ordered, buffer(buf, count.into(), datatype), status);
    MPI_File_read_ordered_begin PMPI_File_read_ordered_begin (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype) => split::begin(file, Read, Place::Ordered, buffer(buf, count.into(), datatype));
    MPI_File_read_ordered_end PMPI_File_read_ordered_end (file; buf: *mut c_void, status: *mut MPI_Status) => { let _ = buf; split::end(file, Read, SplitPlace::Ordered, status) };
    MPI_File_write_shared PMPI_File_write_shared (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Write, Place::Shared, buffer(buf.cast_mut(), count.into(), datatype), status);
    MPI_File_iwrite_shared PMPI_File_iwrite_shared (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::Shared, buffer(buf.cast_mut(), count.into(), datatype), request);
    MPI_File_write_ordered PMPI_File_write_ordered (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Write, Place::Ordered, buffer(buf.cast_mut(), count.into(), datatype), status);
    MPI_File_write_ordered_begin PMPI_File_write_ordered_begin (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype) => split::begin(file, Write, Place::Ordered, buffer(buf.cast_mut(), count.into(), datatype));
    MPI_File_write_ordered_end PMPI_File_write_ordered_end (file; buf: *const c_void, status: *mut MPI_Status) => { let _ = buf; split::end(file, Write, SplitPlace::Ordered, status) };
    MPI_File_read_shared_c PMPI_File_read_shared_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Read, Place::Shared, buffer(buf, count, datatype), status);
    MPI_File_iread_shared_c PMPI_File_iread_shared_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::Shared, buffer(buf, count, datatype), request);
    MPI_File_read_ordered_c PMPI_File_read_ordered_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Read, Place::Ordered, buffer(buf, count, datatype), status);
    MPI_File_read_ordered_begin_c PMPI_File_read_ordered_begin_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype) => split::begin(file, Read, Place::Ordered, buffer(buf, count, datatype));
    MPI_File_write_shared_c PMPI_File_write_shared_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Write, Place::Shared, buffer(buf.cast_mut(), count, datatype), status);
    MPI_File_iwrite_shared_c PMPI_File_iwrite_shared_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::Shared, buffer(buf.cast_mut(), count, datatype), request);
    MPI_File_write_ordered_c PMPI_File_write_ordered_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Write, Place::Ordered, buffer(buf.cast_mut(), count, datatype), status);
    MPI_File_write_ordered_begin_c PMPI_File_write_ordered_begin_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype) => split::begin(file, Write, Place::Ordered, buffer(buf.cast_mut(), count, datatype));
    MPI_File_seek_shared PMPI_File_seek_shared (file; offset: MPI_Offset, whence: c_int) => pointer::seek(file, offset, whence);
    MPI_File_get_position_shared PMPI_File_get_position_shared (file; offset: *mut MPI_Offset) => answer(offset, pointer::position(file)?);
}
