//! Following the pool's log: fates, floors, containers, maps.
//!
//! Must never let the horizon pass what the store has logged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use talea_model::{ContainerId, PoolMap, Position, SessionId, Stamp};
use talea_vos::{Change, Store, StoreError};

use super::{Fatal, PoolChange, Target};

/// Parts of the log that the store has no room for yet: right after a restart, while others may still read all that is free.
#[derive(Default)]
pub(super) struct Behind {
    parts: VecDeque<(Vec<Change>, Position)>,
}

impl Behind {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How far they go.
    fn horizon(&self) -> Option<Position> {
        self.parts.back().map(|(_, horizon)| *horizon)
    }

    /// The last incarnation among them.
    fn incarnation(&self) -> Option<u64> {
        let changes = self.parts.iter().rev().flat_map(|(changes, _)| changes.iter().rev());
        changes.into_iter().find_map(|change| if let Change::Incarnation(now) = change { Some(*now) } else { None })
    }
}

/// The stamps that a store keeps below its containers' floors.
pub(super) fn kept_of(store: &Store) -> BTreeMap<ContainerId, BTreeSet<Stamp>> {
    store.containers().map(|(id, kept)| (id, kept.collect())).collect()
}

impl Target {
    /// Entries of the pool's log were applied up to `horizon`.
    pub fn follow(&mut self, changes: Vec<PoolChange>, horizon: Position) -> Result<(), Fatal> {
        if horizon < self.behind.horizon().unwrap_or_else(|| self.store.ledger().horizon()) {
            self.follow_again(changes);
            return Ok(());
        }
        let mut store = Vec::with_capacity(changes.len());
        let mut incarnation = self.behind.incarnation().unwrap_or_else(|| self.store.incarnation());
        for change in changes {
            match change {
                PoolChange::Store(change) => store.push(change),
                PoolChange::Container(container) => {
                    self.containers.iter_mut().for_each(|known| _ = known.insert(container));
                    store.push(Change::Container(container));
                }
                PoolChange::OpenSession(session) => self.sessions.open(session),
                PoolChange::Sessions(last, open) => self.set_sessions(last, open),
                PoolChange::Floor { container, floor, kept } => self.set_floor(container, floor, kept, &mut store),
                PoolChange::Map(map) => {
                    let now = map.target(self.id).map_or(incarnation, |target| target.incarnation);
                    if std::mem::replace(&mut incarnation, now) != now {
                        store.push(Change::Incarnation(now));
                    }
                    self.set_map(map);
                }
                PoolChange::State(state) => {
                    // It is made of what the store knows: what waits for room says nothing that it does not say.
                    if !self.behind.is_empty() {
                        self.behind.parts.clear();
                        self.kept = kept_of(&self.store);
                    }
                    let own = state.map.as_ref().and_then(|map| map.target(self.id));
                    incarnation = own.map_or(incarnation, |target| target.incarnation);
                    self.resync(state, &mut store)?;
                }
            }
        }
        if self.incarnation.is_some_and(|own| own == incarnation) {
            self.begins.get_or_insert(horizon);
        }
        self.behind.parts.push_back((store, horizon));
        self.catch_up()
    }

    /// Gives the store what it has not been told of the log.
    pub(super) fn catch_up(&mut self) -> Result<(), Fatal> {
        while let Some((changes, horizon)) = self.behind.parts.front() {
            match self.store.follow(changes, *horizon) {
                Err(StoreError::RoomToCome { .. }) => return Ok(()),
                followed => followed.map_err(|source| self.fatal(source))?,
            }
            (self.dirty, self.recheck) = (true, true);
            let Some((changes, _)) = self.behind.parts.pop_front() else { break };
            if !changes.is_empty() {
                self.places_change();
            }
            self.background |= !changes.is_empty();
            changes.iter().for_each(|change| self.note(change));
            // What a commit makes visible may be what a condition has looked for in vain.
            if changes.iter().any(|change| matches!(change, Change::Commit(tx, _) if self.store.has_written(*tx))) {
                self.changes.note(None, None);
            }
        }
        match self.raise_ceiling() {
            // Whoever needs it higher raises it first, and waits for the same room.
            Err(StoreError::RoomToCome { .. }) => Ok(()),
            raised => raised.map_err(|source| self.fatal(source)),
        }
    }

    /// The sessions that there are: connections of others are over.
    pub(super) fn set_sessions(&mut self, last: SessionId, open: impl IntoIterator<Item = SessionId>) {
        self.sessions.tell(last, open);
        for peer in self.peers.values_mut() {
            peer.ended |= self.sessions.has_ended(SessionId(peer.hello.session));
        }
        self.look_for_ended();
    }

    /// A pool map, also outside of the log's order; an older one is ignored.
    pub fn set_map(&mut self, map: Arc<PoolMap>) {
        if self.map.as_ref().is_none_or(|known| known.version < map.version) {
            self.map = Some(map);
            self.recheck = true;
        }
    }

    pub(super) fn note(&mut self, change: &Change) {
        match change {
            Change::Commit(tx, stamp) => {
                self.prepared.remove(tx);
                self.clock.applied(*stamp);
            }
            Change::Abort(tx) => _ = self.prepared.remove(tx),
            Change::DestroyContainer(container) => {
                self.containers.iter_mut().for_each(|known| _ = known.remove(container));
                self.kept.remove(container);
                self.counters.container_bytes_in.remove(container);
            }
            Change::EndSession(session) => {
                self.sessions.end(*session);
                let of_it = self.peers.values_mut().filter(|peer| peer.hello.session == session.0);
                of_it.for_each(|peer| peer.ended = true);
                self.look_for_ended();
            }
            _ => {}
        }
    }

    /// The pool says which stamps are kept; the store counts them.
    pub(super) fn set_floor(
        &mut self,
        container: ContainerId,
        floor: Stamp,
        kept: Vec<Stamp>,
        store: &mut Vec<Change>,
    ) {
        let now: BTreeSet<Stamp> = kept.into_iter().collect();
        let before = self.kept.insert(container, now.clone()).unwrap_or_default();
        store.extend(now.difference(&before).map(|stamp| Change::Keep(container, *stamp)));
        store.push(Change::Floor(container, floor));
        store.extend(before.difference(&now).map(|stamp| Change::Release(container, *stamp)));
    }

    pub(super) fn raise_ceiling(&mut self) -> Result<(), StoreError> {
        if let Some(to) = self.clock.wanted_ceiling() {
            self.store.raise_ceiling(to)?;
            self.clock.raised(to);
            self.dirty = true;
        }
        Ok(())
    }
}
