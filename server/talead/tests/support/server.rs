//! Server processes for tests.
#![allow(dead_code, unreachable_pub, missing_docs)] // no test uses all of it

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const SYSTEM: [u8; 16] = [0xab; 16];
pub const SECRET: [u8; 32] = [0xcd; 32];
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server process; killed when dropped.
pub struct Server {
    pub child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: BufReader<ChildStdout>,
    pub control: Vec<String>,
    pub rings: Vec<String>,
}

#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub server: u32,
    pub servers: u32,
    pub leader: &'a [String],
    pub more: &'a str,
    pub tier: &'a str,
}

pub const ALONE: Options<'static> = Options { server: 0, servers: 1, leader: &[], more: "", tier: "ram:64M" };

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn config(directory: &Path, options: &Options<'_>) -> String {
    let leader: Vec<String> = options.leader.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        r#"{{"name":"test","system":"{}","secret":"{}","server":{},"servers":{},"targets":2,"tier":"{}","directory":"{}","leader":[{}]{}}}"#,
        hex(&SYSTEM),
        hex(&SECRET),
        options.server,
        options.servers,
        options.tier,
        directory.display(),
        leader.join(","),
        options.more
    ) + "\n"
}

pub fn spawn(config: &str) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_talead"))
        .args(["serve", "--config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A server that does not like its configuration may be gone already.
    let _ = child.stdin.as_mut().unwrap().write_all(config.as_bytes());
    child
}

fn strings(line: &serde_json::Value) -> Vec<String> {
    line.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

impl Server {
    pub fn start(directory: &Path, options: &Options<'_>) -> Self {
        let mut child = spawn(&config(directory, options));
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        if stdout.fill_buf().unwrap().is_empty() {
            let mut why = String::new();
            child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("server {} does not start: {why}", options.server);
        }
        let line = read_line(&mut stdout);
        assert_eq!(line["server"], options.server, "{line}");
        let rings = line["targets"].as_array().unwrap().iter().map(|target| strings(&target["addresses"])[0].clone());
        let rings = rings.collect();
        let control = strings(&line["control"]);
        Server { child, stdin, stdout, control, rings }
    }

    pub fn wait_ready(&mut self) {
        assert_eq!(read_line(&mut self.stdout)["pool"], "ready");
    }

    /// Exit code, or `None` if a signal ended it.
    pub fn wait_end(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not end");
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// CPU time that the process's threads have used, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap();
            stat.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        tasks.map(|task| of(task.unwrap())).sum::<u64>() as f64 / 1e9
    }
}

/// Says so when it is dropped, also by a panic: the threads of a scope that go on until then would be waited for for ever.
pub struct TellsTheEnd<'a>(pub &'a AtomicBool);

impl Drop for TellsTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_line(stdout: &mut BufReader<ChildStdout>) -> serde_json::Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

pub fn directory() -> (tempfile::TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("system");
    (outer, path)
}

pub fn two_servers(more: &str) -> (tempfile::TempDir, Server, Server) {
    let (outer, path) = directory();
    let options = Options { servers: 2, more, ..ALONE };
    let mut first = Server::start(&path, &options);
    let leader = first.control.clone();
    let mut second = Server::start(&path, &Options { server: 1, leader: &leader, more: "", ..options });
    first.wait_ready();
    second.wait_ready();
    (outer, first, second)
}

/// So many servers in one directory, all ready.
pub fn servers(count: u32, more: &str) -> (tempfile::TempDir, Vec<Server>) {
    let (outer, path) = directory();
    let options = Options { servers: count, more, ..ALONE };
    let first = Server::start(&path, &options);
    let leader = first.control.clone();
    let others = (1..count).map(|server| Server::start(&path, &Options { server, leader: &leader, ..options }));
    let mut all: Vec<Server> = std::iter::once(first).chain(others).collect();
    all.iter_mut().for_each(Server::wait_ready);
    (outer, all)
}
