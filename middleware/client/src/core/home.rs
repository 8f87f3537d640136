//! The home server: the session that lives there, and control calls.
//!
//! Owns the session and its sequences. A call that changes something is sent again with the same sequence until it is
//! answered, so that it is executed once (docs/design.md §4 rule 14); one that may have been executed under a session that has
//! expired since is never executed again.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::MutexGuard;
use std::task::Waker;

use talea_fabric::{Address, PeerId, SendError};
use talea_model::{ServerId, SessionId};
use talea_wire::control::{Body, Envelope, Reply, Request};
use talea_wire::{RefusalCode, codec};

use super::link::{PeerKey, Reach};
use super::{Outcome, Shared, State, Wakers};
use crate::error::{ClientError, Result};

const MS: u64 = 1_000_000;
/// Messages without an answer that wait for the connection.
const OUTBOX_MAX: usize = 4096;

/// State of the connection to the home server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Down,
    /// One call is opening it; the others wait.
    Opening,
    Ready(PeerId),
}

pub(crate) struct Home {
    /// Where the session lives, or where one is opened next.
    pub(super) server: ServerId,
    pub(super) address: Address,
    /// Other servers, for as long as no map tells of them.
    pub(super) others: Vec<(ServerId, Address)>,
    pub(super) phase: Phase,
    waiting: Vec<u64>,
    pub(crate) session: SessionId,
    /// What this client has drawn for its session, and shows to take it up again.
    pub(super) secret: u128,
    /// Counts the attempts to open a session or to take it up.
    pub(super) attempt: u64,
    sequence: u64,
    pub(super) reach: Reach,
    /// Since when no server can be had.
    pub(super) lost_since_ns: Option<u64>,
    /// Since when it has been asked whether it is there, and has said nothing.
    pub(super) pinged_ns: Option<u64>,
    outbox: VecDeque<Vec<u8>>,
}

impl Home {
    pub(super) fn new((server, address): (ServerId, Address), others: Vec<(ServerId, Address)>) -> Self {
        Self {
            server,
            address,
            others,
            phase: Phase::Down,
            waiting: vec![],
            session: SessionId(0),
            secret: 0,
            attempt: 0,
            sequence: 0,
            reach: Reach::default(),
            lost_since_ns: None,
            pinged_ns: None,
            outbox: VecDeque::new(),
        }
    }
}

impl Home {
    /// Sends something when the connection takes it, if not too much waits for that already.
    pub(super) fn put_out(&mut self, bytes: Vec<u8>) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back(bytes);
        }
    }
}

impl State {
    pub(super) fn envelope(
        &mut self,
        shared: &Shared,
        id: u64,
        sequence: u64,
        deadline_ms: u64,
        request: Request,
    ) -> Envelope {
        let hlc = self.hlc.tick(shared.clock.unix_us());
        let (session, map_version) = (self.home.session, self.map.version);
        Envelope { id, hlc, session, sequence, deadline_ms, map_version, body: Body::Request(request) }
    }

    /// Sends what waits for the connection; what cannot be sent now stays.
    pub(super) fn flush_outbox(&mut self) {
        let (Phase::Ready(peer), Some(endpoint)) = (self.home.phase, self.endpoint.as_deref_mut()) else { return };
        while let Some(bytes) = self.home.outbox.front() {
            match endpoint.send(peer, &[IoSlice::new(bytes)]) {
                Ok(()) | Err(SendError::TooLarge) => drop(self.home.outbox.pop_front()),
                Err(SendError::Full | SendError::Gone) => return,
            }
        }
    }

    fn wake_home(&mut self, wakers: &mut Wakers) {
        let waiting = std::mem::take(&mut self.home.waiting);
        wakers.extend(waiting.into_iter().filter_map(|id| self.complete(id, Outcome::Go)));
    }

    pub(crate) fn session(&self) -> SessionId {
        self.home.session
    }
}

impl Shared {
    /// A control call: sent until it is answered or the deadline has passed.
    pub(crate) async fn control(&self, what: &'static str, request: Request, deadline_ns: u64) -> Result<Reply> {
        let began_ns = self.now_ns();
        self.control_within(what, request, began_ns, (deadline_ns, deadline_ns)).await
    }

