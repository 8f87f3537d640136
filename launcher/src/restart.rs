//! Starting servers of a system again that have ended.
//!
//! Whoever holds a system's servers does it: the process of `talea run` or of `talea up` in an allocation, asked over a socket in the
//! system's directory; servers of `talea up` outside of one belong to nobody, and `talea restart` starts them itself. Only a
//! server whose data lie on media comes back with them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use talea_client::system::{ProcessMark, RuntimeDir, ServerEntry};
use talea_client::{Client, ConnectOptions, System};
use talea_model::ServerId;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::config::{RestartLine, ServerConfig, ServerLine};
use crate::failure::Failure;
use crate::group::Group;
use crate::system::Started;
use crate::watch::Watch;
use crate::{locate, metrics, names, tier};

/// The socket on which the holder of a system is asked.
const SOCKET: &str = "launcher.sock";
/// What a server of the system was told, but for the secret.
const NOTE: &str = "launch.json";
/// How long a server may take to be part of the pool again.
const READY: Duration = Duration::from_secs(30);

/// How a system was started: what it takes to start one of its servers again, and what becomes of its data.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LaunchNote {
    pub(crate) config: ServerConfig,
    /// First server of this node.
    first_server: u32,
    /// Tier as the user gave it.
    pub(crate) tier: String,
    /// Name under which the media keep the system.
    pub(crate) persist: Option<String>,
}

impl LaunchNote {
    pub(crate) fn new(config: ServerConfig, tier: String, persist: Option<String>, first_server: u32) -> Self {
        // The secret has a file of its own.
        Self { config: ServerConfig { secret: String::new(), ..config }, first_server, tier, persist }
    }

    /// Notes that this node keeps the system under a name from now on.
    pub(crate) fn note_kept(&self, name: &str) -> Result<(), Failure> {
        let hosts = vec![crate::system::host(); self.config.servers as usize];
        let kept = names::KeptAt { system: self.config.system.clone(), tier: self.tier.clone(), hosts };
        names::note_kept(name, &kept)
    }

    /// The note of a system; `None` if it has none.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join(NOTE)).ok()?).ok()
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), Failure> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = directory.join(NOTE);
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        // The token of metrics is in it.
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(&bytes)).map_err(Failure::io("writing", &path))
    }
}

/// Whether a system whose servers have all ended has its data on media and can be started again: then nothing may forget it. What is
/// kept under a name is found by that.
pub(crate) fn may_come_back(system: &System) -> bool {
    let on_media = |note: &LaunchNote| tier::paths(&note.config.tier).into_iter().any(Path::exists);
    let note = LaunchNote::read(&system.directory).filter(|_| system.file.detached);
    note.is_some_and(|note| note.persist.is_none() && tier::is_durable(&note.tier) && on_media(&note))
}

/// A dead system whose directory has been removed.
pub(crate) struct Swept {
    name: String,
    /// The name that its media keep it under, and their tier.
    kept: Option<(String, String)>,
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kept } = self;
        match kept {
            None => write!(f, "removed what the dead system '{name}' had left"),
            Some((kept, tier)) => write!(
                f,
                "all servers of system '{name}' have ended; its data are kept: {} brings all of it back",
                how_to_bring_back(kept, tier)
            ),
        }
    }
}

/// The command that starts a kept system again.
pub(crate) fn how_to_bring_back(kept: &str, tier: &str) -> String {
    format!("`talea up --persist {kept} --tier {tier}`")
}

/// Removes what dead systems left that cannot come back by themselves.
pub(crate) fn sweep(runtime: &RuntimeDir) -> Result<Vec<Swept>, Failure> {
    let kept = |system: System| {
        let note = LaunchNote::read(&system.directory)?;
        Some((system.file.name, (note.persist?, note.tier)))
    };
    let mut kept: BTreeMap<String, (String, String)> =
        runtime.all()?.into_iter().filter(|system| !system.file.is_running()).filter_map(kept).collect();
    let names = runtime.gc_but(may_come_back)?;
    Ok(names.into_iter().map(|name| Swept { kept: kept.remove(&name), name }).collect())
}

/// What to do about a dead system that may come back.
pub(crate) fn how_to_come_back(name: &str) -> String {
    format!(
        "none of its servers runs, and its data are on media: `talea restart --system {name}` starts them again, `talea down {name}` \
         removes them"
    )
}

#[derive(Serialize, Deserialize)]
struct Request {
    /// Empty: all that have ended.
    restart: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    /// Servers that run again.
    restarted: Vec<u32>,
    failed: Option<String>,
}

