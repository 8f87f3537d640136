//! A flattened datatype, tiled endlessly, and a cursor over its bytes.
//!
//! Pure arithmetic: must never call MPI.

use crate::abi::MPI_ERR_ARG;
use crate::error::Failure;

/// Runs of one element, repeated every `extent` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// (displacement, bytes), in type-map order, none empty.
    runs: Vec<(i64, u64)>,
    /// Data bytes before each run.
    before: Vec<u64>,
    bytes: u64,
    extent: i64,
}

impl Layout {
    /// From runs in type-map order.
    pub(crate) fn new(runs: Vec<(i64, u64)>, extent: i64) -> Layout {
        let mut bytes = 0;
        let before = runs
            .iter()
            .map(|&(_, length)| {
                let start = bytes;
                bytes += length;
                start
            })
            .collect();
        Layout { runs, before, bytes, extent }
    }

    /// One run without holes.
    pub(crate) fn dense(bytes: u64) -> Layout {
        Layout::new(vec![(0, bytes)], bytes.cast_signed())
    }

    /// Data bytes of one element.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Distance between elements in bytes.
    pub(crate) fn extent(&self) -> i64 {
        self.extent
    }

    /// Bytes of the shortest run; all of them if elements follow each other without holes.
    pub(crate) fn finest(&self) -> u64 {
        if self.is_dense() { u64::MAX } else { self.runs.iter().map(|&(_, bytes)| bytes).min().unwrap_or(u64::MAX) }
    }

    /// Bytes of a run on average; all of them if elements follow each other without holes.
    pub(crate) fn average(&self) -> u64 {
        if self.is_dense() { u64::MAX } else { self.bytes / (self.runs.len() as u64).max(1) }
    }

    /// Do elements follow each other without holes?
    fn is_dense(&self) -> bool {
        matches!(self.runs[..], [(_, bytes)] if i64::try_from(bytes) == Ok(self.extent))
    }

    /// May it be a file type: no negative displacement, and none smaller than the one before?
    pub(crate) fn is_monotonic(&self) -> bool {
        let forward = self.runs.windows(2).all(|pair| pair[0].0 <= pair[1].0);
        forward && self.runs.first().is_none_or(|&(start, _)| start >= 0) && self.extent >= 0
    }

    /// Do pieces of one element overlap? For a monotonic layout.
    pub(crate) fn overlaps(&self) -> bool {
        self.runs.windows(2).any(|pair| pair[0].0.saturating_add_unsigned(pair[0].1) > pair[1].0)
    }

    /// A cursor that stands before data byte `position` of the endless tiling that starts at `base`.
    pub(crate) fn cursor(&self, base: i64, position: u64) -> Result<Cursor<'_>, Failure> {
        if self.bytes == 0 {
            return Err(Failure::refused(
                MPI_ERR_ARG,
                "a datatype or view without data bytes cannot be read or written",
            ));
        }
        let (tile, rest) = (position / self.bytes, position % self.bytes);
        let run = self.before.partition_point(|&start| start <= rest) - 1;
        let inner = rest - self.before[run];
        Ok(Cursor { layout: self, base, tile, run, inner, dense: self.is_dense() })
    }

    /// Data bytes of the tiling that lie wholly below displacement `end` from its start (for a monotonic layout).
    pub(crate) fn bytes_below(&self, end: u64) -> u64 {
        let extent = self.extent.max(1).cast_unsigned();
        let first = self.runs.first().map_or(0, |&(start, _)| start.max(0).cast_unsigned());
        let last = self.runs.last().map_or(0, |&(start, length)| start.max(0).cast_unsigned().saturating_add(length));
        // Whole tiles that end below `end`; tiles of a resized type may overlap, so step back before counting on.
        let overlap = last.div_ceil(extent).max(1);
        let mut tile = (end.saturating_sub(first) / extent).saturating_sub(overlap);
        let mut count = tile * self.bytes;
        loop {
            let shift = tile * extent;
            let inside: u64 = self
                .runs
                .iter()
                .map(|&(start, length)| end.saturating_sub(shift + start.max(0).cast_unsigned()).min(length))
                .sum();
            count += inside;
            if inside < self.bytes || self.bytes == 0 {
                return count;
            }
            tile += 1;
        }
    }
}

