//! An array akey: an interval map whose columns carry their versions.
//!
//! Columns are disjoint; each holds the stack of all versions that cover it whole. A write splits at its two ends only.

use talea_model::Extent;

use super::sorted::Sorted;
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
    columns: Sorted<u64, Column>,
}

impl Array {
    /// True without columns.
    pub(crate) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// All columns in order.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (u64, &Column)> {
        self.columns.iter()
    }

    /// Columns that begin before a record, the last one first.
    pub(crate) fn columns_before(&self, record: u64) -> impl Iterator<Item = (u64, &Column)> {
        let mut pos = Some(self.columns.seek(|start| *start < record));
        std::iter::from_fn(move || {
            pos = self.columns.back(pos?);
            self.columns.entry(pos?)
        })
    }

    /// Nodes and keys that a search looks at.
    pub(crate) fn cost(&self) -> (u32, u32) {
        self.columns.cost()
    }

    /// Columns that overlap an extent, in order, not clipped.
    pub(crate) fn overlapping(&self, extent: Extent) -> impl Iterator<Item = (u64, &Column)> {
        let first = self.columns.seek(|start| *start <= extent.index);
        let before = self.columns.back(first).filter(|before| self.end_of(*before) > extent.index);
        let from = before.unwrap_or(first);
        self.columns.iter_from(from).take_while(move |(start, _)| *start < extent.end())
    }

    fn end_of(&self, pos: super::sorted::Pos) -> u64 {
        self.columns.entry(pos).map_or(0, |(_, column)| column.end)
    }

    /// Covers an extent with a version. True if any of its columns has something to settle or to merge.
    pub(crate) fn write(
        &mut self,
        extent: Extent,
        version: VersionId,
        record_bytes: u64,
        versions: &mut Versions,
    ) -> bool {
        if let Some(restless) = self.write_plainly(extent, version, versions) {
            return restless;
        }
        self.split(extent.index, record_bytes, versions);
        self.split(extent.end(), record_bytes, versions);
        let hole = versions.is_hole(version);
        let piece =
            |at: u64| Piece { version, skip: if hole { 0 } else { ((at - extent.index) * record_bytes) as u32 } };
        let (mut at, mut restless) = (extent.index, false);
        let mut pos = self.columns.seek(|start| *start < extent.index);
        while at < extent.end() {
            versions.hold(version);
            let next = self.columns.entry_mut(pos).filter(|(start, _)| *start < extent.end());
            match next {
                Some((start, column)) if start == at => {
                    column.stack.push(piece(at), versions);
                    restless |= column.stack.is_restless(versions);
                    at = column.end;
                    pos = self.columns.step(pos);
                }
                next => {
                    let end = next.map_or(extent.end(), |(start, _)| start);
                    let mut stack = Stack::default();
                    stack.push(piece(at), versions);
                    restless |= stack.is_restless(versions);
                    self.columns.insert(pos, at, Column { end, stack });
                    at = end;
                    if at < extent.end() {
                        pos = self.columns.seek(|start| *start < at);
                    }
                }
            }
        }
        restless
    }

    /// What most writes are: over a column that has the same ends, or where nothing is. `None` if it is neither.
    fn write_plainly(&mut self, extent: Extent, version: VersionId, versions: &mut Versions) -> Option<bool> {
        let pos = self.columns.seek(|start| *start < extent.index);
        let piece = Piece { version, skip: 0 };
        match self.columns.entry_mut(pos) {
            Some((start, column)) if start == extent.index && column.end == extent.end() => {
                versions.hold(version);
                column.stack.push(piece, versions);
                return Some(column.stack.is_restless(versions));
            }
            Some((start, _)) if start < extent.end() => return None,
            _ => {}
        }
        if self.columns.back(pos).is_some_and(|before| self.end_of(before) > extent.index) {
            return None;
        }
        versions.hold(version);
        let mut stack = Stack::default();
        stack.push(piece, versions);
        let restless = stack.is_restless(versions);
        self.columns.insert(pos, extent.index, Column { end: extent.end(), stack });
        Some(restless)
    }

    /// Adds a column as a checkpoint recorded it; it must not overlap others.
    pub(crate) fn restore(&mut self, extent: Extent, stack: Stack) {
        let pos = self.columns.seek(|start| *start < extent.index);
        self.columns.insert(pos, extent.index, Column { end: extent.end(), stack });
    }

    /// Makes `at` a border of columns.
    fn split(&mut self, at: u64, record_bytes: u64, versions: &mut Versions) {
        let pos = self.columns.seek(|start| *start < at);
        let Some(before) = self.columns.back(pos) else { return };
        let Some((start, column)) = self.columns.entry_mut(before).filter(|(_, column)| column.end > at) else {
            return;
        };
        let right =
            Column { end: column.end, stack: column.stack.split((at - start).saturating_mul(record_bytes), versions) };
        column.end = at;
        self.columns.insert(pos, at, right);
    }

    /// Looks at columns, from the one on that `from` lies in or before, until what `each` says that they cost comes to `limit`, and drops
    /// those that are left empty. With `joins`, neighbours that show the same versions on become one. Returns the cost, and where to
    /// go on.
    pub(crate) fn walk(
        &mut self,
        range: Extent,
        limit: usize,
        joins: Option<u64>,
        versions: &mut Versions,
        mut each: impl FnMut(&mut Stack, &mut Versions) -> usize,
    ) -> (usize, Option<u64>) {
        let mut work = 0;
        let mut pos = self.columns.seek(|start| *start <= range.index);
        if let Some(before) = self.columns.back(pos)
            && self.end_of(before) > range.index
        {
            pos = before;
        }
        loop {
            let Some((start, column)) = self.columns.entry_mut(pos).filter(|(start, _)| *start < range.end()) else {
                return (work, None);
            };
            if work >= limit {
                return (work, Some(start));
            }
            work += each(&mut column.stack, versions);
            let empty = column.stack.is_empty();
            if empty || joins.is_some_and(|record_bytes| self.join_back(pos, record_bytes, versions)) {
                if let Some((_, mut gone)) = self.columns.remove(pos) {
                    gone.stack.clear(versions);
                }
                pos = self.columns.seek(|other| *other < start);
            } else {
                pos = self.columns.step(pos);
            }
        }
    }

    /// Lets the column before end where this one ends, if this one only continues it.
    fn join_back(&mut self, pos: super::sorted::Pos, record_bytes: u64, versions: &Versions) -> bool {
        let Some(before) = self.columns.back(pos) else { return false };
        let (Some((first, left)), Some((start, right))) = (self.columns.entry(before), self.columns.entry(pos)) else {
            return false;
        };
        let continues = left.end == start
            && left.stack.continues_in(&right.stack, (start - first).saturating_mul(record_bytes), versions);
        let end = right.end;
        if let Some((_, left)) = self.columns.entry_mut(before).filter(|_| continues) {
            left.end = end;
        }
        continues
    }

    /// Lets go of up to `limit` columns, from the end. Returns of how many.
    pub(crate) fn clear_some(&mut self, limit: usize, versions: &mut Versions) -> usize {
        for done in 0..limit {
            let Some((_, mut column)) = self.columns.pop() else { return done };
            column.stack.clear(versions);
        }
        limit
    }
}
