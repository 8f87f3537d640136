//! What people and programs get to see of a system and of a job.

use std::fmt::{self, Write as _};

use serde::Serialize;
use talea_client::{Client, ClientError, Status};
use talea_model::TargetId;
use talea_model::size::Iec;
use talea_wire::control::SessionInfo;
use talea_wire::data::StoreStat;

use crate::notice::{ago, count};

/// How long each target has for its counters, in milliseconds.
const STAT_MS: u64 = 1_000;
/// Sessions that people are shown at most.
const SESSIONS_MAX: usize = 12;

/// A system as `talea status` shows it.
#[derive(Serialize)]
pub(crate) struct SystemView {
    name: String,
    servers: Vec<ServerView>,
    containers: Vec<ContainerView>,
    sessions: Vec<SessionView>,
    open_transactions: usize,
    log_position: u64,
    log_bytes: u64,
    /// Server that leads the pool's log.
    leader: u32,
    /// Servers that hold a replica of it.
    replicas: Vec<u32>,
    /// Servers of which some target does not serve.
    missing: Vec<u32>,
    /// Why nobody leads the log, if so: then all this is what a server knew last.
    #[serde(skip_serializing_if = "Option::is_none")]
    unled: Option<String>,
    /// What of the data is damaged or gone, and what to do.
    troubles: Vec<Trouble>,
}

/// Data that is damaged or gone.
#[derive(Serialize)]
pub(crate) struct Trouble {
    pub(crate) text: String,
    /// What to do.
    pub(crate) remedy: &'static str,
}

#[derive(Serialize)]
struct ServerView {
    server: u32,
    host: String,
    targets: Vec<TargetView>,
}

#[derive(Serialize)]
struct TargetView {
    target: u32,
    state: String,
    /// Whether it told its counters; all of them are 0 if not.
    answers: bool,
    used_bytes: u64,
    capacity_bytes: u64,
    /// Of these, on the bulk tier; 0 if there is one tier for all.
    bulk_used_bytes: u64,
    bulk_capacity_bytes: u64,
    /// Of those in use, what nothing names any more: it is free after the next checkpoint, or when readers' leases end.
    returning_bytes: u64,
    updates: u64,
    fetches: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// Places of its media that the scrubber knows to be damaged.
    damaged: u64,
}

#[derive(Serialize)]
struct ContainerView {
    name: String,
    step: u64,
    /// First step that is still readable: what it shows is held from here on.
    first_step: u64,
    open_transactions: u64,
    subscriptions: u64,
    /// Snapshots that clients hold.
    leases: u64,
    producer: String,
    snapshots: Vec<String>,
}

#[derive(Serialize)]
struct SessionView {
    session: u64,
    name: String,
    /// The server that it lives at.
    home: u32,
    /// Its process and that one's node, if the kernel of its home server's node vouched for it.
    pid: Option<u32>,
    host: Option<String>,
    /// When it was opened.
    since_unix_us: u64,
}

impl SystemView {
    /// Asks a system for all of it.
    pub(crate) fn of(client: &Client, name: &str) -> Result<Self, ClientError> {
        let status = client.status()?;
        client.refresh_map()?;
        let stats = client.target_stats(STAT_MS)?;
        Ok(Self::from(name, &status, &stats))
    }

