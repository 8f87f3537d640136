//! What a site and its batch system decide: the site file, and the allocation that a job runs in.
//!
//! Owns their forms and checks. Must never start anything and never read the environment by itself: callers pass it in.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod launch;
pub mod site;
pub mod step;
pub mod wish;

pub use allocation::{Allocation, AllocationError};
pub use launch::Launch;
pub use site::{Site, SiteError};
