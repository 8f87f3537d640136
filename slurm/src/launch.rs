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
//!   servers   -- part of the pool -->        launcher
//! ```
//!
//! A kept system is begun by the servers whose media are here; the first of these stands for server 0 if that is not one of them.

use std::collections::{BTreeMap, BTreeSet};

mod kept;

pub use kept::Kept;

/// What an agent or a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An agent's media keep a system of the asked name: which part of it; or nothing.
    Kept {
        /// Place of the node in the allocation.
        node: u32,
        /// Its name.
        host: String,
        /// What is kept.
        kept: Option<Kept>,
    },
    /// A server listens.
    Listening {
        /// Its number.
        server: u32,
        /// Its control addresses.
        control: Vec<String>,
        /// The servers that have replicas of the pool's log, as its own replica says; empty if it has none.
        replicas: Vec<u32>,
    },
    /// A node without servers lets its programs reach the system.
    Installed {
        /// Place of the node in the allocation.
        node: u32,
    },
    /// A server is part of the pool.
    PoolReady {
        /// Its number.
        server: u32,
    },
}

/// What the launcher does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// Send the configuration to all agents.
    Configure(Configuration),
    /// Send a server's addresses to all agents: the others register there.
    Leader {
        /// Which server.
        server: u32,
        /// Its control addresses.
        control: Vec<String>,
    },
    /// The system is ready.
    Ready,
    /// It cannot become ready.
    Fail(String),
}

/// Who starts what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The system that the media keep, with all of its servers' nodes; `None`: a fresh one.
    pub kept: Option<Kept>,
    /// First server of each node; a node whose media keep nothing of the system has none.
    pub first_servers: Vec<Option<u32>>,
    /// Servers a node.
    pub per_node: u32,
    /// The server that the others register with.
    pub introducer: u32,
    /// Name of each server's node, as far as it is known.
    pub hosts: Vec<String>,
}

/// The launch so far.
#[derive(Clone, Debug)]
pub struct Launch {
    nodes: u32,
    servers: u32,
    /// Whether the user asked for this number.
    asked: bool,
    kept: BTreeMap<u32, (String, Option<Kept>)>,
    configuration: Option<Configuration>,
    /// Servers that this launch starts.
    present: BTreeSet<u32>,
    leader_told: bool,
    listening: BTreeMap<u32, Vec<u32>>,
    installed: BTreeSet<u32>,
    ready: BTreeSet<u32>,
}

impl Launch {
    /// A launch of `servers` on `nodes`. With `persist` the agents' media are asked first; what they keep goes for the number of
    /// servers unless the user `asked` for one.
    pub fn begin(nodes: u32, servers: u32, asked: bool, persist: bool) -> (Self, Option<Say>) {
        let mut launch = Self {
            nodes,
            servers,
            asked,
            kept: BTreeMap::new(),
            configuration: None,
            present: BTreeSet::new(),
            leader_told: false,
            listening: BTreeMap::new(),
            installed: BTreeSet::new(),
            ready: BTreeSet::new(),
        };
        let say = (!persist).then(|| launch.fresh());
        (launch, say)
    }

    /// Takes in a message; what to do about it.
    pub fn heard(&mut self, heard: Heard) -> Option<Say> {
        match heard {
            Heard::Kept { node, host, kept } => {
                self.kept.insert(node, (host, kept));
                (self.configuration.is_none() && self.kept.len() as u32 == self.nodes).then(|| self.decide())
            }
            Heard::Listening { server, control, replicas } => {
                self.listening.insert(server, replicas);
                if let Some(why) = self.no_log() {
                    return Some(Say::Fail(why));
                }
                let introduces = self.configuration.as_ref().is_some_and(|known| known.introducer == server);
                if introduces && !self.leader_told {
                    self.leader_told = true;
                    // A single server has nobody to tell; the agents still wait for the line.
                    return Some(Say::Leader { server, control });
                }
                self.if_ready()
            }
            Heard::Installed { node } => {
                self.installed.insert(node);
                self.if_ready()
            }
            Heard::PoolReady { server } => {
                self.ready.insert(server);
                self.if_ready()
            }
        }
    }

    /// Servers that are missing, for people.
    pub fn waiting_for(&self) -> String {
        if self.configuration.is_none() {
            return format!("{} of {} nodes", self.nodes - self.kept.len() as u32, self.nodes);
        }
        let missing: Vec<String> =
            self.present.iter().filter(|server| !self.listening.contains_key(server)).map(u32::to_string).collect();
        match missing.len() {
            0 => "the pool (all servers listen)".to_owned(),
            1..=8 => format!("servers {}", missing.join(", ")),
            n => format!("{n} servers, among them {}", missing[..8].join(", ")),
        }
    }

    /// Servers of a kept system whose media are on no node of this launch, each with the name of the node that has them.
    pub fn missing(&self) -> Vec<(u32, String)> {
        let Some(known) = &self.configuration else { return vec![] };
        let all = known.kept.as_ref().map_or(0, |kept| kept.servers);
        let host = |server: u32| known.hosts.get(server as usize).cloned().unwrap_or_default();
        (0..all).filter(|server| !self.present.contains(server)).map(|server| (server, host(server))).collect()
    }

    fn if_ready(&self) -> Option<Say> {
        // The pool alone does not do: a node's files are in place when its servers' lines come through.
        let without = self.configuration.iter().flat_map(|known| &known.first_servers).filter(|first| first.is_none());
        let is_ready = self.present.iter().all(|server| self.listening.contains_key(server))
            && self.ready.is_superset(&self.present)
            && self.installed.len() == without.count();
        is_ready.then_some(Say::Ready)
    }

    fn fresh(&mut self) -> Say {
        let per_node = self.servers / self.nodes.max(1);
        let hosts = self.kept.values().flat_map(|(host, _)| std::iter::repeat_n(host.clone(), per_node as usize));
        self.configure(Configuration {
            kept: None,
            first_servers: (0..self.nodes).map(|node| Some(node * per_node)).collect(),
            per_node,
            introducer: 0,
            hosts: hosts.collect(),
        })
    }

    fn configure(&mut self, configuration: Configuration) -> Say {
        let firsts = configuration.first_servers.iter().flatten();
        self.present = firsts.flat_map(|first| *first..*first + configuration.per_node).collect();
        self.configuration = Some(configuration.clone());
        Say::Configure(configuration)
    }
}

#[cfg(test)]
mod tests;
