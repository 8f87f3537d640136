//! What differs between two snapshots: what was written between them, not whether the bytes are others.

use talea_model::{ContainerId, Extent, Oid, View};

use super::Store;
use crate::index::lens::{Lens, Rank};
use crate::index::node::{Akey, Dkey, Object};
use crate::index::stack::{Piece, Stack};
use crate::{DiffPlace, Difference, Differs, ObjectRef, StoreError};

/// Dkeys that one call looks at, at most: it is cut short there, and goes on with the next call.
const LOOKED_AT: usize = 4096;

/// A view with what it hides of the node that is looked at.
#[derive(Clone, Copy)]
struct Side<'a> {
    lens: Lens<'a>,
    hidden: Option<Rank>,
}

impl Store {
    /// At most `limit` differences behind `after`, in order of object, dkey, akey and record; of one object or of the whole
    /// container. The second result is where to go on, if there may be more: behind the last difference, or behind a dkey in
    /// which there was none.
    pub fn diff(
        &self,
        container: ContainerId,
        only: Option<Oid>,
        (from, to): (View, View),
        after: Option<&DiffPlace>,
        limit: usize,
    ) -> Result<(Vec<Difference>, Option<DiffPlace>), StoreError> {
        let sides = [self.lens(container, from)?, self.lens(container, to)?].map(|lens| Side { lens, hidden: None });
        let mut found = Found { all: Vec::new(), limit: limit.max(1) };
        let mut looked = 0;
        let Some(known) = self.memory.index.containers.get(&container) else { return Ok((found.all, None)) };
        let first = only.or(after.map(|after| after.oid)).unwrap_or_default();
        let objects = known.objects.iter_from(known.objects.seek(|oid| *oid < first));
        for (oid, id) in objects.take_while(|(oid, _)| only.is_none_or(|only| *oid == only)) {
            let Some(object) = self.memory.index.objects.get(*id) else { continue };
            let behind = after.filter(|after| after.oid == oid);
            if let Some(stopped) = self.diff_object(object, sides, behind, &mut looked, &mut found) {
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
        looked: &mut usize,
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
            *looked += 1;
            if *looked >= LOOKED_AT {
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
            if self.diff_array(akey, sides, after, place, found) {
                return found.last();
            }
            if after.is_none_or(|index| index < u64::MAX)
                && let Some(how) = self.differs(&akey.single, sides)
            {
                let place = place(u64::MAX);
                if found.add(Difference { place, record_bytes: 0, extent: Extent::default(), how }) {
                    return found.last();
                }
            }
        }
        None
    }

    /// Runs of records that differ alike. True: there is no room for more.
    fn diff_array(
        &self,
        akey: &Akey,
        sides: [Side<'_>; 2],
        after: Option<u64>,
        place: impl Fn(u64) -> DiffPlace,
        found: &mut Found,
    ) -> bool {
        let Some(array) = &akey.array else { return false };
        let mut run: Option<(Extent, Differs)> = None;
        let mut add = |run: Option<(Extent, Differs)>| {
            // Runs are the same in each call: those that begin no later than the anchor were given.
            run.filter(|(extent, _)| after.is_none_or(|after| extent.index > after)).is_some_and(|(extent, how)| {
                let (place, record_bytes) = (place(extent.index), akey.record_bytes());
                found.add(Difference { place, record_bytes, extent, how })
            })
        };
        // The last run that was given begins where a column does: nothing before it is looked at again.
        let from = after.unwrap_or(0);
        for (start, column) in array.overlapping(Extent { index: from, count: u64::MAX - from }) {
            let Some(how) = self.differs(&column.stack, sides) else { continue };
            match &mut run {
                Some((open, same)) if open.end() == start && *same == how => open.count = column.end - open.index,
                _ => {
                    if add(run.take()) {
                        return true;
                    }
                    run = Some((Extent { index: start, count: column.end - start }, how));
                }
            }
        }
        add(run)
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
}

impl Found {
    /// True: there is no room for more.
    fn add(&mut self, difference: Difference) -> bool {
        self.all.push(difference);
        self.all.len() >= self.limit
    }

    fn last(&self) -> Option<DiffPlace> {
        self.all.last().map(|last| last.place.clone())
    }
}
