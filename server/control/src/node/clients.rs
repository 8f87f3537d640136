//! The clients whose home this server is: their sessions, what they joined, and their end (rules 3 and 12).

use std::collections::BTreeSet;

use talea_fabric::PeerId;
use talea_model::{Fate, Process, SessionId, TxId};
use talea_wire::control::{Body, Reply, Request};
use talea_wire::{Refusal, RefusalCode};

use super::notes::Note;
use super::question::{Origin, Own, Question};
use super::{Action, Node, Role, follower, is_read};
use crate::pool::Outcome;

/// From how many joined transactions on closed ones are looked for and dropped.
const JOINED_BEFORE_PRUNING: usize = 64;

/// Clients' connections without a session at most. Whoever opens one stays; others only look, and look again.
pub(super) const MAX_STRANGERS: usize = 1024;

/// A connection that has proved itself.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) kind: PeerKind,
    /// Its process, if the kernel vouched for it.
    pub(super) process: Option<Process>,
    /// When its last message came, in monotonic nanoseconds.
    pub(super) heard_ns: u64,
}

/// What is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerKind {
    /// A client; `opening` while its session is being opened.
    Client { session: Option<SessionId>, opening: bool },
    /// Another server.
    Server(talea_model::ServerId),
}

/// A session that lives here.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// Its connection, if it has one.
    pub(super) peer: Option<PeerId>,
    /// Its process, if that is watched over.
    pub(super) process: Option<Process>,
    pub(super) joined: BTreeSet<TxId>,
    /// When it ends without a connection, in monotonic nanoseconds.
    pub(super) ends_ns: u64,
}

impl Node {
    /// A request of a client of ours.
    pub(super) fn client_request(
        &mut self,
        peer: PeerId,
        session: Option<SessionId>,
        question: Question,
        deadline_ms: u64,
    ) {
        let origin = question.origin.clone();
        if question.request == Request::Alive {
            return self.answer(origin, Ok(Reply::Done));
        }
        let opens = matches!(question.request, Request::SessionOpen { .. });
        if !opens && question.session != SessionId(0) && Some(question.session) != session {
            let text = format!("session {} has ended or is not this connection's: connect anew", question.session);
            return self.answer(origin, Err(Refusal::new(RefusalCode::SessionExpired, text)));
        }
        let needs_session = !opens && !is_read(&question.request) && !matches!(question.request, Request::Wait { .. });
        if needs_session && question.session == SessionId(0) {
            let text = "this request needs a session: open one first";
            return self.answer(origin, Err(Refusal::new(RefusalCode::SessionExpired, text)));
        }
        match question.request {
            Request::SessionOpen { .. } => self.open_session(peer, question),
            Request::SessionClose => {
                let session = question.session;
                self.set_session(peer, None, false);
                self.end_session(session, true, origin, question.deadline_ns);
            }
            Request::Join { tx } => match self.join(question.session, tx) {
                Ok(()) => self.note_join(origin, question.session, tx),
                Err(refusal) => self.answer(origin, Err(refusal)),
            },
            Request::Leave { tx } => {
                let session = question.session;
                if self.homes.get_mut(&session).is_some_and(|home| home.joined.remove(&tx)) {
                    self.unnote(Note::Leave { session, tx });
                }
                self.answer(origin, Ok(Reply::Done));
            }
            Request::Wait { container, after, limit } => {
                let wait = super::wait::Wait { origin, container, after, limit };
                self.wait(wait, deadline_ms);
            }
            Request::ServerUp { .. }
            | Request::Follow { .. }
            | Request::Horizon { .. }
            | Request::FollowThrough { .. }
            | Request::Unfollow
            | Request::EndThrough
            | Request::Beats(_)
            | Request::Image { .. }
            | Request::SessionEnded { .. }
            | Request::SessionMove { .. } => {
                let text = "this request is between servers";
                self.answer(origin, Err(Refusal::new(RefusalCode::Access, text)));
            }
            _ => self.ask(question),
        }
    }

    /// Passes a question to the pool's service: this server, if it leads, else the leader.
    pub(super) fn ask(&mut self, question: Question) {
        match self.role {
            Role::Leader(_) => self.serve(question),
            Role::Follower(_) => self.forward(question),
        }
    }