    /// What a status says, with the counters that are known.
    pub(crate) fn from(name: &str, status: &Status, stats: &[(TargetId, Option<StoreStat>)]) -> Self {
        let stat_of = |id| stats.iter().find(|(target, _)| *target == id).and_then(|(_, stat)| *stat);
        let mut servers = Vec::new();
        for server in &status.map.servers {
            let mut targets = Vec::new();
            for target in status.map.targets.iter().filter(|target| target.server == server.id) {
                let told = stat_of(target.id);
                let answers = told.is_some();
                let stat = told.unwrap_or_default();
                targets.push(TargetView {
                    target: target.id.0,
                    state: target.state.name().to_owned(),
                    answers,
                    used_bytes: stat.used_bytes,
                    capacity_bytes: target.capacity_bytes,
                    bulk_used_bytes: stat.bulk_used_bytes,
                    bulk_capacity_bytes: stat.bulk_capacity_bytes,
                    returning_bytes: stat.returning_bytes,
                    updates: stat.updates,
                    fetches: stat.fetches,
                    bytes_in: stat.bytes_in,
                    bytes_out: stat.bytes_out + stat.bytes_in_place,
                    damaged: stat.damaged,
                });
            }
            servers.push(ServerView { server: server.id.0, host: server.host.clone(), targets });
        }
        let damaged = servers.iter().flat_map(|server: &ServerView| &server.targets);
        let damaged =
            damaged.filter(|target| target.damaged > 0).map(|target| damaged_text(target.target, target.damaged));
        let names = |through| {
            let gone = status.containers.iter().filter(move |info| info.container <= through);
            gone.map(|info| info.name.clone()).collect::<Vec<_>>()
        };
        let lost = status.lost.iter().map(|(target, through)| (target.0, names(*through)));
        let lost = lost.filter(|(_, names)| !names.is_empty()).map(|(target, names)| lost_text(target, &names));
        let all = servers.iter().flat_map(|server: &ServerView| &server.targets);
        let full =
            all.flat_map(|target| target.full().map(|(tier, used, of)| full_text(target.target, tier, used, of)));
        let troubles = damaged.chain(lost).chain(full).collect();
        let is_missing = |server: &u32| {
            status.map.targets.iter().any(|target| target.server.0 == *server && status.map.is_lost(target.id))
        };
        let missing = status.map.servers.iter().map(|server| server.id.0).filter(is_missing).collect();
        let container = |info: &talea_wire::control::ContainerInfo| ContainerView {
            name: info.name.clone(),
            step: info.step.0,
            first_step: info.first_step.0,
            open_transactions: info.open_transactions,
            subscriptions: info.subscriptions,
            leases: info.leases,
            producer: format!("{:?}", info.producer).to_lowercase(),
            snapshots: info.snapshots.iter().map(|(name, _)| name.clone()).collect(),
        };
        let session = |info: &SessionInfo| {
            let host = status.map.server(info.home).map(|server| server.host.clone());
            SessionView {
                session: info.session.0,
                name: info.name.clone(),
                home: info.home.0,
                pid: info.process.map(|process| process.pid),
                host: info.process.and(host),
                since_unix_us: info.since.unix_us(),
            }
        };
        Self {
            name: name.to_owned(),
            servers,
            containers: status.containers.iter().map(container).collect(),
            sessions: status.sessions.iter().map(session).collect(),
            open_transactions: status.transactions.len(),
            log_position: status.position.0,
            log_bytes: status.counters.log_bytes,
            leader: status.leader.0,
            replicas: status.replicas.iter().map(|server| server.0).collect(),
            missing,
            unled: status.unled.clone(),
            troubles,
        }
    }
}

fn damaged_text(target: u32, damaged: u64) -> Trouble {
    let places = if damaged == 1 { "1 place".to_owned() } else { format!("{damaged} places") };
    let text = format!(
        "target {target}: {places} of its media damaged (its server's log names them); values there read as DATA_LOST"
    );
    Trouble { text, remedy: "read an earlier step, and check the machine" }
}

fn full_text(target: u32, tier: &str, used_bytes: u64, capacity_bytes: u64) -> Trouble {
    let text = format!("target {target}: {tier} is full, {} of {}", Iec(used_bytes), Iec(capacity_bytes));
    let remedy = "remove files and what kept steps show of them with `talea rm --drop-steps PATH`, keep fewer steps, or start with more --capacity";
    Trouble { text, remedy }
}

fn lost_text(target: u32, containers: &[String]) -> Trouble {
    let names = containers.join(", ");
    let text = format!(
        "target {target}: came back without all that it had stored, so nothing there can be told to be whole: what lies there of {names} \
         reads as DATA_LOST"
    );
    Trouble { text, remedy: "copy out what lies elsewhere, and write into a new container" }
}

/// How servers that are lost come back.
fn remedy(missing: &[u32]) -> String {
    let commands: Vec<String> = missing.iter().take(4).map(|server| format!("`talea restart {server}`")).collect();
    format!(
        "{} if it ended and its data are on media here; a job that has its node if that is missing",
        commands.join(", ")
    )
}

/// Numbers of servers, for people.
fn numbers(servers: &[u32]) -> String {
    let all: Vec<String> = servers.iter().map(u32::to_string).collect();
    format!("{} {}", if servers.len() == 1 { "server" } else { "servers" }, all.join(", "))
}

impl SystemView {
    /// Data that is damaged or gone.
    pub(crate) fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// Why nobody leads the log, if so.
    pub(crate) fn unled(&self) -> Option<&str> {
        self.unled.as_deref()
    }

    /// How many servers there are.
    pub(crate) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// How many sessions are open.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How those come back that do not serve.
    pub(crate) fn remedy(&self) -> String {
        remedy(&self.missing)
    }

    /// How many targets do not serve.
    pub(crate) fn down(&self) -> usize {
        self.servers.iter().flat_map(|server| &server.targets).filter(|target| target.state != "up").count()
    }
}

