//! Between the control plane and the targets: each speaks its own words, and this translates.
//!
//! Must never hold a rule of either.

use std::collections::BTreeMap;

use talea_control::TargetChange;
use talea_engine::{Effect, Mail, Mailbox, PoolChange, Tenure};
use talea_model::{Position, TargetId};
use talea_wire::data::StoreStat;

/// What the control plane hears from the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// All targets are durable up to here.
    Durable(Position),
    /// Somebody needs the log's end; to be answered with [`Bridge::caught_up`].
    LogEnd(u64),
}

/// The targets of this server, as the control plane sees them.
#[derive(Default)]
pub(crate) struct Bridge {
    mailboxes: Vec<Mailbox>,
    tenure: Tenure,
    durable: BTreeMap<TargetId, Position>,
    /// Who asked which question for the log's end.
    asked: BTreeMap<u64, (TargetId, u64)>,
    next_token: u64,
    delivered: Position,
}

impl Bridge {
    /// Adds a target with the horizon that it recovered.
    pub(crate) fn add(&mut self, mailbox: Mailbox, horizon: Position) {
        // The log's beginning tells of every container; a target that starts in its middle has to be lenient.
        if horizon.0 == 0 {
            mailbox.send(Mail::Containers(Vec::new()));
        }
        self.durable.insert(mailbox.target(), horizon);
        self.mailboxes.push(mailbox);
    }

    /// Position up to which all targets are durable.
    pub(crate) fn durable(&self) -> Position {
        self.durable.values().copied().min().unwrap_or_default()
    }

    /// The log, applied up to `horizon`.
    pub(crate) fn deliver(&mut self, changes: Vec<TargetChange>, horizon: Position) {
        let changes: Vec<PoolChange> = changes.into_iter().map(talead::pool_change).collect();
        self.delivered = self.delivered.max(horizon);
        for mailbox in &self.mailboxes {
            mailbox.send(Mail::Follow { changes: changes.clone(), horizon });
        }
    }

    /// Until when this server holds its membership lease. Only one that begins wakes the targets.
    pub(crate) fn lease(&mut self, until_ns: Option<u64>) {
        if let Some(lease) = self.tenure.set(until_ns) {
            self.mailboxes.iter().for_each(|mailbox| mailbox.send(Mail::Lease(lease.clone())));
        }
    }

    /// Asks all targets for their counters; how many will answer.
    pub(crate) fn ask_stats(&self, answer: &std::sync::mpsc::Sender<(TargetId, StoreStat)>) -> usize {
        self.mailboxes.iter().for_each(|mailbox| mailbox.send(Mail::Stat(answer.clone())));
        self.mailboxes.len()
    }

    /// All up to the log's end has been delivered, as it was when the question was asked or later.
    pub(crate) fn caught_up(&mut self, token: u64) {
        let Some((target, token)) = self.asked.remove(&token) else { return };
        let mailbox = self.mailboxes.iter().find(|mailbox| mailbox.target() == target);
        // Mail keeps its order: what was delivered is there before this.
        mailbox.iter().for_each(|mailbox| mailbox.send(Mail::LogEnd { token, position: self.delivered }));
    }

    /// The question got no answer. The target asks again.
    pub(crate) fn not_caught_up(&mut self, token: u64) {
        self.asked.remove(&token);
    }

    /// What a target wants, for the control plane.
    pub(crate) fn heard(&mut self, target: TargetId, effect: Effect) -> Option<Word> {
        match effect {
            Effect::Durable { horizon } => {
                let before = self.durable();
                self.durable.insert(target, horizon);
                let now = self.durable();
                (now > before).then_some(Word::Durable(now))
            }
            Effect::LogEnd { token } => {
                let outer = self.next_token;
                self.next_token += 1;
                self.asked.insert(outer, (target, token));
                Some(Word::LogEnd(outer))
            }
            // The log streams anyway; a target disconnects its peers itself.
            Effect::CatchUp { .. } | Effect::Drop { .. } => None,
        }
    }
}
