//! The epoch of a file with `talea_epoch=none`: there is none, and every write is visible to all when it returns.
//!
//! A write is one autocommit for each chunk, then one of the file's size if that has grown (docs/design.md §4 rule 16). Stands where
//! an epoch's transaction stands otherwise; must never begin or commit one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use talea_abi::Code;
use talea_model::{Oid, Step, Summary, TxId, View};

use crate::Fault;
use crate::backing::{Backing, Condition, Done, Epoch, Punch, Refused, Update};
use crate::file::group::{end_record, modified, sweep};
use crate::inode::{DATA, END, META, SizeRecord};
use crate::namespace::now_ns;

/// See the module.
pub(super) struct Autocommits {
    backing: Arc<dyn Backing>,
    chunk_bytes: u64,
    step: Step,
    /// The largest size record that this process has seen or written.
    size: Mutex<SizeRecord>,
    /// How often this process has made the file longer.
    growths: AtomicU64,
}

/// After so many growths the records of earlier ends are swept away.
const SWEEP_GROWTHS: u64 = 256;

impl Autocommits {
    /// For a file of this size; `step` is what its base contains.
    pub(super) fn boxed(backing: Arc<dyn Backing>, chunk_bytes: u64, size: SizeRecord, step: Step) -> Box<dyn Epoch> {
        Box::new(Self { backing, chunk_bytes, step, size: Mutex::new(size), growths: AtomicU64::new(0) })
    }

    /// One past the last byte of the file that entries write.
    fn end_of(&self, entries: &[Update<'_>]) -> u64 {
        let end = |entry: &Update<'_>| {
            let chunk = u64::from_be_bytes(entry.dkey.try_into().ok()?);
            let last = entry.extents.iter().map(|extent| extent.end()).max()?;
            (entry.akey == DATA).then(|| chunk.saturating_mul(self.chunk_bytes).saturating_add(last))
        };
        entries.iter().filter_map(end).max().unwrap_or(0)
    }

    fn grow(&self, oid: Oid, end: u64) -> Result<(), Fault> {
        let record = {
            let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
            if end <= size.bytes {
                return Ok(());
            }
            SizeRecord { bytes: end, ..size }
        };
        let mtime_bytes = now_ns().to_be_bytes();
        self.backing.update(oid, &[end_record(end), modified(&mtime_bytes)])?;
        self.resized(record);
        if self.growths.fetch_add(1, Ordering::Relaxed) % SWEEP_GROWTHS == SWEEP_GROWTHS - 1 {
            self.sweep(oid);
        }
        Ok(())
    }

    /// In a transaction that does not commit if the end has changed meanwhile, or a shorter one that somebody has just set would go as
    /// well. If it does not, the next one may.
    fn sweep(&self, oid: Oid) {
        let Ok(tx) = self.backing.tx_open() else { return };
        let end = self.backing.array_end(tx.view(), oid, META, END);
        match end.and_then(|end| sweep(&*tx, oid, end)).and_then(|()| tx.summary()) {
            Ok(summary) => _ = tx.commit(&summary, None, false),
            Err(_) => _ = tx.abort("the records of a file's earlier ends stay"),
        }
    }
}

impl Epoch for Autocommits {
    fn tx(&self) -> TxId {
        TxId(0)
    }

    fn view(&self) -> View {
        View::Latest
    }

    fn base_step(&self) -> Step {
        self.step
    }

    fn blob(&self) -> Vec<u8> {
        Vec::new()
    }

    fn update(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        for of_one_dkey in entries.chunk_by(|a, b| a.dkey == b.dkey) {
            self.backing.update(oid, of_one_dkey)?;
        }
        self.grow(oid, self.end_of(entries))
    }

    fn update_tied(&self, _: Oid, _: &[Update<'_>]) -> Result<(), Fault> {
        Err(Fault::new(Code::Unsupported, "a file without epochs has none that a name could be tied to"))
    }

    fn punch(&self, oid: Oid, what: Punch<'_>) -> Result<(), Fault> {
        self.backing.punch(oid, what, Condition::None)
    }

    fn summary(&self) -> Result<Summary, Fault> {
        Ok(Summary { hlc: self.backing.hlc(), ..Summary::default() })
    }

    fn commit(&self, _: &Summary, _: Option<u32>, _: bool) -> Result<Done, Refused> {
        let fault = Fault::new(Code::Unsupported, "a file without epochs has nothing to commit");
        Err(Refused { fault, next: None })
    }

    fn abort(&self, _: &str) -> Result<(), Fault> {
        Ok(())
    }

    fn closed(self: Box<Self>) {}

    fn autocommits(&self) -> bool {
        true
    }

    fn resized(&self, size: SizeRecord) {
        let mut known = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(size);
    }
}
