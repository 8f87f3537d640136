//! Between the replica of the log and the node: what is committed is applied here, and who leads is decided here.
//!
//! This server leads while openraft says so, all earlier entries are applied, and a majority vouches that nobody else can have
//! been elected. Must never apply what is not committed.

use talea_model::{Position, ServerId};
use talea_wire::control::{Body, Reply, Request};
use talea_wire::log::Entry as LogEntry;
use talea_wire::{Refusal, RefusalCode, codec};

use openraft::EntryPayload;

use super::follower::{CatchUp, Follower};
use super::leader::{InFlight, Leader};
use super::question::{Origin, Own};
use super::raft::{Committed, LeaderId, Payload, Replica, TypeConfig};
use super::{Action, Node, Role};
use crate::pool::{Outcome, Pool};

impl Node {
    /// Lets the replica do all that it can do now; says whether it did anything.
    pub(super) fn turn_replica(&mut self) -> bool {
        let now_ns = self.now.monotonic_ns;
        let Some(replica) = &mut self.replica else { return false };
        let has_run = replica.run(now_ns);
        let (ops, outgoing, replies) = (replica.take_ops(), replica.take_outgoing(), replica.take_replies());
        let (applied, rejected) = (replica.take_applied(), replica.take_rejected());
        if let Some(ops) = ops {
            self.actions.push(Action::Store { ops });
        }
        outgoing.into_iter().for_each(|one| self.send_call(one));
        for (peer, id, answer) in replies {
            if self.peers.contains_key(&peer) {
                self.send_raft(peer, id, Body::RaftAnswer(answer));
            }
        }
        for committed in applied {
            match committed {
                Committed::Entry(entry) => self.committed(entry),
                Committed::Snapshot(pool) => self.snapshot_installed(*pool),
            }
        }
        let has_cut = self.cut_log();
        self.lease_of_leader();
        if !rejected.is_empty() {
            self.step_down();
        }
        self.check_leading();
        has_run || has_cut
    }

    /// An entry is committed.
    fn committed(&mut self, entry: openraft::Entry<TypeConfig>) {
        let leader = entry.log_id.leader_id;
        match entry.payload {
            // A leader's first entry: once it is applied, so is all that was committed before.
            EntryPayload::Blank => {
                if let Some(replica) = self.replica.as_mut().filter(|replica| replica.id == leader.node_id) {
                    replica.led = Some(leader);
                }
            }
            EntryPayload::Membership(_) => {}
            EntryPayload::Normal(payload) => self.payload_committed(leader, &payload),
        }
    }

    fn payload_committed(&mut self, leader: LeaderId, payload: &Payload) {
        let asked = match &mut self.role {
            Role::Leader(leading) => leading.take_in_flight(leader, payload.ticket),
            Role::Follower(_) => Vec::new(),
        };
        let mut asked = asked.into_iter();
        let mut answers = Vec::new();
        for proposal in payload.proposals.iter() {
            let Some(replica) = &mut self.replica else { return };
            replica.position = Position(replica.position.0 + 1);
            let record = proposal.at(replica.position);
            let asker = asked.next();
            let bytes = match &asker {
                Some(asker) => asker.bytes,
                None => codec::encode(proposal).map_or(0, |bytes| bytes.len()),
            };
            self.counters.log_bytes += bytes as u64;
            match self.apply(&record) {
                Ok(outcome) => answers.extend(asker.zip(outcome).map(|(asker, outcome)| self.outcome(asker, outcome))),
                // It cannot be: positions are counted from the beginning, by every replica in the same way.
                Err(gap) => tracing::error!(%gap, "the log has a hole"),
            }
            if let Some(replica) = &mut self.replica {
                replica.tail.push(record, bytes);
                replica.count_applied(bytes);
            }
        }
        // Followers hear of an entry before the answers on the same connections, so that they know what they pass on.
        self.feed_followers();
        self.deliver();
        self.feed_children();
        self.reached();
        self.moved_on();
        answers.into_iter().for_each(|(origin, outcome)| self.answer(origin, outcome));
    }

    /// What who asked for an entry is told.
    fn outcome(&self, asker: InFlight, outcome: Outcome) -> (Origin, Outcome) {
        let outcome = match (&asker.proposal.entry, outcome) {
            (LogEntry::ContainerCreate { name, .. }, Err(refusal))
                if asker.exist_ok && refusal.code == RefusalCode::Exists =>
            {
                self.pool.container_by_name(name)
            }
            (_, Ok(Reply::Session { session, map })) => {
                let map = self.pool.map().cloned().unwrap_or(map);
                Ok(Reply::Session { session, map })
            }
            (_, outcome) => outcome,
        };
        (asker.origin, outcome)
    }

    /// A snapshot stands for all entries up to it.
    fn snapshot_installed(&mut self, pool: Pool) {
        if let Some(replica) = &mut self.replica {
            replica.restart(pool.position());
        }
        self.replace_pool(pool);
    }

    /// Makes an image of the pool if the log has grown enough since the last one. Only the state after what this server's own
    /// replica has applied will do: the leader may have told it of more.
    fn cut_log(&mut self) -> bool {
        let bound = self.config.log_bound;
        let Some(replica) = &mut self.replica else { return false };
        if self.pool.position() != replica.position || !replica.wants_image(bound) {
            return false;
        }
        match self.pool.to_image() {
            Ok(image) => replica.make_image(image),
            Err(error) => {
                tracing::error!(%error, "no image of the pool can be made");
                return false;
            }
        }
        true
    }

