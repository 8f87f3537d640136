//! The pool map: who serves, and what was lost when (rules 5, 9, 10, 12).

use serde::{Deserialize, Serialize};
use talea_model::{
    ContainerId, MapVersion, PoolId, PoolMap, ServerId, ServerInfo, Stamp, TargetId, TargetInfo, TargetState, limit,
};
use talea_wire::control::Reply;
use talea_wire::{Refusal, RefusalCode};

use super::{Applied, Outcome, Pool, refuse};
use crate::TargetChange;

/// What matters of a target's past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TargetHistory {
    /// Map version in which it last came back without (some of) its log.
    pub(super) changed: MapVersion,
    /// The last container that was made before it came back without what it had stored.
    pub(super) lost_through: ContainerId,
    /// What it will be when its server, which is lost, comes back.
    returns: TargetState,
}

impl Pool {
    /// What a server's process drew at its start, as far as the log knows.
    pub fn boot_of(&self, server: ServerId) -> Option<u64> {
        self.boots.get(&server).copied()
    }

    pub(super) fn pool_create(
        &mut self,
        pool: u128,
        servers: &[ServerInfo],
        targets: &[TargetInfo],
        boots: &[u64],
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        if self.map.is_some() {
            return refuse(RefusalCode::Exists, "the pool has begun already");
        }
        if servers.len() > limit::MAX_SERVERS || targets.len() > limit::MAX_TARGETS {
            return refuse(RefusalCode::TooLong, "more servers or targets than a pool can have");
        }
        let mut targets = targets.to_vec();
        targets.sort_by_key(|target| target.id);
        let dense = targets.iter().enumerate().all(|(index, target)| target.id.0 as usize == index);
        if targets.is_empty() || !dense {
            return refuse(RefusalCode::Argument, "a pool's targets are numbered 0, 1, 2, … over all servers");
        }
        self.boots = servers.iter().map(|server| server.id).zip(boots.iter().copied()).collect();
        self.targets = targets.iter().map(|target| (target.id, TargetHistory::default())).collect();
        let (version, stamp) = (MapVersion(1), self.take(proposed));
        let map = PoolMap { pool: PoolId(pool), version, stamp, servers: servers.to_vec(), targets };
        applied.changes.push(TargetChange::Map(map.clone()));
        self.map = Some(map);
        Ok(Reply::Done)
    }

    pub(super) fn server_up(
        &mut self,
        server: &ServerInfo,
        targets: &[TargetInfo],
        (boot, remembers): (u64, bool),
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        let Some(map) = &self.map else {
            return refuse(RefusalCode::Busy, "the pool has not begun");
        };
        let known = |target: &TargetInfo| map.target(target.id).is_some_and(|known| known.server == server.id);
        if let Some(foreign) = targets.iter().find(|target| !known(target)) {
            return refuse(
                RefusalCode::Unsupported,
                format!(
                    "target {} is not one of server {}: extending a pool is not supported yet",
                    foreign.id, server.id
                ),
            );
        }
        let has_restarted = self.boots.insert(server.id, boot) != Some(boot);
        // A server says where its targets are. Whether they are being emptied or filled is the pool's to say.
        let targets: Vec<TargetInfo> = targets
            .iter()
            .map(|target| TargetInfo { state: self.state_on_return(map, target.id), ..target.clone() })
            .collect();
        let is_known = |target: &TargetInfo| map.target(target.id) == Some(target);
        let is_same = map.server(server.id) == Some(server) && targets.iter().all(is_known);
        if is_same && !has_restarted {
            self.regain_sessions(server.id);
            return Ok(Reply::Done);
        }
        let mut map = map.clone();
        let mut lost = Vec::new();
        for target in &targets {
            let Some(known) = map.targets.get_mut(target.id.0 as usize) else { continue };
            if known.incarnation != target.incarnation {
                lost.push(target.id);
            }
            *known = target.clone();
        }
        match map.servers.iter_mut().find(|known| known.id == server.id) {
            Some(known) => *known = server.clone(),
            None => map.servers.push(server.clone()),
        }
        // What was prepared for an independent transaction lived in the process that is gone: it fails on another map (rule 15).
        if has_restarted || Some(&map) != self.map.as_ref() {
            self.change_map(map, &lost, proposed, applied);
            for target in &lost {
                self.targets.entry(*target).or_default().lost_through = self.last_container;
            }
        }
        if !lost.is_empty() || (has_restarted && !remembers) {
            let what = if lost.is_empty() { "who wrote through it" } else { "what it had stored" };
            let reason = format!("server {} came back without {what}", server.id);
            self.abort_where(&reason, applied, |_, _| true);
        }
        if has_restarted {
            self.note_lost(server.id);
        }
        self.regain_sessions(server.id);
        Ok(Reply::Done)
    }

