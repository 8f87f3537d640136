//! The replicated state of a pool, and how a log entry changes it.
//!
//! Owns every rule of docs/design.md §4 that is decided by the log's order: stamps, fates, steps, retention, sessions.
//! Applying is a pure function of state and record: it must never read a clock, draw randomness or do I/O, and an entry that
//! cannot be applied changes nothing but the position and the exactly-once table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use talea_model::{ContainerId, LeaseId, PoolMap, Position, ServerId, SessionId, Stamp, TargetId, TxId};
use talea_wire::control::Reply;
use talea_wire::log::{Entry, Record};
use talea_wire::{Refusal, RefusalCode};
use thiserror::Error;

use crate::TargetChange;

mod containers;
mod fates;
pub(crate) mod image;
mod independent;
mod members;
mod query;
mod sessions;
mod snapshots;
#[cfg(test)]
mod tests;
mod transactions;

use containers::Container;
use fates::Fates;
use members::TargetHistory;
use sessions::{Producer, Session};
use snapshots::Lease;
use transactions::{Closed, OpenTx};

/// Most leases of a pool.
pub const MAX_LEASES: usize = 1 << 18;
/// Most named snapshots of a container.
pub const MAX_NAMED_SNAPSHOTS: usize = 1024;
/// Results that are kept of one session for requests that are sent again (rule 14). A client has fewer requests in flight.
pub const MAX_RESULTS: usize = 64;
/// Fates of closed transactions that are kept for who asks late; older ones read as closed, without the details.
pub const MAX_FATES: usize = 65_536;
/// So many more are forgotten at a time.
const FATES_AT_ONCE: usize = 1_024;
/// Fates that are kept beyond that for servers that were lost and may come back, at most.
const MAX_FATES_BEHIND: usize = 4 * MAX_FATES;

/// What the proposer of an entry is told.
pub type Outcome = Result<Reply, Refusal>;

/// What applying one record did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// For the proposer.
    pub outcome: Option<Outcome>,
    /// For the targets, in order.
    pub changes: Vec<TargetChange>,
    /// Containers whose steps or producer changed, or that are gone: who waits there should look again.
    pub touched: Vec<ContainerId>,
    /// Sessions that ended.
    pub ended: Vec<SessionId>,
    /// Sessions that live at another server now.
    pub moved: Vec<SessionId>,
}

/// A record that does not follow the last one applied: records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "log record {found} does not follow {applied}: records in between are missing, follow the log again from there"
)]
pub struct Gap {
    /// Position of the record.
    pub found: Position,
    /// Last position applied.
    pub applied: Position,
}

/// The replicated state of a pool. Serializable, so that a log can be cut behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    position: Position,
    /// Above every C, S and M ever issued (rule 2).
    ceiling: Stamp,
    map: Option<PoolMap>,
    /// What each server's process drew at its start.
    boots: BTreeMap<ServerId, u64>,
    targets: BTreeMap<TargetId, TargetHistory>,
    last_container: ContainerId,
    containers: BTreeMap<ContainerId, Container>,
    last_session: SessionId,
    sessions: BTreeMap<SessionId, Session>,
    last_tx: TxId,
    open: BTreeMap<TxId, OpenTx>,
    closed: BTreeMap<TxId, Closed>,
    fates: Fates,
    last_lease: LeaseId,
    leases: BTreeMap<LeaseId, Lease>,
    producer: Producer,
}

impl Pool {
    /// Last position applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// A stamp that is not below any that was issued.
    pub fn ceiling(&self) -> Stamp {
        self.ceiling
    }

    /// The pool map, once the pool has begun.
    pub fn map(&self) -> Option<&PoolMap> {
        self.map.as_ref()
    }

    /// Applies the record that follows the last one. One that was applied before changes nothing.
    pub fn apply(&mut self, record: &Record) -> Result<Applied, Gap> {
        if record.position <= self.position {
            return Ok(Applied::default());
        }
        if record.position.0 != self.position.0 + 1 {
            return Err(Gap { found: record.position, applied: self.position });
        }
        self.position = record.position;
        let mut applied = Applied::default();
        let outcome = match self.admit(record.session, record.sequence) {
            Some(known) => known,
            None => {
                let outcome = self.execute(record, &mut applied);
                self.remember(record.session, record.sequence, &outcome);
                outcome
            }
        };
        applied.outcome = Some(outcome);
        Ok(applied)
    }

    /// The answer to a request that was executed before, or the refusal of one whose session has ended; `None`: execute it.
    pub fn admit(&self, session: SessionId, sequence: u64) -> Option<Outcome> {
        if session == SessionId(0) {
            return None;
        }
        match self.sessions.get(&session) {
            Some(known) => known.result(sequence),
            None => Some(refuse(
                RefusalCode::SessionExpired,
                format!("session {session} has ended and its requests are not executed again: connect anew"),
            )),
        }
    }

    /// A new stamp: above all issued ones, and not below the proposed one.
    fn take(&mut self, proposed: Stamp) -> Stamp {
        self.ceiling = proposed.max(self.ceiling.next());
        self.ceiling
    }

    fn execute(&mut self, record: &Record, applied: &mut Applied) -> Outcome {
        let proposed = record.proposed;
        match &record.entry {
            Entry::Leader { .. } => Ok(Reply::Done),
            Entry::PoolCreate { pool, servers, targets, boots } => {
                self.pool_create(*pool, servers, targets, boots, proposed, applied)
            }
            Entry::ServerUp { server, targets, boot, remembers } => {
                self.server_up(server, targets, (*boot, *remembers), proposed, applied)
            }
            Entry::Targets { targets, state } => self.set_targets(targets, *state, proposed, applied),
            Entry::SessionOpen { home, name, secret, process } => {
                self.session_open(*home, name, *secret, *process, proposed, applied)
            }
            Entry::SessionEnd { session, home, joined, orderly } => {
                self.session_end(*session, *home, joined, *orderly, applied)
            }
            Entry::SessionMove { session, home, secret, process, attempt } => {
                self.session_move(*session, (*home, *process), (*secret, *attempt), applied)
            }
            Entry::ContainerCreate { name, properties } => self.container_create(name, properties, applied),
            Entry::ContainerDestroy { container } => self.container_destroy(*container, applied),
            Entry::Begin { container, collective } => {
                self.begin(*container, *collective, record.session, proposed, applied).map(Reply::Begun)
            }
            Entry::Commit { tx, summary, attributes, manifest, next } => {
                let commit = transactions::Commit { tx: *tx, summary, attributes, manifest: *manifest, next: *next };
                self.commit(commit, record.session, proposed, applied)
            }
            Entry::Abort { tx, reason } => self.abort(*tx, reason, applied),
            Entry::SnapshotOpen { container, at } => {
                self.snapshot_open(*container, at, record.session, proposed, applied)
            }
            Entry::SnapshotClose { lease } => self.snapshot_close(*lease, record.session, applied),
            Entry::SnapshotName { container, name, at } => self.snapshot_name(*container, name, at, proposed, applied),
            Entry::SnapshotDestroy { container, name } => self.snapshot_destroy(*container, name, applied),
            Entry::Subscription { container, after } => self.subscribe(*container, *after, record.session, applied),
            Entry::CommitIndependent { tx, summary, until, named } => {
                let commit = independent::Independent { tx: *tx, summary, until: *until, named };
                self.commit_independent(commit, applied)
            }
            Entry::Producer { container, state } => self.set_producer(*container, *state, record.session, applied),
            Entry::Confirmed { server, durable } => self.confirmed(*server, *durable),
        }
    }
}

pub(crate) fn refuse<T>(code: RefusalCode, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(code, text))
}
