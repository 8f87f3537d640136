//! Requests on their way to the leader: sent, sent again, given up.

use talea_model::ServerId;
use talea_wire::{Refusal, RefusalCode};

use super::{Link, MAX_PENDING, Origin, Outcome, Own, Pending, Question, RESEND_MS};
use crate::node::{Node, Role};

impl Node {
    /// Passes a question on to the leader, now or once it is there again.
    pub(in crate::node) fn forward(&mut self, question: Question) {
        let now_ns = self.now.monotonic_ns;
        let here = self.config.server.id;
        let is_founder = here == ServerId(0) && self.replica.is_none() && self.pool.map().is_none();
        let Role::Follower(follower) = &mut self.role else { return };
        let is_note = question.origin == Origin::Own(Own::Note);
        if is_founder && matches!(question.origin, Origin::Client { .. }) {
            let text = "the pool has not begun: some of its servers are not up yet, try again";
            return self.answer(question.origin, Err(Refusal::new(RefusalCode::Busy, text)));
        }
        let is_hopeless = follower.is_down() && follower.gives_up_ns(&self.config) <= now_ns;
        if is_hopeless && !is_note {
            let outcome = self.unled(&question);
            return self.answer(question.origin, outcome);
        }
        if follower.pending.len() >= MAX_PENDING && !is_note {
            let text = format!("{MAX_PENDING} requests are on their way from server {here}: try again");
            return self.answer(question.origin, Err(Refusal::new(RefusalCode::Busy, text)));
        }
        let id = follower.next_id();
        follower.pending.insert(id, Pending { question, sent: false, sent_ns: u64::MAX, timer_ns: u64::MAX });
        self.send_pending(id);
    }

    /// Sends a pending question if the link is ready for it, and sets its timer.
    pub(super) fn send_pending(&mut self, id: u64) {
        let now_ns = self.now.monotonic_ns;
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(pending) = follower.pending.get_mut(&id) else { return };
        let is_setup = matches!(pending.question.origin, Origin::Own(Own::Register | Own::Ready { .. }));
        let mut timer_ns = pending.question.deadline_ns;
        match follower.link {
            Link::Up { peer, ready } if ready || is_setup => {
                if !std::mem::replace(&mut pending.sent, true) {
                    pending.sent_ns = now_ns;
                }
                if pending.question.may_repeat() {
                    timer_ns = timer_ns.min(now_ns + RESEND_MS * 1_000_000);
                }
                let question = pending.question.clone();
                follower.set_timer(id, timer_ns);
                self.send_request(peer, id, &question);
            }
            _ => follower.set_timer(id, timer_ns),
        }
    }

    /// The leader answered.
    pub(in crate::node) fn forward_answered(&mut self, id: u64, outcome: Outcome) {
        if let Some(question) = self.follower().and_then(|follower| follower.remove(id)) {
            self.answer(question.origin, outcome);
        }
    }

    /// Gives up what is late, and sends again what got no answer.
    pub(super) fn pending_timers(&mut self) {
        let now_ns = self.now.monotonic_ns;
        while let Some(follower) = self.follower() {
            let leader = follower.leader;
            let Some((at_ns, id)) = follower.timers.first().copied().filter(|(at_ns, _)| *at_ns <= now_ns) else {
                break;
            };
            let deadline_ns = follower.pending.get(&id).map_or(0, |pending| pending.question.deadline_ns);
            if deadline_ns > now_ns {
                follower.timers.remove(&(at_ns, id));
                self.send_pending(id);
            } else if let Some(question) = follower.remove(id) {
                let text = format!("server {leader}, which leads the pool's log, did not answer within the deadline");
                self.answer(question.origin, Err(Refusal::new(RefusalCode::Deadline, text)));
            }
        }
    }
}
