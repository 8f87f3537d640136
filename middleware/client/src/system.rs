//! Where systems live on this node, and the file that tells programs how to reach one.
//!
//! Owns the runtime directory: `RUNTIME/NAME/` holds `system.json` and `secret` of one system, and its servers' sockets. The
//! launcher writes, everybody else reads. Must never trust a directory or file that another user could have made or can read
//! (docs/design.md §9), and never remove what a living process still uses.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod error;
mod process;

pub use error::SystemError;
pub use process::ProcessMark;

/// Version of `system.json`.
pub const FILE_VERSION: u32 = 1;
/// Longest name of a system in bytes: sockets' paths in its directory must fit the kernel's 108 bytes.
pub const MAX_NAME_BYTES: usize = 40;
/// Longest path of the runtime directory in bytes, for the same reason.
pub const MAX_RUNTIME_BYTES: usize = 48;
/// Names the runtime directory.
pub const RUNTIME_VARIABLE: &str = "TALEA_RUNTIME_DIR";
/// Names the system that a program belongs to.
pub const SYSTEM_VARIABLE: &str = "TALEA_SYSTEM";
/// Slurm's number of the job that a program belongs to.
const JOB_VARIABLE: &str = "SLURM_JOB_ID";

const FILE_NAME: &str = "system.json";
const SECRET_NAME: &str = "secret";
const SECRET_BYTES: usize = 32;

/// Which fabric the data plane uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FabricPolicy {
    /// Rings on the same node, libfabric between nodes.
    #[default]
    Auto,
    /// Rings only.
    Ring,
    /// libfabric only.
    #[serde(alias = "tcp")]
    Libfabric,
}

/// One server as its launcher knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerEntry {
    /// Its number.
    pub id: u32,
    /// Addresses of its control plane, in the fabric's text form.
    pub control: Vec<String>,
    /// Its process, if the launcher knows it.
    #[serde(default)]
    pub process: Option<ProcessMark>,
}

/// Content of `system.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemFile {
    /// [`FILE_VERSION`].
    pub version: u32,
    /// Name of the system, which is also its directory's.
    pub name: String,
    /// Id: 32 hexadecimal digits.
    pub system: String,
    /// Fabric of the data plane.
    #[serde(default)]
    pub fabric: FabricPolicy,
    /// Its servers; empty while they start. Those of this node come first.
    #[serde(default)]
    pub servers: Vec<ServerEntry>,
    /// The launcher's process.
    #[serde(default)]
    pub launcher: Option<ProcessMark>,
    /// True if the servers live on without their launcher (`talea up`).
    #[serde(default)]
    pub detached: bool,
    /// Containers that the launcher makes at the start.
    #[serde(default)]
    pub containers: Vec<String>,
    /// Directories on this node's media that go with the system.
    #[serde(default)]
    pub media: Vec<PathBuf>,
}

impl SystemFile {
    /// The id as bytes.
    pub fn id(&self) -> Option<[u8; 16]> {
        let number = u128::from_str_radix(&self.system, 16).ok().filter(|_| self.system.len() == 32)?;
        Some(number.to_be_bytes())
    }

    /// Whether the launcher or any server is alive, as far as this node can tell: processes of other nodes count as alive.
    pub fn is_running(&self) -> bool {
        let servers = self.servers.iter().filter_map(|server| server.process.as_ref());
        self.launcher.iter().chain(servers).any(ProcessMark::is_alive)
    }
}

/// A system of this node: its directory, file and secret.
#[derive(Clone)]
pub struct System {
    /// Its directory.
    pub directory: PathBuf,
    /// Its file.
    pub file: SystemFile,
    secret: [u8; SECRET_BYTES],
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System").field("directory", &self.directory).field("file", &self.file).finish_non_exhaustive()
    }
}

impl System {
    /// The system of this name, or (`None`) the one of `$TALEA_SYSTEM`, or the only one that runs here.
    pub fn find(name: Option<&str>) -> Result<Self, SystemError> {
        RuntimeDir::from_env()?.find(name)
    }

