//! Long polls: who waits for steps of which container, until when (rule 17).

use std::collections::{BTreeMap, BTreeSet};

use talea_fabric::PeerId;
use talea_model::{ContainerId, Step};
use talea_wire::control::{Reply, Waited};
use talea_wire::{Refusal, RefusalCode};

use super::question::Origin;
use super::{Node, Role, follower};

/// Most waits at one server.
const MAX_WAITS: usize = 1 << 16;
/// A wait is answered this part of its deadline early, so that the answer arrives in time; at most [`MARGIN_MS_MAX`].
const MARGIN_PART: u64 = 10;
const MARGIN_MS_MAX: u64 = 200;

/// Somebody who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) origin: Origin,
    pub(super) container: ContainerId,
    pub(super) after: Step,
    pub(super) limit: u32,
}

/// All who wait here.
#[derive(Debug, Default)]
pub(super) struct Waits {
    last: u64,
    waits: BTreeMap<u64, (Wait, u64)>,
    by_container: BTreeSet<(ContainerId, u64)>,
    by_deadline: BTreeSet<(u64, u64)>,
    /// Containers about which there is news.
    touched: BTreeSet<ContainerId>,
}

impl Waits {
    fn insert(&mut self, wait: Wait, deadline_ns: u64) {
        self.last += 1;
        self.by_container.insert((wait.container, self.last));
        self.by_deadline.insert((deadline_ns, self.last));
        self.waits.insert(self.last, (wait, deadline_ns));
    }

    fn remove(&mut self, id: u64) -> Option<Wait> {
        let (wait, deadline_ns) = self.waits.remove(&id)?;
        self.by_container.remove(&(wait.container, id));
        self.by_deadline.remove(&(deadline_ns, id));
        Some(wait)
    }

    /// Notes news about a container.
    pub(super) fn touch(&mut self, container: ContainerId) {
        self.touched.insert(container);
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.by_deadline.first().map(|(deadline_ns, _)| *deadline_ns)
    }

    /// The clients that wait here.
    pub(super) fn peers(&self) -> BTreeSet<PeerId> {
        let peer =
            |(wait, _): &(Wait, u64)| if let Origin::Client { peer, .. } = wait.origin { Some(peer) } else { None };
        self.waits.values().filter_map(peer).collect()
    }

    pub(super) fn forget_peer(&mut self, gone: PeerId) {
        let is_gone = |wait: &Wait| matches!(wait.origin, Origin::Client { peer, .. } if peer == gone);
        let ids: Vec<u64> = self.waits.iter().filter(|(_, (wait, _))| is_gone(wait)).map(|(id, _)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Containers that somebody waits for.
    pub(super) fn containers(&self) -> impl Iterator<Item = ContainerId> {
        self.by_container.iter().map(|(container, _)| *container)
    }

    fn of(&self, container: ContainerId) -> Vec<u64> {
        self.by_container.range((container, 0)..=(container, u64::MAX)).map(|(_, id)| *id).collect()
    }
}

impl Node {
    /// A client asks for steps. What is there is told at once; whether there is nothing yet, or nothing any more, only the
    /// log's end can say.
    pub(super) fn wait(&mut self, wait: Wait, deadline_ms: u64) {
        if self.waits.waits.len() >= MAX_WAITS {
            let text = format!("{MAX_WAITS} waits are open at this server: try again later");
            return self.answer(wait.origin, Err(Refusal::new(RefusalCode::Busy, text)));
        }
        let margin_ms = (deadline_ms / MARGIN_PART).min(MARGIN_MS_MAX);
        let deadline_ns = self.deadline_ns(deadline_ms - margin_ms);
        let now = self.pool.waited(wait.container, wait.after, wait.limit);
        let has_steps = matches!(now, Some(Ok(Reply::Waited(Waited::Steps { .. }))));
        match (now, &self.role) {
            (Some(outcome), Role::Leader(_)) => self.answer(wait.origin, outcome),
            (Some(outcome), _) if has_steps => self.answer(wait.origin, outcome),
            _ => self.catch_up(follower::CatchUp::Wait(wait, deadline_ns)),
        }
    }

    /// The log's end has been reached: answers, or begins to wait.
    pub(super) fn start_wait(&mut self, wait: Wait, deadline_ns: u64) {
        match self.pool.waited(wait.container, wait.after, wait.limit) {
            Some(outcome) => self.answer(wait.origin, outcome),
            None if deadline_ns <= self.now.monotonic_ns => {
                self.answer(wait.origin, Ok(Reply::Waited(Waited::NotReady)));
            }
            None => self.waits.insert(wait, deadline_ns),
        }
    }

    /// Answers the waits for which there is news.
    pub(super) fn answer_waits(&mut self) {
        while let Some(container) = self.waits.touched.pop_first() {
            for id in self.waits.of(container) {
                let Some((wait, _)) = self.waits.waits.get(&id) else { continue };
                let outcome = self.pool.waited(wait.container, wait.after, wait.limit);
                if let Some(outcome) = outcome
                    && let Some(wait) = self.waits.remove(id)
                {
                    self.answer(wait.origin, outcome);
                }
            }
        }
    }

    /// Answers the waits whose deadline is near.
    pub(super) fn expire_waits(&mut self) {
        while let Some((deadline_ns, id)) = self.waits.by_deadline.first().copied() {
            if deadline_ns > self.now.monotonic_ns {
                break;
            }
            if let Some(wait) = self.waits.remove(id) {
                self.answer(wait.origin, Ok(Reply::Waited(Waited::NotReady)));
            }
        }
    }
}
