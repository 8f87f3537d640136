//! Reading and writing data: every form of call comes down to one list I/O of this rank.
//!
//! Collective calls do the same, and then agree on the outcome, so that a failure on one rank is the same failure on all (MPI leaves it open; programs
//! that go on differently on different ranks hang). Nonblocking ones do not: they may not wait for other ranks. No data sieving: reading around a piece and writing it back would overwrite what other ranks wrote.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use talea_abi::Piece;

use crate::abi::*;
use crate::datatype::{self, Layout};
use crate::error::Failure;
use crate::exports::guarded;
use crate::file::OpenFile;
use crate::pointer;
use crate::position::answer;
use crate::request;
use crate::view::{Pieces, View};
use crate::{agree, background, buffering, postponed};

pub(crate) mod split;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the file.
    Read,
    /// To the file.
    Write,
}

/// Where in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At an explicit offset in elementary types.
    At(i64),
    /// At the individual pointer, which moves on.
    Pointer,
    /// At the shared pointer, which moves on.
    Shared,
    /// At the shared pointer, in the order of the ranks.
    Ordered,
}

/// The program's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) address: *mut c_void,
    pub(crate) count: i64,
    pub(crate) datatype: MPI_Datatype,
}

/// The outcome of a transfer, until somebody asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Bytes read or written.
    pub(crate) bytes: u64,
}

/// A blocking call.
///
/// # Safety
/// Buffer and status are the program's, as MPI wants them.
pub(crate) unsafe fn blocking(
    file: &OpenFile,
    direction: Direction,
    place: Place,
    buffer: Buffer,
    status: *mut MPI_Status,
) -> Result<(), Failure> {
    // SAFETY: passed on to the caller.
    unsafe {
        let done = alone(file, direction, place, buffer)?;
        request::fill(status, &done)
    }
}

/// A blocking collective call: all ranks return the same error class.
///
/// # Safety
/// Buffer and status are the program's, as MPI wants them.
pub(crate) unsafe fn collective(
    file: &OpenFile,
    direction: Direction,
    place: Place,
    buffer: Buffer,
    status: *mut MPI_Status,
) -> Result<(), Failure> {
    // SAFETY: passed on to the caller. A panic of this rank must not leave the others waiting.
    let mine = guarded(|| unsafe { together(file, direction, place, buffer) });
    let done = agreed(file, direction, mine)?;
    // SAFETY: passed on to the caller.
    unsafe { request::fill(status, &done) }
}

/// Ends a collective call's transfer on all ranks alike. What this rank wrote in a call that failed on another one must not become
/// visible either.
fn agreed(file: &OpenFile, direction: Direction, mine: Result<Pending, Failure>) -> Result<Pending, Failure> {
    let (wrote, panicked) = match &mine {
        Ok(done) => (done.bytes > 0, false),
        Err(failure) => (false, matches!(failure, Failure::Panic(_))),
    };
    agree::outcome(&file.group, mine).inspect_err(|failure| {
        if direction == Direction::Write && (wrote || panicked) {
            file.spoil(failure);
        }
    })
}

/// A collective transfer. Ranks that have set views, which they did together, decide whether to put their small pieces together;
/// plain ones have none.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
unsafe fn together(file: &OpenFile, direction: Direction, place: Place, buffer: Buffer) -> Result<Pending, Failure> {
    if file.group.size == 1 || file.state().views == 0 {
        // SAFETY: passed on to the caller.
        return unsafe { transfer(file, direction, place, buffer) };
    }
    let call = guarded(|| call(file, direction, place, buffer).and_then(|call| intact(file, direction, call)));
    let mine =
        call.as_ref().map_or([i64::MIN; 4], |(checked, start)| buffering::numbers(file, direction, checked, *start));
    let ((checked, start), all) = agree::outcome_and_maximum(&file.group, call, mine)?;
    // SAFETY: passed on to the caller.
    let moved = unsafe {
        if buffering::worthwhile(all, file.group.size) {
            buffering::exchange(file, direction, &checked, start)
        } else {
            pointer::alone(file, || run(file, direction, &checked, start))
        }
    };
    let moved = moved.map_err(|failure| failed(file, direction, failure))?;
    Ok(finished(file, place, &checked, start, moved))
}

