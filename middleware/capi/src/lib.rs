//! libtalea: the C API and the one client of a process.
#![forbid(unsafe_code)]
