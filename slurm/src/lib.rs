//! What a site and its batch system decide: the site file, and the allocation that a job runs in.
//!
//! Owns their forms and checks. Must never start anything and never read the environment by itself: callers pass it in.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod site;

pub use allocation::{Allocation, AllocationError};
pub use site::{Site, SiteError};
