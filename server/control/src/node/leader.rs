//! The leader: puts entries into the log, answers who asked once they are applied, and passes them on to the followers.
//!
//! It leads only while a majority of the replicas vouches for that, so what it answers from its state is the pool's state. Must never
//! answer an entry before it is applied. The membership of servers is in [`followers`].

use std::collections::{BTreeMap, VecDeque};

use talea_fabric::PeerId;
use talea_model::{ServerId, SessionId, Stamp};
use talea_wire::control::{Reply, Request};
use talea_wire::log::Entry;
use talea_wire::{Refusal, RefusalCode, codec};

use super::feed::{BATCH_BYTES, BATCH_RECORDS};
use super::images::Image;
use super::question::{Origin, Own, Question};
use super::raft::{LeaderId, Proposal};
use super::{Node, NodeConfig, Role};
use crate::pool::Outcome;

mod followers;

use followers::{Follower, patience_ns};

/// Proposals queued for the log at most; more requests are told to come back.
const MAX_QUEUED: usize = 1 << 16;

/// What the leader holds beside the state.
#[derive(Debug)]
pub(super) struct Leader {
    /// The vote under which it leads.
    pub(super) leading: LeaderId,
    /// By which it knows its entries again when they are applied.
    ticket: u64,
    /// Not in the log yet.
    pub(super) queue: VecDeque<InFlight>,
    /// In one entry of the log, whose ticket is the last one given.
    pub(super) in_flight: Vec<InFlight>,
    pub(super) followers: BTreeMap<ServerId, Follower>,
    /// What servers that are far behind are sent.
    pub(super) image: Option<Image>,
    /// When it looks next whether all replicas are there.
    pub(super) look_ns: u64,
    /// The system was off for longer than a session lasts: who does not come back now has no sessions any more.
    is_cold: bool,
}

/// A proposal until it is applied.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) proposal: Proposal,
    pub(super) origin: Origin,
    pub(super) bytes: usize,
    /// The asker of a container is content if another one made it first.
    pub(super) exist_ok: bool,
    /// What a server's own client asked, in case somebody else must be asked again.
    pub(super) again: Option<Box<Question>>,
}

impl Leader {
    /// One that begins to lead. Its tickets begin anywhere: entries that an earlier process proposed may still be on their way.
    pub(super) fn new(leading: LeaderId, boot: u64) -> Self {
        let ticket = boot & u64::from(u32::MAX);
        let (queue, in_flight, followers) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        Self { leading, ticket, queue, in_flight, followers, image: None, look_ns: 0, is_cold: false }
    }

    /// Who asked for the entry with this ticket.
    pub(super) fn take_in_flight(&mut self, leading: LeaderId, ticket: u64) -> Vec<InFlight> {
        match leading == self.leading && ticket == self.ticket {
            true => std::mem::take(&mut self.in_flight),
            false => Vec::new(),
        }
    }

    /// A server's heartbeat has come through another one; false if that process of it is not registered.
    pub(super) fn hear(&mut self, server: ServerId, boot: u64, now_ns: u64) -> bool {
        let known = self.followers.get_mut(&server).filter(|known| known.boot == boot && !known.lost);
        known.map(|known| known.heard_ns = now_ns).is_some()
    }

    pub(super) fn next_deadline(&self, config: &NodeConfig) -> Option<u64> {
        let of_one = |follower: &Follower| match (follower.lost, follower.has_no_sessions) {
            (false, _) => Some(follower.heard_ns.saturating_add(patience_ns(config))),
            (true, false) => Some(follower.sessions_end_ns(config, self.is_cold)),
            (true, true) => None,
        };
        self.followers.values().filter_map(of_one).min()
    }
}

impl Node {
    /// Begins to lead: the pool's first entries, or what follows from having been away.
    pub(super) fn lead(&mut self) {
        let server = self.config.server.id;
        let slept_us = self.now.unix_us.saturating_sub(self.pool.ceiling().unix_us());
        let is_cold = self.pool.boot_of(server) != Some(self.config.boot)
            && slept_us > self.config.session_lease_ms.saturating_mul(1_000);
        if let Role::Leader(leader) = &mut self.role {
            leader.is_cold = is_cold;
        }
        self.note(Entry::Leader { server });
        if let Some(map) = self.pool.map().cloned() {
            // All leases begin anew, in full; who does not come back within its own is lost.
            map.servers.iter().filter(|known| known.id != server).for_each(|known| self.expect(known));
            let has_restarted = self.pool.boot_of(server) != Some(self.config.boot);
            if has_restarted || self.config.targets.iter().any(|target| map.is_lost(target.id)) {
                let (server, targets, boot) =
                    (self.config.server.clone(), self.config.targets.clone(), self.config.boot);
                let remembers = self.remembers();
                self.note(Entry::ServerUp { server, targets, boot, remembers });
            }
        }
        if !self.has_adopted {
            self.adopt_sessions();
        }
        self.create_pool_if_complete();
        self.lease_of_leader();
    }

