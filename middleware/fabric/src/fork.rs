//! Whether this process is a child of the one that it was: asked on every call, so without a system call. And what such a child must
//! not keep: the connections of its parent, which would outlive it there.
//!
//! Owns one counter that fork(2) raises in the child, and the numbers of the descriptors that the child closes as it begins. Must never
//! do anything else in a forked child: it may not even allocate.

use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);
static REGISTER: Once = Once::new();

const BITS: usize = u64::BITS as usize;
/// Descriptors with higher numbers are not noted: processes may have as many on no common system.
const NUMBERS_MAX: usize = 1 << 20;
/// One bit a descriptor that children close. Pages of it that are never touched cost nothing.
static CLOSED_IN_CHILDREN: [AtomicU64; NUMBERS_MAX / BITS] = [const { AtomicU64::new(0) }; NUMBERS_MAX / BITS];
/// Words of it that were ever used.
static WORDS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    for (at, word) in CLOSED_IN_CHILDREN.iter().enumerate().take(WORDS.load(Ordering::Relaxed)) {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let fd = (at * BITS) as RawFd + bits.trailing_zeros() as RawFd;
            // SAFETY: close(2) is async-signal-safe. The number is the parent's connection: it is noted only while that is open,
            // and whoever owns it in this process knows by the count of forks that it may not use or close it.
            unsafe { libc::close(fd) };
            bits &= bits - 1;
        }
    }
}

/// How many forks lie between this process and the first one that asked. It differs in a child of fork(3), whichever thread
/// forked; a child made by a bare clone(2) without its memory's copy runs no code of ours.
pub fn generation() -> u64 {
    REGISTER.call_once(|| {
        // SAFETY: the handler lives as long as the code that registers it (glibc forgets handlers of a library that is
        // unloaded), and does nothing but change atomics and close. If there is no memory for the note, forks go unnoticed and a
        // child fails by its first message at the latest: its connections are the parent's.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

fn word_of(fd: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(fd).ok().filter(|number| *number < NUMBERS_MAX)?;
    Some((number / BITS, 1 << (number % BITS)))
}

/// Children that are forked from now on close this open descriptor.
pub(crate) fn close_in_children(fd: RawFd) {
    if let Some((at, bit)) = word_of(fd) {
        CLOSED_IN_CHILDREN[at].fetch_or(bit, Ordering::Relaxed);
        WORDS.fetch_max(at + 1, Ordering::Relaxed);
    }
}

/// This descriptor is about to be closed: its number may be anybody's after that.
pub(crate) fn keep_in_children(fd: RawFd) {
    if let Some((at, bit)) = word_of(fd) {
        CLOSED_IN_CHILDREN[at].fetch_and(!bit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use crate::descriptor::Descriptor;

    /// What a forked child says of itself.
    fn in_a_child(says: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child calls only what is allowed after a fork: atomics, fcntl and _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = says();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let mut status = -1;
        // SAFETY: our own child, waited for once.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "{status}");
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn a_forked_child_counts_on_and_its_parent_does_not() {
        let before = super::generation();
        assert_eq!(in_a_child(|| i32::from(super::generation() != before + 1)), 0);
        assert_eq!(super::generation(), before);
    }

    #[test]
    fn a_forked_child_has_no_descriptor_of_ours_and_all_others() {
        // SAFETY: asks whether a descriptor is open, nothing else.
        let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        let mut ours = Some(Descriptor::from(crate::poller::new_eventfd().unwrap()));
        let theirs = crate::poller::new_eventfd().unwrap();
        let (closed, kept) = (ours.as_ref().unwrap().as_raw_fd(), theirs.as_raw_fd());
        let said = in_a_child(|| {
            let before = i32::from(is_open(closed)) + 2 * i32::from(!is_open(kept));
            // The child has the number for something of its own, which our end does not touch.
            // SAFETY: duplicates a descriptor onto a number that is free, or says so.
            let again = unsafe { libc::fcntl(kept, libc::F_DUPFD, closed) };
            drop(ours.take());
            before + 4 * i32::from(again != closed || !is_open(closed))
        });
        assert_eq!(said, 0, "1: ours is open; 2: another's is closed; 4: a number was closed that was given anew");
        assert!(is_open(closed) && is_open(kept), "the parent's are as they were");
    }

    #[test]
    fn a_number_that_was_given_back_is_closed_by_nobody() {
        let ours = Descriptor::from(crate::poller::new_eventfd().unwrap());
        let number = ours.as_raw_fd();
        let (word, bit) = super::word_of(number).unwrap();
        let noted = || super::CLOSED_IN_CHILDREN[word].load(std::sync::atomic::Ordering::Relaxed) & bit != 0;
        assert!(noted());
        drop(ours);
        // Another test may have opened one of its own by now, under the same number; nextest runs each by itself.
        assert!(!noted());
    }
}
