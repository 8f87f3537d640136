//! Receive buffers of a connection: a message stays where it arrived until it was read.
//!
//! Owns each buffer while the provider may write to it. Must never post a buffer that somebody still reads, and never lend the
//! last one of a connection: who keeps messages for long would stop what comes behind them.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::carrier::Carrier;
use crate::Message;
use crate::endpoint::MAX_MESSAGE_BYTES;

/// Messages up to this size are copied: that costs less than keeping a loan.
const SMALL_BYTES: usize = 4096;

/// A message that no honest peer sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

type Buffer = Box<[u8]>;

/// The buffers of one connection.
pub(crate) struct Receives {
    token: u64,
    /// By their number; those that are lent are not here.
    buffers: Vec<Option<Buffer>>,
    lent: usize,
}

/// Loans of an endpoint that have come back, from whatever thread: of which connection and number.
#[derive(Default)]
pub(crate) struct Returns {
    count: AtomicUsize,
    buffers: Mutex<Vec<(u64, usize, Buffer)>>,
}

/// A message where it arrived.
struct Loan {
    /// Where the buffer goes back to; `None`: the connection is gone.
    home: Option<(Arc<Returns>, u64, usize)>,
    buffer: Buffer,
    bytes: usize,
}

impl Deref for Loan {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some((returns, token, index)) = self.home.take() {
            let buffer = std::mem::take(&mut self.buffer);
            returns.buffers.lock().unwrap_or_else(PoisonError::into_inner).push((token, index, buffer));
            returns.count.fetch_add(1, Ordering::Release);
        }
    }
}

impl Returns {
    /// What has come back since the last call.
    pub(crate) fn take(&self) -> Vec<(u64, usize, Buffer)> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.store(0, Ordering::Release);
        std::mem::take(&mut *buffers)
    }
}

impl Receives {
    /// So many buffers for whole messages, which are pages of the machine only as far as messages have filled them.
    pub(crate) fn new(token: u64, count: usize) -> Receives {
        let buffers = (0..count).map(|_| Some(vec![0; MAX_MESSAGE_BYTES].into_boxed_slice())).collect();
        Receives { token, buffers, lent: 0 }
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Posts all of them.
    pub(crate) fn post(&mut self, carrier: &impl Carrier) -> Result<(), i64> {
        (0..self.buffers.len()).try_for_each(|index| self.post_again(carrier, index))
    }

    /// Posts one of them, if it is here.
    pub(crate) fn post_again(&mut self, carrier: &impl Carrier, index: usize) -> Result<(), i64> {
        let context = super::peer::context(self.token, false, index);
        match self.buffers.get_mut(index) {
            Some(Some(buffer)) => carrier.post(buffer, context),
            _ => Ok(()),
        }
    }

    /// The message that arrived in a buffer: there if another one is left for what comes, else a copy of it.
    pub(crate) fn message(
        &mut self,
        carrier: &impl Carrier,
        returns: &Arc<Returns>,
        (index, bytes): (usize, usize),
    ) -> Result<(Message, usize), Broken> {
        let arrived = self.buffers.get(index).and_then(Option::as_ref).and_then(|buffer| buffer.get(..bytes));
        let arrived = arrived.ok_or(Broken)?;
        if bytes <= SMALL_BYTES || self.lent + 1 >= self.buffers.len() {
            let message = Message::Owned(arrived.to_vec());
            self.post_again(carrier, index).map_err(|_| Broken)?;
            return Ok((message, bytes));
        }
        let buffer = self.buffers[index].take().ok_or(Broken)?;
        self.lent += 1;
        let home = Some((returns.clone(), self.token, index));
        Ok((Message::Received(Box::new(Loan { home, buffer, bytes })), 0))
    }

    /// The same of a connection that has ended meanwhile.
    pub(crate) fn last_message(&mut self, (index, bytes): (usize, usize)) -> Option<Message> {
        let buffer = self.buffers.get_mut(index)?.take().filter(|buffer| bytes <= buffer.len())?;
        Some(Message::Received(Box::new(Loan { home: None, buffer, bytes })))
    }

    /// A loan has come back.
    pub(crate) fn give_back(&mut self, carrier: &impl Carrier, index: usize, buffer: Buffer) -> Result<(), Broken> {
        let place = self.buffers.get_mut(index).ok_or(Broken)?;
        *place = Some(buffer);
        self.lent -= 1;
        self.post_again(carrier, index).map_err(|_| Broken)
    }
}
