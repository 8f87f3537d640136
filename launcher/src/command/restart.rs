//! `talea restart`: servers of a system that have ended, again.

use talea_client::System;

use crate::cli::RestartArgs;
use crate::failure::Failure;
use crate::restart;

/// Starts the servers.
pub(crate) async fn restart(arguments: &RestartArgs) -> Result<u8, Failure> {
    let system = System::find(arguments.system.as_deref())?;
    let restarted = match system.file.detached {
        true => restart::detached(&system, &arguments.servers).await?,
        false => restart::ask(&system, &arguments.servers).await?,
    };
    let name = &system.file.name;
    if restarted.is_empty() {
        println!("all servers of system {name} run");
    }
    restarted.iter().for_each(|server| println!("server {server} of system {name} runs again"));
    Ok(0)
}
