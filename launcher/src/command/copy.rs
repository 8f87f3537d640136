//! `talea cp`: files and trees, out of a container (also of one of its steps) and into one.
//!
//! What is copied in is one epoch a file: it appears whole, or not at all.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use talea_client::Client;
use talea_posix::backing::client::ClientSystem;
use talea_posix::{Files, Hints, Kind, OpenFlags, TaleaPath};

use super::{connect, list};
use crate::cli::CpArgs;
use crate::failure::Failure;
use crate::notice;

/// Bytes of one request.
const PIECE_BYTES: usize = 4 << 20;

/// Copies.
pub(crate) fn copy(arguments: &CpArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.as_deref())?;
    let copy = Copy { files: Files::new(Arc::new(ClientSystem::new(client.clone()))), recursive: arguments.recursive };
    match (is_talea(&arguments.source), is_talea(&arguments.destination)) {
        (true, false) => copy.out(&arguments.source, &target_of(&arguments.source, &arguments.destination))?,
        (false, true) => copy.bring_in(&client, Path::new(&arguments.source), &arguments.destination)?,
        (true, true) => {
            return Err(Failure::Usage(
                "copying inside Talea is not supported yet: copy by way of a local file".to_owned(),
            ));
        }
        (false, false) => {
            return Err(Failure::Usage(
                "name a path below /talea/ as source or destination; for local copies use cp".to_owned(),
            ));
        }
    }
    Ok(0)
}

fn is_talea(path: &str) -> bool {
    path.starts_with("/talea/") || path.starts_with("talea:")
}

/// A file goes into a directory that exists, under its own name.
fn target_of(source: &str, destination: &str) -> PathBuf {
    let destination = PathBuf::from(destination);
    match source.rsplit('/').next() {
        Some(name) if destination.is_dir() => destination.join(name),
        _ => destination,
    }
}

struct Copy {
    files: Files,
    recursive: bool,
}

impl Copy {
    fn out(&self, source: &str, destination: &Path) -> Result<(), Failure> {
        let parsed = TaleaPath::parse(source.as_bytes())?;
        let (namespace, _lease) = self.files.namespace(&parsed)?;
        let stat = namespace.stat(&parsed.names)?;
        match stat.kind {
            Kind::File => self.file_out(source, destination),
            Kind::Symlink => Err(Failure::Usage(format!("{source} is a symbolic link: copy what it names"))),
            Kind::Directory if !self.recursive => {
                Err(Failure::Usage(format!("{source} is a directory: add --recursive")))
            }
            Kind::Directory => {
                fs::create_dir_all(destination).map_err(Failure::io("making", destination))?;
                for name in list::names(&namespace, &parsed.names)? {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    self.out(&format!("{}/{name}", source.trim_end_matches('/')), &destination.join(&name))?;
                }
                Ok(())
            }
        }
    }

    /// Under a temporary name first: a copy that was cut off never looks whole.
    fn file_out(&self, source: &str, destination: &Path) -> Result<(), Failure> {
        let shared = self.files.open(source.as_bytes(), OpenFlags::default(), 1, &Hints::default())?;
        let handle = self.files.attach(&shared)?;
        let total = handle.size()?;
        let part = destination.with_file_name(format!(
            ".{}.part",
            destination.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        ));
        let file = fs::File::create(&part).map_err(Failure::io("creating", &part))?;
        let bar = notice::bytes(total, source);
        let mut buffer = vec![0; PIECE_BYTES.min(total.max(1) as usize)];
        let mut at = 0;
        while at < total {
            let length = buffer.len().min((total - at) as usize);
            handle.read(&mut [(at, &mut buffer[..length])])?;
            file.write_all_at(&buffer[..length], at).map_err(Failure::io("writing", &part))?;
            at += length as u64;
            bar.set_position(at);
        }
        bar.finish_and_clear();
        file.sync_all().map_err(Failure::io("flushing", &part))?;
        fs::rename(&part, destination).map_err(Failure::io("renaming to", destination))
    }

    fn bring_in(&self, client: &Client, source: &Path, destination: &str) -> Result<(), Failure> {
        let parsed = TaleaPath::parse(destination.as_bytes())?;
        client.container_open(&parsed.container)?;
        let metadata = fs::metadata(source).map_err(Failure::io("reading", source))?;
        let (namespace, _lease) = self.files.namespace(&parsed)?;
        let there = namespace.lookup(&parsed.names)?;
        if metadata.is_dir() {
            return self.tree_in(client, source, destination);
        }
        let named = match (there, source.file_name()) {
            (Some(inode), Some(name)) if inode.kind == Kind::Directory => {
                format!("{}/{}", destination.trim_end_matches('/'), name.to_string_lossy())
            }
            _ => destination.to_owned(),
        };
        self.file_in(source, &named, metadata.len())
    }

    fn tree_in(&self, client: &Client, source: &Path, destination: &str) -> Result<(), Failure> {
        if !self.recursive {
            return Err(Failure::Usage(format!("{} is a directory: add --recursive", source.display())));
        }
        let parsed = TaleaPath::parse(destination.as_bytes())?;
        let (namespace, _lease) = self.files.namespace(&parsed)?;
        if !parsed.names.is_empty() && namespace.lookup(&parsed.names)?.is_none() {
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            namespace.mkdir(&parsed.names, 0o755, uid, gid)?;
        }
        for entry in fs::read_dir(source).map_err(Failure::io("listing", source))? {
            let entry = entry.map_err(Failure::io("listing", source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            self.bring_in(client, &entry.path(), &format!("{}/{name}", destination.trim_end_matches('/')))?;
        }
        Ok(())
    }

    fn file_in(&self, source: &Path, destination: &str, total: u64) -> Result<(), Failure> {
        let file = fs::File::open(source).map_err(Failure::io("opening", source))?;
        let flags = OpenFlags { write: true, create: true, ..OpenFlags::default() };
        let handle = self.files.attach(&self.files.open(destination.as_bytes(), flags, 1, &Hints::default())?)?;
        handle.set_size(0)?;
        let bar = notice::bytes(total, destination);
        let mut buffer = vec![0; PIECE_BYTES.min(total.max(1) as usize)];
        let mut at = 0;
        loop {
            let length = file.read_at(&mut buffer, at).map_err(Failure::io("reading", source))?;
            if length == 0 {
                break;
            }
            handle.write(&[(at, &buffer[..length])])?;
            at += length as u64;
            bar.set_position(at);
        }
        bar.finish_and_clear();
        handle.commit(handle.flush()?, false)?.result?;
        Ok(())
    }
}
