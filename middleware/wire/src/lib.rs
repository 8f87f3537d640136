//! The messages of both planes, the entries of the pool's log, and their codec.
//!
//! Owns what travels between processes and what the log stores; docs/formats.md has the bytes. Must never act on a message.
//! Every size that a sender claims is checked before anything is allocated. All numbers are little-endian.
#![forbid(unsafe_code)]

pub mod codec;
pub mod control;
pub mod data;
pub mod figures;
pub mod fuzz;
pub mod group;
pub mod log;
pub mod refusal;

pub use codec::WireError;
pub use refusal::{Refusal, RefusalCode};

/// Version of both planes' messages; the handshake refuses another one.
pub const PROTOCOL_VERSION: u16 = 1;
