//! Staging: files and trees between a file system and a system's containers, in parallel, with checksums, and resumable.
//!
//! Owns what is copied in which order and what a receipt says. A copy that was cut off never looks whole: files arrive under
//! another name, or in an epoch that commits at the end. Trees are copied out of one snapshot.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use indicatif::ProgressBar;
use talea_client::{Client, SnapshotAt};
use talea_posix::backing::client::{ClientSystem, fault};
use talea_posix::{Files, PathView, TaleaPath};

use crate::command::list;
use crate::failure::Failure;
use crate::notice;

pub(crate) mod carrier;
pub(crate) mod drain;
mod order;
mod receipt;
mod spread;
mod transfer;
mod walk;

pub(crate) use order::{Direction, EachStep, In, Order, Out, can_be_written};
pub(crate) use receipt::Receipt;
pub(crate) use spread::Nodes;
use spread::Spread;
use transfer::{Transfer, workers};
pub(crate) use walk::lookup;

/// Bytes of a segment: what one worker copies at a time, and what is not copied again when a cut-off copy is resumed.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;
/// Files that are open at a time.
const BATCH: usize = 256;

/// How to stage.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Copies at a time.
    pub(crate) workers: usize,
    /// Read back what was written, and compare.
    pub(crate) verify: bool,
    /// No bar.
    pub(crate) quiet: bool,
    /// Directories are copied with all they hold.
    pub(crate) recursive: bool,
    /// Local directories above the destination are made if they are missing: better than losing what a job has made.
    pub(crate) parents: bool,
    /// Nodes that copy, too.
    pub(crate) nodes: Option<Nodes>,
    /// Set by whoever does not want the rest any more.
    pub(crate) give_up: Arc<AtomicBool>,
}

impl Options {
    /// Processes that may write one file.
    fn processes(&self) -> u32 {
        1 + self.nodes.as_ref().map_or(0, |nodes| nodes.allocation.nodes)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 4,
            verify: false,
            quiet: false,
            recursive: true,
            parents: true,
            nodes: None,
            give_up: Arc::default(),
        }
    }
}

/// Stages files in or out through one client.
pub(crate) struct Stage {
    client: Client,
    files: Files,
    /// Lists of names were not whole.
    partial: Arc<AtomicBool>,
    options: Options,
}

/// A named snapshot that goes with this value.
struct Held {
    container: talea_client::Container,
    name: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.container.snapshot_destroy(&self.name);
    }
}

impl Stage {
    pub(crate) fn new(client: &Client, options: Options) -> Self {
        let (system, partial) = ClientSystem::partial(client.clone());
        Self { client: client.clone(), files: Files::new(Arc::new(system)), partial, options }
    }

    /// Carries out one order. What failed stands in the receipt; an error means that nothing could be begun.
    pub(crate) fn carry_out(&self, order: &Order) -> Result<Receipt, Failure> {
        let began = Instant::now();
        let mut receipt = Receipt::begin(order);
        match order.direction {
            Direction::In => self.bring_in(order, &mut receipt)?,
            Direction::Out => {
                let (source, _held) = self.frozen(&order.source, &mut receipt)?;
                self.take_out(&source, order, &mut receipt).map_err(|failure| as_typed(failure, &source, order))?;
            }
        }
        receipt.end(began.elapsed());
        Ok(receipt)
    }

