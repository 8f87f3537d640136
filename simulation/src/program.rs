//! The programs that run in the simulated job: writers that share epochs, readers that look at snapshots, followers.
//!
//! They use the client as any program does, and note what they did and saw. Must never look into the system.

use std::sync::{Arc, Mutex};

mod moved;
mod names;
mod optimistic;
mod witness;

pub(crate) use moved::{gazer, mover};
pub(crate) use optimistic::{inserter, transactor};
pub(crate) use witness::{Family, keeper, mother, orphan, teller, visitor};

use talea_client::{Client, Container, EntryFetch, EntryUpdate, Epoch, ErrorKind, WaitOutcome as Waited, Write};
use talea_model::{Extent, ObjectClass, Oid, Step, Summary, TxId};
use talea_wire::data::{Condition, ValueKind};
use talea_wire::log::{ContainerProperties, SnapshotAt};

use crate::history::{Cell, History, Inside, Outcome, Read, Transaction, Value};
use crate::random::Random;
use crate::stand::Gate;
use crate::time::{Timeline, lock};

/// Cells that epochs write.
pub(crate) const CELLS: Cell = 16;
/// Cells that autocommits write, numbered after the others. Their stamps are not known to anybody: I2 alone holds for them.
pub(crate) const AUTO_CELLS: Cell = 4;
/// Writers of one job, which share its epochs.
pub(crate) const WRITERS: u32 = 2;
const CONTAINER: &str = "run";

/// What every program gets.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) time: Timeline,
    pub(crate) history: Arc<Mutex<History>>,
    pub(crate) random: Arc<Mutex<Random>>,
    pub(crate) gate: Gate,
}

/// What the writers of one job share: the part of MPI.
#[derive(Default)]
pub(crate) struct Job {
    /// Round and blob of the open epoch.
    blob: Option<(u64, Vec<u8>)>,
    /// Summaries of the round that is being flushed.
    flushed: Vec<(u64, Summary)>,
    /// Rounds that are over.
    over: u64,
}

struct Place {
    oid: Oid,
    dkey: [u8; 1],
    akey: &'static [u8],
    extent: Option<Extent>,
}

/// Where a cell lies: even ones are single values, odd ones records of arrays; eight cells an object.
fn place(cell: Cell) -> Place {
    let array = cell % 2 == 1;
    Place {
        oid: Oid::new(ObjectClass::SX, 100 + u128::from(cell / 8)),
        dkey: [b'a' + (cell % 8) as u8],
        akey: if array { b"array" } else { b"value" },
        extent: array.then_some(Extent { index: 5 + u64::from(cell), count: 1 }),
    }
}

fn kind(place: &Place) -> ValueKind {
    if place.extent.is_some() { ValueKind::Array { record_bytes: 8 } } else { ValueKind::Single }
}

impl Context {
    fn draw(&self, end: u64) -> u64 {
        lock(&self.random).below(end)
    }

    async fn container(&self) -> Container {
        loop {
            match self.client.container_create_async(CONTAINER, ContainerProperties::default(), true).await {
                Ok(container) => return container,
                Err(_) => self.time.sleep_us(20_000).await,
            }
        }
    }

    async fn write(&self, container: &Container, write: &Write<'_>, cell: Cell, value: Value) -> bool {
        let place = place(cell);
        let entry = EntryUpdate {
            dkey: &place.dkey,
            akey: place.akey,
            kind: kind(&place),
            condition: Condition::None,
            extents: place.extent.as_slice(),
            data: &value.to_le_bytes(),
        };
        let updated = container.object(place.oid).update_async(write, &[entry]).await;
        updated.map_err(|error| self.note_refused(error.kind())).is_ok()
    }

    /// Counts refusals that only some faults explain.
    fn note_refused(&self, kind: ErrorKind) -> ErrorKind {
        let mut history = lock(&self.history);
        history.lost_reads += u64::from(kind == ErrorKind::DataLost);
        history.full += u64::from(kind == ErrorKind::NoSpace);
        kind
    }

    async fn read(&self, container: &Container, view: talea_model::View, cell: Cell) -> Option<Value> {
        self.try_read(container, view, cell).await.ok()
    }

    async fn try_read(&self, container: &Container, view: talea_model::View, cell: Cell) -> Result<Value, ErrorKind> {
        let place = place(cell);
        let mut bytes = [0; 8];
        let mut entry = match &place.extent {
            Some(extent) => EntryFetch::array(&place.dkey, place.akey, 8, std::slice::from_ref(extent), &mut bytes),
            None => EntryFetch::single(&place.dkey, place.akey, &mut bytes),
        };
        let _near = self.gate.near(&self.time).await;
        let fetched = container.object(place.oid).fetch_async(&view, std::slice::from_mut(&mut entry)).await;
        fetched.map_err(|error| self.note_refused(error.kind()))?;
        Ok(Value::from_le_bytes(bytes))
    }

