//! Independent transactions: the log's part of their optimistic commit (rule 15).

use talea_model::limit::MAX_NAMED_TX;
use talea_model::{Fate, MapVersion, Stamp, Summary, TxId};
use talea_wire::control::{Committed, Reply};
use talea_wire::{Refusal, RefusalCode};

use super::transactions::{Closed, Commit};
use super::{Applied, Outcome, Pool, refuse};

/// A commit entry's parts.
pub(super) struct Independent<'a> {
    pub(super) tx: TxId,
    pub(super) summary: &'a Summary,
    pub(super) until: Stamp,
    pub(super) named: &'a [TxId],
}

impl Pool {
    /// Commits at some C ≤ `until`, or refuses: then the transaction is aborted, unless it was only the bound that was
    /// overtaken ([`RefusalCode::Restart`]).
    pub(super) fn commit_independent(&mut self, commit: Independent<'_>, applied: &mut Applied) -> Outcome {
        let Independent { tx, summary, until, named } = commit;
        let Some(open) = self.open.get(&tx).cloned() else { return self.refuse_closed(tx) };
        if open.collective {
            return refuse(
                RefusalCode::Argument,
                format!("transaction {tx} is a collective epoch, whose commit is another"),
            );
        }
        if named.len() > MAX_NAMED_TX {
            return refuse(RefusalCode::TooLong, format!("a commit names at most {MAX_NAMED_TX} transactions"));
        }
        self.check_sizes(&Commit { tx, summary, attributes: &[], manifest: None, next: false })?;
        let stands = self.check_updates(tx, summary);
        let checked = stands.and_then(|()| self.check_map(tx, summary.map_version));
        if let Err(refusal) = checked.and_then(|()| self.check_named(tx, open.base, named)) {
            self.close(tx, Fate::Aborted, &refusal.text, applied);
            return Err(refusal);
        }
        // Above all stamps issued and above its own writes' (rule 2): what it has read holds only up to its bound.
        let stamp = self.ceiling.next().max(summary.hlc.next());
        if stamp > until {
            return refuse(
                RefusalCode::Restart,
                format!("transaction {tx}: its bound {until} was overtaken by {stamp}: prepare it again"),
            );
        }
        let stamp = self.take(stamp);
        self.close(tx, Fate::Committed(stamp), "it committed", applied);
        let step = self.container(open.container).map(|container| container.last_step).unwrap_or_default();
        let position = self.position;
        Ok(Reply::Committed(Committed { stamp, position, step, made_step: false, next: None }))
    }

    /// Another map may have other leaders, who know nothing of what was prepared.
    fn check_map(&self, tx: TxId, version: MapVersion) -> Result<(), Refusal> {
        match &self.map {
            Some(map) if map.version > version => refuse(
                RefusalCode::Conflict,
                format!(
                    "transaction {tx} is aborted: the pool map changed from version {version} to {} while it ran; begin \
                     it anew",
                    map.version
                ),
            ),
            _ => Ok(()),
        }
    }

    fn check_named(&self, tx: TxId, base: Stamp, named: &[TxId]) -> Result<(), Refusal> {
        let is_harmless = |other: &TxId| match self.closed.get(other) {
            _ if self.open.contains_key(other) => true,
            Some(Closed { fate: Fate::Aborted, .. }) => true,
            Some(Closed { fate: Fate::Committed(stamp), .. }) => *stamp <= base,
            // Nobody knows any more what became of it.
            Some(Closed { fate: Fate::Open, .. }) | None => false,
        };
        match named.iter().find(|other| !is_harmless(other)) {
            None => Ok(()),
            Some(other) => refuse(
                RefusalCode::Conflict,
                format!("transaction {tx} is aborted: transaction {other} wrote what it has read; begin it anew"),
            ),
        }
    }
}
