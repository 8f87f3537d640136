//! `talea snapshot`: names for states of containers.

use serde::Serialize;
use talea_client::{Client, SnapshotAt};
use talea_model::{Stamp, Step};

use super::connect;
use crate::cli::{SnapshotAction, SnapshotArgs};
use crate::failure::Failure;

#[derive(Serialize)]
struct Line {
    container: String,
    name: String,
    /// Last step that it contains.
    step: u64,
    stamp: u64,
    unix_us: u64,
}

/// Makes, lists or gives up named snapshots.
pub(crate) fn snapshot(arguments: &SnapshotArgs) -> Result<u8, Failure> {
    match &arguments.action {
        SnapshotAction::Create { container, name, step, system } => {
            create(&connect(system.as_deref())?, container, name, *step)
        }
        SnapshotAction::List { container, json, system } => {
            list(&connect(system.as_deref())?, container.as_deref(), *json)
        }
        SnapshotAction::Rm { container, names, system } => remove(&connect(system.as_deref())?, container, names),
    }
}

fn create(client: &Client, container: &str, name: &str, step: Option<u64>) -> Result<u8, Failure> {
    let opened = client.container_open(container)?;
    let at = step.map_or(SnapshotAt::Latest, |step| SnapshotAt::Step(Step(step)));
    opened.snapshot_name(name, at)?;
    let step = opened.snapshot(SnapshotAt::Named(name.to_owned()))?.step();
    println!("snapshot {name} of {container} shows step {step}: /talea/{container}/.talea/snapshots/{name}");
    Ok(0)
}

fn list(client: &Client, only: Option<&str>, json: bool) -> Result<u8, Failure> {
    let infos = match only {
        Some(name) => vec![client.container_open(name)?.query()?.info],
        None => client.container_list()?,
    };
    let mut lines = Vec::new();
    for info in infos {
        let container = client.container_open(&info.name)?;
        for (name, stamp) in info.snapshots {
            let step = match container.snapshot(SnapshotAt::Named(name.clone())) {
                Ok(snapshot) => snapshot.step().0,
                // Somebody has given it up since.
                Err(error) if error.kind() == talea_client::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let (container, unix_us) = (info.name.clone(), Stamp::unix_us(stamp));
            lines.push(Line { container, name, step, stamp: stamp.0, unix_us });
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&lines).unwrap_or_default());
        return Ok(0);
    }
    for line in lines {
        let of = if only.is_some() { String::new() } else { format!("{}   ", line.container) };
        println!("{of}{}   step {}, {}", line.name, line.step, crate::notice::ago(line.unix_us));
    }
    Ok(0)
}

/// What fails does not keep the rest from going.
fn remove(client: &Client, container: &str, names: &[String]) -> Result<u8, Failure> {
    let opened = client.container_open(container)?;
    let mut last = None;
    for failure in names.iter().filter_map(|name| opened.snapshot_destroy(name).err()) {
        if let Some(before) = last.replace(Failure::from(failure)) {
            eprintln!("talea: {before}");
        }
    }
    last.map_or(Ok(0), Err)
}
