//! Settling and aggregation: what the index does when fates become known and floors rise (docs/design.md §4 rules 7, 13).
//!
//! Both only take away what no view can see, in portions of a few columns, so they can stop anywhere and go on later.

use smallvec::SmallVec;
use talea_model::{ContainerId, Extent, Ledger, Stamp};

use super::lens::{Lens, Rank};
use super::node::{Akey, Dkey};
use super::small_key::SmallKey;
use super::stack::Stack;
use super::version::Versions;
use super::{Index, Touch};

/// A view, and the rank at and below which it sees nothing.
type Hiding<'a> = (Lens<'a>, Option<Rank>);
type Views<'a> = SmallVec<[Hiding<'a>; 4]>;

/// Versions of one column that count as much as a column.
const VERSIONS_AN_ITEM: usize = 32;

/// Everything.
const ALL: Extent = Extent { index: 0, count: u64::MAX };

/// Aggregation in the middle of a dkey.
#[derive(Debug)]
pub(crate) struct Sweep {
    dkey: u32,
    /// The floor when it began.
    floor: Stamp,
    /// The akey to go on with, and the record.
    next: Option<(SmallKey, u64)>,
    /// Something is left to merge when a floor rises.
    restless: bool,
    /// Something was met that may come to be seen later under an earlier stamp: punches must stay to hide it.
    late: bool,
}

impl Sweep {
    /// Begins a dkey.
    pub(crate) fn of(dkey: u32) -> Self {
        Self { dkey, floor: Stamp::MAX, next: None, restless: false, late: false }
    }
}

/// Aggregation in the middle of a punched object.
#[derive(Debug)]
pub(crate) struct ObjectSweep {
    object: u32,
    floor: Stamp,
    /// The last dkey that was done.
    after: Option<SmallKey>,
    /// The dkey under way.
    dkey: Option<Sweep>,
    /// Nothing was met that the punches may have to hide later, and no stamp below the floor is kept.
    clean: bool,
}

impl ObjectSweep {
    /// Begins an object.
    pub(crate) fn of(object: u32) -> Self {
        Self { object, floor: Stamp::MAX, after: None, dkey: None, clean: true }
    }
}

impl Index {
    /// Settles what a closed transaction touched, up to about `limit` columns and versions of it. Returns how much it looked at, and
    /// what is left.
    pub(crate) fn settle(&mut self, touch: Touch, ledger: &Ledger, limit: usize) -> (usize, Option<Touch>) {
        let (id, versions) = (touch.dkey(), &mut self.versions);
        let Some(node) = id.and_then(|id| self.dkeys.get_mut(id)) else {
            if let Touch::Object(id) = touch {
                self.settle_object(id, ledger);
            }
            return (1, None);
        };
        let (mut work, mut left) = (1, None);
        match &touch {
            Touch::Object(_) => {}
            Touch::Dkey(_) => work += node.punches.settle(ledger, versions),
            Touch::Akey(_, key) => {
                if let Ok(at) = node.position(key.bytes()) {
                    work += node.akeys[at].punches.settle(ledger, versions);
                    work += node.akeys[at].single.settle(ledger, versions);
                    drop_akey_if_empty(node, at);
                }
            }
            Touch::Range(id, key, extent) => {
                if let Ok(at) = node.position(key.bytes()) {
                    if let Some(array) = &mut node.akeys[at].array {
                        let settle = |stack: &mut Stack, versions: &mut Versions| stack.settle(ledger, versions);
                        let (done, next) = array.walk(*extent, limit.max(1), None, versions, settle);
                        work += done;
                        left = next
                            .and_then(|next| Extent::new(next, extent.end() - next))
                            .map(|rest| Touch::Range(*id, key.clone(), rest));
                    }
                    drop_akey_if_empty(node, at);
                }
            }
        }
        if !node.waiting.all().iter().all(|tx| ledger.admits(*tx)) {
            node.waiting.retain(|tx| ledger.admits(tx));
            if let Some(object) = self.objects.get_mut(node.object) {
                object.below.retain(|tx| ledger.admits(tx));
            }
        }
        if let Some(id) = id {
            self.mark_restless(id);
            self.drop_if_empty(id);
        }
        (work, left)
    }

    fn settle_object(&mut self, id: u32, ledger: &Ledger) {
        let Some(object) = self.objects.get_mut(id) else { return };
        object.punches.settle(ledger, &mut self.versions);
        object.waiting.retain(|tx| ledger.admits(tx));
        self.mark_object_restless(id);
        self.drop_object_if_empty(id);
    }

