//! `talea rm`: files, links and trees, each in one transaction.

use std::sync::Arc;

use talea_abi::Code;
use talea_posix::backing::client::ClientSystem;
use talea_posix::{Files, Kind, PathView, TaleaPath};

use super::connect;
use crate::cli::RmArgs;
use crate::failure::Failure;
use crate::stage::lookup;

/// Removes all that was named. What fails does not keep the rest from going.
pub(crate) fn remove(arguments: &RmArgs) -> Result<u8, Failure> {
    let files = Files::new(Arc::new(ClientSystem::new(connect(arguments.system.as_deref())?)));
    let mut failures = arguments.paths.iter().filter_map(|path| one(&files, path, arguments).err());
    let Some(first) = failures.next() else { return Ok(0) };
    // All but the last one, which `main` prints.
    let last = failures.fold(first, |before, next| {
        eprintln!("talea: {before}");
        next
    });
    Err(last)
}

fn one(files: &Files, path: &str, arguments: &RmArgs) -> Result<(), Failure> {
    let parsed = TaleaPath::parse(path.as_bytes())?;
    if parsed.view != PathView::Live {
        return Err(Failure::Usage(format!("{path}: steps and snapshots never change")));
    }
    if parsed.names.is_empty() {
        let text = format!("{path} is a whole container: name what is in it");
        return Err(Failure::Usage(text));
    }
    let (namespace, _lease) = files.namespace(&parsed)?;
    match lookup(&namespace, &parsed.names)? {
        None if arguments.force => return Ok(()),
        Some(inode) if inode.kind == Kind::Directory && !arguments.recursive => {
            return Err(Failure::Usage(format!("{path} is a directory: add --recursive")));
        }
        _ => {}
    }
    match namespace.remove_tree(&parsed.names) {
        // Somebody else was faster.
        Err(fault) if fault.code == Code::NotFound && arguments.force => Ok(()),
        result => Ok(result.map(drop)?),
    }
}