    fn open_session(&mut self, peer: PeerId, mut question: Question) {
        let Some(known) = self.peers.get(&peer) else { return };
        let Origin::Client { id, .. } = question.origin else { return };
        if !matches!(known.kind, PeerKind::Client { session: None, opening: false }) {
            let refusal = Refusal::new(RefusalCode::Argument, "this connection has a session: it can have one only");
            // Answered past `answer`, which would take it for the end of an opening that goes on.
            return self.send_outcome(peer, id, Err(refusal));
        }
        let known = known.process;
        match &mut question.request {
            Request::SessionOpen { resume: Some(session), secret, .. } if self.lives_here(*session) => {
                let outcome = self.resume(peer, *session, *secret);
                self.send_outcome(peer, id, outcome);
            }
            Request::SessionOpen { resume: Some(_), .. } => self.take_over(peer, known, question),
            Request::SessionOpen { process, .. } => {
                *process = known;
                self.set_session(peer, None, true);
                self.ask(question);
            }
            _ => {}
        }
    }

    /// A client connected, or its session is over. If those without one are too many, the one that was silent for the longest time makes
    /// room; but first one that waits for nothing. Servers, and who has a session, stay.
    pub(super) fn bound_strangers(&mut self, newest: PeerId) {
        self.strangers.push(newest);
        if self.strangers.len() <= MAX_STRANGERS {
            return;
        }
        // Most that were one have a session by now.
        let peers = &self.peers;
        let opens = |peer: &PeerId| match peers.get(peer)?.kind {
            PeerKind::Client { session: None, opening } => Some(opening),
            _ => None,
        };
        self.strangers.sort_unstable();
        self.strangers.dedup();
        self.strangers.retain(|peer| opens(peer).is_some());
        if self.strangers.len() <= MAX_STRANGERS {
            return;
        }
        let waiting = self.waits.peers();
        let rank =
            |peer: &PeerId| (opens(peer), waiting.contains(peer), peers.get(peer).map(|known| known.heard_ns), *peer);
        let last = self.strangers.iter().copied().filter(|peer| *peer != newest).min_by_key(rank);
        if let Some(peer) = last {
            tracing::warn!(
                peer = peer.0,
                "closing the oldest of more than {MAX_STRANGERS} connections without a session"
            );
            self.actions.push(Action::Close { peer });
            self.lose_peer(peer, false);
        }
    }

    pub(super) fn set_session(&mut self, peer: PeerId, to: Option<SessionId>, to_opening: bool) {
        if let Some(Peer { kind: PeerKind::Client { session, opening }, .. }) = self.peers.get_mut(&peer) {
            (*session, *opening) = (to, to_opening);
            if to.is_none() && !to_opening {
                self.bound_strangers(peer);
            }
        }
    }

    /// A session was opened for a peer, which may be gone by now.
    pub(super) fn bind_session(&mut self, peer: PeerId, session: SessionId) {
        if let Some((_, joined)) = self.arriving.remove(&peer) {
            return self.settle(peer, session, joined);
        }
        let process = self.peers.get(&peer).and_then(|known| known.process);
        self.homes.insert(session, Home { peer: Some(peer), process, joined: BTreeSet::new(), ends_ns: u64::MAX });
        self.watch_session(session, process);
        match self.peers.contains_key(&peer) {
            true => self.set_session(peer, Some(session), false),
            // Its client has not heard of it, and never will.
            false => self.end_session(session, false, Origin::Own(Own::Note), u64::MAX),
        }
    }

    /// A refusal while a session was being opened: the client may try again.
    pub(super) fn session_not_opened(&mut self, peer: PeerId, outcome: &Outcome) {
        self.stays_away(peer, outcome);
        if let Some(Peer { kind: PeerKind::Client { session: None, opening }, .. }) = self.peers.get_mut(&peer) {
            *opening &= outcome.is_ok();
        }
    }

