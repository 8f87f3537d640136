//! What a target does with the pool's state in the place of records that it was not told.
//!
//! Owns that the target knows afterwards all that it would know from those records: fates of what was written here, numbers
//! that no zombie may use any more, containers that are gone, floors and kept stamps, sessions that have ended, the clock. Must
//! never guess a fate.

use std::collections::BTreeSet;
use std::sync::Arc;

use talea_model::{ContainerId, ContainerState, Fate, PoolState, SessionId, Stamp, TxId};
use talea_vos::Change;

use super::{Fatal, PoolChange, Target};

impl Target {
    /// Takes over the state as it is at the horizon that comes with it.
    pub(super) fn resync(&mut self, state: Arc<PoolState>, store: &mut Vec<Change>) -> Result<(), Fatal> {
        let mut changes = self.fates_of(&state)?;
        let is_gone = |id: &ContainerId| *id <= state.last_container && !state.has_container(*id);
        let gone: BTreeSet<ContainerId> = self.store.containers().map(|(id, _)| id).filter(is_gone).collect();
        changes.extend(gone.into_iter().map(Change::DestroyContainer));
        let has_ended = |session: &SessionId| state.has_ended(*session);
        let remembered: BTreeSet<SessionId> = self.store.sessions().filter(has_ended).collect();
        changes.extend(remembered.into_iter().map(Change::EndSession));
        self.set_sessions(state.last_session, state.sessions.iter().copied());
        self.past_of(&state, &mut changes);
        changes.iter().for_each(|change| self.note(change));
        store.append(&mut changes);
        // One that nothing was ever written to has nothing below its floor.
        let told: BTreeSet<ContainerId> = self.kept.keys().copied().collect();
        let matters = |known: &&ContainerState| known.floor > Stamp::ZERO || told.contains(&known.container);
        for known in state.containers.iter().filter(matters) {
            self.set_floor(known.container, known.floor, known.kept.clone(), store);
        }
        self.containers = Some(state.containers.iter().map(|known| known.container).collect());
        self.prepared.retain(|tx| matches!(state.fate(*tx), Some(Fate::Open)) || *tx > state.last_tx);
        // Commits that were missed took stamps, and so did snapshots that may be read here.
        self.clock.applied(state.ceiling);
        if let Some(map) = &state.map {
            self.set_map(Arc::new(map.clone()));
        }
        Ok(())
    }

    /// What earlier media of this target held, and which containers were made since (rule 10).
    fn past_of(&self, state: &PoolState, changes: &mut Vec<Change>) {
        let Some(own) = state.map.as_ref().and_then(|map| map.target(self.id)) else { return };
        let lost_through = state.lost_through(self.id);
        let (lost, made): (Vec<ContainerId>, Vec<ContainerId>) =
            state.containers.iter().map(|known| known.container).partition(|container| *container <= lost_through);
        if self.store.incarnation() != own.incarnation {
            if self.store.incarnation() == 0 && !lost.is_empty() {
                // Whatever it was called before: what was made under that name is lost.
                changes.push(Change::Incarnation(!own.incarnation));
            }
            changes.extend(lost.into_iter().map(Change::Container));
            changes.push(Change::Incarnation(own.incarnation));
        }
        changes.extend(made.into_iter().map(Change::Container));
    }

    /// Fates of all that has written here or is thought to be open, and of what is open now; in the order of the numbers, in
    /// which a ledger wants to hear of them. The last number is always among them: those below it have begun.
    fn fates_of(&self, state: &PoolState) -> Result<Vec<Change>, Fatal> {
        let ledger = self.store.ledger();
        let mut concerned: BTreeSet<TxId> = ledger.open().chain(self.store.unsettled()).collect();
        concerned.extend(&state.open);
        if state.last_tx != TxId(0) {
            concerned.insert(state.last_tx);
        }
        let mut changes = Vec::new();
        for tx in concerned.into_iter().filter(|tx| *tx <= state.last_tx) {
            if matches!(ledger.fate(tx), Some(Fate::Committed(_) | Fate::Aborted)) {
                continue;
            }
            changes.push(match state.fate(tx) {
                Some(Fate::Open) => Change::Begin(tx),
                Some(Fate::Committed(stamp)) => Change::Commit(tx, stamp),
                Some(Fate::Aborted) => Change::Abort(tx),
                None => return Err(Fatal::Behind { target: self.id, tx }),
            });
        }
        Ok(changes)
    }

    /// Records that this target's store knows already: another target of its server did not. What the process forgot at its
    /// end is all that there is to learn from them.
    pub(super) fn follow_again(&mut self, changes: Vec<PoolChange>) {
        for change in changes {
            match change {
                PoolChange::Map(map) => self.set_map(map),
                PoolChange::Store(change @ Change::EndSession(_)) => self.note(&change),
                PoolChange::OpenSession(session) => self.sessions.open(session),
                PoolChange::Sessions(last, open) => self.set_sessions(last, open),
                PoolChange::State(state) => state.map.iter().for_each(|map| self.set_map(Arc::new(map.clone()))),
                _ => {}
            }
        }
        self.recheck = true;
    }
}
