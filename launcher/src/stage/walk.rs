//! What there is to copy: the files and directories below a path, on either side.

use std::fs;
use std::path::Path;

use talea_posix::{Files, Inode, Kind, Namespace, TaleaPath};

use crate::command::list;
use crate::failure::Failure;

/// A file below the root of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundFile {
    /// Path below the root; empty if the root is the file.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) is_tree: bool,
    pub(crate) files: Vec<FoundFile>,
    /// Directories below the root, parents first.
    pub(crate) directories: Vec<String>,
    /// What is neither.
    pub(crate) others: Vec<String>,
    /// What there is, and cannot be looked at, with why.
    pub(crate) unreadable: Vec<(String, String)>,
}

/// Below a path of Talea.
pub(crate) fn of_talea(files: &Files, root: &str, recursive: bool) -> Result<Found, Failure> {
    let parsed = TaleaPath::parse(root.as_bytes())?;
    let (namespace, _lease) = files.namespace(&parsed)?;
    let mut found = Found::default();
    let stat = namespace.stat(&parsed.names)?;
    match stat.kind {
        Kind::File => {
            let mode = stat.inode.as_ref().map_or(0o644, |inode| inode.mode);
            found.files.push(FoundFile { name: String::new(), bytes: stat.bytes, mode });
        }
        Kind::Symlink => return Err(Failure::Usage(format!("{root} is a symbolic link: copy what it names"))),
        Kind::Directory if !recursive => {
            return Err(Failure::Usage(format!("{root} is a directory: add --recursive")));
        }
        Kind::Directory => {
            found.is_tree = true;
            descend(&namespace, &parsed.names, "", &mut found)?;
        }
    }
    Ok(found)
}

fn descend(namespace: &Namespace, path: &[Vec<u8>], below: &str, found: &mut Found) -> Result<(), Failure> {
    for name in list::names(namespace, path)? {
        let mut inner = path.to_vec();
        inner.push(name.clone());
        let shown = String::from_utf8_lossy(&name);
        let relative = if below.is_empty() { shown.into_owned() } else { format!("{below}/{shown}") };
        let stat = match namespace.stat(&inner) {
            Ok(stat) => stat,
            // It stands in the receipt: what else there is goes on.
            Err(fault) => {
                found.unreadable.push((relative, fault.to_string()));
                continue;
            }
        };
        match stat.kind {
            Kind::File => {
                let mode = stat.inode.as_ref().map_or(0o644, |inode| inode.mode);
                found.files.push(FoundFile { name: relative, bytes: stat.bytes, mode });
            }
            Kind::Directory => {
                found.directories.push(relative.clone());
                descend(namespace, &inner, &relative, found)?;
            }
            Kind::Symlink => found.others.push(relative),
        }
    }
    Ok(())
}

/// Below a local path. Symbolic links are followed: programs find in Talea what they name. One that names nothing, or a directory that it
/// lies in, is left out.
pub(crate) fn of_disk(root: &Path, recursive: bool) -> Result<Found, Failure> {
    let metadata = fs::metadata(root).map_err(Failure::io("reading", root))?;
    let mut found = Found { is_tree: metadata.is_dir(), ..Found::default() };
    if metadata.is_file() {
        found.files.push(FoundFile { name: String::new(), bytes: metadata.len(), mode: mode(&metadata) });
    } else if !metadata.is_dir() {
        return Err(Failure::Usage(format!("{} is neither a file nor a directory", root.display())));
    } else if !recursive {
        return Err(Failure::Usage(format!("{} is a directory: add --recursive", root.display())));
    } else {
        descend_disk(root, "", &mut vec![identity(&metadata)], &mut found)?;
    }
    Ok(found)
}

