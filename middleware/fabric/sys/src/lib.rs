//! Bindings of libfabric, loaded lazily and privately.
//!
//! Owns the types of libfabric 1.17's headers ([`bindings`], generated and committed), the functions that those headers
//! define as `static inline` over tables of operations ([`ops`], written in Rust, so that neither a C compiler nor the
//! headers are needed to build), and the loading of the library ([`library`]). Must never be linked against libfabric, and
//! must never change what an MPI in the same process sees of it.
//!
//! `bindings.rs` is what bindgen makes of `headers.h` with the allowlist that stands at its head. Later versions of
//! libfabric only append fields to these structures, and we let the library allocate those that it reads.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_qualifications,
    dead_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
#[rustfmt::skip]
pub mod bindings;
pub mod environment;
pub mod library;
pub mod ops;

pub use library::{Library, LoadError, library};
