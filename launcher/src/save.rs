//! Staging around a job: in before the command, out after it, and out in between when the job is about to hit its wall time or
//! somebody asks for it with SIGUSR1 (`#SBATCH --signal=B:USR1@300`). What goes out is always what is committed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use talea_client::Client;
use talea_slurm::{Allocation, step};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::notice::say;
use crate::stage::{Nodes, Options, Order, Receipt, Stage};

/// How long Slurm may take to say how much time is left.
const ASK: Duration = Duration::from_secs(10);

/// Why it is time to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Somebody sent SIGUSR1.
    Asked,
    /// The job is about to hit its wall time.
    Limit,
}

/// What becomes of a job's orders to stage.
pub(crate) struct Saver {
    client: Client,
    out: Vec<Order>,
    nodes: Option<Nodes>,
    quiet: bool,
    asked: Signal,
    /// When the job is about to hit its wall time.
    limit: Option<Instant>,
    give_up: Arc<AtomicBool>,
    working: Option<JoinHandle<Vec<Result<Receipt, Failure>>>>,
    /// What was staged so far.
    pub(crate) receipts: Vec<Receipt>,
}

impl Saver {
    /// A saver for these orders of a system; `before`: how long before the wall time it begins.
    pub(crate) async fn new(
        client: &Client,
        system: &str,
        out: Vec<Order>,
        before: Duration,
        allocation: Option<&Allocation>,
        quiet: bool,
    ) -> Result<Self, Failure> {
        let asked = signal(SignalKind::user_defined1()).map_err(Failure::io("listening for", "SIGUSR1"))?;
        let left = match allocation.filter(|_| !out.is_empty()) {
            Some(allocation) => time_left(allocation).await,
            None => None,
        };
        let limit = left.map(|left| Instant::now() + begins_after(left, before));
        let nodes = allocation.map(|all| Nodes { allocation: all.clone(), system: system.to_owned() });
        let (client, give_up) = (client.clone(), Arc::default());
        Ok(Self { client, out, nodes, quiet, asked, limit, give_up, working: None, receipts: vec![] })
    }

    /// What ends all copying when it is set.
    pub(crate) fn give_up(&self) -> Arc<AtomicBool> {
        self.give_up.clone()
    }

    /// Stages in. A failure of any file is one of the whole.
    pub(crate) async fn bring_in(&mut self, orders: &[Order]) -> Result<(), Failure> {
        for receipt in self.carry_out(orders.to_vec()).await {
            let receipt = receipt?;
            say(self.quiet, format_args!("staged in {receipt}"));
            let failure = receipt.first_failure();
            self.receipts.push(receipt);
            if let Some(failure) = failure {
                return Err(Failure::Usage(format!("staging in failed, the command was not started: {failure}")));
            }
        }
        Ok(())
    }

    /// Resolves when it is time to save what is committed.
    pub(crate) async fn due(&mut self) -> Due {
        if self.out.is_empty() || self.working.is_some() {
            return std::future::pending().await;
        }
        let limit = self.limit;
        let reached = async {
            match limit {
                Some(limit) => tokio::time::sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        let due = tokio::select! {
            _ = self.asked.recv() => {
                say(self.quiet, format_args!("SIGUSR1: staging out what is committed"));
                Due::Asked
            }
            () = reached => {
                say(self.quiet, format_args!("the job is about to hit its wall time: staging out what is committed"));
                Due::Limit
            }
        };
        self.limit = None;
        due
    }

    /// Begins to save beside the command, unless there is nothing to save or it is being done.
    pub(crate) fn begin(&mut self) {
        if self.out.is_empty() || self.working.is_some() {
            return;
        }
        let (work, quiet) = (self.work(self.out.clone()), self.quiet);
        self.working = Some(tokio::task::spawn_blocking(move || {
            let results = work();
            for receipt in results.iter().flatten() {
                say(quiet, format_args!("saved {receipt}"));
            }
            results
        }));
    }

    /// Stages out what was not yet, after the command's end. Says whether all is out.
    pub(crate) async fn finish(&mut self) -> bool {
        let mut before = vec![];
        if let Some(working) = self.working.take() {
            before = working.await.unwrap_or_default().into_iter().flatten().collect();
        }
        let mut good = true;
        for order in self.out.clone() {
            let earlier = before.iter().position(|r: &Receipt| r.source == order.source && r.failed == 0);
            let receipt = match earlier.map(|at| before.remove(at)) {
                Some(receipt) if self.is_current(&order, receipt.step) => Ok(receipt),
                _ => self
                    .carry_out(vec![order.clone()])
                    .await
                    .pop()
                    .unwrap_or_else(|| Err(Failure::Usage(String::new()))),
            };
            match receipt {
                Ok(receipt) => {
                    good &= receipt.failed == 0;
                    say(self.quiet && receipt.failed == 0, format_args!("staged out {receipt}"));
                    self.receipts.push(receipt);
                }
                Err(failure) => {
                    eprintln!("talea: {} was NOT staged out: {failure}", order.source);
                    good = false;
                }
            }
        }
        good
    }

    /// Whether nothing was committed since a copy of that step.
    fn is_current(&self, order: &Order, step: u64) -> bool {
        let container = talea_posix::TaleaPath::parse(order.source.as_bytes()).map(|path| path.container);
        let list = self.client.container_list().unwrap_or_default();
        step > 0 && list.iter().any(|info| Ok(&info.name) == container.as_ref() && info.step.0 == step)
    }

    async fn carry_out(&self, orders: Vec<Order>) -> Vec<Result<Receipt, Failure>> {
        tokio::task::spawn_blocking(self.work(orders)).await.unwrap_or_default()
    }

    fn work(&self, orders: Vec<Order>) -> impl FnOnce() -> Vec<Result<Receipt, Failure>> + Send + 'static {
        let (client, quiet, nodes) = (self.client.clone(), self.quiet, self.nodes.clone());
        let give_up = self.give_up.clone();
        move || {
            let stage = Stage::new(&client, Options { quiet, nodes, give_up, ..Options::default() });
            orders.iter().map(|order| stage.carry_out(order)).collect()
        }
    }

    /// Writes all receipts to a file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        crate::command::copy::write(path, &self.receipts)
    }
}

/// How long from now saving begins, with `left` until the wall time: `before` that, or in the last tenth of a shorter job.
fn begins_after(left: Duration, before: Duration) -> Duration {
    if before < left { left - before } else { left - left / 10 }
}

/// What Slurm says is left of a job's time; `None` if it has no limit or Slurm does not answer.
async fn time_left(allocation: &Allocation) -> Option<Duration> {
    let mut squeue = tokio::process::Command::new("squeue");
    squeue.args(["--noheader", "--jobs", &allocation.job.to_string(), "--Format", "TimeLeft:24"]);
    squeue.stderr(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ASK, squeue.output()).await.ok()?.ok()?;
    step::seconds(&String::from_utf8_lossy(&output.stdout)).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_begins_before_the_wall_time_of_long_and_of_short_jobs() {
        let seconds = Duration::from_secs;
        assert_eq!(begins_after(seconds(3600), seconds(120)), seconds(3480));
        assert_eq!(begins_after(seconds(60), seconds(50)), seconds(10));
        assert_eq!(begins_after(seconds(60), seconds(120)), seconds(54));
        assert_eq!(begins_after(seconds(0), seconds(120)), seconds(0));
    }
}
