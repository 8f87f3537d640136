//! Leased and named snapshots: read views at one stamp S (rules 2, 6, 13).

use serde::{Deserialize, Serialize};
use talea_model::{ContainerId, LeaseId, Position, SessionId, Stamp, Step};
use talea_wire::control::{Reply, Snapshot};
use talea_wire::log::SnapshotAt;
use talea_wire::{Refusal, RefusalCode};

use super::containers::check_name;
use super::{Applied, MAX_LEASES, MAX_NAMED_SNAPSHOTS, Outcome, Pool, refuse};

/// A leased snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) container: ContainerId,
    pub(super) stamp: Stamp,
    pub(super) session: SessionId,
}

/// A named snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedSnapshot {
    pub(super) stamp: Stamp,
    pub(super) position: Position,
    pub(super) step: Step,
}

impl Pool {
    pub(super) fn snapshot_open(
        &mut self,
        id: ContainerId,
        at: &SnapshotAt,
        session: SessionId,
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        if self.leases.len() >= MAX_LEASES {
            return refuse(
                RefusalCode::Busy,
                format!("the pool has {MAX_LEASES} leased snapshots, its limit: close some"),
            );
        }
        let NamedSnapshot { stamp, position, step } = self.resolve(id, at, proposed)?;
        self.last_lease = LeaseId(self.last_lease.0 + 1);
        let lease = self.last_lease;
        self.leases.insert(lease, Lease { container: id, stamp, session });
        self.keep(id, stamp);
        if *at == SnapshotAt::Latest {
            self.raise_stepless_floor(id, stamp, applied);
        }
        Ok(Reply::Snapshot(Snapshot { stamp, position, lease, step }))
    }

    pub(super) fn snapshot_close(&mut self, lease: LeaseId, session: SessionId, applied: &mut Applied) -> Outcome {
        match self.leases.get(&lease) {
            Some(known) if known.session == session || session == SessionId(0) => {
                let Lease { container, stamp, .. } = known.clone();
                self.leases.remove(&lease);
                self.release(container, stamp, applied);
                Ok(Reply::Done)
            }
            _ => refuse(RefusalCode::NotFound, format!("lease {lease} is not one of session {session}, or has ended")),
        }
    }

    pub(super) fn snapshot_name(
        &mut self,
        id: ContainerId,
        name: &str,
        at: &SnapshotAt,
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        check_name("snapshot", name)?;
        let container = self.container(id)?;
        if container.named.contains_key(name) {
            return refuse(RefusalCode::Exists, format!("'{}' has a snapshot '{name}' already", container.name));
        }
        if container.named.len() >= MAX_NAMED_SNAPSHOTS {
            return refuse(
                RefusalCode::NoSpace,
                format!("'{}' has {MAX_NAMED_SNAPSHOTS} named snapshots, the limit: destroy some", container.name),
            );
        }
        let snapshot = self.resolve(id, at, proposed)?;
        self.container_mut(id)?.named.insert(name.to_owned(), snapshot);
        self.keep(id, snapshot.stamp);
        if *at == SnapshotAt::Latest {
            self.raise_stepless_floor(id, snapshot.stamp, applied);
        }
        let NamedSnapshot { stamp, position, step } = snapshot;
        Ok(Reply::Snapshot(Snapshot { stamp, position, lease: LeaseId(0), step }))
    }

    pub(super) fn snapshot_destroy(&mut self, id: ContainerId, name: &str, applied: &mut Applied) -> Outcome {
        let container = self.container_mut(id)?;
        let Some(snapshot) = container.named.remove(name) else {
            return refuse(RefusalCode::NotFound, format!("'{}' has no snapshot '{name}'", container.name));
        };
        self.release(id, snapshot.stamp, applied);
        Ok(Reply::Done)
    }

    /// Which stamp a snapshot shows. Only a latest one takes a new stamp; the others name one that is still kept.
    fn resolve(&mut self, id: ContainerId, at: &SnapshotAt, proposed: Stamp) -> Result<NamedSnapshot, Refusal> {
        let container = self.container(id)?;
        match at {
            SnapshotAt::Latest => {
                let step = container.last_step;
                let stamp = self.take(proposed);
                Ok(NamedSnapshot { stamp, position: self.position, step })
            }
            SnapshotAt::Step(step) => match container.step(*step) {
                Some(record) => Ok(NamedSnapshot { stamp: record.stamp, position: record.position, step: *step }),
                None if *step > container.last_step || *step == Step(0) => refuse(
                    RefusalCode::NotFound,
                    format!("'{}' has no step {step}; its last one is {}", container.name, container.last_step),
                ),
                None => refuse(
                    RefusalCode::Retention,
                    format!(
                        "step {step} of '{}' is not kept any more; the first that is: {}. To keep more: --keep-steps N of \
                         talea run and up, a named snapshot, or a follower that still needs them",
                        container.name,
                        container.first_step()
                    ),
                ),
            },
            SnapshotAt::Named(name) => match container.named.get(name) {
                Some(snapshot) => Ok(*snapshot),
                None => refuse(RefusalCode::NotFound, format!("'{}' has no snapshot '{name}'", container.name)),
            },
        }
    }
}
