//! What processes say of themselves, now and then and at their end, for the record of a job; the last word of each counts. Kept by
//! the leader in memory: figures for people, which a new leader may lack until they are told again, and nothing that anything
//! rests on.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use talea_wire::figures::{MAX_NAME_BYTES, ProcessFigures, Reports};

/// Lines kept; of more processes those with the most time in calls.
const KEPT: usize = 2048;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// Last words, by process.
    lines: HashMap<u64, ProcessFigures>,
    /// Processes that have said anything.
    seen: HashSet<u64>,
}

impl Reported {
    /// Notes what a process said.
    pub(super) fn add(&mut self, mut figures: ProcessFigures) {
        cut(&mut figures.program);
        cut(&mut figures.host);
        let process = process_of(&figures);
        self.seen.insert(process);
        let is_late = |known: &ProcessFigures| known.elapsed_ns > figures.elapsed_ns;
        if !self.lines.get(&process).is_some_and(is_late) {
            self.lines.insert(process, figures);
        }
        if self.lines.len() >= 2 * KEPT {
            let busiest = self.busiest();
            self.lines = busiest.into_iter().map(|line| (process_of(&line), line)).collect();
        }
    }

    /// All that is kept, the busiest first.
    pub(super) fn tell(&self) -> Reports {
        Reports { processes: self.seen.len() as u64, lines: self.busiest() }
    }

    fn busiest(&self) -> Vec<ProcessFigures> {
        let mut lines: Vec<ProcessFigures> = self.lines.values().cloned().collect();
        lines.sort_by_key(|line| (std::cmp::Reverse(line.io_ns), line.rank));
        lines.truncate(KEPT);
        lines
    }
}

/// Which process figures are of.
fn process_of(figures: &ProcessFigures) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&figures.host, &figures.program, figures.rank, figures.began_unix_us).hash(&mut hasher);
    hasher.finish()
}

/// Names are the client's word, and count towards a message's limit.
fn cut(name: &mut String) {
    let end = (0..=MAX_NAME_BYTES.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_processes_leave_the_busiest() {
        let mut reported = Reported::default();
        for io_ns in 0..10_000_u64 {
            let began_unix_us = io_ns;
            reported.add(ProcessFigures {
                io_ns,
                began_unix_us,
                program: "é".repeat(100),
                ..ProcessFigures::default()
            });
        }
        let told = reported.tell();
        assert_eq!((told.processes, told.lines.len()), (10_000, KEPT));
        assert!(told.lines.iter().all(|line| line.io_ns >= 10_000 - 2 * KEPT as u64));
        assert!(told.lines.iter().any(|line| line.io_ns == 9_999));
        assert!(told.lines.iter().all(|line| line.program.len() <= MAX_NAME_BYTES));
        let reply = talea_wire::codec::encode(&talea_wire::control::Reply::Reports(told)).unwrap();
        assert!(reply.len() < talea_wire::codec::MAX_CONTROL_BYTES, "{}", reply.len());
    }

    #[test]
    fn the_last_word_of_a_process_counts_once() {
        let mut reported = Reported::default();
        let say = |elapsed_ns, calls, rank| ProcessFigures { elapsed_ns, calls, rank, ..ProcessFigures::default() };
        for figures in [say(1, 10, Some(0)), say(1, 5, Some(1)), say(3, 30, Some(0)), say(2, 20, Some(0))] {
            reported.add(figures);
        }
        let told = reported.tell();
        assert_eq!(told.processes, 2);
        assert_eq!(told.lines.iter().map(|line| line.calls).collect::<Vec<_>>(), [30, 5]);
    }
}
