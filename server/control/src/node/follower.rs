//! A follower: finds the leader, follows the log, passes its clients' requests on and their answers back.
//!
//! Owns the server's membership lease: without it the local targets must not serve (rule 11). It is counted from the sending
//! of a heartbeat that was answered, so it ends here before the leader gives up.

use std::collections::{BTreeMap, BTreeSet};

use talea_fabric::PeerId;
use talea_model::{Position, ServerId, SessionId};
use talea_wire::control::{Reply, Request};
use talea_wire::log::Record;
use talea_wire::{Refusal, RefusalCode};

use super::beats::Beats;
use super::downstream::Downstream;
use super::images::Partial;
use super::question::{Origin, Own, Question};
use super::upstream::Upstream;
use super::wait::Wait;
use super::{Action, Node, NodeConfig, Role, Time};
use crate::pool::Outcome;

mod catch_up;
mod forward;
mod unled;

/// First and longest pause before another attempt to connect to the leader, in milliseconds.
const RETRY_MS_MIN: u64 = 20;
const RETRY_MS_MAX: u64 = 200;
/// A request that may be repeated is sent again after so many milliseconds without an answer.
const RESEND_MS: u64 = 1000;
/// Requests on their way to the leader, at most.
const MAX_PENDING: usize = 1 << 16;

/// Who waits to have caught up with the log's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CatchUp {
    /// A target's request.
    Token(u64),
    /// A client's wait, and when it ends in monotonic nanoseconds.
    Wait(Wait, u64),
    /// A server that follows through this one, under which number it asked.
    Child { peer: PeerId, id: u64 },
    /// This server's own connection to the leader, which is ready then.
    Ready { peer: PeerId },
}

/// The connection to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// None; the next attempt is at this time, or under way (`None`).
    Down { attempt_ns: Option<u64>, pause_ms: u64 },
    /// Up; `ready` once the log's end of this connection has been reached.
    Up { peer: PeerId, ready: bool },
}

/// What a follower holds beside the state.
#[derive(Debug)]
pub(super) struct Follower {
    /// Who leads, or is asked next whether it does.
    pub(super) leader: ServerId,
    /// The newest leader that was heard of, and its term. Not the newest term: who is asked for a vote in a term, or knows of
    /// one, does not yet know who leads in it.
    pub(super) newest: (u64, ServerId),
    link: Link,
    last_id: u64,
    pub(super) pending: BTreeMap<u64, Pending>,
    /// When something is to be done about a pending request: give up, or send again.
    timers: BTreeSet<(u64, u64)>,
    /// Until when the lease is held.
    pub(super) lease_ns: u64,
    /// Since when there is no leader.
    alone_since_ns: u64,
    /// When the next heartbeat is due; before the link is ready, when that has taken too long.
    pub(super) heartbeat_ns: u64,
    /// Whether missing records have been asked for.
    pub(super) refollowing: bool,
    /// A part of the pool's image.
    pub(super) image: Option<Partial>,
    /// Wait for the next question for the log's end.
    pub(super) catch_ups: Vec<CatchUp>,
    /// Wait for the answer to the one that is on its way.
    pub(super) catching_up: Vec<CatchUp>,
    /// The log's end is known, and not reached yet.
    pub(super) reaching: Vec<(Position, CatchUp)>,
    /// Where this server follows, if there are many.
    pub(super) upstream: Upstream,
    /// Who follows through this server.
    pub(super) downstream: Downstream,
    /// Their heartbeats and its own.
    pub(super) beats: Beats,
}

/// A question that is on its way, or waits for a leader.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) question: Question,
    sent: bool,
    /// When it was first.
    sent_ns: u64,
    timer_ns: u64,
}

impl Follower {
    pub(super) fn new(now: Time, leader: ServerId) -> Self {
        Self {
            leader,
            newest: (0, ServerId(0)),
            link: Link::Down { attempt_ns: None, pause_ms: RETRY_MS_MIN },
            last_id: 0,
            pending: BTreeMap::new(),
            timers: BTreeSet::new(),
            lease_ns: 0,
            alone_since_ns: now.monotonic_ns,
            heartbeat_ns: u64::MAX,
            refollowing: false,
            image: None,
            catch_ups: Vec::new(),
            catching_up: Vec::new(),
            reaching: Vec::new(),
            upstream: Upstream::default(),
            downstream: Downstream::default(),
            beats: Beats::default(),
        }
    }

    pub(super) fn is_link(&self, peer: PeerId) -> bool {
        matches!(self.link, Link::Up { peer: link, .. } if link == peer)
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Whether a request that was sent before this moment has no answer yet.
    pub(super) fn is_stuck(&self, before_ns: u64) -> bool {
        let is_own = |one: &Pending| matches!(one.question.origin, Origin::Own(_));
        self.pending.values().any(|one| one.sent && one.sent_ns <= before_ns && !is_own(one))
    }

    /// The connection to the leader.
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.link {
            Link::Up { peer, .. } => Some(peer),
            Link::Down { .. } => None,
        }
    }

