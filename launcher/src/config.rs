//! What `talead` and the node agents are told on their standard input, and what they answer on their standard output: one JSON
//! object a line.

use serde::{Deserialize, Serialize};
use talea_client::SystemFile;
use talea_slurm::launch::{Heard, Kept};

use crate::metrics::MetricsConfig;

/// First line to a server. The secret travels only here.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ServerConfig {
    pub(crate) name: String,
    pub(crate) system: String,
    pub(crate) secret: String,
    pub(crate) server: u32,
    pub(crate) servers: u32,
    pub(crate) targets: u32,
    pub(crate) tier: String,
    pub(crate) directory: std::path::PathBuf,
    /// Control addresses of the server that introduces the others; `None`: they follow in a second line ([`LeaderLine`]).
    pub(crate) leader: Option<Vec<String>>,
    /// Its number: 0, unless that server's data lie on a node that is not here.
    #[serde(default)]
    pub(crate) introducer: u32,
    pub(crate) fabric: String,
    pub(crate) interface: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) provider: Option<String>,
    pub(crate) membership_lease_ms: u64,
    /// False: the server ends when its standard input does.
    pub(crate) detached: bool,
    /// True: it ends only then.
    pub(crate) patient: bool,
    /// Cores that the server keeps to, on the launcher's machine alone; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cores: Vec<usize>,
    /// Whether its waits may spin, its threads, and their turns: the site's; without them its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slice_us: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<MetricsConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plant: Option<String>,
}

/// First line to a node agent, the same for all nodes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct NodeConfig {
    /// The system's file, which each node gets with its own servers in it.
    pub(crate) file: SystemFile,
    /// Its servers' configuration but for what differs: number, directory, interface, and the tier's place. Without it the
    /// agent only lets this node's programs reach a system that runs elsewhere.
    pub(crate) server: ServerConfig,
    /// First server of each node, by the node's place in the step; empty: the servers run elsewhere already.
    pub(crate) first_servers: Vec<Option<u32>>,
    /// Servers a node.
    pub(crate) per_node: u32,
    /// Cores at the end of each node's list that the servers keep to; 0: all.
    pub(crate) reserved_cores: u32,
    /// Tier as the user gave it.
    pub(crate) tier: String,
    /// Share of a target in bytes.
    pub(crate) target_bytes: u64,
    /// Name under which the media keep the system.
    pub(crate) persist: Option<String>,
    /// Capacity of the system in bytes.
    pub(crate) capacity_bytes: u64,
    /// Slurm's job.
    pub(crate) job: Option<u32>,
    /// Name of each server's node.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
}

/// A further line to the agents: start this server again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RestartLine {
    pub(crate) restart: u32,
    /// A server that lives, and its addresses.
    pub(crate) introducer: u32,
    pub(crate) leader: Vec<String>,
}

/// Second line, where the first could not know the leader yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LeaderLine {
    pub(crate) leader: Vec<String>,
}

/// A line from a server or an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ServerLine {
    /// The server listens.
    Listening {
        server: u32,
        control: Vec<String>,
        #[serde(default)]
        host: Option<String>,
        #[serde(default)]
        pid: Option<u32>,
        #[serde(default)]
        metrics: Option<String>,
        /// Who has replicas of the pool's log, as its own one says.
        #[serde(default)]
        replicas: Vec<u32>,
    },
    /// A server is part of the pool; an agent says which.
    Pool {
        pool: String,
        #[serde(default)]
        of: Option<u32>,
    },
    /// What an agent's media keep.
    Kept { node: u32, host: String, kept: Option<KeptLine> },
    /// An agent has let this node's programs reach the system.
    Installed { installed: u32 },
    /// A server of an agent has ended by itself.
    Ended { ended: u32, host: String, status: String, log: String },
    /// What the user should know of an agent's node.
    Note { note: String, host: String },
    /// An agent cannot go on.
    Failed { failed: String },
}

/// [`talea_slurm::launch::Kept`] as a line has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptLine {
    pub(crate) system: String,
    pub(crate) first_server: u32,
    pub(crate) own_servers: u32,
    pub(crate) servers: u32,
    pub(crate) targets: u32,
    pub(crate) capacity_bytes: u64,
    pub(crate) hosts: Vec<String>,
}

impl From<Kept> for KeptLine {
    fn from(kept: Kept) -> Self {
        let Kept { system, first_server, own_servers, servers, targets, capacity_bytes, hosts } = kept;
        Self { system, first_server, own_servers, servers, targets, capacity_bytes, hosts }
    }
}

impl From<KeptLine> for Kept {
    fn from(line: KeptLine) -> Self {
        let KeptLine { system, first_server, own_servers, servers, targets, capacity_bytes, hosts } = line;
        Self { system, first_server, own_servers, servers, targets, capacity_bytes, hosts }
    }
}

impl ServerLine {
    /// As the launch hears it; `None` for what does not concern it.
    pub(crate) fn heard(&self) -> Option<Heard> {
        match self {
            Self::Listening { server, control, replicas, .. } => {
                Some(Heard::Listening { server: *server, control: control.clone(), replicas: replicas.clone() })
            }
            Self::Pool { pool, of: Some(server) } if pool == "ready" => Some(Heard::PoolReady { server: *server }),
            Self::Installed { installed } => Some(Heard::Installed { node: *installed }),
            Self::Kept { node, host, kept } => {
                Some(Heard::Kept { node: *node, host: host.clone(), kept: kept.clone().map(Kept::from) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_say() {
        let line: ServerLine = serde_json::from_str(r#"{"server":1,"control":["unix:n:/a"],"targets":[]}"#).unwrap();
        assert!(matches!(line, ServerLine::Listening { server: 1, .. }));
        let line: ServerLine = serde_json::from_str(r#"{"pool":"ready"}"#).unwrap();
        assert_eq!(line, ServerLine::Pool { pool: "ready".into(), of: None });
        for line in [
            ServerLine::Ended { ended: 3, host: "n1".into(), status: "killed".into(), log: "last".into() },
            ServerLine::Kept { node: 1, host: "n1".into(), kept: None },
            ServerLine::Pool { pool: "ready".into(), of: Some(3) },
            ServerLine::Note { note: "little memory".into(), host: "n1".into() },
            ServerLine::Failed { failed: "no".into() },
            ServerLine::Installed { installed: 2 },
        ] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<ServerLine>(&text).unwrap(), line, "{text}");
        }
    }
}
