//! `talea evict`: ends sessions by hand.

use talea_model::SessionId;

use super::connect;
use crate::cli::EvictArgs;
use crate::failure::Failure;

/// Ends the sessions, one after the other.
pub(crate) fn evict(arguments: &EvictArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.as_deref())?;
    for session in &arguments.sessions {
        client.evict(SessionId(*session))?;
        println!("session {session} has ended: what it had open is aborted and given back");
    }
    Ok(0)
}
