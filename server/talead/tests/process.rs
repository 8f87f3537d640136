//! `talead` as a process: how it starts, whom it refuses, how it ends, what it leaves, what it costs when idle.

#[path = "support/server.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{ALONE, Options, PATIENCE, SECRET, SYSTEM, Server, config, directory, hex, spawn};
use talea_fabric::{
    Address, Clock, Credentials, Endpoint, FabricError, Hello, Policy, RealClock, Spin, client_endpoint,
};

fn path_of(address: &str) -> String {
    match address.parse().unwrap() {
        Address::Unix { path, .. } | Address::Ring { path, .. } => path,
        other => panic!("{other}"),
    }
}

fn connect(address: &str, secret: [u8; 32]) -> Result<(), FabricError> {
    let mut endpoint = client_endpoint(&Credentials::new(SYSTEM, secret), Policy::Auto, Spin::Never).unwrap();
    let deadline = RealClock.monotonic_ns() + 10_000_000_000;
    endpoint.connect(&address.parse().unwrap(), &Hello::default(), deadline).map(drop)
}

#[test]
fn a_server_takes_all_the_descriptors_that_it_may_have() {
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(200), ..limit };
    setrlimit(Resource::Nofile, few).unwrap();
    let (_outer, path) = directory();
    let server = Server::start(&path, &ALONE);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let words: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(words[3], words[4], "{words:?}");
    assert_ne!(words[3], "200");
}

#[test]
fn a_server_keeps_to_its_cores() {
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let last = (0..rustix::thread::CpuSet::MAX_CPU).rfind(|core| all.is_set(*core)).unwrap();
    let (_outer, path) = directory();
    let more = format!(r#","cores":[{last}]"#);
    let mut server = Server::start(&path, &Options { more: &more, ..ALONE });
    server.wait_ready();
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        assert_eq!(list, last.to_string(), "{status}");
        threads += 1;
    }
    assert!(threads > 1, "its targets have threads of their own");
}

#[test]
fn two_servers_come_up_serve_their_own_and_leave_nothing() {
    let (outer, path) = directory();
    let mut first = Server::start(&path, &Options { servers: 2, ..ALONE });
    let leader = first.control.clone();
    let mut second = Server::start(&path, &Options { server: 1, servers: 2, leader: &leader, ..ALONE });
    first.wait_ready();
    second.wait_ready();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for address in first.control.iter().chain(&second.control).chain(&first.rings).chain(&second.rings) {
        connect(address, SECRET).unwrap_or_else(|error| panic!("{address}: {error}"));
        let refused = connect(address, [1; 32]);
        assert!(matches!(refused, Err(FabricError::Refused(_))), "{address}: {refused:?}");
    }
    // A stranger's bytes get no answer.
    for address in [&first.control[0], &first.rings[0]] {
        let mut stranger = UnixStream::connect(path_of(address)).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stranger.write_all(&[b'x'; 4096]);
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty(), "a stranger got {} bytes", answer.len());
    }
    for server in [&mut second, &mut first] {
        server.terminate();
        assert_eq!(server.wait_end(), Some(0));
        let mut rest = String::new();
        server.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing more on standard output");
    }
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0, "sockets and directory are gone");
}

#[test]
fn a_server_ends_with_its_launcher_unless_it_is_detached() {
    let (outer, path) = directory();
    let mut server = Server::start(&path, &ALONE);
    server.wait_ready();
    drop(server.stdin.take());
    assert_eq!(server.wait_end(), Some(0));
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
    let mut server = Server::start(&path, &Options { more: r#","detached":true"#, ..ALONE });
    server.wait_ready();
    drop(server.stdin.take());
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.child.try_wait().unwrap().is_none(), "a detached server outlives its launcher");
    connect(&server.control[0], SECRET).unwrap();
    server.terminate();
    assert_eq!(server.wait_end(), Some(0));
}

#[test]
fn failures_say_what_to_do() {
    let (_outer, path) = directory();
    let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        (config(&path, &Options { tier: "pmem:/dev/null/tier:64M", ..ALONE }), "/dev/null/tier"),
        (config(&path, &Options { tier: "floppy:1M", ..ALONE }), "ram:SIZE"),
        (config(&path, &Options { more: r#","colour":1"#, ..ALONE }), "colour"),
        (config(&long, &ALONE), "socket paths are short"),
        (config(open.path(), &ALONE), "0700"),
        ("\n".to_owned(), "configuration"),
    ];
    for (config, word) in cases {
        let output = spawn(&config).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{config}: {text}");
        assert!(text.contains(word), "{word}: {text}");
        assert!(!text.contains(&hex(&SECRET)), "the secret shows");
        assert!(output.stdout.is_empty());
    }
    // A second server on the same sockets.
    let mut first = Server::start(&path, &ALONE);
    first.wait_ready();
    let output = spawn(&config(&path, &ALONE)).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    connect(&first.control[0], SECRET).expect("the first one does not mind");
    connect(&first.rings[0], SECRET).expect("the first one does not mind");
}

#[test]
fn two_idle_servers_cost_less_than_a_fiftieth_of_a_core() {
    let (_outer, path) = directory();
    let mut first = Server::start(&path, &Options { servers: 2, ..ALONE });
    let leader = first.control.clone();
    let mut second = Server::start(&path, &Options { server: 1, servers: 2, leader: &leader, ..ALONE });
    first.wait_ready();
    second.wait_ready();
    let before = first.cpu_seconds() + second.cpu_seconds();
    std::thread::sleep(Duration::from_secs(10));
    let used = first.cpu_seconds() + second.cpu_seconds() - before;
    assert!(used < 0.2, "two idle servers used {used} s of CPU in 10 s (I9)");
}

#[test]
fn the_version_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_talead")).arg("version").output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("talead "));
}
