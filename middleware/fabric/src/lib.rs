//! The fabric: how two processes of a system exchange messages.
//!
//! Owns the seam ([`Endpoint`]) and its implementations: same-node rings, streams (Unix and TCP sockets), libfabric, and the
//! in-process fabric of the simulations. Must never know what a message means, and must never answer a peer that has not
//! proved itself (docs/design.md §9).

pub mod address;
pub mod endpoint;

pub use address::Address;
pub use endpoint::{Clock, Endpoint, Event, FabricError, Hello, Message, PeerId, SendError};
