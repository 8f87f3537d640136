//! Leaving a node's last cores to the servers, which keep to them (`reserve-cores=N`).

/// Takes the last `count` of this task's cores out of its affinity, if others remain. It is a task's wish for speed, so what cannot
/// be done is left.
pub(crate) fn leave(count: usize) {
    let bytes = size_of::<libc::cpu_set_t>();
    // SAFETY: a cpu_set_t is a field of bits, for which zeros are the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a cpu_set_t of `bytes` bytes; 0 is this thread.
    if count == 0 || unsafe { libc::sched_getaffinity(0, bytes, &raw mut set) } != 0 {
        return;
    }
    let all = usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: `core` is below CPU_SETSIZE.
    let mine: Vec<usize> = (0..all).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect();
    if mine.len() <= count {
        return;
    }
    // SAFETY: as above.
    mine[mine.len() - count..].iter().for_each(|core| unsafe { libc::CPU_CLR(*core, &mut set) });
    // SAFETY: as for sched_getaffinity.
    unsafe { libc::sched_setaffinity(0, bytes, &raw const set) };
}

#[cfg(test)]
mod tests {
    fn own() -> usize {
        std::thread::available_parallelism().unwrap().get()
    }

    #[test]
    fn some_cores_are_left_and_never_all() {
        let all = own();
        let after = |count| {
            std::thread::spawn(move || {
                super::leave(count);
                own()
            })
            .join()
            .unwrap()
        };
        assert_eq!(after(0), all);
        assert_eq!(after(1), if all > 1 { all - 1 } else { 1 });
        assert_eq!(after(all), all, "a task must run somewhere");
    }
}
