//! Bringing up a system over many nodes, as a state machine: what the launcher has heard, and what it says next.
//!
//! Owns the order of the messages between the launcher and its node agents (docs/design.md §9). Must never do I/O, so that a
//! thousand nodes are simulated in a test that counts the sequential round trips: they must not grow with the nodes.
//!
//! ```text
//!   agents    -- what their media keep -->   launcher      only for a system that persists
//!   launcher  -- configuration, secret -->   all agents
//!   server 0  -- its addresses -->           launcher
//!   launcher  -- server 0's addresses -->    all agents    whose servers register with server 0
//!   agents    -- their servers listen -->    launcher      each after its node's files are in place
//!   server 0  -- the pool is ready -->       launcher
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// What an agent or a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An agent's media keep a system of the asked name: its id and the first server that was there; or nothing.
    Kept {
        /// Place of the node in the allocation.
        node: u32,
        /// What is kept.
        kept: Option<Kept>,
    },
    /// A server listens.
    Listening {
        /// Its number.
        server: u32,
        /// Its control addresses.
        control: Vec<String>,
    },
    /// All servers have registered.
    PoolReady,
}

/// What a node's media keep of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The system's id.
    pub system: String,
    /// First server of the node.
    pub first_server: u32,
    /// Servers of the whole system.
    pub servers: u32,
}

/// What the launcher does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// Send the configuration to all agents. `first_servers` has the first server of each node.
    Configure {
        /// Id of the system that the media keep; `None`: a fresh one.
        system: Option<String>,
        /// First server of each node.
        first_servers: Vec<u32>,
    },
    /// Send server 0's addresses to all agents.
    Leader(Vec<String>),
    /// The system is ready.
    Ready,
    /// It cannot become ready.
    Fail(String),
}

/// The launch so far.
#[derive(Clone, Debug)]
pub struct Launch {
    nodes: u32,
    servers: u32,
    kept: BTreeMap<u32, Option<Kept>>,
    configured: bool,
    leader_told: bool,
    listening: BTreeSet<u32>,
    pool_ready: bool,
}

impl Launch {
    /// A launch of `servers` on `nodes`. With `persist` the agents' media are asked first.
    pub fn begin(nodes: u32, servers: u32, persist: bool) -> (Self, Option<Say>) {
        let mut launch = Self {
            nodes,
            servers,
            kept: BTreeMap::new(),
            configured: false,
            leader_told: false,
            listening: BTreeSet::new(),
            pool_ready: false,
        };
        let say = (!persist).then(|| launch.configure(None, launch.in_order()));
        (launch, say)
    }

    /// Takes in a message; what to do about it.
    pub fn heard(&mut self, heard: Heard) -> Option<Say> {
        match heard {
            Heard::Kept { node, kept } => {
                self.kept.insert(node, kept);
                (!self.configured && self.kept.len() as u32 == self.nodes).then(|| self.decide())
            }
            Heard::Listening { server, control } => {
                self.listening.insert(server);
                if server == 0 && !self.leader_told {
                    self.leader_told = true;
                    // A single server has nobody to tell; the agents still wait for the line.
                    return Some(Say::Leader(control));
                }
                self.ready()
            }
            Heard::PoolReady => {
                self.pool_ready = true;
                self.ready()
            }
        }
    }

    /// Servers that are missing, for people.
    pub fn waiting_for(&self) -> String {
        if !self.configured {
            return format!("{} of {} nodes", self.nodes - self.kept.len() as u32, self.nodes);
        }
        let missing: Vec<String> =
            (0..self.servers).filter(|server| !self.listening.contains(server)).map(|s| s.to_string()).collect();
        match missing.len() {
            0 => "the pool (all servers listen)".to_owned(),
            1..=8 => format!("servers {}", missing.join(", ")),
            n => format!("{n} servers, among them {}", missing[..8].join(", ")),
        }
    }

    fn ready(&self) -> Option<Say> {
        // The pool alone does not do: a node's files are in place when its servers' lines come through.
        (self.pool_ready && self.listening.len() as u32 == self.servers).then_some(Say::Ready)
    }

    fn in_order(&self) -> Vec<u32> {
        let per_node = self.servers / self.nodes.max(1);
        (0..self.nodes).map(|node| node * per_node).collect()
    }

    fn configure(&mut self, system: Option<String>, first_servers: Vec<u32>) -> Say {
        self.configured = true;
        Say::Configure { system, first_servers }
    }

    /// All nodes have said what they keep: either nobody has anything, or all that belong together are here.
    fn decide(&mut self) -> Say {
        let found: Vec<(u32, Kept)> = self.kept.iter().filter_map(|(n, kept)| Some((*n, kept.clone()?))).collect();
        let Some((_, first)) = found.first() else { return self.configure(None, self.in_order()) };
        let first = first.clone();
        if found.iter().any(|(_, kept)| kept.system != first.system) {
            return Say::Fail(
                "the nodes' media keep different systems of this name: remove one with `talea gc`".into(),
            );
        }
        let per_node = first.servers / (self.nodes.max(1));
        let have: BTreeSet<u32> = found.iter().map(|(_, kept)| kept.first_server).collect();
        if found.len() as u32 != self.nodes || have.len() as u32 != self.nodes || first.servers != self.servers {
            let wanted: Vec<String> = (0..first.servers)
                .step_by(per_node.max(1) as usize)
                .filter(|server| !have.contains(server))
                .map(|server| server.to_string())
                .collect();
            return Say::Fail(format!(
                "the kept system has {} servers and this launch {}; missing here: servers {}. Ask for the nodes that it \
                 was on (--nodelist), or start anew under another name",
                first.servers,
                self.servers,
                if wanted.is_empty() { "none".to_owned() } else { wanted.join(", ") }
            ));
        }
        let numbers = found.iter().map(|(_, kept)| kept.first_server).collect();
        self.configure(Some(first.system), numbers)
    }
}

#[cfg(test)]
mod tests;
