//! `talea rm`: files, links and trees, each in one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use talea_abi::Code;
use talea_client::{Client, Punch, Write};
use talea_model::ObjectClass;
use talea_posix::backing::client::ClientSystem;
use talea_posix::{Files, Kind, PathView, TaleaPath};

use super::connect;
use crate::cli::RmArgs;
use crate::failure::Failure;
use crate::stage::lookup;

/// Most steps that are committed to drop those before them.
const MOST_DROPPED: u64 = 1024;

/// Removes all that was named. What fails does not keep the rest from going.
pub(crate) fn remove(arguments: &RmArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.as_deref())?;
    let files = Files::new(Arc::new(ClientSystem::new(client.clone())));
    let removed = arguments.paths.iter().filter_map(|path| one(&files, path, arguments).err()).collect::<Vec<_>>();
    // A slip in a name must not cost what the steps still show.
    let drops = arguments.drop_steps && removed.is_empty();
    let dropped = if drops { containers(&arguments.paths) } else { BTreeSet::new() };
    let dropped = dropped.into_iter().filter_map(|name| drop_steps(&client, &name).err());
    let mut failures = removed.into_iter().chain(dropped);
    let Some(first) = failures.next() else { return Ok(0) };
    // All but the last one, which `main` prints.
    let last = failures.fold(first, |before, next| {
        eprintln!("talea: {before}");
        next
    });
    Err(last)
}

/// The containers of paths.
fn containers(paths: &[String]) -> BTreeSet<String> {
    let parsed = paths.iter().filter_map(|path| TaleaPath::parse(path.as_bytes()).ok());
    parsed.map(|path| path.container.clone()).collect()
}

/// As many steps as the container keeps, which change nothing: none that is kept then shows what was there before. A commit that touched
/// no target makes no step, and a full tier takes no value: so each removes an object that is not there.
fn drop_steps(client: &Client, container: &str) -> Result<(), Failure> {
    let container = client.container_open(container)?;
    let kept_steps = container.properties().kept_steps;
    if kept_steps > MOST_DROPPED {
        let text = format!(
            "container {} keeps {kept_steps} steps: more than {MOST_DROPPED} are not dropped",
            container.name()
        );
        return Err(Failure::Usage(text));
    }
    for _ in 0..kept_steps {
        let epoch = container.begin(true)?;
        container.object(client.new_oid(ObjectClass::S1)).punch(&Write::Inside(&epoch), &Punch::default())?;
        epoch.commit(&epoch.try_summary()?, &[], false).committed?;
    }
    Ok(())
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
