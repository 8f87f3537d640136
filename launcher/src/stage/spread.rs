//! Copying by all nodes of an allocation: the launcher's side.
//!
//! This process begins and ends every file and keeps its journal; one step with a carrier a node ([`super::carrier`]) copies
//! the segments between. What a carrier does not bring in time, or cannot reach, is copied here: a node's loss costs time only.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use talea_slurm::{Allocation, step};

use super::transfer::Transfer;
use crate::failure::Failure;

/// A carrier that has been silent for so long is not waited for; they speak every [`ALIVE`].
const SILENCE: Duration = Duration::from_secs(15);
/// How often a carrier says that it lives.
pub(super) const ALIVE: Duration = Duration::from_secs(2);

/// Who else can copy.
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    pub(crate) allocation: Allocation,
    /// Name of the system, which every node of the allocation knows.
    pub(crate) system: String,
}

/// What the carriers are told: one line, the same for all. The carrier with place `n` of `m` has every m-th segment from `n` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) system: String,
    pub(super) workers: usize,
    pub(super) files: Vec<LoadFile>,
    /// File and number of each segment.
    pub(super) segments: Vec<(usize, u64)>,
}

/// A file of a [`Load`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LoadFile {
    /// Into a container, or out of one.
    pub(super) into: bool,
    /// What its opening in Talea gave.
    pub(super) shared: Vec<u8>,
    /// What came of cutting it.
    pub(super) cut: Option<Vec<u8>>,
    /// The local side, which counts only if it is the same file there.
    pub(super) local: std::path::PathBuf,
    pub(super) mark: Mark,
    pub(super) bytes: u64,
}

/// By which nodes know that they see the same file of a shared file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    inode: u64,
    bytes: u64,
    /// Of a file that is read; one that is being written changes it.
    modified_ns: Option<i64>,
}

impl Mark {
    pub(super) fn of(file: &std::fs::File, written: bool) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = file.metadata()?;
        let modified_ns = (!written).then(|| meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec()));
        Ok(Self { inode: meta.ino(), bytes: meta.len(), modified_ns })
    }
}

/// What a carrier says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Word {
    /// Its place.
    pub(super) from: u32,
    pub(super) said: Said,
}

/// See [`Word`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Alive,
    /// A segment is copied; its checksum.
    Segment {
        file: usize,
        number: u64,
        crc64: u64,
    },
    /// All that it wrote into a container is at its place, and counted here.
    Summary {
        file: usize,
        summary: Vec<u8>,
    },
    /// It cannot copy this; the launcher may.
    Cannot {
        file: usize,
        why: String,
    },
    /// It is done with the load.
    Done,
}

/// The carriers of an allocation.
pub(super) struct Spread {
    child: Child,
    input: Option<ChildStdin>,
    words: Receiver<Word>,
    system: String,
    alive: BTreeSet<u32>,
}

impl Spread {
    /// Starts a carrier on each node.
    pub(super) fn begin(nodes: &Nodes) -> Result<Self, Failure> {
        let mut arguments = step::one_a_node(&nodes.allocation);
        arguments.extend([crate::locate::own()?.display().to_string(), "carry".to_owned()]);
        let mut command = Command::new("srun");
        step::MISLEADING.iter().for_each(|name| _ = command.env_remove(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(Failure::io("starting", "srun"))?;
        let (sender, words) = channel();
        let output = child.stdout.take();
        let listen = move || {
            for line in output.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
                if let Ok(word) = serde_json::from_str(&line)
                    && sender.send(word).is_err()
                {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("carriers".into())
            .spawn(listen)
            .map_err(Failure::io("starting", "a thread"))?;
        let input = child.stdin.take();
        let alive = (0..nodes.allocation.nodes).collect();
        Ok(Self { child, input, words, system: nodes.system.clone(), alive })
    }

    /// Lets the carriers copy what they can of these files. What they could not is still to be done afterwards.
    pub(super) fn carry(&mut self, files: &[Transfer], workers: usize, bar: &ProgressBar) {
        let segments: Vec<(usize, u64)> =
            files.iter().enumerate().flat_map(|(at, file)| file.missing().map(move |number| (at, number))).collect();
        if segments.is_empty() {
            return;
        }
        let files_told = files.iter().map(Transfer::load).collect();
        let load = Load { system: self.system.clone(), workers, files: files_told, segments };
        let mut line = serde_json::to_vec(&load).unwrap_or_default();
        line.push(b'\n');
        let told = self.input.as_mut().map(|input| input.write_all(&line).and_then(|()| input.flush()));
        if !matches!(told, Some(Ok(()))) {
            self.alive.clear();
        }
        let mut waiting = self.alive.clone();
        let mut heard: Vec<(u32, Instant)> = waiting.iter().map(|from| (*from, Instant::now())).collect();
        while !waiting.is_empty() {
            match self.words.recv_timeout(ALIVE) {
                Ok(Word { from, said }) => {
                    heard.iter_mut().filter(|(who, _)| *who == from).for_each(|(_, when)| *when = Instant::now());
                    // One that was given up may still speak: what it brings then is not counted.
                    if waiting.contains(&from) && take(files, &said, bar) {
                        waiting.remove(&from);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.alive.clear(),
            }
            let silent = heard.iter().filter(|(_, when)| when.elapsed() > SILENCE).map(|(from, _)| *from);
            silent.for_each(|from| _ = self.alive.remove(&from));
            waiting.retain(|from| self.alive.contains(from));
        }
    }

    /// How many carry.
    pub(super) fn nodes(&self) -> usize {
        self.alive.len()
    }

    /// Ends the carriers, after the files have ended: a writer that goes before its epoch's commit aborts it.
    pub(super) fn end(mut self) {
        self.input = None;
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes a word in; true: its carrier is done.
fn take(files: &[Transfer], said: &Said, bar: &ProgressBar) -> bool {
    match said {
        Said::Segment { file, number, crc64 } => {
            if let Some(transfer) = files.get(*file) {
                bar.inc(transfer.copied(*number, *crc64));
            }
            false
        }
        Said::Summary { file, summary } => {
            files.get(*file).into_iter().for_each(|transfer| transfer.counted(summary));
            false
        }
        Said::Alive | Said::Cannot { .. } => false,
        Said::Done => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_went() {
        for said in [Said::Alive, Said::Done, Said::Segment { file: 1, number: 2, crc64: u64::MAX }] {
            let word = Word { from: 3, said };
            let text = serde_json::to_string(&word).unwrap();
            assert_eq!(serde_json::from_str::<Word>(&text).unwrap(), word);
        }
    }

    #[test]
    fn another_nodes_file_of_the_same_name_is_known() {
        let mut one = tempfile::tempfile().unwrap();
        let mut two = tempfile::tempfile().unwrap();
        one.write_all(b"same").unwrap();
        two.write_all(b"same").unwrap();
        assert_ne!(Mark::of(&one, false).unwrap(), Mark::of(&two, false).unwrap());
        assert_eq!(Mark::of(&one, false).unwrap(), Mark::of(&one, false).unwrap());
    }
}