    /// Drops what no view of a dkey can see, up to about `limit` columns. Returns how much it looked at, and whether that was all.
    pub(crate) fn sweep(&mut self, sweep: &mut Sweep, ledger: &Ledger, limit: usize) -> (usize, bool) {
        let id = sweep.dkey;
        let Some(mut node) = self.dkeys.remove_for_work(id) else { return (1, true) };
        let object = self.objects.get(node.object);
        let views = object.and_then(|object| self.views_of(object.at.container, ledger));
        let (Some(object), Some((floor, views)), false) = (object, views, node.written) else {
            // Nothing can be dropped now: again when a floor rises, or when the checkpoint has passed.
            self.dkeys.put_back(id, node);
            self.mark_restless(id);
            return (1, true);
        };
        let above = views.iter().map(|(lens, _)| (*lens, self.hidden_object(object, lens))).collect();
        sweep.floor = sweep.floor.min(floor);
        let (work, done) = thin_dkey(&mut node, sweep, &above, floor, limit, &mut self.versions);
        self.dkeys.put_back(id, node);
        if done {
            if sweep.restless {
                self.mark_restless(id);
            }
            self.drop_if_empty(id);
        }
        (work, done)
    }

    /// Drops what a punched object hides, dkey by dkey, and then the punches, if nothing is left that they must hide. Returns how
    /// much it looked at, and whether that was all.
    pub(crate) fn sweep_object(&mut self, sweep: &mut ObjectSweep, ledger: &Ledger, limit: usize) -> (usize, bool) {
        let mut work = 1;
        let id = sweep.object;
        let Some(object) = self.objects.get(id) else { return (work, true) };
        let Some((floor, views)) = self.views_of(object.at.container, ledger) else {
            self.mark_object_restless(id);
            return (work, true);
        };
        sweep.floor = sweep.floor.min(floor);
        sweep.clean &= views.len() == 1;
        while work < limit {
            let mut current = match sweep.dkey.take() {
                Some(current) => current,
                None => match self.next_dkey(id, sweep.after.as_ref()) {
                    Some((dkey, key)) => {
                        sweep.after = Some(key);
                        Sweep::of(dkey)
                    }
                    None => {
                        self.finish_object(id, sweep, ledger);
                        return (work, true);
                    }
                },
            };
            let busy = |node: &Dkey| node.written || !node.waiting.all().is_empty();
            sweep.clean &= !self.dkeys.get(current.dkey).is_some_and(busy);
            let (more, done) = self.sweep(&mut current, ledger, limit - work);
            work += more;
            sweep.clean &= !current.late;
            if !done {
                sweep.dkey = Some(current);
            }
        }
        (work, false)
    }

    fn next_dkey(&self, object: u32, after: Option<&SmallKey>) -> Option<(u32, SmallKey)> {
        let object = self.objects.get(object)?;
        let pos = match after {
            None => Default::default(),
            Some(after) => self.after(object, after.bytes()),
        };
        let (found, ()) = object.dkeys.entry(pos)?;
        Some((found.id, self.dkeys.get(found.id)?.key.clone()))
    }

    fn finish_object(&mut self, id: u32, sweep: &ObjectSweep, ledger: &Ledger) {
        let Some(object) = self.objects.get(id) else { return };
        let Some((floor, views)) = self.views_of(object.at.container, ledger) else { return };
        let object = self.objects.must(id);
        object.punches.thin(&views, floor, &mut self.versions);
        if object.dkeys.is_empty() || views.len() == 1 && sweep.clean {
            object.punches.drop_bottom_hole(sweep.floor, &mut self.versions);
        }
        if !object.punches.is_empty() {
            self.mark_object_restless(id);
        }
        self.drop_object_if_empty(id);
    }

    /// The floor, and views at it and at the stamps below it that can still be read, ascending.
    fn views_of<'a>(&self, container: ContainerId, ledger: &'a Ledger) -> Option<(Stamp, Views<'a>)> {
        let container = self.containers.get(&container)?;
        if container.floor == Stamp::ZERO {
            return None;
        }
        let kept = container.kept.range(..container.floor).map(|(stamp, _)| *stamp);
        let stamps = kept.chain([container.floor]);
        Some((container.floor, stamps.map(|stamp| (Lens::at(ledger, stamp), None)).collect()))
    }

    fn drop_if_empty(&mut self, id: u32) {
        let Some(node) = self.dkeys.get(id) else { return };
        // What is left of a destroyed container goes with `bury_some`, which holds the numbers until then.
        if self.is_doomed(node)
            || node.written
            || !(node.punches.is_empty() && node.akeys.is_empty() && node.waiting.all().is_empty())
        {
            return;
        }
        let object_id = node.object;
        let found = self.objects.get(object_id).map(|object| self.seek(object, node.key.bytes()));
        if let (Some((pos, Some(found))), Some(object)) = (found, self.objects.get_mut(object_id))
            && found == id
        {
            object.dkeys.remove(pos);
        }
        self.dkeys.remove(id);
        self.drop_object_if_empty(object_id);
    }

    fn drop_object_if_empty(&mut self, id: u32) {
        let Some(object) = self.objects.get(id) else { return };
        if self.destroyed.contains(&object.at.container)
            || !(object.punches.is_empty() && object.dkeys.is_empty() && object.waiting.all().is_empty())
        {
            return;
        }
        let Some(object) = self.objects.remove(id) else { return };
        if let Some(container) = self.containers.get_mut(&object.at.container) {
            let pos = container.objects.seek(|oid| *oid < object.at.oid);
            if container.objects.entry(pos).is_some_and(|(_, found)| *found == id) {
                container.objects.remove(pos);
            }
        }
    }

    /// Takes apart what destroyed containers left, up to about `limit` versions. Returns how many.
    pub(crate) fn bury_some(&mut self, limit: usize) -> usize {
        let mut done = 0;
        while done < limit {
            let Some(objects) = self.doomed.last_mut() else { break };
            let Some((_, id)) = objects.iter_back().next().map(|(oid, id)| (oid, *id)) else {
                self.doomed.pop();
                continue;
            };
            let last = self.objects.get(id).and_then(|object| object.dkeys.iter_back().next());
            let Some((dkey, ())) = last else {
                if let Some(mut object) = self.objects.remove(id) {
                    object.punches.clear(&mut self.versions);
                }
                objects.pop();
                done += 1;
                continue;
            };
            let cleared =
                self.dkeys.get_mut(dkey.id).map_or(0, |node| node.clear_some(limit - done, &mut self.versions));
            done += cleared;
            if done < limit {
                self.dkeys.remove(dkey.id);
                self.objects.must(id).dkeys.pop();
                done += 1;
            }
        }
        done
    }
}

