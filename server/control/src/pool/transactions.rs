//! Transactions: begin, commit, abort. The first fate in the log wins (rules 2, 3, 5, 12).

use serde::{Deserialize, Serialize};
use talea_model::{Cause, ContainerId, Fate, Position, SessionId, Stamp, Step, Summary, TargetState, TxId, limit};
use talea_wire::control::{Begun, Committed, Reply, StepRecord};
use talea_wire::{Refusal, RefusalCode};

use super::{Applied, Outcome, Pool, refuse};
use crate::TargetChange;

/// An open transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenTx {
    pub(super) container: ContainerId,
    /// S of its base: a kept stamp of the container while the transaction is open.
    pub(super) base: Stamp,
    pub(super) collective: bool,
    /// Session that began it; its end aborts the transaction.
    pub(super) owner: SessionId,
}

/// What became of a transaction, for who asks late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closed {
    pub(super) fate: Fate,
    position: Position,
    container: ContainerId,
    collective: bool,
    /// Why it aborted, or which step it made.
    why: String,
}

/// A commit entry's parts.
pub(super) struct Commit<'a> {
    pub(super) tx: TxId,
    pub(super) summary: &'a Summary,
    pub(super) attributes: &'a [u8],
    pub(super) manifest: Option<u32>,
    pub(super) next: bool,
}

impl Pool {
    /// Fate of a transaction as far as the state knows; `None` if it has not begun. One that closed too long ago to say how
    /// reads as aborted: whatever still names it has no business any more (rule 7).
    pub fn fate(&self, tx: TxId) -> Option<Fate> {
        if self.open.contains_key(&tx) {
            return Some(Fate::Open);
        }
        if tx == TxId(0) || tx > self.last_tx {
            return None;
        }
        Some(self.closed.get(&tx).map_or(Fate::Aborted, |closed| closed.fate))
    }

    /// The session that began an open transaction; its end aborts it.
    pub(crate) fn owner_of(&self, tx: TxId) -> Option<SessionId> {
        self.open.get(&tx).map(|open| open.owner)
    }

    /// Number of open transactions.
    pub fn open_transactions(&self) -> usize {
        self.open.len()
    }

