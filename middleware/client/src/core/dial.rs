//! Connecting: begun by a call that needs it, and nobody waits for it who does not.
//!
//! Owns the connections that are being made, and what is learned of the other side by them. A connection to a target is everybody's: it is
//! adopted as it comes up, whether or not the call that began it is still there or polled. One to a home server belongs to the call
//! that opens the session, and ends with it. Must never wait in the endpoint, and never keep a call past its own deadline.

use std::collections::BTreeMap;
use std::task::Waker;

use talea_fabric::{Address, Begun, FabricError, Hello, PeerId};

use super::link::{PeerKey, Reach};
use super::{Outcome, Shared, State, Wakers};
use crate::error::{ClientError, Result};

const MS: u64 = 1_000_000;
/// Connections in a row that may end before their handshake does: a server that dies closes them like one that refuses.
const REFUSALS: u32 = 3;
/// Pause after such an end in milliseconds: a dying server's sockets outlive its threads for a while.
const REFUSAL_PAUSE_MS: u64 = 50;

/// The connections that are being made.
#[derive(Default)]
pub(super) struct Dials {
    open: BTreeMap<PeerId, Dial>,
    /// Calls that wait for what comes of one that another call began.
    waiting: Vec<(PeerKey, u64)>,
}

struct Dial {
    key: PeerKey,
    session: u64,
    began_ns: u64,
    /// The call that began it.
    call: u64,
}

impl State {
    /// Whether a connection is being made that would do. One of another session would not.
    fn is_dialing(&self, key: PeerKey, session: u64) -> bool {
        let does = |dial: &Dial| dial.key == key && (key == PeerKey::Home || dial.session == session);
        self.dials.open.values().any(does)
    }

    /// What has become of a connection.
    pub(super) fn dialed(
        &mut self,
        shared: &Shared,
        peer: PeerId,
        outcome: std::result::Result<(), FabricError>,
        wakers: &mut Wakers,
    ) {
        let Some(dial) = self.dials.open.remove(&peer) else { return };
        let result = self.settle(shared, (dial.key, dial.session), outcome.map(|()| peer));
        wakers.extend(self.complete(dial.call, Outcome::Dialed(result)));
        self.wake_dialing(dial.key, wakers);
    }

    fn wake_dialing(&mut self, key: PeerKey, wakers: &mut Wakers) {
        let (theirs, others) = std::mem::take(&mut self.dials.waiting).into_iter().partition(|(of, _)| *of == key);
        self.dials.waiting = others;
        let theirs: Vec<(PeerKey, u64)> = theirs;
        wakers.extend(theirs.into_iter().filter_map(|(_, id)| self.complete(id, Outcome::Go)));
    }

    /// Adopts a connection, or learns from its failure. `None`: another attempt may be made.
    fn settle(
        &mut self,
        shared: &Shared,
        (key, session): (PeerKey, u64),
        connected: std::result::Result<PeerId, FabricError>,
    ) -> Result<Option<PeerId>> {
        match connected {
            // Another session was opened since it began, and targets know a connection by its session. Or one was quicker.
            Ok(peer) if key != PeerKey::Home && (self.home.session.0 != session || self.has_peer(key)) => {
                if let Some(endpoint) = self.endpoint.as_deref_mut() {
                    endpoint.disconnect(peer);
                }
                Ok(None)
            }
            Ok(peer) => {
                *self.reach(key) = Reach::default();
                self.peers.insert(peer, key);
                if let PeerKey::Target(target) = key {
                    self.links.entry(target).or_default().peer = Some(peer);
                }
                Ok(Some(peer))
            }
            Err(error @ (FabricError::Version { .. } | FabricError::Unsupported(..))) => Err(error.into()),
            // It is not the other side that is out of reach.
            Err(error) if error.lacks_descriptors() => Err(ClientError::Descriptors { detail: error.to_string() }),
            Err(error) => {
                let now_ns = shared.now_ns();
                let failures = self.reach(key).failures;
                let mut pause_ns = self.backoff_ns(failures, &shared.tuning);
                let reach = self.reach(key);
                if let FabricError::Refused(_) = error {
                    // Who has a session has proved the secret: whoever closes the connection then is dead or stopped.
                    reach.refusals += u32::from(session == 0);
                    if reach.refusals >= REFUSALS {
                        reach.refusals = 0;
                        return Err(error.into());
                    }
                    pause_ns = pause_ns.max(REFUSAL_PAUSE_MS * MS);
                } else {
                    reach.refusals = 0;
                }
                reach.failures += 1;
                reach.down_since_ns.get_or_insert(now_ns);
                reach.retry_at_ns = now_ns + pause_ns;
                reach.detail = error.to_string();
                Ok(None)
            }
        }
    }

