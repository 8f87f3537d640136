//! `talea status`.

use serde::Serialize;
use talea_client::system::RuntimeDir;

use super::look;
use crate::cli::StatusArgs;
use crate::failure::Failure;

#[derive(Serialize)]
struct Unreachable {
    name: String,
    error: String,
}

/// Shows one system, or all of this node.
pub(crate) fn status(arguments: &StatusArgs) -> Result<u8, Failure> {
    let runtime = RuntimeDir::from_env()?;
    crate::restart::sweep(&runtime)?.iter().for_each(|swept| eprintln!("talea: {swept}"));
    let names = match arguments.system.name() {
        Some(name) => vec![runtime.load(name)?.file.name],
        None => runtime.all()?.into_iter().map(|system| system.file.name).collect(),
    };
    let mut shown = Vec::new();
    let mut lost = Vec::new();
    for name in names {
        if runtime.load(&name).is_ok_and(|system| !system.file.is_running()) {
            lost.push(Unreachable { error: crate::restart::how_to_come_back(&name), name });
            continue;
        }
        match look(&name) {
            Ok(view) => shown.push(view),
            // One that ended while it was asked is no news, unless it was asked for.
            Err(_) if arguments.system.name().is_none() && runtime.load(&name).is_err() => {}
            Err(error) => lost.push(Unreachable { name, error: error.to_string() }),
        }
    }
    if arguments.json {
        let all = serde_json::json!({ "systems": shown, "unreachable": lost });
        println!("{}", serde_json::to_string_pretty(&all).unwrap_or_default());
    } else {
        if shown.is_empty() && lost.is_empty() {
            println!("no system is running here; start one with `talea run` or `talea up`");
        }
        shown.iter().for_each(|view| print!("{view}"));
        lost.iter().for_each(|lost| eprintln!("talea: system {}: {}", lost.name, lost.error));
    }
    let is_whole = lost.is_empty() && shown.iter().all(|view| view.unled().is_none());
    Ok(if is_whole { 0 } else { 125 })
}
