//! A server for the benchmarks, and clients of it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use talea_client::system::ServerEntry;
use talea_client::{Client, ConnectOptions, FabricPolicy, RuntimeDir, System};

/// The name that all systems here have.
pub(crate) const NAME: &str = "bench";

/// How the server and its clients meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fabric {
    Ring,
    Libfabric,
}

/// One `talead`; ended with its drop.
pub(crate) struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) system: System,
    directory: tempfile::TempDir,
}

/// The server's program: built by `tools/bench`, or named in `$TALEAD`.
fn talead() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/talead");
    std::env::var_os("TALEAD").map_or(built, PathBuf::from)
}

impl Server {
    /// A server with so many targets in memory. `spin`: its wait policy, as `talead` knows it.
    pub(crate) fn start(targets: usize, fabric: Fabric, spin: &str) -> Self {
        Self::start_on(&format!("ram:{}M", 4096 / targets), targets, fabric, spin)
    }

    /// A server whose targets each have such a tier.
    pub(crate) fn start_on(tier: &str, targets: usize, fabric: Fabric, spin: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("tlb").tempdir_in("/tmp").expect("a directory");
        let runtime = RuntimeDir::at(directory.path().join("r")).expect("a runtime directory");
        let mut system = runtime.create(NAME).expect("a system");
        let secret: String = system.secret().iter().map(|byte| format!("{byte:02x}")).collect();
        let config = serde_json::json!({
            "name": NAME, "system": system.file.system, "secret": secret, "server": 0, "servers": 1,
            "targets": targets, "tier": tier, "directory": system.directory.join("s"),
            "leader": [], "interface": "127.0.0.1", "spin": spin, "threads": from_environment("TALEA_BENCH_THREADS"),
            "slice_us": from_environment("TALEA_BENCH_SLICE_US").unwrap_or(1_000),
            "fabric": if fabric == Fabric::Ring { "auto" } else { "tcp" },
        });
        let mut child = Command::new(talead())
            .args(["serve", "--config", "-"])
            .env("TALEA_LOG", std::env::var_os("TALEA_LOG").unwrap_or_else(|| "warn".into()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("target/release/talead: build it first (`cargo build --release --workspace --bin talead`)");
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "{config}").expect("the server reads its configuration");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut line = || -> serde_json::Value {
            let text = lines.next().and_then(Result::ok).expect("the server says that it is ready");
            serde_json::from_str(&text).expect("a line of JSON")
        };
        let ready = line();
        let control = ready["control"].as_array().into_iter().flatten();
        let control = control.filter_map(|text| text.as_str().map(str::to_owned)).collect();
        system.file.servers.push(ServerEntry { id: 0, control, process: None });
        assert_eq!(line()["pool"], "ready");
        system.write().expect("the system's file");
        Server { child, stdin: Some(stdin), system, directory }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn runtime(&self) -> String {
        self.directory.path().join("r").to_string_lossy().into_owned()
    }

    /// Resident bytes of the server.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap_or_default();
        text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
    }

    pub(crate) fn client(&self, fabric: Fabric, spin: &str) -> Client {
        client_of(&self.system, fabric, spin)
    }
}

/// For trials: what a server's configuration or a client says in place of its own choice.
pub(crate) fn from_environment(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// A client of a system.
pub(crate) fn client_of(system: &System, fabric: Fabric, spin: &str) -> Client {
    let fabric = if fabric == Fabric::Ring { FabricPolicy::Ring } else { FabricPolicy::Libfabric };
    let spin = spin.parse().ok();
    let options = ConnectOptions { fabric: Some(fabric), spin, ..ConnectOptions::default() };
    Client::connect_to(system, &options).expect("the server takes us")
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
