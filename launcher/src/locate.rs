//! Where the other parts of Talea lie: beside this program in a build tree, under the same prefix when installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use talea_slurm::Family;

use crate::failure::Failure;

/// This program.
pub(crate) fn own() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(Failure::io("finding", "/proc/self/exe"))
}

/// The server program.
pub(crate) fn server() -> Result<PathBuf, Failure> {
    find("talead", "the server program talead", &["", "../libexec/talea", "../sbin"])
}

/// The MPI-IO driver for a family of MPIs.
pub(crate) fn driver(family: Family) -> Result<PathBuf, Failure> {
    find(family.driver(), "the MPI-IO driver", &["", "../lib/talea", "../lib"])
}

fn find(name: &str, what: &'static str, places: &[&str]) -> Result<PathBuf, Failure> {
    let own = own()?;
    let directory = own.parent().unwrap_or(Path::new("/"));
    let candidates: Vec<PathBuf> = places.iter().map(|place| directory.join(place).join(name)).collect();
    if let Some(found) = candidates.iter().find(|path| path.is_file()) {
        return found.canonicalize().map_err(Failure::io("resolving", found));
    }
    let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(Failure::Missing { what, looked: looked.join(", ") })
}

/// `LD_PRELOAD` with the driver last: interposers that were there first (Darshan) keep seeing the calls.
pub(crate) fn preload(present: Option<OsString>, driver: &Path) -> OsString {
    let Some(mut list) = present.filter(|list| !list.is_empty()) else { return driver.into() };
    let named = list.to_string_lossy().split([':', ' ']).any(|entry| Path::new(entry) == driver);
    if !named {
        list.push(":");
        list.push(driver);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_goes_last_and_once() {
        let driver = Path::new("/opt/libtalea_mpiio.so");
        assert_eq!(preload(None, driver), "/opt/libtalea_mpiio.so");
        let list = preload(Some("/d/libdarshan.so".into()), driver);
        assert_eq!(list, "/d/libdarshan.so:/opt/libtalea_mpiio.so");
        assert_eq!(preload(Some(list.clone()), driver), list);
    }
}
