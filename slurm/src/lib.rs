//! What a site, its batch system and its programs decide: the site file, the allocation that a job runs in, the MPI that a program uses.
//!
//! Owns their forms and checks. Must never start anything and never read the environment by itself: callers pass it in.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod family;
pub mod launch;
pub mod site;
pub mod step;
pub mod wish;

pub use allocation::{Allocation, AllocationError};
pub use family::Family;
pub use launch::Launch;
pub use site::{Site, SiteError};
