//! Distribution and attribute keys.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limit::MAX_KEY_BYTES;

/// A dkey or an akey: 1 to [`MAX_KEY_BYTES`] bytes, ordered bytewise.
///
/// Integer keys are eight bytes big-endian ([`Key::from_u64`]), so that byte order is numeric order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(Box<[u8]>);

/// Bytes that are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A key needs at least one byte.
    #[error("a key must not be empty")]
    Empty,
    /// Longer than the limit.
    #[error("a key of {0} bytes is over the limit of {MAX_KEY_BYTES} bytes: use a shorter key or a hash of it")]
    TooLong(usize),
}

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        check(bytes)?;
        Ok(Key(bytes.into()))
    }

    /// An integer key.
    pub fn from_u64(number: u64) -> Self {
        Key(number.to_be_bytes().into())
    }

    /// The number of an integer key (any key of eight bytes).
    pub fn as_u64(&self) -> Option<u64> {
        self.0[..].try_into().ok().map(u64::from_be_bytes)
    }
}

/// Checks that `bytes` can be a key.
pub fn check(bytes: &[u8]) -> Result<(), KeyError> {
    match bytes.len() {
        0 => Err(KeyError::Empty),
        n if n > MAX_KEY_BYTES => Err(KeyError::TooLong(n)),
        _ => Ok(()),
    }
}

impl Deref for Key {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}
