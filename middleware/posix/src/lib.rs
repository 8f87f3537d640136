//! The namespace that files need, over objects of a container: shared by MPI-IO, FUSE and libdfs (docs/design.md §7).
//!
//! Owns paths, inodes, directories, and open files with their epochs. Must never know MPI or FUSE, and keeps nothing in a cache
//! that correctness rests on: names and data are at the targets when a call returns.
#![forbid(unsafe_code)]

pub mod backing;
pub mod fault;
pub mod file;
pub mod fuzz;
pub mod inode;
pub mod namespace;
pub mod path;

pub use backing::{Backing, System};
pub use fault::Fault;
pub use file::{CounterChange, Files, Handle, Hints, OpenFlags, SharedEpoch};
pub use inode::{Inode, Kind};
pub use namespace::{Namespace, Stat};
pub use path::{PathView, TaleaPath};
