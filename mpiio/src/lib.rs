//! The MPI-IO driver: interposes `MPI_File_*` (and `PMPI_File_*`) for paths below `/talea/`.
//!
//! Preloaded into a program of the MPICH family (MPICH ABI: `libmpi.so.12`). Owns what MPI-IO says above a file's bytes: handles, views, datatypes,
//! the agreement of a communicator's ranks on open, sync and close, and MPI's errors. Must never: link libmpi or libfabric, do
//! anything before the first `/talea/` open, hold a lock across an MPI call, start a thread, let a panic or a storage error
//! out in any other form than an MPI error code, or leave one rank alone in a collective call. See docs/design.md §7.

mod abi;
mod agree;
mod commit;
mod datatype;
mod errhandler;
mod error;
mod exports;
mod file;
mod finalize;
mod handle;
mod info;
mod open;
mod position;
mod real;
mod request;
mod size;
mod storage;
mod transfer;
mod view;
