//! Transactions of this process: collective epochs, shared with other processes by a blob.
//!
//! Owns this process's part: whether it has joined, what it touched, whether an update failed. A failure is remembered and
//! fails the commit on all processes (docs/design.md §4 rule 5).

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use talea_model::{Cause, Order, Summary, TargetId, TxId, View};
use talea_wire::codec;
use talea_wire::control::{Begun, Committed, Reply, Request};
use talea_wire::data::ReplyHead;
use talea_wire::log::Lagging;
use talea_wire::{RefusalCode, WireError};

use crate::container::Container;
use crate::error::{ClientError, Result};

mod gate;

pub use gate::InFlight;
use gate::{Gate, Held};

const BLOB_VERSION: u16 = 1;
const OVER: &str = "it was committed, aborted or left";
/// How long a commit waits for a follower, in a container that holds its producer up ([`Lagging::Block`]).
const HELD_UP_MS: u64 = 3_600_000;

#[derive(Serialize, Deserialize)]
struct Blob {
    version: u16,
    begun: Begun,
}

/// A transaction, as this process takes part in it. Dropping it without commit or abort leaves it.
pub struct Epoch {
    container: Container,
    begun: Begun,
    joined: AtomicBool,
    gate: Gate,
    /// What it reads is noted, and its commit is another one.
    pub(crate) independent: bool,
    summary: Mutex<Summary>,
}

/// What a commit yielded.
pub struct CommitOutcome {
    /// The commit, or why there is none: then the epoch is over without trace.
    pub committed: Result<Committed>,
    /// The next epoch, if it was asked for; a refused commit has one as well.
    pub next: Option<Epoch>,
}

impl Epoch {
    pub(crate) fn new(container: Container, begun: Begun) -> Self {
        Self {
            container,
            begun,
            joined: AtomicBool::new(false),
            gate: Gate::default(),
            independent: false,
            summary: Mutex::new(Summary::default()),
        }
    }

    pub(crate) fn from_blob(container: Container, blob: &[u8]) -> Result<Self> {
        let bad = |source| ClientError::Wire { who: "the epoch's blob".to_owned(), source };
        let Blob { version, begun } = codec::decode(blob).map_err(bad)?;
        if version != BLOB_VERSION {
            return Err(bad(WireError::Version(version)));
        }
        if begun.container != container.id() {
            let text = format!("the epoch is of container {}, not of {}", begun.container, container.id());
            return Err(ClientError::Argument(text));
        }
        Ok(Self::new(container, begun))
    }

    /// Bytes that make a handle of the same epoch in any process ([`Container::join`]).
    pub fn blob(&self) -> Vec<u8> {
        codec::encode(&Blob { version: BLOB_VERSION, begun: self.begun.clone() }).unwrap_or_default()
    }

    /// Its container.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// The transaction.
    pub fn tx(&self) -> TxId {
        self.begun.tx
    }

    /// What the log said at its begin.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Reads inside the epoch: its own pending versions over its base.
    pub fn view(&self) -> View {
        View::Inside { tx: self.begun.tx, base: self.begun.base, position: self.begun.position }
    }

    /// Reads of the base alone. Readable for as long as the epoch is open.
    pub fn base(&self) -> View {
        View::Snapshot { stamp: self.begun.base, position: self.begun.position, lease: talea_model::LeaseId(0) }
    }

    pub(crate) fn order(&self) -> Order {
        Order::Pending(self.begun.tx)
    }

    /// Joins at the home server, once, before the first write (rule 3).
    pub fn enter(&self) -> Result<()> {
        self.container.client.block_on(self.enter_async())?
    }

    /// Asynchronous [`enter`](Self::enter).
    pub async fn enter_async(&self) -> Result<()> {
        if self.gate.is_over() {
            return Err(self.over(OVER));
        }
        if !self.joined.load(SeqCst) {
            // First, so that it goes along if the session moves meanwhile.
            self.container.client.shared.lock().joined.insert(self.begun.tx);
            // Once an epoch: boxed, so that each write's future stays small.
            Box::pin(self.container.client.control("joining an epoch", Request::Join { tx: self.begun.tx })).await?;
            self.joined.store(true, SeqCst);
        }
        Ok(())
    }

