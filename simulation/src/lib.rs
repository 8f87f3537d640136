//! A whole cluster in one process on virtual time, with a checker of the invariants.
#![forbid(unsafe_code)]
