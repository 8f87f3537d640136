//! Without a leader: what a server says to those who ask for what only a leader can do.

use talea_wire::control::{Reply, Request};
use talea_wire::{Refusal, RefusalCode};

use super::{Follower, Origin, Outcome, Own, Pending, Question};
use crate::node::{Node, Role};

impl Node {
    /// The refusal of a server that has lost the leader.
    pub(in crate::node) fn leader_lost(&self) -> Refusal {
        let here = self.config.server.id;
        let Role::Follower(Follower { leader, .. }) = &self.role else {
            return Refusal::new(RefusalCode::NoLeader, format!("server {here} leads the log no more: try again"));
        };
        let text = self.no_majority().unwrap_or_else(|| {
            format!(
                "no server that leads the pool's log can be reached from server {here}; the last one tried is server {leader}"
            )
        });
        let remedy = "`talea restart` starts servers again that have ended, with their data";
        Refusal::new(RefusalCode::NoLeader, format!("{text}: {remedy}"))
    }

    /// What a question is told for which there is no leader: the status as far as this server knows it.
    pub(in crate::node) fn unled(&self, question: &Question) -> Outcome {
        let refusal = self.leader_lost();
        match (&question.request, self.leader_status()) {
            (Request::Status, Ok(Reply::Status(mut status))) => {
                status.unled = Some(refusal.text);
                Ok(Reply::Status(status))
            }
            _ => Err(refusal),
        }
    }

    /// Nobody leads for longer than the lease: who waits for it is told so. Notes are kept.
    pub(super) fn give_up(&mut self) {
        let Some(follower) = self.follower() else { return };
        let is_note = |pending: &Pending| pending.question.origin == Origin::Own(Own::Note);
        let ids: Vec<u64> = follower.pending.iter().filter(|(_, one)| !is_note(one)).map(|(id, _)| *id).collect();
        let mut waiting = std::mem::take(&mut follower.catch_ups);
        waiting.extend(std::mem::take(&mut follower.reaching).into_iter().map(|(_, what)| what));
        let questions: Vec<Question> = ids.into_iter().filter_map(|id| follower.remove(id)).collect();
        for question in questions {
            if !matches!(question.origin, Origin::Own(_)) {
                let outcome = self.unled(&question);
                self.answer(question.origin, outcome);
            }
        }
        waiting.into_iter().for_each(|what| self.fail_catch_up(what));
    }
}
