//! Where a system's files lie on a node's media: a private directory below the tier's path, one a system.
//!
//! A system that does not persist takes it away at its end; one that persists leaves it with a note of which servers were here.
//! Must never touch a directory that is not this user's, or that does not carry the note it should.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use talea_slurm::launch::Kept;

use crate::failure::Failure;
use crate::tier;

const NOTE: &str = "talea.json";

/// What a directory's note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Version of the note: 1.
    pub(crate) version: u32,
    /// Name under which the system persists; `None`: it goes with its launch.
    pub(crate) persist: Option<String>,
    /// Id of the system.
    pub(crate) system: String,
    /// First server of this node.
    pub(crate) first_server: u32,
    /// Servers of this node; 0 in a note of an earlier version: all of the system's if it had one node.
    #[serde(default)]
    pub(crate) own_servers: u32,
    /// Servers of the system.
    pub(crate) servers: u32,
    /// Targets a server.
    pub(crate) targets: u32,
    /// Capacity of the system in bytes.
    pub(crate) capacity_bytes: u64,
    /// Name of each server's node.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// Slurm's number of the job that wrote last, if there was one.
    pub(crate) job: Option<u32>,
    /// The process that uses it.
    pub(crate) user: Option<talea_client::system::ProcessMark>,
}

/// A system's directory on this node's media.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name below each path of the tier.
    pub(crate) directory: String,
    pub(crate) paths: Vec<PathBuf>,
    /// Paths of the tier that were not there before.
    made: Vec<PathBuf>,
    persists: bool,
}

/// Name of the directory of a system below a tier's path.
fn directory_of(name: &str) -> String {
    format!("talea-{}-{name}", rustix::process::geteuid().as_raw())
}

/// What this node's media keep under a name.
pub(crate) fn kept(tier: &str, name: &str) -> Result<Option<Kept>, Failure> {
    let mut notes = vec![];
    for path in tier::paths(tier) {
        let directory = path.join(directory_of(name));
        notes.push((note(&directory)?.filter(|note| note.persist.as_deref() == Some(name)), directory));
    }
    let Some(note) = notes.iter().find_map(|(note, _)| note.clone()) else { return Ok(None) };
    // Of two tiers one may not be mounted, or be another one: to begin it anew would be the end of what is kept.
    if let Some((_, directory)) = notes.iter().find(|(other, _)| other.as_ref().is_none_or(|o| o.system != note.system))
    {
        return Err(Failure::Usage(format!(
            "{} does not hold its part of what is kept as '{name}': is it mounted? Nothing was changed",
            directory.display()
        )));
    }
    if note.user.as_ref().is_some_and(talea_client::system::ProcessMark::is_alive) || runs_here(&note) {
        return Err(Failure::Usage(format!(
            "the system that persists as '{name}' is running: use `talea attach {name}`"
        )));
    }
    let Note { system, first_server, own_servers, servers, targets, capacity_bytes, hosts, .. } = note.clone();
    let own_servers = match own_servers {
        0 if servers > 1 && note.job.is_some() => {
            let text =
                format!("'{name}' was kept by an earlier Talea, on several nodes: go on with that one, or forget it");
            return Err(Failure::Usage(text));
        }
        0 => servers,
        own => own,
    };
    Ok(Some(Kept { system, first_server, own_servers, servers, targets, capacity_bytes, hosts }))
}

/// Whether a system's media may be kept under a name: nothing else may be.
pub(crate) fn may_keep(tier: &str, name: &str) -> Result<(), Failure> {
    let taken = tier::paths(tier).into_iter().map(|path| path.join(directory_of(name))).find(|path| path.exists());
    match taken {
        Some(path) => Err(Failure::Usage(format!("something is kept as '{name}' already, in {}", path.display()))),
        None if crate::names::is_plain(name) => Ok(()),
        None => Err(Failure::Usage(format!("'{name}' is not a name: letters, digits, -, _ and . make one"))),
    }
}

/// Keeps the directory of a system that has ended under a name.
pub(crate) fn keep(directory: &Path, name: &str) -> Result<(), Failure> {
    let Some(note) = note(directory)? else { return Ok(()) };
    write(directory, &Note { persist: Some(name.to_owned()), user: None, ..note })?;
    let kept = directory.with_file_name(directory_of(name));
    fs::rename(directory, &kept).map_err(Failure::io("renaming", directory))
}

