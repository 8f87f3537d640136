//! Updates and fetches whose data lies in several pieces of memory: as those of one piece, without a copy that puts them together.

use std::ffi::{c_int, c_void};

use talea_client::{PartsFetch, PartsUpdate, Write};
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::epoch::EPOCHS;
use super::object::{oid_of, view_of, writing};
use super::queue::{Callers, QUEUES};
use super::start::{Part, Started};
use super::types::{
    talea_container_t, talea_done_fn, talea_epoch_t, talea_fetch_iov_t, talea_iovec_t, talea_oid_t, talea_queue_t,
    talea_snapshot_t, talea_update_iov_t,
};
use crate::boundary::{bytes, public, slice, slice_mut};
use crate::meter;

/// An entry to update: what is copied of it, and its data.
type Update<'a> = (Part, Vec<&'a [u8]>);
/// An entry to fetch: what is copied of it, and its places.
type Fetch<'a> = (Part, Vec<&'a mut [u8]>);

/// The caller's pieces of data.
///
/// # Safety
/// `iov` is valid for reading `count` pieces, each valid for reading its bytes, for as long as `'a`.
unsafe fn sources<'a>(iov: *const talea_iovec_t, count: usize) -> Result<Vec<&'a [u8]>, Fault> {
    // SAFETY: the caller says so.
    let iov = unsafe { slice(iov, count, "pieces of data") }?;
    // SAFETY: the caller says so.
    iov.iter().map(|piece| unsafe { bytes(piece.base.cast_const().cast(), piece.bytes, "piece of data") }).collect()
}

/// The caller's places for data.
///
/// # Safety
/// `iov` is valid for reading `count` pieces, each valid for writing its bytes and apart from all others, for as long as `'a`.
unsafe fn places<'a>(iov: *const talea_iovec_t, count: usize) -> Result<Vec<&'a mut [u8]>, Fault> {
    // SAFETY: the caller says so.
    let iov = unsafe { slice(iov, count, "places for the data") }?;
    // SAFETY: the caller says so.
    iov.iter().map(|piece| unsafe { slice_mut(piece.base.cast(), piece.bytes, "place for the data") }).collect()
}

/// The parts of an update that are copied, and its data.
///
/// # Safety
/// Everything in the entries is valid for its size, the data for as long as `'a`.
unsafe fn updates_of<'a>(given: &[talea_update_iov_t]) -> Result<Vec<Update<'a>>, Fault> {
    let part = |entry: &talea_update_iov_t| {
        let extents = (entry.extents, entry.extent_count);
        // SAFETY: the caller says so.
        let (part, data): (_, Vec<&'a [u8]>) = unsafe {
            let part = Part::of(&entry.key, entry.record_bytes, extents, entry.condition)?;
            (part, sources(entry.iov, entry.iov_count)?)
        };
        meter::wrote(data.iter().map(|piece| piece.len()).sum());
        Ok((part, data))
    };
    given.iter().map(part).collect()
}

/// The parts of a fetch that are copied, and its places.
///
/// # Safety
/// Everything in the entries is valid for its size, the places for as long as `'a`.
unsafe fn fetches_of<'a>(given: &[talea_fetch_iov_t]) -> Result<Vec<Fetch<'a>>, Fault> {
    let part = |entry: &talea_fetch_iov_t| {
        let extents = (entry.extents, entry.extent_count);
        // SAFETY: the caller says so.
        let (part, out): (_, Vec<&'a mut [u8]>) = unsafe {
            let part = Part::of(&entry.key, entry.record_bytes, extents, 0)?;
            (part, places(entry.iov, entry.iov_count)?)
        };
        meter::read(out.iter().map(|piece| piece.len()).sum());
        Ok((part, out))
    };
    given.iter().map(part).collect()
}

fn update<'a>((part, parts): &'a Update<'a>) -> PartsUpdate<'a> {
    let Part { dkey, akey, kind, condition, extents } = part;
    PartsUpdate { dkey, akey, kind: *kind, condition: *condition, extents, parts }
}

fn fetch<'a, 'm>((part, parts): &'a mut Fetch<'m>) -> PartsFetch<'a, 'm> {
    let Part { dkey, akey, kind, extents, .. } = part;
    PartsFetch { dkey, akey, kind: *kind, extents, parts, found: false, filled: false, bytes: 0 }
}

