//! How long a turn on a core a thread asks of the kernel.
//!
//! Linux (EEVDF) runs, of those who have a turn coming to them, the one whose turn would end first. A thread that asks for short turns is
//! therefore run soon after it wakes up, also beside computing processes, and has no more of the core in all. Nobody's permission
//! is needed (`sched_setattr(2)`, `sched_runtime` of `SCHED_OTHER`, since Linux 6.12; older kernels take it and do nothing).

use std::io;
use std::time::Duration;

/// `struct sched_attr` of sched_setattr(2), in its first form.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

fn get() -> io::Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    let bytes = size_of::<SchedAttr>() as libc::c_uint;
    // SAFETY: the kernel writes at most `bytes` bytes to `attr`; 0 is this thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, bytes, 0) };
    if result == 0 { Ok(attr) } else { Err(io::Error::last_os_error()) }
}

/// The slice of this thread; zero if the kernel does not tell.
pub fn of_this_thread() -> io::Result<Duration> {
    Ok(Duration::from_nanos(get()?.runtime_ns))
}

/// Asks for turns of this length (the kernel takes 0.1 to 100 ms; zero: its own choice) for this thread and those that it starts. A
/// thread under another policy than the usual one is left alone: whoever chose that knew why.
pub fn ask_for(slice: Duration) -> io::Result<()> {
    let mut attr = get()?;
    if !matches!(attr.policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH) {
        return Ok(());
    }
    attr.size = size_of::<SchedAttr>() as u32;
    attr.runtime_ns = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads `attr.size` bytes of `attr`, which has so many.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_asks_for_itself_and_those_that_it_starts() {
        let theirs = || std::thread::spawn(|| of_this_thread().unwrap()).join().unwrap();
        let before = of_this_thread().unwrap();
        let (own, started) = std::thread::spawn(move || {
            ask_for(Duration::from_micros(100)).unwrap();
            (of_this_thread().unwrap(), theirs())
        })
        .join()
        .unwrap();
        assert_eq!(of_this_thread().unwrap(), before, "nobody else's");
        // Kernels before 6.12 know none.
        if before > Duration::ZERO {
            assert_eq!((own, started), (Duration::from_micros(100), Duration::from_micros(100)));
        }
    }
}
