//! Names of systems that live in a Slurm job, so that the user's other jobs find them: `NAME` → job. One small file a name in
//! the user's state directory, which nodes share where they share the home directory. No address and no secret is in it.

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

fn path(name: &str) -> Option<PathBuf> {
    // A name is also a file's.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
    directory().filter(|_| good).map(|directory| directory.join(format!("{name}.json")))
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

/// The job that a name is to be found in.
pub(crate) fn job_of(name: &str) -> Option<u32> {
    let bytes = fs::read(path(name)?).ok()?;
    serde_json::from_slice::<Entry>(&bytes).ok().map(|entry| entry.job)
}
