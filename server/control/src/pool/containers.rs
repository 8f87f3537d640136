//! Containers: their making and end, their steps, and what of them stays readable (rule 13).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use talea_model::{ContainerId, ObjectClass, SessionId, Stamp, Step, Summary, TxId, limit};
use talea_wire::control::{Reply, StepRecord};
use talea_wire::log::{ContainerProperties, Lagging};
use talea_wire::{Refusal, RefusalCode};

use super::sessions::Producer;
use super::snapshots::NamedSnapshot;
use super::{Applied, Outcome, Pool, refuse};
use crate::TargetChange;

/// A container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) properties: ContainerProperties,
    /// Retained steps, dense, oldest first; the last one is `last_step`.
    pub(super) steps: VecDeque<StepRecord>,
    pub(super) last_step: Step,
    /// F.
    pub(super) floor: Stamp,
    /// Stamps that must stay readable below F, and how many need each.
    pub(super) kept: BTreeMap<Stamp, u64>,
    pub(super) named: BTreeMap<String, NamedSnapshot>,
    /// Per subscriber the last step that it has received.
    pub(super) subscriptions: BTreeMap<SessionId, Step>,
    pub(super) producer: Producer,
}

impl Container {
    /// First step that is still readable.
    pub(super) fn first_step(&self) -> Step {
        self.steps.front().map_or(Step(self.last_step.0 + 1), |record| record.step)
    }

    /// A retained step.
    pub(super) fn step(&self, step: Step) -> Option<&StepRecord> {
        let index = step.0.checked_sub(self.first_step().0)?;
        self.steps.get(usize::try_from(index).ok()?)
    }

    /// The last step that the slowest follower has received.
    fn slowest(&self) -> Option<Step> {
        self.subscriptions.values().min().copied()
    }

    pub(super) fn kept_below_floor(&self) -> Vec<Stamp> {
        self.kept.range(..self.floor).map(|(stamp, _)| *stamp).collect()
    }
}

impl Pool {
    pub(super) fn container(&self, id: ContainerId) -> Result<&Container, Refusal> {
        match self.containers.get(&id) {
            Some(container) => Ok(container),
            None => refuse(
                RefusalCode::NoContainer,
                format!("container {id} does not exist (any more); `talea ls` shows those that do"),
            ),
        }
    }

    pub(super) fn container_mut(&mut self, id: ContainerId) -> Result<&mut Container, Refusal> {
        self.container(id)?;
        self.containers.get_mut(&id).ok_or_else(|| Refusal::new(RefusalCode::NoContainer, "no such container"))
    }

    pub(super) fn container_create(
        &mut self,
        name: &str,
        properties: &ContainerProperties,
        applied: &mut Applied,
    ) -> Outcome {
        check_name("container", name)?;
        check_properties(properties)?;
        if self.containers.values().any(|container| container.name == name) {
            return refuse(RefusalCode::Exists, format!("container '{name}' exists: open it, or take another name"));
        }
        if self.containers.len() >= limit::MAX_CONTAINERS {
            return refuse(
                RefusalCode::NoSpace,
                format!("the pool has {} containers, its limit: destroy some", limit::MAX_CONTAINERS),
            );
        }
        self.last_container = ContainerId(self.last_container.0 + 1);
        let container = Container {
            name: name.to_owned(),
            properties: properties.clone(),
            steps: VecDeque::new(),
            last_step: Step(0),
            floor: Stamp::ZERO,
            kept: BTreeMap::new(),
            named: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            producer: self.producer,
        };
        self.containers.insert(self.last_container, container);
        applied.changes.push(TargetChange::Container { container: self.last_container });
        Ok(Reply::Container(self.container_info(self.last_container)?))
    }

    pub(super) fn container_destroy(&mut self, id: ContainerId, applied: &mut Applied) -> Outcome {
        let name = self.container(id)?.name.clone();
        self.abort_where(&format!("its container '{name}' was destroyed"), applied, |_, open| open.container == id);
        self.leases.retain(|_, lease| lease.container != id);
        self.containers.remove(&id);
        applied.changes.push(TargetChange::DestroyContainer { container: id });
        applied.touched.push(id);
        Ok(Reply::Done)
    }

