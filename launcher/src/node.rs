//! `talea node`: what the launcher's step runs on each node of an allocation.
//!
//! Owns this node's part of a system: the 0700 directory with the system's file and secret, which came on standard input
//! (docs/design.md §9), this node's servers, their place on the media, and the end of all of it. It lives until its standard
//! input ends; a batch system's SIGTERM, which goes to everything at once, does not end it: the launcher may still be saving
//! what is committed.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use talea_client::system::{ProcessMark, RuntimeDir, ServerEntry};
use talea_client::{Client, ClientError, ConnectOptions, System};
use tokio::sync::mpsc;

use crate::cli::NodeArgs;
use crate::config::{KeptLine, LeaderLine, NodeConfig, RestartLine, ServerConfig, ServerLine};
use crate::failure::Failure;
use crate::group::{Group, Reader};
use crate::job::SESSION;
use crate::media::{self, Note, Place};
use crate::stop::Stop;
use crate::system::host;
use crate::{cores, interface, locate, metrics, tier};

/// A signal asked this process to end.
static TOLD_TO_STOP: AtomicBool = AtomicBool::new(false);

/// A node's part of a system.
struct Node {
    number: u32,
    system: System,
    made: bool,
    config: NodeConfig,
    place: Option<Place>,
    interface: Option<String>,
}

/// The servers of this node.
struct Servers {
    /// Those that wait for server 0's address.
    waiting: Vec<u32>,
    groups: Vec<Group>,
    lines: mpsc::UnboundedSender<ServerLine>,
}

/// Runs the agent.
pub(crate) async fn node(arguments: &NodeArgs) -> Result<u8, Failure> {
    let mut stop = Stop::new()?;
    let work = async {
        match serve(arguments).await {
            Ok(()) => Ok(0),
            Err(failure) => {
                say(&ServerLine::Failed { failed: failure.to_string() });
                Err(failure)
            }
        }
    };
    let remember = async {
        loop {
            stop.next().await;
            TOLD_TO_STOP.store(true, Ordering::Relaxed);
        }
    };
    tokio::select! {
        result = work => result,
        () = remember => Ok(0),
    }
}

