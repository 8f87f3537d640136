//! `talea restart`: a server of a running system that has ended, again.

use talea_client::System;

use crate::cli::RestartArgs;
use crate::failure::Failure;
use crate::restart;

/// Starts the server.
pub(crate) async fn restart(arguments: &RestartArgs) -> Result<u8, Failure> {
    let system = System::find(arguments.system.as_deref())?;
    if system.file.detached {
        restart::detached(&system, arguments.server).await?;
    } else {
        restart::ask(&system, arguments.server).await?;
    }
    println!("server {} of system {} runs again", arguments.server, system.file.name);
    Ok(0)
}