    /// The first writer of a round begins its epoch, or goes on with the one that the last commit began.
    async fn begin(&self, container: &Container, next: Option<Epoch>) -> Epoch {
        if let Some(epoch) = next {
            return epoch;
        }
        loop {
            self.asks_to_begin();
            match container.begin_async(true).await {
                Ok(epoch) => return epoch,
                Err(_) => self.time.sleep_us(20_000).await,
            }
        }
    }

    /// Writes some cells of this writer's share into the epoch.
    async fn write_some(&self, container: &Container, epoch: &Epoch, writer: u32) {
        for _ in 0..=self.draw(5) {
            let cell = self.draw(u64::from(CELLS / WRITERS)) as Cell * WRITERS + writer;
            if let Some(value) = self.write_one(container, epoch, cell, false).await {
                self.look_inside(container, epoch, cell, value).await;
            }
            if self.draw(4) == 0 {
                self.time.sleep_us(self.draw(3_000)).await;
            }
        }
    }

    /// A writer sees what it has just written (rule 4), as often as it looks: from some looks on in place, where it can.
    async fn look_inside(&self, container: &Container, epoch: &Epoch, cell: Cell, written: Value) {
        if !written.is_multiple_of(3) {
            return;
        }
        for _ in 0..3 + written / 3 % 6 {
            let Some(seen) = self.read(container, epoch.view(), cell).await else { return };
            let mut history = lock(&self.history);
            // A write whose answer never came may arrive at any time.
            let known = history.transactions.get(&epoch.tx()).is_some_and(|one| !one.uncertain.contains(&cell));
            if known {
                history.inside.push(Inside { tx: epoch.tx(), cell, written, seen });
            }
        }
    }

    /// Returns what was written, if that is known.
    async fn write_one(&self, container: &Container, epoch: &Epoch, cell: Cell, late: bool) -> Option<Value> {
        let value = (epoch.tx().0 << 24) | self.draw(1 << 24).max(1);
        // Until it is acknowledged nobody can tell what the cell holds.
        self.note(epoch.tx(), |transaction| transaction.uncertain.push(cell));
        let done = self.write(container, &Write::Inside(epoch), cell, value).await;
        if done && !late {
            self.note(epoch.tx(), |transaction| {
                transaction.writes.insert(cell, value);
                let at = transaction.uncertain.iter().position(|uncertain| *uncertain == cell);
                at.map(|at| transaction.uncertain.swap_remove(at));
            });
        }
        (done && !late).then_some(value)
    }

    /// Counts a request for a transaction, before it is made.
    fn asks_to_begin(&self) {
        lock(&self.history).begins_asked += 1;
    }

    fn note(&self, tx: TxId, change: impl FnOnce(&mut Transaction)) {
        change(lock(&self.history).transactions.entry(tx).or_default());
    }
}

/// One of the writers of a job. Writer 0 begins and commits for all.
pub(crate) async fn writer(context: Context, job: Arc<Mutex<Job>>, writer: u32, rounds: u64) {
    let container = context.container().await;
    let mut next = None;
    for round in 0..rounds {
        let epoch = if writer == 0 {
            let epoch = context.begin(&container, next.take()).await;
            context.note(epoch.tx(), |_| {});
            lock(&job).blob = Some((round, epoch.blob()));
            context.time.moved();
            epoch
        } else {
            let published = || lock(&job).blob.clone().filter(|(at, _)| *at == round);
            let (_, blob) = context.time.until(published).await;
            match container.join(&blob) {
                Ok(epoch) => epoch,
                Err(error) => panic!("an epoch's own blob is refused: {error}"),
            }
        };
        context.write_some(&container, &epoch, writer).await;
        if context.draw(6) == 0 {
            let cell = CELLS + context.draw(u64::from(AUTO_CELLS)) as Cell;
            context.write(&container, &Write::Auto, cell, context.draw(u64::MAX)).await;
        }
        lock(&job).flushed.push((round, epoch.summary()));
        context.time.moved();
        if writer == 0 {
            next = commit(&context, &container, &job, &epoch, round).await;
            look_at_latest(&context, &container, epoch.tx()).await;
        } else {
            if context.draw(5) == 0 {
                // A program that breaks the rules: it writes when its part has been flushed, or even when all is over.
                context.time.sleep_us(context.draw(6_000)).await;
                let cell = context.draw(u64::from(CELLS / WRITERS)) as Cell * WRITERS + writer;
                context.write_one(&container, &epoch, cell, true).await;
            }
            context.time.until(|| (lock(&job).over > round).then_some(())).await;
            epoch.closed_elsewhere();
        }
        context.time.sleep_us(context.draw(4_000)).await;
    }
}

