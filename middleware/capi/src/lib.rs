//! libtalea: the C API (`talea.h`) and the one client of a process, which shims reach through a table of functions.
//!
//! Owns the boundary: each entry point catches panics, takes no pointer or handle on trust that it can check, and leaves its
//! error's text with the calling thread. Must never link or call MPI, start a thread, or act before the first call.

pub mod api;
mod boundary;
mod handles;
mod meter;
mod process;
mod table;

pub use table::talea_table;
