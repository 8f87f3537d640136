//! How connections come up: requests, answers, proofs.
//!
//! Must never accept, or answer other than by libfabric's bare refusal, a request whose MAC is wrong.

use std::io::IoSlice;

use super::device::{self, Active, Connection, Device, Info};
use super::peer::{Peer, State};
use super::{Came, LIBFABRIC_CHANNEL, LibfabricEndpoint, PROOF_NS, PROVING_MAX};
use crate::handshake::{
    ANSWER_BYTES, Accepting, CONFIRM_BYTES, Connecting, HELLO_BYTES, HandshakeError, PROTOCOL_VERSION, Verdict,
    fresh_nonce,
};
use crate::stream::take;
use crate::{Clock, Endpoint, Event, FabricError, PeerId, RealClock};

impl LibfabricEndpoint {
    pub(super) fn connection_event(&mut self, event: Connection) {
        match event {
            Connection::Requested { info, param } => self.requested(&info, &param),
            Connection::Connected { ep, param } => {
                let Some(&token) = self.tokens.get(&ep) else { return };
                let Some(peer) = self.peers.get_mut(&token) else { return };
                if let State::Connecting(connecting) = &peer.state {
                    let settled = answered(connecting, &param).and_then(|confirm| {
                        let sent = peer.copy(&[IoSlice::new(&confirm)], &mut self.spares);
                        sent.map_err(|_| FabricError::Refused(String::new()))
                    });
                    peer.state = State::Settled(settled);
                }
            }
            Connection::Ended { ep } => {
                // What arrived before the end comes before it.
                self.complete();
                if let Some(&token) = self.tokens.get(&ep) {
                    self.lose(token);
                }
            }
            Connection::Failed { ep, code, param } => {
                let Some(&token) = self.tokens.get(&ep) else { return };
                let Some(peer) = self.peers.get_mut(&token) else { return };
                let State::Connecting(connecting) = &peer.state else { return self.lose(token) };
                let failed = match answered(connecting, &param) {
                    Err(error @ FabricError::Version { .. }) => error,
                    _ if code == libc::ECONNREFUSED => FabricError::Refused(String::new()),
                    _ => match &self.device {
                        Some(device) => FabricError::Unreachable(String::new(), device.lib().explain(code.into())),
                        None => FabricError::Refused(String::new()),
                    },
                };
                peer.state = State::Settled(Err(failed));
            }
        }
    }

    /// Judges a connection request: the parameter is the hello.
    fn requested(&mut self, info: &Info, param: &[u8]) {
        let Some(listener) = &self.listener else { return };
        // Providers may pad parameters.
        let hello: Option<[u8; HELLO_BYTES]> = param.get(..HELLO_BYTES).and_then(|bytes| bytes.try_into().ok());
        let nonce = fresh_nonce().ok();
        let verdict = hello.zip(nonce).and_then(|(hello, nonce)| {
            Accepting::hello(&self.credentials, LIBFABRIC_CHANNEL, &hello, nonce, RealClock.unix_us()).ok()
        });
        match verdict {
            None => listener.reject(info, &[]),
            Some(Verdict::ForeignVersion { answer, .. }) => listener.reject(info, &answer),
            Some(Verdict::Proceed(accepting, answer)) => {
                if self.accept(info, accepting, &answer).is_err()
                    && let Some(listener) = &self.listener
                {
                    listener.reject(info, &[]);
                }
            }
        }
    }

    fn accept(&mut self, info: &Info, accepting: Accepting, answer: &[u8]) -> Result<(), FabricError> {
        let proving = self.peers.values().filter(|peer| matches!(peer.state, State::Proving { .. })).count();
        if proving >= PROVING_MAX {
            let oldest = self.peers.iter().find(|(_, peer)| matches!(peer.state, State::Proving { .. }));
            if let Some(token) = oldest.map(|(token, _)| *token) {
                self.remove(token);
            }
        }
        let deadline_ns = RealClock.monotonic_ns() + PROOF_NS;
        let proof = Box::new([0; CONFIRM_BYTES]);
        let token = self.adopt(info, State::Proving { accepting, deadline_ns, proof })?;
        let accepted = self.peers.get(&token).map_or(Ok(()), |peer| peer.active.accept(answer));
        if accepted.is_err() {
            self.remove(token);
        }
        // A failure to accept has used the request up; only one before may still be refused.
        Ok(())
    }

