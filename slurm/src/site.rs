//! The site file: a centre's defaults and limits, in YAML. Unknown keys are errors, which point at their line.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use talea_model::size;
use thiserror::Error;

/// Where the site file lies unless `TALEA_SITE` or `--site` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/talea/site.yaml";

/// Capacity of a system where nobody says another, in bytes.
pub const DEFAULT_CAPACITY: u64 = 8 << 30;

/// Turns that the kernel takes a wish for, in microseconds.
const SLICES_US: std::ops::RangeInclusive<u32> = 100..=100_000;

/// Defaults and limits of a site.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Site {
    /// Servers of a system, outside of an allocation.
    pub servers: u32,
    /// Servers a node, inside of an allocation.
    pub servers_per_node: u32,
    /// Targets a server.
    pub targets_per_server: u32,
    /// Tier without its capacity: `ram`, `pmem:/path`, `nvme:/path`.
    pub tier: String,
    /// Capacity of a system; without it [`DEFAULT_CAPACITY`], or what the limit allows.
    pub capacity: Option<Capacity>,
    /// `auto`, `ring` or `tcp`.
    pub fabric: Fabric,
    /// Interface or address that servers listen on for other nodes. In an allocation the default is the address that a node
    /// reaches the launch node from; elsewhere loopback.
    pub interface: Option<String>,
    /// libfabric's provider between nodes; without one `tcp`.
    pub provider: Option<String>,
    /// Cores at the end of each node's list that are the servers' own; 0: all cores are shared.
    pub reserved_cores: u32,
    /// Whether the servers' waits may spin; without it if cores are free.
    pub spin: Option<Spin>,
    /// Threads of a server for its targets; without it as many as the cores are good for.
    pub threads: Option<u32>,
    /// Turn on a core that the servers' threads ask of the kernel, in microseconds; 0: none is asked for.
    pub slice_us: Option<u32>,
    /// Where servers show their counters to Prometheus: `off`, `unix` or `ADDRESS:PORT`.
    pub metrics: Option<String>,
    /// How long a silent server counts as a member, in milliseconds.
    pub membership_lease_ms: u64,
    /// How long a system may take to become ready, in milliseconds.
    pub ready_deadline_ms: u64,
    /// How long a system waits for its followers after the command's end, in milliseconds.
    pub linger_ms: u64,
    /// What users may ask for.
    pub limits: Limits,
}

/// What users may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most servers of a system.
    pub servers: u32,
    /// Most targets a server.
    pub targets_per_server: u32,
    /// Largest capacity of a system.
    pub capacity: Capacity,
}

/// Bytes, written with an IEC unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Capacity(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Text(String),
}

impl TryFrom<Text> for Capacity {
    type Error = size::BadSize;
    fn try_from(text: Text) -> Result<Self, size::BadSize> {
        match text {
            Text::Number(bytes) => Ok(Capacity(bytes)),
            Text::Text(text) => size::parse(&text).map(Capacity),
        }
    }
}

/// Which fabric same-node clients use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fabric {
    /// Rings on the same node, libfabric else.
    #[default]
    Auto,
    /// Rings only.
    Ring,
    /// libfabric tcp also on the same node.
    Tcp,
}

impl Fabric {
    /// Its name, as in the site file.
    pub fn name(self) -> &'static str {
        match self {
            Fabric::Auto => "auto",
            Fabric::Ring => "ring",
            Fabric::Tcp => "tcp",
        }
    }
}

/// Whether waits may spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spin {
    /// If cores are free.
    Auto,
    /// Never: they give way, and sleep.
    Never,
    /// For a short time before each sleep.
    Briefly,
    /// They sleep at once.
    Sleep,
}