fn tell(given: &mut [talea_fetch_iov_t], fetches: &[PartsFetch<'_, '_>]) {
    for (entry, fetch) in given.iter_mut().zip(fetches) {
        (entry.found, entry.value_bytes) = (u32::from(fetch.found), fetch.bytes);
    }
}

/// As talea_object_update, with the data of each entry in pieces. They go to the server as they are.
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_update_iov(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    oid: talea_oid_t,
    entries: *const talea_update_iov_t,
    count: usize,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        // SAFETY: the caller's contract.
        let parts = unsafe { updates_of(slice(entries, count, "entries")?) }?;
        let updates: Vec<PartsUpdate<'_>> = parts.iter().map(update).collect();
        writing(epoch, |write| container.object(oid_of(oid)).update_parts(write, &updates).map_err(fault))
    })
}

/// As talea_object_fetch, with the data of each entry put into pieces of memory, which do not overlap.
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size, the pieces for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_fetch_iov(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    snapshot: *mut talea_snapshot_t,
    oid: talea_oid_t,
    entries: *mut talea_fetch_iov_t,
    count: usize,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        let view = view_of(epoch, snapshot)?;
        // SAFETY: the caller's contract.
        let given = unsafe { slice_mut(entries, count, "entries") }?;
        // SAFETY: the caller's contract.
        let mut parts = unsafe { fetches_of(given) }?;
        let mut fetches: Vec<PartsFetch<'_, '_>> = parts.iter_mut().map(fetch).collect();
        container.object(oid_of(oid)).fetch_parts(&view, &mut fetches).map_err(fault)?;
        tell(given, &fetches);
        Ok(())
    })
}

/// As talea_object_update_iov, but returns at once; see talea_object_update_start. The pieces stay the library's to read until the
/// end is told; the list of them is copied.
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size, the pieces until the operation's end is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_update_iov_start(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    oid: talea_oid_t,
    entries: *const talea_update_iov_t,
    count: usize,
    queue: *mut talea_queue_t,
    done: talea_done_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let (container, operations) = (CONTAINERS.get(container)?, QUEUES.get(queue)?);
        let epoch = if epoch.is_null() { None } else { Some(EPOCHS.get(epoch)?) };
        // SAFETY: the caller's contract.
        let parts: Vec<Update<'static>> = unsafe { updates_of(slice(entries, count, "entries")?) }?;
        let object = container.object(oid_of(oid));
        let mut started = Started::of(epoch.as_ref())?;
        operations.start((done, context), async move {
            let updates: Vec<PartsUpdate<'_>> = parts.iter().map(update).collect();
            let write = epoch.as_deref().map_or(Write::Auto, Write::Inside);
            let update = object.update_parts_async(&write, &updates);
            started.has_begun();
            update.await.map_err(fault)
        });
        Ok(())
    })
}

/// As talea_object_fetch_iov, but returns at once; see talea_object_fetch_start. The entries and their pieces stay the library's to
/// write until the end is told; the list of pieces is copied.
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size, and the array and the pieces until the operation's end
/// is told or its queue is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_fetch_iov_start(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    snapshot: *mut talea_snapshot_t,
    oid: talea_oid_t,
    entries: *mut talea_fetch_iov_t,
    count: usize,
    queue: *mut talea_queue_t,
    done: talea_done_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let (container, operations) = (CONTAINERS.get(container)?, QUEUES.get(queue)?);
        let view = view_of(epoch, snapshot)?;
        // SAFETY: the caller's contract.
        let given: &'static mut [talea_fetch_iov_t] = unsafe { slice_mut(entries, count, "entries") }?;
        // SAFETY: the caller's contract.
        let mut parts: Vec<Fetch<'static>> = unsafe { fetches_of(given) }?;
        let (object, given) = (container.object(oid_of(oid)), Callers(given));
        operations.start((done, context), async move {
            let given = given;
            let mut fetches: Vec<PartsFetch<'_, '_>> = parts.iter_mut().map(fetch).collect();
            object.fetch_parts_async(&view, &mut fetches).await.map_err(fault)?;
            tell(given.0, &fetches);
            Ok(())
        });
        Ok(())
    })
}
