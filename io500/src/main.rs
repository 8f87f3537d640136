//! IO500 patterns over MPI.
#![forbid(unsafe_code)]
fn main() {}