    /// Whether the log's end of this connection has been reached.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.link, Link::Up { ready: true, .. })
    }

    /// Whether word of a leader is to be acted upon. A connection that stands says nothing against it: the process at its other
    /// end may be stopped.
    fn is_news(&self, word: (u64, ServerId), is_link: bool) -> bool {
        // openraft knows several leaders of a term: the one with the greater id is the later one.
        let is_elsewhere = self.is_down() || (!self.is_ready() && self.leader != word.1 && !is_link);
        word > self.newest || (word == self.newest && is_elsewhere)
    }

    /// Whether a server is being connected to, to follow it.
    pub(super) fn is_trying(&self, server: ServerId) -> bool {
        self.leader == server && matches!(self.link, Link::Down { attempt_ns: None, .. })
    }

    /// The next attempt is due at once.
    pub(super) fn retry_now(&mut self, now_ns: u64) {
        if let Link::Down { attempt_ns, .. } = &mut self.link {
            *attempt_ns = Some(now_ns);
        }
    }

    pub(super) fn next_deadline(&self, config: &NodeConfig, serving: bool) -> Option<u64> {
        let attempt_ns = match self.link {
            Link::Down { attempt_ns, .. } => attempt_ns,
            Link::Up { .. } => Some(self.heartbeat_ns),
        };
        let timer_ns = self.timers.first().map(|(at_ns, _)| *at_ns);
        let lease_ns = serving.then_some(self.lease_ns);
        let is_waiting = || {
            let mut questions = self.pending.values().map(|pending| &pending.question);
            !self.catch_ups.is_empty() || questions.any(|question| question.origin != Origin::Own(Own::Note))
        };
        let alone_ns = (self.is_down() && is_waiting()).then(|| self.gives_up_ns(config));
        let through_ns = [self.upstream.next_deadline(), self.beats.next_deadline()];
        [attempt_ns, timer_ns, lease_ns, alone_ns].into_iter().chain(through_ns).flatten().min()
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.link, Link::Down { .. })
    }

    /// Until when requests are kept for a leader that may come back.
    fn gives_up_ns(&self, config: &NodeConfig) -> u64 {
        self.alone_since_ns.saturating_add(config.lease_ms.saturating_mul(1_000_000))
    }

    fn set_timer(&mut self, id: u64, at_ns: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            self.timers.remove(&(pending.timer_ns, id));
            pending.timer_ns = at_ns;
            if at_ns != u64::MAX {
                self.timers.insert((at_ns, id));
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Question> {
        let pending = self.pending.remove(&id)?;
        self.timers.remove(&(pending.timer_ns, id));
        Some(pending.question)
    }
}

impl Node {
    pub(super) fn follower(&mut self) -> Option<&mut Follower> {
        match &mut self.role {
            Role::Follower(follower) => Some(follower),
            Role::Leader(_) => None,
        }
    }

    /// Begins to follow.
    pub(super) fn follow(&mut self) {
        let now_ns = self.now.monotonic_ns;
        if let Some(follower) = self.follower() {
            follower.retry_now(now_ns);
        }
        self.follower_timers();
    }

    /// Another server says who leads.
    pub(super) fn hear_of_leader(&mut self, from: Option<PeerId>, server: Option<ServerId>, term: u64) {
        let here = self.config.server.id;
        let Some(follower) = self.follower() else { return };
        let is_link = from.is_some() && follower.peer() == from;
        let named = server.filter(|server| *server != here && follower.is_news((term, *server), is_link));
        if let Some(server) = named {
            follower.newest = (term, server);
            if server == follower.leader && !follower.is_down() {
                return;
            }
            if !follower.is_down() {
                self.link_down();
            }
            if let Some(follower) = self.follower()
                && !follower.is_trying(server)
            {
                follower.leader = server;
                self.try_leader();
            }
        } else if is_link {
            // The one that is asked does not lead, and knows nobody who does.
            self.link_down();
            self.ask_another();
        }
    }

    /// The next attempt is another server's.
    fn ask_another(&mut self) {
        if let Some(next) = self.next_candidate()
            && let Some(follower) = self.follower()
        {
            follower.leader = next;
        }
    }

    /// Tries to reach the server that may lead.
    fn try_leader(&mut self) {
        let Some(follower) = self.follower() else { return };
        let server = follower.leader;
        if let Link::Down { attempt_ns, .. } = &mut follower.link {
            *attempt_ns = None;
        }
        if server == self.config.server.id {
            return self.link_failed();
        }
        match self.link_to(server) {
            Some(peer) => self.link_up(peer),
            None if self.is_dialing(server) => {}
            None => self.link_failed(),
        }
    }

    pub(super) fn ask_own(&mut self, own: Own, request: Request) {
        let origin = Origin::Own(own);
        self.forward(Question { origin, session: SessionId(0), sequence: 0, deadline_ns: u64::MAX, request });
    }

    /// The leader is connected: registers, follows the log from where this server is, and asks where its end is.
    pub(super) fn link_up(&mut self, peer: PeerId) {
        let (sent_ns, lease_ms) = (self.now.monotonic_ns, self.config.lease_ms);
        self.source_leads(peer);
        let Some(follower) = self.follower() else { return };
        follower.link = Link::Up { peer, ready: false };
        follower.heartbeat_ns = sent_ns + lease_ms * 1_000_000;
        follower.refollowing = false;
        let follows_through = follower.upstream.peer().is_some();
        let (server, targets, boot) = (self.config.server.clone(), self.config.targets.clone(), self.config.boot);
        let remembers = self.remembers();
        self.ask_own(Own::Register, Request::ServerUp { server, targets, boot, remembers });
        if !follows_through {
            self.ask_for_records(peer);
        }
        self.ask_own(Own::Ready { sent_ns }, Request::LogEnd);
    }

    pub(super) fn ask_for_records(&mut self, peer: PeerId) {
        let request = Request::Follow { after: self.pool.position() };
        let origin = Origin::Own(Own::Note);
        let question = Question { origin, session: SessionId(0), sequence: 0, deadline_ns: u64::MAX, request };
        self.send_request(peer, 0, &question);
    }

    /// The connection could not be made: tries another server after a pause that grows.
    pub(super) fn link_failed(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let next = self.next_candidate();
        let Some(follower) = self.follower() else { return };
        if let Link::Down { pause_ms, .. } = follower.link {
            let attempt_ns = Some(now_ns + pause_ms * 1_000_000);
            follower.link = Link::Down { attempt_ns, pause_ms: (pause_ms * 2).min(RETRY_MS_MAX) };
            follower.leader = next.unwrap_or(follower.leader);
        }
    }

    /// The connection ended. What may be repeated waits for the next one; the rest has an unknown outcome.
    pub(super) fn link_down(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let Some(follower) = self.follower() else { return };
        let leader = follower.leader;
        let attempt_ns = Some(now_ns + RETRY_MS_MIN * 1_000_000);
        follower.link = Link::Down { attempt_ns, pause_ms: RETRY_MS_MIN * 2 };
        follower.alone_since_ns = now_ns;
        let again = std::mem::take(&mut follower.catching_up);
        follower.catch_ups.extend(again);
        follower.upstream.forget_question();
        follower.beats.turn_back();
        let (mut ended, mut kept) = (Vec::new(), Vec::new());
        for (id, pending) in &mut follower.pending {
            let origin = &pending.question.origin;
            let is_note = *origin == Origin::Own(Own::Note);
            let is_own = matches!(origin, Origin::Own(_)) && !is_note;
            match pending.sent && (is_own || !(is_note || pending.question.may_repeat())) {
                true => ended.push(*id),
                false => kept.push(*id),
            }
            pending.sent = false;
        }
        for id in kept {
            let deadline_ns = follower.pending.get(&id).map_or(u64::MAX, |pending| pending.question.deadline_ns);
            follower.set_timer(id, deadline_ns);
        }
        let text =
            format!("the connection to server {leader}, which leads the pool's log, broke: the outcome is unknown");
        for id in ended {
            if let Some(question) = self.follower().and_then(|follower| follower.remove(id))
                && !matches!(question.origin, Origin::Own(_))
            {
                self.answer(question.origin, Err(Refusal::new(RefusalCode::NoLeader, text.clone())));
            }
        }
    }

    /// An answer to what this server asked for itself.
    pub(super) fn own_answered(&mut self, own: Own, outcome: Outcome) {
        let (end, unknown) = match outcome {
            Ok(Reply::Position(end)) => (Some(end), Vec::new()),
            Ok(Reply::Heard { end, unknown }) => (Some(end), unknown),
            _ => (None, Vec::new()),
        };
        match (own, end) {
            (Own::Ready { sent_ns }, Some(end)) => {
                self.hold_lease(sent_ns);
                self.link_ready(end);
            }
            (Own::Heartbeat { sent_ns }, Some(end)) => {
                self.hold_lease(sent_ns);
                // What was decided before comes on another way than the answer if this server follows through another one.
                let follows_through = self.follower().is_some_and(|follower| follower.upstream.peer().is_some());
                self.lease_of_follower(!follows_through || self.pool.position() >= end);
                self.ask_again_below(end);
            }
            (Own::CatchUp, Some(end)) => self.end_known(end),
            (Own::Beats { number }, Some(end)) => self.beats_heard(number, end, &unknown),
            (Own::Ready { .. } | Own::Heartbeat { .. } | Own::Beats { .. } | Own::CatchUp, None) => self.begin_again(),
            (Own::Register | Own::Note, _) => {}
        }
    }

    /// The leader knows us no more (it restarted, or gave us up): from the beginning.
    pub(super) fn begin_again(&mut self) {
        if let Some(Link::Up { peer, .. }) = self.follower().map(|follower| follower.link) {
            self.actions.push(Action::Close { peer });
            self.lose_peer(peer, false);
        }
    }

    /// This connection's log end is known: once reached, requests are passed on.
    pub(super) fn link_ready(&mut self, end: Position) {
        let Some(follower) = self.follower() else { return };
        let (source, link) = (follower.upstream.peer(), follower.peer());
        if self.pool.position() < end
            && let (Some(_), Some(peer)) = (source, link)
        {
            self.expect_records(end);
            return self.reach(end, CatchUp::Ready { peer });
        }
        if self.pool.position() < end {
            // Records were lost on the way (simulated fabrics do that): ask again for both.
            self.ask_again_below(end);
            let sent_ns = self.now.monotonic_ns;
            return self.ask_own(Own::Ready { sent_ns }, Request::LogEnd);
        }
        let Some(follower) = self.follower() else { return };
        if let Link::Up { peer, .. } = follower.link {
            follower.link = Link::Up { peer, ready: true };
        }
        follower.heartbeat_ns = 0;
        self.lease_of_follower(true);
        self.adopt_sessions();
        let Some(follower) = self.follower() else { return };
        let unsent: Vec<u64> = follower.pending.iter().filter(|(_, one)| !one.sent).map(|(id, _)| *id).collect();
        unsent.into_iter().for_each(|id| self.send_pending(id));
        self.ask_for_end();
        self.look_for_source();
        self.follower_timers();
    }

    /// Sessions that an earlier connection opened and never told us of have nobody to watch them.
    pub(super) fn end_orphans(&mut self) {
        let here = self.config.server.id;
        let orphans: Vec<SessionId> =
            self.pool.sessions_of(here).filter(|id| !self.homes.contains_key(id) && !self.is_arriving(*id)).collect();
        for session in orphans {
            let request = Request::SessionEnded { session, joined: Vec::new(), orderly: false };
            let origin = Origin::Own(Own::Note);
            self.ask(Question { origin, session: SessionId(0), sequence: 0, deadline_ns: u64::MAX, request });
        }
    }

    /// Asks for records that should have come by now.
    pub(super) fn ask_again_below(&mut self, end: Position) {
        let is_behind = self.pool.position() < end;
        let Some(follower) = self.follower() else { return };
        if follower.upstream.peer().is_some() {
            return self.expect_records(end);
        }
        if let Link::Up { peer, .. } = follower.link
            && is_behind
        {
            self.ask_for_records(peer);
        }
    }

    /// Records that follow.
    pub(super) fn batch(&mut self, peer: PeerId, records: Vec<Record>) {
        if !self.is_fed_by(peer) {
            return;
        }
        for record in &records {
            if self.apply(record).is_err() {
                let after = self.pool.position();
                let Some(follower) = self.follower() else { return };
                let is_link = follower.is_link(peer);
                if !std::mem::replace(&mut follower.refollowing, true) {
                    match is_link {
                        true => self.ask_for_records(peer),
                        false => self.ask_source(peer, 0, Request::FollowThrough { after }),
                    }
                }
                break;
            }
            if let Some(follower) = self.follower() {
                follower.refollowing = false;
            }
        }
        self.deliver();
        self.feed_children();
        self.reached();
        self.moved_on();
    }

    /// Everything that time makes due at a follower.
    pub(super) fn follower_timers(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let (config, serving) = (&self.config, self.lease_ns.is_some());
        let Role::Follower(follower) = &mut self.role else { return };
        let is_silent = match follower.link {
            Link::Up { ready: true, .. } => !serving,
            Link::Up { ready: false, .. } => follower.heartbeat_ns <= now_ns,
            Link::Down { .. } => false,
        };
        let is_hopeless = follower.is_down() && follower.gives_up_ns(config) <= now_ns;
        match &mut follower.link {
            Link::Down { attempt_ns, .. } if attempt_ns.is_some_and(|at_ns| at_ns <= now_ns) => self.try_leader(),
            // Answers nothing: as good as gone, though its connection stands.
            Link::Up { peer, .. } if is_silent => {
                let peer = *peer;
                self.actions.push(Action::Close { peer });
                self.lose_peer(peer, false);
                self.ask_another();
            }
            Link::Up { ready: true, .. } if follower.heartbeat_ns <= now_ns => self.beat(),
            _ => {}
        }
        self.upstream_timers();
        if is_hopeless {
            self.give_up();
        }
        self.pending_timers();
    }
}
