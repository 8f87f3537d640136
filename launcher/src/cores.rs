//! Which cores are the servers', and which are left to everybody else (`--reserve-cores`).
//!
//! In an allocation the agents keep their nodes' last cores for their servers, by their count. On this machine alone the
//! launcher notes which cores they are, so that a server that is started again, and whatever is run later, know them too.

use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

/// Restricts this process and its children to the last `count` of its cores.
pub(crate) fn keep_to_last(count: u32) -> Result<(), Failure> {
    let (_, last) = apart(own()?, count);
    if last.is_empty() { Ok(()) } else { keep_to(&last) }
}

/// Restricts this process and its children to all of its cores but the last `count`.
pub(crate) fn avoid_last(count: u32) -> Result<(), Failure> {
    let (_, last) = apart(own()?, count);
    leave(&last)
}

/// The last `count` of this process's cores; none if all are shared.
pub(crate) fn last(count: u32) -> Result<Vec<usize>, Failure> {
    Ok(apart(own()?, count).1)
}

/// Restricts this process and its children to its cores but these. One that has no others stays where it is.
pub(crate) fn leave(cores: &[usize]) -> Result<(), Failure> {
    let own = own()?;
    let rest: Vec<usize> = own.iter().copied().filter(|core| !cores.contains(core)).collect();
    if rest.is_empty() || rest == own { Ok(()) } else { keep_to(&rest) }
}

/// The cores that this process may run on.
pub(crate) fn own() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(None).map_err(|error| failed("looking at the cores of", error))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// These cores but the last `count`, and those. Where all cores are asked for, or there is one alone, everybody shares.
fn apart(mut cores: Vec<usize>, count: u32) -> (Vec<usize>, Vec<usize>) {
    let first = cores.len().saturating_sub(count as usize);
    let last = if first == 0 { Vec::new() } else { cores.split_off(first) };
    (cores, last)
}

fn keep_to(cores: &[usize]) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).map_err(|error| failed("setting the cores of", error))
}

fn failed(doing: &'static str, error: rustix::io::Errno) -> Failure {
    Failure::Io { doing, path: Path::new("this process").to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Affinity is a thread's: each case in a thread of its own.
    fn after(change: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Vec<usize> {
        std::thread::spawn(move || {
            change().unwrap();
            own().unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn servers_and_ranks_share_no_reserved_core() {
        let all = own().unwrap();
        let (servers, ranks) = (after(|| keep_to_last(1)), after(|| avoid_last(1)));
        if all.len() > 1 {
            assert_eq!(servers, all[all.len() - 1..]);
            assert_eq!(ranks, all[..all.len() - 1]);
            assert_eq!(last(1).unwrap(), servers);
        }
        assert_eq!(after(|| keep_to_last(100_000)), all, "too many: everybody shares");
        assert!(last(100_000).unwrap().is_empty() && last(0).unwrap().is_empty());
    }

    #[test]
    fn what_is_left_to_the_servers_is_left_once() {
        let all = own().unwrap();
        let servers = last(1).unwrap();
        let twice = move || leave(&servers).and_then(|()| leave(&servers));
        assert_eq!(after(twice), all[..(all.len() - 1).max(1)], "a command of a command has the same cores");
        let only = all.clone();
        assert_eq!(after(move || leave(&only)), all, "somewhere it has to run");
    }
}
