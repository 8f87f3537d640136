//! Keys in sixteen bytes: short ones in place, long ones elsewhere.

use std::fmt;

use talea_model::{KeyError, key};

/// Bytes of a key that fit in place.
const SHORT_BYTES: usize = 14;

/// A dkey or akey in the index.
#[derive(Clone)]
pub(crate) enum SmallKey {
    /// In place.
    Short { len: u8, bytes: [u8; SHORT_BYTES] },
    /// Elsewhere; behind two pointers, so that this one is thin.
    Long(Box<Box<[u8]>>),
}

const _: () = assert!(size_of::<SmallKey>() == 16);

impl SmallKey {
    /// A key of these bytes, if they can be one.
    pub(crate) fn new(from: &[u8]) -> Result<Self, KeyError> {
        key::check(from)?;
        if from.len() > SHORT_BYTES {
            return Ok(Self::Long(Box::new(from.into())));
        }
        let mut bytes = [0; SHORT_BYTES];
        bytes[..from.len()].copy_from_slice(from);
        Ok(Self::Short { len: from.len() as u8, bytes })
    }

    /// The key's bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }

    /// The first eight bytes, which order most keys; missing ones are zeros.
    pub(crate) fn prefix(key: &[u8]) -> u64 {
        match key.first_chunk() {
            Some(first) => u64::from_be_bytes(*first),
            None => u64::from_be_bytes(std::array::from_fn(|n| key.get(n).copied().unwrap_or(0))),
        }
    }
}

impl fmt::Debug for SmallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes().escape_ascii())
    }
}
