//! `talea ls`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use talea_client::Client;
use talea_model::size::Iec;
use talea_model::{Layout, PoolMap};
use talea_posix::backing::client::ClientSystem;
use talea_posix::{Fault, Files, Inode, Kind, Namespace, Stat, TaleaPath};

use super::{connect, steps};
use crate::cli::LsArgs;
use crate::failure::{Failure, OWN};

/// Names asked for at once.
const PORTION: usize = 1000;

#[derive(Serialize)]
struct Entry {
    name: String,
    kind: &'static str,
    bytes: u64,
    mode: u32,
    /// Why some of it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

impl Entry {
    fn new(name: String, kind: &'static str, mode: u32) -> Self {
        Self { name, kind, bytes: 0, mode, unreadable: None }
    }
}

/// What is said of a list that cannot be whole.
pub(crate) const NOT_ALL: &str = "names that lie on servers which are missing are not shown: see `talea status`";

/// Lists a directory or a file, or all containers.
pub(crate) fn list(arguments: &LsArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.as_deref())?;
    if arguments.steps {
        return steps::list(&client, arguments);
    }
    let (entries, is_all) = match arguments.path.trim_end_matches('/') {
        "/talea" | "talea:" => (containers(&client)?, true),
        path if is_view_list(path) => (views(&client, path)?, true),
        path => entries(&client, path, arguments.long || arguments.json)?,
    };
    if !is_all {
        eprintln!("talea: {NOT_ALL}");
    }
    let code = if is_all { 0 } else { OWN };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&entries).unwrap_or_default());
        return Ok(code);
    }
    for entry in entries {
        if arguments.long {
            println!(
                "{:9} {:04o} {:>12} {}{}",
                entry.kind,
                entry.mode & 0o7777,
                Iec(entry.bytes).to_string(),
                entry.name,
                entry.unreadable.map(|why| format!("   [{why}]")).unwrap_or_default()
            );
        } else {
            println!("{}", entry.name);
        }
    }
    Ok(code)
}

fn containers(client: &Client) -> Result<Vec<Entry>, Failure> {
    let list = client.container_list()?;
    Ok(list.into_iter().map(|info| Entry::new(info.name, "container", 0o700)).collect())
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
    Ok(names.into_iter().map(|name| Entry::new(name, "directory", 0o555)).collect())
}

/// What is in a directory, or a file; and whether that is all.
fn entries(client: &Client, path: &str, stats: bool) -> Result<(Vec<Entry>, bool), Failure> {
    let (system, partial) = ClientSystem::partial(client.clone());
    let files = Files::new(Arc::new(system));
    let map = client.map();
    let parsed = TaleaPath::parse(path.as_bytes())?;
    let (namespace, _lease) = files.namespace(&parsed)?;
    let stat = namespace.stat(&parsed.names)?;
    if stat.kind != Kind::Directory {
        return Ok((vec![entry(path.rsplit('/').next().unwrap_or(path).to_owned(), &stat, &map)], true));
    }
    let mut entries = Vec::new();
    for name in names(&namespace, &parsed.names)? {
        let shown = String::from_utf8_lossy(&name).into_owned();
        if !stats {
            entries.push(Entry::new(shown, "", 0));
            continue;
        }
        let mut inner = parsed.names.clone();
        inner.push(name);
        entries.push(match namespace.stat(&inner) {
            Ok(stat) => entry(shown, &stat, &map),
            Err(fault) if partial.load(Ordering::Relaxed) => {
                Entry { unreadable: Some(fault.to_string()), ..Entry::new(shown, "?", 0) }
            }
            Err(fault) => return Err(fault.into()),
        });
    }
    Ok((entries, !partial.load(Ordering::Relaxed)))
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

fn entry(name: String, stat: &Stat, map: &PoolMap) -> Entry {
    let shown = match stat.kind {
        Kind::Directory => "directory",
        Kind::File => "file",
        Kind::Symlink => "symlink",
    };
    let mode = stat.inode.as_ref().map_or(0o755, |inode| inode.mode);
    let lost =
        stat.inode.as_ref().filter(|_| stat.kind == Kind::File).map_or(0, |inode| lost_chunks(inode, stat.bytes, map));
    let unreadable = (lost > 0).then(|| {
        let chunks = stat.bytes.div_ceil(stat.inode.map_or(1, |inode| inode.chunk_bytes));
        format!("{lost} of {chunks} chunks are on servers that are missing")
    });
    Entry { name, kind: shown, bytes: stat.bytes, mode, unreadable }
}

/// Chunks of a file whose targets do not serve.
fn lost_chunks(inode: &Inode, bytes: u64, map: &PoolMap) -> u64 {
    if map.targets.iter().all(|target| map.is_up(target.id)) {
        return 0;
    }
    let Some(layout) = Layout::of(inode.oid, map) else { return 0 };
    let chunks = bytes.div_ceil(inode.chunk_bytes.max(1));
    // Chunks go round all groups: each group has its share.
    let groups = layout.groups() as u64;
    let is_lost = |chunk: &u64| !map.is_up(layout.leader_of(&chunk.to_be_bytes()));
    (0..groups.min(chunks)).filter(is_lost).map(|first| (chunks - first).div_ceil(groups)).sum()
}
