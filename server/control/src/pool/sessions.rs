//! Sessions and what hangs on them: exactly-once results, leases, subscriptions, the producer's word (rules 12, 14, 17).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use talea_model::{ContainerId, PoolMap, Process, ServerId, SessionId, Stamp, Step, TxId, limit};
use talea_wire::control::Reply;
use talea_wire::log::ProducerState;
use talea_wire::{Refusal, RefusalCode};

use super::{Applied, MAX_RESULTS, Outcome, Pool, refuse};

/// Longest session name in bytes; longer ones are cut.
const MAX_SESSION_NAME_BYTES: usize = 255;

/// An open session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) home: ServerId,
    pub(super) name: String,
    /// What its client must show to take it up again.
    secret: u128,
    /// When it was opened.
    pub(super) since: Stamp,
    /// The client's last attempt to take it up at another server.
    attempt: u64,
    /// Its process, if its home server can watch over that.
    pub(super) process: Option<Process>,
    /// Its home is lost, and with that what it had joined: none of the transactions after this one.
    pub(super) lost_at: Option<TxId>,
    /// Results by sequence, the newest [`MAX_RESULTS`].
    results: BTreeMap<u64, Outcome>,
    /// Highest sequence whose result was dropped.
    forgotten: u64,
}

impl Session {
    /// The result of a request that was executed before.
    pub(super) fn result(&self, sequence: u64) -> Option<Outcome> {
        if sequence == 0 {
            return None;
        }
        match self.results.get(&sequence) {
            Some(result) => Some(result.clone()),
            None if sequence <= self.forgotten => Some(refuse(
                RefusalCode::SessionExpired,
                format!("the result of request {sequence} is no longer kept, and it is not executed again"),
            )),
            None => None,
        }
    }
}

/// What is known of a producer, and whose word it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Producer {
    pub(super) state: ProducerState,
    session: SessionId,
    /// Said of this container, and not of all of the pool's.
    own: bool,
}

impl Producer {
    /// A session that said `Active` and ends without saying more is lost.
    fn session_ended(&mut self, session: SessionId) -> bool {
        let lost = self.state == ProducerState::Active && self.session == session;
        if lost {
            self.state = ProducerState::Lost;
        }
        lost
    }
}

impl Pool {
    /// Open sessions that live at a server.
    pub fn sessions_of(&self, home: ServerId) -> impl Iterator<Item = SessionId> {
        self.sessions.iter().filter(move |(_, session)| session.home == home).map(|(id, _)| *id)
    }

    /// Whether a session lives at a server, and this is its secret.
    pub(crate) fn may_resume(&self, session: SessionId, secret: u128, home: ServerId) -> bool {
        self.sessions.get(&session).is_some_and(|known| known.home == home && known.secret == secret)
    }

    /// The server that a session lives at.
    pub(crate) fn home_of(&self, session: SessionId) -> Option<ServerId> {
        self.sessions.get(&session).map(|known| known.home)
    }

    /// The process of a session, if its home server can watch over it.
    pub(crate) fn process_of(&self, session: SessionId) -> Option<Process> {
        self.sessions.get(&session)?.process
    }

    /// Servers are lost: what the sessions that live there have joined is not known any more.
    pub(super) fn lose_sessions(&mut self, homes: &[ServerId]) {
        let last_tx = self.last_tx;
        let lost = self.sessions.values_mut().filter(|session| homes.contains(&session.home));
        lost.for_each(|session| _ = session.lost_at.get_or_insert(last_tx));
    }

    /// A server is back, and knows what its sessions have joined.
    pub(super) fn regain_sessions(&mut self, home: ServerId) {
        let regained = self.sessions.values_mut().filter(|session| session.home == home);
        regained.for_each(|session| session.lost_at = None);
    }

    /// All sessions, for targets that were not told of each.
    pub(crate) fn all_sessions(&self) -> crate::TargetChange {
        crate::TargetChange::Sessions { last: self.last_session, open: self.sessions.keys().copied().collect() }
    }

    /// Whether a session is open.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whether a session was opened and has ended.
    pub(crate) fn has_ended(&self, session: SessionId) -> bool {
        session <= self.last_session && !self.has_session(session)
    }

    pub(super) fn session_open(
        &mut self,
        home: ServerId,
        name: &str,
        secret: u128,
        process: Option<Process>,
        since: Stamp,
        applied: &mut Applied,
    ) -> Outcome {
        if self.sessions.len() >= limit::MAX_SESSIONS {
            return refuse(RefusalCode::Busy, format!("the pool has {} sessions, its limit", limit::MAX_SESSIONS));
        }
        if self.map.is_none() {
            return refuse(RefusalCode::Busy, "the pool has not begun: some of its servers are not up yet, try again");
        }
        self.last_session = SessionId(self.last_session.0 + 1);
        let mut name = name.to_owned();
        let end = (0..=MAX_SESSION_NAME_BYTES).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name.truncate(end);
        let (results, attempt) = (BTreeMap::new(), 0);
        let session = Session { home, name, secret, since, attempt, process, lost_at: None, results, forgotten: 0 };
        self.sessions.insert(self.last_session, session);
        applied.changes.push(crate::TargetChange::OpenSession { session: self.last_session });
        self.tell_session(self.last_session)
    }

