//! The messages of both planes and their codec.
#![forbid(unsafe_code)]
