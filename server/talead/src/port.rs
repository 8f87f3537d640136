//! The port of a server's control plane, kept over restarts.
//!
//! Servers find each other where they were before: one that comes back at another port has to be found first, and while the network
//! is cut nobody may be there to tell the others. Owns `server-N.port` in the data directory. Must never keep a server from
//! starting: where the port is taken by somebody else it gets another one.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

fn path(directory: &Path, server: u32) -> PathBuf {
    directory.join(format!("server-{server}.port"))
}

/// Where the server listened before, if that was on this interface.
pub(crate) fn remembered(directory: Option<&Path>, server: u32, interface: &str) -> Option<String> {
    let text = fs::read_to_string(path(directory?, server)).ok()?;
    let host_port = text.trim();
    let (host, _) = host_port.rsplit_once(':')?;
    let is_whole = host_port.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
    (is_whole && host == interface).then(|| host_port.to_owned())
}

/// Notes where it listens now. A server without this note starts as well: it is found more slowly after a restart.
pub(crate) fn remember(directory: Option<&Path>, server: u32, host_port: &str) {
    let Some(directory) = directory else { return };
    let path = path(directory, server);
    if fs::read_to_string(&path).is_ok_and(|known| known.trim() == host_port) {
        return;
    }
    if let Err(error) = write(&path, host_port) {
        tracing::warn!(path = %path.display(), %error, "the port could not be noted");
    }
}

/// Whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("port.new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_kept_for_its_server_and_interface() {
        let dir = tempfile::tempdir().unwrap();
        let known = |server, interface| remembered(Some(dir.path()), server, interface);
        assert_eq!(known(0, "127.0.0.1"), None);
        remember(Some(dir.path()), 0, "127.0.0.1:4711");
        remember(Some(dir.path()), 1, "[::1]:4712");
        assert_eq!(known(0, "127.0.0.1").as_deref(), Some("127.0.0.1:4711"));
        assert_eq!(known(1, "[::1]").as_deref(), Some("[::1]:4712"));
        assert_eq!(known(0, "10.0.0.1"), None, "another network");
        remember(Some(dir.path()), 0, "127.0.0.1:4713");
        assert_eq!(known(0, "127.0.0.1").as_deref(), Some("127.0.0.1:4713"));
        fs::write(path(dir.path(), 0), "127.0.0.1:x").unwrap();
        assert_eq!(known(0, "127.0.0.1"), None, "damaged");
        assert_eq!(remembered(None, 0, "127.0.0.1"), None);
    }
}
