//! Extents: runs of records of an array akey.

use serde::{Deserialize, Serialize};

/// `count` records from `index` on. The end never overflows in a checked extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// First record.
    pub index: u64,
    /// Number of records.
    pub count: u64,
}

impl Extent {
    /// An extent, if it is not empty and its end does not overflow.
    pub const fn new(index: u64, count: u64) -> Option<Self> {
        match index.checked_add(count) {
            Some(_) if count > 0 => Some(Self { index, count }),
            _ => None,
        }
    }

    /// One past the last record.
    pub const fn end(self) -> u64 {
        self.index.saturating_add(self.count)
    }

    /// The common part, if there is one.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (start, end) = (self.index.max(other.index), self.end().min(other.end()));
        (start < end).then(|| Self { index: start, count: end - start })
    }

    /// The same records, in order and each once.
    pub fn merged(mut extents: Vec<Self>) -> Vec<Self> {
        extents.sort_unstable_by_key(|extent| extent.index);
        extents.dedup_by(|next, last| {
            let joins = next.index <= last.end();
            if joins {
                last.count = last.end().max(next.end()) - last.index;
            }
            joins
        });
        extents
    }

    /// Whether the two share a record.
    pub fn overlaps(self, other: Self) -> bool {
        self.intersect(other).is_some()
    }

    /// The pieces that remain of `self` without `other`, in order.
    pub fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let left = (self.index, self.end().min(other.index));
        let right = (self.index.max(other.end()), self.end());
        let whole = self.intersect(other).is_none().then_some(self);
        let parts = if whole.is_some() { [None, None] } else { [Some(left), Some(right)] };
        whole
            .into_iter()
            .chain(parts.into_iter().flatten().filter(|(a, b)| a < b).map(|(a, b)| Self { index: a, count: b - a }))
    }

    /// Splits at multiples of `chunk` records: yields (chunk number, extent relative to the chunk's start).
    pub fn chunks(self, chunk: u64) -> impl Iterator<Item = (u64, Self)> {
        let mut at = self.index;
        std::iter::from_fn(move || {
            if at >= self.end() {
                return None;
            }
            let (number, inside) = (at / chunk, at % chunk);
            let count = (chunk - inside).min(self.end() - at);
            at += count;
            Some((number, Self { index: inside, count }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent() -> impl Strategy<Value = Extent> {
        (0u64..64, 1u64..32).prop_map(|(index, count)| Extent { index, count })
    }
    fn set(extent: Extent) -> std::collections::BTreeSet<u64> {
        (extent.index..extent.end()).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_sets(a in extent(), b in extent(), chunk in 1u64..9) {
            let both: std::collections::BTreeSet<u64> = set(a).intersection(&set(b)).copied().collect();
            prop_assert_eq!(a.intersect(b).map(set).unwrap_or_default(), both);
            let rest: Vec<u64> = a.without(b).flat_map(set).collect();
            prop_assert_eq!(rest, set(a).difference(&set(b)).copied().collect::<Vec<_>>());
            let all: Vec<u64> = a.chunks(chunk).flat_map(|(n, e)| (e.index..e.end()).map(move |i| n * chunk + i)).collect();
            prop_assert_eq!(all, set(a).into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn ends_never_overflow() {
        assert!(Extent::new(u64::MAX, 1).is_none());
        assert!(Extent::new(5, 0).is_none());
        assert!(Extent::new(u64::MAX - 1, 1).is_some());
    }
}
