//! Keeps libfabric's hands off this process's signals.
//!
//! Some of its providers (shm, psm) install handlers of their own when they are loaded or first asked for, over those of the
//! program, and end the process or swallow the signal. What was there before is put back (docs/design.md §7, manners).

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signals that are known to be taken.
const SIGNALS: [libc::c_int; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGABRT,
    libc::SIGFPE,
    libc::SIGBUS,
    libc::SIGSEGV,
    libc::SIGTERM,
    libc::SIGCHLD,
];

/// Puts the handlers back when it goes.
pub(super) struct Kept(Vec<(libc::c_int, libc::sigaction)>);

/// Remembers the handlers of now, if what is about to be done was not `done` yet in this process.
pub(super) fn keep(done: &'static AtomicBool) -> Option<Kept> {
    if done.swap(true, Ordering::Relaxed) {
        return None;
    }
    let mut kept = Vec::with_capacity(SIGNALS.len());
    for signal in SIGNALS {
        let mut action = MaybeUninit::zeroed();
        // SAFETY: sigaction(2) with a null new action only writes the present one to `action`, which has room for it.
        if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0 {
            // SAFETY: it returned 0, so it is written; all zeros before that are a valid value, too.
            kept.push((signal, unsafe { action.assume_init() }));
        }
    }
    Some(Kept(kept))
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (signal, action) in &self.0 {
            // SAFETY: an action that the kernel gave for this signal, which was in force until now.
            unsafe { libc::sigaction(*signal, action, std::ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::{Info, Want, loaded};

    extern "C" fn of_the_program(_: libc::c_int) {}

    fn handler() -> usize {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: only reads the present action into memory that is large enough.
        unsafe {
            libc::sigaction(libc::SIGTERM, std::ptr::null(), action.as_mut_ptr());
            action.assume_init().sa_sigaction
        }
    }

    #[test]
    fn the_program_keeps_its_handlers() {
        let own = of_the_program as extern "C" fn(libc::c_int) as usize;
        // SAFETY: a handler that does nothing.
        unsafe { libc::signal(libc::SIGTERM, own) };
        let Ok(library) = loaded() else { return };
        Info::get(library, "tcp", &Want::Listen("127.0.0.1")).map(drop).unwrap();
        assert_eq!(handler(), own, "libfabric took SIGTERM");
    }
}