/// Reduces the round's summaries and commits.
async fn commit(
    context: &Context,
    container: &Container,
    job: &Arc<Mutex<Job>>,
    epoch: &Epoch,
    round: u64,
) -> Option<Epoch> {
    let all = || {
        let job = lock(job);
        let of_round = job.flushed.iter().filter(|(at, _)| *at == round);
        (of_round.clone().count() == WRITERS as usize).then(|| {
            of_round.fold(Summary::default(), |mut sum, (_, part)| {
                sum.merge(part);
                sum
            })
        })
    };
    let mut summary = context.time.until(all).await;
    let names = names::name(context, container, epoch, &mut summary).await;
    context.asks_to_begin();
    let outcome = epoch.commit_named_async(&summary, &epoch.tx().0.to_le_bytes(), names, true).await;
    let known = match &outcome.committed {
        Ok(committed) => Outcome::Committed { stamp: committed.stamp, step: committed.step },
        // Only who was told that there is no commit got another epoch with the answer.
        Err(error) if error.kind() != ErrorKind::Aborted && outcome.next.is_none() => Outcome::Unknown,
        Err(_) => Outcome::Aborted,
    };
    context.note(epoch.tx(), |transaction| transaction.outcome = known);
    if matches!(known, Outcome::Unknown) {
        let _ = epoch.abort_async("its commit has no answer").await;
    }
    let mut job = lock(job);
    job.over = round + 1;
    job.flushed.retain(|(at, _)| *at > round);
    context.time.moved();
    outcome.next
}

/// What this writer committed is what everybody sees, or something later (rule 8).
async fn look_at_latest(context: &Context, container: &Container, tx: TxId) {
    let written = {
        let history = lock(&context.history);
        let transaction = history.transactions.get(&tx);
        let Some((Outcome::Committed { stamp, .. }, known)) = transaction.map(|one| (one.outcome, one)) else { return };
        let cell = known.writes.keys().find(|cell| !known.uncertain.contains(cell)).copied();
        cell.map(|cell| (stamp, cell))
    };
    let Some((stamp, cell)) = written else { return };
    if let Some(value) = context.read(container, talea_model::View::Latest, cell).await {
        lock(&context.history).latest.push((stamp, value));
    }
}

/// Opens snapshots, reads all cells, waits, and reads them again.
pub(crate) async fn reader(context: Context, reader: u32, done: Arc<Mutex<bool>>) {
    let container = context.container().await;
    while !*lock(&done) {
        let Ok(snapshot) = container.snapshot_async(SnapshotAt::Latest).await else {
            context.time.sleep_us(10_000).await;
            continue;
        };
        for _ in 0..=context.draw(3) {
            for cell in (0..CELLS + AUTO_CELLS).chain(witness::TELLER..witness::TELLER + witness::TELLER_CELLS) {
                if let Some(value) = context.read(&container, snapshot.view(), cell).await {
                    let stamp = snapshot.info().stamp;
                    lock(&context.history).reads.push(Read { reader, stamp, cell, value });
                }
            }
            context.time.sleep_us(context.draw(8_000)).await;
        }
    }
}

/// Receives every step, in order, over whatever happens to servers.
pub(crate) async fn follower(context: Context, follower: u32, done: Arc<Mutex<bool>>) {
    let container = context.container().await;
    let mut subscription = loop {
        match container.subscribe_async(Step(0)).await {
            Ok(subscription) => break subscription,
            Err(_) => context.time.sleep_us(20_000).await,
        }
    };
    while !*lock(&done) {
        match subscription.wait_async(200, 16).await {
            Ok(Waited::Steps { steps, .. }) => {
                let received = steps.iter().map(|step| (step.step, step.stamp));
                lock(&context.history).followed.entry(follower).or_default().extend(received);
            }
            Ok(_) => {}
            Err(_) => context.time.sleep_us(20_000).await,
        }
    }
}

/// When all is at rest: what does the pool itself say?
pub(crate) async fn audit(context: Context) {
    let container = context.container().await;
    let mut after = Step(0);
    'all: loop {
        let Ok(mut subscription) = container.subscribe_async(after).await else {
            context.time.sleep_us(20_000).await;
            continue;
        };
        loop {
            match subscription.wait_async(100, 64).await {
                Ok(Waited::Steps { steps, .. }) => {
                    for step in steps {
                        after = step.step;
                        names::look_up(&context, &container, &step).await;
                        let tx = step.attributes[..].try_into().map(u64::from_le_bytes).unwrap_or_default();
                        lock(&context.history).steps.insert(step.step, (TxId(tx), step.stamp));
                    }
                }
                Ok(_) => break 'all,
                Err(_) => {
                    context.time.sleep_us(20_000).await;
                    break;
                }
            }
        }
    }
    loop {
        if let Ok(status) = context.client.status_async().await {
            lock(&context.history).open_at_end = status.transactions.iter().map(|(tx, ..)| *tx).collect();
            break;
        }
        context.time.sleep_us(20_000).await;
    }
    optimistic::audit(&context, &container).await;
}
