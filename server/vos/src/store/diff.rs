//! What differs between two snapshots: what was written between them, not whether the bytes are others.

use talea_model::{ContainerId, Extent, Oid, View};

use super::Store;
use crate::index::lens::{Lens, Rank};
use crate::index::node::{Akey, Dkey, Object};
use crate::index::stack::{Piece, Stack};
use crate::{DiffPlace, Difference, Differs, ObjectRef, StoreError};

/// Dkeys, akeys and stretches of arrays that one call looks at, at most: it is cut short there, and goes on with the next call.
const LOOKED_AT: usize = 8192;

/// A view with what it hides of the node that is looked at.
#[derive(Clone, Copy)]
struct Side<'a> {
    lens: Lens<'a>,
    hidden: Option<Rank>,
}

impl Store {
    /// At most `limit` differences behind `after`, in order of object, dkey, akey and record; of one object or of the whole
    /// container. The second result is where to go on, if there may be more: behind the last record of the last difference, or
    /// behind the last one that was looked at. Records that follow each other and differ alike come in one piece, but for where a
    /// call was cut short.
    pub fn diff(
        &self,
        container: ContainerId,
        only: Option<Oid>,
        (from, to): (View, View),
        after: Option<&DiffPlace>,
        limit: usize,
    ) -> Result<(Vec<Difference>, Option<DiffPlace>), StoreError> {
        let sides = [self.lens(container, from)?, self.lens(container, to)?].map(|lens| Side { lens, hidden: None });
        let mut found = Found { all: Vec::new(), limit: limit.max(1), looked: 0 };
        let Some(known) = self.memory.index.containers.get(&container) else { return Ok((found.all, None)) };
        let first = only.or(after.map(|after| after.oid)).unwrap_or_default();
        let objects = known.objects.iter_from(known.objects.seek(|oid| *oid < first));
        for (oid, id) in objects.take_while(|(oid, _)| only.is_none_or(|only| *oid == only)) {
            let Some(object) = self.memory.index.objects.get(*id) else { continue };
            let behind = after.filter(|after| after.oid == oid);
            if let Some(stopped) = self.diff_object(object, sides, behind, &mut found) {
                return Ok((found.all, Some(stopped)));
            }
        }
        Ok((found.all, None))
    }

    fn diff_object(
        &self,
        object: &Object,
        sides: [Side<'_>; 2],
        behind: Option<&DiffPlace>,
        found: &mut Found,
    ) -> Option<DiffPlace> {
        let index = &self.memory.index;
        let sides = sides.map(|side| Side { hidden: index.hidden_object(object, &side.lens), ..side });
        let from = behind.map_or_else(Default::default, |behind| index.seek(object, &behind.dkey).0);
        for (dkey, ()) in object.dkeys.iter_from(from) {
            let Some(node) = index.dkeys.get(dkey.id) else { continue };
            let behind = behind.filter(|behind| behind.dkey == node.key.bytes());
            if let Some(stopped) = self.diff_dkey(object.at, node, sides, behind, found) {
                return Some(stopped);
            }
            if found.look() {
                let last = node.akeys.last().map_or_else(Vec::new, |akey| akey.key.bytes().to_vec());
                let dkey = node.key.bytes().to_vec();
                return Some(DiffPlace { oid: object.at.oid, dkey, akey: last, index: u64::MAX });
            }
        }
        None
    }

    fn diff_dkey(
        &self,
        at: ObjectRef,
        node: &Dkey,
        sides: [Side<'_>; 2],
        behind: Option<&DiffPlace>,
        found: &mut Found,
    ) -> Option<DiffPlace> {
        let index = &self.memory.index;
        let sides = sides.map(|side| Side { hidden: index.hidden_dkey(node, &side.lens, side.hidden), ..side });
        let first = behind.map_or(0, |behind| node.akeys.partition_point(|akey| akey.key.bytes() < &behind.akey[..]));
        for akey in &node.akeys[first..] {
            let sides = sides.map(|side| Side { hidden: index.hidden_akey(akey, &side.lens, side.hidden), ..side });
            let after = behind.filter(|behind| behind.akey == akey.key.bytes()).map(|behind| behind.index);
            let place = |index| DiffPlace {
                oid: at.oid,
                dkey: node.key.bytes().to_vec(),
                akey: akey.key.bytes().to_vec(),
                index,
            };
            if let Some(last) = self.diff_array(akey, sides, after, place, found) {
                return Some(place(last));
            }
            let mut is_over = found.look();
            if after.is_none_or(|index| index < u64::MAX)
                && let Some(how) = self.differs(&akey.single, sides)
            {
                let place = place(u64::MAX);
                is_over |= found.add(Difference { place, record_bytes: 0, extent: Extent::default(), how });
            }
            if is_over {
                return Some(place(u64::MAX));
            }
        }
        None
    }

    /// Runs of records that differ alike. `Some`: the last record that is done with, and there is no room for more.
    fn diff_array(
        &self,
        akey: &Akey,
        sides: [Side<'_>; 2],
        after: Option<u64>,
        place: impl Fn(u64) -> DiffPlace,
        found: &mut Found,
    ) -> Option<u64> {
        let array = akey.array.as_ref()?;
        let mut run: Option<(Extent, Differs)> = None;
        let add = |run: Option<(Extent, Differs)>, found: &mut Found| {
            let (extent, how) = run?;
            let (place, record_bytes) = (place(extent.index), akey.record_bytes());
            found.add(Difference { place, record_bytes, extent, how }).then(|| extent.end() - 1)
        };
        let from = after.map_or(0, |after| after.saturating_add(1));
        for (start, column) in array.overlapping(Extent { index: from, count: u64::MAX - from }) {
            // Columns that were joined since the call before begin with what is done.
            let start = start.max(from);
            match (&mut run, self.differs(&column.stack, sides)) {
                (Some((open, same)), Some(how)) if open.end() == start && *same == how => {
                    open.count = column.end - open.index;
                }
                (_, how) => {
                    let last = add(run.take(), found);
                    if last.is_some() {
                        return last;
                    }
                    run = how.map(|how| (Extent { index: start, count: column.end - start }, how));
                }
            }
            if found.look() {
                _ = add(run, found);
                return Some(column.end - 1);
            }
        }
        add(run, found)
    }

    fn differs(&self, stack: &Stack, sides: [Side<'_>; 2]) -> Option<Differs> {
        if stack.is_empty() {
            return None;
        }
        let seen = |side: &Side<'_>| -> Option<Piece> { self.memory.index.seen(stack, &side.lens, side.hidden) };
        match (seen(&sides[0]), seen(&sides[1])) {
            (None, None) => None,
            (None, Some(_)) => Some(Differs::Added),
            (Some(_), None) => Some(Differs::Removed),
            (Some(before), Some(now)) => (before.version != now.version).then_some(Differs::Changed),
        }
    }
}

struct Found {
    all: Vec<Difference>,
    limit: usize,
    looked: usize,
}

impl Found {
    /// Something was looked at. True: that is enough for one call.
    fn look(&mut self) -> bool {
        self.looked += 1;
        self.looked >= LOOKED_AT
    }

    /// True: there is no room for more.
    fn add(&mut self, difference: Difference) -> bool {
        self.all.push(difference);
        self.all.len() >= self.limit
    }
}
