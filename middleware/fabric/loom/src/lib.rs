//! The rings' memory ordering, tried in all interleavings: `middleware/fabric/src/ring` compiled over loom's atomics.
//!
//! Owns a mapping that notices unordered accesses, a bell like an eventfd in an edge-triggered epoll, and the scenarios. Must
//! never copy what it checks: layout, producer, consumer, doorbell and link are the real files. What loom cannot see: the
//! kernel's part, and stores that the hardware makes visible late without any fence in between (it explores them as reordered
//! loads, with at most so many preemptions).

#[cfg(test)]
mod ring;
#[cfg(test)]
mod scenarios;

#[cfg(test)]
pub(crate) use talea_fabric::{Message, endpoint};
