//! What processes say of themselves at their end, for the record of a job. Kept by the leader in memory: figures for people,
//! which a new leader may lack, and nothing that anything rests on.

use talea_wire::figures::{MAX_NAME_BYTES, ProcessFigures, Reports};

/// Lines kept; of more processes those with the most time in calls.
const KEPT: usize = 2048;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Reported(Reports);

impl Reported {
    /// Notes what a process said.
    pub(super) fn add(&mut self, mut figures: ProcessFigures) {
        cut(&mut figures.program);
        cut(&mut figures.host);
        self.0.processes += 1;
        self.0.lines.push(figures);
        if self.0.lines.len() >= 2 * KEPT {
            self.shorten();
        }
    }

    /// All that is kept.
    pub(super) fn tell(&mut self) -> Reports {
        self.shorten();
        self.0.clone()
    }

    fn shorten(&mut self) {
        if self.0.lines.len() > KEPT {
            self.0.lines.sort_by_key(|line| std::cmp::Reverse(line.io_ns));
            self.0.lines.truncate(KEPT);
        }
    }
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
            reported.add(ProcessFigures { io_ns, program: "é".repeat(100), ..ProcessFigures::default() });
        }
        let told = reported.tell();
        assert_eq!((told.processes, told.lines.len()), (10_000, KEPT));
        assert!(told.lines.iter().all(|line| line.io_ns >= 10_000 - 2 * KEPT as u64));
        assert!(told.lines.iter().any(|line| line.io_ns == 9_999));
        assert!(told.lines.iter().all(|line| line.program.len() <= MAX_NAME_BYTES));
        let reply = talea_wire::codec::encode(&talea_wire::control::Reply::Reports(told)).unwrap();
        assert!(reply.len() < talea_wire::codec::MAX_CONTROL_BYTES, "{}", reply.len());
    }
}