    fn state_on_return(&self, map: &PoolMap, id: TargetId) -> TargetState {
        match map.target(id).map(|known| known.state) {
            Some(TargetState::Down) | None => self.targets.get(&id).map_or(TargetState::Up, |past| past.returns),
            Some(state) => state,
        }
    }

    /// Targets that have lost what they had stored, and the last container of which.
    pub(super) fn lost(&self) -> Vec<(TargetId, ContainerId)> {
        let lost = self.targets.iter().filter(|(_, past)| past.lost_through.0 > 0);
        lost.map(|(id, past)| (*id, past.lost_through)).collect()
    }

    pub(super) fn set_targets(
        &mut self,
        targets: &[TargetId],
        state: TargetState,
        proposed: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        let Some(mut map) = self.map.clone() else {
            return refuse(RefusalCode::Busy, "the pool has not begun");
        };
        for id in targets {
            check_change(map.target(*id), *id, state)?;
        }
        let down = state == TargetState::Down;
        let mut servers: Vec<ServerId> = Vec::new();
        let mut has_changed = false;
        for id in targets {
            let Some(target) = map.targets.get_mut(id.0 as usize) else { continue };
            if target.state == state {
                continue;
            }
            servers.push(target.server);
            match target.state {
                // It is out of reach: only its server can say that it is back.
                TargetState::Down => self.targets.entry(*id).or_default().returns = state,
                // It is not in use yet, whoever can reach it.
                TargetState::New if down => {}
                before => {
                    if down {
                        self.targets.entry(*id).or_default().returns = before;
                    }
                    (target.state, has_changed) = (state, true);
                }
            }
        }
        servers.dedup();
        // What lies on a target that is out of reach is not lost: it says so if it comes back without.
        if has_changed {
            self.change_map(map, &[], proposed, applied);
        }
        if down {
            self.lose_sessions(&servers);
            servers.into_iter().for_each(|server| self.note_lost(server));
        }
        Ok(Reply::Done)
    }

    /// Puts a changed map in force, under the next version and a stamp of its own.
    fn change_map(&mut self, mut map: PoolMap, lost: &[TargetId], proposed: Stamp, applied: &mut Applied) {
        map.version = MapVersion(map.version.0 + 1);
        map.stamp = self.take(proposed);
        for target in lost {
            self.targets.entry(*target).or_default().changed = map.version;
        }
        applied.changes.push(TargetChange::Map(map.clone()));
        self.map = Some(map);
    }
}

/// Who is new may come up, and who is up may be emptied and put into use again; anyone may be lost.
fn check_change(known: Option<&TargetInfo>, id: TargetId, state: TargetState) -> Result<(), Refusal> {
    use TargetState::{Draining, New};
    match (known.map(|known| known.state), state) {
        (None, _) => refuse(RefusalCode::NotFound, format!("the pool has no target {id}")),
        (Some(New), Draining) => {
            refuse(RefusalCode::Argument, format!("target {id} is new: nothing lies on it that could be moved away"))
        }
        (Some(before), New) if before != New => {
            refuse(RefusalCode::Argument, format!("target {id} is in use: it cannot become new"))
        }
        (Some(_), _) => Ok(()),
    }
}
