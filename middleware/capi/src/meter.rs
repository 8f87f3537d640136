//! What this process did with Talea, for the record of its job: time in calls, and bytes. Told once, where the process exits.
//!
//! Must cost next to nothing, and must never hold an exit up.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use talea_client::ProcessFigures;

use crate::process;

static CALLS: AtomicU64 = AtomicU64::new(0);
static IO_NS: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static READ: AtomicU64 = AtomicU64::new(0);
static BEGAN_UNIX_US: AtomicU64 = AtomicU64::new(0);
static AT_EXIT: Once = Once::new();

/// Variables in which the launchers of MPI tell a process its rank.
const RANK_VARIABLES: [&str; 4] = ["PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"];

/// A call begins.
pub(crate) fn begin() -> Instant {
    Instant::now()
}

/// It ends.
pub(crate) fn end(began: Instant) {
    IO_NS.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
    CALLS.fetch_add(1, Relaxed);
}

/// Bytes were given to be written.
pub(crate) fn wrote(bytes: usize) {
    WRITTEN.fetch_add(bytes as u64, Relaxed);
}

/// Bytes were asked for.
pub(crate) fn read(bytes: usize) {
    READ.fetch_add(bytes as u64, Relaxed);
}

/// From the first connection on the process will tell at its exit. Being killed tells nothing.
pub(crate) fn tell_at_exit() {
    AT_EXIT.call_once(|| {
        BEGAN_UNIX_US.store(now_unix_us(), Relaxed);
        // SAFETY: a function of this library, which glibc calls at exit, or before it takes the library out of the process.
        let _ = unsafe { libc::atexit(on_exit) };
    });
}

extern "C" fn on_exit() {
    // A panic must not leave through C.
    let _ = std::panic::catch_unwind(process::farewell);
}

fn now_unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// All of it, now.
pub(crate) fn figures() -> ProcessFigures {
    let began_unix_us = BEGAN_UNIX_US.load(Relaxed);
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(std::path::Path::file_name).unwrap_or_default();
    ProcessFigures {
        rank: RANK_VARIABLES.iter().find_map(|name| std::env::var(name).ok()?.parse().ok()),
        program: program.to_string_lossy().into_owned(),
        host: host(),
        began_unix_us,
        elapsed_ns: now_unix_us().saturating_sub(began_unix_us).saturating_mul(1000),
        io_ns: IO_NS.load(Relaxed),
        bytes_written: WRITTEN.load(Relaxed),
        bytes_read: READ.load(Relaxed),
        calls: CALLS.load(Relaxed),
    }
}

fn host() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: a buffer of this length, whose last byte stays a NUL.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    if failed { String::new() } else { String::from_utf8_lossy(&name[..end]).into_owned() }
}
