//! What this process did with Talea, for the record of its job: time in calls, and bytes. Told where the process exits, and now
//! and then at the end of a call, for those that are killed: the more rarely the longer the process runs.
//!
//! Must cost next to nothing, must never hold an exit up, and must never wake a process that does nothing.

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
/// When to tell next, in microseconds since 1970; 0: there is nobody to tell yet.
static TELL_UNIX_US: AtomicU64 = AtomicU64::new(0);
/// Shortest and longest pause between two tellings, in microseconds. In between it is a quarter of the process's life so far: what a
/// killed process did not tell is a fifth of it at most.
const PAUSE_US_MIN: u64 = 1_000_000;
const PAUSE_US_MAX: u64 = 300_000_000;
/// Calls between two looks at the clock.
const CALLS_A_LOOK: u64 = 16;

/// Variables in which the launchers of MPI tell a process its rank.
const RANK_VARIABLES: [&str; 4] = ["PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"];

/// A call begins.
pub(crate) fn begin() -> Instant {
    Instant::now()
}

/// It ends.
pub(crate) fn end(began: Instant) {
    let took_ns = began.elapsed().as_nanos() as u64;
    IO_NS.fetch_add(took_ns, Relaxed);
    let calls = CALLS.fetch_add(1, Relaxed);
    // A short call is one of many; after a long one a look at the clock costs nothing.
    if calls.is_multiple_of(CALLS_A_LOOK) || took_ns >= 1_000_000 {
        tell_if_due();
    }
}

fn tell_if_due() {
    let (due_us, now_us) = (TELL_UNIX_US.load(Relaxed), now_unix_us());
    if due_us == 0 || now_us < due_us {
        return;
    }
    let next_us = now_us + pause_us(now_us.saturating_sub(BEGAN_UNIX_US.load(Relaxed)));
    // One of the threads tells.
    if TELL_UNIX_US.compare_exchange(due_us, next_us, Relaxed, Relaxed).is_ok() {
        process::tell();
    }
}

/// How long a process of this age waits before it tells again.
fn pause_us(age_us: u64) -> u64 {
    (age_us / 4).clamp(PAUSE_US_MIN, PAUSE_US_MAX)
}

/// Bytes were given to be written.
pub(crate) fn wrote(bytes: usize) {
    WRITTEN.fetch_add(bytes as u64, Relaxed);
}

/// Bytes were asked for.
pub(crate) fn read(bytes: usize) {
    READ.fetch_add(bytes as u64, Relaxed);
}

/// From the first connection on the process will tell, at its exit and before.
pub(crate) fn tell_at_exit() {
    AT_EXIT.call_once(|| {
        let now_us = now_unix_us();
        BEGAN_UNIX_US.store(now_us, Relaxed);
        TELL_UNIX_US.store(now_us + PAUSE_US_MIN, Relaxed);
        // SAFETY: a function of this library, which glibc calls at exit, or before it takes the library out of the process.
        let _ = unsafe { libc::atexit(on_exit) };
    });
}

extern "C" fn on_exit() {
    // A panic must not leave through C.
    let _ = std::panic::catch_unwind(process::tell);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_s_process_tells_a_few_hundred_times_and_a_minute_s_a_dozen() {
        let told = |life_us: u64| {
            let (mut at_us, mut times) = (PAUSE_US_MIN, 0);
            while at_us <= life_us {
                times += 1;
                at_us += pause_us(at_us);
            }
            times
        };
        assert_eq!(told(999_999), 0);
        assert!((10..=18).contains(&told(60_000_000)), "{}", told(60_000_000));
        assert!(told(86_400_000_000) < 330, "{}", told(86_400_000_000));
    }
}