    pub(crate) fn over(&self, why: &str) -> ClientError {
        ClientError::Closed { tx: self.begun.tx.0, why: why.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of this epoch is about to be updated: until what it yields is dropped the epoch is not committed, and there is no
    /// summary of it. Updates and punches do this when they are called; it is for who starts them later than he says so.
    pub fn begin_update(&self) -> Result<InFlight> {
        self.gate.enter().ok_or_else(|| self.over(OVER))
    }

    /// Updates and punches of this handle that were begun and have not ended.
    pub fn in_flight(&self) -> usize {
        self.gate.in_flight()
    }

    fn held(&self, held: Held) -> ClientError {
        match held {
            Held::Over => self.over(OVER),
            Held::InFlight(count) => ClientError::InFlight { tx: self.begun.tx.0, count },
        }
    }

    /// Nothing is updated any more, if nothing is in flight; else all stays as it is.
    pub(crate) fn close(&self) -> Result<()> {
        self.gate.close().map_err(|held| self.held(held))
    }

    /// This process's part so far. While an update is in flight, which would be missing in it, it says that one has failed: no process
    /// commits with it. [`try_summary`](Self::try_summary) tells instead, and then the epoch can be committed later.
    pub fn summary(&self) -> Summary {
        self.try_summary().unwrap_or_else(|_| Summary { failed: true, ..self.part() })
    }

    /// This process's part so far. [`ClientError::InFlight`] while an update is in flight: what it writes would be missing in it.
    pub fn try_summary(&self) -> Result<Summary> {
        if let Err(held @ Held::InFlight(_)) = self.gate.check() {
            return Err(self.held(held));
        }
        let mut summary = self.lock().clone();
        summary.hlc = summary.hlc.max(self.container.client.shared.lock().hlc.last());
        Ok(summary)
    }

    /// This process's part, with the clocks of the targets that it wrote to alone.
    pub(crate) fn part(&self) -> Summary {
        self.lock().clone()
    }

    /// Remembers a failure that the caller met, such as a write that it could not even make.
    pub fn fail(&self) {
        self.fail_for(Cause::Other);
    }

    /// Remembers a failure and why: the commit's refusal, on whatever process, names it.
    pub(crate) fn fail_for(&self, cause: Cause) {
        let mut summary = self.lock();
        summary.failed = true;
        summary.cause = summary.cause.max(cause);
    }

    /// Whether an update of this process failed.
    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    pub(crate) fn applied(&self, target: TargetId, head: &ReplyHead) {
        let mut summary = self.lock();
        summary.touched.insert(target);
        summary.hlc = summary.hlc.max(head.hlc);
        summary.map_version = summary.map_version.min(head.map_version);
    }

    /// Commits on ONE process with all processes' summaries merged. `next`: begins the next epoch in the same request.
    ///
    /// Refused without any change, so that it can be called again: [`ClientError::InFlight`] while updates of this handle are in
    /// flight, and [`ClientError::Argument`] if the summary lacks what this handle wrote.
    pub fn commit(&self, summary: &Summary, attributes: &[u8], next: bool) -> CommitOutcome {
        self.commit_named(summary, attributes, None, next)
    }

    /// Asynchronous [`commit`](Self::commit).
    pub async fn commit_async(&self, summary: &Summary, attributes: &[u8], next: bool) -> CommitOutcome {
        self.commit_named_async(summary, attributes, None, next).await
    }

    /// As [`commit`](Self::commit), of an epoch in which a manifest was written under this number
    /// ([`Container::manifest_slot`]).
    pub fn commit_named(
        &self,
        summary: &Summary,
        attributes: &[u8],
        manifest: Option<u32>,
        next: bool,
    ) -> CommitOutcome {
        match self.container.client.block_on(self.commit_named_async(summary, attributes, manifest, next)) {
            Ok(outcome) => outcome,
            Err(error) => CommitOutcome { committed: Err(error), next: None },
        }
    }

    /// Asynchronous [`commit_named`](Self::commit_named).
    pub async fn commit_named_async(
        &self,
        summary: &Summary,
        attributes: &[u8],
        manifest: Option<u32>,
        next: bool,
    ) -> CommitOutcome {
        if let Err(error) = self.can_commit(summary).and_then(|()| self.close()) {
            return CommitOutcome { committed: Err(error), next: None };
        }
        let what = "committing an epoch";
        let (tx, attributes) = (self.begun.tx, attributes.to_vec());
        let request = Request::Commit { tx, summary: summary.clone(), attributes, manifest, next };
        let follow = |begun| Epoch::new(self.container.clone(), begun);
        let answer = match self.container.properties().lagging {
            Lagging::Block => self.container.client.control_for(what, request, HELD_UP_MS).await,
            Lagging::Keep | Lagging::Drop => self.container.client.control(what, request).await,
        };
        match answer {
            Ok(Reply::Committed(mut committed)) => {
                let next = committed.next.take().map(follow);
                CommitOutcome { committed: Ok(committed), next }
            }
            Ok(Reply::CommitFailed { refusal, next }) => {
                let failed = summary.failed && refusal.code == RefusalCode::Conflict;
                let error = if failed { ClientError::Failed { tx: tx.0 } } else { ClientError::refused(what, refusal) };
                CommitOutcome { committed: Err(error), next: Some(follow(next)) }
            }
            Ok(_) => CommitOutcome { committed: Err(ClientError::unexpected(what)), next: None },
            Err(error) => CommitOutcome { committed: Err(error), next: None },
        }
    }

    /// Whether a commit with this summary would be sent, or be refused here without any change.
    pub fn can_commit(&self, summary: &Summary) -> Result<()> {
        if self.independent {
            let text = "an independent transaction commits alone: Transaction::commit, talea_tx_commit";
            return Err(ClientError::Argument(text.to_owned()));
        }
        self.gate.check().map_err(|held| self.held(held))?;
        self.check_covered(summary)
    }

    /// A summary from before the last update would leave that one out, and say that all is well.
    fn check_covered(&self, summary: &Summary) -> Result<()> {
        let part = self.lock();
        let lacks_target = part.touched.iter().any(|target| !summary.touched.contains(target));
        if lacks_target || summary.hlc < part.hlc {
            let text = "this process has written since the summary was taken: nothing was committed, and the epoch is open \
                        still. Take its summary anew and merge it (Epoch::summary, talea_epoch_summary), then commit";
            return Err(ClientError::Argument(text.to_owned()));
        }
        Ok(())
    }

    /// Aborts, on ONE process: nothing of the epoch remains. The first of commit and abort wins.
    pub fn abort(&self, reason: &str) -> Result<()> {
        self.container.client.block_on(self.abort_async(reason))?
    }

    /// Asynchronous [`abort`](Self::abort).
    pub async fn abort_async(&self, reason: &str) -> Result<()> {
        self.gate.shut();
        let request = Request::Abort { tx: self.begun.tx, reason: reason.to_owned() };
        self.container.client.control("aborting an epoch", request).await.map(drop)
    }

    /// The process has no more to do with the epoch; it stays open for others.
    pub fn leave(self) -> Result<()> {
        self.container.client.block_on(self.leave_async())?
    }

    async fn leave_async(&self) -> Result<()> {
        if !self.gate.shut() || !self.joined.load(SeqCst) {
            return Ok(());
        }
        self.container.client.control("leaving an epoch", Request::Leave { tx: self.begun.tx }).await.map(drop)
    }

    /// Another process has committed or aborted it: there is nothing to leave.
    pub fn closed_elsewhere(self) {
        self.gate.shut();
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        let (tx, shared) = (self.begun.tx, &self.container.client.shared);
        if !shared.is_foreign() {
            shared.lock().joined.remove(&tx);
            if self.independent {
                shared.reads.end(tx);
            }
        }
        match (self.gate.is_over(), self.independent, *self.joined.get_mut()) {
            (false, true, _) => shared.tell(Request::Abort { tx, reason: "its program dropped it".to_owned() }),
            (false, false, true) => shared.tell(Request::Leave { tx }),
            _ => {}
        }
    }
}