/// Asks the process that holds a system to start servers again; which it did.
pub(crate) async fn ask(system: &System, servers: &[u32]) -> Result<Vec<u32>, Failure> {
    let path = system.directory.join(SOCKET);
    let gone = || {
        let text = format!(
            "the process that holds system {} does not answer: run this on the node where it was started, while its command runs",
            system.file.name
        );
        Failure::Usage(text)
    };
    let mut stream = UnixStream::connect(&path).await.map_err(|_| gone())?;
    let mut line = serde_json::to_vec(&Request { restart: servers.to_vec() }).unwrap_or_default();
    line.push(b'\n');
    stream.write_all(&line).await.map_err(|_| gone())?;
    let mut text = String::new();
    let patience = 2 * READY * (servers.len().max(1) as u32);
    let answered = tokio::time::timeout(patience, BufReader::new(stream).read_line(&mut text)).await;
    let answer: Option<Answer> = answered.ok().and_then(Result::ok).and_then(|_| serde_json::from_str(&text).ok());
    match answer {
        Some(Answer { failed: None, restarted }) => Ok(restarted),
        Some(Answer { failed: Some(why), .. }) => Err(Failure::Usage(why)),
        None => Err(gone()),
    }
}

/// Starts servers of a system that belong to nobody; which it did.
pub(crate) async fn detached(system: &System, servers: &[u32]) -> Result<Vec<u32>, Failure> {
    let name = &system.file.name;
    let Some(note) = LaunchNote::read(&system.directory) else {
        return Err(Failure::Usage(format!("system {name} does not say how it was started")));
    };
    let mut system = system.clone();
    let ended = |entry: &&ServerEntry| !is_alive(entry);
    let servers = match servers {
        [] => system.file.servers.iter().filter(ended).map(|entry| entry.id).collect(),
        named => named.to_vec(),
    };
    for server in &servers {
        check(*server, note.config.servers, &note.tier)?;
        match system.file.servers.iter().find(|entry| entry.id == *server) {
            Some(ServerEntry { process: Some(process), .. }) if process.is_alive() => {
                return Err(lives(*server, process.pid));
            }
            Some(_) => {}
            None => return Err(elsewhere(*server, "another node")),
        }
    }
    let secret = system.secret().iter().map(|byte| format!("{byte:02x}")).collect();
    let config = ServerConfig { secret, ..note.config };
    let groups = start_all(&mut system, &config, note.first_server, &servers).await?;
    groups.into_iter().for_each(Group::detach);
    Ok(servers)
}

fn is_alive(entry: &ServerEntry) -> bool {
    entry.process.as_ref().is_some_and(ProcessMark::is_alive)
}

fn check(server: u32, servers: u32, tier: &str) -> Result<(), Failure> {
    if server >= servers {
        return Err(Failure::Usage(format!(
            "there is no server {server}: they are numbered from 0 to {}",
            servers - 1
        )));
    }
    if !tier::is_durable(tier) {
        let text = format!(
            "server {server} kept its data in memory ({tier}), and they are lost with it: it does not come back. Start the system \
             with --tier pmem:/path or nvme:/path if its servers shall"
        );
        return Err(Failure::Usage(text));
    }
    Ok(())
}

fn lives(server: u32, pid: u32) -> Failure {
    Failure::Usage(format!("server {server} runs: it is process {pid}. End that first if it does not answer"))
}

fn elsewhere(server: u32, host: &str) -> Failure {
    Failure::Usage(format!(
        "the data of server {server} are on {host}, which is not part of this: end the system, and start it with that node"
    ))
}

/// What a server is told: as at first, and who introduces it to the others now.
fn of_server(config: &ServerConfig, server: u32, first: u32, introducer: Option<&ServerEntry>) -> ServerConfig {
    ServerConfig {
        server,
        introducer: introducer.map_or(server, |entry| entry.id),
        leader: Some(introducer.map(|entry| entry.control.clone()).unwrap_or_default()),
        metrics: metrics::of_nth(config.metrics.clone(), server - first.min(server)),
        ..config.clone()
    }
}

