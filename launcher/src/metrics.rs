//! Where a system's servers show their counters to Prometheus, and how a scraper finds and reads them.
//!
//! In the system's directory, which is this user's alone, lie `metrics.json`, in the form of Prometheus's `file_sd_configs`, and
//! `metrics.token` for its `authorization.credentials_file`.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Over a socket in the system's directory.
const UNIX: &str = "unix";

/// Where a server listens, and what it wants to see first.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct MetricsConfig {
    pub(crate) listen: String,
    pub(crate) token: Option<String>,
}

/// What a user or a site wishes: `unix`, `off`, or `ADDRESS:PORT`.
pub(crate) fn wish(text: Option<&str>) -> Result<Option<String>, Failure> {
    match text {
        None | Some("off") => Ok(None),
        Some(UNIX) => Ok(Some(UNIX.to_owned())),
        Some(text) if text.parse::<SocketAddr>().is_ok() => Ok(Some(text.to_owned())),
        Some(text) => Err(Failure::Usage(format!(
            "--metrics={text}: write unix, off, or an address with a port, such as 127.0.0.1:9464 (port 0: any that is free)"
        ))),
    }
}

/// What all servers are told alike.
pub(crate) fn config(wish: Option<&String>, directory: &Path) -> Result<Option<MetricsConfig>, Failure> {
    let Some(listen) = wish.cloned() else { return Ok(None) };
    if listen == UNIX {
        return Ok(Some(MetricsConfig { listen, token: None }));
    }
    let mut bytes = [0_u8; 24];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Usage(format!("drawing a token for the metrics: {error}")))?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join("metrics.token");
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(token.as_bytes())).map_err(Failure::io("writing", &path))?;
    Ok(Some(MetricsConfig { listen, token: Some(token) }))
}

/// The same for a server that is the `nth` of its node: each has a port of its own.
pub(crate) fn of_nth(config: Option<MetricsConfig>, nth: u32) -> Option<MetricsConfig> {
    let mut config = config?;
    if let Ok(mut address) = config.listen.parse::<SocketAddr>()
        && address.port() != 0
    {
        address.set_port(address.port().saturating_add(u16::try_from(nth).unwrap_or(u16::MAX)));
        config.listen = address.to_string();
    }
    Some(config)
}

/// Notes where the servers of a system listen.
pub(crate) fn note(directory: &Path, system: &str, addresses: &[(u32, String)]) -> Result<(), Failure> {
    if addresses.is_empty() {
        return Ok(());
    }
    let of = |(server, address): &(u32, String)| serde_json::json!({ "targets": [address], "labels": { "system": system, "server": server.to_string() } });
    let text = serde_json::to_string_pretty(&addresses.iter().map(of).collect::<Vec<_>>()).unwrap_or_default();
    let path = directory.join("metrics.json");
    std::fs::write(&path, text + "\n").map_err(Failure::io("writing", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_of_a_node_has_its_port() {
        assert_eq!(wish(Some("off")).unwrap(), None);
        assert!(wish(Some("9464")).is_err());
        let config = |listen: &str| Some(MetricsConfig { listen: listen.to_owned(), token: None });
        let listen = |text: &str, nth| of_nth(config(text), nth).unwrap().listen;
        assert_eq!(listen("127.0.0.1:9464", 2), "127.0.0.1:9466");
        assert_eq!(listen("[::1]:0", 2), "[::1]:0");
        assert_eq!(listen("unix", 2), "unix");
    }
}
