//! What carries a connection's messages: an endpoint of its own, or one that all share.

use super::sends::SENDS_MAX;

/// Where messages of one connection come in and go out.
pub(crate) trait Carrier {
    /// Posts a buffer, which must neither move, go nor be looked at before its completion or the end of the endpoint.
    fn post(&self, buffer: &mut [u8], context: u64) -> Result<(), i64>;

    /// Sends a message made of one or two buffers, which must neither move, change nor go before its completion or the end of the
    /// endpoint. False: not now.
    fn send(&self, parts: &[&[u8]], context: u64) -> Result<bool, i64>;

    /// How many sends this connection may have in flight now.
    fn sends_max(&self) -> usize {
        SENDS_MAX
    }
}
