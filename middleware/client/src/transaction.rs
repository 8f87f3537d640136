//! Independent transactions: reads and writes of one process over any objects of a container, committed together if nothing
//! that was read has changed (docs/design.md §4 rule 15).
//!
//! Optimistic: nobody waits for anybody, and whoever comes too late is told [`ErrorKind::Conflict`] and begins anew. Owns the
//! course of a commit: one round to the leaders that were read from, one entry in the log. There is no second phase.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use talea_model::limit::{MAX_EXTENTS, MAX_NAMED_TX};
use talea_model::{Extent, MapVersion, Oid, Stamp, Summary, TargetId, TxId};
use talea_wire::control::{Committed, Reply, Request};
use talea_wire::data::{Body, Prepare, Read, ReadOf, ReplyBody};
use talea_wire::{Refusal, RefusalCode};

use crate::client::gather;
use crate::container::Container;
use crate::core::exchange::{Answer, Question};
use crate::epoch::Epoch;
use crate::error::{ClientError, ErrorKind, Result};
use crate::object::Write;

/// How far ahead of now the first bound of a commit lies, in microseconds, and how far any one.
const SLACK_US: u64 = 20_000;
const SLACK_US_MAX: u64 = 1_000_000;
/// A bound is at least so many stamps ahead of all that this process has seen.
const SLACK_STAMPS: u64 = 4096;
/// Reads of one message; their keys' bytes are bounded, too.
const READS_A_MESSAGE: usize = 1024;
const READ_BYTES_A_MESSAGE: usize = 256 * 1024;
const WHAT: &str = "committing a transaction";

/// An independent transaction. Reads with [`Epoch::view`] and writes with [`write`](Self::write); what it reads is noted.
/// Dropping it without commit aborts it.
pub struct Transaction(Epoch);

impl Deref for Transaction {
    type Target = Epoch;
    fn deref(&self) -> &Epoch {
        &self.0
    }
}

impl Transaction {
    /// How its updates are written.
    pub fn write(&self) -> Write<'_> {
        Write::Inside(&self.0)
    }

    /// Commits. [`ErrorKind::Conflict`]: something that was read has changed, and nothing of the transaction remains: begin it
    /// anew. Its updates borrow it, so that none is in flight here.
    pub fn commit(self) -> Result<Committed> {
        self.0.commit_independent()
    }

    /// Asynchronous [`commit`](Self::commit).
    pub async fn commit_async(self) -> Result<Committed> {
        self.0.commit_independent_async().await
    }

    /// The handle alone, for those who keep epochs and transactions alike; [`Epoch::commit_independent`] commits it.
    pub fn into_epoch(self) -> Epoch {
        self.0
    }
}

impl Container {
    /// Begins an independent transaction of this process.
    pub fn tx_open(&self) -> Result<Transaction> {
        self.client.block_on(self.tx_open_async())?
    }

    /// Asynchronous [`tx_open`](Self::tx_open).
    pub async fn tx_open_async(&self) -> Result<Transaction> {
        let mut epoch = self.begin_async(false).await?;
        epoch.independent = true;
        self.client.shared.reads.begin(epoch.tx());
        Ok(Transaction(epoch))
    }

    /// Does `work` in a transaction and commits it; begins anew when another one was faster, until the deadline.
    pub fn transact<T>(&self, mut work: impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
        let deadline_ns = self.client.times().deadline_ns;
        let mut tries = 0;
        loop {
            let transaction = self.tx_open()?;
            let done = work(&transaction);
            let result = match done {
                Ok(done) => transaction.commit().map(|_| done),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.kind() == ErrorKind::Conflict && self.client.shared.now_ns() < deadline_ns => {
                    self.client.block_on(self.client.shared.back_off(tries, deadline_ns))?;
                    tries += 1;
                }
                result => return result,
            }
        }
    }
}

/// What the leaders said.
struct Prepared {
    map_version: MapVersion,
    named: BTreeSet<TxId>,
}

impl Epoch {
    /// Whether it is an independent transaction.
    pub fn is_independent(&self) -> bool {
        self.independent
    }

