//! Programs for the short way: one that writes the same values again and again, so that blocks are given back, moved and used again all
//! the time, and some that look at one of them in a snapshot, over and over, mostly in place.

use std::sync::{Arc, Mutex};

use talea_client::{Condition, Container, EntryFetch, EntryUpdate, Write};
use talea_model::{Extent, ObjectClass, Oid, View};
use talea_wire::data::ValueKind;
use talea_wire::log::{ContainerProperties, SnapshotAt};

use super::Context;
use crate::history::{Cell, Read, Value};
use crate::time::lock;

const FIRST: Cell = 3_000;
const VALUES: u64 = 32;
/// Values that one step writes.
const A_STEP: u64 = 12;
/// Records of a value that lies in a segment of the log beside others, and of one that has blocks of its own.
const SHORT: usize = 60;
const LONG: usize = 700;
/// Looks at one value in one snapshot: about as long as a lease.
const LOOKS: u64 = 14;
const BETWEEN_LOOKS_US: u64 = 120_000;

fn records(number: u64) -> usize {
    if number.is_multiple_of(8) { LONG } else { SHORT }
}

fn object(container: &Container, number: u64) -> talea_client::Object {
    container.object(Oid::new(ObjectClass::S1, 900 + u128::from(number)))
}

/// All records of value `number` are the same, and say whose they are.
fn content(draw: u64, number: u64) -> Value {
    (draw << 8) | number
}

async fn container(context: &Context) -> Container {
    let properties = ContainerProperties { kept_steps: 1, ..ContainerProperties::default() };
    loop {
        match context.client.container_create_async("moved", properties.clone(), true).await {
            Ok(container) => return container,
            Err(_) => context.time.sleep_us(20_000).await,
        }
    }
}

/// Writes steps of which hardly any is kept.
pub(crate) async fn mover(context: Context, done: Arc<Mutex<bool>>) {
    let container = container(&context).await;
    while !*lock(&done) {
        context.asks_to_begin();
        let Ok(epoch) = container.begin_async(true).await else {
            context.time.sleep_us(20_000).await;
            continue;
        };
        for _ in 0..A_STEP {
            let number = context.draw(VALUES);
            let data = content(context.draw(1 << 40).max(1), number).to_le_bytes().repeat(records(number));
            let extents = [Extent { index: 0, count: records(number) as u64 }];
            let (kind, condition) = (ValueKind::Array { record_bytes: 8 }, Condition::None);
            let entry = EntryUpdate { dkey: b"d", akey: b"a", kind, condition, extents: &extents, data: &data };
            let updated = object(&container, number).update_async(&Write::Inside(&epoch), &[entry]).await;
            let _ = updated.map_err(|error| context.note_refused(error.kind()));
        }
        if epoch.commit_async(&epoch.summary(), &[], false).await.committed.is_err() {
            let _ = epoch.abort_async("its commit has no answer").await;
        }
        context.time.sleep_us(context.draw(12_000)).await;
    }
}

/// Looks at one value of a snapshot for about as long as a lease lasts, and at another one in the next.
pub(crate) async fn gazer(context: Context, gazer: u32, done: Arc<Mutex<bool>>) {
    let container = container(&context).await;
    while !*lock(&done) {
        let Ok(snapshot) = container.snapshot_async(SnapshotAt::Latest).await else {
            context.time.sleep_us(20_000).await;
            continue;
        };
        let number = context.draw(VALUES);
        for _ in 0..LOOKS {
            let was_read = look(&context, &container, (snapshot.view(), number), gazer).await;
            context.time.sleep_us(context.draw(BETWEEN_LOOKS_US)).await;
            if !was_read {
                break;
            }
        }
    }
}

/// Whether it could be read.
async fn look(context: &Context, container: &Container, (view, number): (View, u64), gazer: u32) -> bool {
    let View::Snapshot { stamp, .. } = view else { return false };
    let mut bytes = vec![0; 8 * records(number)];
    let extents = [Extent { index: 0, count: records(number) as u64 }];
    let mut entries = [EntryFetch::array(b"d", b"a", 8, &extents, &mut bytes)];
    let _near = context.gate.near(&context.time).await;
    let fetched = object(container, number).fetch_async(&view, &mut entries).await;
    if fetched.map_err(|error| context.note_refused(error.kind())).is_err() {
        return false;
    }
    let values = bytes.chunks_exact(8).map(|record| record.try_into().map(Value::from_le_bytes).unwrap_or_default());
    let mut values: Vec<Value> = values.collect();
    values.dedup();
    let cell = FIRST + number as Cell;
    let mut history = lock(&context.history);
    match values[..] {
        [value] if value == 0 || value & 0xff == number => {
            history.reads.push(Read { reader: 100 + gazer, stamp, cell, value });
        }
        _ => {
            let what = format!("cell {cell} in the snapshot {stamp} holds {:#x?}, which nobody wrote there", &values);
            history.foreign.push(what);
        }
    }
    true
}
