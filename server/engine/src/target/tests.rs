//! What a target promises, each rule with a test that fails without it.

mod batch;
mod bench;
mod board;
mod bounded;
mod device;
mod fuzz;
mod held;
mod horizon;
mod independent;
mod refusals;
mod restart;
mod resync;
mod stopped;
