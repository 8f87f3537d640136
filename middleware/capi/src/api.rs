//! The C API of `talea.h`.
//!
//! Functions return `TALEA_OK` or another `talea_code_t`; the text for people is `talea_error()`. All are thread-safe; none may
//! be called in a forked child, which gets `TALEA_UNSUPPORTED`. Handles are not pointers: a closed or made-up one is told.
//!
//! cbindgen makes the header from here; a test compares it with the committed one.
#![allow(non_camel_case_types)] // these are the C program's names

pub mod container;
pub mod diff;
pub mod epoch;
pub mod follow;
pub mod object;
pub mod pieces;
pub mod queue;
pub mod snapshot;
pub mod start;
pub mod system;
pub mod transaction;
pub mod types;
