//! One connection over datagrams: its socket, its tags, and the order of what arrives.
//!
//! Messages with one tag are matched to buffers in the order in which these were posted, but a long one may be there later than a short one
//! that came after it. So they are told in the order of the buffers.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use super::super::peer::context;
use super::super::receives::{Broken, Receives, Returns};
use super::super::sends::{Sends, Spares};
use super::device::{Device, Lane};
use crate::descriptor::Descriptor;
use crate::endpoint::Given;
use crate::{Message, SendError};

pub(crate) struct Peer {
    /// Its end is the connection's.
    pub(crate) socket: Descriptor,
    token: u64,
    pub(crate) to: u64,
    tag_out: u64,
    pub(crate) tag_in: u64,
    pub(crate) sends: Sends,
    receives: Receives,
    /// Buffers that the provider has, in their order, and the bytes of the messages that are in them.
    posted: VecDeque<(usize, Option<usize>)>,
}

impl Peer {
    /// Makes ready for so many messages.
    pub(crate) fn new(socket: Descriptor, token: u64, tags: (u64, u64), to: u64, receives: usize) -> Peer {
        let (tag_out, tag_in) = tags;
        Peer {
            socket,
            token,
            to,
            tag_out,
            tag_in,
            sends: Sends::new(token),
            receives: Receives::new(token, receives),
            posted: VecDeque::new(),
        }
    }

    fn lane<'a>(&self, device: &'a Device) -> Lane<'a> {
        Lane { device, to: self.to, tag_out: self.tag_out, tag_in: self.tag_in }
    }

    /// Posts its buffers.
    pub(crate) fn listen(&mut self, device: &Device) -> Result<(), Broken> {
        let lane = self.lane(device);
        for index in 0..self.receives.len() {
            self.receives.post_again(&lane, index).map_err(|_| Broken)?;
            self.posted.push_back((index, None));
        }
        Ok(())
    }

    /// A message has arrived in a buffer. Gives all that can be told now.
    pub(crate) fn arrived(&mut self, index: usize, bytes: usize) -> Result<Vec<(usize, usize)>, Broken> {
        let place = self.posted.iter_mut().find(|(posted, _)| *posted == index).ok_or(Broken)?;
        place.1 = Some(bytes);
        let mut told = Vec::new();
        while let Some((index, Some(bytes))) = self.posted.front().copied() {
            self.posted.pop_front();
            told.push((index, bytes));
        }
        Ok(told)
    }

    /// A buffer has come back without a message.
    pub(crate) fn failed(&mut self, index: usize) {
        self.posted.retain(|(posted, _)| *posted != index);
    }

    /// Buffers that it may have with the provider.
    pub(crate) fn buffers(&self) -> usize {
        self.receives.len()
    }

    /// The message that arrived in a buffer, and how much of it was copied.
    pub(crate) fn message(
        &mut self,
        device: &Device,
        returns: &Arc<Returns>,
        arrived: (usize, usize),
    ) -> Result<(Message, usize), Broken> {
        let told = self.receives.message(&self.lane(device), returns, arrived)?;
        // Of what was copied the buffer was posted again.
        if let Message::Owned(_) = told.0 {
            self.posted.push_back((arrived.0, None));
        }
        Ok(told)
    }

    /// The same of a connection that has ended.
    pub(crate) fn last_message(&mut self, arrived: (usize, usize)) -> Option<Message> {
        self.receives.last_message(arrived)
    }

    /// A loan has come back.
    pub(crate) fn give_back(&mut self, device: &Device, index: usize, buffer: Box<[u8]>) -> Result<(), Broken> {
        self.receives.give_back(&self.lane(device), index, buffer)?;
        self.posted.push_back((index, None));
        Ok(())
    }

    /// Takes a copy of a message.
    pub(crate) fn copy(
        &mut self,
        device: &Device,
        parts: &[IoSlice<'_>],
        spares: &mut Spares,
    ) -> Result<(), SendError> {
        self.sends.copy(&self.lane(device), parts, spares)
    }

    /// Takes a message that was given to us.
    pub(crate) fn give(
        &mut self,
        device: &Device,
        given: Given,
        spares: &mut Spares,
    ) -> Result<(), (SendError, Option<Given>)> {
        self.sends.give(&self.lane(device), given, spares)
    }

    /// Hands to libfabric what it takes.
    pub(crate) fn flush(&mut self, device: &Device, spares: &mut Spares) -> Result<(), Broken> {
        self.sends.flush(&self.lane(device), spares)
    }

    /// Ends it: its receives are given up, and what is on its way to it with its address. What the provider has is left until it says that
    /// it has it no more.
    pub(crate) fn end(self, device: &Device) -> Rest {
        for (index, arrived) in &self.posted {
            if arrived.is_none() {
                device.cancel(context(self.token, false, *index));
            }
        }
        device.remove(self.to);
        let receives = self.posted.iter().filter(|(_, arrived)| arrived.is_none()).count();
        let operations = receives + self.sends.in_flight();
        Rest { operations, sends: self.sends, _receives: self.receives }
    }
}

/// What the provider still has of a connection that has ended.
pub(crate) struct Rest {
    /// Operations that have not completed.
    pub(crate) operations: usize,
    pub(crate) sends: Sends,
    _receives: Receives,
}
