//! Settling and aggregation: what the index does when fates become known and floors rise (docs/design.md §4 rules 7, 13).
//!
//! Both only take away what no view can see, so they can stop after any dkey.

use talea_model::{ContainerId, Ledger, Stamp};

use super::Index;
use super::lens::{Lens, Rank};
use super::node::Dkey;
use super::stack::Stack;
use super::version::Versions;

/// A view, and the rank at and below which it sees nothing.
type Hiding<'a> = (Lens<'a>, Option<Rank>);

impl Index {
    /// Settles everything in a dkey whose fate is known.
    pub(crate) fn settle_dkey(&mut self, id: u32, ledger: &Ledger) {
        let Some(node) = self.dkeys.get_mut(id) else { return };
        let versions = &mut self.versions;
        node.punches.settle(ledger, versions);
        for (_, akey) in &mut node.akeys {
            akey.punches.settle(ledger, versions);
            akey.single.settle(ledger, versions);
            akey.array.stacks_mut().for_each(|stack| stack.settle(ledger, versions));
            let record_bytes = akey.record_bytes().into();
            if akey.array.stacks_mut().any(|stack| stack.is_empty()) {
                akey.array.tidy(record_bytes, versions);
            }
        }
        node.waiting.retain(|tx| ledger.admits(*tx));
        node.akeys.retain(|(_, akey)| !akey.is_empty());
        self.mark_restless(id);
        self.drop_if_empty(id);
    }

    /// Settles an object's punches.
    pub(crate) fn settle_object(&mut self, id: u32, ledger: &Ledger) {
        let Some(object) = self.objects.get_mut(id) else { return };
        object.punches.settle(ledger, &mut self.versions);
        object.waiting.retain(|tx| ledger.admits(*tx));
        self.drop_object_if_empty(id);
    }

    /// Drops what no view of a dkey can see. Returns the number of stacks looked at, and whether the dkey has to be looked at
    /// again when the floor rises.
    pub(crate) fn aggregate_dkey(&mut self, id: u32, ledger: &Ledger) -> (usize, bool) {
        self.settle_dkey(id, ledger);
        let Some(mut node) = self.dkeys.remove_for_work(id) else { return (1, false) };
        let Some((floor, stamps)) = self.views_of(node.at.container) else {
            self.dkeys.put_back(id, node);
            return (1, true);
        };
        let object = self.objects.get(node.object);
        let views: Vec<Hiding> = stamps
            .iter()
            .map(|stamp| {
                let lens = Lens::at(ledger, *stamp);
                let above = object.and_then(|object| self.hidden_object(object, &lens));
                (lens, above)
            })
            .collect();
        let (work, restless) = thin_dkey(&mut node, &views, floor, &mut self.versions);
        node.restless = restless;
        self.dkeys.put_back(id, node);
        self.drop_if_empty(id);
        (work, restless)
    }

    /// Drops punches of an object that no view needs.
    pub(crate) fn aggregate_object(&mut self, id: u32, ledger: &Ledger) {
        self.settle_object(id, ledger);
        let Some(at) = self.objects.get(id).map(|object| object.at) else { return };
        let Some((floor, stamps)) = self.views_of(at.container) else { return };
        let views: Vec<_> = stamps.iter().map(|stamp| (Lens::at(ledger, *stamp), None)).collect();
        let object = self.objects.must(id);
        object.punches.thin(&views, floor, &mut self.versions);
        if object.dkeys.is_empty() {
            object.punches.drop_bottom_hole(floor, &mut self.versions);
        }
        self.drop_object_if_empty(id);
    }

    /// The floor, and the stamps at or below it that can still be read, ascending.
    fn views_of(&self, container: ContainerId) -> Option<(Stamp, Vec<Stamp>)> {
        let container = self.containers.get(&container)?;
        if container.floor == Stamp::ZERO {
            return None;
        }
        let mut stamps: Vec<Stamp> = container.kept.range(..container.floor).map(|(stamp, _)| *stamp).collect();
        stamps.push(container.floor);
        Some((container.floor, stamps))
    }

    fn drop_if_empty(&mut self, id: u32) {
        let Some(node) = self.dkeys.get(id) else { return };
        if !(node.punches.is_empty() && node.akeys.is_empty() && node.waiting.is_empty()) {
            return;
        }
        let Some(node) = self.dkeys.remove(id) else { return };
        if let Some(object) = self.objects.get_mut(node.object) {
            object.dkeys.remove(&node.key);
        }
        self.drop_object_if_empty(node.object);
    }

    fn drop_object_if_empty(&mut self, id: u32) {
        let Some(object) = self.objects.get(id) else { return };
        if !(object.punches.is_empty() && object.dkeys.is_empty() && object.waiting.is_empty()) {
            return;
        }
        let Some(object) = self.objects.remove(id) else { return };
        if let Some(container) = self.containers.get_mut(&object.at.container) {
            container.objects.remove(&object.at.oid);
        }
    }
}

/// Views of what lies under punches.
fn deeper<'a>(above: &[Hiding<'a>], punches: &Stack, versions: &Versions) -> Vec<Hiding<'a>> {
    let hide = |lens: &Lens| punches.top(lens, versions).map(|(rank, _)| rank);
    above.iter().map(|(lens, hidden)| (*lens, (*hidden).max(hide(lens)))).collect()
}

/// Thins all stacks of a dkey, then drops punches that have nothing left to hide.
fn thin_dkey(node: &mut Dkey, above: &[Hiding], floor: Stamp, versions: &mut Versions) -> (usize, bool) {
    let in_dkey = deeper(above, &node.punches, versions);
    let (mut work, mut restless) = (1, false);
    for (_, akey) in &mut node.akeys {
        let in_akey = deeper(&in_dkey, &akey.punches, versions);
        akey.single.thin(&in_akey, floor, versions);
        for stack in akey.array.stacks_mut() {
            work += 1;
            stack.thin(&in_akey, floor, versions);
            stack.drop_bottom_hole(floor, versions);
        }
        let record_bytes = akey.record_bytes().into();
        akey.array.tidy(record_bytes, versions);
        akey.punches.thin(&in_dkey, floor, versions);
        if akey.single.is_empty() && akey.array.is_empty() {
            akey.punches.drop_bottom_hole(floor, versions);
        }
        restless |= !akey.punches.is_empty() || akey.single.is_restless(versions) && !akey.single.is_empty();
        restless |= akey.array.columns().any(|(_, column)| column.stack.is_restless(versions));
    }
    node.akeys.retain(|(_, akey)| !akey.is_empty());
    node.punches.thin(above, floor, versions);
    if node.akeys.is_empty() {
        node.punches.drop_bottom_hole(floor, versions);
    }
    (work, restless || !node.punches.is_empty())
}