    pub(super) fn begin(
        &mut self,
        container: ContainerId,
        collective: bool,
        owner: SessionId,
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Result<Begun, Refusal> {
        if self.open.len() >= limit::MAX_OPEN_TX {
            return refuse(
                RefusalCode::Busy,
                format!("the pool has {} open transactions, its limit: commit or abort some", limit::MAX_OPEN_TX),
            );
        }
        self.container(container)?;
        let base = self.take(proposed);
        self.last_tx = TxId(self.last_tx.0 + 1);
        let tx = self.last_tx;
        self.open.insert(tx, OpenTx { container, base, collective, owner });
        applied.changes.push(TargetChange::Begin { tx, container });
        self.keep(container, base);
        self.raise_stepless_floor(container, base, applied);
        let base_step = self.container(container)?.last_step;
        Ok(Begun { tx, container, base, position: self.position, base_step })
    }

    pub(super) fn commit(
        &mut self,
        commit: Commit<'_>,
        session: SessionId,
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        let tx = commit.tx;
        let Some(open) = self.open.get(&tx).cloned() else {
            return self.commit_closed(commit, session, proposed, applied);
        };
        self.check_sizes(&commit)?;
        if let Err(refusal) = self.check_updates(tx, commit.summary) {
            self.close(tx, Fate::Aborted, &refusal.text, applied);
            if !commit.next {
                return Err(refusal);
            }
            return self.fail_with_next(refusal, open.container, open.collective, session, proposed, applied);
        }
        let stamp = self.take(proposed);
        let made_step = open.collective && !commit.summary.touched.is_empty();
        let position = self.position;
        let last_step = self.container(open.container).map_or(Step(0), |container| container.last_step);
        let step = Step(last_step.0 + u64::from(made_step));
        let why = if made_step { format!("it committed as step {step}") } else { "it committed".to_owned() };
        self.close(tx, Fate::Committed(stamp), &why, applied);
        if made_step {
            self.add_step(open.container, stamp, &commit, applied);
        }
        let next = match commit.next {
            // A pool that is full of transactions just lost one, and the container was there a moment ago.
            true => self.begin(open.container, open.collective, session, proposed, applied).ok(),
            false => None,
        };
        Ok(Reply::Committed(Committed { stamp, position, step, made_step, next }))
    }

    /// A commit that came after another fate. Who asked for the next epoch still gets it if this one was aborted.
    fn commit_closed(
        &mut self,
        commit: Commit<'_>,
        session: SessionId,
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        let refusal = match self.refuse_closed(commit.tx) {
            Err(refusal) => refusal,
            unexpected => return unexpected,
        };
        match self.closed.get(&commit.tx) {
            Some(Closed { fate: Fate::Aborted, container, collective, .. }) if commit.next => {
                let (container, collective) = (*container, *collective);
                self.fail_with_next(refusal, container, collective, session, proposed, applied)
            }
            _ => Err(refusal),
        }
    }

    fn fail_with_next(
        &mut self,
        refusal: Refusal,
        container: ContainerId,
        collective: bool,
        session: SessionId,
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        match self.begin(container, collective, session, proposed, applied) {
            Ok(next) => Ok(Reply::CommitFailed { refusal, next }),
            Err(_) => Err(refusal),
        }
    }

    pub(super) fn abort(&mut self, tx: TxId, reason: &str, applied: &mut Applied) -> Outcome {
        match self.fate(tx) {
            Some(Fate::Open) => self.close(tx, Fate::Aborted, reason, applied),
            Some(Fate::Aborted) => {}
            Some(Fate::Committed(_)) | None => return self.refuse_closed(tx),
        }
        Ok(Reply::Done)
    }

    /// Aborts the open transactions that `doomed` names.
    pub(super) fn abort_where(&mut self, reason: &str, applied: &mut Applied, doomed: impl Fn(TxId, &OpenTx) -> bool) {
        let doomed: Vec<TxId> = self.open.iter().filter(|(tx, open)| doomed(**tx, open)).map(|(tx, _)| *tx).collect();
        doomed.into_iter().for_each(|tx| self.close(tx, Fate::Aborted, reason, applied));
    }

    /// Gives an open transaction its fate.
    pub(super) fn close(&mut self, tx: TxId, fate: Fate, why: &str, applied: &mut Applied) {
        let Some(open) = self.open.remove(&tx) else { return };
        let why = Refusal::new(RefusalCode::Closed, why).text;
        let OpenTx { container, collective, .. } = open;
        self.closed.insert(tx, Closed { fate, position: self.position, container, collective, why });
        self.note_closing(tx);
        applied.changes.push(match fate {
            Fate::Committed(stamp) => TargetChange::Commit { tx, stamp },
            Fate::Aborted | Fate::Open => TargetChange::Abort { tx },
        });
        self.release(open.container, open.base, applied);
    }

    /// The refusal that says why nothing can be done to a transaction any more.
    pub(crate) fn refuse_closed(&self, tx: TxId) -> Outcome {
        if self.fate(tx).is_none() {
            return refuse(RefusalCode::NotFound, format!("transaction {tx} has not begun in this pool"));
        }
        let why = self.closed.get(&tx).map_or("it ended long ago", |closed| &closed.why);
        refuse(RefusalCode::Closed, format!("transaction {tx} is closed: {why}; begin another one"))
    }

    /// What makes a commit no commit at all: the transaction stays open.
    pub(super) fn check_sizes(&self, commit: &Commit<'_>) -> Result<(), Refusal> {
        let bytes = commit.attributes.len();
        if bytes > limit::MAX_ATTRIBUTES_BYTES {
            let most = limit::MAX_ATTRIBUTES_BYTES;
            return refuse(
                RefusalCode::TooLong,
                format!("attributes of {bytes} bytes, at most {most} go with a commit: write the rest as data"),
            );
        }
        let targets = self.map.as_ref().map_or(0, |map| map.targets.len());
        if let Some(unknown) = commit.summary.touched.iter().find(|target| target.0 as usize >= targets) {
            return refuse(
                RefusalCode::Argument,
                format!("the commit names target {unknown} of a pool with {targets} targets"),
            );
        }
        Ok(())
    }

    /// The refusal of a commit that an update failed before, with what the process that met it was told.
    fn refuse_failed(&self, tx: TxId, cause: Cause) -> Result<(), Refusal> {
        let map = self.map.as_ref();
        let lost = || map?.targets.iter().find(|info| info.state == TargetState::Down).map(|info| info.server);
        let (code, why) = match cause {
            Cause::Lost(server) => {
                let server = server.or_else(lost).map_or("a server".to_owned(), |server| format!("server {server}"));
                (RefusalCode::ServerLost, format!("{server} was lost; see `talea status`, and write the epoch again"))
            }
            Cause::Full => (
                RefusalCode::NoSpace,
                "a target is full; give the system more capacity, or keep fewer steps (--keep-steps)".to_owned(),
            ),
            Cause::Other => (RefusalCode::Closed, "that process was told why".to_owned()),
        };
        refuse(code, format!("transaction {tx} is aborted: an update of it failed on one of its processes: {why}"))
    }

    /// Whether all updates of the transaction are still there (rule 5). Groups have one target: any loss is one too many.
    pub(super) fn check_updates(&self, tx: TxId, summary: &Summary) -> Result<(), Refusal> {
        if summary.failed {
            return self.refuse_failed(tx, summary.cause);
        }
        for target in summary.touched.iter() {
            let Some(history) = self.targets.get(&target) else { continue };
            if history.changed > summary.map_version || self.map.as_ref().is_none_or(|map| map.is_lost(target)) {
                let server = self.map.as_ref().and_then(|map| map.target(target)).map_or(0, |info| info.server.0);
                return refuse(
                    RefusalCode::ServerLost,
                    format!(
                        "transaction {tx} is aborted: target {target} of server {server} was lost with updates of it \
                         (since map version {}); write the epoch again",
                        summary.map_version
                    ),
                );
            }
        }
        Ok(())
    }

    fn add_step(&mut self, id: ContainerId, stamp: Stamp, commit: &Commit<'_>, applied: &mut Applied) {
        let position = self.position;
        let Some(container) = self.containers.get_mut(&id) else { return };
        container.last_step = Step(container.last_step.0 + 1);
        let step = container.last_step;
        let (attributes, manifest) = (commit.attributes.to_vec(), commit.manifest);
        container.steps.push_back(StepRecord { step, stamp, position, tx: commit.tx, attributes, manifest });
        applied.touched.push(id);
        self.move_floor(id, applied);
    }
}
