//! A call's ticket: its number, its place in flight at a target, and the outcome that it waits for.
//!
//! Owns what has to be given back when a call is over, however it ends: all of it under one lock.

use std::future::poll_fn;
use std::task::Poll;

use talea_fabric::{Message, PeerId};
use talea_model::TargetId;

use super::{Outcome, Shared, State};

/// Buffers for requests' heads that are kept for the next ones.
const SPARE_HEADS: usize = 64;

/// A call's place in the table, and one in flight at a target if it has one; gives them back when dropped.
pub(crate) struct Ticket<'a> {
    shared: &'a Shared,
    pub(crate) id: u64,
    /// Room for the request's head; the next call has it when this one is over.
    pub(crate) head: Vec<u8>,
    /// At which target a place in flight is its own, and the update's sequence there (0: a read).
    pub(super) place: Option<(TargetId, u64)>,
}

impl Shared {
    /// A new call's ticket.
    pub(crate) fn ticket(&self) -> Ticket<'_> {
        self.ticket_in(&mut self.lock(), None)
    }

    /// The same for who has the lock. It must not be dropped under it.
    pub(super) fn ticket_in(&self, state: &mut State, place: Option<(TargetId, u64)>) -> Ticket<'_> {
        let id = state.calls.add();
        let head = state.spare_heads.pop().unwrap_or_default();
        Ticket { shared: self, id, head, place }
    }
}

impl Ticket<'_> {
    /// Waits for an answer of `peer` from now on, until a time. What arrived before is kept.
    pub(crate) fn arm(&self, state: &mut State, peer: Option<PeerId>, until_ns: u64) {
        let Some(call) = state.calls.get(self.id) else { return };
        call.peer = peer;
        if !matches!(call.outcome, Some(Outcome::Data(_) | Outcome::Control(_))) {
            call.outcome = None;
        }
        state.calls.set_timer(self.id, until_ns);
        if state.sleeping_until_ns.is_some_and(|sleep_ns| until_ns < sleep_ns) {
            self.shared.waker.wake();
        }
    }

    /// Takes the outcome when it is there.
    pub(crate) async fn outcome(&self) -> Outcome {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            let Some(call) = state.calls.get(self.id) else { return Poll::Ready(Outcome::Down) };
            match call.outcome.take() {
                Some(outcome) => {
                    if let Outcome::Data(Message::Lent(_)) = &outcome {
                        state.loans.end(self.id);
                    }
                    Poll::Ready(outcome)
                }
                None => {
                    match &mut call.waker {
                        Some(waker) => waker.clone_from(context.waker()),
                        none => *none = Some(context.waker().clone()),
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.shared.is_foreign() {
            return;
        }
        let mut state = self.shared.lock();
        if self.head.capacity() > 0 && state.spare_heads.len() < SPARE_HEADS {
            state.spare_heads.push(std::mem::take(&mut self.head));
        }
        let left = state.calls.remove(self.id);
        if let Some(Outcome::Data(Message::Lent(_))) = &left {
            state.loans.end(self.id);
        }
        let next = self.place.and_then(|(target, sequence)| state.leave_place(target, sequence));
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
        drop(left);
    }
}
