//! The native client: pools, containers, objects, epochs, snapshots.
#![forbid(unsafe_code)]