impl Spin {
    /// Its name, as in the site file.
    pub fn name(self) -> &'static str {
        match self {
            Spin::Auto => "auto",
            Spin::Never => "never",
            Spin::Briefly => "briefly",
            Spin::Sleep => "sleep",
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self {
            servers: 1,
            servers_per_node: 1,
            targets_per_server: 1,
            tier: "ram".to_owned(),
            capacity: None,
            fabric: Fabric::Auto,
            interface: None,
            provider: None,
            metrics: None,
            reserved_cores: 0,
            spin: None,
            threads: None,
            slice_us: None,
            membership_lease_ms: 5_000,
            ready_deadline_ms: 30_000,
            linger_ms: 60_000,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { servers: 65_536, targets_per_server: 64, capacity: Capacity(u64::MAX) }
    }
}

/// A site file that cannot be used.
#[derive(Debug, Error)]
pub enum SiteError {
    /// Not readable.
    #[error("cannot read the site file {path}: {source} (name another one with --site or TALEA_SITE)")]
    Read {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not what a site file says; the text has the line.
    #[error("the site file {path} is wrong:\n{text}\n(docs/site.md lists every key)")]
    Parse {
        /// Its path.
        path: PathBuf,
        /// What and where.
        text: String,
    },
    /// A wish beyond a limit, or a value that makes no sense.
    #[error("{what} is {wanted}, but {bound} (limits of {path})")]
    Limit {
        /// Which setting.
        what: &'static str,
        /// Wanted value.
        wanted: String,
        /// The bound, as a sentence.
        bound: String,
        /// Where the limit stands.
        path: PathBuf,
    },
}

impl Site {
    /// Reads the site file: the one named, or [`DEFAULT_PATH`] if that exists, or the built-in defaults.
    pub fn read(named: Option<&Path>) -> Result<Self, SiteError> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SiteError::Read { path: path.to_owned(), source }),
        }
    }

    /// Parses a site file's text and checks that its own defaults keep its limits.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SiteError> {
        // A file of comments alone is a document without a value: all defaults.
        let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let site = if blank {
            Self::default()
        } else {
            serde_saphyr::from_str::<Self>(text)
                .map_err(|error| SiteError::Parse { path: path.to_owned(), text: error.to_string() })?
        };
        site.admit(site.servers, site.targets_per_server, site.capacity_bytes(), path)?;
        site.check(path)?;
        Ok(site)
    }

    /// Checks what no user can ask for otherwise.
    fn check(&self, path: &Path) -> Result<(), SiteError> {
        let refuse = |what, wanted: u32, bound| {
            Err(SiteError::Limit { what, wanted: wanted.to_string(), bound, path: path.to_owned() })
        };
        let most = self.limits.targets_per_server;
        match (self.threads, self.slice_us) {
            (Some(0), _) => refuse("threads", 0, "at least 1 is needed".to_owned()),
            (Some(threads), _) if threads > most => {
                refuse("threads", threads, format!("at most one a target, so {most}, is allowed"))
            }
            (_, Some(slice)) if !SLICES_US.contains(&slice) && slice != 0 => {
                let (least, most) = (SLICES_US.start(), SLICES_US.end());
                refuse("slice_us", slice, format!("0, or {least} to {most}, is possible"))
            }
            _ => Ok(()),
        }
    }

    /// Capacity of a system whose user does not say one, in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity.map_or(DEFAULT_CAPACITY.min(self.limits.capacity.0), |capacity| capacity.0)
    }

    /// Checks what a user asks for against the limits.
    pub fn admit(
        &self,
        servers: u32,
        targets_per_server: u32,
        capacity_bytes: u64,
        path: &Path,
    ) -> Result<(), SiteError> {
        let check = |what, wanted: u64, most: u64, shown: &dyn Fn(u64) -> String| {
            let bound = match wanted {
                0 => "at least 1 is needed".to_owned(),
                n if n > most => format!("at most {} is allowed", shown(most)),
                _ => return Ok(()),
            };
            Err(SiteError::Limit { what, wanted: shown(wanted), bound, path: path.to_owned() })
        };
        let plain = |n: u64| n.to_string();
        let iec = |n: u64| size::Iec(n).to_string();
        check("servers", servers.into(), self.limits.servers.into(), &plain)?;
        check("targets_per_server", targets_per_server.into(), self.limits.targets_per_server.into(), &plain)?;
        check("capacity", capacity_bytes, self.limits.capacity.0, &iec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Site, SiteError> {
        Site::parse(text, Path::new("site.yaml"))
    }

    #[test]
    fn defaults_hold_where_nothing_is_said() {
        assert_eq!(parse("# nothing\n").unwrap(), Site::default());
        let installed = parse(include_str!("../../packaging/site.yaml")).unwrap();
        assert_eq!(installed.metrics.as_deref(), Some("off"));
        let site = parse("provider: tcp;ofi_rxm\n").unwrap();
        assert_eq!(site.provider.as_deref(), Some("tcp;ofi_rxm"));
        let site = parse("servers: 2\ncapacity: 64GiB\nfabric: tcp\nlimits:\n  capacity: 1T\n").unwrap();
        assert_eq!((site.servers, site.capacity_bytes(), site.fabric), (2, 64 << 30, Fabric::Tcp));
        assert_eq!(site.limits.capacity.0, 1 << 40);
    }

    #[test]
    fn errors_point_at_the_line() {
        for (text, line, word) in [
            ("servers: 2\ncapcity: 1G\n", "2", "capcity"),
            ("servers: many\n", "1", "servers"),
            ("tier: ram\ncapacity: 12Q\n", "2", "12Q"),
            ("tier: [\n", "1", ""),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(word) && error.contains("site.yaml"), "{error}");
        }
    }

    #[test]
    fn how_servers_use_their_cores_is_checked() {
        let site = parse("spin: briefly\nthreads: 2\nslice_us: 0\n").unwrap();
        assert_eq!((site.spin.map(Spin::name), site.threads, site.slice_us), (Some("briefly"), Some(2), Some(0)));
        for (text, words) in [
            ("threads: 0\n", ["threads is 0", "at least 1"]),
            ("threads: 99999\n", ["threads is 99999", "one a target, so 64"]),
            ("slice_us: 99\n", ["slice_us is 99", "100 to 100000"]),
            ("servers: 1\nspin: often\n", ["line 2", "briefly"]),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }

    #[test]
    fn limits_bind() {
        let site = parse("limits:\n  servers: 4\n  capacity: 10G\n").unwrap();
        let path = Path::new("site.yaml");
        assert!(site.admit(4, 1, 1 << 30, path).is_ok());
        let error = site.admit(5, 1, 1, path).unwrap_err().to_string();
        assert!(error.contains("servers is 5") && error.contains("at most 4"), "{error}");
        assert!(site.admit(1, 1, 11 << 30, path).unwrap_err().to_string().contains("10.0 GiB"));
        assert!(site.admit(0, 1, 1, path).is_err());
        let small = parse("limits:\n  capacity: 1G\n").unwrap();
        assert_eq!(small.capacity_bytes(), 1 << 30, "a limit below the built-in default is one");
        assert!(parse("capacity: 2G\nlimits:\n  capacity: 1G\n").is_err());
        assert!(parse("servers: 9\nlimits:\n  servers: 4\n").is_err(), "a site's own defaults keep its limits");
    }

    #[test]
    fn a_named_file_must_exist() {
        assert!(matches!(Site::read(Some(Path::new("/nonexistent/site.yaml"))), Err(SiteError::Read { .. })));
    }
}