    pub(super) fn adopt(&mut self, info: &Info, state: State) -> Result<u64, FabricError> {
        let device = self.device.as_ref().ok_or(FabricError::Unsupported("libfabric", "not open".into()))?;
        let active = Active::open(device, info)?;
        let token = take(&mut self.next_token);
        let id = active.id();
        let failure = |code| device::failure(device.lib(), "fi_recv", code);
        let mut peer = Peer::new(active, state, token).map_err(failure)?;
        if let State::Connecting(_) = peer.state {
            peer.listen(self.ways.connected_receives).map_err(failure)?;
        }
        self.tokens.insert(id, token);
        self.peers.insert(token, peer);
        Ok(token)
    }

    /// Works until the connection `token` is settled.
    pub(super) fn settle(&mut self, token: u64, name: &str, deadline_ns: u64) -> Result<(), FabricError> {
        loop {
            self.progress();
            let peer = self.peers.get_mut(&token).ok_or_else(|| FabricError::Refused(name.to_owned()))?;
            if let State::Settled(_) = peer.state {
                let State::Settled(settled) = std::mem::replace(&mut peer.state, State::Up) else { return Ok(()) };
                return settled.map_err(|error| named(error, name));
            }
            let now_ns = RealClock.monotonic_ns();
            if now_ns >= deadline_ns {
                return Err(FabricError::Deadline(name.to_owned()));
            }
            if self.device.as_ref().is_some_and(Device::may_sleep) {
                let mut ready = Vec::new();
                self.poller.poll(deadline_ns - now_ns, &mut ready);
            }
        }
    }

    /// Tells of connections that are settled, or late.
    pub(super) fn report_dials(&mut self) {
        let now_ns = RealClock.monotonic_ns();
        let tokens: Vec<u64> = self.dials.keys().copied().collect();
        for token in tokens {
            let state = self.peers.get_mut(&token).map(|peer| &mut peer.state);
            let late = self.dials.get(&token).is_some_and(|(_, deadline_ns)| *deadline_ns <= now_ns);
            let outcome = match state {
                Some(state @ State::Settled(_)) => match std::mem::replace(state, State::Up) {
                    State::Settled(outcome) => outcome,
                    _ => Ok(()),
                },
                Some(_) if !late => continue,
                Some(_) => Err(FabricError::Deadline(String::new())),
                None => Err(FabricError::Refused(String::new())),
            };
            let Some((name, _)) = self.dials.remove(&token) else { continue };
            let outcome = outcome.map_err(|error| named(error, &name));
            if outcome.is_err() {
                // With what it may have said before it ended: nobody knows it by this name.
                self.disconnect(PeerId(token));
            }
            // Before what the peer may have said already.
            self.events.push_front(Came::Event(Event::Connected { peer: PeerId(token), outcome }));
        }
    }
}

/// Puts the address into an error that was made where it was not known.
fn named(error: FabricError, name: &str) -> FabricError {
    let name = name.to_owned();
    match error {
        FabricError::Refused(_) => FabricError::Refused(name),
        FabricError::Deadline(_) => FabricError::Deadline(name),
        FabricError::Unreachable(_, why) => FabricError::Unreachable(name, why),
        FabricError::Version { theirs, ours, .. } => FabricError::Version { address: name, theirs, ours },
        other => other,
    }
}

/// Judges the answer in the parameter of an acceptance or refusal.
fn answered(connecting: &Connecting, param: &[u8]) -> Result<[u8; CONFIRM_BYTES], FabricError> {
    let answer = param.get(..ANSWER_BYTES).and_then(|bytes| bytes.try_into().ok());
    let answer = answer.ok_or_else(|| FabricError::Refused(String::new()))?;
    connecting.answer(&answer).map_err(|error| match error {
        HandshakeError::Refused => FabricError::Refused(String::new()),
        HandshakeError::Version { theirs } => {
            FabricError::Version { address: String::new(), theirs, ours: PROTOCOL_VERSION }
        }
    })
}
