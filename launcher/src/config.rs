//! What a `talead` is told on its standard input, and what it answers on its standard output: one JSON object a line.

use serde::{Deserialize, Serialize};

/// First line to a server. The secret travels only here.
#[derive(Clone, Serialize)]
pub(crate) struct ServerConfig {
    pub(crate) name: String,
    pub(crate) system: String,
    pub(crate) secret: String,
    /// `None`: the server takes its number from `SLURM_PROCID`.
    pub(crate) server: Option<u32>,
    pub(crate) servers: u32,
    pub(crate) targets: u32,
    pub(crate) tier: String,
    pub(crate) directory: std::path::PathBuf,
    /// Control addresses of server 0; `None`: they follow in a second line ([`LeaderLine`]).
    pub(crate) leader: Option<Vec<String>>,
    pub(crate) fabric: String,
    pub(crate) interface: Option<String>,
    pub(crate) membership_lease_ms: u64,
    /// False: the server ends when its standard input does.
    pub(crate) detached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plant: Option<String>,
}

/// Second line, where the first could not know the leader yet.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LeaderLine {
    pub(crate) leader: Vec<String>,
}

/// A line from a server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    },
    /// All servers have registered.
    Pool { pool: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_say() {
        let line: ServerLine = serde_json::from_str(r#"{"server":1,"control":["unix:n:/a"],"targets":[]}"#).unwrap();
        assert!(matches!(line, ServerLine::Listening { server: 1, .. }));
        let line: ServerLine = serde_json::from_str(r#"{"pool":"ready"}"#).unwrap();
        assert_eq!(line, ServerLine::Pool { pool: "ready".into() });
    }
}
