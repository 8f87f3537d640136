//! What was written and is on its way: whole pages gather in the queue's buffers and leave as soon as one is full or the next
//! write is elsewhere; pages written in part wait for the next flush.
//!
//! Each byte is copied once, into the memory that the device reads.

use super::PAGE_BYTES;
use super::queue::{BUFFER_BYTES, Queue};
use super::tails::Tails;
use crate::TierError;

/// Whole pages that gather in a buffer.
struct Run {
    buffer: usize,
    offset: u64,
    filled: usize,
}

/// The way between memory and file.
pub(super) struct Pipeline {
    queue: Queue,
    run: Option<Run>,
    tails: Tails,
    /// Reads that were begun before anybody asked for them.
    ahead: Vec<Ahead>,
    /// Sent or gathered, and not flushed since.
    unflushed: bool,
    /// The first write or flush that failed: what, where, why. Stays, whoever is told of it: what it was to make durable is lost, and
    /// nothing that comes later makes up for it.
    lost: Option<(&'static str, u64, std::io::Error)>,
}

/// Whole pages on their way into a buffer.
struct Ahead {
    offset: u64,
    len: usize,
    buffer: usize,
}

/// Buffers left to others by reads that nobody asked for yet: for what gathers, and for a read.
const LEFT_BUFFERS: usize = 3;

/// Whatever the reason: room was taken before, and what reached the file is not known.
fn failed(what: &'static str) -> impl Fn((u64, std::io::Error)) -> TierError {
    move |(offset, source)| TierError::Io { what, offset, source }
}

fn copy_of(error: &std::io::Error) -> std::io::Error {
    let again = || std::io::Error::new(error.kind(), error.to_string());
    error.raw_os_error().map_or_else(again, std::io::Error::from_raw_os_error)
}

impl Pipeline {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, run: None, tails: Tails::default(), ahead: Vec::new(), unflushed: false, lost: None }
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Writes bytes; with `padded` the rest of the last page becomes zeros.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], padded: bool) -> Result<(), TierError> {
        self.unflushed |= !data.is_empty();
        self.forget_ahead();
        let (mut at, mut rest) = (offset, data);
        let inside = at % PAGE_BYTES;
        if inside != 0 || rest.len() < PAGE_BYTES as usize {
            let part;
            (part, rest) = rest.split_at(rest.len().min((PAGE_BYTES - inside) as usize));
            self.write_part(at, part, padded)?;
            at += part.len() as u64;
        }
        let whole = rest.len() / PAGE_BYTES as usize * PAGE_BYTES as usize;
        let (pages, rest) = rest.split_at(whole);
        self.append(at, pages);
        at += whole as u64;
        if padded && !rest.is_empty() {
            let mut last = Tails::memory();
            last.as_mut()[..rest.len()].copy_from_slice(rest);
            self.append(at, last.as_ref());
        } else {
            self.write_part(at, rest, false)?;
        }
        self.check_writes()
    }

    /// Says what has failed so far, as far as that has landed, and to the next one who asks again.
    fn check_writes(&mut self) -> Result<(), TierError> {
        if let Some((offset, source)) = self.queue.take_failure() {
            self.lost.get_or_insert(("write", offset, source));
        }
        match &self.lost {
            None => Ok(()),
            Some((what, offset, source)) => Err(failed(what)((*offset, copy_of(source)))),
        }
    }

    /// Writes a part of one page. `fresh`: nothing of what was in the page is needed.
    fn write_part(&mut self, offset: u64, part: &[u8], fresh: bool) -> Result<(), TierError> {
        if part.is_empty() {
            return Ok(());
        }
        let (number, inside) = (offset / PAGE_BYTES, (offset % PAGE_BYTES) as usize);
        if self.tails.get_mut(number).is_none() {
            let mut bytes = Tails::memory();
            if !fresh {
                self.read(number * PAGE_BYTES, bytes.as_mut())?;
            }
            if let Some(old) = self.tails.insert(number, bytes).filter(|old| old.dirty) {
                self.append(old.number * PAGE_BYTES, old.bytes.as_ref());
            }
        } else if fresh && let Some(page) = self.tails.get_mut(number) {
            page.bytes.as_mut().fill(0);
        }
        if let Some(page) = self.tails.get_mut(number) {
            page.bytes.as_mut()[inside..inside + part.len()].copy_from_slice(part);
            page.dirty = true;
        }
        Ok(())
    }

    /// Gathers whole pages.
    fn append(&mut self, mut offset: u64, mut pages: &[u8]) {
        if pages.is_empty() {
            return;
        }
        let first = offset / PAGE_BYTES;
        self.tails.forget(first, first + pages.len() as u64 / PAGE_BYTES);
        while !pages.is_empty() {
            let goes_on = |run: &Run| run.offset + run.filled as u64 == offset && run.filled < BUFFER_BYTES;
            let mut run = match self.run.take() {
                Some(run) if goes_on(&run) => run,
                other => {
                    self.run = other;
                    self.seal();
                    Run { buffer: self.queue.idle(None), offset, filled: 0 }
                }
            };
            let (now, later) = pages.split_at(pages.len().min(BUFFER_BYTES - run.filled));
            self.queue.buffer(run.buffer)[run.filled..run.filled + now.len()].copy_from_slice(now);
            run.filled += now.len();
            offset += now.len() as u64;
            pages = later;
            let full = run.filled == BUFFER_BYTES;
            self.run = Some(run);
            if full {
                self.seal();
            }
        }
    }

    /// Sends what has gathered.
    fn seal(&mut self) {
        if let Some(run) = self.run.take() {
            self.queue.start(run.buffer, run.offset, run.filled, true);
        }
    }

    /// Sends everything and waits until the file has it (not until it is durable).
    fn settle(&mut self) -> Result<(), TierError> {
        for number in self.tails.dirty() {
            let mut bytes = Tails::memory();
            if let Some(page) = self.tails.get_mut(number) {
                bytes.as_mut().copy_from_slice(page.bytes.as_ref());
            }
            self.send_tail(number, bytes.as_ref());
        }
        self.seal();
        self.queue.wait_all();
        self.check_writes()
    }

    /// Gathers a copy of a kept page, which stays kept.
    fn send_tail(&mut self, number: u64, bytes: &[u8]) {
        let kept = std::mem::take(&mut self.tails);
        self.append(number * PAGE_BYTES, bytes);
        self.tails = kept;
        if let Some(page) = self.tails.get_mut(number) {
            page.dirty = false;
        }
    }

    /// Everything written is durable; fails for ever once anything has failed.
    pub(super) fn persist(&mut self) -> Result<(), TierError> {
        self.settle()?;
        if self.unflushed {
            if let Err(source) = self.queue.flush() {
                self.lost = Some(("flush", 0, source));
            }
            self.unflushed = false;
        }
        self.check_writes()
    }

    /// Whether something written to a range has not reached the file.
    fn is_pending(&self, offset: u64, len: u64) -> bool {
        let (first, end) = (offset / PAGE_BYTES, (offset + len).div_ceil(PAGE_BYTES));
        let gathered = |run: &Run| run.offset < end * PAGE_BYTES && first * PAGE_BYTES < run.offset + run.filled as u64;
        self.tails.is_dirty_in(first, end)
            || self.run.as_ref().is_some_and(gathered)
            || self.queue.writes_into(first * PAGE_BYTES, (end - first) * PAGE_BYTES)
    }

    /// Begins to read bytes into a buffer of their own, if there are idle ones enough and nothing written to them is on its way.
    pub(super) fn read_ahead(&mut self, offset: u64, len: u64) -> bool {
        let (at, end) = (offset / PAGE_BYTES * PAGE_BYTES, (offset + len).next_multiple_of(PAGE_BYTES));
        // What gathers has a buffer that looks idle.
        let idle = self.queue.idle_count() - usize::from(self.run.is_some());
        if end - at > BUFFER_BYTES as u64 || idle <= LEFT_BUFFERS || self.is_pending(offset, len) {
            return false;
        }
        let (buffer, len) = (self.queue.idle(self.run.as_ref().map(|run| run.buffer)), (end - at) as usize);
        self.queue.start(buffer, at, len, false);
        self.ahead.push(Ahead { offset: at, len, buffer });
        true
    }

    /// Gives up what was begun: the buffers are idle again, and what failed of it is read anew by whoever wants it.
    pub(super) fn forget_ahead(&mut self) {
        if self.ahead.is_empty() {
            return;
        }
        for ahead in std::mem::take(&mut self.ahead) {
            self.queue.take(ahead.buffer);
        }
        self.queue.take_read_failure();
    }

    /// Takes bytes that were begun ahead; false if they were not, or if a read failed: nobody knows then which.
    fn take_ahead(&mut self, offset: u64, out: &mut [u8]) -> bool {
        let end = offset + out.len() as u64;
        let holds = |ahead: &Ahead| ahead.offset <= offset && end <= ahead.offset + ahead.len as u64;
        let Some(found) = self.ahead.iter().position(holds) else { return false };
        let Ahead { offset: from, buffer, .. } = self.ahead.swap_remove(found);
        let bytes = self.queue.take(buffer);
        out.copy_from_slice(&bytes[(offset - from) as usize..(end - from) as usize]);
        let failed = self.queue.take_read_failure().is_some();
        if failed {
            self.forget_ahead();
        }
        !failed
    }

    /// Reads bytes, through buffers that the device fills side by side.
    pub(super) fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        if self.take_ahead(offset, out) {
            return Ok(());
        }
        if self.is_pending(offset, out.len() as u64) {
            self.settle()?;
        }
        let gathering = self.run.as_ref().map(|run| run.buffer);
        let mut flights: std::collections::VecDeque<(usize, u64, usize)> = std::collections::VecDeque::new();
        let (end, mut at) =
            ((offset + out.len() as u64).next_multiple_of(PAGE_BYTES), offset / PAGE_BYTES * PAGE_BYTES);
        while at < end || !flights.is_empty() {
            if at < end && flights.len() + self.ahead.len() + 2 <= super::queue::BUFFERS {
                let len = (BUFFER_BYTES as u64).min(end - at) as usize;
                let buffer = self.queue.idle(gathering);
                self.queue.start(buffer, at, len, false);
                flights.push_back((buffer, at, len));
                at += len as u64;
                continue;
            }
            let Some((buffer, from, len)) = flights.pop_front() else { break };
            let (first, last) = (from.max(offset), (from + len as u64).min(offset + out.len() as u64));
            let bytes = &self.queue.take(buffer)[(first - from) as usize..(last - from) as usize];
            out[(first - offset) as usize..(last - offset) as usize].copy_from_slice(bytes);
        }
        match self.queue.take_read_failure() {
            None => Ok(()),
            // It may be one that was begun ahead, for somebody else.
            Some(_) if !self.ahead.is_empty() => {
                self.forget_ahead();
                self.read(offset, out)
            }
            Some(failure) => Err(failed("read")(failure)),
        }
    }
}