    /// Reads a system's directory that need not lie in the runtime directory of this node; it must be as private.
    pub fn read(directory: &Path) -> Result<Self, SystemError> {
        check_private(directory, true)?;
        let path = directory.join(FILE_NAME);
        let bytes = read_private(&path, 1 << 20)?;
        let bad = |problem: String| SystemError::BadFile { path: path.clone(), problem };
        let file: SystemFile = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if file.version != FILE_VERSION {
            return Err(SystemError::Version { path, theirs: file.version });
        }
        if file.id().is_none() {
            return Err(bad("its system id is not 32 hexadecimal digits".to_owned()));
        }
        let path = directory.join(SECRET_NAME);
        let secret = read_private(&path, SECRET_BYTES)?;
        let secret =
            secret.try_into().map_err(|_| SystemError::BadFile { path, problem: "not 32 bytes".to_owned() })?;
        Ok(System { directory: directory.to_owned(), file, secret })
    }

    /// A system that runs elsewhere and has no directory here yet ([`RuntimeDir::install`]).
    pub fn foreign(file: SystemFile, secret: [u8; SECRET_BYTES]) -> Self {
        Self { directory: PathBuf::new(), file, secret }
    }

    /// The secret; keep it out of arguments, environments and logs.
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// Writes the file anew; readers see the old or the new one, whole.
    pub fn write(&self) -> Result<(), SystemError> {
        let bytes = serde_json::to_vec_pretty(&self.file).map_err(|error| SystemError::BadFile {
            path: self.directory.join(FILE_NAME),
            problem: error.to_string(),
        })?;
        let new = self.directory.join(format!(".{FILE_NAME}.{}", std::process::id()));
        write_private(&new, &bytes)?;
        fs::rename(&new, self.directory.join(FILE_NAME)).map_err(|error| SystemError::io("replacing", &new, error))
    }

    /// Removes the directory with everything in it. For the launcher, when all servers have ended.
    pub fn remove(self) -> Result<(), SystemError> {
        remove(&self.directory)
    }
}

