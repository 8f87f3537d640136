//! Questions to the state: containers, status, and what a wait would be told now.

use talea_model::{ContainerId, ServerId, Step};
use talea_wire::Refusal;
use talea_wire::RefusalCode;
use talea_wire::control::{ContainerInfo, Counters, Reply, SessionInfo, Status, StepRecord, Waited};
use talea_wire::log::ProducerState;

use super::{Outcome, Pool, refuse};

/// Most steps in one answer.
const MAX_STEPS: usize = 256;
/// Bytes of attributes in one answer; the first step goes whatever it carries.
const MAX_STEPS_BYTES: usize = 256 * 1024;
/// Most lines of each list in a status.
const MAX_LISTED: usize = 2048;

impl Pool {
    /// One container by name.
    pub fn container_by_name(&self, name: &str) -> Outcome {
        match self.containers.iter().find(|(_, container)| container.name == name) {
            Some((id, _)) => Ok(Reply::Container(self.container_info(*id)?)),
            None => refuse(
                RefusalCode::NoContainer,
                format!(
                    "container '{name}' does not exist; `talea ls` shows those that do, and --container NAME of talea run and up makes one"
                ),
            ),
        }
    }

    /// All containers (the first few thousand).
    pub fn container_list(&self) -> Vec<ContainerInfo> {
        self.containers.keys().take(MAX_LISTED).filter_map(|id| self.container_info(*id).ok()).collect()
    }

    /// A container as its users see it.
    pub fn container_info(&self, id: ContainerId) -> Result<ContainerInfo, Refusal> {
        let container = self.container(id)?;
        Ok(ContainerInfo {
            container: id,
            name: container.name.clone(),
            properties: container.properties.clone(),
            step: container.last_step,
            first_step: container.first_step(),
            open_transactions: self.open.values().filter(|open| open.container == id).count() as u64,
            snapshots: container.named.iter().map(|(name, snapshot)| (name.clone(), snapshot.stamp)).collect(),
            producer: container.producer.state,
            subscriptions: container.subscriptions.len() as u64,
            leases: self.leases.values().filter(|lease| lease.container == id).count() as u64,
        })
    }

    /// What `talea status` shows.
    pub fn status(&self, counters: Counters, leader: ServerId, replicas: Vec<ServerId>) -> Outcome {
        let Some(map) = self.map.clone() else {
            return refuse(RefusalCode::Busy, "the pool has not begun: some of its servers are not up yet, try again");
        };
        let sessions = self.sessions.iter().take(MAX_LISTED);
        let open = self.open.iter().take(MAX_LISTED);
        let followers = self.containers.iter().flat_map(|(container, state)| {
            state.subscriptions.iter().map(|(session, after)| (*container, *session, *after))
        });
        Ok(Reply::Status(Box::new(Status {
            followers: followers.take(MAX_LISTED).collect(),
            map,
            containers: self.container_list(),
            sessions: sessions
                .map(|(id, session)| SessionInfo {
                    session: *id,
                    name: session.name.clone(),
                    home: session.home,
                    process: session.process,
                    since: session.since,
                })
                .collect(),
            transactions: open.map(|(tx, open)| (*tx, open.container, open.owner)).collect(),
            position: self.position,
            counters,
            leader,
            replicas,
            lost: self.lost(),
            unled: None,
        })))
    }

    /// What a wait for steps after `after` is told now; `None`: nothing yet.
    pub fn waited(&self, id: ContainerId, after: Step, limit: u32) -> Option<Outcome> {
        let container = match self.container(id) {
            Ok(container) => container,
            Err(refusal) => return Some(Err(refusal)),
        };
        let first = container.first_step();
        if after < container.last_step && after.0 + 1 < first.0 {
            return Some(Ok(Reply::Waited(Waited::Gap { through: Step(first.0 - 1) })));
        }
        if after < container.last_step {
            let skip = (after.0 + 1 - first.0) as usize;
            let most = (limit as usize).clamp(1, MAX_STEPS);
            let mut bytes = 0;
            let fits = |record: &&StepRecord| {
                bytes += record.attributes.len();
                bytes <= MAX_STEPS_BYTES
            };
            let steps = container.steps.iter().skip(skip).take(most).take_while(fits).cloned().collect();
            return Some(Ok(Reply::Waited(Waited::Steps { steps, latest: container.last_step })));
        }
        match container.producer.state {
            ProducerState::Ended => Some(Ok(Reply::Waited(Waited::End))),
            ProducerState::Lost => Some(Ok(Reply::Waited(Waited::ProducerLost))),
            ProducerState::Active | ProducerState::Unknown => None,
        }
    }
}
