//! The MPI-IO driver: interposes `MPI_File_*` (and `PMPI_File_*`) for paths below `/talea/`.
//!
//! Preloaded into an MPI program; compiled once for each family of MPI, whose ABI is in `family`. Owns what MPI-IO says above a file's bytes: handles, views, datatypes,
//! the agreement of a communicator's ranks on open, sync and close, and MPI's errors. Must never: link libmpi or libfabric, do
//! anything before the first `/talea/` open, hold a lock across an MPI call, call MPI on a thread of its own, let a panic or a storage error
//! out in any other form than an MPI error code, or leave one rank alone in a collective call. See docs/design.md §7.

mod abi;
mod agree;
mod background;
mod buffering;
mod commit;
mod datatype;
mod errhandler;
mod error;
mod explicit;
mod exports;
#[cfg_attr(family = "mpich", path = "family/mpich.rs")]
#[cfg_attr(family = "openmpi", path = "family/openmpi.rs")]
#[cfg_attr(family = "standard", path = "family/standard.rs")]
mod family;
mod file;
mod finalize;
mod handle;
mod info;
mod kin;
mod open;
mod pointer;
mod position;
mod postponed;
mod real;
mod representation;
mod request;
mod size;
mod storage;
mod transfer;
mod view;
mod wishes;
