//! Connecting, and the text of errors.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use talea_client::Client;
use talea_posix::Fault;

use super::types::talea_system_t;
use crate::boundary::{argument, error_text, optional_string, place, public, put};
use crate::handles::Handles;
use crate::process::{self, Connection};

/// A program's hold on the process's client.
pub(crate) struct SystemHandle {
    /// Keeps the client for as long as a handle refers to it.
    _connection: Arc<Connection>,
    /// With the program's deadline.
    pub client: Client,
}

pub(crate) static SYSTEMS: Handles<talea_system_t, SystemHandle> = Handles::new("system");

/// A deadline in milliseconds from C.
pub(crate) fn deadline(deadline_ms: i64) -> Result<u64, Fault> {
    u64::try_from(deadline_ms).map_err(|_| argument("a deadline is a number of milliseconds, 0 or more"))
}

/// Connects to the system called `system`, or (NULL) to the one of this job. `deadline_ms`, at least 1, is also the deadline of
/// each call that is made through the handle and does not take one of its own.
///
/// # Safety
/// `system` is null or NUL-terminated; `out` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_connect(
    system: *const c_char,
    deadline_ms: i64,
    out: *mut *mut talea_system_t,
) -> c_int {
    public(|| {
        place(out, "system")?;
        let deadline_ms = u64::try_from(deadline_ms).ok().filter(|ms| *ms > 0).ok_or_else(|| {
            argument(format!("a deadline of {deadline_ms} ms is over before it begins: 1 or more, such as 30000"))
        })?;
        // SAFETY: the caller's contract.
        let name = unsafe { optional_string(system) }.map(std::str::from_utf8).transpose();
        let name = name.map_err(|_| argument("the system's name is not UTF-8"))?;
        let connection = match name {
            Some(_) => process::connect(name, Some(deadline_ms))?,
            None => process::job_within(Some(deadline_ms))?,
        };
        let client = connection.client.with_deadline_ms(deadline_ms);
        let handle = SYSTEMS.add(SystemHandle { _connection: connection, client });
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, handle, "system") }
    })
}

/// Gives a connection back. Containers opened through it stay open. A null pointer is fine.
///
/// # Safety
/// None: the handle is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_disconnect(system: *mut talea_system_t) {
    if !system.is_null() {
        public(|| SYSTEMS.remove(system).map(drop));
    }
}

/// Text of this thread's last error, with its remedy; never null, valid until the thread's next failing call.
#[unsafe(no_mangle)]
pub extern "C" fn talea_error() -> *const c_char {
    error_text()
}

/// The library's version, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn talea_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
