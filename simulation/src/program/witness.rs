//! Programs that look for one thing each: that what was told is seen, that a kept snapshot stays, that the death of a process
//! ends what it wrote in.

use std::sync::{Arc, Mutex};

use talea_client::{Condition, Container, EntryUpdate, ErrorKind, ValueKind, Write};
use talea_model::{Layout, ObjectClass, Oid, Summary, TargetId, View};
use talea_wire::log::{ContainerProperties, SnapshotAt};

use super::Context;
use crate::history::{Cell, Read, Told, Value};
use crate::time::lock;

/// Cells of these programs; nobody else writes them.
pub(super) const TELLER: Cell = 200;
pub(super) const TELLER_CELLS: Cell = 4;
const ORPHAN: Cell = 208;
/// Cells of another container.
const KEEPER: Cell = 1000;
const KEEPER_CELLS: Cell = 3;
const ROUNDS: u64 = 12;
/// How long the end of a process may take to be noticed by everybody, in microseconds: a partition lasts two seconds, a server may be gone
/// for as long before it, and the session of a process that nobody can watch has a lease when its server is back.
const NOTICED_US: u64 = 7_000_000;

/// Writes at once, and opens a snapshot: it must include what this process was told of (rules 1 and 8).
pub(crate) async fn teller(context: Context, done: Arc<Mutex<bool>>) {
    let container = context.container().await;
    for _ in 0..4 * ROUNDS {
        if *lock(&done) {
            return;
        }
        let cell = TELLER + context.draw(TELLER_CELLS.into()) as Cell;
        let wrote: Value = context.draw(u64::MAX).max(1);
        if context.write(&container, &Write::Auto, cell, wrote).await {
            if let Ok(snapshot) = container.snapshot_async(SnapshotAt::Latest).await
                && let Some(saw) = context.read(&container, snapshot.view(), cell).await
            {
                let read = Read { reader: u32::MAX, stamp: snapshot.info().stamp, cell, value: saw };
                let mut history = lock(&context.history);
                history.told.push((wrote, saw));
                history.reads.push(read);
            }
        } else {
            // Nobody knows what the cell holds now, but what is written next.
            context.time.sleep_us(1_000).await;
        }
        context.time.sleep_us(context.draw(30_000)).await;
    }
}

/// Writes to each target alone, again and again, and asks nobody for anything else: whatever it was told while faults went on, it must
/// come through to each of them when they are over. Does not end before.
pub(crate) async fn visitor(context: Context, done: Arc<Mutex<bool>>) {
    let container = context.container().await;
    let mut waiting: Vec<TargetId> = context.client.map().targets.iter().map(|target| target.id).collect();
    let all = waiting.clone();
    while !waiting.is_empty() {
        let is_over = *lock(&done);
        let mut silent = vec![];
        for target in waiting {
            if is_silent(&context, &container, target).await {
                silent.push(target);
            }
        }
        waiting = if is_over { silent } else { all.clone() };
        context.time.sleep_us(100_000).await;
    }
}

/// Whether a target cannot be written to. One that says no, as because it is full, is there.
async fn is_silent(context: &Context, container: &Container, target: TargetId) -> bool {
    let map = context.client.map();
    let mut oids = (0..).map(|number| Oid::new(ObjectClass::S1, 700 + number));
    let lies_there = |oid: &Oid| Layout::of(*oid, &map).is_some_and(|layout| layout.targets() == [target]);
    let Some(oid) = oids.find(lies_there) else { return true };
    let entry = EntryUpdate {
        dkey: b"visit",
        akey: b"value",
        kind: ValueKind::Single,
        condition: Condition::None,
        extents: &[],
        data: b"here",
    };
    let written = container.object(oid).update_async(&Write::Auto, &[entry]).await;
    written.is_err_and(|error| matches!(error.kind(), ErrorKind::ServerLost | ErrorKind::Deadline))
}

