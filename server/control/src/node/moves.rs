//! Sessions that move: a client that cannot reach its home takes its session up at another server, with all that hangs on it
//! (rules 12 and 14).
//!
//! The log says where a session lives, so the first of its end and its move wins, and whoever was its home before has no say in it any
//! more. What its process has joined the process says itself, and the new home notes it before it asks for the move: whoever dies
//! after that, nothing that was joined is forgotten. Must never keep two homes for one session.

use std::collections::BTreeSet;

use talea_fabric::PeerId;
use talea_model::{Process, SessionId, TxId};
use talea_wire::control::Request;
use talea_wire::{Refusal, RefusalCode};

use super::Node;
use super::clients::Home;
use super::notes::Note;
use super::question::Question;
use crate::pool::Outcome;

/// Transactions that a session may bring along.
const JOINED_MAX: usize = 65_536;

impl Node {
    /// Whether a session is one of this server's, as far as it knows.
    pub(super) fn lives_here(&self, session: SessionId) -> bool {
        self.homes.contains_key(&session) || self.pool.home_of(session) == Some(self.config.server.id)
    }

    /// Whether a session is on its way here.
    pub(super) fn is_arriving(&self, session: SessionId) -> bool {
        self.arriving.values().any(|(arriving, _)| *arriving == session)
    }

    /// A client comes with a session that lives elsewhere.
    pub(super) fn take_over(&mut self, peer: PeerId, process: Option<Process>, question: Question) {
        let Question { origin, deadline_ns, request, .. } = question;
        let Request::SessionOpen { resume: Some(session), secret, joined, attempt, .. } = request else { return };
        if joined.len() > JOINED_MAX {
            let text = format!("a session with {} transactions cannot move: open a new one", joined.len());
            return self.answer(origin, Err(Refusal::new(RefusalCode::SessionExpired, text)));
        }
        let joined: BTreeSet<TxId> = joined.into_iter().filter(|tx| self.may_be_open(*tx)).collect();
        self.set_session(peer, None, true);
        self.arriving.insert(peer, (session, joined.clone()));
        let request = Request::SessionMove { session, secret, process, attempt };
        let (none, sequence) = (SessionId(0), 0);
        self.note_arrival(session, &joined, Question { origin, session: none, sequence, deadline_ns, request });
    }

    /// The log says that a session lives here now. Its client may be gone again by now, and come back.
    pub(super) fn settle(&mut self, peer: PeerId, session: SessionId, joined: BTreeSet<TxId>) {
        let known = self.peers.get(&peer).cloned();
        let process = match &known {
            Some(known) => known.process,
            None if self.pool.home_of(session) == Some(self.config.server.id) => self.pool.process_of(session),
            None => None,
        };
        let before = self.forget_home_quietly(session).and_then(|home| home.peer);
        if let Some(before) = before.filter(|before| *before != peer) {
            self.set_session(before, None, false);
        }
        self.homes.insert(session, Home { peer: Some(peer), process, joined, ends_ns: u64::MAX });
        self.watch_session(session, process);
        match known {
            Some(_) => self.set_session(peer, Some(session), false),
            None => self.detach(session),
        }
    }

    /// A session did not come after all.
    pub(super) fn stays_away(&mut self, peer: PeerId, outcome: &Outcome) {
        if outcome.is_ok() {
            return;
        }
        if let Some((session, _)) = self.arriving.remove(&peer)
            && !self.homes.contains_key(&session)
        {
            self.unnote(Note::End { session });
        }
    }

    /// The log says that a session lives at another server now, or here.
    pub(super) fn session_moved(&mut self, session: SessionId) {
        let home = self.pool.home_of(session);
        if home == Some(self.config.server.id) || self.is_arriving(session) {
            return;
        }
        if let Some(peer) = self.forget_home(session).and_then(|home| home.peer) {
            self.set_session(peer, None, false);
            self.waits.forget_peer(peer);
        }
    }
}
