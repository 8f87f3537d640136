//! Which family of MPI a command uses, and with it which MPI-IO driver serves it: a driver of another family would crash the
//! program. Only looks at files and names; must never run anything.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A family of MPIs with one ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `libmpi.so.12`: MPICH, Intel MPI, Cray MPICH, MVAPICH2.
    Mpich,
    /// `libmpi.so.40`.
    OpenMpi,
    /// `libmpi_abi.so.1`: the MPI-5 standard ABI.
    Standard,
}

/// The variable that overrides the choice: `mpich`, `openmpi` or `standard`.
pub const VARIABLE: &str = "TALEA_MPI";
/// Bytes of a program that are searched for the names of the libraries that it needs.
const SEARCHED_BYTES: u64 = 64 << 20;
/// Names in a program that tell its family; the first that is found decides.
const LIBRARIES: [(&[u8], Family); 5] = [
    (b"libmpi.so.40", Family::OpenMpi),
    (b"libhdf5_openmpi", Family::OpenMpi),
    (b"libmpi_abi.so", Family::Standard),
    (b"libmpich.so.12", Family::Mpich),
    (b"libmpi.so.12", Family::Mpich),
];

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mpich, Self::OpenMpi, Self::Standard];

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Family::Mpich => "MPICH and its kin",
            Family::OpenMpi => "Open MPI",
            Family::Standard => "the MPI-5 ABI",
        }
    }

    /// File name of its driver.
    pub fn driver(self) -> &'static str {
        match self {
            Family::Mpich => "libtalea_mpiio.so",
            Family::OpenMpi => "libtalea_mpiio_openmpi.so",
            Family::Standard => "libtalea_mpiio_standard.so",
        }
    }

    /// The family of a command: `wished` ([`VARIABLE`]), else what a program among its words is linked with, else which launcher it names.
    /// MPICH's if nothing tells. `path`: where its words are looked for, as `PATH` has it.
    pub fn of(command: &[OsString], wished: Option<&str>, path: &OsStr) -> Family {
        if let Some(family) = wished.and_then(named) {
            return family;
        }
        // This program names every family's library, and uses none.
        let own = std::env::current_exe().ok();
        let programs = command.iter().filter_map(|word| program(word, path));
        let files: Vec<PathBuf> = programs.filter(|file| file.canonicalize().ok() != own).collect();
        let linked = files.iter().rev().find_map(|file| linked_with(file));
        linked.or_else(|| files.first().and_then(|file| launcher(file))).unwrap_or(Family::Mpich)
    }
}

fn named(name: &str) -> Option<Family> {
    match name {
        "mpich" => Some(Family::Mpich),
        "openmpi" => Some(Family::OpenMpi),
        "standard" => Some(Family::Standard),
        _ => None,
    }
}

/// The file that a word names: itself if it has a slash, else the first in the search path.
fn program(word: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let word = Path::new(word);
    if word.as_os_str().as_encoded_bytes().contains(&b'/') {
        return word.is_file().then(|| word.to_owned());
    }
    std::env::split_paths(path).map(|directory| directory.join(word)).find(|file| file.is_file())
}

/// What an ELF file says that it is linked with.
fn linked_with(file: &Path) -> Option<Family> {
    let mut bytes = Vec::new();
    std::fs::File::open(file).ok()?.take(SEARCHED_BYTES).read_to_end(&mut bytes).ok()?;
    if !bytes.starts_with(b"\x7fELF") {
        return None;
    }
    let has = |name: &[u8]| bytes.windows(name.len()).any(|part| part == name);
    LIBRARIES.iter().find(|(name, _)| has(name)).map(|(_, family)| *family)
}

/// The family of an `mpiexec`, by what its name leads to (Debian's alternatives are symbolic links).
fn launcher(file: &Path) -> Option<Family> {
    let real = file.canonicalize().ok()?;
    let name = real.file_name()?.to_string_lossy();
    ["openmpi", "orterun", "prterun", "opal"].iter().any(|part| name.contains(part)).then_some(Family::OpenMpi)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&Path]) -> Vec<OsString> {
        words.iter().map(|word| word.as_os_str().to_owned()).collect()
    }

    #[test]
    fn the_program_tells_and_else_its_launcher() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let open = file("open", b"\x7fELF....libmpi.so.40\0");
        let mpich = file("mpich", b"\x7fELF....libm.so.6\0libmpi.so.12\0");
        let standard = file("standard", b"\x7fELF....libmpi_abi.so.1\0");
        let script = file("script", b"#!/bin/sh\n# libmpi.so.40\n");
        let orterun = file("orterun", b"\x7fELF....");
        let mpiexec = directory.path().join("mpiexec");
        std::os::unix::fs::symlink(&orterun, &mpiexec).unwrap();
        let of = |list: &[&Path]| Family::of(&words(list), None, OsStr::new(""));
        assert_eq!(Family::of(&words(&[&open]), Some("standard"), OsStr::new("")), Family::Standard);
        assert_eq!(of(&[&open]), Family::OpenMpi);
        assert_eq!(of(&[&standard]), Family::Standard);
        assert_eq!(of(&[&mpiexec, Path::new("-n"), Path::new("2"), &mpich]), Family::Mpich);
        assert_eq!(of(&[&mpiexec, &script]), Family::OpenMpi);
        assert_eq!(of(&[&script]), Family::Mpich);
    }
}