/// A nonblocking call: a large transfer goes on in the background, where MPI allows it; another one is done when the call returns,
/// its request complete.
///
/// # Safety
/// Buffer and request are the program's, as MPI wants them.
pub(crate) unsafe fn nonblocking(
    file: &OpenFile,
    direction: Direction,
    place: Place,
    buffer: Buffer,
    request: *mut MPI_Request,
) -> Result<(), Failure> {
    // SAFETY: passed on to the caller.
    unsafe {
        answer(request, MPI_REQUEST_NULL())?;
        let done = match in_background(file, direction, place, buffer) {
            Ok(Some(started)) => return answer(request, started),
            Ok(None) => alone(file, direction, place, buffer)?,
            Err(failure) => unplaced(file, direction, place, buffer, failure)?,
        };
        answer(request, request::completed(done)?)
    }
}

/// Starts a transfer that is worth it and simple enough: nothing is converted and nobody waits for a turn.
///
/// # Safety
/// The buffer is the program's until the request is complete.
unsafe fn in_background(
    file: &OpenFile,
    direction: Direction,
    place: Place,
    buffer: Buffer,
) -> Result<Option<MPI_Request>, Failure> {
    let checked = check(file, direction, place, buffer)?;
    let simple = !checked.view.representation.converts(direction == Direction::Write) && !file.state().atomic;
    if checked.bytes < background::LEAST_BYTES || !simple || !background::available() {
        return Ok(None);
    }
    let finest = checked.memory.finest().min(checked.view.finest()).max(1);
    if checked.bytes / finest > background::MOST_PIECES as u64 || file.postponed().is_some() {
        return Ok(None);
    }
    let start = reserve(file, place, checked.etypes)?;
    let position = checked.view.stream_position(start)?;
    let mut pieces = checked.view.pieces(position, &checked.memory, buffer.address, checked.bytes)?;
    let mut batches = Vec::new();
    loop {
        let mut batch = Vec::new();
        pieces.next_batch(&mut batch)?;
        if batch.is_empty() {
            break;
        }
        require_memory(&batch)?;
        batches.push(batch);
    }
    // SAFETY: passed on to the caller.
    unsafe { background::start(file, direction, batches) }.map(Some)
}

/// Transfers batches of pieces; returns their bytes that were.
///
/// # Safety
/// The pieces' memory is the program's.
pub(crate) unsafe fn run_batches(
    file: &OpenFile,
    direction: Direction,
    batches: &[Vec<Piece>],
) -> Result<u64, Failure> {
    // SAFETY: passed on to the caller.
    batches.iter().try_fold(0, |done, batch| Ok(done + unsafe { list_io(file, direction, batch) }?))
}

fn require_memory(batch: &[Piece]) -> Result<(), Failure> {
    if batch.iter().any(|piece| piece.memory.is_null()) {
        return Err(Failure::refused(MPI_ERR_BUFFER, "the buffer is null"));
    }
    Ok(())
}

/// Where in the view a call begins, for a place that asks no other rank: pointers move on by `etypes`.
fn reserve(file: &OpenFile, place: Place, etypes: i64) -> Result<i64, Failure> {
    match place {
        Place::At(start) => Ok(start),
        Place::Shared | Place::Ordered => pointer::take(file, etypes),
        Place::Pointer => {
            let mut state = file.state();
            let start = state.position;
            state.position = start.saturating_add(etypes);
            Ok(start)
        }
    }
}

/// A call whose arguments are good.
pub(crate) struct Checked {
    pub(crate) view: Arc<View>,
    pub(crate) memory: Layout,
    pub(crate) buffer: Buffer,
    /// Bytes to transfer, as they lie in the file.
    pub(crate) bytes: u64,
    /// Bytes of one element of the buffer's datatype in the file.
    element_bytes: u64,
    /// The same in elementary types of the view.
    etypes: i64,
}

