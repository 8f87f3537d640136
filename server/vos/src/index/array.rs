//! An array akey: an interval map whose columns carry their versions.
//!
//! Columns are disjoint; each holds the stack of all versions that cover it whole. A write splits at its two ends only.

use std::collections::BTreeMap;

use talea_model::Extent;

use super::stack::{Piece, Stack};
use super::version::{VersionId, Versions};

/// Records `[start, end)` and the versions that cover them.
#[derive(Debug)]
pub(crate) struct Column {
    /// One past the last record.
    pub end: u64,
    /// Their versions.
    pub stack: Stack,
}

/// Columns by their first record.
#[derive(Debug, Default)]
pub(crate) struct Array {
    columns: BTreeMap<u64, Column>,
}

impl Array {
    /// True without columns.
    pub(crate) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// All columns in order.
    pub(crate) fn columns(&self) -> impl DoubleEndedIterator<Item = (u64, &Column)> {
        self.columns.iter().map(|(start, column)| (*start, column))
    }

    /// Stacks of all columns.
    pub(crate) fn stacks_mut(&mut self) -> impl Iterator<Item = &mut Stack> {
        self.columns.values_mut().map(|column| &mut column.stack)
    }

    /// Columns that overlap an extent, in order, not clipped.
    pub(crate) fn overlapping(&self, extent: Extent) -> impl Iterator<Item = (u64, &Column)> {
        let first = self.columns.range(..=extent.index).next_back().filter(|(_, column)| column.end > extent.index);
        let start = first.map_or(extent.index, |(start, _)| *start);
        self.columns.range(start..extent.end()).map(|(start, column)| (*start, column))
    }

    /// Covers an extent with a version.
    pub(crate) fn write(&mut self, extent: Extent, version: VersionId, record_bytes: u64, versions: &mut Versions) {
        self.split(extent.index, record_bytes, versions);
        self.split(extent.end(), record_bytes, versions);
        let hole = versions.get(version).place.hole;
        let piece =
            |at: u64| Piece { version, skip: if hole { 0 } else { ((at - extent.index) * record_bytes) as u32 } };
        let (mut at, mut gaps) = (extent.index, smallvec::SmallVec::<[(u64, u64); 4]>::new());
        for (start, column) in self.columns.range_mut(extent.index..extent.end()) {
            if at < *start {
                gaps.push((at, *start));
            }
            versions.hold(version);
            column.stack.push(piece(*start), versions);
            at = column.end;
        }
        if at < extent.end() {
            gaps.push((at, extent.end()));
        }
        for (start, end) in gaps {
            let mut stack = Stack::default();
            versions.hold(version);
            stack.push(piece(start), versions);
            self.columns.insert(start, Column { end, stack });
        }
    }

    /// Adds a column as a checkpoint recorded it; it must not overlap others.
    pub(crate) fn restore(&mut self, extent: Extent, stack: Stack) {
        self.columns.insert(extent.index, Column { end: extent.end(), stack });
    }

    /// Makes `at` a border of columns.
    fn split(&mut self, at: u64, record_bytes: u64, versions: &mut Versions) {
        let Some((start, column)) = self.columns.range_mut(..at).next_back() else { return };
        if column.end <= at {
            return;
        }
        let right = Column { end: column.end, stack: column.stack.split((at - start) * record_bytes, versions) };
        column.end = at;
        self.columns.insert(at, right);
    }

    /// Drops columns without versions and joins neighbours that show the same versions on.
    pub(crate) fn tidy(&mut self, record_bytes: u64, versions: &mut Versions) {
        self.columns.retain(|_, column| !column.stack.is_empty());
        let mut joined: Vec<(u64, u64)> = Vec::new();
        let mut left: Option<(u64, &Column)> = None;
        for (start, column) in &self.columns {
            if let Some((first, before)) = left
                && before.end == *start
                && before.stack.continues_in(&column.stack, (start - first) * record_bytes, versions)
            {
                joined.push((first, *start));
            }
            left = Some((*start, column));
        }
        // From the right, so that each join sees its right neighbour already joined.
        for (first, second) in joined.into_iter().rev() {
            let Some(mut gone) = self.columns.remove(&second) else { continue };
            gone.stack.clear(versions);
            if let Some(stays) = self.columns.get_mut(&first) {
                stays.end = gone.end;
            }
        }
    }

    /// Lets go of all versions.
    pub(crate) fn clear(&mut self, versions: &mut Versions) {
        for stack in self.stacks_mut() {
            stack.clear(versions);
        }
        self.columns.clear();
    }
}
