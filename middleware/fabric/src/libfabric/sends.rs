//! What leaves on a connection: messages that the provider reads, and those that wait for it.
//!
//! Owns the memory of both. Must never let the provider read memory that is not its own: what is a caller's is copied, so that an
//! operation may end at any time.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::carrier::Carrier;
use super::receives::Broken;
use crate::SendError;
use crate::endpoint::{Given, MAX_MESSAGE_BYTES};

/// Sends in flight for each peer.
pub(crate) const SENDS_MAX: usize = 32;
/// Bytes that were taken from the caller and not sent, for each peer; beyond that a send is refused as full.
const OUTBOX_BYTES: usize = 4 * MAX_MESSAGE_BYTES;
/// Messages that wait for each peer.
const OUTBOX_MESSAGES: usize = 4096;
/// Buffers that an endpoint keeps for the next messages: small ones of one size, and bytes of larger ones.
const SMALL_SPARES: usize = 64;
const SMALL_BYTES: usize = 8 << 10;
const LARGE_BYTES: usize = 4 << 20;
/// Larger ones come in multiples of so many bytes.
const LARGE_UNIT_BYTES: usize = 64 << 10;

/// A message in memory of our own.
pub(crate) enum Outgoing {
    /// A copy.
    Copied(Vec<u8>),
    /// Buffers that were given to us, and go back.
    Given(Given),
}

impl Outgoing {
    fn bytes(&self) -> usize {
        match self {
            Outgoing::Copied(bytes) => bytes.len(),
            Outgoing::Given(given) => given.iter().map(Vec::len).sum(),
        }
    }
}

/// Buffers of an endpoint that have been used, the last one first: the caches may still have it.
#[derive(Default)]
pub(crate) struct Spares {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    large_bytes: usize,
    /// Those that were given to us, to go back to where they came from.
    pub(crate) given: Vec<Vec<u8>>,
    /// Buffers that were made because none was large enough.
    pub(crate) made: u64,
    /// Bytes that were copied on their way out.
    pub(crate) copied_bytes: u64,
    /// Messages that the provider took.
    pub(crate) handed: u64,
}

impl Spares {
    /// An empty buffer with room for `bytes`.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let used = if bytes <= SMALL_BYTES {
            self.small.pop()
        } else {
            let fits = self.large.iter().rposition(|buffer| buffer.capacity() >= bytes);
            fits.map(|index| self.large.remove(index)).inspect(|buffer| self.large_bytes -= buffer.capacity())
        };
        used.unwrap_or_else(|| {
            self.made += 1;
            Vec::with_capacity(if bytes <= SMALL_BYTES {
                SMALL_BYTES
            } else {
                bytes.next_multiple_of(LARGE_UNIT_BYTES)
            })
        })
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        let bytes = buffer.capacity();
        if bytes <= SMALL_BYTES {
            if self.small.len() < SMALL_SPARES {
                self.small.push(buffer);
            }
        } else if self.large_bytes + bytes <= LARGE_BYTES {
            self.large_bytes += bytes;
            self.large.push(buffer);
        }
    }
}

/// What leaves on one connection.
pub(crate) struct Sends {
    token: u64,
    in_flight: Vec<Option<Outgoing>>,
    waiting: VecDeque<Outgoing>,
    /// Bytes of both.
    pub(crate) bytes: usize,
    /// A send was refused for lack of room and there has been none since.
    full: bool,
}

impl Sends {
    pub(crate) fn new(token: u64) -> Sends {
        let in_flight = (0..SENDS_MAX).map(|_| None).collect();
        Sends { token, in_flight, waiting: VecDeque::new(), bytes: 0, full: false }
    }

    /// Whether a message of so many bytes may be taken.
    fn room(&mut self, bytes: usize) -> Result<(), SendError> {
        if bytes > MAX_MESSAGE_BYTES {
            return Err(SendError::TooLarge);
        }
        let over = self.bytes > 0 && self.bytes + bytes > OUTBOX_BYTES;
        if over || self.waiting.len() >= OUTBOX_MESSAGES {
            self.full = true;
            return Err(SendError::Full);
        }
        Ok(())
    }

    /// Takes a copy of a message.
    pub(crate) fn copy(
        &mut self,
        carrier: &impl Carrier,
        parts: &[IoSlice<'_>],
        spares: &mut Spares,
    ) -> Result<(), SendError> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        self.room(bytes)?;
        let mut copy = spares.take(bytes);
        parts.iter().for_each(|part| copy.extend_from_slice(part));
        spares.copied_bytes += bytes as u64;
        self.push(carrier, Outgoing::Copied(copy), spares).map_err(|Broken| SendError::Gone)
    }

    /// Takes a message that was given to us.
    pub(crate) fn give(
        &mut self,
        carrier: &impl Carrier,
        given: Given,
        spares: &mut Spares,
    ) -> Result<(), (SendError, Option<Given>)> {
        match self.room(given.iter().map(Vec::len).sum()) {
            Err(error) => Err((error, Some(given))),
            Ok(()) => self.push(carrier, Outgoing::Given(given), spares).map_err(|Broken| (SendError::Gone, None)),
        }
    }

    fn push(&mut self, carrier: &impl Carrier, message: Outgoing, spares: &mut Spares) -> Result<(), Broken> {
        self.bytes += message.bytes();
        self.waiting.push_back(message);
        self.flush(carrier, spares)
    }

    /// Hands to libfabric what it takes.
    pub(crate) fn flush(&mut self, carrier: &impl Carrier, spares: &mut Spares) -> Result<(), Broken> {
        while let Some(message) = self.waiting.front() {
            let Some(index) = self.in_flight.iter().position(Option::is_none) else { return Ok(()) };
            let most = carrier.sends_max();
            if most < SENDS_MAX && self.in_flight() >= most {
                return Ok(());
            }
            let context = super::peer::context(self.token, true, index);
            let taken = match message {
                Outgoing::Copied(bytes) => carrier.send(&[bytes], context),
                Outgoing::Given([head, data]) if data.is_empty() => carrier.send(&[head], context),
                Outgoing::Given([head, data]) => carrier.send(&[head, data], context),
            };
            match taken {
                Ok(true) => {
                    spares.handed += 1;
                    self.in_flight[index] = self.waiting.pop_front();
                }
                Ok(false) => return Ok(()),
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }

    /// A send has completed; true if there is room again for one who was refused.
    pub(crate) fn sent(&mut self, index: usize, spares: &mut Spares) -> bool {
        if let Some(message) = self.in_flight.get_mut(index).and_then(Option::take) {
            self.bytes -= message.bytes();
            match message {
                Outgoing::Copied(bytes) => spares.keep(bytes),
                // The last one goes back first: heads before data, so that who uses the latest first finds room for data there.
                Outgoing::Given(given) => {
                    spares.given.extend(given.into_iter().rev().filter(|one| one.capacity() > 0));
                }
            }
        }
        let room = self.full && self.bytes < OUTBOX_BYTES / 2 && self.waiting.len() < OUTBOX_MESSAGES / 2;
        self.full &= !room;
        room
    }

    /// Messages that the provider reads.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.iter().filter(|one| one.is_some()).count()
    }

    pub(crate) fn has_backlog(&self) -> bool {
        !self.waiting.is_empty()
    }
}