    /// A session's process is about to write in a transaction.
    fn join(&mut self, session: SessionId, tx: TxId) -> Result<(), Refusal> {
        if self.lease_ns.is_none() {
            return Err(self.leader_lost());
        }
        match self.pool.fate(tx) {
            Some(Fate::Committed(_) | Fate::Aborted) => return self.pool.refuse_closed(tx).map(drop),
            // One that has not begun as far as this server knows may have begun since.
            Some(Fate::Open) | None => {}
        }
        let pool = &self.pool;
        let Some(home) = self.homes.get_mut(&session) else {
            return Err(Refusal::new(
                RefusalCode::SessionExpired,
                format!("session {session} has ended: connect anew"),
            ));
        };
        let mut closed = BTreeSet::new();
        if home.joined.len() >= JOINED_BEFORE_PRUNING {
            let is_closed = |tx: &TxId| !matches!(pool.fate(*tx), Some(Fate::Open) | None);
            closed = home.joined.iter().copied().filter(is_closed).collect();
            home.joined.retain(|tx| !closed.contains(tx));
        }
        home.joined.insert(tx);
        closed.into_iter().for_each(|tx| self.unnote(Note::Leave { session, tx }));
        Ok(())
    }

    /// Ends a session of ours: tells the pool's service what it had joined.
    pub(super) fn end_session(&mut self, session: SessionId, orderly: bool, origin: Origin, deadline_ns: u64) {
        let Some(home) = self.forget_home(session) else {
            return self.answer(origin, Ok(Reply::Done));
        };
        let joined = home.joined.into_iter().filter(|tx| self.may_be_open(*tx)).collect();
        let request = Request::SessionEnded { session, joined, orderly };
        // The end itself must reach the log whether or not anybody waits for the answer.
        let own = Question {
            origin: Origin::Own(Own::Note),
            session: SessionId(0),
            sequence: 0,
            deadline_ns: u64::MAX,
            request,
        };
        match origin {
            Origin::Own(_) => self.ask(own),
            origin => match self.role {
                Role::Leader(_) => self.ask(Question { origin, ..own }),
                Role::Follower(_) => {
                    self.ask(own.clone());
                    self.ask(Question { origin, deadline_ns, ..own });
                }
            },
        }
    }

    /// The log says that a session has ended.
    pub(super) fn session_ended(&mut self, session: SessionId) {
        let Some(home) = self.forget_home(session) else { return };
        if let Some(peer) = home.peer {
            self.set_session(peer, None, false);
        }
        // Somebody else has ended it, who does not know what it had joined here.
        let joined: Vec<TxId> = home.joined.into_iter().filter(|tx| self.may_be_open(*tx)).collect();
        if !joined.is_empty() {
            let request = Request::SessionEnded { session, joined, orderly: false };
            let origin = Origin::Own(Own::Note);
            self.ask(Question { origin, session: SessionId(0), sequence: 0, deadline_ns: u64::MAX, request });
        }
    }

    pub(super) fn may_be_open(&self, tx: TxId) -> bool {
        matches!(self.pool.fate(tx), Some(Fate::Open) | None)
    }

    /// A connection is gone: `died` if its process is known to be.
    pub(super) fn lose_peer(&mut self, peer: PeerId, died: bool) {
        let Some(known) = self.peers.remove(&peer) else { return };
        self.waits.forget_peer(peer);
        match known.kind {
            PeerKind::Client { session: Some(session), .. } => self.detach(session),
            PeerKind::Client { .. } => {}
            PeerKind::Server(server) => {
                self.unlink(server, peer);
                match &self.role {
                    Role::Leader(_) => self.follower_gone(server, peer, died),
                    Role::Follower(follower) if follower.is_link(peer) => self.link_down(),
                    Role::Follower(_) => {}
                }
                self.relative_lost(peer);
            }
        }
    }

    /// Brings this server to the log's end as it is now, then does what waits for that.
    pub(super) fn catch_up(&mut self, what: follower::CatchUp) {
        match &mut self.role {
            Role::Leader(_) => self.caught_up(what),
            Role::Follower(_) => self.catch_up_with_leader(what),
        }
    }

    pub(super) fn caught_up(&mut self, what: follower::CatchUp) {
        match what {
            follower::CatchUp::Token(token) => self.actions.push(Action::CatchUpDone { token }),
            follower::CatchUp::Wait(wait, deadline_ns) => self.start_wait(wait, deadline_ns),
            follower::CatchUp::Child { peer, id } => {
                let end = self.pool.position();
                self.send(peer, id, Body::Reply(Reply::Position(end)));
            }
            follower::CatchUp::Ready { peer } => {
                if self.follower().is_some_and(|follower| follower.is_link(peer) && !follower.is_ready()) {
                    self.link_ready(self.pool.position());
                }
            }
        }
    }
}
