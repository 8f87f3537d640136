//! A target: one thread that serves requests on one store.
#![forbid(unsafe_code)]
