//! What the launcher tells a server: one JSON object on one line, from standard input or a file.
//!
//! Owns its form and its checks. The secret is never taken from arguments or the environment, and never printed.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::thread::CpuSet;
use serde::Deserialize;
use talea_control::{FanOut, LogBound};
use talea_fabric::Credentials;
use talea_tier::TiersConfig;

use crate::failure::Failure;

/// Longest line that is read, in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Most targets of one server.
const MAX_TARGETS: u32 = 1024;

/// Which fabrics the targets listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FabricChoice {
    /// Rings on the node, and whatever reaches other nodes.
    #[default]
    Auto,
    /// Rings only.
    Ring,
    /// As `auto`; clients are told to use the network also on the node.
    Tcp,
}

/// Whether waits of the targets may spin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SpinChoice {
    /// If cores are free.
    #[default]
    Auto,
    /// Never.
    Never,
    /// For a short time before each sleep, whatever it costs others.
    Briefly,
    /// Nor do they give way: they sleep at once.
    Sleep,
}

/// A planted bug, for tests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Plant {
    /// Pending versions are visible to snapshots on this server's first target.
    SplitCommit,
}

/// Hexadecimal bytes that do not show up in debug output.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Hex<const N: usize>([u8; N]);

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{} hexadecimal digits are needed", 2 * N);
        if text.len() != 2 * N || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; N];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Hex(bytes))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// The configuration of one server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of the system, for people.
    pub(crate) name: String,
    /// Id of the system.
    pub(crate) system: Hex<16>,
    /// Secret of the system, or
    #[serde(default)]
    pub(crate) secret: Option<Hex<32>>,
    /// a 0600 file that holds it, 32 bytes or as hexadecimal text.
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
    /// Number of this server; without one it is `SLURM_PROCID`.
    #[serde(default)]
    pub(crate) server: Option<u32>,
    /// Servers of the system.
    pub(crate) servers: u32,
    /// Targets of this server.
    pub(crate) targets: u32,
    /// Threads for them; without it as many as this machine's cores are good for.
    #[serde(default)]
    pub(crate) threads: Option<u32>,
    /// Tier of each target, such as `ram:4G`, or two: `pmem:/mnt/pmem0:1G,nvme:/scratch:8G`.
    pub(crate) tier: String,
    /// Directory for sockets: ours alone (0700), made if it is missing.
    pub(crate) directory: PathBuf,
    /// Control addresses of the server that introduces this one to the others. `null`: they come in a second line.
    #[serde(default)]
    pub(crate) leader: Option<Vec<String>>,
    /// Its number. It may be this server: then the others come to it.
    #[serde(default)]
    pub(crate) introducer: u32,
    /// Which fabrics to listen on.
    #[serde(default)]
    pub(crate) fabric: FabricChoice,
    /// Address of the interface that other nodes reach; without one, this node only.
    #[serde(default)]
    pub(crate) interface: Option<String>,
    /// libfabric's provider between nodes, such as `tcp;ofi_rxm`; without it connected endpoints of `tcp`.
    #[serde(default)]
    pub(crate) provider: Option<String>,
    /// Whether waits of the targets may spin.
    #[serde(default)]
    pub(crate) spin: SpinChoice,
    /// How long a turn on a core its threads ask of the kernel, in microseconds, if its own are longer; 0: nothing is asked.
    #[serde(default = "default_slice_us")]
    pub(crate) slice_us: u32,
    /// Cores that it keeps to, by their numbers; none: all that it was started on.
    #[serde(default)]
    pub(crate) cores: Vec<usize>,
    /// Membership lease in milliseconds.
    #[serde(default = "default_lease_ms")]
    pub(crate) membership_lease_ms: u64,
    /// True: outlive the launcher. False: end when standard input does.
    #[serde(default)]
    pub(crate) detached: bool,
    /// True: only the end of standard input ends the server. A batch system signals all of a job's processes at once, and the
    /// launcher still has to save what is committed.
    #[serde(default)]
    pub(crate) patient: bool,
    /// Where to show counters to Prometheus; without it nowhere.
    #[serde(default)]
    pub(crate) metrics: Option<MetricsConfig>,
    /// How long the pool's log may grow before it is cut.
    #[serde(default)]
    pub(crate) log_bound: Option<LogBoundConfig>,
    /// How the pool's log spreads over many servers; the same for all of them.
    #[serde(default)]
    pub(crate) fan_out: Option<FanOutConfig>,
    /// A planted bug.
    #[serde(default)]
    pub(crate) plant: Option<Plant>,
}