    /// A session goes on at another server: its client says so, and shows its secret. What it has joined is noted there.
    pub(super) fn session_move(
        &mut self,
        session: SessionId,
        (home, process): (ServerId, Option<Process>),
        (secret, attempt): (u128, u64),
        applied: &mut Applied,
    ) -> Outcome {
        let known = self.sessions.get_mut(&session).filter(|known| known.secret == secret && known.attempt <= attempt);
        let Some(known) = known else {
            let text = format!("session {session} has ended, or was taken up elsewhere since: open a new one");
            return refuse(RefusalCode::SessionExpired, text);
        };
        (known.home, known.process, known.attempt, known.lost_at) = (home, process, attempt, None);
        applied.moved.push(session);
        self.tell_session(session)
    }

    /// The answer to who opened a session or moved it.
    fn tell_session(&self, session: SessionId) -> Outcome {
        let Some(map) = &self.map else {
            return refuse(RefusalCode::Busy, "the pool has not begun: some of its servers are not up yet, try again");
        };
        // The map's names come with the answer: thousands of servers that only apply this need no copy of them.
        let PoolMap { pool, version, stamp, .. } = *map;
        let map = PoolMap { pool, version, stamp, servers: Vec::new(), targets: Vec::new() };
        Ok(Reply::Session { session, map })
    }

    pub(super) fn session_end(
        &mut self,
        session: SessionId,
        home: Option<ServerId>,
        joined: &[TxId],
        orderly: bool,
        applied: &mut Applied,
    ) -> Outcome {
        if home.is_some() && self.home_of(session).is_some_and(|now| Some(now) != home) {
            // It lives on elsewhere, and so does its client.
            return Ok(Reply::Done);
        }
        let known = self.sessions.remove(&session);
        let name = known.as_ref().map_or("", |known| &known.name);
        // Its home took with it what it had joined: it may be anything that was open then.
        let lost_at = known.as_ref().and_then(|known| known.lost_at);
        let how = if orderly { "closed its session before a commit" } else { "ended" };
        // Joined transactions abort even if the session is known no more: the process that wrote in them is gone.
        self.abort_where(&format!("session {session} ({name}), which wrote in it, {how}"), applied, |tx, open| {
            open.owner == session || joined.contains(&tx) || lost_at.is_some_and(|last| tx <= last)
        });
        if known.is_none() {
            return Ok(Reply::Done);
        }
        applied.ended.push(session);
        applied.changes.push(crate::TargetChange::EndSession { session });
        let leases: Vec<_> =
            self.leases.iter().filter(|(_, lease)| lease.session == session).map(|(id, _)| *id).collect();
        for lease in leases {
            if let Some(lease) = self.leases.remove(&lease) {
                self.release(lease.container, lease.stamp, applied);
            }
        }
        self.producer.session_ended(session);
        let containers: Vec<ContainerId> = self.containers.keys().copied().collect();
        for id in containers {
            let Some(container) = self.containers.get_mut(&id) else { continue };
            if container.producer.session_ended(session) {
                applied.touched.push(id);
            }
            if container.subscriptions.remove(&session).is_some() {
                self.move_floor(id, applied);
            }
        }
        Ok(Reply::Done)
    }

    /// Keeps a result for the request's being sent again.
    pub(super) fn remember(&mut self, session: SessionId, sequence: u64, outcome: &Outcome) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        if sequence == 0 {
            return;
        }
        session.results.insert(sequence, outcome.clone());
        while session.results.len() > MAX_RESULTS {
            if let Some((oldest, _)) = session.results.pop_first() {
                session.forgotten = session.forgotten.max(oldest);
            }
        }
    }

    pub(super) fn subscribe(
        &mut self,
        id: ContainerId,
        after: Option<Step>,
        session: SessionId,
        applied: &mut Applied,
    ) -> Outcome {
        let container = self.container_mut(id)?;
        let Some(after) = after else {
            container.subscriptions.remove(&session);
            self.move_floor(id, applied);
            return Ok(Reply::Done);
        };
        if after > container.last_step {
            return refuse(
                RefusalCode::Argument,
                format!("'{}' has no step {after} yet; its last one is {}", container.name, container.last_step),
            );
        }
        if after.0 + 1 < container.first_step().0 {
            return Err(gap(&container.name, after, container.first_step()));
        }
        container.subscriptions.insert(session, after);
        self.move_floor(id, applied);
        Ok(Reply::Done)
    }

    /// The word on one container's producer, or on all of the pool's, now and later. A container that another session says to
    /// write is left out of the latter: the stages of a pipeline share a system, and end one after another.
    pub(super) fn set_producer(
        &mut self,
        container: Option<ContainerId>,
        state: ProducerState,
        session: SessionId,
        applied: &mut Applied,
    ) -> Outcome {
        let producer = Producer { state, session, own: container.is_some() };
        match container {
            Some(id) => {
                self.container_mut(id)?.producer = producer;
                applied.touched.push(id);
            }
            None => {
                self.producer = producer;
                for (id, container) in &mut self.containers {
                    let other = container.producer;
                    if !(other.own && other.state == ProducerState::Active && other.session != session) {
                        container.producer = producer;
                        applied.touched.push(*id);
                    }
                }
            }
        }
        Ok(Reply::Done)
    }
}

fn gap(name: &str, after: Step, first: Step) -> Refusal {
    Refusal::new(
        RefusalCode::Retention,
        format!(
            "the steps after {after} of '{name}' are not all kept any more; the first that is: {first}. Go on from there, or keep \
             more (--keep-steps N of talea run and up)"
        ),
    )
}
