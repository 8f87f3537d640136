//! A whole cluster in one process on virtual time, with a checker of the invariants (docs/design.md §3).
//!
//! Engine, control and client are the real ones; fabric, media and clocks are simulated. A seed decides everything: the same
//! seed gives the same run, message by message.
#![forbid(unsafe_code)]

pub mod check;
pub mod groups;
pub mod history;
pub mod plant;
mod program;
pub mod random;
mod seam;
mod server;
mod stand;
mod time;
mod window;
pub mod world;

pub use check::{Violation, check};
pub use plant::Plant;
pub use world::{Run, Settings, run};