    /// The same with a time of its own until which the server may hold the answer back.
    pub(crate) async fn control_within(
        &self,
        what: &'static str,
        request: Request,
        began_ns: u64,
        (server_ns, deadline_ns): (u64, u64),
    ) -> Result<Reply> {
        self.check_process()?;
        let changes = changes_something(&request);
        let holds = matches!(request, Request::Wait { .. });
        let (mut sequence, mut session, mut sends, mut busy) = (0, SessionId(0), 0u32, 0u32);
        let mut refused_since_ns = None;
        let ticket = self.ticket();
        'send: loop {
            let peer = self.home_peer(what, began_ns, deadline_ns).await?;
            let now_ns = self.now_ns();
            let until_ns = self.ask_again_ns(sends).min(deadline_ns);
            let bytes = {
                let mut state = self.lock();
                if sends > 0 && changes && session != state.home.session {
                    return Err(session_over(what));
                }
                session = state.home.session;
                if changes && sequence == 0 {
                    state.home.sequence += 1;
                    sequence = state.home.sequence;
                }
                let left_ms = server_ns.saturating_sub(now_ns) / MS;
                encoded(what, &state.envelope(self, ticket.id, sequence, left_ms, request.clone()))?
            };
            match self.transmit(&ticket, peer, &[IoSlice::new(&bytes)], (until_ns, deadline_ns)).await {
                Ok(()) => sends += 1,
                Err(SendError::Gone) => self.gone(peer),
                Err(SendError::Full) => return Err(self.late(PeerKey::Home, what, began_ns)),
                Err(SendError::TooLarge) => {
                    return Err(ClientError::TooLong(format!("{what}: the request is too large")));
                }
            }
            let refusal = loop {
                match ticket.outcome().await {
                    Outcome::Control(body) => match *body {
                        Body::Reply(reply) => return Ok(reply),
                        Body::Refused(refusal) => break refusal,
                        _ => continue 'send,
                    },
                    Outcome::Timer => {
                        let is_gone = self.look_after_home(peer);
                        if self.now_ns() >= deadline_ns {
                            return Err(self.late(PeerKey::Home, what, began_ns));
                        }
                        if is_gone || !holds || self.tuning.resend_ms.is_some() {
                            continue 'send;
                        }
                        // The answer is held back: only whether there is somebody who does that is asked.
                        ticket.arm(&mut self.lock(), Some(peer), self.ask_again_ns(0).min(deadline_ns));
                    }
                    _ => continue 'send,
                }
            };
            let now_ns = self.now_ns();
            let patience_ns = match refusal.code {
                RefusalCode::Busy => deadline_ns,
                // The home server has lost the leader, which may come back. `ServerLost` is the leader's verdict.
                RefusalCode::NoLeader => {
                    let since_ns = *refused_since_ns.get_or_insert(now_ns);
                    deadline_ns.min(since_ns + self.tuning.lost_after_ms * MS)
                }
                // A copy of it may have been executed before the session ended, and its answer was lost with it.
                RefusalCode::SessionExpired
                    if matches!(request, Request::Commit { .. } | Request::CommitIndependent { .. }) =>
                {
                    return Err(session_over(what));
                }
                RefusalCode::SessionExpired if sends == 1 || !changes => {
                    self.forget_session(session);
                    sends = 0;
                    continue;
                }
                _ => 0,
            };
            let pause_ns = self.lock().backoff_ns(busy, &self.tuning);
            // Who has lost the leader has said so: at the deadline that is the news, and not that nobody answered.
            let is_last = refusal.code == RefusalCode::NoLeader && now_ns + pause_ns >= patience_ns;
            if now_ns >= patience_ns || is_last {
                return Err(match refusal.code {
                    RefusalCode::ServerLost | RefusalCode::NoLeader => self.refused_by(PeerKey::Home, what, refusal),
                    _ => ClientError::refused(what, refusal),
                });
            }
            busy += 1;
            self.pause((now_ns + pause_ns).min(deadline_ns)).await;
        }
    }

    /// The home server has not answered in a while. Asks it whether it is there, if there are others, and gives it up when it has not
    /// said so for too long: true then.
    fn look_after_home(&self, peer: PeerId) -> bool {
        let (now_ns, tuning) = (self.now_ns(), &self.tuning);
        let patience_ns = tuning.lost_after_ms.saturating_sub(tuning.probe_ms).max(tuning.move_after_ms) * MS;
        {
            let mut state = self.lock();
            if state.home.phase != Phase::Ready(peer) || state.homes(&self.node).len() < 2 {
                return false;
            }
            let pinged_ns = *state.home.pinged_ns.get_or_insert(now_ns);
            if now_ns < pinged_ns + patience_ns {
                self.tell_locked(state, Request::Alive);
                return false;
            }
        }
        self.gone(peer);
        let mut state = self.lock();
        let since_ns = state.home.pinged_ns.take().unwrap_or(now_ns);
        state.home.reach.silent_since(since_ns);
        true
    }

    /// When an unanswered control call is looked after: sent again, or its server asked whether it is there.
    fn ask_again_ns(&self, sends: u32) -> u64 {
        let after_ms = self.tuning.resend_ms.map_or(self.tuning.probe_ms, |ms| ms << sends.min(6));
        self.now_ns().saturating_add(after_ms.saturating_mul(MS))
    }

    /// Tells the home server something that needs no answer. Never blocks for longer than a send.
    pub(crate) fn tell(&self, request: Request) {
        if self.is_foreign() {
            return;
        }
        self.tell_locked(self.lock(), request);
    }

    /// The same if no other thread is at work in here this moment; else nothing is told.
    pub(crate) fn tell_if_free(&self, request: Request) {
        if self.is_foreign() {
            return;
        }
        if let Some(state) = self.try_lock() {
            self.tell_locked(state, request);
        }
    }

    fn tell_locked(&self, mut state: MutexGuard<'_, State>, request: Request) {
        let id = state.number_of_nobody();
        let envelope = state.envelope(self, id, 0, self.tuning.deadline_ms, request);
        let Ok(bytes) = codec::encode(&envelope) else { return };
        state.home.put_out(bytes);
        if state.endpoint.is_some() {
            state.flush_outbox();
        } else {
            self.waker.wake();
        }
    }

    /// Ends the session in an orderly way, as far as that can be done at once.
    pub(super) fn goodbye(&self) {
        self.tell_reads(0);
        self.tell(Request::SessionClose);
    }

    /// A send said that the peer is gone.
    pub(crate) fn gone(&self, peer: PeerId) {
        let mut wakers = Wakers::new();
        let mut state = self.lock_with_endpoint();
        if let Some(endpoint) = state.endpoint.as_deref_mut() {
            endpoint.disconnect(peer);
        }
        state.peer_down(peer, self.now_ns(), &mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The session has expired: the next call opens another one.
    fn forget_session(&self, session: SessionId) {
        let mut wakers = Wakers::new();
        let mut state = self.lock_with_endpoint();
        if state.home.session == session {
            state.home.session = SessionId(0);
            if let Phase::Ready(peer) = state.home.phase {
                if let Some(endpoint) = state.endpoint.as_deref_mut() {
                    endpoint.disconnect(peer);
                }
                state.peer_down(peer, self.now_ns(), &mut wakers);
                state.home.reach = Reach::default();
            }
            state.drop_targets(self.now_ns(), &mut wakers);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The connection to the home server with an open session.
    pub(crate) async fn home_peer(&self, what: &'static str, began_ns: u64, deadline_ns: u64) -> Result<PeerId> {
        loop {
            let phase = {
                let mut state = self.lock();
                let phase = state.home.phase;
                if phase == Phase::Down {
                    state.home.phase = Phase::Opening;
                }
                phase
            };
            match phase {
                Phase::Ready(peer) => return Ok(peer),
                Phase::Down => {
                    let _opening = Opening(self);
                    self.open(what, began_ns, deadline_ns).await?;
                }
                Phase::Opening => {
                    let ticket = self.ticket();
                    {
                        let mut state = self.lock();
                        if state.home.phase != Phase::Opening {
                            continue;
                        }
                        ticket.arm(&mut state, None, deadline_ns);
                        state.home.waiting.push(ticket.id);
                    }
                    if matches!(ticket.outcome().await, Outcome::Timer) {
                        return Err(self.late(PeerKey::Home, what, began_ns));
                    }
                }
            }
        }
    }
}

/// Ends the phase of opening, however it ends.
struct Opening<'a>(&'a Shared);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if self.0.is_foreign() {
            return;
        }
        let mut wakers = Wakers::new();
        let mut state = self.0.lock();
        if state.home.phase == Phase::Opening {
            state.home.phase = Phase::Down;
        }
        state.wake_home(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

pub(super) fn encoded(what: &'static str, envelope: &Envelope) -> Result<Vec<u8>> {
    codec::encode(envelope).map_err(|source| ClientError::Wire { who: format!("the request ({what})"), source })
}

/// Whether a request must not be executed twice.
fn changes_something(request: &Request) -> bool {
    matches!(
        request,
        Request::ContainerCreate { .. }
            | Request::ContainerDestroy { .. }
            | Request::Begin { .. }
            | Request::Commit { .. }
            | Request::CommitIndependent { .. }
            | Request::Abort { .. }
            | Request::SnapshotOpen { .. }
            | Request::SnapshotName { .. }
            | Request::SnapshotDestroy { .. }
            | Request::Subscribe { .. }
            | Request::Producer { .. }
            | Request::Evict { .. }
    )
}

/// The fate of a call whose session has ended is not known.
fn session_over(what: &'static str) -> ClientError {
    ClientError::Uncertain { what, why: "the session that asked for it has expired".to_owned() }
}
