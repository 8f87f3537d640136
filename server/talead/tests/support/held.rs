//! What clients hold: counted on real servers and in their processes.
#![allow(dead_code, unreachable_pub, missing_docs)] // no test uses all of it

use std::time::{Duration, Instant};

use talea_client::Client;

use crate::support::{PATIENCE, Server};

/// All that a client can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// In the log's state.
    pub sessions: usize,
    pub transactions: usize,
    pub leases: u64,
    pub subscriptions: u64,
    /// At the targets, all together.
    pub pending_updates: u64,
    pub versions: u64,
    pub parked: u64,
    pub peers: u64,
    /// In the servers' processes: descriptors, mapped rings.
    pub descriptors: usize,
    pub mappings: usize,
}

fn mapped(server: &Server) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.child.id())).unwrap();
    maps.lines().filter(|line| line.contains("memfd")).count()
}

/// `None`: the looker has not heard yet that a server is gone.
pub fn held(looker: &Client, servers: &[&Server]) -> Option<Held> {
    let status = looker.status().unwrap();
    let info = looker.container_open("run").unwrap().query().ok()?;
    let (sessions, transactions, map) = (status.sessions.len(), status.transactions.len(), status.map);
    let up = map.targets.iter().map(|target| target.id).filter(|target| map.is_up(*target));
    let stats: Vec<_> = up.map(|target| looker.target_stat(target).unwrap()).collect();
    let descriptors = |server: &&Server| std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    Some(Held {
        sessions,
        transactions,
        leases: info.info.leases,
        subscriptions: info.info.subscriptions,
        pending_updates: info.pending_updates,
        versions: stats.iter().map(|stat| stat.versions).sum(),
        parked: stats.iter().map(|stat| stat.parked).sum(),
        peers: stats.iter().map(|stat| stat.peers).sum(),
        descriptors: servers.iter().map(descriptors).sum(),
        mappings: servers.iter().map(|server| mapped(server)).sum(),
    })
}

/// The same when no target waits for the word of a commit any more.
pub fn held_at_rest(looker: &Client, servers: &[&Server]) -> Held {
    let mut now = held(looker, servers).unwrap();
    until("the last commit", || {
        now = held(looker, servers).unwrap();
        if now.pending_updates == 0 { Ok(()) } else { Err(format!("{now:?}")) }
    });
    now
}

pub fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(why) = is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: {why}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn comes_back_to(what: &str, looker: &Client, servers: &[&Server], before: &Held) {
    until(what, || {
        let now = held(looker, servers).unwrap();
        if now == *before { Ok(()) } else { Err(format!("{now:?}\ninstead of {before:?}")) }
    });
}
