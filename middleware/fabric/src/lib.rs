//! Endpoints: same-node rings, streams, libfabric, and the in-process fabric of simulations.
#![forbid(unsafe_code)]