    /// Proposes an entry of the service's own.
    pub(super) fn note(&mut self, entry: Entry) {
        self.propose(SessionId(0), 0, entry, Origin::Own(Own::Note), Stamp::ZERO, (false, None));
    }

    /// Orders an entry. Its proposed stamp is past everything this server has seen and `seen`.
    fn propose(
        &mut self,
        session: SessionId,
        sequence: u64,
        entry: Entry,
        origin: Origin,
        seen: Stamp,
        (exist_ok, again): (bool, Option<Box<Question>>),
    ) {
        self.clock.observe(seen);
        let proposed = self.clock.tick(self.now.unix_us);
        let Role::Leader(leader) = &mut self.role else { return };
        let proposal = Proposal { proposed, session, sequence, entry };
        match codec::encode(&proposal) {
            Ok(bytes) if leader.queue.len() < MAX_QUEUED || origin == Origin::Own(Own::Note) => {
                let bytes = bytes.len();
                leader.queue.push_back(InFlight { proposal, origin, bytes, exist_ok, again });
            }
            Ok(_) => {
                let text = format!("{MAX_QUEUED} entries wait to be logged: try again");
                self.answer(origin, Err(Refusal::new(RefusalCode::Busy, text)));
            }
            Err(error) => {
                let text = format!("the request does not fit into a log entry: {error}");
                self.answer(origin, Err(Refusal::new(RefusalCode::TooLong, text)));
            }
        }
    }

    /// Puts what is queued into the log, all in one entry, unless one is on its way: what comes meanwhile shares the next
    /// one's flushes and round trips.
    pub(super) fn flush_log(&mut self) {
        let (Role::Leader(leader), Some(replica)) = (&mut self.role, &self.replica) else { return };
        if !leader.in_flight.is_empty() || leader.queue.is_empty() {
            return;
        }
        let mut bytes = 0;
        while let Some(first) = leader.queue.front() {
            bytes += first.bytes;
            if leader.in_flight.len() == BATCH_RECORDS || (bytes > BATCH_BYTES && !leader.in_flight.is_empty()) {
                break;
            }
            leader.in_flight.extend(leader.queue.pop_front());
        }
        leader.ticket += 1;
        let proposals = leader.in_flight.iter().map(|one| one.proposal.clone()).collect();
        replica.propose(leader.ticket, proposals);
    }

    /// Answers a question, from the state or through the log.
    pub(super) fn serve(&mut self, question: Question) {
        match question.request {
            Request::Report(figures) => {
                self.reports.add(figures);
                return self.answer(question.origin, Ok(Reply::Done));
            }
            Request::Reports => {
                let told = self.reports.tell();
                return self.answer(question.origin, Ok(Reply::Reports(told)));
            }
            _ => {}
        }
        if let Some(outcome) = self.read(&question.request) {
            return self.answer(question.origin, outcome);
        }
        if let Some(known) = self.pool.admit(question.session, question.sequence) {
            return self.answer(question.origin, known);
        }
        if let Origin::Server { server, .. } = question.origin
            && self.pool.home_of(question.session).is_some_and(|home| home != server)
        {
            // Its client has given that server up, and may have asked for something else since.
            let text = format!("session {} was taken up at another server", question.session);
            return self.answer(question.origin, Err(Refusal::new(RefusalCode::SessionExpired, text)));
        }
        let is_ours = !matches!(question.origin, Origin::Server { .. });
        let again = (is_ours && !self.is_alone()).then(|| Box::new(question.clone()));
        let Question { origin, session, sequence, request, .. } = question;
        let seen = match &request {
            Request::Commit { summary, .. } | Request::CommitIndependent { summary, .. } => summary.hlc,
            _ => Stamp::ZERO,
        };
        if let Request::Commit { tx, summary, .. } = &request
            && let Some(refusal) = self.pool.held_up(*tx, summary)
        {
            return self.answer(origin, Err(refusal));
        }
        if !self.is_plausible(seen) {
            return match origin {
                Origin::Client { peer, id } | Origin::Server { peer, id, .. } => self.refuse_clock(peer, id),
                Origin::Own(_) => {}
            };
        }
        let exist_ok = matches!(request, Request::ContainerCreate { exist_ok: true, .. });
        match self.entry_of(request, &origin) {
            Ok(entry) => self.propose(session, sequence, entry, origin, seen, (exist_ok, again)),
            Err(refusal) => self.answer(origin, Err(refusal)),
        }
    }