    /// Steps down once nobody vouches for this leader any more.
    pub(super) fn check_vouched(&mut self) {
        let now_ns = self.now.monotonic_ns;
        let is_vouched = self.replica.as_ref().is_some_and(|replica| now_ns < replica.vouched_ns());
        if matches!(self.role, Role::Leader(_)) && !is_vouched {
            self.step_down();
        }
    }

    /// Begins or ends to lead, or learns who does.
    fn check_leading(&mut self) {
        let Some(replica) = &self.replica else { return };
        let leading = replica.leading();
        let is_vouched = self.now.monotonic_ns < replica.vouched_ns();
        let is_caught_up = self.pool.position() == replica.position;
        let own = leading.own.filter(|_| replica.led == leading.own && is_vouched && is_caught_up);
        match &self.role {
            Role::Leader(leader) if own == Some(leader.leading) => return,
            Role::Leader(_) => self.step_down(),
            Role::Follower(_) => {}
        }
        match (own, leading.leader) {
            (Some(own), _) => self.begin_to_lead(own),
            (None, Some(leader)) if leader != self.config.server.id => {
                // Once each: whether that one can be reached is another question.
                if std::mem::replace(&mut self.heard, (leader, leading.term)) != (leader, leading.term) {
                    self.hear_of_leader(None, Some(leader), leading.term);
                }
            }
            (None, _) => {}
        }
    }

    /// This server leads from now on.
    fn begin_to_lead(&mut self, own: LeaderId) {
        tracing::info!(server = %self.config.server.id, term = own.term, "leading the pool's log");
        let leader = Role::Leader(Leader::new(own, self.config.boot));
        let Role::Follower(before) = std::mem::replace(&mut self.role, leader) else { return };
        self.lead();
        self.end_orphans();
        let Follower { pending, catch_ups, catching_up, reaching, upstream, downstream, beats, .. } = before;
        if let Some(source) = upstream.peer() {
            self.ask_source(source, 0, Request::Unfollow);
        }
        self.refuse_children(&downstream.peers());
        self.refuse_beats(beats.askers());
        for one in pending.into_values() {
            match one.question.origin {
                Origin::Own(
                    Own::Register | Own::Ready { .. } | Own::Heartbeat { .. } | Own::Beats { .. } | Own::CatchUp,
                ) => {}
                _ => self.serve(one.question),
            }
        }
        let waiting = catch_ups.into_iter().chain(catching_up).chain(reaching.into_iter().map(|(_, what)| what));
        let waiting: Vec<CatchUp> = waiting.collect();
        waiting.into_iter().for_each(|what| self.caught_up(what));
        let body = self.who_leads();
        self.tell_servers(None, &body);
        // Those that are not connected have to find the new leader: it finds them.
        let here = self.config.server.id;
        let others: Vec<ServerId> =
            self.pool.map().iter().flat_map(|map| &map.servers).map(|server| server.id).collect();
        others.into_iter().filter(|server| *server != here).for_each(|server| _ = self.link_to(server));
    }

    /// This server leads no more, or cannot know whether it does.
    fn step_down(&mut self) {
        let (here, lease_ms) = (self.config.server.id, self.config.lease_ms);
        let leading = self.replica.as_ref().map(Replica::leading).unwrap_or_default();
        let next = leading.leader.filter(|leader| *leader != here);
        let mut follower = Follower::new(self.now, next.unwrap_or(here));
        let own = match &self.role {
            Role::Leader(leader) => (leader.leading.term, here),
            Role::Follower(_) => (0, here),
        };
        follower.newest = leading.leader.map_or(own, |leader| own.max((leading.term, leader)));
        // Whoever is alone now may not be when it follows.
        let longest_ns = self.now.monotonic_ns + lease_ms * 1_000_000;
        follower.lease_ns = self.replica.as_ref().map_or(0, |replica| replica.lease_ns(lease_ms).min(longest_ns));
        let role = std::mem::replace(&mut self.role, Role::Follower(follower));
        let Role::Leader(before) = role else {
            self.role = role;
            return;
        };
        tracing::info!(server = %here, term = leading.term, "no longer leading the pool's log");
        self.lease_of_follower(false);
        let body = self.who_leads();
        for peer in before.followers.values().filter_map(|follower| follower.peer) {
            self.send(peer, 0, body.clone());
        }
        let text = format!("server {here} lost the lead of the pool's log meanwhile: the outcome is unknown");
        for one in before.in_flight {
            match (one.again, one.origin) {
                (Some(question), origin) if question.may_repeat() || origin == Origin::Own(Own::Note) => {
                    self.forward(*question);
                }
                (Some(_), origin) => {
                    self.answer(origin, Err(Refusal::new(RefusalCode::NoLeader, text.clone())));
                }
                // A server's question is asked again by that server; the leader's own notes are the next leader's to make.
                (None, _) => {}
            }
        }
        before.queue.into_iter().filter_map(|one| one.again).for_each(|question| self.forward(*question));
        self.follow();
    }
}