/// Walks the data bytes of a tiled layout.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    layout: &'a Layout,
    base: i64,
    tile: u64,
    run: usize,
    inner: u64,
    dense: bool,
}

impl Cursor<'_> {
    /// The run that the cursor stands in: its displacement, and bytes left in it.
    pub(crate) fn peek(&self) -> Result<(i64, u64), Failure> {
        let (start, length) = self.layout.runs[self.run];
        let displacement = i64::try_from(self.tile)
            .ok()
            .and_then(|tile| self.layout.extent.checked_mul(tile))
            .and_then(|far| far.checked_add(start))
            .and_then(|far| far.checked_add_unsigned(self.inner))
            .and_then(|far| far.checked_add(self.base))
            .ok_or_else(|| Failure::refused(MPI_ERR_ARG, "an offset exceeds 2^63 bytes"))?;
        let left = if self.dense { u64::MAX } else { length - self.inner };
        Ok((displacement, left))
    }

    /// Moves on by `bytes`, at most what [`Self::peek`] said is left.
    pub(crate) fn advance(&mut self, bytes: u64) {
        if self.dense {
            let position = self.inner + bytes;
            self.tile += position / self.layout.bytes;
            self.inner = position % self.layout.bytes;
            return;
        }
        self.inner += bytes;
        if self.inner == self.layout.runs[self.run].1 {
            self.inner = 0;
            self.run += 1;
            if self.run == self.layout.runs.len() {
                self.run = 0;
                self.tile += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Displacement of each data byte, one by one.
    fn spelled(layout: &Layout, base: i64, count: u64) -> Vec<i64> {
        let tile: Vec<i64> =
            layout.runs.iter().flat_map(|&(start, length)| start..start + length.cast_signed()).collect();
        (0..count as usize).map(|i| base + (i / tile.len()) as i64 * layout.extent + tile[i % tile.len()]).collect()
    }

    fn layouts() -> impl Strategy<Value = Layout> {
        (proptest::collection::vec((0_i64..6, 1_u64..7), 1..6), 0_i64..9).prop_map(|(steps, tail)| {
            let mut at = 0;
            let runs = steps
                .into_iter()
                .map(|(gap, length)| {
                    let start = at + gap;
                    at = start + length.cast_signed();
                    (start, length)
                })
                .collect();
            Layout::new(runs, at + tail)
        })
    }

    proptest! {
        #[test]
        fn a_cursor_visits_the_bytes_that_spelling_out_gives(
            layout in layouts(), base in 0_i64..50, from in 0_u64..60, count in 1_u64..80, step in 1_u64..9,
        ) {
            let expected = &spelled(&layout, base, from + count)[from as usize..];
            let mut cursor = layout.cursor(base, from).unwrap();
            let mut got = Vec::new();
            while (got.len() as u64) < count {
                let (start, left) = cursor.peek().unwrap();
                let take = left.min(step).min(count - got.len() as u64);
                got.extend(start..start + take.cast_signed());
                cursor.advance(take);
            }
            prop_assert_eq!(&got[..], expected);
        }

        #[test]
        fn counting_bytes_below_an_end_agrees_with_spelling_out(layout in layouts(), end in 0_u64..150) {
            let expected = spelled(&layout, 0, 400).iter().filter(|&&at| at < end.cast_signed()).count() as u64;
            prop_assume!(expected < 400);
            prop_assert_eq!(layout.bytes_below(end), expected);
        }
    }

    #[test]
    fn an_empty_type_has_no_cursor() {
        assert!(Layout::new(Vec::new(), 8).cursor(0, 0).is_err());
    }
}
