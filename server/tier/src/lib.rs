//! Media that hold bytes: pmem, NVMe, RAM, and the simulated medium that knows what was flushed.
#![forbid(unsafe_code)]
