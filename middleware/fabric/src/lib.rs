//! The fabric: how two processes of a system exchange messages.
//!
//! Owns the seam ([`Endpoint`]) and its implementations: same-node rings, streams (Unix and TCP sockets), libfabric, and the
//! in-process fabric of the simulations. Must never know what a message means, and must never answer a peer that has not
//! proved itself (docs/design.md §9).

mod accept;
pub mod address;
pub mod assemble;
pub mod clock;
mod descriptor;
mod dial;
pub mod endpoint;
pub mod fork;
pub mod frame;
pub mod fuzz;
pub mod handshake;
pub mod libfabric;
pub mod member;
pub mod mux;
pub mod node;
mod poller;
pub mod ring;
pub mod sim;
pub mod slice;
mod socket;
pub mod stream;
pub mod together;
pub mod window;

pub use address::Address;
pub use assemble::{Listen, Policy, candidates, choose, client_endpoint, listen};
pub use clock::{RealClock, Wall};
pub use endpoint::{Begun, Clock, Endpoint, Event, FabricError, Hello, Message, PeerId, SendError, Waker};
pub use handshake::Credentials;
pub use libfabric::LibfabricEndpoint;
pub use libfabric::datagrams::DatagramEndpoint;
pub use member::{Member, Spin};
pub use mux::MuxEndpoint;
pub use node::node_id;
pub use ring::RingEndpoint;
pub use sim::{SimClock, SimEndpoint, SimNetwork};
pub use stream::StreamEndpoint;
pub use together::Together;
pub use window::{Memory, Window};