/// The directory under which this user's systems of this node live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// `$TALEA_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/talea` if `$XDG_RUNTIME_DIR` exists, else `/tmp/talea-UID`. In a Slurm job
    /// `$XDG_RUNTIME_DIR` does not count: it comes from the login node and belongs to a login session.
    pub fn from_env() -> Result<Self, SystemError> {
        if let Some(path) = std::env::var_os(RUNTIME_VARIABLE).filter(|path| !path.is_empty()) {
            return Self::at(path);
        }
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        if let (Some(path), None) = (session, job_of_env()) {
            return Self::at(path.join("talea"));
        }
        Self::at(format!("/tmp/talea-{}", rustix::process::geteuid().as_raw()))
    }

    /// This directory, which need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, SystemError> {
        let path = path.into();
        if !path.is_absolute() || path.as_os_str().len() > MAX_RUNTIME_BYTES {
            let problem = format!("it must be an absolute path of at most {MAX_RUNTIME_BYTES} bytes");
            return Err(SystemError::Directory { path, problem });
        }
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a system's directory with a fresh id and secret, and a file that names no server yet but this process as its
    /// launcher. What a dead system of the same name left is removed.
    pub fn create(&self, name: &str) -> Result<System, SystemError> {
        check_name(name)?;
        let (mut id, mut secret) = ([0; 16], [0; SECRET_BYTES]);
        getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)).map_err(|_| SystemError::Random)?;
        let file = SystemFile {
            version: FILE_VERSION,
            name: name.to_owned(),
            system: format!("{:032x}", u128::from_be_bytes(id)),
            fabric: FabricPolicy::Auto,
            servers: vec![],
            launcher: Some(ProcessMark::of_self()),
            detached: false,
            containers: vec![],
            media: vec![],
        };
        self.put(file, secret)
    }

    /// Makes the directory of a system that was begun on another node, whose launcher sent its file and secret. False: it is
    /// there already, because this node shares the directory with another one, or the launcher runs here.
    pub fn install(&self, file: SystemFile, secret: [u8; SECRET_BYTES]) -> Result<(System, bool), SystemError> {
        check_name(&file.name)?;
        match self.load(&file.name) {
            Ok(found) if found.file.system == file.system && found.secret == secret => return Ok((found, false)),
            _ => {}
        }
        let file = SystemFile { launcher: Some(ProcessMark::of_self()), ..file };
        match self.put(file.clone(), secret) {
            // Another node that shares the directory was faster.
            Err(SystemError::Exists { .. } | SystemError::Io { .. })
                if self.load(&file.name).is_ok_and(|found| found.file.system == file.system) =>
            {
                Ok((self.load(&file.name)?, false))
            }
            made => Ok((made?, true)),
        }
    }

    fn put(&self, file: SystemFile, secret: [u8; SECRET_BYTES]) -> Result<System, SystemError> {
        make_private(&self.0)?;
        let name = file.name.clone();
        let name = name.as_str();
        let directory = self.0.join(name);
        // Filled under another name, so that whoever finds the directory finds all of it.
        let hidden = self.0.join(format!(".new-{name}-{}", std::process::id()));
        let system = System { directory: hidden.clone(), file, secret };
        make_private(&hidden)?;
        write_private(&hidden.join(SECRET_NAME), &secret)?;
        system.write()?;
        if directory.symlink_metadata().is_ok() {
            let cleared = match self.load(name) {
                Ok(found) if found.file.is_running() => Err(SystemError::Exists { name: name.to_owned() }),
                Ok(_) => remove(&directory),
                Err(error) => Err(error),
            };
            cleared.inspect_err(|_| drop(fs::remove_dir_all(&hidden)))?;
        }
        fs::rename(&hidden, &directory).map_err(|error| {
            let _ = fs::remove_dir_all(&hidden);
            SystemError::io("naming", &directory, error)
        })?;
        Ok(System { directory, ..system })
    }

    /// Loads a system by name, running or not.
    pub fn load(&self, name: &str) -> Result<System, SystemError> {
        check_name(name)?;
        let directory = self.0.join(name);
        let known = self.exists()? && directory.symlink_metadata().is_ok();
        if !known {
            return Err(SystemError::NotFound { name: name.to_owned(), running: self.names() });
        }
        System::read(&directory)
    }

    /// The systems that run, by name. Directories that cannot be read as one are left out.
    pub fn list(&self) -> Result<Vec<System>, SystemError> {
        let mut found = self.all()?;
        found.retain(|system| system.file.is_running());
        Ok(found)
    }

    /// As [`list`](Self::list), with those whose launcher and servers are all dead.
    pub fn all(&self) -> Result<Vec<System>, SystemError> {
        if !self.exists()? {
            return Ok(vec![]);
        }
        let mut found: Vec<System> = self.entries()?.into_iter().filter_map(|name| self.load(&name).ok()).collect();
        found.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        Ok(found)
    }

    /// The system of this name; `None`: the one of `$TALEA_SYSTEM`, else that of the Slurm job, else the only one that runs.
    pub fn find(&self, name: Option<&str>) -> Result<System, SystemError> {
        let variable = std::env::var(SYSTEM_VARIABLE).ok().filter(|name| !name.is_empty());
        // Within a Slurm job: the job's own, unless another one is named.
        let job = || job_of_env().filter(|name| self.0.join(name).is_dir());
        self.find_or(name, variable.or_else(job).as_deref())
    }

    fn find_or(&self, name: Option<&str>, variable: Option<&str>) -> Result<System, SystemError> {
        if let Some(name) = name.or(variable) {
            return self.load(name);
        }
        let mut running = self.list()?;
        match running.len() {
            0 => Err(SystemError::None),
            1 => Ok(running.remove(0)),
            _ => Err(SystemError::Several { names: running.into_iter().map(|system| system.file.name).collect() }),
        }
    }

    /// Removes what systems left whose launcher and servers are all dead. Returns their names.
    pub fn gc(&self) -> Result<Vec<String>, SystemError> {
        self.gc_but(|_| false)
    }

    /// As [`gc`](Self::gc), but leaves those dead systems that `may_come_back` names.
    pub fn gc_but(&self, may_come_back: impl Fn(&System) -> bool) -> Result<Vec<String>, SystemError> {
        if !self.exists()? {
            return Ok(vec![]);
        }
        let mut removed = vec![];
        for name in self.entries()? {
            // Half-made and half-removed directories carry their maker's process id at the end.
            if name.starts_with('.') {
                let pid = name.rsplit('-').next().and_then(|pid| pid.parse().ok());
                if pid.is_some_and(|pid| !process::exists(pid)) {
                    let _ = fs::remove_dir_all(self.0.join(&name));
                }
                continue;
            }
            // Only a file that says so makes a system dead: one that cannot be read may be of a newer release.
            if self.load(&name).is_ok_and(|system| !system.file.is_running() && !may_come_back(&system)) {
                remove(&self.0.join(&name))?;
                removed.push(name);
            }
        }
        Ok(removed)
    }

    fn exists(&self) -> Result<bool, SystemError> {
        match self.0.symlink_metadata() {
            Ok(_) => check_private(&self.0, true).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    fn names(&self) -> Vec<String> {
        self.list().unwrap_or_default().into_iter().map(|system| system.file.name).collect()
    }

    fn entries(&self) -> Result<Vec<String>, SystemError> {
        let entries = fs::read_dir(&self.0).map_err(|error| SystemError::io("listing", &self.0, error))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

/// Name of the system of a Slurm job, unless it was given another one.
pub fn job_name(job: u32) -> String {
    format!("job-{job}")
}

fn job_of_env() -> Option<String> {
    std::env::var(JOB_VARIABLE).ok()?.parse().ok().map(job_name)
}

fn check_name(name: &str) -> Result<(), SystemError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with(['.', '-']) || !name.chars().all(plain) {
        return Err(SystemError::Name { name: name.to_owned() });
    }
    Ok(())
}

/// Makes a directory that only its owner may enter; one that exists must be like that.
fn make_private(path: &Path) -> Result<(), SystemError> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => check_private(path, true),
        Err(_) if path.symlink_metadata().is_ok() => check_private(path, true),
        Err(error) => Err(SystemError::io("making", path, error)),
    }
}

