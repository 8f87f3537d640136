//! A group of servers behind one process: a local `talead`, or an `srun` step that runs one on each node.
//!
//! Owns the process's standard input (closing it tells the servers to end) and reads its standard output line by line.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::config::{LeaderLine, ServerLine};
use crate::failure::Failure;

/// Lines of a process's standard output.
pub(crate) type Reader = Lines<BufReader<ChildStdout>>;

/// Servers behind one process.
pub(crate) struct Group {
    /// For messages: `0`, or `0-3`.
    pub(crate) label: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Option<Reader>,
    log: PathBuf,
    /// Its end has been told.
    told: bool,
}

impl Group {
    /// Starts `program` with `arguments` and sends it the configuration. Its standard error goes to `log`.
    pub(crate) async fn start<T: serde::Serialize>(
        label: String,
        program: &Path,
        arguments: &[String],
        config: &T,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        let mut group = Self::spawn(label, program, arguments, log)?;
        group.tell(config).await?;
        Ok(group)
    }

    /// Starts `program` without a word to it yet.
    pub(crate) fn spawn(label: String, program: &Path, arguments: &[String], log: PathBuf) -> Result<Self, Failure> {
        // A server that is started again leaves its last words where they are.
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
        let file = file.map_err(Failure::io("creating", &log))?;
        let mut command = Command::new(program);
        talea_slurm::step::MISLEADING.iter().for_each(|name| _ = command.env_remove(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        // A group of its own: Ctrl-C on the terminal is for the command, and for us to pass on.
        command.process_group(0);
        let mut child = command.spawn().map_err(Failure::io("starting", program))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Usage("a server was started without pipes".to_owned()));
        };
        let output = BufReader::new(output).lines();
        Ok(Self { label, child, input: Some(input), output: Some(output), log, told: false })
    }

    /// Takes the lines over from this group.
    pub(crate) fn take_reader(&mut self) -> Option<Reader> {
        self.output.take()
    }

    /// Where its standard error goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends one line.
    pub(crate) async fn tell<T: serde::Serialize>(&mut self, message: &T) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        let Some(input) = &mut self.input else { return Ok(()) };
        let sent = match input.write_all(&line).await {
            Ok(()) => input.flush().await,
            error => error,
        };
        match sent {
            Ok(()) => Ok(()),
            // It ended already: its own words say more than "broken pipe".
            Err(_) => Err(self.ended().await),
        }
    }

    /// Tells the servers where the leader is.
    pub(crate) async fn tell_leader(&mut self, leader: &[String]) -> Result<(), Failure> {
        self.tell(&LeaderLine { leader: leader.to_vec() }).await
    }

    /// The next line of a server; other output is passed over. Fails if the process ends.
    pub(crate) async fn next_line(&mut self) -> Result<ServerLine, Failure> {
        loop {
            let Some(output) = &mut self.output else { return Err(self.ended().await) };
            match output.next_line().await {
                Ok(Some(text)) => {
                    if let Ok(line) = serde_json::from_str(&text) {
                        return Ok(line);
                    }
                }
                _ => return Err(self.ended().await),
            }
        }
    }

    /// Closes the servers' standard input for good without ending them (they were told that they are detached).
    pub(crate) fn detach(mut self) {
        self.input = None;
    }

    /// Whether its process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Resolves once, when the process or a server behind it has ended, with why.
    pub(crate) async fn one_ended(&mut self) -> Failure {
        if self.told {
            return std::future::pending().await;
        }
        loop {
            match self.next_line().await {
                Ok(ServerLine::Ended { ended, host, status, log }) => {
                    return Failure::ServerEnded { server: format!("{ended} on {host}"), status, log };
                }
                Ok(_) => {}
                Err(failure) => {
                    self.told = true;
                    return failure;
                }
            }
        }
    }

    /// Resolves when the process has ended, with why.
    pub(crate) async fn ended(&mut self) -> Failure {
        let status = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Failure::ServerEnded { server: self.label.clone(), status, log: tail(&self.log) }
    }

    /// Ends the servers: first by closing their input, after `patience` by SIGTERM, then by SIGKILL.
    pub(crate) async fn stop(mut self, patience: std::time::Duration) {
        use std::time::Duration;
        self.input = None;
        if tokio::time::timeout(patience, self.child.wait()).await.is_ok() {
            return;
        }
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_millis(2000), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The last lines of a log, without those of the library that keeps the pool's log: they tell people nothing.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    // A time, a level, the module.
    let is_own = |line: &&str| !line.split_whitespace().nth(2).is_some_and(|module| module.starts_with("openraft"));
    let lines: Vec<&str> = text.lines().rev().filter(is_own).take(12).collect();
    lines.into_iter().rev().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_a_servers_own() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("server-0.log");
        let own = "2026-11-27T14:48:40.889012Z  INFO talea_control::node::log: leading the pool's log server=0 term=1";
        let theirs =
            "2026-11-27T14:48:40.888948Z  INFO openraft::engine::engine_impl: a quorum granted my vote\n".repeat(20);
        std::fs::write(&log, format!("{own}\nthread 'main' panicked: openraft\n{theirs}")).unwrap();
        assert_eq!(tail(&log), format!("  {own}\n  thread 'main' panicked: openraft"));
    }
}