/// Waits until the launcher has ended, after the end of standard input. If the batch system told everything to stop, it also made
/// srun drop our input, while the launcher may still be saving what is committed: then its session says when it has ended.
async fn launcher_gone(system: &System) {
    if !TOLD_TO_STOP.load(Ordering::Relaxed) {
        // Both come at about the same time.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if !TOLD_TO_STOP.load(Ordering::Relaxed) {
        return;
    }
    let options =
        ConnectOptions { name: Some("talea node".to_owned()), deadline_ms: Some(2_000), ..Default::default() };
    let watched = System::read(&system.directory).map_err(ClientError::from);
    let Ok(client) = watched.and_then(|system| Client::connect_to(&system, &options)) else { return };
    while client.status().is_ok_and(|status| status.sessions.iter().any(|info| info.name == SESSION)) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn serve(arguments: &NodeArgs) -> Result<(), Failure> {
    let number = std::env::var("SLURM_NODEID").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    if let (Some(name), Some(tier)) = (&arguments.persist, &arguments.tier) {
        let kept = media::kept(tier, name)?.map(KeptLine::from);
        say(&ServerLine::Kept { node: number, host: host(), kept });
    }
    let mut input = listen()?;
    let Some(line) = next(&mut input).await? else { return Ok(()) };
    let config: NodeConfig = serde_json::from_str(&line)
        .map_err(|error| Failure::Usage(format!("the launcher's configuration is not understood: {error}")))?;
    let mut node = Node::install(number, config)?;
    let result = node.run(&mut input).await;
    node.leave();
    result
}

impl Node {
    /// Makes this node's directory.
    fn install(number: u32, config: NodeConfig) -> Result<Self, Failure> {
        let runtime = RuntimeDir::from_env()?;
        crate::restart::sweep(&runtime)?;
        let secret = secret_of(&config.server.secret)?;
        let (system, made) = runtime.install(config.file.clone(), secret)?;
        let launch_node = std::env::var("SLURM_LAUNCH_NODE_IPADDR").ok();
        let interface = interface::resolve(config.server.interface.as_deref(), launch_node.as_deref())?;
        Ok(Self { number, system, made, config, place: None, interface })
    }

    fn first_server(&self) -> Option<u32> {
        self.config.first_servers.get(self.number as usize).copied().flatten()
    }

    async fn run(&mut self, input: &mut Input) -> Result<(), Failure> {
        let Some(first) = self.first_server() else {
            // Of a system that is only being started it is not known yet how to reach it.
            let begins = !self.config.first_servers.is_empty();
            let leader = match begins {
                true => match next(input).await? {
                    Some(text) => Some(leader_of(&text)?),
                    None => return Ok(()),
                },
                false => None,
            };
            self.write(leader.as_deref())?;
            say(&ServerLine::Installed { installed: self.number });
            while next(input).await?.is_some() {}
            return Ok(());
        };
        self.place = Place::prepare(&self.config.tier, &self.note(first))?;
        self.notes().into_iter().for_each(|note| say(&ServerLine::Note { note, host: host() }));
        cores::keep_to_last(self.config.reserved_cores)?;
        let (lines, mut heard) = mpsc::unbounded_channel();
        let mut servers = Servers { waiting: (first..first + self.config.per_node).collect(), groups: vec![], lines };
        let result = self.relay(input, &mut heard, &mut servers).await;
        end(servers.groups).await.and(result)
    }

    /// Starts the servers and passes on what they say, until the launcher ends. Server 0 starts at once; the others, and this
    /// node's file, need its address, which is the launcher's second line.
    async fn relay(
        &mut self,
        input: &mut Input,
        heard: &mut mpsc::UnboundedReceiver<ServerLine>,
        servers: &mut Servers,
    ) -> Result<(), Failure> {
        let mut leader: Option<Vec<String>> = None;
        let introducer = self.config.server.introducer;
        if servers.waiting.first() == Some(&introducer) {
            servers.waiting.remove(0);
            servers.groups.push(self.start(introducer, vec![], servers.lines.clone()).await?);
        }
        loop {
            tokio::select! {
                line = next(input) => match line? {
                    Some(text) if leader.is_none() => {
                        let addresses = leader_of(&text)?;
                        leader = Some(addresses.clone());
                        self.write(leader.as_deref())?;
                        for server in std::mem::take(&mut servers.waiting) {
                            let group = self.start(server, addresses.clone(), servers.lines.clone()).await?;
                            servers.groups.push(group);
                        }
                    }
                    Some(text) => {
                        if let Ok(line) = serde_json::from_str::<RestartLine>(&text) {
                            self.restart(line, servers).await;
                        }
                    }
                    None => {
                        launcher_gone(&self.system).await;
                        return Ok(());
                    }
                },
                Some(line) = heard.recv() => {
                    if let ServerLine::Listening { server, control, pid, .. } = &line {
                        self.listens(*server, control.clone(), *pid);
                        self.write(leader.as_deref())?;
                    }
                    say(&line);
                }
            }
        }
    }

    /// Starts a server of this node again. What goes wrong is said; it ends nothing else.
    async fn restart(&mut self, line: RestartLine, servers: &mut Servers) {
        let label = line.restart.to_string();
        let Some(at) = servers.groups.iter().position(|group| group.label == label) else { return };
        let result = match servers.groups[at].has_ended() {
            true => self.introduced(line.restart, line.introducer, line.leader, servers.lines.clone()).await,
            false => {
                Err(Failure::Usage(format!("server {label} runs on {}: end it first if it does not answer", host())))
            }
        };
        match result {
            Ok(group) => servers.groups[at] = group,
            Err(failure) => say(&ServerLine::Failed { failed: failure.to_string() }),
        }
    }

    fn listens(&mut self, server: u32, control: Vec<String>, pid: Option<u32>) {
        let process = pid.and_then(ProcessMark::of_pid);
        self.system.file.servers.retain(|entry| entry.id != server);
        self.system.file.servers.push(ServerEntry { id: server, control, process });
    }

    /// Writes this node's file: its own servers, and the introducer as the way to the rest. A directory that is the launcher's or
    /// another node's already has its file.
    fn write(&mut self, leader: Option<&[String]>) -> Result<(), Failure> {
        if !self.made {
            return Ok(());
        }
        let mut system = self.system.clone();
        let id = self.config.server.introducer;
        if let Some(leader) = leader.filter(|_| !system.file.servers.iter().any(|entry| entry.id == id)) {
            system.file.servers.push(ServerEntry { id, control: leader.to_vec(), process: None });
        }
        Ok(system.write()?)
    }

    /// What the user should know of this node.
    fn notes(&self) -> Vec<String> {
        let (server, per_node) = (&self.config.server, u64::from(self.config.per_node));
        let bytes = per_node * u64::from(server.targets) * self.config.target_bytes;
        let in_memory = tier::paths(&self.config.tier).is_empty();
        let memory = if in_memory { crate::plan::memory_warning(bytes) } else { None };
        let place = self.place.iter().flat_map(Place::notes);
        memory.into_iter().chain(place).collect()
    }

    fn note(&self, first_server: u32) -> Note {
        let server = &self.config.server;
        Note {
            version: 1,
            persist: self.config.persist.clone(),
            system: server.system.clone(),
            first_server,
            own_servers: self.config.per_node,
            servers: server.servers,
            targets: server.targets,
            capacity_bytes: self.config.capacity_bytes,
            hosts: self.config.hosts.clone(),
            job: self.config.job,
            user: Some(ProcessMark::of_self()),
        }
    }

    async fn start(
        &self,
        server: u32,
        leader: Vec<String>,
        lines: mpsc::UnboundedSender<ServerLine>,
    ) -> Result<Group, Failure> {
        self.introduced(server, self.config.server.introducer, leader, lines).await
    }

    async fn introduced(
        &self,
        server: u32,
        introducer: u32,
        leader: Vec<String>,
        lines: mpsc::UnboundedSender<ServerLine>,
    ) -> Result<Group, Failure> {
        let directory = self.place.as_ref().map(|place| place.directory.as_str());
        let tier = tier::of_target(&self.config.tier, self.config.target_bytes, directory);
        let config = ServerConfig {
            server,
            tier,
            directory: self.system.directory.clone(),
            leader: Some(leader),
            introducer,
            metrics: metrics::of_nth(
                self.config.server.metrics.clone(),
                server - self.first_server().unwrap_or(server),
            ),
            interface: self.interface.clone(),
            patient: true,
            detached: false,
            ..self.config.server.clone()
        };
        let log = self.system.directory.join(format!("server-{server}.log"));
        let arguments = ["serve", "--config", "-"].map(str::to_owned);
        let mut group = Group::start(server.to_string(), &locate::server()?, &arguments, &config, log).await?;
        let Some(reader) = group.take_reader() else { return Ok(group) };
        tokio::spawn(follow(server, reader, group.log().to_owned(), lines));
        Ok(group)
    }

    /// Takes away what this node has of the system.
    fn leave(self) {
        if let Some(place) = &self.place {
            place.release();
        }
        // A launcher that died cannot take away its own directory any more.
        let orphaned = self.system.file.launcher.as_ref().is_some_and(|launcher| !launcher.is_alive());
        if self.made || orphaned {
            let _ = self.system.remove();
        }
    }
}

/// Passes on a server's lines; its end, too, with its last words.
async fn follow(server: u32, mut reader: Reader, log: PathBuf, lines: mpsc::UnboundedSender<ServerLine>) {
    while let Ok(Some(text)) = reader.next_line().await {
        match serde_json::from_str(&text) {
            Ok(ServerLine::Pool { pool, .. }) => _ = lines.send(ServerLine::Pool { pool, of: Some(server) }),
            Ok(line) => _ = lines.send(line),
            Err(_) => {}
        }
    }
    let log = crate::group::tail(&log);
    let _ =
        lines.send(ServerLine::Ended { ended: server, host: host(), status: "it closed its output".to_owned(), log });
}

async fn end(groups: Vec<Group>) -> Result<(), Failure> {
    let mut stops = tokio::task::JoinSet::new();
    for group in groups {
        stops.spawn(group.stop(Duration::from_secs(6)));
    }
    while stops.join_next().await.is_some() {}
    Ok(())
}

/// The launcher's lines, which a thread reads; it ends with them.
type Input = mpsc::UnboundedReceiver<std::io::Result<String>>;

fn listen() -> Result<Input, Failure> {
    let (lines, input) = mpsc::unbounded_channel();
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            if lines.send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(read).map_err(Failure::io("starting", "a thread"))?;
    Ok(input)
}

async fn next(input: &mut Input) -> Result<Option<String>, Failure> {
    input.recv().await.transpose().map_err(Failure::io("reading", "standard input"))
}

fn leader_of(text: &str) -> Result<Vec<String>, Failure> {
    let line: Result<LeaderLine, _> = serde_json::from_str(text);
    line.map(|line| line.leader)
        .map_err(|error| Failure::Usage(format!("the leader's line is not understood: {error}")))
}

pub(crate) fn secret_of(hex: &str) -> Result<[u8; 32], Failure> {
    let bad = || Failure::Usage("the launcher's secret is not 64 hexadecimal digits".to_owned());
    if hex.len() != 64 || !hex.is_ascii() {
        return Err(bad());
    }
    let mut secret = [0; 32];
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
    }
    Ok(secret)
}

/// One line for the launcher. If it is gone, the end of standard input says so better.
fn say(line: &ServerLine) {
    let mut out = std::io::stdout().lock();
    let text = serde_json::to_string(line).unwrap_or_default();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_whole_or_not_at_all() {
        assert_eq!(secret_of(&"0a".repeat(32)).unwrap(), [10; 32]);
        for bad in ["", "0a", &"0g".repeat(32), &"é".repeat(32)] {
            assert!(secret_of(bad).is_err(), "{bad}");
        }
    }
}
