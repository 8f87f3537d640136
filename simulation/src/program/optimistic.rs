//! Programs of independent transactions and of exclusive creation.

use std::sync::{Arc, Mutex};

use talea_client::{Container, EntryFetch, EntryUpdate, ErrorKind, Write};
use talea_model::{ObjectClass, Oid, View};
use talea_wire::data::{Condition, ValueKind};

use super::Context;
use crate::history::{Cell, Insert, Optimistic, Told, Value};
use crate::time::lock;

/// First cell of the transactions' own, and their number.
pub(crate) const FIRST: Cell = 100;
const CELLS: u64 = 5;
/// Transactions of one program.
const ROUNDS: u64 = 14;
/// Rows that the programs compete for.
const ROWS: u64 = 16;

/// Reads cells, writes some of them, and commits if nobody was faster; now and then writes one at once.
pub(crate) async fn transactor(context: Context, done: Arc<Mutex<bool>>) {
    let container = context.container().await;
    for _ in 0..ROUNDS {
        if *lock(&done) {
            return;
        }
        if context.draw(8) == 0 {
            auto(&context, &container).await;
        }
        one(&context, &container).await;
        context.time.sleep_us(context.draw(6_000)).await;
    }
}

/// A write without a transaction: a transaction of one write that reads nothing.
async fn auto(context: &Context, container: &Container) {
    let cell = FIRST + context.draw(CELLS) as Cell;
    let value = context.draw(u64::MAX).max(1);
    let began_ns = context.time.now_ns();
    let at = note(context, Optimistic { writes: vec![(cell, value)], began_ns, ..Optimistic::default() });
    let written = context.write(container, &Write::Auto, cell, value).await;
    let mut history = lock(&context.history);
    if written {
        history.optimistic[at].outcome = Told::Done;
    }
}

fn note(context: &Context, optimistic: Optimistic) -> usize {
    let mut history = lock(&context.history);
    history.optimistic.push(optimistic);
    history.optimistic.len() - 1
}

async fn one(context: &Context, container: &Container) {
    let began_ns = context.time.now_ns();
    context.asks_to_begin();
    let Ok(transaction) = container.tx_open_async().await else {
        context.time.sleep_us(20_000).await;
        return;
    };
    let first = context.draw(CELLS);
    let asked: Vec<Cell> = (0..=context.draw(3)).map(|step| FIRST + ((first + step) % CELLS) as Cell).collect();
    let mut optimistic = Optimistic { began_ns, ..Optimistic::default() };
    for cell in &asked {
        match context.read(container, transaction.view(), *cell).await {
            Some(value) => optimistic.reads.push((*cell, value)),
            None => return,
        }
        if context.draw(3) == 0 {
            context.time.sleep_us(context.draw(2_000)).await;
        }
    }
    // Each is read before it is written, so that the order of the versions can be told from what was read.
    for cell in asked.iter().take(context.draw(3) as usize) {
        let value = (transaction.tx().0 << 24) | context.draw(1 << 24).max(1);
        if !context.write(container, &transaction.write(), *cell, value).await {
            return;
        }
        optimistic.writes.push((*cell, value));
    }
    let at = note(context, optimistic);
    let told = match transaction.commit_async().await {
        Ok(_) => Told::Done,
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Aborted) => Told::Refused,
        Err(_) => Told::Nothing,
    };
    let mut history = lock(&context.history);
    history.optimistic[at].outcome = told;
    history.optimistic[at].ended_ns = Some(context.time.now_ns());
}

fn row(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn rows(container: &Container) -> talea_client::Object {
    container.object(Oid::new(ObjectClass::SX, 900))
}

/// Makes rows that must not exist; of all who try one succeeds.
pub(crate) async fn inserter(context: Context, done: Arc<Mutex<bool>>) {
    let container = context.container().await;
    for number in 0..ROWS {
        if *lock(&done) {
            return;
        }
        let value: Value = context.draw(u64::MAX).max(1);
        let (dkey, data) = (row(number), value.to_le_bytes());
        let (kind, condition) = (ValueKind::Single, Condition::Insert);
        let entry = EntryUpdate { dkey: &dkey, akey: b"row", kind, condition, extents: &[], data: &data };
        let told = match rows(&container).update_async(&Write::Auto, &[entry]).await {
            Ok(()) => Told::Done,
            Err(error) if error.kind() == ErrorKind::Exists => Told::Refused,
            Err(_) => Told::Nothing,
        };
        lock(&context.history).inserts.push(Insert { row: number, value, told });
        context.time.sleep_us(context.draw(20_000)).await;
    }
}

/// What the rows hold when all is at rest, and the number of the last transaction.
pub(crate) async fn audit(context: &Context, container: &Container) {
    for number in 0..ROWS {
        let dkey = row(number);
        loop {
            let mut bytes = [0; 8];
            let mut entry = EntryFetch::single(&dkey, b"row", &mut bytes);
            let fetched = rows(container).fetch_async(&View::Latest, std::slice::from_mut(&mut entry)).await;
            let found = entry.found;
            let mut history = lock(&context.history);
            match fetched.map_err(|error| error.kind()) {
                Ok(()) if found => drop(history.rows.insert(number, Value::from_le_bytes(bytes))),
                Ok(()) => {}
                Err(ErrorKind::DataLost) => drop(history.lost_rows.insert(number)),
                Err(_) => {
                    drop(history);
                    context.time.sleep_us(20_000).await;
                    continue;
                }
            }
            break;
        }
    }
    loop {
        context.asks_to_begin();
        if let Ok(epoch) = container.begin_async(false).await {
            lock(&context.history).last_tx = epoch.tx().0;
            let _ = epoch.abort_async("it was only asked for its number").await;
            return;
        }
        context.time.sleep_us(20_000).await;
    }
}