fn check_private(path: &Path, directory: bool) -> Result<(), SystemError> {
    let found = path.symlink_metadata().map_err(|error| SystemError::io("looking at", path, error))?;
    let ours = rustix::process::geteuid().as_raw();
    let problem = if directory && !found.is_dir() || !directory && !found.is_file() {
        "it is not what it should be (a link or another kind of file)".to_owned()
    } else if found.uid() != ours {
        format!("it belongs to user {}, not to you ({ours})", found.uid())
    } else if found.mode() & 0o077 != 0 {
        format!("others may use it (mode {:o})", found.mode() & 0o777)
    } else {
        return Ok(());
    };
    Err(SystemError::Directory { path: path.to_owned(), problem })
}

fn read_private(path: &Path, limit_bytes: usize) -> Result<Vec<u8>, SystemError> {
    check_private(path, false)?;
    let bytes = fs::read(path).map_err(|error| SystemError::io("reading", path, error))?;
    if bytes.len() > limit_bytes {
        let problem = format!("{} bytes where at most {limit_bytes} can be", bytes.len());
        return Err(SystemError::BadFile { path: path.to_owned(), problem });
    }
    Ok(bytes)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SystemError> {
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(bytes)).map_err(|error| SystemError::io("writing", path, error))
}

/// Removes a system's directory; it disappears under its name at once.
fn remove(directory: &Path) -> Result<(), SystemError> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let hidden = directory.with_file_name(format!(".old-{name}-{}", std::process::id()));
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match fs::rename(directory, &hidden) {
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(SystemError::io("removing", directory, error)),
        Ok(()) => {}
    }
    fs::remove_dir_all(&hidden)
        .or_else(|error| if gone(&error) { Ok(()) } else { Err(error) })
        .map_err(|error| SystemError::io("removing", &hidden, error))
}

#[cfg(test)]
mod tests;
