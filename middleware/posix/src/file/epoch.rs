//! Explicit epochs: one transaction that several files, and objects of the same container, write in. One process begins it and
//! the others attach; all commit together, with one request by one of them, and the next one begins with that request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use talea_abi::Code;
use talea_model::{Manifest, Step, Summary, TxId, manifest};

use super::{Files, Registry, SPARE_TARGETS, blob};
use crate::Fault;
use crate::backing::{Backing, Condition, Epoch};
use crate::inode::META;
use crate::namespace::value;

/// What a commit came to; all processes take it over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EpochResult {
    pub tx: TxId,
    pub failed: Option<String>,
    pub next: Option<Vec<u8>>,
    pub step: Step,
}

/// Enough to attach to an epoch that another process has begun.
#[derive(Serialize, Deserialize)]
struct Shared {
    container: Vec<u8>,
    epoch: Vec<u8>,
    summary_bytes: u32,
}

/// A row of explicit epochs, as one process takes part in it. Dropping it leaves what is not committed to the others.
pub struct SharedEpoch {
    backing: Arc<dyn Backing>,
    summary_bytes: usize,
    open: Mutex<Open>,
    /// Knows which files this process has sealed.
    files: Arc<Registry>,
}

struct Open {
    epoch: Option<Box<dyn Epoch>>,
    /// What this process's commit has begun, until it is taken over.
    next: Option<Box<dyn Epoch>>,
}

impl Files {
    /// Begins an epoch in a container, on one process; the bytes are for [`epoch_attach`](Self::epoch_attach) everywhere.
    pub fn epoch_begin(&self, container: &str) -> Result<Vec<u8>, Fault> {
        let backing = self.system.container(container)?;
        let epoch = backing.begin(true)?;
        let summary_bytes = Summary::encoded_bytes(backing.targets() + SPARE_TARGETS) as u32;
        let shared = Shared { container: backing.blob(), epoch: epoch.blob(), summary_bytes };
        // It lives on in the log: this process attaches to it like the others.
        epoch.closed();
        blob::encode(&shared)
    }

    /// This process's part of an epoch.
    pub fn epoch_attach(&self, shared: &[u8]) -> Result<SharedEpoch, Fault> {
        let shared: Shared = blob::decode(shared)?;
        let backing = self.system.join(&shared.container)?;
        let epoch = backing.join(&shared.epoch)?;
        let open = Mutex::new(Open { epoch: Some(epoch), next: None });
        let (summary_bytes, files) = (shared.summary_bytes as usize, self.open.clone());
        Ok(SharedEpoch { backing, summary_bytes, open, files })
    }
}

fn over() -> Fault {
    Fault::new(Code::Aborted, "the explicit epoch is over: begin another one")
}

impl SharedEpoch {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a summary.
    pub fn summary_bytes(&self) -> usize {
        self.summary_bytes
    }

    /// Bytes from which the open epoch can be joined by the client's means, to write objects in it.
    pub fn blob(&self) -> Result<Vec<u8>, Fault> {
        self.open().epoch.as_ref().map(|epoch| epoch.blob()).ok_or_else(over)
    }

    /// What this process did through this part: at least its clock.
    pub fn summary(&self) -> Result<Summary, Fault> {
        self.open().epoch.as_ref().ok_or_else(over)?.summary()
    }

    /// Commits, on one process, with the merged summaries of all files and objects; another epoch begins in the same request. The
    /// bytes are for [`advance`](Self::advance) on every process, and for the files'
    /// [`Handle::settle`](super::Handle::settle).
    pub fn commit(&self, merged: &Summary) -> (Result<Step, Fault>, Vec<u8>) {
        self.backing.observe(merged.hlc);
        let mut open = self.open();
        let Some(epoch) = &open.epoch else { return (Err(over()), Vec::new()) };
        let tx = epoch.tx();
        let mut merged = merged.clone();
        let named = self.name_files(&**epoch, &mut merged);
        let (named, names) = match named {
            Ok(names) => (Ok(()), names),
            Err(fault) => (Err(fault), None),
        };
        let (outcome, next) = match epoch.commit(&merged, names, true) {
            Ok(done) => (Ok(done.step), done.next),
            // What failed first says more than that the commit was refused for it.
            Err(refused) => (Err(named.err().unwrap_or(refused.fault)), refused.next),
        };
        let step = outcome.as_ref().map_or(Step(0), |step| *step);
        let failed = outcome.as_ref().err().map(|fault| fault.text.clone());
        let result = EpochResult { tx, failed, next: next.as_ref().map(|next| next.blob()), step };
        open.next = next;
        match blob::encode(&result) {
            Ok(bytes) => (outcome, bytes),
            Err(fault) => (outcome.and(Err(fault)), Vec::new()),
        }
    }

    /// Writes the manifest of the files that were sealed, if there are any and the epoch can commit: beside the size and time of one of
    /// them, another one each time. The answer says under which key.
    fn name_files(&self, epoch: &dyn Epoch, merged: &mut Summary) -> Result<Option<u32>, Fault> {
        let files = self.files.take_written(epoch.tx());
        if merged.failed || files.is_empty() {
            return Ok(None);
        }
        let one = files[(epoch.tx().0 % files.len() as u64) as usize].oid;
        let written = self.backing.manifest_slot(one, META).and_then(|slot| {
            let (dkey, names) = (manifest::dkey(slot), Manifest::new(epoch.tx(), files).encode());
            epoch.update(manifest::object(), &[value(&dkey, manifest::AKEY, &names, Condition::None)])?;
            Ok(Some(slot))
        });
        let part = epoch.summary();
        merged.failed |= written.is_err() || part.is_err();
        merged.merge(part.as_ref().unwrap_or(&Summary::default()));
        written.and_then(|slot| part.map(|_| slot))
    }

    /// Takes over what a commit came to.
    pub fn advance(&self, result: &[u8]) -> Result<(), Fault> {
        let result: EpochResult = blob::decode(result)?;
        let mut open = self.open();
        match open.epoch.take_if(|epoch| epoch.tx() == result.tx) {
            Some(epoch) => epoch.closed(),
            None => return Ok(()),
        }
        let mine = open.next.take();
        open.epoch = match (mine, result.next) {
            (Some(next), _) => Some(next),
            (None, Some(next)) => Some(self.backing.join(&next)?),
            (None, None) => None,
        };
        Ok(())
    }

    /// Aborts what is not committed, on one process, and ends the row.
    pub fn abort(&self) -> Result<(), Fault> {
        let Some(epoch) = self.open().epoch.take() else { return Ok(()) };
        self.files.take_written(epoch.tx());
        let aborted = epoch.abort("the explicit epoch ended without a commit");
        epoch.closed();
        aborted
    }
}

impl Drop for SharedEpoch {
    fn drop(&mut self) {
        // Another process ends it; this one stays a writer of it until then.
        if let Some(epoch) = self.open().epoch.take() {
            self.files.take_written(epoch.tx());
            epoch.closed();
        }
    }
}