    /// Why this commit has to wait for a follower, if it has to ([`Lagging::Block`]): with it, one would be behind by more steps
    /// than the container keeps. The transaction stays open.
    pub(crate) fn held_up(&self, tx: TxId, summary: &Summary) -> Option<Refusal> {
        let open =
            self.open.get(&tx).filter(|open| open.collective && !summary.touched.is_empty() && !summary.failed)?;
        let container = self.containers.get(&open.container)?;
        let slowest = container.slowest().filter(|_| container.properties.lagging == Lagging::Block)?;
        let behind = container.last_step.0.saturating_sub(slowest.0);
        (behind >= container.properties.kept_steps).then(|| {
            let text = format!(
                "'{}' keeps {} steps, and a follower has received none after step {slowest}: the commit waits for it \
                 (`talea run --lagging block`); `talea status` shows the followers",
                container.name, container.properties.kept_steps
            );
            Refusal::new(RefusalCode::Busy, text)
        })
    }

    /// Keeps a stamp readable until it is released as often as it was kept.
    pub(super) fn keep(&mut self, id: ContainerId, stamp: Stamp) {
        if let Some(container) = self.containers.get_mut(&id) {
            *container.kept.entry(stamp).or_default() += 1;
        }
    }

    pub(super) fn release(&mut self, id: ContainerId, stamp: Stamp, applied: &mut Applied) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let Some(count) = container.kept.get_mut(&stamp) else { return };
        *count -= 1;
        if *count == 0 {
            container.kept.remove(&stamp);
            if stamp < container.floor {
                self.tell_floor(id, applied);
            }
        }
    }

    /// Forgets steps that neither the container's property nor a subscriber asks for, and lifts F behind them.
    pub(super) fn move_floor(&mut self, id: ContainerId, applied: &mut Applied) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let by_count = container.last_step.0.saturating_sub(container.properties.kept_steps.max(1)) + 1;
        let by_followers = match container.properties.lagging {
            Lagging::Drop => u64::MAX,
            Lagging::Keep | Lagging::Block => container.slowest().map_or(u64::MAX, |after| after.0 + 1),
        };
        let first = Step(by_count.min(by_followers));
        // The last step always stays: F is its stamp at the highest.
        while container.steps.len() > 1 && container.first_step() < first {
            container.steps.pop_front();
        }
        let Some(floor) = container.steps.front().map(|record| record.stamp) else { return };
        if floor > container.floor {
            container.floor = floor;
            self.tell_floor(id, applied);
        }
    }

    /// In a container without steps only latest snapshots can be opened, so everything below a stamp just issued that nobody
    /// keeps may go. Without this, a container of autocommits would grow for ever.
    pub(super) fn raise_stepless_floor(&mut self, id: ContainerId, stamp: Stamp, applied: &mut Applied) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        if container.last_step == Step(0) && stamp > container.floor {
            container.floor = stamp;
            self.tell_floor(id, applied);
        }
    }

    fn tell_floor(&self, id: ContainerId, applied: &mut Applied) {
        let Some(container) = self.containers.get(&id) else { return };
        // Of several in one entry only the last counts.
        applied.changes.retain(|change| !matches!(change, TargetChange::Floor { container, .. } if *container == id));
        applied.changes.push(TargetChange::Floor {
            container: id,
            floor: container.floor,
            kept: container.kept_below_floor(),
        });
    }
}

/// Names are path components: they stand in `/talea/NAME/…`.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let most = limit::MAX_CONTAINER_NAME_BYTES;
    if name.len() > most {
        let found = name.len();
        return refuse(RefusalCode::TooLong, format!("a {what}'s name of {found} bytes: take at most {most}"));
    }
    let is_bad = |c: char| c == '/' || c.is_control();
    if name.is_empty() || name.starts_with('.') || name.contains(is_bad) {
        return refuse(
            RefusalCode::Argument,
            format!(
                "'{}' cannot name a {what}: not empty, no leading dot, no '/' or control characters",
                name.escape_debug()
            ),
        );
    }
    Ok(())
}

fn check_properties(properties: &ContainerProperties) -> Result<(), Refusal> {
    match ObjectClass::decode(properties.class) {
        Some(class) if class.is_supported() => {}
        Some(class) => {
            return refuse(
                RefusalCode::Unsupported,
                format!("object class {class} is not supported yet: take S1 … SX"),
            );
        }
        None => return refuse(RefusalCode::Argument, format!("{:#x} is no object class", properties.class)),
    }
    if properties.kept_steps == 0 || properties.chunk_bytes == 0 {
        return refuse(RefusalCode::Argument, "a container keeps at least 1 step and has chunks of at least 1 byte");
    }
    Ok(())
}
