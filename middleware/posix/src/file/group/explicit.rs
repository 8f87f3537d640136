//! A founding whose file takes part in an explicit epoch: one transaction over several files and objects of a container, which
//! the epoch's owner commits (docs/design.md §7). Must never commit or abort that transaction itself.

use talea_model::{Step, Summary, TxId, WrittenFile};

use super::Group;
use crate::Fault;
use crate::backing::Epoch;
use crate::file::blob::Outcome;
use crate::file::epoch::EpochResult;
use crate::inode::SizeRecord;
use crate::namespace::file_size;

impl Group {
    /// Whether its epoch is an explicit one.
    pub(in crate::file) fn is_explicit(&self) -> bool {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner).explicit
    }

    /// Goes on in an explicit epoch. On the process that opened the file, when all that was written before is committed; the
    /// outcome is for the others.
    pub(in crate::file) fn enter(&self, blob: &[u8]) -> Result<Outcome, Fault> {
        let next = self.backing.join(blob)?;
        let mut state = self.exclusive();
        if let Some(old) = state.epoch.take() {
            // It holds nothing; an abort that fails leaves it to the end of the process.
            let _ = old.abort("the file goes on in an explicit epoch");
            old.closed();
        }
        drop(state);
        self.begin_as_told(next, true)
    }

    /// Leaves the explicit epoch, which goes on without the file, and begins an epoch of the file's own. On one process.
    pub(in crate::file) fn leave(&self) -> Result<Outcome, Fault> {
        let next = self.begin()?;
        if let Some(old) = self.exclusive().epoch.take() {
            old.closed();
        }
        self.begin_as_told(next, false)
    }

    fn begin_as_told(&self, next: Box<dyn Epoch>, explicit: bool) -> Result<Outcome, Fault> {
        let size = file_size(&*self.backing, next.view(), self.oid)?;
        let (step, epoch) = (next.base_step(), next.blob());
        self.install(next, size, step, explicit);
        Ok(Outcome::Entered { founding: self.founding, epoch, size, step, explicit })
    }

    fn install(&self, next: Box<dyn Epoch>, size: SizeRecord, step: Step, explicit: bool) {
        let mut state = self.exclusive();
        (state.step, state.explicit, state.solo, state.dead) = (step, explicit, false, None);
        self.rebase(&mut state, size);
        if let Some(old) = state.epoch.replace(next) {
            old.closed();
        }
    }

    /// Takes over what [`enter`](Self::enter) or [`leave`](Self::leave) told.
    pub(in crate::file) fn entered(
        &self,
        epoch: &[u8],
        size: SizeRecord,
        step: Step,
        explicit: bool,
    ) -> Result<(), Fault> {
        let next = if epoch.is_empty() { self.begin()? } else { self.backing.join(epoch)? };
        let same = self.exclusive().epoch.as_ref().is_some_and(|epoch| epoch.tx() == next.tx());
        if same {
            next.closed();
            return Ok(());
        }
        self.install(next, size, step, explicit);
        Ok(())
    }

    /// Writes size and time of the file into the epoch. On one process, with the summary of all; the answer goes into the epoch's, and
    /// the file, if it was written, into the epoch's manifest.
    pub(in crate::file) fn seal_explicit(
        &self,
        mut merged: Summary,
    ) -> Result<(Summary, Option<(TxId, WrittenFile)>), Fault> {
        self.backing.observe(merged.hlc);
        let state = self.exclusive();
        let epoch = super::epoch_of(&state)?;
        let size = SizeRecord { truncations: merged.size.0, bytes: merged.size.1 }.max(state.base);
        let is_written = !merged.failed && !merged.touched.is_empty();
        self.seal(epoch, &mut merged, (size, state.base), &[])?;
        let file = is_written.then(|| (epoch.tx(), WrittenFile { path: state.path.clone(), oid: self.oid }));
        Ok((merged, file))
    }

    /// What the commit of the explicit epoch came to for this file.
    pub(in crate::file) fn settled(&self, result: &EpochResult, merged: &Summary) -> Outcome {
        let state = self.exclusive();
        let written = SizeRecord { truncations: merged.size.0, bytes: merged.size.1 }.max(state.base);
        let size = if result.failed.is_some() { state.base } else { written };
        let EpochResult { tx, failed, next, step } = result.clone();
        Outcome::Closed { founding: self.founding, tx, failed, next, size, step }
    }
}
