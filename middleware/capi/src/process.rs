//! The one client of this process for each system that it talks to, made at first use.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use talea_abi::Code;
use talea_client::{Client, ConnectOptions, System};
use talea_posix::backing::client::{ClientSystem, fault};
use talea_posix::{Fault, Files};

use crate::meter;

/// Environment variable: deadline of calls in milliseconds for programs that cannot be told otherwise.
const DEADLINE_VARIABLE: &str = "TALEA_DEADLINE_MS";

/// A client and the files that are open through it.
pub(crate) struct Connection {
    name: String,
    pub client: Client,
    pub files: Files,
}

static CONNECTIONS: Mutex<Vec<Arc<Connection>>> = Mutex::new(Vec::new());
/// The connection that paths without a system's name use: which system that is does not change while the process runs.
static DEFAULT: Mutex<Option<Arc<Connection>>> = Mutex::new(None);
/// The process that made the first call; 0 before.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Refuses to work in a forked child: locks may be held by threads that do not exist there, and connections are the parent's.
pub(crate) fn check_fork() -> Result<(), Fault> {
    let me = std::process::id();
    match OWNER.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
        Err(owner) if owner != me => Err(Fault::new(
            Code::Unsupported,
            "this process was forked from one that uses Talea: use Talea in the parent, or start a new program",
        )),
        _ => Ok(()),
    }
}

/// Connects to a system by name, or to the one of this job, unless this process has a client of it already.
pub(crate) fn connect(system: Option<&str>, deadline_ms: Option<u64>) -> Result<Arc<Connection>, Fault> {
    let found = System::find(system).map_err(|error| fault(error.into()))?;
    let name = found.file.name.clone();
    let mut connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(connection) = connections.iter().find(|connection| connection.name == name) {
        return Ok(connection.clone());
    }
    let options = ConnectOptions { deadline_ms: deadline_ms.or_else(default_deadline_ms), ..ConnectOptions::default() };
    let client = Client::connect_to(&found, &options).map_err(fault)?;
    let client = match default_deadline_ms() {
        Some(deadline_ms) => client.with_deadline_ms(deadline_ms),
        None => client.with_deadline_ms(talea_model::limit::DEFAULT_DEADLINE_MS),
    };
    let files = Files::new(Arc::new(ClientSystem::new(client.clone())));
    let connection = Arc::new(Connection { name, client, files });
    connections.push(connection.clone());
    meter::tell_at_exit();
    Ok(connection)
}

/// Tells each system what this process did so far. Waits for nobody.
pub(crate) fn tell() {
    if OWNER.load(Ordering::Relaxed) != std::process::id() {
        return;
    }
    let Ok(connections) = CONNECTIONS.try_lock() else { return };
    connections.iter().for_each(|connection| connection.client.report(meter::figures()));
}

/// The job's own system.
pub(crate) fn job() -> Result<Arc<Connection>, Fault> {
    job_within(None)
}

/// The same, with a deadline for connecting if there is no connection yet.
pub(crate) fn job_within(deadline_ms: Option<u64>) -> Result<Arc<Connection>, Fault> {
    let mut default = DEFAULT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(connection) = &*default {
        return Ok(connection.clone());
    }
    let connection = connect(None, deadline_ms)?;
    *default = Some(connection.clone());
    Ok(connection)
}

fn default_deadline_ms() -> Option<u64> {
    std::env::var(DEADLINE_VARIABLE).ok()?.parse().ok().filter(|ms| *ms > 0)
}
