//! The smallest writer with many operations in flight, as `examples/blocks/blocks.c` is in C: one thread writes a step of small
//! blocks, keeps some of them in flight, commits, and reads them back the same way.
//!
//!     talea run --servers 2 -- target/release/examples/blocks run

use talea_client::{
    Client, Condition, ConnectOptions, EntryFetch, EntryUpdate, Object, Queue, Result, ValueKind, Write,
};
use talea_model::{Extent, ObjectClass, View};

const BLOCKS: usize = 1000;
const BLOCK_BYTES: usize = 4096;
const IN_FLIGHT: usize = 64;
const MINUTE_MS: u64 = 60_000;
const BYTES: ValueKind = ValueKind::Array { record_bytes: 1 };
const WHOLE: [Extent; 1] = [Extent { index: 0, count: BLOCK_BYTES as u64 }];

/// Takes the ends of operations until no more than `left` are in flight. One that failed is the first error.
fn wait_until(queue: &Queue<'_, Result<()>>, left: usize) -> Result<()> {
    while queue.len() > left {
        queue.take(1, IN_FLIGHT, MINUTE_MS)?.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

fn write_all(client: &Client, object: &Object, write: Write<'_>, blocks: &[Vec<u8>]) -> Result<()> {
    let queue = Queue::new(client);
    for (number, block) in blocks.iter().enumerate() {
        // The operation owns its key; the data stays borrowed until the queue is gone. Each block has a dkey of its own, so that
        // they lie on all targets.
        queue.start(async move {
            let (dkey, kind, condition) = (number.to_be_bytes(), BYTES, Condition::None);
            let entry = EntryUpdate { dkey: &dkey, akey: b"block", kind, condition, extents: &WHOLE, data: block };
            object.update_async(&write, &[entry]).await
        });
        wait_until(&queue, IN_FLIGHT - 1)?;
    }
    wait_until(&queue, 0)
}

fn read_all(client: &Client, object: &Object, view: &View, blocks: &mut [Vec<u8>]) -> Result<()> {
    let queue = Queue::new(client);
    for (number, out) in blocks.iter_mut().enumerate() {
        queue.start(async move {
            let (dkey, akey) = (number.to_be_bytes(), b"block");
            let (found, filled, bytes) = (false, false, 0);
            let entry = EntryFetch { dkey: &dkey, akey, kind: BYTES, extents: &WHOLE, out, found, filled, bytes };
            object.fetch_async(view, &mut [entry]).await
        });
        wait_until(&queue, IN_FLIGHT - 1)?;
    }
    wait_until(&queue, 0)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("usage: blocks CONTAINER")?;
    let client = Client::connect(&ConnectOptions::default())?;
    let container = client.container_open(&name)?;
    let object = container.object(client.new_oid(ObjectClass::SX));
    let written: Vec<Vec<u8>> = (0..BLOCKS).map(|number| vec![(number % 251) as u8; BLOCK_BYTES]).collect();

    let epoch = container.begin(true)?;
    write_all(&client, &object, Write::Inside(&epoch), &written)?;
    let step = epoch.commit(&epoch.try_summary()?, b"", false).committed?.step;

    let mut read = vec![vec![0; BLOCK_BYTES]; BLOCKS];
    read_all(&client, &object, &View::Latest, &mut read)?;
    if read != written {
        return Err("other bytes came back".into());
    }
    println!("{BLOCKS} blocks are step {} of {name}", step.0);
    Ok(())
}
