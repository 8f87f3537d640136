//! The size of a file: set on one rank, in order with the writes of all.

use crate::abi::*;
use crate::agree;
use crate::error::Failure;
use crate::file::OpenFile;

/// What a collective change of the size does with the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Makes it exactly this.
    Exactly,
    /// Makes it at least this.
    AtLeast,
}

/// `MPI_File_set_size` and `MPI_File_preallocate`. Collective: one all-reduce, so that every rank's earlier writes come before,
/// then rank 0 sets, then one broadcast.
pub(crate) fn change(file: &OpenFile, bytes: i64, change: Change) -> Result<(), Failure> {
    let checked = check(file, bytes);
    let present = checked.as_ref().copied().unwrap_or(0).cast_signed();
    let numbers = [bytes, bytes.saturating_neg(), present];
    let (_, [most, least, present]) = agree::outcome_and_maximum(&file.group, checked, numbers)?;
    let present = present.cast_unsigned();
    if most != least.saturating_neg() {
        return Err(Failure::refused(MPI_ERR_NOT_SAME, "the ranks gave different sizes"));
    }
    let wanted = bytes.cast_unsigned();
    if change == Change::AtLeast && present >= wanted {
        return Ok(());
    }
    let (outcome, result) = if file.group.rank == 0 {
        match file.storage.set_size(wanted) {
            Ok(result) => (Ok(()), result),
            Err(failure) => (Err(failure), Vec::new()),
        }
    } else {
        (Ok(()), Vec::new())
    };
    let (outcome, result) = agree::broadcast(&file.group, outcome, result)?;
    outcome?;
    if result.is_empty() { Ok(()) } else { file.storage.advance(&result) }
}

/// Local checks; the size as this rank sees it.
fn check(file: &OpenFile, bytes: i64) -> Result<u64, Failure> {
    file.require_writable()?;
    if bytes < 0 {
        return Err(Failure::refused(MPI_ERR_ARG, format!("the size {bytes} is negative")));
    }
    file.storage.size()
}
