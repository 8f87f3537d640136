//! The queue: a fixed set of buffers, each idle or in flight to or from the file.
//!
//! Buffers and file are registered with the kernel where it allows that (the limit on locked memory may not), and completions
//! are polled for where the device has queues for it. Without io_uring the same calls block. A namespace's character device gets
//! commands of its own.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use io_uring::{IoUring, opcode, types};

use super::aligned::Aligned;
use super::commands::Commands;

/// Buffers, and so the most in flight.
pub(super) const BUFFERS: usize = 8;
/// Bytes of a buffer.
pub(super) const BUFFER_BYTES: usize = 512 << 10;

/// What a buffer is doing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) write: bool,
}

/// How buffers travel.
enum Way {
    /// By calls that block.
    Calls,
    /// By a ring of reads and writes.
    Ring(IoUring),
    /// By a ring of the device's own commands.
    Commands(Commands),
}

/// The queue of one file.
pub(super) struct Queue {
    way: Way,
    registered_buffers: bool,
    registered_file: bool,
    polled: bool,
    buffers: [Option<Aligned>; BUFFERS],
    flights: [Option<Flight>; BUFFERS],
    in_flight: usize,
    /// Held for what a read brings, until somebody has copied it.
    held: [bool; BUFFERS],
    /// The first write that failed since somebody asked.
    failed: Option<(u64, Error)>,
    /// The same of reads: whoever reads must not take a write's failure, which the next flush has to tell.
    failed_read: Option<(u64, Error)>,
    file: File,
}

/// How a queue came to be, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueKind {
    /// Through io_uring; else by plain calls.
    pub ring: bool,
    /// Buffers are registered.
    pub registered_buffers: bool,
    /// The file is registered.
    pub registered_file: bool,
    /// Completions are polled for.
    pub polled: bool,
    /// Commands go past the block layer.
    pub passthrough: bool,
}

impl Queue {
    /// A queue for a file.
    pub(super) fn new(file: File) -> Self {
        let polled = has_polled_queues(&file);
        let way = open_ring(polled).map_or(Way::Calls, Way::Ring);
        let mut queue = Self::by(way, file);
        queue.polled = polled && matches!(queue.way, Way::Ring(_));
        queue.register();
        queue
    }

    /// A queue of commands; `file` is the same device.
    pub(super) fn of_commands(commands: Commands, file: File) -> Self {
        Self::by(Way::Commands(commands), file)
    }

    fn by(way: Way, file: File) -> Self {
        Self {
            way,
            registered_buffers: false,
            registered_file: false,
            polled: false,
            buffers: std::array::from_fn(|_| Some(Aligned::zeroed(BUFFER_BYTES))),
            flights: [None; BUFFERS],
            in_flight: 0,
            held: [false; BUFFERS],
            failed: None,
            failed_read: None,
            file,
        }
    }

    fn register(&mut self) {
        let Way::Ring(ring) = &self.way else { return };
        self.registered_file = ring.submitter().register_files(&[self.file.as_raw_fd()]).is_ok();
        let vectors: Vec<libc::iovec> = self
            .buffers
            .iter()
            .flatten()
            .map(|buffer| libc::iovec { iov_base: buffer.address().cast(), iov_len: BUFFER_BYTES })
            .collect();
        // SAFETY: the buffers live as long as the ring (dropped after it, see Drop) and never move.
        self.registered_buffers = unsafe { ring.submitter().register_buffers(&vectors) }.is_ok();
    }

    /// How it works.
    pub(super) fn kind(&self) -> QueueKind {
        QueueKind {
            ring: !matches!(self.way, Way::Calls),
            registered_buffers: self.registered_buffers,
            registered_file: self.registered_file,
            polled: self.polled,
            passthrough: matches!(self.way, Way::Commands(_)),
        }
    }