    /// Commits an independent transaction ([`Container::tx_open`]). [`ErrorKind::InFlight`] while updates of it are in flight: nothing
    /// was done then, and it can be committed again.
    pub fn commit_independent(&self) -> Result<Committed> {
        self.container().client.block_on(self.commit_independent_async())?
    }

    /// Asynchronous [`commit_independent`](Self::commit_independent).
    pub async fn commit_independent_async(&self) -> Result<Committed> {
        if !self.independent {
            return Err(ClientError::Argument("a collective epoch commits with its processes' summaries".to_owned()));
        }
        self.close()?;
        let shared = &self.container().client.shared;
        let reads = shared.reads.of(self.tx());
        shared.reads.end(self.tx());
        let result = if self.has_failed() {
            Err(ClientError::Failed { tx: self.tx().0 })
        } else {
            self.commit_reads(&reads).await
        };
        if result.is_err() {
            // Closed already, as a rule. Where its fate is not known, the first of the two wins.
            let reason = "its commit failed".to_owned();
            shared.tell(Request::Abort { tx: self.tx(), reason });
        }
        result
    }

    async fn commit_reads(&self, reads: &BTreeSet<Read>) -> Result<Committed> {
        let client = &self.container().client;
        let mut summary = self.part();
        if summary.touched.is_empty() {
            // It has seen its base, whole: what came later does not matter.
            let request = Request::Commit { tx: self.tx(), summary, attributes: vec![], manifest: None, next: false };
            return committed(client.control(WHAT, request).await?);
        }
        let deadline_ns = client.times().deadline_ns;
        let mut tries = 0;
        loop {
            let now = client.shared.tick();
            let slack_us = (SLACK_US << tries.min(8)).min(SLACK_US_MAX);
            let by_time = Stamp::from_unix_us(client.shared.clock.unix_us() + slack_us);
            let until = if reads.is_empty() { Stamp::MAX } else { by_time.max(Stamp(now.0 + SLACK_STAMPS)) };
            // Everything that this process was told of comes before.
            summary.hlc = now;
            let prepared = self.prepare(reads, until).await?;
            let version = summary.map_version.min(prepared.map_version);
            let summary = Summary { map_version: version, ..summary.clone() };
            let named = prepared.named.into_iter().collect();
            let request = Request::CommitIndependent { tx: self.tx(), summary, until, named };
            match client.control(WHAT, request).await {
                Err(ClientError::Refused { refusal, .. })
                    if refusal.code == RefusalCode::Restart && client.shared.now_ns() < deadline_ns =>
                {
                    client.shared.back_off(tries, deadline_ns).await;
                    tries += 1;
                }
                result => return committed(result?),
            }
        }
    }

    /// Asks every leader that was read from whether what was read still holds up to the bound.
    async fn prepare(&self, reads: &BTreeSet<Read>, until: Stamp) -> Result<Prepared> {
        let mut parts = vec![];
        for (target, reads) in self.by_leader(reads)? {
            parts.extend(messages(reads).into_iter().map(|reads| (target, reads)));
        }
        let sent = parts.into_iter().map(|(target, reads)| self.prepare_at(target, Prepare { until, reads }));
        let mut all = Prepared { map_version: MapVersion(u32::MAX), named: BTreeSet::new() };
        for answer in gather(sent.collect()).await {
            let (version, named) = answer?;
            all.map_version = all.map_version.min(version);
            all.named.extend(named);
        }
        if all.named.len() > MAX_NAMED_TX {
            let text = format!("{} open transactions write what was read: begin anew later", all.named.len());
            return Err(ClientError::refused(WHAT, Refusal::new(RefusalCode::Conflict, text)));
        }
        Ok(all)
    }

