//! Messages of the data plane.
