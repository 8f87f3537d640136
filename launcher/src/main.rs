//! The `talea` command.
#![forbid(unsafe_code)]
fn main() {}