    /// Makes durable what has landed; nothing may be in flight.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        match &mut self.way {
            Way::Commands(commands) => commands.flush(),
            _ => self.file.sync_data(),
        }
    }

    /// An idle buffer other than `not`; waits for one.
    pub(super) fn idle(&mut self, not: Option<usize>) -> usize {
        loop {
            let is_idle =
                |number: &usize| self.flights[*number].is_none() && !self.held[*number] && Some(*number) != not;
            let idle = (0..BUFFERS).find(is_idle);
            if let Some(number) = idle {
                return number;
            }
            self.wait();
        }
    }

    /// How many buffers are idle.
    pub(super) fn idle_count(&self) -> usize {
        (0..BUFFERS).filter(|number| self.flights[*number].is_none() && !self.held[*number]).count()
    }

    /// Memory of an idle buffer.
    pub(super) fn buffer(&mut self, number: usize) -> &mut [u8] {
        debug_assert!(self.flights[number].is_none(), "the kernel has it");
        self.buffers[number].as_mut().map_or(&mut [], |buffer| buffer.as_mut())
    }

    /// Whether a write in flight touches a range.
    pub(super) fn writes_into(&self, offset: u64, len: u64) -> bool {
        let overlaps = |flight: &Flight| offset < flight.offset + flight.len as u64 && flight.offset < offset + len;
        self.flights.iter().flatten().any(|flight| flight.write && overlaps(flight))
    }

    /// Sends the first `len` bytes of a buffer to the file, or fills them from it. Offset and length are whole pages. A write
    /// waits for others of the same bytes: a queue keeps no order.
    pub(super) fn start(&mut self, number: usize, offset: u64, len: usize, write: bool) {
        if write && self.writes_into(offset, len as u64) {
            self.wait_all();
        }
        self.flights[number] = Some(Flight { offset, len, write });
        self.held[number] = !write;
        self.in_flight += 1;
        if self.push(number).is_none() {
            let flight = Flight { offset, len, write };
            let result = self.plainly(number, flight, 0);
            self.land(number, flight, result);
        }
    }

    fn push(&mut self, number: usize) -> Option<()> {
        let flight = self.flights[number]?;
        let address = self.buffers[number].as_ref()?.address();
        if let Way::Commands(commands) = &mut self.way {
            return commands.start(number, flight, address).ok();
        }
        let (len, index) = (flight.len as u32, number as u16);
        let fd = types::Fd(self.file.as_raw_fd());
        let entry = match (flight.write, self.registered_buffers, self.registered_file) {
            (true, true, true) => {
                opcode::WriteFixed::new(types::Fixed(0), address, len, index).offset(flight.offset).build()
            }
            (true, true, false) => opcode::WriteFixed::new(fd, address, len, index).offset(flight.offset).build(),
            (true, false, _) => opcode::Write::new(fd, address, len).offset(flight.offset).build(),
            (false, true, true) => {
                opcode::ReadFixed::new(types::Fixed(0), address, len, index).offset(flight.offset).build()
            }
            (false, true, false) => opcode::ReadFixed::new(fd, address, len, index).offset(flight.offset).build(),
            (false, false, _) => opcode::Read::new(fd, address, len).offset(flight.offset).build(),
        };
        let Way::Ring(ring) = &mut self.way else { return None };
        // SAFETY: the buffer is not touched, moved or freed while its flight is noted, and Drop waits for all flights.
        unsafe { ring.submission().push(&entry.user_data(number as u64)) }.ok()?;
        // Writes at once: the device works while more is gathered. Reads are waited for, and go with that same call.
        if flight.write {
            let _ = ring.submit();
        }
        Some(())
    }

    /// Waits until at least one flight has landed.
    pub(super) fn wait(&mut self) {
        let before = self.in_flight;
        while self.in_flight == before && before > 0 {
            let ring = match &mut self.way {
                Way::Calls => return,
                Way::Ring(ring) => ring,
                Way::Commands(commands) => {
                    for (number, result) in commands.landed() {
                        if let Some(flight) = self.flights.get(number).copied().flatten() {
                            self.land(number, flight, result);
                        }
                    }
                    continue;
                }
            };
            if ring.completion().is_empty() && ring.submit_and_wait(1).is_err() {
                // Interrupted or short of memory: what was pushed is still in the ring, so try again.
                std::thread::yield_now();
            }
            let landed: Vec<(u64, i32)> = ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
            for (number, result) in landed {
                let number = number as usize;
                let Some(flight) = self.flights.get(number).copied().flatten() else { continue };
                let result = self.finish(number, flight, result);
                self.land(number, flight, result);
            }
        }
    }

    /// Waits for all flights.
    pub(super) fn wait_all(&mut self) {
        while self.in_flight > 0 {
            self.wait();
        }
    }

    /// Waits for a read, and gives what it brought. The buffer is idle after that.
    pub(super) fn take(&mut self, number: usize) -> &[u8] {
        while self.flights[number].is_some() {
            self.wait();
        }
        self.held[number] = false;
        self.buffer(number)
    }

    /// Which write failed since the last call.
    pub(super) fn take_failure(&mut self) -> Option<(u64, Error)> {
        self.failed.take()
    }

    /// Which read failed since the last call.
    pub(super) fn take_read_failure(&mut self) -> Option<(u64, Error)> {
        self.failed_read.take()
    }

    fn land(&mut self, number: usize, flight: Flight, result: Result<(), Error>) {
        self.flights[number] = None;
        self.in_flight -= 1;
        if let Err(error) = result {
            let failed = if flight.write { &mut self.failed } else { &mut self.failed_read };
            failed.get_or_insert((flight.offset, error));
        }
    }

    /// Does plainly what the queue did not do or not wholly.
    fn finish(&mut self, number: usize, flight: Flight, result: i32) -> Result<(), Error> {
        if result == flight.len as i32 {
            return Ok(());
        }
        let again = [libc::EINTR, libc::EAGAIN, libc::EOPNOTSUPP];
        if result < 0 && !again.contains(&-result) {
            return Err(Error::from_raw_os_error(-result));
        }
        self.plainly(number, flight, result.max(0) as usize / super::PAGE_BYTES as usize * super::PAGE_BYTES as usize)
    }

    fn plainly(&mut self, number: usize, flight: Flight, done: usize) -> Result<(), Error> {
        if let Way::Commands(_) = self.way {
            return Err(Error::other("the queue of commands is full"));
        }
        let buffer = self.buffers[number].as_mut().ok_or(ErrorKind::NotFound)?;
        let (bytes, offset) = (&mut buffer.as_mut()[done..flight.len], flight.offset + done as u64);
        if flight.write { self.file.write_all_at(bytes, offset) } else { self.file.read_exact_at(bytes, offset) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.wait_all();
        // The kernel takes a ring apart later, at its leisure: its hold on the file must not keep the next user out.
        crate::room::unlock(&self.file);
        // The ring first: it has the buffers registered.
        self.way = Way::Calls;
    }
}

fn open_ring(polled: bool) -> Option<IoUring> {
    let mut builder = IoUring::builder();
    // One thread uses it: no interrupts of that thread for completions that it will look for anyway.
    builder.setup_coop_taskrun();
    if polled {
        builder.setup_iopoll();
    }
    builder.build(BUFFERS as u32).or_else(|_| IoUring::new(BUFFERS as u32)).ok()
}

/// Whether the device below a file has queues that can be polled.
fn has_polled_queues(file: &File) -> bool {
    let Ok(meta) = file.metadata() else { return false };
    let block = rustix::fs::FileType::from_raw_mode(meta.mode()) == rustix::fs::FileType::BlockDevice;
    let device = if block { meta.rdev() } else { meta.dev() };
    let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // A partition's queue is its parent's.
    [format!("/sys/dev/block/{numbers}/queue/io_poll"), format!("/sys/dev/block/{numbers}/../queue/io_poll")]
        .iter()
        .any(|path| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1"))
}