/// Checks a call's arguments against file and view.
fn check(file: &OpenFile, direction: Direction, place: Place, buffer: Buffer) -> Result<Checked, Failure> {
    match direction {
        Direction::Read => file.require_readable()?,
        Direction::Write => file.require_writable()?,
    }
    if matches!(place, Place::At(_) | Place::Pointer) {
        file.require_random()?;
    }
    let view = file.view();
    let memory = memory_layout(&buffer)?;
    memory_bytes(&buffer, &memory)?;
    let element_bytes = if view.representation.resizes() {
        datatype::flatten_in(buffer.datatype, &view.representation)?.bytes()
    } else {
        memory.bytes()
    };
    let bytes = element_bytes.checked_mul(buffer.count.cast_unsigned()).filter(|bytes| i64::try_from(*bytes).is_ok());
    let bytes = bytes.ok_or_else(|| Failure::refused(MPI_ERR_COUNT, "the data exceeds 2^63 bytes"))?;
    if bytes % view.etype_bytes != 0 {
        let text = format!("{bytes} bytes are no multiple of the view's etype of {} bytes", view.etype_bytes);
        return Err(Failure::refused(MPI_ERR_ARG, text));
    }
    let etypes = i64::try_from(bytes / view.etype_bytes).unwrap_or(i64::MAX);
    Ok(Checked { view, memory, buffer, bytes, element_bytes, etypes })
}

/// Does one rank's I/O. At the place `Ordered` it is collective, whatever fails.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
unsafe fn transfer(file: &OpenFile, direction: Direction, place: Place, buffer: Buffer) -> Result<Pending, Failure> {
    let (checked, start) = call(file, direction, place, buffer)
        .and_then(|call| intact(file, direction, call))
        .map_err(|failure| unplaced_and_told(file, direction, failure))?;
    // SAFETY: passed on to the caller.
    let moved = pointer::alone(file, || unsafe { run(file, direction, &checked, start) })
        .map_err(|failure| failed(file, direction, failure))?;
    Ok(finished(file, place, &checked, start, moved))
}

/// A transfer has failed whose arguments were good, and its rank is told: of such a write nothing may become visible.
fn failed(file: &OpenFile, direction: Direction, failure: Failure) -> Failure {
    if direction == Direction::Write && postponed::spoils(&failure) {
        file.spoil(&failure);
    }
    failure
}

/// As [`failed`], for a call that did not get to its data: an argument is refused without any further consequence.
fn unplaced_and_told(file: &OpenFile, direction: Direction, failure: Failure) -> Failure {
    if postponed::is_of_storage(&failure) { failed(file, direction, failure) } else { failure }
}

/// One rank's I/O that no other rank hears of: a failed write is told later, if all ranks can hear of it then.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
unsafe fn alone(file: &OpenFile, direction: Direction, place: Place, buffer: Buffer) -> Result<Pending, Failure> {
    let (checked, start) = match call(file, direction, place, buffer) {
        Ok(call) => call,
        Err(failure) => return unplaced(file, direction, place, buffer, failure),
    };
    let moved = may_run(file, direction, &checked, start)
        // SAFETY: passed on to the caller.
        .and_then(|()| pointer::alone(file, || unsafe { run(file, direction, &checked, start) }))
        .or_else(|failure| match direction {
            Direction::Read => Err(failure),
            Direction::Write => {
                let written = checked.place(start)?;
                let kept = file.postpone(failure, Some(written));
                kept.map(|()| checked.bytes).map_err(|failure| failed(file, direction, failure))
            }
        })?;
    Ok(finished(file, place, &checked, start, moved))
}

/// What comes of a call that did not get to its data, as one at the shared pointer when the pointer's server is lost: a write is told
/// later, as in [`alone`], though nobody knows which bytes it should have filled.
fn unplaced(
    file: &OpenFile,
    direction: Direction,
    place: Place,
    buffer: Buffer,
    failure: Failure,
) -> Result<Pending, Failure> {
    if direction == Direction::Read {
        return Err(failure);
    }
    file.postpone(failure, None).map_err(|failure| unplaced_and_told(file, direction, failure))?;
    check(file, direction, place, buffer).map(|checked| Pending { bytes: checked.in_memory(checked.bytes) })
}

/// Refuses a write if the epoch has failed on this rank already, and a read of what was not written.
fn may_run(file: &OpenFile, direction: Direction, checked: &Checked, start: i64) -> Result<(), Failure> {
    if file.state().postponed.is_none() {
        return Ok(());
    }
    match direction {
        Direction::Write => file.require_intact(),
        Direction::Read => {
            let (from, end) = checked.place(start)?;
            file.require_written(from, end)
        }
    }
}

/// A collective call that may run. A write is where all ranks hear of what any of them has kept.
fn intact(file: &OpenFile, direction: Direction, call: (Checked, i64)) -> Result<(Checked, i64), Failure> {
    may_run(file, direction, &call.0, call.1).map(|()| call)
}

