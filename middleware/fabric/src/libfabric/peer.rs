//! One connection: its buffers, its backlog, and messages cut into chunks.
//!
//! Must never allocate for a peer that has not proved itself, beyond the fixed receive buffers.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::endpoint::MAX_MESSAGE_BYTES;
use crate::handshake::{Accepting, Connecting};
use crate::libfabric::assembly::{Assembly, Broken, HEADER_BYTES, header};
use crate::libfabric::device::Active;
use crate::{FabricError, SendError};

/// Bytes of a chunk with its header; also of each receive buffer.
pub(crate) const CHUNK_BYTES: usize = 128 * 1024;
/// Receive buffers posted for each peer.
const RECV_BUFFERS: usize = 8;
/// Sends in flight for each peer.
const SENDS_MAX: usize = 32;
/// Bytes that were taken from the caller and not sent, for each peer; beyond that a send is refused as full.
const OUTBOX_BYTES: usize = 4 * MAX_MESSAGE_BYTES;
/// Chunks that wait for each peer.
const OUTBOX_CHUNKS: usize = 4096;
const SEND_BIT: u64 = 1 << 15;

/// How far a connection has come.
pub(crate) enum State {
    /// Ours; waiting for the answer.
    Connecting(Connecting),
    /// Ours; how it ended: the connecting side picks it up.
    Settled(Result<(), FabricError>),
    /// Theirs; waiting for the confirmation.
    Proving { accepting: Accepting, deadline_ns: u64 },
    /// Both sides are proved.
    Up,
}

pub(crate) struct Peer {
    /// Dropped first: then nothing uses the buffers below any more.
    pub(crate) active: Active,
    pub(crate) state: State,
    token: u64,
    receives: Vec<Box<[u8]>>,
    sends: Vec<Option<Box<[u8]>>>,
    outbox: VecDeque<Box<[u8]>>,
    /// Bytes in `sends` and `outbox`.
    outbox_bytes: usize,
    /// A send was refused for lack of room and there has been none since.
    full: bool,
    assembly: Assembly,
}

/// Whose completion it is, and of which buffer.
pub(crate) struct Context {
    pub(crate) token: u64,
    pub(crate) send: bool,
    pub(crate) index: usize,
}

impl Context {
    pub(crate) fn parse(context: u64) -> Context {
        let index = (context & (SEND_BIT - 1)) as usize;
        Context { token: context >> 16, send: context & SEND_BIT != 0, index }
    }
}

impl Peer {
    /// Takes an endpoint over and posts its receive buffers.
    pub(crate) fn new(active: Active, state: State, token: u64) -> Result<Peer, i64> {
        let receives = (0..RECV_BUFFERS).map(|_| vec![0; CHUNK_BYTES].into_boxed_slice()).collect();
        let mut peer = Peer {
            active,
            state,
            token,
            receives,
            sends: (0..SENDS_MAX).map(|_| None).collect(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            full: false,
            assembly: Assembly::default(),
        };
        for index in 0..RECV_BUFFERS {
            peer.post(index)?;
        }
        Ok(peer)
    }

    fn post(&mut self, index: usize) -> Result<(), i64> {
        self.active.post(&mut self.receives[index], self.token << 16 | index as u64)
    }

    /// What arrived in a buffer, before it is posted again.
    pub(crate) fn arrived(&self, index: usize, bytes: usize) -> Option<&[u8]> {
        self.receives.get(index)?.get(..bytes)
    }

    /// Posts a buffer again after it was read.
    pub(crate) fn give_back(&mut self, index: usize) -> Result<(), Broken> {
        if index >= RECV_BUFFERS {
            return Err(Broken);
        }
        self.post(index).map_err(|_| Broken)
    }

    /// Takes in the chunk in a buffer; gives the message that it completes.
    pub(crate) fn chunk(&mut self, index: usize, bytes: usize) -> Result<Option<Vec<u8>>, Broken> {
        let chunk = self.receives.get(index).and_then(|buffer| buffer.get(..bytes)).ok_or(Broken)?;
        self.assembly.take(chunk)
    }

    /// Sends bytes that are no chunk: the confirmation.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.outbox_bytes += bytes.len();
        self.outbox.push_back(bytes.into());
        self.flush()
    }

    /// Takes a message.
    pub(crate) fn send(&mut self, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if total > MAX_MESSAGE_BYTES {
            return Err(SendError::TooLarge);
        }
        let over = self.outbox_bytes > 0 && self.outbox_bytes + total > OUTBOX_BYTES;
        if over || self.outbox.len() >= OUTBOX_CHUNKS {
            self.full = true;
            return Err(SendError::Full);
        }
        let mut offset = 0;
        let mut parts = parts.iter().map(|part| &part[..]);
        let mut part = parts.next().unwrap_or_default();
        loop {
            let body_bytes = (total - offset).min(CHUNK_BYTES - HEADER_BYTES);
            let mut chunk = Vec::with_capacity(HEADER_BYTES + body_bytes);
            chunk.extend_from_slice(&header(total, offset));
            let chunk_bytes = HEADER_BYTES + body_bytes;
            while chunk.len() < chunk_bytes {
                let (now, later) = part.split_at(part.len().min(chunk_bytes - chunk.len()));
                chunk.extend_from_slice(now);
                part = if later.is_empty() { parts.next().unwrap_or_default() } else { later };
            }
            self.outbox_bytes += chunk.len();
            self.outbox.push_back(chunk.into_boxed_slice());
            offset += body_bytes;
            if offset == total {
                break;
            }
        }
        self.flush().map_err(|Broken| SendError::Gone)
    }

    /// Hands to libfabric what it takes.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        while !self.outbox.is_empty() {
            let Some(index) = self.sends.iter().position(Option::is_none) else { return Ok(()) };
            let Some(buffer) = self.outbox.front() else { return Ok(()) };
            let context = self.token << 16 | SEND_BIT | index as u64;
            match self.active.send(buffer, context) {
                Ok(true) => self.sends[index] = self.outbox.pop_front(),
                Ok(false) => return Ok(()),
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }

    /// A send has completed; true if there is room again for one who was refused.
    pub(crate) fn sent(&mut self, index: usize) -> bool {
        if let Some(buffer) = self.sends.get_mut(index).and_then(Option::take) {
            self.outbox_bytes -= buffer.len();
        }
        let room = self.full && self.outbox_bytes < OUTBOX_BYTES / 2 && self.outbox.len() < OUTBOX_CHUNKS / 2;
        self.full &= !room;
        room
    }

    pub(crate) fn has_backlog(&self) -> bool {
        !self.outbox.is_empty()
    }
}