/// Starts servers one after the other, each introduced by one that runs, and waits until all are part of the pool: not for each
/// alone, because the pool goes on only with most of those that hold its log.
async fn start_all(
    system: &mut System,
    config: &ServerConfig,
    first: u32,
    servers: &[u32],
) -> Result<Vec<Group>, Failure> {
    let mut groups = Vec::new();
    for server in servers {
        let introducer = system.file.servers.iter().filter(|entry| entry.id != *server).find(|entry| is_alive(entry));
        let config = of_server(config, *server, first, introducer);
        let arguments = ["serve", "--config", "-"].map(str::to_owned);
        let log = system.directory.join(format!("server-{server}.log"));
        let mut group = Group::start(server.to_string(), &locate::server()?, &arguments, &config, log).await?;
        let entry = listening(&mut group, *server).await?;
        // Noted at once: whatever becomes of the others, `talea down` finds it.
        put(system, ServerEntry { process: group.pid().and_then(ProcessMark::of_pid), ..entry })?;
        groups.push(group);
    }
    for (server, group) in servers.iter().zip(&mut groups) {
        in_pool(group, *server).await?;
    }
    Ok(groups)
}

/// Waits until the server listens; where.
async fn listening(group: &mut Group, server: u32) -> Result<ServerEntry, Failure> {
    let listens = |line: ServerLine| match line {
        ServerLine::Listening { server: id, control, .. } if id == server => {
            Some(ServerEntry { id, control, process: None })
        }
        _ => None,
    };
    hear(group, server, "does not listen", listens).await
}

/// Waits until the server is part of the pool.
async fn in_pool(group: &mut Group, server: u32) -> Result<(), Failure> {
    let is_in = |line: ServerLine| match line {
        ServerLine::Pool { of, .. } if of.is_none_or(|id| id == server) => Some(()),
        _ => None,
    };
    let late = "runs, and is not part of the pool (most of the servers that hold the pool's log have to run)";
    hear(group, server, late, is_in).await
}

/// Waits for a server's word.
async fn hear<T>(
    group: &mut Group,
    server: u32,
    late: &str,
    wanted: impl Fn(ServerLine) -> Option<T>,
) -> Result<T, Failure> {
    let heard = async {
        loop {
            match group.next_line().await? {
                ServerLine::Ended { ended, host, status, log } if ended == server => {
                    return Err(Failure::ServerEnded { server: format!("{ended} on {host}"), status, log });
                }
                ServerLine::Failed { failed } => return Err(Failure::Usage(failed)),
                line => {
                    if let Some(found) = wanted(line) {
                        return Ok(found);
                    }
                }
            }
        }
    };
    let late = || Failure::Usage(format!("server {server} {late} after {} s", READY.as_secs()));
    tokio::time::timeout(READY, heard).await.unwrap_or_else(|_| Err(late()))
}

/// Notes where a server is now.
fn put(system: &mut System, entry: ServerEntry) -> Result<(), Failure> {
    system.file.servers.retain(|known| known.id != entry.id);
    system.file.servers.push(entry);
    system.file.servers.sort_by_key(|known| known.id);
    Ok(system.write()?)
}

/// Looks after the servers that this process has started: hears of those that end, and starts them again when asked.
pub(crate) struct Keeper<'a> {
    held: Option<(&'a mut Started, UnixListener)>,
    watch: Option<Watch>,
}

/// What became of a server.
pub(crate) enum News {
    /// One that this process has started has ended.
    Ended(Failure),
    /// What the pool says.
    Heard(String),
}

impl<'a> Keeper<'a> {
    /// Of a system that others look after.
    pub(crate) fn of_nothing() -> Self {
        Self { held: None, watch: None }
    }

    pub(crate) fn of(started: &'a mut Started) -> Result<Self, Failure> {
        let path = started.system.directory.join(SOCKET);
        let listener = UnixListener::bind(&path).map_err(Failure::io("listening on", &path))?;
        Ok(Self { held: Some((started, listener)), watch: None })
    }

    /// Hears from now on also what the pool says of its servers, wherever they are.
    pub(crate) fn watch(&mut self, client: &Client) -> Result<(), Failure> {
        self.watch = Some(Watch::begin(client)?);
        Ok(())
    }

    /// Resolves when there is something to tell of a server.
    pub(crate) async fn next_news(&mut self) -> News {
        let Self { held, watch } = self;
        let Some(watch) = watch else { return News::Ended(next_end(held).await) };
        let failure = tokio::select! {
            failure = next_end(held) => failure,
            line = watch.next() => return News::Heard(line),
        };
        if let Failure::ServerEnded { server, .. } = &failure
            && let Some(Ok(id)) = server.split(' ').next().map(str::parse)
        {
            watch.is_told(ServerId(id));
        }
        News::Ended(failure)
    }

    /// Resolves when a server ends by itself, each time with another one.
    pub(crate) async fn next_end(&mut self) -> Failure {
        next_end(&mut self.held).await
    }
}