/// Checks a call and takes its place; pointers have moved on then. At the place `Ordered` it is collective, whatever fails.
fn call(file: &OpenFile, direction: Direction, place: Place, buffer: Buffer) -> Result<(Checked, i64), Failure> {
    let checked = check(file, direction, place, buffer);
    if place == Place::Ordered {
        let etypes = checked.as_ref().map(|checked| checked.etypes).map_err(Failure::clone);
        let start = pointer::take_in_order(file, etypes)?;
        return Ok((checked?, start));
    }
    let checked = checked?;
    let start = reserve(file, place, checked.etypes)?;
    Ok((checked, start))
}

/// What a call came to that has moved `bytes` of the file.
fn finished(file: &OpenFile, place: Place, checked: &Checked, start: i64, bytes: u64) -> Pending {
    if place == Place::Pointer && bytes < checked.bytes {
        // Only this call's own move is taken back: another thread may have moved the pointer since.
        let reached = start.saturating_add(i64::try_from(bytes / checked.view.etype_bytes).unwrap_or(i64::MAX));
        let mut state = file.state();
        if state.position == start.saturating_add(checked.etypes) {
            state.position = reached;
        }
    }
    Pending { bytes: checked.in_memory(bytes) }
}

impl Checked {
    /// Bytes of the file from the first byte to past the last one, for a call from elementary type `start` on that moves some.
    pub(crate) fn span(&self, start: i64) -> Result<i64, Failure> {
        let last = start.saturating_add(self.etypes).saturating_sub(1);
        let etype = i64::try_from(self.view.etype_bytes).unwrap_or(i64::MAX);
        Ok(self.view.byte_offset(last)?.saturating_add(etype).saturating_sub(self.view.byte_offset(start)?))
    }

    /// The first byte of the file, and the one past the last, for a call from elementary type `start` on.
    fn place(&self, start: i64) -> Result<(i64, i64), Failure> {
        if self.etypes == 0 {
            return Ok((0, 0));
        }
        let from = self.view.byte_offset(start)?;
        Ok((from, from.saturating_add(self.span(start)?)))
    }

    /// Bytes of memory for bytes of the file, which is what a status counts.
    fn in_memory(&self, bytes: u64) -> u64 {
        if self.element_bytes == self.memory.bytes() || self.element_bytes == 0 {
            return bytes;
        }
        let (whole, part) = (bytes / self.element_bytes, bytes % self.element_bytes);
        whole * self.memory.bytes() + part * self.memory.bytes() / self.element_bytes
    }
}

/// Transfers from elementary type `start` of the view on; returns the bytes that were. A write that fails when some of its data
/// may be at the servers, or while it is converted, spoils the epoch.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
unsafe fn run(file: &OpenFile, direction: Direction, call: &Checked, start: i64) -> Result<u64, Failure> {
    let mut begun = false;
    // SAFETY: passed on to the caller.
    let moved = guarded(|| unsafe { run_from(file, direction, call, start, &mut begun) });
    if let (Direction::Write, true, Err(failure)) = (direction, begun, &moved) {
        file.spoil(failure);
    }
    moved
}

/// As [`run`]; tells whether it has begun to convert or to send data.
///
/// # Safety
/// As [`run`].
unsafe fn run_from(
    file: &OpenFile,
    direction: Direction,
    call: &Checked,
    start: i64,
    begun: &mut bool,
) -> Result<u64, Failure> {
    let position = call.view.stream_position(start)?;
    if call.bytes == 0 {
        return Ok(0);
    }
    if call.view.representation.converts(direction == Direction::Write) {
        // SAFETY: passed on to the caller.
        return unsafe { run_converted(file, direction, call, position, begun) };
    }
    let pieces = call.view.pieces(position, &call.memory, call.buffer.address, call.bytes)?;
    // SAFETY: passed on to the caller.
    unsafe { run_pieces(file, direction, pieces, begun) }
}

/// Bytes that are converted at once.
const CONVERTED_BYTES: u64 = 4 << 20;

