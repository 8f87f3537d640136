//! The pool map: servers, targets, their states, and a version.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{PoolId, ServerId, Stamp, TargetId};

/// Version of a pool map; grows by one with each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MapVersion(pub u32);

impl fmt::Display for MapVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// State of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TargetState {
    /// Serves.
    #[default]
    Up,
    /// Lost or excluded: serves nothing until the map says otherwise.
    Down,
    /// Being emptied; serves what lies on it as one that is up.
    Draining,
    /// Being filled: no object is placed on it and nobody may ask it yet.
    New,
}

impl TargetState {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::New => "new",
        }
    }

    /// Whether it serves.
    pub fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

/// A server as clients need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Its number.
    pub id: ServerId,
    /// Host name, for messages to people.
    pub host: String,
    /// Identity of its node (see `talea_fabric::node_id`); processes of the same node use rings.
    pub node: String,
    /// Addresses of its control plane, in the fabric's text form.
    pub control: Vec<String>,
}

/// A target as clients need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    /// Its number; equals its index in the map.
    pub id: TargetId,
    /// The server that runs it.
    pub server: ServerId,
    /// Its state.
    pub state: TargetState,
    /// Addresses of its data plane, in the fabric's text form.
    pub addresses: Vec<String>,
    /// Capacity in bytes, over its tiers.
    pub capacity_bytes: u64,
    /// Incarnation: grows when the target comes back without (some of) its log.
    pub incarnation: u64,
}

/// Servers and targets of a pool at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMap {
    /// The pool.
    pub pool: PoolId,
    /// Version.
    pub version: MapVersion,
    /// M: the stamp that the entry of this version took (docs/design.md §4 rule 9).
    pub stamp: Stamp,
    /// Servers, by id.
    pub servers: Vec<ServerInfo>,
    /// Targets, by id.
    pub targets: Vec<TargetInfo>,
}

impl PoolMap {
    /// A target by id.
    pub fn target(&self, id: TargetId) -> Option<&TargetInfo> {
        self.targets.get(id.0 as usize)
    }

    /// A server by id.
    pub fn server(&self, id: ServerId) -> Option<&ServerInfo> {
        self.servers.iter().find(|server| server.id == id)
    }

    /// Whether a target serves.
    pub fn is_up(&self, id: TargetId) -> bool {
        self.target(id).is_some_and(|target| target.state.serves())
    }

    /// Whether what lies on a target is out of reach. A new one has nothing to lose.
    pub fn is_lost(&self, id: TargetId) -> bool {
        self.target(id).is_none_or(|target| target.state == TargetState::Down)
    }
}
