//! Bindings of libfabric, loaded lazily and privately.
#![forbid(unsafe_code)]