    fn by_leader<'a>(&self, reads: &'a BTreeSet<Read>) -> Result<BTreeMap<TargetId, Vec<&'a Read>>> {
        let mut parts: BTreeMap<TargetId, Vec<&Read>> = BTreeMap::new();
        for read in reads {
            let layout = self.container().object(read.oid).layout()?;
            match &read.of {
                ReadOf::Object | ReadOf::Dkeys { .. } => {
                    layout.targets().iter().for_each(|target| parts.entry(*target).or_default().push(read));
                }
                ReadOf::Dkey(dkey) | ReadOf::Akey { dkey, .. } => {
                    parts.entry(layout.leader_of(dkey)).or_default().push(read);
                }
            }
        }
        Ok(parts)
    }

    async fn prepare_at(&self, target: TargetId, prepare: Prepare) -> Result<(MapVersion, Vec<TxId>)> {
        let question: Question = self.container().question(WHAT, target, Oid(0), None, self.view());
        let mut request = question.request(Body::Prepare(Box::new(prepare)));
        let read = |body: ReplyBody<'_>| match body {
            ReplyBody::Prepared(named) => Ok(named),
            _ => Err(ClientError::unexpected(WHAT)),
        };
        match self.container().client.shared.exchange(question, &mut request, |_| false, read).await? {
            Answer::Done(named, head) => Ok((head.map_version, named)),
            Answer::Moved => Err(ClientError::unexpected(WHAT)),
        }
    }
}

/// Reads in portions that messages take.
fn messages(reads: Vec<&Read>) -> Vec<Vec<Read>> {
    let (mut all, mut part, mut bytes, mut extents) = (vec![], vec![], 0, 0);
    for read in reads.into_iter().flat_map(cut) {
        let more = if let ReadOf::Akey { extents, .. } = &read.of { extents.len() } else { 0 };
        if part.len() >= READS_A_MESSAGE || bytes > READ_BYTES_A_MESSAGE || extents + more > MAX_EXTENTS {
            all.push(std::mem::take(&mut part));
            (bytes, extents) = (0, 0);
        }
        bytes += bytes_of(&read.of);
        extents += more;
        part.push(read);
    }
    all.push(part);
    all
}

/// A read whose extents one message takes, or several of them.
fn cut(read: &Read) -> Vec<Read> {
    match &read.of {
        ReadOf::Akey { dkey, akey, extents } if extents.len() > MAX_EXTENTS => {
            let of = |extents: &[Extent]| {
                let (dkey, akey, extents) = (dkey.clone(), akey.clone(), extents.to_vec());
                Read { oid: read.oid, of: ReadOf::Akey { dkey, akey, extents } }
            };
            extents.chunks(MAX_EXTENTS).map(of).collect()
        }
        _ => vec![read.clone()],
    }
}

fn bytes_of(of: &ReadOf) -> usize {
    match of {
        ReadOf::Object => 32,
        ReadOf::Dkeys { after, through } => 32 + after.len() + through.as_ref().map_or(0, Vec::len),
        ReadOf::Dkey(dkey) => 32 + dkey.len(),
        ReadOf::Akey { dkey, akey, extents } => 32 + dkey.len() + akey.len() + 20 * extents.len(),
    }
}

fn committed(reply: Reply) -> Result<Committed> {
    match reply {
        Reply::Committed(committed) => Ok(committed),
        _ => Err(ClientError::unexpected(WHAT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_has_more_extents_than_a_target_takes() {
        let read = |dkey: u8, extents: u64| {
            let extents = (0..extents).map(|at| Extent { index: 2 * at, count: 1 }).collect();
            Read { oid: Oid(1), of: ReadOf::Akey { dkey: vec![dkey], akey: b"a".to_vec(), extents } }
        };
        let most = MAX_EXTENTS as u64;
        let reads = [read(0, most), read(1, 1), read(2, 100_000), read(3, most - 1), read(4, 0)];
        let messages = messages(reads.iter().collect());
        let extents = |read: &Read| if let ReadOf::Akey { extents, .. } = &read.of { extents.clone() } else { vec![] };
        assert!(messages.iter().all(|part| part.iter().map(|read| extents(read).len()).sum::<usize>() <= MAX_EXTENTS));
        for read in &reads {
            let same = |other: &&Read| dkey_of(other) == dkey_of(read);
            let all: Vec<Extent> = messages.iter().flatten().filter(same).flat_map(extents).collect();
            assert_eq!(all, extents(read));
        }
        assert!(messages.len() <= 100_000 / MAX_EXTENTS + 5);
    }

    fn dkey_of(read: &Read) -> &[u8] {
        if let ReadOf::Akey { dkey, .. } = &read.of { dkey } else { &[] }
    }
}
