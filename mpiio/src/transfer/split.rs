//! Split collectives: the first half does the I/O of this rank, the second one is where all ranks meet (MPI 4.1 §14.4.5).
//!
//! Must never tell a failure in the first half, which other ranks may have left already.

use super::{Buffer, Direction, Pending, Place, transfer};
use crate::abi::*;
use crate::error::Failure;
use crate::exports::guarded;
use crate::file::OpenFile;
use crate::request;

/// A split collective that has begun. Its failure waits for the second half, which all ranks call.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    kind: Split,
    outcome: Result<Pending, Failure>,
}

/// Which of the six split collectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Split {
    direction: Direction,
    place: SplitPlace,
}

/// Where split collectives may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitPlace {
    /// At an explicit offset.
    At,
    /// At the individual pointer.
    Pointer,
    /// At the shared pointer, in the order of the ranks.
    Ordered,
}

impl Split {
    fn of(direction: Direction, place: Place) -> Split {
        let place = match place {
            Place::At(_) => SplitPlace::At,
            Place::Pointer => SplitPlace::Pointer,
            Place::Shared | Place::Ordered => SplitPlace::Ordered,
        };
        Split { direction, place }
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
    place: SplitPlace,
    status: *mut MPI_Status,
) -> Result<(), Failure> {
    let wanted = Split { direction, place };
    let begun = file.state().split.take_if(|begun| begun.kind == wanted);
    let Some(Begun { outcome, .. }) = begun else {
        let text = "no split collective of this kind has begun on this file";
        return Err(Failure::refused(MPI_ERR_IO, text));
    };
    let done = super::agreed(file, direction, outcome)?;
    // SAFETY: passed on to the caller.
    unsafe { request::fill(status, &done) }
}