/// As [`run`], through a buffer that has the file's form.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
unsafe fn run_converted(
    file: &OpenFile,
    direction: Direction,
    call: &Checked,
    position: u64,
    begun: &mut bool,
) -> Result<u64, Failure> {
    let (view, extent) = (&call.view, call.memory.extent());
    let at_once = (CONVERTED_BYTES / call.element_bytes).clamp(1, 1 << 20).cast_signed();
    let (mut first, mut done) = (0, 0);
    let mixed = view.representation.mixed(call.buffer.datatype)?;
    let mixed = mixed.as_ref();
    let mut converted = vec![0_u8; usize::try_from(at_once.cast_unsigned() * call.element_bytes).unwrap_or(0)];
    while first < call.buffer.count {
        let count = at_once.min(call.buffer.count - first);
        let bytes = count.cast_unsigned() * call.element_bytes;
        let part = &mut converted[..usize::try_from(bytes).unwrap_or(0)];
        let memory = call.buffer.address.wrapping_byte_offset((first * extent) as isize);
        let count = c_int::try_from(count).unwrap_or(0);
        if direction == Direction::Write {
            *begun = true;
            // SAFETY: the program's elements from `first` on.
            unsafe { view.representation.write(memory, count, call.buffer.datatype, mixed, part) }?;
        } else {
            part.fill(0);
        }
        let dense = Layout::dense(bytes);
        let pieces = view.pieces(position + done, &dense, part.as_mut_ptr().cast(), bytes)?;
        // SAFETY: the pieces lie within `part`.
        let moved = unsafe { run_pieces(file, direction, pieces, begun) }?;
        if direction == Direction::Read {
            // What the file has of an element that it ends in is converted too; its rest reads as zeros.
            let whole = c_int::try_from(moved.div_ceil(call.element_bytes)).unwrap_or(0);
            // SAFETY: as above.
            unsafe { view.representation.read(part, memory, whole, call.buffer.datatype, mixed) }?;
        }
        done += moved;
        if moved < bytes {
            break;
        }
        first += i64::from(count);
    }
    Ok(done)
}

/// Transfers pieces; returns their bytes that were.
///
/// # Safety
/// The pieces' memory is the program's buffer or the driver's own.
unsafe fn run_pieces(
    file: &OpenFile,
    direction: Direction,
    mut pieces: Pieces<'_>,
    begun: &mut bool,
) -> Result<u64, Failure> {
    let mut batch: Vec<Piece> = Vec::new();
    let mut done = 0;
    loop {
        pieces.next_batch(&mut batch)?;
        if batch.is_empty() {
            return Ok(done);
        }
        require_memory(&batch)?;
        *begun = true;
        // SAFETY: the pieces lie within the program's buffer of `count` elements of its datatype, which MPI lets the driver use
        // during the call.
        done += unsafe { list_io(file, direction, &batch) }?;
    }
}

/// Hands one batch to libtalea; returns the bytes transferred.
///
/// # Safety
/// The pieces' memory is the program's buffer.
unsafe fn list_io(file: &OpenFile, direction: Direction, batch: &[Piece]) -> Result<u64, Failure> {
    match direction {
        Direction::Write => {
            // SAFETY: passed on to the caller.
            unsafe { file.storage.write(batch) }?;
            Ok(batch.iter().map(|piece| piece.bytes).sum())
        }
        Direction::Read => {
            // SAFETY: passed on to the caller.
            let end = unsafe { file.storage.read(batch) }?;
            Ok(batch.iter().map(|piece| end.saturating_sub(piece.offset).min(piece.bytes)).sum())
        }
    }
}

fn memory_layout(buffer: &Buffer) -> Result<Layout, Failure> {
    if buffer.count < 0 {
        return Err(Failure::refused(MPI_ERR_COUNT, format!("the count {} is negative", buffer.count)));
    }
    datatype::flatten(buffer.datatype)
}

/// Data bytes of the buffer, checked so that arithmetic on its addresses cannot overflow.
fn memory_bytes(buffer: &Buffer, memory: &Layout) -> Result<u64, Failure> {
    let count = buffer.count.cast_unsigned();
    let span = memory.extent().unsigned_abs().checked_mul(count);
    let bytes = memory.bytes().checked_mul(count);
    match (span, bytes) {
        (Some(span), Some(bytes)) if span <= i64::MAX.cast_unsigned() && bytes <= i64::MAX.cast_unsigned() => Ok(bytes),
        _ => Err(Failure::refused(MPI_ERR_COUNT, "the buffer exceeds 2^63 bytes")),
    }
}
