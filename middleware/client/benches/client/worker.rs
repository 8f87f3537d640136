//! This program as another process: the other end of a floor, or one more client. It says a line when it is ready, begins
//! at a line from its parent, and says a line of results.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::{compute, floor, load, provider};

/// The first argument of a worker.
pub(crate) const FLAG: &str = "--worker";

/// A worker as its parent sees it.
pub(crate) struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts one and waits until it is ready; gives what it said.
    pub(crate) fn start(arguments: &[String]) -> (Self, String) {
        let program = std::env::current_exe().expect("our own path");
        let mut child = Command::new(program)
            .arg(FLAG)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("another process of this program");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut worker = Worker { stdin: child.stdin.take(), child, lines };
        let said = worker.line();
        (worker, said)
    }

    fn line(&mut self) -> String {
        self.lines.next().and_then(Result::ok).expect("the worker says a line")
    }

    pub(crate) fn go(&mut self) {
        self.stdin.as_mut().and_then(|stdin| writeln!(stdin, "go").ok()).expect("the worker listens");
    }

    /// The worker's results.
    pub(crate) fn results(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("a line of JSON")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Says that all is prepared, and waits for the word to begin; false: there will be none.
pub(crate) fn ready(said: &str) -> bool {
    println!("{said}");
    std::io::stdin().lines().next().is_some()
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or(0)
}

/// The worker's side.
pub(crate) fn run(arguments: &[String]) {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["pong", fabric, mode] => floor::pong(fabric, mode),
        ["provider", there, back] => provider::pong(number(there), number(back)),
        ["load", ..] => load::worker(&words[1..]),
        ["compute"] => compute::worker(),
        ["tmpfs", ..] => floor::tmpfs_worker(&words[1..]),
        _ => eprintln!("unknown worker {words:?}"),
    }
}