/// What a replica of the pool's log keeps, about.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogBoundConfig {
    records: u64,
    bytes: u64,
}

/// How many servers follow the log's leader itself, and how many each passes it on to if there are more.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FanOutConfig {
    direct: usize,
    width: usize,
}

/// Where counters are shown, and who may see them.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsConfig {
    /// `unix`: a socket in the server's directory, for this user. `ADDRESS:PORT`: for who has the token.
    pub(crate) listen: String,
    /// What a request over the network has to bring along: `Authorization: Bearer TOKEN`.
    pub(crate) token: Option<String>,
}

impl fmt::Debug for MetricsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.listen)
    }
}

/// Shorter than the kernel's own, so that a server that wakes up runs before those who compute; and not so short that it runs before the
/// client that woke it has sent all that it is about to send.
fn default_slice_us() -> u32 {
    1_000
}

fn default_lease_ms() -> u64 {
    2000
}

#[derive(Deserialize)]
struct LeaderLine {
    leader: Vec<String>,
}

/// The configuration, checked, and in the forms that are used.
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) server: u32,
    pub(crate) tier: TiersConfig,
    pub(crate) credentials: Credentials,
    pub(crate) leader: Vec<talea_fabric::Address>,
}

impl Settings {
    /// How long the pool's log may grow before it is cut.
    pub(crate) fn log_bound(&self) -> LogBound {
        let told = self.config.log_bound.map(|told| LogBound { records: told.records.max(1), bytes: told.bytes });
        told.unwrap_or_default()
    }

    /// How the pool's log spreads over many servers.
    pub(crate) fn fan_out(&self) -> FanOut {
        let told = self.config.fan_out.map(|told| FanOut { direct: told.direct, width: told.width.max(1) });
        told.unwrap_or_default()
    }

    /// The system's id, as a number.
    pub(crate) fn system(&self) -> u128 {
        u128::from_be_bytes(self.config.system.0)
    }
}

/// Reads the configuration from a file or, for `-`, from `input`, and the second line if there is one.
pub(crate) fn read(path: &Path, input: &mut dyn BufRead) -> Result<Settings, Failure> {
    if path == Path::new("-") {
        let config = parse(&line(input)?)?;
        return settle(config, input);
    }
    let file = File::open(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    private(path, &file)?;
    let mut file = BufReader::new(file);
    let mut text = Vec::new();
    let read = file.by_ref().take(MAX_LINE_BYTES).read_to_end(&mut text);
    read.map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    settle(parse(&text)?, input)
}

fn parse(text: &[u8]) -> Result<Config, Failure> {
    serde_json::from_slice(text).map_err(|error| Failure::Config(error.to_string()))
}

fn line(input: &mut dyn BufRead) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    let read = input.take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
    read.map_err(|source| Failure::Read { path: "standard input".into(), source })?;
    if line.is_empty() {
        return Err(Failure::Config("standard input ended before it said anything".to_owned()));
    }
    Ok(line)
}

fn settle(config: Config, input: &mut dyn BufRead) -> Result<Settings, Failure> {
    let server = match config.server {
        Some(server) => server,
        None => slurm_procid()?,
    };
    let refuse = |text: String| Err(Failure::Config(text));
    if config.servers == 0 || server >= config.servers {
        return refuse(format!("server {server} of {} servers: numbers go from 0", config.servers));
    }
    if config.targets == 0 || config.targets > MAX_TARGETS {
        return refuse(format!("{} targets: a server has 1 to {MAX_TARGETS}", config.targets));
    }
    if let Some(threads) = config.threads.filter(|threads| !(1..=MAX_TARGETS).contains(threads)) {
        return refuse(format!(
            "threads {threads}: 1 to {MAX_TARGETS} are possible, of which each target uses one at most"
        ));
    }
    if config.slice_us != 0 && !(100..=100_000).contains(&config.slice_us) {
        return refuse(format!("slice_us {}: 0, or 100 to 100000 are possible", config.slice_us));
    }
    if let Some(core) = config.cores.iter().find(|core| **core >= CpuSet::MAX_CPU) {
        return refuse(format!("cores: {core} is none: they go from 0 to {}", CpuSet::MAX_CPU - 1));
    }
    if !(100..=600_000).contains(&config.membership_lease_ms) {
        return refuse(format!("membership_lease_ms {}: 100 to 600000 are possible", config.membership_lease_ms));
    }
    let tier = TiersConfig::from_str(&config.tier)?;
    let secret = match (&config.secret, &config.secret_file) {
        (Some(secret), None) => secret.0,
        (None, Some(path)) => read_secret(path)?,
        _ => return refuse("either secret or secret_file is needed".to_owned()),
    };
    let credentials = Credentials::new(config.system.0, secret);
    let is_introducer = server == config.introducer;
    let leader = match &config.leader {
        _ if is_introducer => Vec::new(),
        Some(leader) => leader.clone(),
        None => {
            let parsed: Result<LeaderLine, _> = serde_json::from_slice(&line(input)?);
            parsed.map_err(|error| Failure::Config(format!("second line: {error}")))?.leader
        }
    };
    let leader = leader.iter().map(|text| text.parse().map_err(|error| Failure::Config(format!("leader: {error}"))));
    let leader = leader.collect::<Result<Vec<_>, _>>()?;
    if !is_introducer && leader.is_empty() {
        return refuse(format!("leader: server {server} needs server {}'s control addresses", config.introducer));
    }
    Ok(Settings { config, server, tier, credentials, leader })
}