    /// Answers from the state, for requests that need no entry.
    fn read(&self, request: &Request) -> Option<Outcome> {
        Some(match request {
            Request::Map => match self.pool.map() {
                Some(map) => Ok(Reply::Map(map.clone())),
                None => self.leader_status(),
            },
            Request::Status => self.leader_status(),
            Request::ContainerOpen { name } => self.pool.container_by_name(name),
            Request::ContainerList => Ok(Reply::Containers(self.pool.container_list())),
            Request::ContainerCreate { name, exist_ok: true, .. } => match self.pool.container_by_name(name) {
                Ok(known) => Ok(known),
                Err(_) => return None,
            },
            Request::LogEnd => Ok(Reply::Position(self.pool.position())),
            _ => return None,
        })
    }

    pub(super) fn leader_status(&self) -> Outcome {
        let replicas = self.replica.iter().flat_map(|replica| replica.voters()).map(|id| id.server).collect();
        self.pool.status(self.counters, self.config.server.id, replicas)
    }

    fn entry_of(&self, request: Request, origin: &Origin) -> Result<Entry, Refusal> {
        let home = match origin {
            Origin::Server { server, .. } => *server,
            _ => self.config.server.id,
        };
        Ok(match request {
            Request::SessionOpen { name, secret, process, .. } => Entry::SessionOpen { home, name, secret, process },
            Request::SessionEnded { session, joined, orderly } => {
                Entry::SessionEnd { session, home: Some(home), joined, orderly }
            }
            Request::SessionMove { session, secret, process, attempt } => {
                Entry::SessionMove { session, home, secret, process, attempt }
            }
            Request::Evict { session } if self.pool.has_session(session) => {
                Entry::SessionEnd { session, home: None, joined: Vec::new(), orderly: false }
            }
            Request::Evict { session } => {
                let text = format!("there is no session {session}; `talea status` shows those that are open");
                return Err(Refusal::new(RefusalCode::NotFound, text));
            }
            Request::ContainerCreate { name, properties, .. } => Entry::ContainerCreate { name, properties },
            Request::ContainerDestroy { container } => Entry::ContainerDestroy { container },
            Request::Begin { container, collective } => Entry::Begin { container, collective },
            Request::Commit { tx, summary, attributes, manifest, next } => {
                Entry::Commit { tx, summary, attributes, manifest, next }
            }
            Request::CommitIndependent { tx, summary, until, named } => {
                Entry::CommitIndependent { tx, summary, until, named }
            }
            Request::Abort { tx, reason } => Entry::Abort { tx, reason },
            Request::SnapshotOpen { container, at } => Entry::SnapshotOpen { container, at },
            Request::SnapshotClose { lease } => Entry::SnapshotClose { lease },
            Request::SnapshotName { container, name, at } => Entry::SnapshotName { container, name, at },
            Request::SnapshotDestroy { container, name } => Entry::SnapshotDestroy { container, name },
            Request::Subscribe { container, after } => Entry::Subscription { container, after },
            Request::Producer { container, state } => Entry::Producer { container, state },
            _ => {
                return Err(Refusal::new(
                    RefusalCode::Argument,
                    "the home server answers this request, not the leader",
                ));
            }
        })
    }

    /// A request of another server.
    pub(super) fn server_request(&mut self, server: ServerId, peer: PeerId, question: Question) {
        let now_ns = self.now.monotonic_ns;
        let here = self.config.server.id;
        let Role::Leader(leader) = &mut self.role else { return self.child_request(server, peer, question) };
        if let Request::ServerUp { server: info, targets, boot, remembers } = question.request {
            return match info.id == server && server != here {
                true => self.register(peer, info, targets, (boot, remembers), question.origin),
                false => {
                    let text = format!("this connection is server {server}'s, not server {}'s", info.id);
                    self.answer(question.origin, Err(Refusal::new(RefusalCode::Argument, text)));
                }
            };
        }
        let known = leader.followers.get_mut(&server).filter(|known| known.peer == Some(peer) && !known.lost);
        let Some(known) = known else {
            let text = format!("server {server} is not registered on this connection: register first");
            return self.answer(question.origin, Err(Refusal::new(RefusalCode::Busy, text)));
        };
        known.heard_ns = now_ns;
        match question.request {
            Request::Follow { after } => {
                known.sent = Some(after);
                self.feed_followers();
            }
            Request::Unfollow => known.sent = None,
            Request::FollowThrough { .. } | Request::EndThrough => {
                let text = format!("server {here} leads the log: follow it as its leader");
                self.answer(question.origin, Err(Refusal::new(RefusalCode::Busy, text)));
            }
            Request::Beats(beats) => {
                let heard = self.passed_on(beats);
                self.answer(question.origin, Ok(heard));
            }
            Request::Image { position, offset } => self.send_image(peer, position, offset),
            Request::Horizon { durable } => {
                self.confirm(server, durable);
                self.answer(question.origin, Ok(Reply::Position(self.pool.position())));
            }
            _ => self.serve(question),
        }
    }
}
