//! `talea restart`: servers of a system that have ended, again.

use talea_client::{System, system::SystemError};

use crate::cli::RestartArgs;
use crate::failure::Failure;
use crate::{names, restart};

/// Starts the servers.
pub(crate) async fn restart(arguments: &RestartArgs) -> Result<u8, Failure> {
    let system = System::find(arguments.system.as_deref()).map_err(|error| or_kept(error, arguments))?;
    let restarted = match system.file.detached {
        true => restart::detached(&system, &arguments.servers).await?,
        false => restart::ask(&system, &arguments.servers).await?,
    };
    let name = &system.file.name;
    if restarted.is_empty() {
        println!(
            "all servers of system {name} run; one that does not answer hangs: end its process (kill -9), then restart it"
        );
    }
    restarted.iter().for_each(|server| println!("server {server} of system {name} runs again"));
    Ok(0)
}

/// No such system runs here. One that is kept under a name has nothing in this place once all its servers have ended.
fn or_kept(error: SystemError, arguments: &RestartArgs) -> Failure {
    let is_meant = |name: &String| arguments.system.as_ref().is_none_or(|meant| meant == name);
    let commands: Vec<String> = names::kept()
        .into_iter()
        .filter(|(name, _)| is_meant(name))
        .map(|(name, kept)| restart::how_to_bring_back(&name, &kept.tier))
        .collect();
    match (&error, commands.is_empty()) {
        (SystemError::None | SystemError::NotFound { .. }, false) => {
            Failure::Usage(format!("{error}. One that is kept is started as a whole: {}", commands.join(", ")))
        }
        _ => error.into(),
    }
}