fn slurm_procid() -> Result<u32, Failure> {
    let found = std::env::var("SLURM_PROCID").ok().and_then(|text| text.parse().ok());
    found.ok_or_else(|| Failure::Config("server is null and there is no SLURM_PROCID: give the server's number".into()))
}

fn private(path: &Path, file: &File) -> Result<(), Failure> {
    let meta = file.metadata().map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    if meta.mode() & 0o077 != 0 || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(Failure::Exposed { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

fn read_secret(path: &Path) -> Result<[u8; 32], Failure> {
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    private(path, &file)?;
    let mut bytes = Vec::new();
    file.take(128).read_to_end(&mut bytes).map_err(failed)?;
    if let Ok(secret) = <[u8; 32]>::try_from(&bytes[..]) {
        return Ok(secret);
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Hex::<32>::try_from(text).map(|hex| hex.0).map_err(|why| Failure::Config(format!("{}: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "00000000000000000000000000000000";

    fn text(more: &str) -> String {
        let secret = format!("{ZEROS}{ZEROS}");
        let base = format!(r#""name":"t","system":"{ZEROS}","secret":"{secret}","servers":2,"directory":"/tmp/x""#);
        format!("{{{base},{more}}}\n")
    }

    fn settings(more: &str, second: &str) -> Result<Settings, Failure> {
        read(Path::new("-"), &mut (text(more) + second).as_bytes())
    }

    #[test]
    fn a_launcher_s_lines_are_understood() {
        let good = r#""server":0,"targets":2,"tier":"ram:1G","leader":null,"interface":null,"detached":false"#;
        let first = settings(good, "").ok().unwrap();
        assert_eq!((first.server, first.config.targets, first.config.membership_lease_ms), (0, 2, 2000));
        let good = r#""server":1,"targets":2,"tier":"ram:1G","leader":null,"plant":"split-commit""#;
        let second = settings(good, "{\"leader\":[\"tcp:127.0.0.1:1\"]}\n").ok().unwrap();
        assert_eq!(second.leader.len(), 1);
        assert_eq!(second.config.plant, Some(Plant::SplitCommit));
        assert!(!format!("{:?}", second.config).contains("00000"), "the secret shows");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, word) in [
            (r#""server":2,"targets":1,"tier":"ram:1G""#, "server 2"),
            (r#""server":0,"targets":0,"tier":"ram:1G""#, "targets"),
            (r#""server":0,"targets":1,"tier":"disk:1G""#, "tier"),
            (r#""server":0,"targets":1,"tier":"ram:1G","colour":1"#, "colour"),
            (r#""server":1,"targets":1,"tier":"ram:1G","leader":[]"#, "leader"),
            (r#""server":1,"targets":1,"tier":"ram:1G""#, "standard input"),
            (r#""server":0,"targets":1,"tier":"ram:1G","plant":"x""#, "split-commit"),
            (r#""server":0,"targets":1,"tier":"ram:1G","membership_lease_ms":1"#, "membership_lease_ms"),
            (r#""server":0,"targets":2,"tier":"ram:1G","threads":99999"#, "threads 99999: 1 to 1024"),
            (r#""server":0,"targets":2,"tier":"ram:1G","threads":0"#, "threads 0"),
            (r#""server":0,"targets":1,"tier":"ram:1G","slice_us":99"#, "100 to 100000"),
            (r#""server":0,"targets":1,"tier":"ram:1G","spin":"often""#, "briefly"),
            (r#""server":0,"targets":1,"tier":"ram:1G","cores":[0,99999]"#, "99999"),
        ] {
            let error = settings(more, "").err().expect(more).to_string();
            assert!(error.contains(word), "{more}: {error}");
        }
    }
}
