//! The directory for a server's sockets: ours alone, and gone again if we made it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What a Unix socket's path may have at most, in bytes.
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// Longest name of a socket in it.
const LONGEST_NAME: &str = "/server-65535.sock";

/// The directory, made or found. Its drop takes away what we put there.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    made: bool,
    sockets: Vec<PathBuf>,
}

impl Directory {
    /// Makes or checks the directory.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let refuse = |why: String| Failure::Directory { path: path.to_owned(), why };
        if !path.is_absolute() {
            return Err(refuse("the path is not absolute".to_owned()));
        }
        if path.as_os_str().len() + LONGEST_NAME.len() > MAX_SOCKET_PATH_BYTES {
            let room = MAX_SOCKET_PATH_BYTES - LONGEST_NAME.len();
            return Err(refuse(format!("socket paths are short: use a directory of at most {room} bytes")));
        }
        let made = match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(refuse(error.to_string())),
        };
        let meta = fs::symlink_metadata(path).map_err(|error| refuse(error.to_string()))?;
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(refuse("it must be a directory of yours with mode 0700".to_owned()));
        }
        Ok(Directory { path: path.to_owned(), made, sockets: Vec::new() })
    }

    /// Path of a socket that may be made here.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Notes a socket that we have made: until then it may be another server's.
    pub(crate) fn own(&mut self, socket: PathBuf) {
        self.sockets.push(socket);
    }

    /// Takes away what we put there; also for those who cannot wait for the drop.
    pub(crate) fn clean(path: &Path, sockets: &[PathBuf], made: bool) {
        for socket in sockets {
            let _ = fs::remove_file(socket);
        }
        if made {
            // Others may have put something there since: then it stays.
            let _ = fs::remove_dir(path);
        }
    }

    /// What [`clean`](Self::clean) needs.
    pub(crate) fn contents(&self) -> (PathBuf, Vec<PathBuf>, bool) {
        (self.path.clone(), self.sockets.clone(), self.made)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        Self::clean(&self.path, &self.sockets, self.made);
    }
}
