//! The server process.
#![forbid(unsafe_code)]
fn main() {}
