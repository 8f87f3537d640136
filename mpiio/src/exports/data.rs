//! Reading and writing: blocking, nonblocking and split, explicit offset and individual pointer, int and large counts.
#![allow(non_snake_case, reason = "MPI's own names")]

use std::ffi::{c_int, c_void};

use super::on_file;
use crate::abi::*;
use crate::transfer::Direction::{Read, Write};
use crate::transfer::split::{self, SplitPlace};
use crate::transfer::{self, Buffer, Place};

pub(super) fn buffer(address: *mut c_void, count: i64, datatype: MPI_Datatype) -> Buffer {
    Buffer { address, count, datatype }
}

on_file! {
    MPI_File_read_at PMPI_File_read_at (file; offset: MPI_Offset, buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Read, Place::At(offset), buffer(buf, count.into(), datatype), status);
    MPI_File_iread_at PMPI_File_iread_at (file; offset: MPI_Offset, buf: *mut c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::At(offset), buffer(buf, count.into(), datatype), request);
    MPI_File_read_at_all PMPI_File_read_at_all (file; offset: MPI_Offset, buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Read, Place::At(offset), buffer(buf, count.into(), datatype), status);
    MPI_File_iread_at_all PMPI_File_iread_at_all (file; offset: MPI_Offset, buf: *mut c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::At(offset), buffer(buf, count.into(), datatype), request);
    MPI_File_read_at_all_begin PMPI_File_read_at_all_begin (file; offset: MPI_Offset, buf: *mut c_void, count: c_int, datatype: MPI_Datatype) => split::begin(file, Read, Place::At(offset), buffer(buf, count.into(), datatype));
    MPI_File_read_at_all_end PMPI_File_read_at_all_end (file; buf: *mut c_void, status: *mut MPI_Status) => { let _ = buf; split::end(file, Read, SplitPlace::At, status) };
    MPI_File_read PMPI_File_read (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Read, Place::Pointer, buffer(buf, count.into(), datatype), status);
    MPI_File_iread PMPI_File_iread (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::Pointer, buffer(buf, count.into(), datatype), request);
    MPI_File_read_all PMPI_File_read_all (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Read, Place::Pointer, buffer(buf, count.into(), datatype), status);
    MPI_File_iread_all PMPI_File_iread_all (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::Pointer, buffer(buf, count.into(), datatype), request);
    MPI_File_read_all_begin PMPI_File_read_all_begin (file; buf: *mut c_void, count: c_int, datatype: MPI_Datatype) => split::begin(file, Read, Place::Pointer, buffer(buf, count.into(), datatype));
    MPI_File_read_all_end PMPI_File_read_all_end (file; buf: *mut c_void, status: *mut MPI_Status) => { let _ = buf; split::end(file, Read, SplitPlace::Pointer, status) };
    MPI_File_write_at PMPI_File_write_at (file; offset: MPI_Offset, buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Write, Place::At(offset), buffer(buf.cast_mut(), count.into(), datatype), status);
    MPI_File_iwrite_at PMPI_File_iwrite_at (file; offset: MPI_Offset, buf: *const c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::At(offset), buffer(buf.cast_mut(), count.into(), datatype), request);
    MPI_File_write_at_all PMPI_File_write_at_all (file; offset: MPI_Offset, buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Write, Place::At(offset), buffer(buf.cast_mut(), count.into(), datatype), status);
    MPI_File_iwrite_at_all PMPI_File_iwrite_at_all (file; offset: MPI_Offset, buf: *const c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::At(offset), buffer(buf.cast_mut(), count.into(), datatype), request);
    MPI_File_write_at_all_begin PMPI_File_write_at_all_begin (file; offset: MPI_Offset, buf: *const c_void, count: c_int, datatype: MPI_Datatype) => split::begin(file, Write, Place::At(offset), buffer(buf.cast_mut(), count.into(), datatype));
    MPI_File_write_at_all_end PMPI_File_write_at_all_end (file; buf: *const c_void, status: *mut MPI_Status) => { let _ = buf; split::end(file, Write, SplitPlace::At, status) };
    MPI_File_write PMPI_File_write (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Write, Place::Pointer, buffer(buf.cast_mut(), count.into(), datatype), status);
    MPI_File_iwrite PMPI_File_iwrite (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::Pointer, buffer(buf.cast_mut(), count.into(), datatype), request);
    MPI_File_write_all PMPI_File_write_all (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Write, Place::Pointer, buffer(buf.cast_mut(), count.into(), datatype), status);
    MPI_File_iwrite_all PMPI_File_iwrite_all (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::Pointer, buffer(buf.cast_mut(), count.into(), datatype), request);
    MPI_File_write_all_begin PMPI_File_write_all_begin (file; buf: *const c_void, count: c_int, datatype: MPI_Datatype) => split::begin(file, Write, Place::Pointer, buffer(buf.cast_mut(), count.into(), datatype));
    MPI_File_write_all_end PMPI_File_write_all_end (file; buf: *const c_void, status: *mut MPI_Status) => { let _ = buf; split::end(file, Write, SplitPlace::Pointer, status) };
    MPI_File_read_at_c PMPI_File_read_at_c (file; offset: MPI_Offset, buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Read, Place::At(offset), buffer(buf, count, datatype), status);
    MPI_File_iread_at_c PMPI_File_iread_at_c (file; offset: MPI_Offset, buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::At(offset), buffer(buf, count, datatype), request);
    MPI_File_read_at_all_c PMPI_File_read_at_all_c (file; offset: MPI_Offset, buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Read, Place::At(offset), buffer(buf, count, datatype), status);
    MPI_File_iread_at_all_c PMPI_File_iread_at_all_c (file; offset: MPI_Offset, buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::At(offset), buffer(buf, count, datatype), request);
    MPI_File_read_at_all_begin_c PMPI_File_read_at_all_begin_c (file; offset: MPI_Offset, buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype) => split::begin(file, Read, Place::At(offset), buffer(buf, count, datatype));
    MPI_File_read_c PMPI_File_read_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Read, Place::Pointer, buffer(buf, count, datatype), status);
    MPI_File_iread_c PMPI_File_iread_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::Pointer, buffer(buf, count, datatype), request);
    MPI_File_read_all_c PMPI_File_read_all_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Read, Place::Pointer, buffer(buf, count, datatype), status);
    MPI_File_iread_all_c PMPI_File_iread_all_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Read, Place::Pointer, buffer(buf, count, datatype), request);
    MPI_File_read_all_begin_c PMPI_File_read_all_begin_c (file; buf: *mut c_void, count: MPI_Count, datatype: MPI_Datatype) => split::begin(file, Read, Place::Pointer, buffer(buf, count, datatype));
    MPI_File_write_at_c PMPI_File_write_at_c (file; offset: MPI_Offset, buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Write, Place::At(offset), buffer(buf.cast_mut(), count, datatype), status);
    MPI_File_iwrite_at_c PMPI_File_iwrite_at_c (file; offset: MPI_Offset, buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::At(offset), buffer(buf.cast_mut(), count, datatype), request);
    MPI_File_write_at_all_c PMPI_File_write_at_all_c (file; offset: MPI_Offset, buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Write, Place::At(offset), buffer(buf.cast_mut(), count, datatype), status);
    MPI_File_iwrite_at_all_c PMPI_File_iwrite_at_all_c (file; offset: MPI_Offset, buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::At(offset), buffer(buf.cast_mut(), count, datatype), request);
    MPI_File_write_at_all_begin_c PMPI_File_write_at_all_begin_c (file; offset: MPI_Offset, buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype) => split::begin(file, Write, Place::At(offset), buffer(buf.cast_mut(), count, datatype));
    MPI_File_write_c PMPI_File_write_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::blocking(file, Write, Place::Pointer, buffer(buf.cast_mut(), count, datatype), status);
    MPI_File_iwrite_c PMPI_File_iwrite_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::Pointer, buffer(buf.cast_mut(), count, datatype), request);
    MPI_File_write_all_c PMPI_File_write_all_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, status: *mut MPI_Status) => transfer::collective(file, Write, Place::Pointer, buffer(buf.cast_mut(), count, datatype), status);
    MPI_File_iwrite_all_c PMPI_File_iwrite_all_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype, request: *mut MPI_Request) => transfer::nonblocking(file, Write, Place::Pointer, buffer(buf.cast_mut(), count, datatype), request);
    MPI_File_write_all_begin_c PMPI_File_write_all_begin_c (file; buf: *const c_void, count: MPI_Count, datatype: MPI_Datatype) => split::begin(file, Write, Place::Pointer, buffer(buf.cast_mut(), count, datatype));
}