/// Keeps a snapshot open in a container that keeps hardly any step, and reads it again after each (rule 13).
pub(crate) async fn keeper(context: Context, done: Arc<Mutex<bool>>) {
    let properties = ContainerProperties { kept_steps: 1, ..ContainerProperties::default() };
    let container = loop {
        match context.client.container_create_async("kept", properties.clone(), true).await {
            Ok(container) => break container,
            Err(_) => context.time.sleep_us(20_000).await,
        }
    };
    for round in 0..ROUNDS {
        if *lock(&done) {
            return;
        }
        let Ok(snapshot) = container.snapshot_async(SnapshotAt::Latest).await else {
            context.time.sleep_us(20_000).await;
            continue;
        };
        let session = context.client.session();
        for _ in 0..3 {
            look(&context, &container, snapshot.view(), session).await;
            step(&context, &container, round).await;
        }
        look(&context, &container, snapshot.view(), session).await;
        context.time.sleep_us(context.draw(30_000)).await;
    }
}

async fn look(context: &Context, container: &Container, view: View, session: talea_model::SessionId) {
    for cell in KEEPER..KEEPER + KEEPER_CELLS {
        let View::Snapshot { stamp, .. } = view else { return };
        let read = context.try_read(container, view, cell).await;
        // With the session the lease has ended.
        let is_leased = context.client.session() == session;
        let mut history = lock(&context.history);
        match read {
            Ok(value) => history.reads.push(Read { reader: u32::MAX - 1, stamp, cell, value }),
            Err(kind @ ErrorKind::Retention) if is_leased => {
                history.refused_reads.push(format!("cell {cell} in the leased snapshot {stamp}: {kind:?}"));
            }
            Err(_) => {}
        }
    }
}

async fn step(context: &Context, container: &Container, round: u64) {
    context.asks_to_begin();
    let Ok(epoch) = container.begin_async(true).await else { return };
    for cell in KEEPER..KEEPER + KEEPER_CELLS {
        let value = (epoch.tx().0 << 24) | (round << 8) | u64::from(cell - KEEPER + 1);
        context.write(container, &Write::Inside(&epoch), cell, value).await;
    }
    if epoch.commit_async(&epoch.summary(), &[], false).await.committed.is_err() {
        let _ = epoch.abort_async("its commit has no answer").await;
    }
}

/// What a mother and her orphan share.
#[derive(Default)]
pub(crate) struct Family {
    blob: Option<Vec<u8>>,
    /// What the orphan did; then it is to be killed.
    pub(crate) last_words: Option<Summary>,
    pub(crate) is_dead: bool,
}

/// Begins an epoch in which another process writes, and tries to commit it when that one is dead (rules 3 and 12).
pub(crate) async fn mother(context: Context, family: Arc<Mutex<Family>>) {
    let container = context.container().await;
    context.asks_to_begin();
    let Ok(epoch) = container.begin_async(true).await else {
        lock(&family).blob = Some(vec![]);
        context.time.moved();
        return;
    };
    lock(&family).blob = Some(epoch.blob());
    context.time.moved();
    let orphan = context.time.until(|| {
        let family = lock(&family);
        family.last_words.clone().filter(|_| family.is_dead)
    });
    let mut summary = orphan.await;
    context.time.sleep_us(NOTICED_US).await;
    let wrote = !summary.touched.is_empty();
    summary.merge(&epoch.summary());
    let outcome = epoch.commit_async(&summary, &epoch.tx().0.to_le_bytes(), false).await;
    if wrote {
        let told = if outcome.committed.is_ok() { Told::Done } else { Told::Refused };
        lock(&context.history).orphaned.push((epoch.tx(), told));
    }
}

/// Writes in another one's epoch, and is killed before it could say so.
pub(crate) async fn orphan(context: Context, family: Arc<Mutex<Family>>) {
    let container = context.container().await;
    let blob = context.time.until(|| lock(&family).blob.clone()).await;
    let mut summary = Summary::default();
    // Kept until it is killed: dead processes say nothing, not even that they leave.
    let mut held = None;
    if let Ok(epoch) = container.join(&blob) {
        context.write(&container, &Write::Inside(&epoch), ORPHAN, (epoch.tx().0 << 24) | 1).await;
        summary = epoch.summary();
        held = Some(epoch);
    }
    lock(&family).last_words = Some(summary);
    context.time.moved();
    std::future::pending::<()>().await;
    drop(held);
}