/// What a directory is, whatever it is called.
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// `above`: the directories that this one lies in, and itself.
fn descend_disk(directory: &Path, below: &str, above: &mut Vec<(u64, u64)>, found: &mut Found) -> Result<(), Failure> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(Failure::io("listing", directory))? {
        entries.push(entry.map_err(Failure::io("listing", directory))?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let relative = if below.is_empty() { shown.into_owned() } else { format!("{below}/{shown}") };
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let metadata = match fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            Err(_) if is_link => {
                found.others.push(relative);
                continue;
            }
            Err(error) => return Err(Failure::io("reading", entry.path())(error)),
        };
        if metadata.is_file() {
            found.files.push(FoundFile { name: relative, bytes: metadata.len(), mode: mode(&metadata) });
        } else if metadata.is_dir() && !above.contains(&identity(&metadata)) {
            found.directories.push(relative.clone());
            above.push(identity(&metadata));
            descend_disk(&entry.path(), &relative, above, found)?;
            above.pop();
        } else {
            found.others.push(relative);
        }
    }
    Ok(())
}

fn mode(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o777
}

/// Makes the local directories of a copy: those of a tree, and with `parents` also those above it.
pub(crate) fn make_directories(found: &Found, root: &Path, parents: bool) -> Result<(), Failure> {
    let above = root.parent().filter(|parent| !parent.as_os_str().is_empty());
    match above {
        Some(above) if parents => fs::create_dir_all(above).map_err(Failure::io("making", above))?,
        Some(above) if !above.is_dir() => {
            let shown = above.display();
            return Err(Failure::Usage(format!(
                "there is no directory {shown} to copy to: make it with `mkdir -p {shown}`"
            )));
        }
        _ => {}
    }
    if found.is_tree {
        fs::create_dir_all(root).map_err(Failure::io("making", root))?;
    }
    for directory in &found.directories {
        let path = root.join(directory);
        fs::create_dir_all(&path).map_err(Failure::io("making", &path))?;
    }
    Ok(())
}

/// Makes the directories of a copy in Talea: those above the root, the root of a tree, and those below it.
pub(crate) fn make_talea_directories(files: &Files, found: &Found, root: &str) -> Result<(), Failure> {
    let parsed = TaleaPath::parse(root.as_bytes())?;
    let (namespace, _lease) = files.namespace(&parsed)?;
    let depth = if found.is_tree { parsed.names.len() } else { parsed.names.len().saturating_sub(1) };
    for end in 1..=depth {
        make(&namespace, &parsed.names[..end])?;
    }
    for directory in &found.directories {
        let mut names = parsed.names.clone();
        names.extend(directory.split('/').map(|name| name.as_bytes().to_vec()));
        make(&namespace, &names)?;
    }
    Ok(())
}

/// What is at a path, if anything is.
pub(crate) fn lookup(namespace: &Namespace, names: &[Vec<u8>]) -> Result<Option<Inode>, Failure> {
    match namespace.lookup(names) {
        Err(fault) if fault.code == talea_abi::Code::NotFound => Ok(None),
        found => Ok(found?),
    }
}

fn make(namespace: &Namespace, names: &[Vec<u8>]) -> Result<(), Failure> {
    if lookup(namespace, names)?.is_some() {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    namespace.mkdir(names, 0o755, uid, gid)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let (tree, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("table"), b"12345").unwrap();
        fs::create_dir(tree.path().join("inner")).unwrap();
        fs::write(tree.path().join("inner/deck"), b"1").unwrap();
        let link = |target: &Path, name: &str| symlink(target, tree.path().join(name)).unwrap();
        link(&elsewhere.path().join("table"), "table");
        link(elsewhere.path(), "tables");
        link(Path::new("inner"), "same");
        link(Path::new(".."), "inner/up");
        link(Path::new("nothing"), "broken");
        let found = of_disk(tree.path(), true).unwrap();
        let files: Vec<_> = found.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        assert_eq!(files, [("inner/deck", 1), ("same/deck", 1), ("table", 5), ("tables/table", 5)]);
        assert_eq!(found.directories, ["inner", "same", "tables"]);
        assert_eq!(found.others, ["broken", "inner/up", "same/up"]);
    }
}
