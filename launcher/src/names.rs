//! Names of systems that live in a Slurm job, so that the user's other jobs find them: `NAME` → job; and of those that node-local
//! media keep: `NAME` → nodes. One small file a name in the user's state directory, which nodes share where they share the home
//! directory. No address and no secret is in it, and without it only words are missing.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

#[derive(Serialize, Deserialize)]
struct Entry {
    job: u32,
}

/// A name that goes with this value.
pub(crate) struct Registered(PathBuf);

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn directory() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|path| path.join("talea"))
}

/// Whether a name can be a file's, too.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

fn path(name: &str) -> Option<PathBuf> {
    // A name is also a file's.
    directory().filter(|_| is_plain(name)).map(|directory| directory.join(format!("{name}.json")))
}

/// Says which job a name is to be found in.
pub(crate) fn register(name: &str, job: u32) -> Result<Option<Registered>, Failure> {
    let Some(path) = path(name) else { return Ok(None) };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Failure::io("making", parent))?;
    }
    let bytes = serde_json::to_vec(&Entry { job }).unwrap_or_default();
    fs::write(&path, bytes).map_err(Failure::io("writing", &path))?;
    Ok(Some(Registered(path)))
}

/// Where a system is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptAt {
    /// Its id.
    pub(crate) system: String,
    /// Tier as the user gave it.
    pub(crate) tier: String,
    /// Name of each server's node.
    pub(crate) hosts: Vec<String>,
}

impl KeptAt {
    /// Each node once.
    pub(crate) fn nodes(&self) -> Vec<String> {
        let mut nodes: Vec<String> = self.hosts.iter().filter(|host| !host.is_empty()).cloned().collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

/// Notes where a system is kept.
pub(crate) fn note_kept(name: &str, kept: &KeptAt) -> Result<(), Failure> {
    let Some(path) = kept_path(name) else { return Ok(()) };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Failure::io("making", parent))?;
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let bytes = serde_json::to_vec(kept).unwrap_or_default();
    fs::write(&new, bytes).map_err(Failure::io("writing", &new))?;
    fs::rename(&new, &path).map_err(Failure::io("renaming", new))
}

/// Where a system of this name is kept, as far as is known here.
pub(crate) fn kept_at(name: &str) -> Option<KeptAt> {
    serde_json::from_slice(&fs::read(kept_path(name)?).ok()?).ok()
}

/// All systems of this user that are kept, by name, as far as is known here.
pub(crate) fn kept() -> Vec<(String, KeptAt)> {
    let entries = directory().and_then(|path| fs::read_dir(path.join("kept")).ok()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut kept: Vec<(String, KeptAt)> = names
        .filter_map(|name| {
            let name = name.strip_suffix(".json")?;
            Some((name.to_owned(), kept_at(name)?))
        })
        .collect();
    kept.sort_by(|(a, _), (b, _)| a.cmp(b));
    kept
}

/// Their tiers.
pub(crate) fn kept_tiers() -> Vec<String> {
    kept().into_iter().map(|(_, kept)| kept.tier).collect()
}

/// A node keeps nothing of this name any more (`None`: no node does). Returns those that still do.
pub(crate) fn forget_kept(name: &str, node: Option<&str>) -> Vec<String> {
    let Some(mut kept) = kept_at(name) else { return vec![] };
    kept.hosts.iter_mut().filter(|host| node.is_none_or(|node| **host == node)).for_each(String::clear);
    let nodes = kept.nodes();
    if nodes.is_empty() {
        let _ = kept_path(name).map(fs::remove_file);
    } else if let Err(error) = note_kept(name, &kept) {
        eprintln!("talea: {error}");
    }
    nodes
}

fn kept_path(name: &str) -> Option<PathBuf> {
    let path = path(name)?;
    Some(path.parent()?.join("kept").join(path.file_name()?))
}

/// The job that a name is to be found in.
pub(crate) fn job_of(name: &str) -> Option<u32> {
    let bytes = fs::read(path(name)?).ok()?;
    serde_json::from_slice::<Entry>(&bytes).ok().map(|entry| entry.job)
}