/// The note of a directory of ours, if it has one.
pub(crate) fn note(directory: &Path) -> Result<Option<Note>, Failure> {
    let Ok(meta) = fs::symlink_metadata(directory) else { return Ok(None) };
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        let text = format!("{} is not a directory that only you may enter: remove or rename it", directory.display());
        return Err(Failure::Usage(text));
    }
    let path = directory.join(NOTE);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Failure::Usage(format!("{} is damaged ({error}): remove its directory", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io("reading", path)(error)),
    }
}

impl Place {
    /// Makes or finds the directories for a system below a tier's paths and writes their note; `None` for memory alone.
    pub(crate) fn prepare(tier: &str, note: &Note) -> Result<Option<Self>, Failure> {
        let tiers = tier::paths(tier);
        let short = &note.system[..note.system.len().min(12)];
        let directory = match &note.persist {
            Some(name) => directory_of(name),
            None => directory_of(&format!("{short}-{}", note.first_server)),
        };
        let paths = tiers.iter().map(|tier| tier.join(&directory)).collect();
        let made = tiers.iter().filter(|tier| !tier.exists()).map(|tier| tier.to_path_buf()).collect();
        let place = Self { directory, paths, made, persists: note.persist.is_some() };
        for (tier, path) in tiers.iter().zip(&place.paths) {
            make_tier(tier)?;
            match fs::DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => _ = self::note(path)?,
                Err(error) => return Err(Failure::io("making", path)(error)),
            }
            // What was kept before and goes on was looked at when all nodes had said what they keep.
            let goes_on = self::note(path)?
                .is_some_and(|old| (old.system, old.first_server) == (note.system.clone(), note.first_server));
            if note.persist.is_some() && !goes_on {
                alone(path, note)?;
            }
            write(path, note)?;
        }
        Ok((!place.paths.is_empty()).then_some(place))
    }

    /// What the user should know: a mistyped path is made as well as any.
    pub(crate) fn notes(&self) -> Vec<String> {
        let goes = if self.persists { "" } else { ", and goes with the system" };
        self.made.iter().map(|path| format!("{} was not there: it is made{goes}", path.display())).collect()
    }

    /// The servers have ended. Takes the directories away unless the system persists.
    pub(crate) fn release(&self) {
        for path in &self.paths {
            if !self.persists {
                let _ = fs::remove_dir_all(path);
            } else if let Ok(Some(note)) = note(path) {
                let _ = write(path, &Note { user: None, ..note });
            }
        }
        // Others may use them by now: only empty ones go.
        for path in &self.made {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Makes a tier's directory if it is missing; what it lies in must be there, for else something is not mounted or mistyped.
fn make_tier(tier: &Path) -> Result<(), Failure> {
    let above = tier.parent().unwrap_or(tier);
    if !above.is_dir() {
        let text =
            format!("there is no {} for the tier's {}: is it mounted on this node?", above.display(), tier.display());
        return Err(Failure::Usage(text));
    }
    if fs::metadata(tier).is_ok_and(|meta| !meta.is_dir()) {
        let text = format!(
            "{} is no directory: systems that the launcher starts keep files, so name a directory on a file system of that device \
             (DAX for pmem)",
            tier.display()
        );
        return Err(Failure::Usage(text));
    }
    match fs::create_dir(tier) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Failure::io("making", tier)(error)),
        _ => Ok(()),
    }
}

/// Makes sure that no other node of this system has the same directory: under one name each needs its own. Both leave their mark before
/// they look, so that one of them sees the other.
fn alone(directory: &Path, note: &Note) -> Result<(), Failure> {
    let mark = |first_server: u32| format!(".server-{first_server}");
    let own = directory.join(mark(note.first_server));
    fs::write(&own, &note.system).map_err(Failure::io("writing", &own))?;
    let entries = fs::read_dir(directory).map_err(Failure::io("reading", directory))?;
    for entry in entries.flatten() {
        let is_other = entry.file_name().to_string_lossy().starts_with(".server-") && entry.path() != own;
        if is_other && fs::read(entry.path()).is_ok_and(|system| system == note.system.as_bytes()) {
            return Err(Failure::Usage(format!(
                "{} is seen by several nodes: a system that persists needs a tier that each node has of its own",
                directory.display()
            )));
        }
    }
    Ok(())
}

fn write(directory: &Path, note: &Note) -> Result<(), Failure> {
    let new = directory.join(".talea.json.new");
    let bytes = serde_json::to_vec_pretty(note).unwrap_or_default();
    fs::write(&new, bytes).map_err(Failure::io("writing", &new))?;
    fs::rename(&new, directory.join(NOTE)).map_err(Failure::io("renaming", new))
}

