//! `talea ls`.

use std::sync::Arc;

use serde::Serialize;
use talea_client::Client;
use talea_model::size::Iec;
use talea_posix::backing::client::ClientSystem;
use talea_posix::{Fault, Files, Kind, Namespace, Stat, TaleaPath};

use super::connect;
use crate::cli::LsArgs;
use crate::failure::Failure;

/// Names asked for at once.
const PORTION: usize = 1000;

#[derive(Serialize)]
struct Entry {
    name: String,
    kind: &'static str,
    bytes: u64,
    mode: u32,
}

/// Lists a directory or a file, or all containers.
pub(crate) fn list(arguments: &LsArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.as_deref())?;
    let entries = match arguments.path.trim_end_matches('/') {
        "/talea" | "talea:" => containers(&client)?,
        path if is_view_list(path) => views(&client, path)?,
        path => entries(&client, path, arguments.long || arguments.json)?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&entries).unwrap_or_default());
        return Ok(0);
    }
    for entry in entries {
        if arguments.long {
            println!(
                "{:9} {:04o} {:>12} {}",
                entry.kind,
                entry.mode & 0o7777,
                Iec(entry.bytes).to_string(),
                entry.name
            );
        } else {
            println!("{}", entry.name);
        }
    }
    Ok(0)
}

fn containers(client: &Client) -> Result<Vec<Entry>, Failure> {
    let list = client.container_list()?;
    Ok(list.into_iter().map(|info| Entry { name: info.name, kind: "container", bytes: 0, mode: 0o700 }).collect())
}

/// Whether a path names what holds a container's steps and named snapshots. Nothing lies there: they are listed from the log.
fn is_view_list(path: &str) -> bool {
    let inner = path.strip_prefix("/talea/").and_then(|rest| rest.split_once('/'));
    matches!(inner, Some((_, ".talea" | ".talea/steps" | ".talea/snapshots")))
}

fn views(client: &Client, path: &str) -> Result<Vec<Entry>, Failure> {
    let name = path.split('/').nth(2).unwrap_or_default();
    let info = client.container_open(name)?.query()?.info;
    let names: Vec<String> = match path.rsplit('/').next() {
        Some("steps") => (info.first_step.0.max(1)..=info.step.0).map(|step| step.to_string()).collect(),
        Some("snapshots") => info.snapshots.into_iter().map(|(name, _)| name).collect(),
        _ => vec!["snapshots".to_owned(), "steps".to_owned()],
    };
    Ok(names.into_iter().map(|name| Entry { name, kind: "directory", bytes: 0, mode: 0o555 }).collect())
}

fn entries(client: &Client, path: &str, stats: bool) -> Result<Vec<Entry>, Failure> {
    let files = Files::new(Arc::new(ClientSystem::new(client.clone())));
    let parsed = TaleaPath::parse(path.as_bytes())?;
    let (namespace, _lease) = files.namespace(&parsed)?;
    let stat = namespace.stat(&parsed.names)?;
    if stat.kind != Kind::Directory {
        return Ok(vec![entry(path.rsplit('/').next().unwrap_or(path).to_owned(), &stat)]);
    }
    let mut entries = Vec::new();
    for name in names(&namespace, &parsed.names)? {
        let shown = String::from_utf8_lossy(&name).into_owned();
        if !stats {
            entries.push(Entry { name: shown, kind: "", bytes: 0, mode: 0 });
            continue;
        }
        let mut inner = parsed.names.clone();
        inner.push(name);
        entries.push(entry(shown, &namespace.stat(&inner)?));
    }
    Ok(entries)
}

/// All names of a directory, in order.
pub(crate) fn names(namespace: &Namespace, path: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Fault> {
    let directory = namespace.directory(path)?;
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        let (portion, more) = namespace.list(directory, all.last().map(Vec::as_slice), PORTION)?;
        let empty = portion.is_empty();
        all.extend(portion);
        if !more || empty {
            return Ok(all);
        }
    }
}

fn entry(name: String, stat: &Stat) -> Entry {
    let shown = match stat.kind {
        Kind::Directory => "directory",
        Kind::File => "file",
        Kind::Symlink => "symlink",
    };
    let mode = stat.inode.as_ref().map_or(0o755, |inode| inode.mode);
    Entry { name, kind: shown, bytes: stat.bytes, mode }
}
