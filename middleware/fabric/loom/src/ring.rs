//! The real sources under the real names, and what stands below them here.

#[path = "../../src/ring/consumer.rs"]
pub(crate) mod consumer;
#[allow(dead_code, reason = "what counts for statistics is not part of the model")]
#[path = "../../src/ring/doorbell.rs"]
pub(crate) mod doorbell;
#[path = "../../src/ring/layout.rs"]
#[allow(dead_code, reason = "handing rings over is not part of the model")]
pub(crate) mod layout;
#[allow(dead_code, reason = "as above")]
#[path = "../../src/ring/link.rs"]
pub(crate) mod link;
pub(crate) mod mapping;
#[path = "../../src/ring/producer.rs"]
pub(crate) mod producer;
pub(crate) mod sync;

/// As `talea_fabric::ring::Lied`: no scenario has a peer that lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lied;
