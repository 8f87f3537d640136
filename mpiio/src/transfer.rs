//! Reading and writing data: every form of call comes down to one list I/O of this rank.
//!
//! Collective calls do the same, and then agree on the outcome, so that a failure on one rank is the same failure on all (MPI leaves it open; programs
//! that go on differently on different ranks hang). Nonblocking ones do not: they may not wait for other ranks. No data sieving: reading around a piece and writing it back would overwrite what other ranks wrote.

use std::ffi::c_void;

use talea_abi::Piece;

use crate::abi::*;
use crate::agree;
use crate::datatype::{self, Layout};
use crate::error::Failure;
use crate::exports::guarded;
use crate::file::OpenFile;
use crate::position::answer;
use crate::request;

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

/// A split collective that has begun. Its failure waits for the second half, which all ranks call.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    kind: Split,
    outcome: Result<Pending, Failure>,
}

/// The four split collectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    direction: Direction,
    explicit: bool,
}

impl Split {
    fn of(direction: Direction, place: Place) -> Split {
        Split { direction, explicit: matches!(place, Place::At(_)) }
    }
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
        let done = transfer(file, direction, place, buffer)?;
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
    let mine = guarded(|| unsafe { transfer(file, direction, place, buffer) });
    let done = agree::outcome(&file.group, mine)?;
    // SAFETY: passed on to the caller.
    unsafe { request::fill(status, &done) }
}

/// A nonblocking call: done at once, its request complete.
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
        let done = transfer(file, direction, place, buffer)?;
        answer(request, request::completed(done)?)
    }
}

/// The first half of a split collective.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
pub(crate) unsafe fn begin(file: &OpenFile, direction: Direction, place: Place, buffer: Buffer) -> Result<(), Failure> {
    if file.state().split.is_some() {
        let text = "a split collective is active on this file already: end it first";
        return Err(Failure::refused(MPI_ERR_IO, text));
    }
    // SAFETY: passed on to the caller.
    let outcome = guarded(|| unsafe { transfer(file, direction, place, buffer) });
    file.state().split = Some(Begun { kind: Split::of(direction, place), outcome });
    Ok(())
}

/// The second half of a split collective: all ranks return the same error class.
///
/// # Safety
/// The status is the program's.
pub(crate) unsafe fn end(
    file: &OpenFile,
    direction: Direction,
    explicit: bool,
    status: *mut MPI_Status,
) -> Result<(), Failure> {
    let wanted = Split { direction, explicit };
    let begun = file.state().split.take_if(|begun| begun.kind == wanted);
    let Some(Begun { outcome, .. }) = begun else {
        let text = "no split collective of this kind has begun on this file";
        return Err(Failure::refused(MPI_ERR_IO, text));
    };
    let done = agree::outcome(&file.group, outcome)?;
    // SAFETY: passed on to the caller.
    unsafe { request::fill(status, &done) }
}

/// Shared and ordered pointers are not there.
pub(crate) fn shared_pointer() -> Result<(), Failure> {
    let text = "shared file pointers are not supported on Talea files: use explicit offsets or individual pointers";
    Err(Failure::refused(MPI_ERR_UNSUPPORTED_OPERATION, text))
}

/// Does one rank's I/O.
///
/// # Safety
/// The buffer is the program's, as MPI wants it.
unsafe fn transfer(file: &OpenFile, direction: Direction, place: Place, buffer: Buffer) -> Result<Pending, Failure> {
    match direction {
        Direction::Read => file.require_readable()?,
        Direction::Write => file.require_writable()?,
    }
    let view = file.view();
    let memory = memory_layout(&buffer)?;
    let bytes = memory_bytes(&buffer, &memory)?;
    if bytes % view.etype_bytes != 0 {
        let text = format!("{bytes} bytes are no multiple of the view's etype of {} bytes", view.etype_bytes);
        return Err(Failure::refused(MPI_ERR_ARG, text));
    }
    let etypes = i64::try_from(bytes / view.etype_bytes).unwrap_or(i64::MAX);
    let start = match place {
        Place::At(offset) => offset,
        Place::Pointer => {
            let mut state = file.state();
            let start = state.position;
            state.position = start.saturating_add(etypes);
            start
        }
    };
    let position = view.stream_position(start)?;
    if bytes == 0 {
        return Ok(Pending { bytes: 0 });
    }
    let mut pieces = view.pieces(position, &memory, buffer.address, bytes)?;
    let mut batch: Vec<Piece> = Vec::new();
    let mut done = 0;
    loop {
        pieces.next_batch(&mut batch)?;
        if batch.is_empty() {
            break;
        }
        if batch.iter().any(|piece| piece.memory.is_null()) {
            return Err(Failure::refused(MPI_ERR_BUFFER, "the buffer is null"));
        }
        // SAFETY: the pieces lie within the program's buffer of `count` elements of its datatype, which MPI lets the driver use
        // during the call.
        done += unsafe { list_io(file, direction, &batch) }?;
    }
    if place == Place::Pointer && done < bytes {
        // Only this call's own move is taken back: another thread may have moved the pointer since.
        let reached = start.saturating_add(i64::try_from(done / view.etype_bytes).unwrap_or(i64::MAX));
        let mut state = file.state();
        if state.position == start.saturating_add(etypes) {
            state.position = reached;
        }
    }
    Ok(Pending { bytes: done })
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