    /// A path of the present, as a path of a snapshot that keeps still while it is copied.
    fn frozen(&self, source: &str, receipt: &mut Receipt) -> Result<(String, Option<Held>), Failure> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let parsed = TaleaPath::parse(source.as_bytes())?;
        if parsed.view != PathView::Live {
            return Ok((source.to_owned(), None));
        }
        let container = self.client.container_open(&parsed.container)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("stage-{}-{}-{number}", self.client.session().0, std::process::id());
        container.snapshot_name(&name, SnapshotAt::Latest).map_err(fault)?;
        receipt.step = container.snapshot(SnapshotAt::Named(name.clone())).map_err(fault)?.step().0;
        let names: Vec<String> = parsed.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let path = format!("/talea/{}/.talea/snapshots/{name}/{}", parsed.container, names.join("/"));
        Ok((path.trim_end_matches('/').to_owned(), Some(Held { container, name })))
    }

    fn take_out(&self, source: &str, order: &Order, receipt: &mut Receipt) -> Result<(), Failure> {
        let found = walk::of_talea(&self.files, source, self.options.recursive)?;
        let destination = order.destination_of_out(found.is_tree);
        walk::make_directories(&found, &destination, self.options.parents)?;
        let bar = self.bar(&found, &order.source);
        let step = receipt.step;
        let transfers = found.files.iter().map(|file| {
            let from = join(source, &file.name);
            let to = if file.name.is_empty() { destination.clone() } else { destination.join(&file.name) };
            let shown = join(&order.source, &file.name);
            (shown, to.display().to_string(), Transfer::out(&self.files, from, to, step, file, &self.options))
        });
        self.run(&found, transfers, &bar, receipt);
        receipt.reword(source, order.source.trim_end_matches('/'));
        receipt.skipped(&found.others);
        for (name, error) in &found.unreadable {
            receipt.failed(join(&order.source, name), destination.join(name).display().to_string(), error.clone());
        }
        if self.partial.swap(false, Ordering::Relaxed) {
            receipt.failed(order.source.clone(), destination.display().to_string(), list::NOT_ALL.to_owned());
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn bring_in(&self, order: &Order, receipt: &mut Receipt) -> Result<(), Failure> {
        let source = PathBuf::from(&order.source);
        let found = walk::of_disk(&source, self.options.recursive)?;
        let destination = self.destination_of_in(order, &source, found.is_tree)?;
        walk::make_talea_directories(&self.files, &found, &destination)?;
        let bar = self.bar(&found, &order.destination);
        let transfers = found.files.iter().map(|file| {
            let from = if file.name.is_empty() { source.clone() } else { source.join(&file.name) };
            let to = join(&destination, &file.name);
            (from.display().to_string(), to.clone(), Transfer::bring_in(&self.files, from, to, file, &self.options))
        });
        self.run(&found, transfers, &bar, receipt);
        receipt.skipped(&found.others);
        bar.finish_and_clear();
        Ok(())
    }

    /// A file goes into a directory that exists, under its own name, and so does whatever is to go to a path with a slash at its end.
    fn destination_of_in(&self, order: &Order, source: &std::path::Path, tree: bool) -> Result<String, Failure> {
        let destination = order.destination.trim_end_matches('/').to_owned();
        let parsed = TaleaPath::parse(destination.as_bytes())?;
        self.client.container_open(&parsed.container)?;
        let (namespace, _lease) = self.files.namespace(&parsed)?;
        let is_directory = parsed.names.is_empty()
            || lookup(&namespace, &parsed.names)?.is_some_and(|inode| inode.kind == talea_posix::Kind::Directory);
        match source.file_name() {
            Some(name) if (is_directory && !tree) || order.destination.ends_with('/') => {
                Ok(format!("{destination}/{}", name.to_string_lossy()))
            }
            _ => Ok(destination),
        }
    }

    fn bar(&self, found: &walk::Found, text: &str) -> ProgressBar {
        let total = found.files.iter().map(|file| file.bytes).sum();
        if self.options.quiet { ProgressBar::hidden() } else { notice::bytes(total, text) }
    }

    /// Carriers on all nodes, if there is enough to copy that their start is worth it.
    fn spread(&self, found: &walk::Found) -> Option<Spread> {
        let nodes = self.options.nodes.as_ref().filter(|nodes| nodes.allocation.nodes > 1)?;
        let segments: u64 = found.files.iter().map(|file| file.bytes.div_ceil(SEGMENT_BYTES)).sum();
        if segments < 2 * u64::from(nodes.allocation.nodes) {
            return None;
        }
        // Without them it takes longer.
        Spread::begin(nodes).inspect_err(|failure| eprintln!("talea: this node copies alone: {failure}")).ok()
    }

    /// Runs all transfers with the workers, and notes how each ended.
    fn run(
        &self,
        found: &walk::Found,
        mut all: impl Iterator<Item = (String, String, Result<Transfer, Failure>)>,
        bar: &ProgressBar,
        receipt: &mut Receipt,
    ) {
        let mut spread = self.spread(found);
        loop {
            let (mut ready, mut named) = (Vec::new(), Vec::new());
            let mut any = false;
            for (source, destination, transfer) in all.by_ref().take(BATCH) {
                any = true;
                match transfer {
                    Ok(transfer) => {
                        named.push((source, destination));
                        ready.push(transfer);
                    }
                    Err(failure) => receipt.failed(source, destination, failure.to_string()),
                }
            }
            if !any {
                break;
            }
            let results = workers(ready, self.options.workers, spread.as_mut(), bar);
            for ((source, destination), result) in named.into_iter().zip(results) {
                match result {
                    Ok(done) => receipt.done(source, destination, done),
                    Err(failure) => receipt.failed(source, destination, failure.to_string()),
                }
            }
        }
        if let Some(spread) = spread {
            receipt.nodes = spread.nodes().max(1);
            spread.end();
        }
    }
}

/// A failure in the words of the order: the snapshot that is copied from is nobody's but ours.
fn as_typed(failure: Failure, source: &str, order: &Order) -> Failure {
    match failure {
        Failure::File(mut fault) => {
            fault.text = fault.text.replace(source, order.source.trim_end_matches('/'));
            Failure::File(fault)
        }
        Failure::Usage(text) => Failure::Usage(text.replace(source, order.source.trim_end_matches('/'))),
        other => other,
    }
}

fn join(root: &str, name: &str) -> String {
    if name.is_empty() { root.to_owned() } else { format!("{}/{name}", root.trim_end_matches('/')) }
}
