//! Reaching the log's end as it was at some moment (rule 8): one question to the leader serves all who came before it.

use talea_model::Position;
use talea_wire::control::{Body, Reply, Request};

use super::{CatchUp, Link, Own};
use crate::node::{Action, Node};

impl Node {
    /// Tells those who waited for a position that has been reached.
    pub(in crate::node) fn reached(&mut self) {
        let position = self.pool.position();
        let Some(follower) = self.follower() else { return };
        let (there, not_yet) =
            std::mem::take(&mut follower.reaching).into_iter().partition(|(end, _)| *end <= position);
        follower.reaching = not_yet;
        let there: Vec<(Position, CatchUp)> = there;
        there.into_iter().for_each(|(_, what)| self.caught_up(what));
    }

    /// Joins the next question for the log's end; the one on its way may have been answered before this moment.
    pub(in crate::node) fn catch_up_with_leader(&mut self, what: CatchUp) {
        let (now_ns, lease_ms) = (self.now.monotonic_ns, self.config.lease_ms);
        let Some(follower) = self.follower() else { return };
        if follower.is_down() && follower.alone_since_ns + lease_ms * 1_000_000 <= now_ns {
            return self.fail_catch_up(what);
        }
        follower.catch_ups.push(what);
        self.ask_for_end();
    }

    pub(in crate::node) fn ask_for_end(&mut self) {
        let Some(follower) = self.follower() else { return };
        let is_ready = matches!(follower.link, Link::Up { ready: true, .. });
        if is_ready && follower.catching_up.is_empty() && !follower.catch_ups.is_empty() {
            follower.catching_up = std::mem::take(&mut follower.catch_ups);
            match follower.upstream.peer() {
                Some(source) => self.ask_source_for_end(source),
                None => self.ask_own(Own::CatchUp, Request::LogEnd),
            }
        }
    }

    /// The log's end, after all who were asking had begun to.
    pub(in crate::node) fn end_known(&mut self, end: Position) {
        let waiting = self.follower().map(|follower| std::mem::take(&mut follower.catching_up));
        for what in waiting.into_iter().flatten() {
            self.reach(end, what);
        }
        self.ask_again_below(end);
        self.ask_for_end();
    }

    pub(super) fn reach(&mut self, end: Position, what: CatchUp) {
        if let CatchUp::Child { peer, id } = what {
            // It waits itself for what comes through here.
            return self.send(peer, id, Body::Reply(Reply::Position(end)));
        }
        if self.pool.position() >= end {
            return self.caught_up(what);
        }
        if let Some(follower) = self.follower() {
            follower.reaching.push((end, what));
        }
    }

    pub(super) fn fail_catch_up(&mut self, what: CatchUp) {
        let refusal = self.leader_lost();
        match what {
            CatchUp::Token(token) => self.actions.push(Action::CatchUpFailed { token, refusal }),
            CatchUp::Wait(wait, _) => self.answer(wait.origin, Err(refusal)),
            CatchUp::Child { peer, id } => self.send(peer, id, Body::Refused(refusal)),
            CatchUp::Ready { .. } => {}
        }
    }
}