impl ContainerView {
    /// What holds space besides the newest data.
    fn kept(&self) -> String {
        let mut kept = String::new();
        if self.first_step < self.step {
            let _ = write!(kept, " ({} to {} held)", self.first_step, self.step);
        }
        if !self.snapshots.is_empty() {
            let _ =
                write!(kept, ", {} ({})", count(self.snapshots.len() as u64, "snapshot"), self.snapshots.join(", "));
        }
        kept
    }
}

impl TargetView {
    /// Tiers that take no more than a twentieth of their room: name, bytes in use, capacity.
    fn full(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let is_full =
            |(_, used, capacity): &(&str, u64, u64)| *capacity > 0 && capacity - used.min(capacity) < capacity / 20;
        self.tiers().into_iter().filter(is_full)
    }

    /// The tiers: name, bytes in use, capacity.
    fn tiers(&self) -> Vec<(&'static str, u64, u64)> {
        if self.bulk_capacity_bytes == 0 {
            return vec![("its tier", self.used_bytes, self.capacity_bytes)];
        }
        let log =
            (self.used_bytes - self.bulk_used_bytes, self.capacity_bytes.saturating_sub(self.bulk_capacity_bytes));
        vec![("log tier", log.0, log.1), ("bulk tier", self.bulk_used_bytes, self.bulk_capacity_bytes)]
    }
}

impl fmt::Display for TargetView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fill = |used: u64, capacity: u64| {
            format!("{} of {} ({:.0} %)", Iec(used), Iec(capacity), 100.0 * used as f64 / capacity.max(1) as f64)
        };
        if !self.answers {
            let silent = if self.state == "up" { ": does not answer" } else { "" };
            return write!(f, "target {} {}{silent}", self.target, self.state);
        }
        write!(f, "target {} {}: {}", self.target, self.state, fill(self.used_bytes, self.capacity_bytes))?;
        if self.bulk_capacity_bytes > 0 {
            let tiers: Vec<String> = self
                .tiers()
                .into_iter()
                .map(|(name, used, capacity)| format!("{name} {}", fill(used, capacity)))
                .collect();
            write!(f, " [{}]", tiers.join(", "))?;
        }
        if self.returning_bytes >= self.capacity_bytes.max(1) / 100 {
            write!(f, ", {} of it about to come back", Iec(self.returning_bytes))?;
        }
        let (in_, out) = (Iec(self.bytes_in), Iec(self.bytes_out));
        write!(f, ", {} updates ({in_}), {} fetches ({out})", self.updates, self.fetches)
    }
}

impl fmt::Display for SessionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}: {}", self.session, self.name)?;
        if let (Some(pid), Some(host)) = (self.pid, &self.host) {
            write!(f, ", process {pid} on {host}")?;
        }
        write!(f, ", at server {}, opened {}", self.home, ago(self.since_unix_us))
    }
}

impl fmt::Display for SystemView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "system {}: {}, log at {}",
            self.name,
            count(self.servers.len() as u64, "server"),
            self.log_position
        )?;
        match &self.unled {
            None => writeln!(f, "  led by server {}, log on {}", self.leader, numbers(&self.replicas))?,
            Some(why) => writeln!(f, "  nobody leads it: {why}; what follows is what one server knew last")?,
        }
        if !self.missing.is_empty() {
            writeln!(
                f,
                "  degraded: {} not serving; what is there cannot be read until it is back: {}",
                numbers(&self.missing),
                remedy(&self.missing)
            )?;
        }
        for Trouble { text, remedy } in &self.troubles {
            writeln!(f, "  {text}: {remedy}")?;
        }
        for server in &self.servers {
            writeln!(f, "  server {} on {}", server.server, server.host)?;
            for target in &server.targets {
                writeln!(f, "    {target}")?;
            }
        }
        for container in &self.containers {
            writeln!(
                f,
                "  container {}: step {}{}, {}, {}, producer {}",
                container.name,
                container.step,
                container.kept(),
                count(container.open_transactions, "open epoch"),
                count(container.subscriptions, "follower"),
                container.producer
            )?;
        }
        let (sessions, open) = (self.sessions.len() as u64, self.open_transactions as u64);
        writeln!(f, "  {}, {}", count(sessions, "session"), count(open, "open transaction"))?;
        for session in self.sessions.iter().take(SESSIONS_MAX) {
            writeln!(f, "    {session}")?;
        }
        if self.sessions.len() > SESSIONS_MAX {
            writeln!(f, "    and {} more, with --json", self.sessions.len() - SESSIONS_MAX)?;
        }
        Ok(())
    }
}
