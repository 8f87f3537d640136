//! What was staged, for people and programs.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use talea_model::size::Iec;

use super::order::{Direction, Order};
use super::transfer::Done;
use crate::notice::count;

/// How a file fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Copied.
    Copied,
    /// Was there already, with the same content.
    Same,
    /// Not a file or directory that can be copied.
    Skipped,
    /// Not copied.
    Failed,
}

/// One file of a receipt.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FileLine {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) outcome: Outcome,
    pub(crate) bytes: u64,
    /// Bytes that were there from an earlier, cut-off copy.
    pub(crate) resumed_bytes: u64,
    /// CRC-64/NVME of the whole file, in hexadecimal.
    pub(crate) crc64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What came of an order.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Receipt {
    /// Version of this form: 1.
    pub(crate) version: u32,
    pub(crate) direction: Direction,
    pub(crate) source: String,
    pub(crate) destination: String,
    /// Last committed step that the copy contains; 0 for copies in, and for containers without steps.
    pub(crate) step: u64,
    /// Beginning, in seconds since 1970.
    pub(crate) began_unix: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    /// Nodes that copied.
    pub(crate) nodes: usize,
    pub(crate) failed: usize,
    pub(crate) files: Vec<FileLine>,
}

impl Receipt {
    pub(super) fn begin(order: &Order) -> Self {
        Self {
            version: 1,
            direction: order.direction,
            source: order.source.clone(),
            destination: order.destination.clone(),
            step: 0,
            began_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            seconds: 0.0,
            bytes: 0,
            nodes: 1,
            failed: 0,
            files: vec![],
        }
    }

    pub(super) fn end(&mut self, took: Duration) {
        self.seconds = took.as_secs_f64();
    }

    pub(super) fn done(&mut self, source: String, destination: String, done: Done) {
        self.bytes += done.bytes;
        let outcome = if done.same { Outcome::Same } else { Outcome::Copied };
        self.files.push(FileLine {
            source,
            destination,
            outcome,
            bytes: done.bytes,
            resumed_bytes: done.resumed_bytes,
            crc64: format!("{:016x}", done.crc64),
            error: None,
        });
    }

    pub(super) fn failed(&mut self, source: String, destination: String, error: String) {
        self.failed += 1;
        self.other(source, destination, Outcome::Failed, error);
    }

    /// Says in its errors what the order names, where the copy was of a snapshot of it.
    pub(super) fn reword(&mut self, from: &str, to: &str) {
        for error in self.files.iter_mut().filter_map(|line| line.error.as_mut()) {
            *error = error.replace(from, to);
        }
    }

    /// What is neither file nor directory.
    pub(super) fn skipped(&mut self, others: &[String]) {
        for other in others {
            self.other(other.clone(), String::new(), Outcome::Skipped, "neither a file nor a directory".to_owned());
        }
    }

    fn other(&mut self, source: String, destination: String, outcome: Outcome, error: String) {
        let (bytes, resumed_bytes, crc64) = (0, 0, String::new());
        self.files.push(FileLine { source, destination, outcome, bytes, resumed_bytes, crc64, error: Some(error) });
    }

    /// The first failure, for a message.
    pub(crate) fn first_failure(&self) -> Option<String> {
        let line = self.files.iter().find(|line| line.outcome == Outcome::Failed)?;
        Some(format!("{}: {}", line.source, line.error.as_deref().unwrap_or_default()))
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = Iec((self.bytes as f64 / self.seconds.max(1e-9)) as u64);
        let files = self.files.iter().filter(|l| matches!(l.outcome, Outcome::Copied | Outcome::Same)).count() as u64;
        let step = if self.step > 0 { format!(" as of step {}", self.step) } else { String::new() };
        write!(
            f,
            "{} to {}{step}: {}, {} in {:.2} s ({rate}/s)",
            self.source,
            self.destination,
            count(files, "file"),
            Iec(self.bytes),
            self.seconds
        )?;
        if self.nodes > 1 {
            write!(f, ", by {} nodes", self.nodes)?;
        }
        let same = self.files.iter().filter(|line| line.outcome == Outcome::Same).count();
        if same > 0 {
            write!(f, "; {same} of them there already")?;
        }
        let left_out = || self.files.iter().filter(|line| line.outcome == Outcome::Skipped);
        if let Some(first) = left_out().next() {
            let links = count(left_out().count() as u64, "symbolic link or special file");
            write!(f, "; LEFT OUT: {links}, the first: {}", first.source)?;
        }
        if self.failed > 0 {
            write!(f, "; {} FAILED, the first: {}", self.failed, self.first_failure().unwrap_or_default())?;
        }
        Ok(())
    }
}
