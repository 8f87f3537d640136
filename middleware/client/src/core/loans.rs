//! Answers that still lie in the endpoint's buffers, because whoever asked has not taken them.
//!
//! Owns the rule of when they are copied out. A ring gives back what it lent in order, so that a single answer which nobody takes holds
//! up all behind it: a future may be left unpolled for as long as a program likes. Must never copy what is taken as it comes.

use talea_fabric::Message;

use super::{Outcome, State};

/// So many at a time; further answers are copied as they come.
const LENT_MAX: usize = 8;
/// An answer that nobody took while so much came after it is copied: less than half of what a ring and its area hold, so that
/// whatever comes next finds room.
const AFTER_BYTES: u64 = 2 << 20;
const AFTER_MESSAGES: u64 = 12;

/// The answers that are lent.
#[derive(Default)]
pub(super) struct Loans {
    open: Vec<Loan>,
    /// What has come so far.
    messages: u64,
    bytes: u64,
}

struct Loan {
    call: u64,
    messages: u64,
    bytes: u64,
    /// It was there at the end of the last round: who was woken for it has had time.
    is_old: bool,
}

impl Loans {
    /// A message of a target has come.
    pub(super) fn came(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= LENT_MAX
    }

    /// A call has an answer that is lent.
    pub(super) fn add(&mut self, call: u64) {
        self.open.push(Loan { call, messages: self.messages, bytes: self.bytes, is_old: false });
    }

    /// It is taken.
    pub(super) fn end(&mut self, call: u64) {
        self.open.retain(|loan| loan.call != call);
    }

    /// A round is over: whoever was woken for an answer can take it now.
    pub(super) fn round_over(&mut self) {
        self.open.iter_mut().for_each(|loan| loan.is_old = true);
    }

    fn stands_in_the_way(&self, loan: &Loan) -> bool {
        loan.is_old
            && (self.bytes - loan.bytes >= AFTER_BYTES
                || self.messages - loan.messages >= AFTER_MESSAGES
                || self.is_full())
    }
}

impl State {
    /// A round begins: copies the answers of earlier ones that stand in the way of others.
    pub(super) fn own_loans(&mut self) {
        if self.loans.open.is_empty() {
            return;
        }
        let stand = |loan: &&Loan| self.loans.stands_in_the_way(loan);
        let calls: Vec<u64> = self.loans.open.iter().filter(stand).map(|loan| loan.call).collect();
        for id in calls {
            if let Some(Outcome::Data(message)) = self.calls.get(id).and_then(|call| call.outcome.as_mut())
                && let Message::Lent(lent) = message
            {
                *message = Message::Owned(lent.to_vec());
            }
            self.loans.end(id);
        }
    }
}
