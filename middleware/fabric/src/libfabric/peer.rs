//! One connection: its state, what it sends and what it receives.
//!
//! Must never hold more for a peer that has not proved itself than the buffer for its proof.

use std::io::IoSlice;
use std::sync::Arc;

use super::carrier::Carrier as _;
use super::device::Active;
use super::receives::{Broken, Receives, Returns};
use super::sends::{Sends, Spares};
use crate::endpoint::Given;
use crate::handshake::{Accepting, CONFIRM_BYTES, Connecting};
use crate::{FabricError, Message, SendError};

const SEND_BIT: u64 = 1 << 15;

/// How far a connection has come.
pub(crate) enum State {
    /// Ours; waiting for the answer.
    Connecting(Connecting),
    /// Ours; how it ended: the connecting side picks it up.
    Settled(Result<(), FabricError>),
    /// Theirs; waiting for the confirmation, which arrives in `proof`.
    Proving { accepting: Accepting, deadline_ns: u64, proof: Box<[u8; CONFIRM_BYTES]> },
    /// Both sides are proved.
    Up,
}

pub(crate) struct Peer {
    /// Dropped first: then nothing uses the buffers below any more.
    pub(crate) active: Active,
    pub(crate) state: State,
    token: u64,
    pub(crate) sends: Sends,
    /// None before the other side has proved itself.
    receives: Option<Receives>,
}

/// Whose completion it is, and of which buffer.
pub(crate) struct Context {
    pub(crate) token: u64,
    pub(crate) send: bool,
    pub(crate) index: usize,
}

/// A [`Context`] as libfabric keeps it.
pub(crate) fn context(token: u64, send: bool, index: usize) -> u64 {
    token << 16 | if send { SEND_BIT } else { 0 } | index as u64
}

impl Context {
    pub(crate) fn parse(context: u64) -> Context {
        let index = (context & (SEND_BIT - 1)) as usize;
        Context { token: context >> 16, send: context & SEND_BIT != 0, index }
    }
}

impl Peer {
    /// Takes an endpoint over. One that others connect has a buffer for their proof alone.
    pub(crate) fn new(active: Active, state: State, token: u64) -> Result<Peer, i64> {
        let mut peer = Peer { active, state, token, sends: Sends::new(token), receives: None };
        if let State::Proving { proof, .. } = &mut peer.state {
            peer.active.post(&mut proof[..], context(token, false, 0))?;
        }
        Ok(peer)
    }

    /// Makes ready for so many messages.
    pub(crate) fn listen(&mut self, receives: usize) -> Result<(), i64> {
        // Kept also if not all can be posted: the others belong to the provider until the endpoint's end.
        self.receives.insert(Receives::new(self.token, receives)).post(&self.active)
    }

    /// The message that arrived in a buffer, and how much of it was copied.
    pub(crate) fn message(
        &mut self,
        returns: &Arc<Returns>,
        arrived: (usize, usize),
    ) -> Result<(Message, usize), Broken> {
        self.receives.as_mut().ok_or(Broken)?.message(&self.active, returns, arrived)
    }

    /// The same of a connection that has ended.
    pub(crate) fn last_message(&mut self, arrived: (usize, usize)) -> Option<Message> {
        self.receives.as_mut()?.last_message(arrived)
    }

    /// A loan has come back.
    pub(crate) fn give_back(&mut self, index: usize, buffer: Box<[u8]>) -> Result<(), Broken> {
        self.receives.as_mut().ok_or(Broken)?.give_back(&self.active, index, buffer)
    }

    /// Takes a copy of a message.
    pub(crate) fn copy(&mut self, parts: &[IoSlice<'_>], spares: &mut Spares) -> Result<(), SendError> {
        self.sends.copy(&self.active, parts, spares)
    }

    /// Takes a message that was given to us.
    pub(crate) fn give(&mut self, given: Given, spares: &mut Spares) -> Result<(), (SendError, Option<Given>)> {
        self.sends.give(&self.active, given, spares)
    }

    /// Hands to libfabric what it takes.
    pub(crate) fn flush(&mut self, spares: &mut Spares) -> Result<(), Broken> {
        self.sends.flush(&self.active, spares)
    }
}
