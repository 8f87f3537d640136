//! Encoding of control messages and log entries: postcard (its specification is public), bounded on both sides.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Largest control message or log entry in bytes.
pub const MAX_CONTROL_BYTES: usize = 1024 * 1024;

/// Bytes that are not the message they claim to be, or a message over its limit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Shorter than its own header or lengths say, or with bytes left over.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// Something exceeds its limit.
    #[error("{what} of {found} is over the limit of {limit}")]
    OverLimit {
        /// What.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Another version of the protocol.
    #[error("protocol version {0} where {ours} is spoken: use programs and servers of the same Talea release", ours = crate::PROTOCOL_VERSION)]
    Version(u16),
}

/// Encodes a control message or log entry.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| WireError::Malformed("cannot be encoded"))?;
    limit(&bytes)?;
    Ok(bytes)
}

/// Decodes a control message or log entry; every byte must belong to it. Postcard checks each claimed length against the
/// bytes that are there and allocates at most a few KiB ahead of them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    limit(bytes)?;
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(WireError::Malformed("bytes left over")),
        Err(_) => Err(WireError::Malformed("not a message of this kind")),
    }
}

fn limit(bytes: &[u8]) -> Result<(), WireError> {
    if bytes.len() > MAX_CONTROL_BYTES {
        return Err(WireError::OverLimit {
            what: "control message bytes",
            found: bytes.len(),
            limit: MAX_CONTROL_BYTES,
        });
    }
    Ok(())
}
