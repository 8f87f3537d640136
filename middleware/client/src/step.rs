//! A container's committed steps, and the files that each of them wrote.

use talea_model::{LeaseId, Manifest, Oid, Step, TxId, View, manifest};
use talea_wire::control::{Reply, Request, StepRecord, Waited};
use talea_wire::{Refusal, RefusalCode};

use crate::container::Container;
use crate::error::{ClientError, Result};
use crate::object::EntryFetch;

/// Room for a manifest at first; a larger one is fetched again.
const ROOM_BYTES: usize = 4096;

impl Container {
    /// The record of a step that is kept.
    pub fn step(&self, step: Step) -> Result<StepRecord> {
        self.client.block_on(self.step_async(step))?
    }

    /// Asynchronous [`step`](Self::step).
    pub async fn step_async(&self, step: Step) -> Result<StepRecord> {
        let what = "asking for a step";
        let refused = |code, text| ClientError::refused(what, Refusal::new(code, text));
        let nothing = || refused(RefusalCode::NotFound, format!("'{}' has no step {step}", self.name()));
        let before = Step(step.0.checked_sub(1).ok_or_else(nothing)?);
        let found = self.steps_async(before, 1).await?.into_iter().next();
        match found {
            Some(record) if record.step == step => Ok(record),
            Some(later) => {
                let text = format!("step {step} of '{}' is not kept any more; {} is", self.name(), later.step);
                Err(refused(RefusalCode::Retention, text))
            }
            None => Err(nothing()),
        }
    }

    /// The records of the steps after one, or after those that are not kept any more, in order: at most `limit`, and of more than a few
    /// hundred only a part. Empty: there are no more.
    pub fn steps(&self, after: Step, limit: u32) -> Result<Vec<StepRecord>> {
        self.client.block_on(self.steps_async(after, limit))?
    }

    /// Asynchronous [`steps`](Self::steps).
    pub async fn steps_async(&self, after: Step, limit: u32) -> Result<Vec<StepRecord>> {
        let (what, mut after) = ("asking for steps", after);
        loop {
            let shared = &self.client.shared;
            let request = Request::Wait { container: self.id(), after, limit };
            let (now_ns, deadline_ns) = (shared.now_ns(), self.client.times().deadline_ns);
            match shared.control_within(what, request, now_ns, (now_ns, deadline_ns)).await? {
                Reply::Waited(Waited::Steps { steps, .. }) => return Ok(steps),
                Reply::Waited(Waited::Gap { through }) if through > after => after = through,
                Reply::Waited(Waited::NotReady | Waited::End | Waited::ProducerLost) => return Ok(vec![]),
                _ => return Err(ClientError::unexpected(what)),
            }
        }
    }

    /// The number of the manifest's key that lies on the same target as a dkey of an object. An epoch that writes that dkey writes its
    /// manifest there: the commit then depends on no target that the epoch has not written to.
    pub fn manifest_slot(&self, oid: Oid, dkey: &[u8]) -> Result<u32> {
        let (holder, names) = (self.object(oid).layout()?, self.object(manifest::object()).layout()?);
        let unknown = || ClientError::Argument("the pool map has no place for the names of a step's files".to_owned());
        manifest::slot(&names, holder.leader_of(dkey)).ok_or_else(unknown)
    }

    /// The files that a step wrote, by the names under which they were opened; `None`: the epoch named none (objects of the program's own, a
    /// rollback). Asks one target at most, nobody else, and for as long as the step is kept.
    pub fn manifest(&self, step: &StepRecord) -> Result<Option<Manifest>> {
        self.client.block_on(self.manifest_async(step))?
    }

    /// Asynchronous [`manifest`](Self::manifest).
    pub async fn manifest_async(&self, step: &StepRecord) -> Result<Option<Manifest>> {
        let view = View::Snapshot { stamp: step.stamp, position: step.position, lease: LeaseId(0) };
        let Some(slot) = step.manifest else { return Ok(None) };
        let (object, dkey) = (self.object(manifest::object()), manifest::dkey(slot));
        let mut room = vec![0; ROOM_BYTES];
        loop {
            let mut fetch = [EntryFetch::single(&dkey, manifest::AKEY, &mut room)];
            object.fetch_async(&view, &mut fetch).await?;
            let (found, bytes) = (fetch[0].found, fetch[0].bytes);
            if !found {
                return Ok(None);
            }
            if bytes > room.len() {
                room.resize(bytes, 0);
                continue;
            }
            return of_step(&room[..bytes], step.tx);
        }
    }
}

/// The manifest, if it is of this transaction: nothing else is to be there, but a program may have named a key that it did not write.
fn of_step(bytes: &[u8], tx: TxId) -> Result<Option<Manifest>> {
    let read = Manifest::decode(bytes)?;
    Ok((read.tx == tx).then_some(read))
}
