//! The table of functions that libtalea hands to its shims.
#![forbid(unsafe_code)]