/// Whether a system of this node uses what a note stands for: servers of `talea up` belong to no other process, and may come back.
fn runs_here(note: &Note) -> bool {
    let all = talea_client::system::RuntimeDir::from_env().and_then(|runtime| runtime.all()).unwrap_or_default();
    let serves = |system: &talea_client::System| system.file.is_running() && !system.file.servers.is_empty();
    let uses = |system: &talea_client::System| serves(system) || crate::restart::may_come_back(system);
    all.iter().any(|system| system.file.system == note.system && uses(system))
}

/// Directories of this user below a tier's path whose user is dead, with their notes.
pub(crate) fn unused(tier: &Path) -> Vec<(PathBuf, Note)> {
    let mine = format!("talea-{}-", rustix::process::geteuid().as_raw());
    let entries = fs::read_dir(tier).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine));
    let notes = ours.filter_map(|entry| Some((entry.path(), note(&entry.path()).ok()??)));
    let is_used =
        |note: &Note| note.user.as_ref().is_some_and(talea_client::system::ProcessMark::is_alive) || runs_here(note);
    notes.filter(|(_, note)| !is_used(note)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_of_a_system_that_persists_do_not_share_its_media() {
        let directory = tempfile::tempdir().unwrap();
        let tier = format!("pmem:{}", directory.path().display());
        let one = Note { first_server: 0, ..a_note(Some("kept")) };
        let two = Note { first_server: 1, ..a_note(Some("kept")) };
        Place::prepare(&tier, &one).unwrap();
        let refused = Place::prepare(&tier, &two).err().unwrap().to_string();
        assert!(refused.contains("seen by several nodes"), "{refused}");
        // The same node goes on later.
        let later = tempfile::tempdir().unwrap();
        let tier = format!("pmem:{}", later.path().display());
        Place::prepare(&tier, &two).unwrap();
        Place::prepare(&tier, &two).unwrap();
        // Without a name of its own each has a directory of its own.
        let shared = tempfile::tempdir().unwrap();
        let tier = format!("pmem:{}", shared.path().display());
        Place::prepare(&tier, &Note { first_server: 0, ..a_note(None) }).unwrap();
        Place::prepare(&tier, &Note { first_server: 1, ..a_note(None) }).unwrap();
    }

    fn a_note(persist: Option<&str>) -> Note {
        Note {
            version: 1,
            persist: persist.map(str::to_owned),
            system: "0123456789abcdef0123456789abcdef".into(),
            first_server: 3,
            own_servers: 1,
            servers: 4,
            targets: 1,
            capacity_bytes: 1 << 30,
            hosts: vec![],
            job: None,
            user: Some(talea_client::system::ProcessMark::of_self()),
        }
    }

    #[test]
    fn what_persists_is_found_again_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let tier = format!("pmem:{}", dir.path().display());
        assert!(Place::prepare("ram", &a_note(None)).unwrap().is_none());
        let place = Place::prepare(&tier, &a_note(None)).unwrap().unwrap();
        assert!(unused(dir.path()).is_empty(), "its user is alive");
        place.release();
        assert!(!place.paths[0].exists() && dir.path().exists());
        let inner = dir.path().join("made");
        let place = Place::prepare(&format!("nvme:{}", inner.display()), &a_note(None)).unwrap().unwrap();
        assert!(inner.exists());
        assert_eq!(place.made, std::slice::from_ref(&inner));
        place.release();
        assert!(!inner.exists(), "what was not there before is not there after");
        let mistyped = format!("nvme:{}/not/mounted", dir.path().display());
        let refused = Place::prepare(&mistyped, &a_note(None)).err().unwrap().to_string();
        assert!(refused.contains("is it mounted"), "{refused}");
        let refused = Place::prepare("nvme:/dev/null", &a_note(None)).err().unwrap().to_string();
        assert!(refused.contains("is no directory"), "{refused}");

        let place = Place::prepare(&tier, &a_note(Some("sim"))).unwrap().unwrap();
        assert_eq!(fs::metadata(&place.paths[0]).unwrap().mode() & 0o777, 0o700);
        assert!(kept(&tier, "sim").is_err(), "it is running");
        place.release();
        let found = kept(&tier, "sim").unwrap().unwrap();
        assert_eq!((found.first_server, found.servers), (3, 4));
        assert_eq!(kept(&tier, "other").unwrap(), None);
        assert_eq!(unused(dir.path()).len(), 1);
    }

    #[test]
    fn another_ones_directory_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let tier = format!("pmem:{}", dir.path().display());
        let place = Place::prepare(&tier, &a_note(Some("sim"))).unwrap().unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&place.paths[0], fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Place::prepare(&tier, &a_note(Some("sim"))).is_err());
    }
}