    /// A call's deadline has come while a connection is being made.
    fn still_dialing(&mut self, key: PeerKey, address: &Address) {
        let Some(began_ns) = self.dials.open.values().find(|dial| dial.key == key).map(|dial| dial.began_ns) else {
            return;
        };
        let reach = self.reach(key);
        reach.down_since_ns.get_or_insert(began_ns);
        if reach.detail.is_empty() {
            reach.detail = FabricError::Deadline(address.to_string()).to_string();
        }
    }
}

impl Shared {
    /// One attempt to connect, not before its time. `None`: it failed, or another call's has ended; another attempt may be made.
    pub(super) async fn try_connect(
        &self,
        key: PeerKey,
        address: &Address,
        session: u64,
        (tries, deadline_ns): (u32, u64),
    ) -> Result<Option<PeerId>> {
        let now_ns = self.now_ns();
        let (retry_at_ns, down_since_ns, is_dialing) = {
            let mut state = self.lock();
            let is_dialing = state.is_dialing(key, session);
            let reach = state.reach(key);
            (reach.retry_at_ns, reach.down_since_ns, is_dialing)
        };
        if is_dialing && now_ns < deadline_ns {
            self.another_dial(key, address, session, deadline_ns).await;
            return Ok(None);
        }
        // Long out of reach: one attempt a call, or none if the last one was just now.
        let hopeless = down_since_ns.is_some_and(|since_ns| now_ns - since_ns > self.tuning.lost_after_ms * MS);
        if now_ns >= deadline_ns || hopeless && (tries > 0 || now_ns < retry_at_ns) {
            return Err(self.lost(key));
        }
        if now_ns < retry_at_ns {
            self.pause(retry_at_ns.min(deadline_ns)).await;
            return Ok(None);
        }
        let until_ns = now_ns + self.tuning.connect_ms * MS;
        // The next call to a target finds what this one has begun.
        let until_ns = if key == PeerKey::Home { until_ns.min(deadline_ns) } else { until_ns };
        self.dial(key, address, session, until_ns, deadline_ns).await
    }

    async fn dial(
        &self,
        key: PeerKey,
        address: &Address,
        session: u64,
        until_ns: u64,
        deadline_ns: u64,
    ) -> Result<Option<PeerId>> {
        let hello = Hello { session, pid: std::process::id(), server: None };
        let ticket = self.ticket();
        let dialing = {
            let mut state = self.lock_with_endpoint();
            if state.has_peer(key) || state.is_dialing(key, session) {
                return Ok(None);
            }
            let until_ns = self.machine_time_ns(until_ns);
            let endpoint = state.endpoint.as_deref_mut();
            let begun = endpoint.map(|endpoint| endpoint.begin_connect(address, &hello, until_ns));
            match begun {
                Some(Ok(Begun::Pending(peer))) => {
                    let dial = Dial { key, session, began_ns: self.now_ns(), call: ticket.id };
                    state.dials.open.insert(peer, dial);
                    ticket.arm(&mut state, None, deadline_ns);
                    Dialing { shared: self, key, peer }
                }
                Some(Ok(Begun::Up(peer))) => return state.settle(self, (key, session), Ok(peer)),
                Some(Err(error)) => return state.settle(self, (key, session), Err(error)),
                None => return Ok(None),
            }
        };
        let outcome = ticket.outcome().await;
        if let Outcome::Dialed(result) = outcome {
            return result;
        }
        self.lock().still_dialing(key, address);
        drop(dialing);
        Ok(None)
    }

    /// Waits for what comes of a connection that another call has begun.
    async fn another_dial(&self, key: PeerKey, address: &Address, session: u64, deadline_ns: u64) {
        let ticket = self.ticket();
        {
            let mut state = self.lock();
            if !state.is_dialing(key, session) {
                return;
            }
            ticket.arm(&mut state, None, deadline_ns);
            state.dials.waiting.push((key, ticket.id));
        }
        if let Outcome::Timer = ticket.outcome().await {
            let mut state = self.lock();
            state.dials.waiting.retain(|(_, id)| *id != ticket.id);
            state.still_dialing(key, address);
        }
    }
}

/// A call that has begun to connect: with it ends a connection to a home server that is not up.
struct Dialing<'a> {
    shared: &'a Shared,
    key: PeerKey,
    peer: PeerId,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        if self.key != PeerKey::Home || self.shared.is_foreign() {
            return;
        }
        let mut wakers = Wakers::new();
        if self.shared.lock().dials.open.contains_key(&self.peer) {
            let mut state = self.shared.lock_with_endpoint();
            if state.dials.open.remove(&self.peer).is_some() {
                if let Some(endpoint) = state.endpoint.as_deref_mut() {
                    endpoint.disconnect(self.peer);
                }
                state.wake_dialing(self.key, &mut wakers);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}
