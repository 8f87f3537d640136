//! Two real servers.
#![allow(dead_code)] // no test uses all of it

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use talea_client::system::ServerEntry;
use talea_client::{Client, ConnectOptions, RuntimeDir, System};

/// Two servers with two targets each; killed when dropped.
pub(crate) struct Servers {
    pub(crate) system: System,
    pub(crate) children: Vec<(Child, Option<ChildStdin>)>,
    _directory: tempfile::TempDir,
}

fn talead() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here.parent().unwrap().parent().unwrap().join("talead");
    static BUILD: std::sync::Once = std::sync::Once::new();
    // As all of the workspace is built: with the features of one package alone everything would be built once more.
    BUILD.call_once(|| {
        let built =
            Command::new(env!("CARGO")).args(["build", "-q", "--workspace", "--bin", "talead"]).status().unwrap();
        assert!(built.success(), "talead does not build");
    });
    path
}

impl Servers {
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("tl").tempdir_in("/tmp").unwrap();
        let mut system = RuntimeDir::at(directory.path().join("r")).unwrap().create("t").unwrap();
        let secret: String = system.secret().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut children = vec![];
        let mut readers = vec![];
        for server in 0..2u32 {
            let leader: Vec<String> =
                system.file.servers.first().map(|first| first.control.clone()).unwrap_or_default();
            let config = serde_json::json!({
                "name": "t", "system": system.file.system, "secret": secret, "server": server, "servers": 2,
                "targets": 2, "tier": "ram:256M", "directory": system.directory.join(format!("s{server}")),
                "leader": leader, "membership_lease_ms": 500, "interface": "127.0.0.1",
            });
            let mut child = Command::new(talead())
                .args(["serve", "--config", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            writeln!(stdin, "{config}").unwrap();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            let ready = line(&mut stdout);
            let control = ready["control"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
            system.file.servers.push(ServerEntry { id: server, control: control.collect(), process: None });
            children.push((child, Some(stdin)));
            readers.push(stdout);
        }
        assert_eq!(line(&mut readers[0])["pool"], "ready");
        system.write().unwrap();
        Self { system, children, _directory: directory }
    }

    pub(crate) fn client(&self) -> Client {
        let options = ConnectOptions { deadline_ms: Some(10_000), ..ConnectOptions::default() };
        Client::connect_to(&self.system, &options).unwrap()
    }

    /// A client whose home is the second server.
    pub(crate) fn client_of_second(&self) -> Client {
        let mut system = self.system.clone();
        system.file.servers.reverse();
        Client::connect_to(&system, &ConnectOptions { deadline_ms: Some(10_000), ..ConnectOptions::default() }).unwrap()
    }

    pub(crate) fn kill(&mut self, server: usize) {
        self.children[server].0.kill().unwrap();
        self.children[server].0.wait().unwrap();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (child, stdin) in &mut self.children {
            drop(stdin.take());
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn line(reader: &mut impl BufRead) -> serde_json::Value {
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}