async fn next_end(held: &mut Option<(&mut Started, UnixListener)>) -> Failure {
    let Some((started, listener)) = held else { return std::future::pending().await };
    loop {
        let stream = tokio::select! {
            failure = Started::any_ended(&mut started.groups) => return failure,
            Ok((stream, _)) = listener.accept() => stream,
        };
        serve(started, stream).await;
    }
}

async fn serve(started: &mut Started, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    // Whoever connects is this user, in a directory of this user's; one that says nothing must not hold the rest up.
    let read = tokio::time::timeout(Duration::from_secs(2), BufReader::new(read).read_line(&mut line)).await;
    let Ok(Ok(_)) = read else { return };
    let Ok(Request { restart: servers }) = serde_json::from_str(&line) else { return };
    let answer = match again(started, servers).await {
        Ok(restarted) => {
            restarted.iter().for_each(|server| eprintln!("talea: server {server} runs again"));
            Answer { restarted, failed: None }
        }
        Err(failure) => Answer { restarted: vec![], failed: Some(failure.to_string()) },
    };
    let mut bytes = serde_json::to_vec(&answer).unwrap_or_default();
    bytes.push(b'\n');
    let _ = write.write_all(&bytes).await;
}

async fn again(started: &mut Started, servers: Vec<u32>) -> Result<Vec<u32>, Failure> {
    for server in &servers {
        check(*server, started.plan.servers, &started.plan.tier)?;
        if let Some((_, host)) = started.missing.iter().find(|(id, _)| id == server) {
            return Err(elsewhere(*server, host));
        }
    }
    if started.plan.allocation.is_none() {
        return again_here(started, servers).await;
    }
    let servers = if servers.is_empty() { lost(started).await? } else { servers };
    servers.iter().try_for_each(|server| check(*server, started.plan.servers, &started.plan.tier))?;
    for server in &servers {
        again_in_step(started, *server).await?;
    }
    Ok(servers)
}

/// Servers that the pool takes for lost, but for those whose media are not here.
async fn lost(started: &Started) -> Result<Vec<u32>, Failure> {
    let (system, missing) = (started.system.clone(), started.missing.clone());
    let ask = move || {
        let name = Some("talea restart".to_owned());
        let options = ConnectOptions { name, deadline_ms: Some(READY.as_millis() as u64), ..ConnectOptions::default() };
        let map = Client::connect_to(&system, &options)?.refresh_map()?;
        Ok(crate::watch::down(&map).into_keys().map(|server| server.0).collect::<Vec<_>>())
    };
    let asked = tokio::task::spawn_blocking(ask).await;
    let down = asked.unwrap_or_else(|_| Err(Failure::Usage("the system could not be asked".to_owned())))?;
    Ok(down.into_iter().filter(|server| !missing.iter().any(|(id, _)| id == server)).collect())
}

async fn again_here(started: &mut Started, mut servers: Vec<u32>) -> Result<Vec<u32>, Failure> {
    if servers.is_empty() {
        let ended = started.groups.iter_mut().filter_map(|group| group.has_ended().then(|| group.label.parse().ok()));
        servers = ended.flatten().collect();
        servers.iter().try_for_each(|server| check(*server, started.plan.servers, &started.plan.tier))?;
    }
    let mut places = Vec::new();
    for server in &servers {
        let Some(at) = started.groups.iter().position(|group| group.label == server.to_string()) else {
            return Err(elsewhere(*server, "another node"));
        };
        if !started.groups[at].has_ended() {
            return Err(lives(*server, started.groups[at].pid().unwrap_or_default()));
        }
        places.push(at);
    }
    let configuration = started.configuration.as_ref();
    let first = configuration.and_then(|all| all.first_servers.first().copied().flatten()).unwrap_or(0);
    let config = started.local_config(false, 0)?;
    let groups = start_all(&mut started.system, &config, first, &servers).await?;
    for (at, group) in places.into_iter().zip(groups) {
        started.groups[at] = group;
    }
    Ok(servers)
}

/// The agent of the server's node starts it.
async fn again_in_step(started: &mut Started, server: u32) -> Result<(), Failure> {
    let others = started.system.file.servers.iter().filter(|entry| entry.id != server);
    let introducer = others.min_by_key(|entry| entry.id).cloned();
    let line = RestartLine {
        restart: server,
        introducer: introducer.as_ref().map_or(server, |entry| entry.id),
        leader: introducer.map(|entry| entry.control).unwrap_or_default(),
    };
    let Some(step) = started.groups.first_mut() else { return Ok(()) };
    step.tell(&line).await?;
    let entry = listening(step, server).await?;
    in_pool(step, server).await?;
    put(&mut started.system, entry)
}
