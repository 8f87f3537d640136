//! Whether this process is a child of the one that it was: asked on every call, so without a system call.
//!
//! Owns one counter that fork(2) raises in the child. Must never do anything else in a forked child: it may not even allocate.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);
static REGISTER: Once = Once::new();

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How many forks lie between this process and the first one that asked. It differs in a child of fork(3), whichever thread
/// forked; a child made by a bare clone(2) without its memory's copy runs no code of ours.
pub fn generation() -> u64 {
    REGISTER.call_once(|| {
        // SAFETY: the handler lives as long as the code that registers it (glibc forgets handlers of a library that is
        // unloaded), and does nothing but add to an atomic. If there is no memory for the note, forks go unnoticed and a
        // child fails by its first message at the latest: its connections are the parent's.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_forked_child_counts_on_and_its_parent_does_not() {
        let before = super::generation();
        // SAFETY: the child calls only what is allowed after a fork: an atomic load and _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(super::generation() != before + 1);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let mut status = -1;
        // SAFETY: our own child, waited for once.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        assert_eq!(super::generation(), before);
    }
}
