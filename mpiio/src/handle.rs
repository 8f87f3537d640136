//! Handles: the `MPI_File` and the Fortran integer of each open Talea file.
//!
//! An `MPI_File` of ours is the address of a byte in a static array, so one comparison tells ours from the real MPI's, and a stale
//! one is recognised instead of followed. Must never dereference a handle, nor hold its lock while the caller works.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock};

use crate::abi::{MPI_ERR_OTHER, MPI_File, MPI_Fint};
use crate::error::Failure;
use crate::file::OpenFile;

/// Files that a process may have open at once.
const SLOTS: usize = 16384;
/// Fortran's integers for our files start here; the real MPI counts from 1.
const FORTRAN_BASE: MPI_Fint = 0x4000_0000;

/// Only its addresses are used.
static ADDRESSES: [u8; SLOTS] = [0; SLOTS];
static FORKED: AtomicBool = AtomicBool::new(false);
static AT_FORK: Once = Once::new();

struct Slots {
    files: Vec<Option<Arc<OpenFile>>>,
    /// Free slots, the longest unused first, so that a stale handle stays recognisable for long.
    free: VecDeque<usize>,
}

static SLOT_TABLE: RwLock<Slots> = RwLock::new(Slots { files: Vec::new(), free: VecDeque::new() });

/// What a handle names.
pub(crate) enum Named {
    /// A file of the real MPI, or `MPI_FILE_NULL`.
    Foreign,
    /// An open Talea file.
    Open(Arc<OpenFile>),
    /// A Talea file that was closed, or the copy of one in a forked child.
    Dead,
}

/// Tells whose handle it is.
pub(crate) fn named(handle: MPI_File) -> Named {
    let Some(index) = index_of(handle) else { return Named::Foreign };
    if forked() {
        return Named::Dead;
    }
    let slots = SLOT_TABLE.read().unwrap_or_else(PoisonError::into_inner);
    slots.files.get(index).and_then(Option::as_ref).map_or(Named::Dead, |file| Named::Open(Arc::clone(file)))
}

fn index_of(handle: MPI_File) -> Option<usize> {
    let index = handle.addr().checked_sub(ADDRESSES.as_ptr().addr())?;
    (index < SLOTS).then_some(index)
}

fn handle_at(index: usize) -> MPI_File {
    ADDRESSES[index..].as_ptr().cast_mut().cast::<c_void>()
}

/// Gives an open file its handle.
pub(crate) fn insert(file: Arc<OpenFile>) -> Result<MPI_File, Failure> {
    AT_FORK.call_once(|| {
        // SAFETY: registers a function that only stores a flag, in the child.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    let mut slots = SLOT_TABLE.write().unwrap_or_else(PoisonError::into_inner);
    // Fresh slots first, then the one that has been free for longest.
    let index = if slots.files.len() < SLOTS {
        slots.files.push(None);
        slots.files.len() - 1
    } else {
        slots.free.pop_front().ok_or_else(full)?
    };
    slots.files[index] = Some(file);
    Ok(handle_at(index))
}

/// Fails if no file can be opened any more.
pub(crate) fn require_room() -> Result<(), Failure> {
    let slots = SLOT_TABLE.read().unwrap_or_else(PoisonError::into_inner);
    if slots.files.len() < SLOTS || !slots.free.is_empty() { Ok(()) } else { Err(full()) }
}

fn full() -> Failure {
    Failure::refused(MPI_ERR_OTHER, format!("{SLOTS} files are open below /talea/: close some first"))
}

/// Takes a file out; its handle is dead from now on.
pub(crate) fn remove(handle: MPI_File) -> Option<Arc<OpenFile>> {
    let index = index_of(handle)?;
    let mut slots = SLOT_TABLE.write().unwrap_or_else(PoisonError::into_inner);
    let file = slots.files.get_mut(index)?.take()?;
    slots.free.push_back(index);
    Some(file)
}

/// Handles of all files that are open now, in the order of their slots.
pub(crate) fn all() -> Vec<MPI_File> {
    let slots = SLOT_TABLE.read().unwrap_or_else(PoisonError::into_inner);
    slots.files.iter().enumerate().filter(|(_, file)| file.is_some()).map(|(index, _)| handle_at(index)).collect()
}

/// Fortran's integer for a handle of ours.
pub(crate) fn to_fortran(handle: MPI_File) -> Option<MPI_Fint> {
    index_of(handle).and_then(|index| MPI_Fint::try_from(index).ok()).map(|index| FORTRAN_BASE + index)
}

/// The handle for Fortran's integer, if it is one of ours.
pub(crate) fn from_fortran(number: MPI_Fint) -> Option<MPI_File> {
    let index = usize::try_from(number.checked_sub(FORTRAN_BASE)?).ok()?;
    (index < SLOTS).then(|| handle_at(index))
}

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Is this a forked child of a process that had Talea files open? Its copies are dead.
pub(crate) fn forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_integers_and_handles_are_one_to_one_and_apart_from_the_real_ones() {
        for index in [0, 1, SLOTS - 1] {
            let handle = handle_at(index);
            let number = to_fortran(handle);
            assert_eq!(number.and_then(from_fortran), Some(handle));
        }
        for foreign in [0, 1, 77, -1, MPI_Fint::MIN, MPI_Fint::MAX] {
            assert_eq!(from_fortran(foreign), None);
        }
        assert_eq!(to_fortran(std::ptr::null_mut()), None);
    }

    #[test]
    fn null_and_foreign_addresses_are_not_ours() {
        let other = 5_u8;
        assert!(matches!(named(std::ptr::null_mut()), Named::Foreign));
        assert!(matches!(named((&raw const other).cast_mut().cast()), Named::Foreign));
        assert!(matches!(named(handle_at(SLOTS - 1)), Named::Dead));
    }
}
