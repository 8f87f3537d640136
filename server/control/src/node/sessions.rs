//! Sessions over what happens to their connections and to this server: they last for a lease without a connection, and as long as their
//! process where the kernel tells of its end (rule 12).
//!
//! Owns until when a session without a connection lasts, and what a server that comes back does with those that live there. Must never
//! end a session before its lease, nor keep one whose process is known to be dead.

use std::collections::BTreeSet;

use talea_fabric::PeerId;
use talea_model::{Process, SessionId};
use talea_wire::control::Reply;
use talea_wire::{Refusal, RefusalCode};

use super::clients::Home;
use super::notes::Note;
use super::question::{Origin, Own};
use super::{Action, Node};

impl Node {
    fn session_lease_ns(&self) -> u64 {
        self.now.monotonic_ns.saturating_add(self.config.session_lease_ms.saturating_mul(1_000_000))
    }

    /// A session's connection is gone: it may be taken up again for the length of a lease.
    pub(super) fn detach(&mut self, session: SessionId) {
        if self.config.session_lease_ms == 0 {
            return self.end_session(session, false, Origin::Own(Own::Note), u64::MAX);
        }
        let ends_ns = self.session_lease_ns();
        if let Some(home) = self.homes.get_mut(&session) {
            home.peer = None;
            self.set_session_end(session, ends_ns);
        }
    }

    fn set_session_end(&mut self, session: SessionId, ends_ns: u64) {
        let Some(home) = self.homes.get_mut(&session) else { return };
        self.session_ends.remove(&(home.ends_ns, session));
        home.ends_ns = ends_ns;
        if ends_ns != u64::MAX {
            self.session_ends.insert((ends_ns, session));
        }
    }

    /// A session of this server is over: nothing is watched or noted for it any more.
    pub(super) fn forget_home(&mut self, session: SessionId) -> Option<Home> {
        let home = self.forget_home_quietly(session)?;
        self.unnote(Note::End { session });
        Some(home)
    }

    /// The same, but what was noted stays.
    pub(super) fn forget_home_quietly(&mut self, session: SessionId) -> Option<Home> {
        let home = self.homes.remove(&session)?;
        self.session_ends.remove(&(home.ends_ns, session));
        if home.process.is_some() {
            self.actions.push(Action::Unwatch { session });
        }
        Some(home)
    }

    /// Ends the sessions that nobody has taken up again in time.
    pub(super) fn expire_sessions(&mut self) {
        while let Some((ends_ns, session)) = self.session_ends.first().copied() {
            if ends_ns > self.now.monotonic_ns {
                break;
            }
            self.end_session(session, false, Origin::Own(Own::Note), u64::MAX);
        }
    }

    pub(super) fn next_session_end(&self) -> Option<u64> {
        self.session_ends.first().map(|(ends_ns, _)| *ends_ns)
    }

    /// The process of a session has ended. Its connection may live on in a forked child, and means nothing.
    pub(super) fn session_process_died(&mut self, session: SessionId) {
        let Some(peer) = self.homes.get(&session).map(|home| home.peer) else { return };
        if let Some(peer) = peer {
            self.actions.push(Action::Close { peer });
            self.peers.remove(&peer);
            self.waits.forget_peer(peer);
        }
        self.end_session(session, false, Origin::Own(Own::Note), u64::MAX);
    }

    /// A client comes back to its session, on another connection.
    pub(super) fn resume(&mut self, peer: PeerId, session: SessionId, secret: u128) -> Result<Reply, Refusal> {
        let here = self.config.server.id;
        if self.lease_ns.is_none() || !self.has_adopted {
            let text = format!("server {here} has no contact with the pool's leader yet: try again");
            return Err(Refusal::new(RefusalCode::Busy, text));
        }
        let known = self.pool.may_resume(session, secret, here);
        let Some(home) = self.homes.get_mut(&session).filter(|_| known) else {
            let text = format!("session {session} has ended, or is not one of server {here}'s: open a new one");
            return Err(Refusal::new(RefusalCode::SessionExpired, text));
        };
        let before = home.peer.replace(peer).filter(|before| *before != peer);
        if let Some(before) = before
            && self.peers.remove(&before).is_some()
        {
            // The client has given it up, and this server has not heard of that.
            self.waits.forget_peer(before);
            self.actions.push(Action::Close { peer: before });
        }
        self.set_session_end(session, u64::MAX);
        self.set_session(peer, Some(session), false);
        let Some(map) = self.pool.map().cloned() else {
            return Err(Refusal::new(RefusalCode::Busy, "the pool has not begun: try again"));
        };
        Ok(Reply::Session { session, map })
    }

    /// Takes over the sessions that live here, the first time that this process reaches the log's end: what they have joined it knows
    /// from the notes, and their processes it watches again. Later, sessions that nobody here knows are those whose client never heard
    /// of them: they end.
    pub(super) fn adopt_sessions(&mut self) {
        if std::mem::replace(&mut self.has_adopted, true) || self.config.session_lease_ms == 0 {
            return self.end_orphans();
        }
        let mut joined = self.config.joined.as_mut().map(std::mem::take).unwrap_or_default();
        let all: Vec<SessionId> = self.pool.sessions_of(self.config.server.id).collect();
        for session in all {
            let process = self.pool.process_of(session);
            let home =
                Home { peer: None, process, joined: joined.remove(&session).unwrap_or_default(), ends_ns: u64::MAX };
            self.homes.insert(session, home);
            match process {
                Some(process) => self.actions.push(Action::WatchProcess { session, process }),
                None => self.set_session_end(session, self.session_lease_ns()),
            }
        }
        joined.into_keys().for_each(|session| self.unnote(Note::End { session }));
    }

    /// Whether this server knows who writes through it: it does from when it has taken its sessions over, and before if it has notes.
    pub(super) fn remembers(&self) -> bool {
        self.has_adopted || self.config.joined.is_some()
    }

    /// Begins to watch over the process of a session.
    pub(super) fn watch_session(&mut self, session: SessionId, process: Option<Process>) {
        if let Some(process) = process {
            self.actions.push(Action::WatchProcess { session, process });
        }
    }
}

/// What a server noted before it started: by session, the transactions that it had joined.
pub type Joined = std::collections::BTreeMap<SessionId, BTreeSet<talea_model::TxId>>;
