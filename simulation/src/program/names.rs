//! What a file layer does at a commit: it names what the epoch wrote, in the epoch itself (docs/design.md §4 rule 5), and somebody looks
//! it up afterwards.

use talea_client::{Container, EntryUpdate, Epoch, StepRecord, Write};
use talea_model::{Manifest, Summary, WrittenFile, manifest};
use talea_wire::data::{Condition, ValueKind};

use super::{Context, place};
use crate::time::lock;

/// Names the object of one of the cells that this program wrote, where that cell lies. The answer says under which key.
pub(super) async fn name(
    context: &Context,
    container: &Container,
    epoch: &Epoch,
    summary: &mut Summary,
) -> Option<u32> {
    let cells: Vec<_> = {
        let history = lock(&context.history);
        history.transactions.get(&epoch.tx()).map(|one| one.writes.keys().copied().collect()).unwrap_or_default()
    };
    if summary.failed || cells.is_empty() {
        return None;
    }
    let place = place(cells[context.draw(cells.len() as u64) as usize]);
    let slot = container.manifest_slot(place.oid, &place.dkey).ok()?;
    let path = epoch.tx().0.to_le_bytes().to_vec();
    let names = Manifest::new(epoch.tx(), vec![WrittenFile { path, oid: place.oid }]).encode();
    let entry = EntryUpdate {
        dkey: &manifest::dkey(slot),
        akey: manifest::AKEY,
        kind: ValueKind::Single,
        condition: Condition::None,
        extents: &[],
        data: &names,
    };
    let object = container.object(manifest::object());
    let written = object.update_async(&Write::Inside(epoch), &[entry]).await;
    let before = summary.touched.clone();
    summary.merge(&epoch.summary());
    if summary.touched != before {
        let what = format!("{}: its files are named on a target that it did not write to", epoch.tx());
        lock(&context.history).misnamed.push(what);
    }
    written.ok().map(|()| slot)
}

/// A step that says where its files are named names them there, for as long as it is kept and its target has its data.
pub(super) async fn look_up(context: &Context, container: &Container, step: &StepRecord) {
    let Ok(found) = container.manifest_async(step).await else { return };
    let named = found.as_ref().map(|found| found.files.iter().map(|file| &file.path[..]).collect::<Vec<_>>());
    let mut history = lock(&context.history);
    match (step.manifest, named.as_deref()) {
        (None, None) => {}
        (Some(_), Some([path])) if **path == step.tx.0.to_le_bytes() => history.named += 1,
        (slot, named) => history.misnamed.push(format!("step {}: named under {slot:?}, found {named:?}", step.step)),
    }
}
