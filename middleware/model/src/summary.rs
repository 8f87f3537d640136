//! What a commit carries: which targets were touched, and what the group's reduction found (docs/design.md §4 rule 5).
//!
//! The encoding of a [`Summary`] has a fixed size for a pool map, and merging encoded summaries is associative and
//! commutative: an MPI reduction can do it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{MapVersion, ServerId, Stamp, TargetId};

/// A set of targets as a bitmap, one bit a target of the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    bits: Vec<u8>,
}

impl Touched {
    /// Adds a target.
    pub fn insert(&mut self, target: TargetId) {
        let byte = target.0 as usize / 8;
        if self.bits.len() <= byte {
            self.bits.resize(byte + 1, 0);
        }
        self.bits[byte] |= 1 << (target.0 % 8);
    }

    /// Whether a target is in the set.
    pub fn contains(&self, target: TargetId) -> bool {
        self.bits.get(target.0 as usize / 8).is_some_and(|byte| byte & (1 << (target.0 % 8)) != 0)
    }

    /// The targets, ascending.
    pub fn iter(&self) -> impl Iterator<Item = TargetId> {
        (0..self.bits.len() as u32 * 8).map(TargetId).filter(|target| self.contains(*target))
    }

    /// True if no target was touched.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|byte| *byte == 0)
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Touched) {
        if self.bits.len() < other.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        self.bits.iter_mut().zip(&other.bits).for_each(|(a, b)| *a |= b);
    }
}

/// Why an update failed. Of several causes the last in this order counts: it is what a user can do something about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// Not known, or told where it happened.
    #[default]
    Other,
    /// A target was full.
    Full,
    /// A server was lost; which, if that is known.
    Lost(Option<ServerId>),
}

impl Cause {
    /// In 24 bits, larger for what counts more.
    fn code(self) -> u32 {
        match self {
            Self::Other => 0,
            Self::Full => 1,
            Self::Lost(None) => 2,
            Self::Lost(Some(server)) => server.0.saturating_add(3).min(0xff_ffff),
        }
    }

    fn of_code(code: u32) -> Self {
        match code {
            0 => Self::Other,
            1 => Self::Full,
            2 | 0xff_ffff.. => Self::Lost(None),
            server => Self::Lost(Some(ServerId(server - 3))),
        }
    }
}

/// One process's part of an epoch, or several processes' parts merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Largest stamp that the processes saw.
    pub hlc: Stamp,
    /// Lowest map version under which an update was acknowledged.
    pub map_version: MapVersion,
    /// Whether any update failed.
    pub failed: bool,
    /// Why, if one did.
    pub cause: Cause,
    /// Truncations of the file's size record, then the largest end written (docs/design.md §7); zeros if unused.
    pub size: (u64, u64),
    /// Targets that hold updates.
    pub touched: Touched,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            hlc: Stamp::ZERO,
            map_version: MapVersion(u32::MAX),
            failed: false,
            cause: Cause::Other,
            size: (0, 0),
            touched: Touched::default(),
        }
    }
}

/// Bytes that are no summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "an epoch summary of {found} bytes where {expected} or more were expected: were all summaries made by the same epoch?"
)]
pub struct BadSummary {
    /// Bytes found.
    pub found: usize,
    /// Bytes expected at least.
    pub expected: usize,
}

const FIXED_BYTES: usize = 8 + 4 + 4 + 16;

impl Summary {
    /// Size of the encoding for a pool of `targets`, in bytes.
    pub const fn encoded_bytes(targets: usize) -> usize {
        FIXED_BYTES + targets.div_ceil(8)
    }

    /// Merges another process's part.
    pub fn merge(&mut self, other: &Summary) {
        self.hlc = self.hlc.max(other.hlc);
        self.map_version = self.map_version.min(other.map_version);
        self.failed |= other.failed;
        self.cause = self.cause.max(other.cause);
        self.size = self.size.max(other.size);
        self.touched.merge(&other.touched);
    }

    /// Encodes into `out`, whose length says how many targets the pool has; little-endian, touched targets last.
    pub fn encode(&self, out: &mut [u8]) -> Result<(), BadSummary> {
        let expected = FIXED_BYTES + self.touched.bits.len();
        if out.len() < expected {
            return Err(BadSummary { found: out.len(), expected });
        }
        out.fill(0);
        out[0..8].copy_from_slice(&self.hlc.0.to_le_bytes());
        out[8..12].copy_from_slice(&self.map_version.0.to_le_bytes());
        out[12..16].copy_from_slice(&(self.cause.code() << 8 | u32::from(self.failed)).to_le_bytes());
        out[16..24].copy_from_slice(&self.size.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.size.1.to_le_bytes());
        out[FIXED_BYTES..expected].copy_from_slice(&self.touched.bits);
        Ok(())
    }

    /// Decodes what [`encode`](Self::encode) made.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadSummary> {
        if bytes.len() < FIXED_BYTES {
            return Err(BadSummary { found: bytes.len(), expected: FIXED_BYTES });
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let failure = (number(8) >> 32) as u32;
        Ok(Self {
            hlc: Stamp(number(0)),
            map_version: MapVersion(number(8) as u32),
            failed: failure & 0xff != 0,
            cause: Cause::of_code(failure >> 8),
            size: (number(16), number(24)),
            touched: Touched { bits: bytes[FIXED_BYTES..].to_vec() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summary() -> impl Strategy<Value = Summary> {
        (any::<u64>(), any::<u32>(), any::<bool>(), 0u32..6, any::<(u64, u64)>(), prop::collection::vec(0u32..64, 0..8))
            .prop_map(|(hlc, map, failed, cause, size, targets)| {
                let mut touched = Touched { bits: vec![0; 8] };
                targets.into_iter().for_each(|t| touched.insert(TargetId(t)));
                let cause = Cause::of_code(cause);
                Summary { hlc: Stamp(hlc), map_version: MapVersion(map), failed, cause, size, touched }
            })
    }

    proptest! {
        #[test]
        fn merges_in_any_order(a in summary(), b in summary(), c in summary()) {
            let join = |x: &Summary, y: &Summary| { let mut z = x.clone(); z.merge(y); z };
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&c, &b)));
            let mut bytes = vec![0; Summary::encoded_bytes(64)];
            a.encode(&mut bytes).unwrap();
            prop_assert_eq!(Summary::decode(&bytes).unwrap(), a);
        }

        #[test]
        fn decode_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Summary::decode(&bytes);
        }
    }
}