fn drop_akey_if_empty(node: &mut Dkey, at: usize) {
    if node.akeys[at].is_empty() {
        node.akeys.remove(at);
    }
}

/// Views of what lies under punches.
fn deeper<'a>(above: &Views<'a>, punches: &Stack, versions: &Versions) -> Views<'a> {
    if punches.is_empty() {
        return above.clone();
    }
    let hide = |lens: &Lens| punches.top(lens, versions).map(|(rank, _)| rank);
    above.iter().map(|(lens, hidden)| (*lens, (*hidden).max(hide(lens)))).collect()
}

/// Thins the stacks of a dkey from where the sweep is, and drops punches that have nothing left to hide. Returns how many stacks
/// it looked at, and whether it came to the end.
fn thin_dkey(
    node: &mut Dkey,
    sweep: &mut Sweep,
    above: &Views,
    floor: Stamp,
    limit: usize,
    versions: &mut Versions,
) -> (usize, bool) {
    let in_dkey = deeper(above, &node.punches, versions);
    // With one view, at the floor, nothing is left at or below a punch that the floor has passed, once all was thinned.
    let alone = above.len() == 1 && node.waiting.all().is_empty();
    let mut work = 1;
    let (mut at, mut from) = match sweep.next.take() {
        None => (0, 0),
        Some((key, from)) => match node.position(key.bytes()) {
            Ok(at) => (at, from),
            Err(at) => (at, 0),
        },
    };
    while at < node.akeys.len() {
        if work >= limit {
            sweep.next = Some((node.akeys[at].key.clone(), from));
            return (work, false);
        }
        let akey = &mut node.akeys[at];
        let in_akey = deeper(&in_dkey, &akey.punches, versions);
        let (done, next) = thin_akey(akey, &in_akey, from, floor, limit - work, sweep, versions);
        work += done;
        if let Some(next) = next {
            sweep.next = Some((akey.key.clone(), next));
            return (work, false);
        }
        from = 0;
        akey.punches.thin(&in_dkey, floor, versions);
        if alone && !sweep.late || !akey.has_content() {
            akey.punches.drop_bottom_hole(sweep.floor, versions);
        }
        sweep.restless |= !akey.punches.is_empty();
        if akey.is_empty() {
            node.akeys.remove(at);
        } else {
            at += 1;
        }
    }
    node.punches.thin(above, floor, versions);
    if alone && !sweep.late || node.akeys.is_empty() {
        node.punches.drop_bottom_hole(sweep.floor, versions);
    }
    sweep.restless |= !node.punches.is_empty();
    (work, true)
}

fn thin_akey(
    akey: &mut Akey,
    views: &Views,
    from: u64,
    floor: Stamp,
    limit: usize,
    sweep: &mut Sweep,
    versions: &mut Versions,
) -> (usize, Option<u64>) {
    if from == 0 {
        akey.single.thin(views, floor, versions);
        sweep.restless |= akey.single.is_restless(versions);
        sweep.late |= akey.single.has_late(floor, versions);
    }
    let record_bytes = akey.record_bytes().into();
    let Some(array) = &mut akey.array else { return (1, None) };
    let range = Extent { index: from, count: ALL.count - from };
    let (work, next) = array.walk(range, limit, Some(record_bytes), versions, |stack, versions| {
        let looked = stack.pieces(versions).len();
        stack.thin(views, floor, versions);
        stack.drop_bottom_hole(floor, versions);
        sweep.restless |= stack.is_restless(versions);
        sweep.late |= stack.has_late(floor, versions);
        1 + looked / VERSIONS_AN_ITEM
    });
    if array.is_empty() {
        akey.array = None;
    }
    (work + 1, next)
}
