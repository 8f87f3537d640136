//! What the media of a launch's nodes keep of a system, and what follows from it.
//!
//! Must never let a server begin anew whose data lie on a node that is not here: the system goes on without it, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use super::{Configuration, Launch, Say};

/// Most replicas of a pool's log; fewer servers have three, or one (`talea_control`'s rule, needed for words alone).
const REPLICAS_MAX: u32 = 5;

/// What a node's media keep of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The system's id.
    pub system: String,
    /// First server of the node.
    pub first_server: u32,
    /// Servers of the node.
    pub own_servers: u32,
    /// Servers of the whole system.
    pub servers: u32,
    /// Targets a server.
    pub targets: u32,
    /// Capacity of the whole system in bytes.
    pub capacity_bytes: u64,
    /// Name of each server's node, as it was last; may be empty.
    pub hosts: Vec<String>,
}

impl Launch {
    /// All nodes have said what they keep: nobody has anything, or those that have go on with it.
    pub(super) fn decide(&mut self) -> Say {
        let is_found = |(host, kept): &(String, Option<Kept>)| Some((host.clone(), kept.clone()?));
        let found: Vec<(String, Kept)> = self.kept.values().filter_map(is_found).collect();
        let Some((first_host, first)) = found.first().cloned() else { return self.fresh() };
        if let Some((host, _)) = found.iter().find(|(_, kept)| kept.system != first.system) {
            return Say::Fail(format!(
                "{first_host} and {host} keep different systems of this name: leave one of them out of the job, or remove what \
                 one of them keeps, there, with `talea gc --tier TIER --forget NAME`"
            ));
        }
        let mut seen = BTreeMap::new();
        for (host, kept) in &found {
            if let Some(other) = seen.insert(kept.first_server, host) {
                return Say::Fail(format!(
                    "{other} and {host} see the same media, with server {}: a kept system needs a tier that each node has of its \
                     own",
                    kept.first_server
                ));
            }
        }
        if self.asked && self.servers != first.servers {
            return Say::Fail(format!(
                "the kept system has {} servers, and --servers asks for {}: leave it out",
                first.servers, self.servers
            ));
        }
        self.go_on(first)
    }

    /// Goes on with what is here of a kept system.
    fn go_on(&mut self, first: Kept) -> Say {
        self.servers = first.servers;
        let firsts = self.kept.values().map(|(_, kept)| kept.as_ref().map(|kept| kept.first_server));
        let first_servers: Vec<Option<u32>> = firsts.collect();
        let mut hosts = vec![String::new(); first.servers as usize];
        let said = self.kept.values().filter_map(|(_, kept)| kept.as_ref());
        for (host, known) in said.flat_map(hosts_of) {
            hosts[host] = known;
        }
        for (host, kept) in self.kept.values() {
            let own = kept.iter().flat_map(|kept| kept.first_server..kept.first_server + kept.own_servers);
            own.filter(|server| *server < first.servers).for_each(|server| hosts[server as usize].clone_from(host));
        }
        self.configure(Configuration {
            introducer: first_servers.iter().flatten().min().copied().unwrap_or(0),
            per_node: first.own_servers,
            first_servers,
            hosts: hosts.clone(),
            kept: Some(Kept { hosts, ..first }),
        })
    }

    /// Why the pool's log cannot go on, once all servers that are here have said who has replicas of it. Who holds the newest
    /// word on that is one of any majority: where no server's word has a majority here, there is none.
    pub(super) fn no_log(&self) -> Option<String> {
        let missing = self.missing();
        if missing.is_empty() || !self.present.iter().all(|server| self.listening.contains_key(server)) {
            return None;
        }
        let words: Vec<BTreeSet<u32>> = self
            .listening
            .values()
            .filter(|word| !word.is_empty())
            .map(|word| word.iter().copied().collect())
            .collect();
        if words.iter().any(|word| 2 * word.intersection(&self.present).count() > word.len()) {
            return None;
        }
        let founders = match self.servers {
            0..=2 => 1,
            3..=4 => 3,
            _ => REPLICAS_MAX,
        };
        let holders = words.into_iter().next().unwrap_or_else(|| (0..founders).collect());
        Some(self.wanted(&holders, &missing))
    }

    /// Which nodes it takes for the log's sake.
    fn wanted(&self, holders: &BTreeSet<u32>, missing: &[(u32, String)]) -> String {
        let here = holders.intersection(&self.present).count();
        let more = holders.len() / 2 + 1 - here;
        let named = |server: &u32| match missing.iter().find(|(known, _)| known == server) {
            Some((_, host)) if !host.is_empty() => format!("server {server} on {host}"),
            _ => format!("server {server}"),
        };
        let wanted: Vec<String> = holders.difference(&self.present).map(named).collect();
        let hosts: BTreeSet<&str> =
            missing.iter().map(|(_, host)| host.as_str()).filter(|host| !host.is_empty()).collect();
        let list = match hosts.is_empty() {
            true => String::new(),
            false => {
                format!(", such as --nodelist={} for all of them", hosts.into_iter().collect::<Vec<_>>().join(","))
            }
        };
        format!(
            "the kept system cannot go on with what is here ({} of its {} servers): its pool's log, without which nothing can be \
             read, needs {more} more of: {}. Nothing of it is lost. Ask for such nodes{list}, beside those of this job",
            self.present.len(),
            self.servers,
            wanted.join(", ")
        )
    }
}

fn hosts_of(kept: &Kept) -> impl Iterator<Item = (usize, String)> {
    let all = kept.hosts.iter().take(kept.servers as usize).enumerate();
    all.filter(|(_, host)| !host.is_empty()).map(|(server, host)| (server, host.clone()))
}
