//! What a server's targets know, from what they were told: it must be the pool's state, whatever way they learned of it.

use std::collections::BTreeSet;

use talea_model::{ContainerState, Fate, PoolMap};

use super::*;

/// A target's knowledge.
#[derive(Debug, Default, PartialEq)]
struct View {
    fates: BTreeMap<TxId, Fate>,
    containers: BTreeMap<ContainerId, ContainerState>,
    ended: BTreeSet<SessionId>,
    sessions: BTreeSet<SessionId>,
    map: Option<PoolMap>,
}

impl View {
    fn take(&mut self, change: &TargetChange) {
        match change {
            TargetChange::Begin { tx, .. } => _ = self.fates.insert(*tx, Fate::Open),
            TargetChange::Commit { tx, stamp } => _ = self.fates.insert(*tx, Fate::Committed(*stamp)),
            TargetChange::Abort { tx } => _ = self.fates.insert(*tx, Fate::Aborted),
            TargetChange::Floor { container, floor, kept } => {
                let known = ContainerState { container: *container, floor: *floor, kept: kept.clone() };
                self.containers.insert(*container, known);
            }
            TargetChange::Container { container } => {
                let known = ContainerState { container: *container, floor: Stamp::ZERO, kept: vec![] };
                self.containers.insert(*container, known);
            }
            TargetChange::DestroyContainer { container } => _ = self.containers.remove(container),
            TargetChange::EndSession { session } => {
                self.ended.insert(*session);
                self.sessions.remove(session);
            }
            TargetChange::OpenSession { session } => _ = self.sessions.insert(*session),
            TargetChange::Sessions { open, .. } => self.sessions = open.iter().copied().collect(),
            TargetChange::Map(map) => self.map = Some(map.clone()),
            TargetChange::State(state) => {
                self.fates.extend(state.closed.iter().copied());
                self.fates.extend(state.open.iter().map(|tx| (*tx, Fate::Open)));
                self.containers = state.containers.iter().map(|known| (known.container, known.clone())).collect();
                self.ended.extend((1..=state.last_session.0).map(SessionId).filter(|id| state.has_ended(*id)));
                self.sessions = state.sessions.iter().copied().collect();
                self.map = state.map.clone();
            }
        }
    }
}

impl World {
    /// Whether the targets of a server, which were told everything since their beginning, know all that the pool's state says.
    pub(super) fn check_view(&self, server: usize) {
        let mut view = View::default();
        self.told[server].changes.iter().for_each(|change| view.take(change));
        let mut whole = View::default();
        whole.take(&TargetChange::State(std::sync::Arc::new(self.node(server).pool().state())));
        assert_eq!(view, whole, "server {server}");
    }

    /// How often the targets of a server were told the whole state.
    pub(super) fn states_told(&self, server: usize) -> usize {
        self.told[server].changes.iter().filter(|change| matches!(change, TargetChange::State(_))).count()
    }
}
