//! Operations on objects and epochs that return at once; a queue tells their ends.
//!
//! Keys and extents are copied when an operation starts; data, the entries of a fetch and a step's place stay the caller's until its end
//! is told.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use talea_client::{Condition, EntryFetch, EntryUpdate, Epoch, InFlight, Punch, ValueKind, Write};
use talea_model::Extent;
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::epoch::{EPOCHS, merged, step_of};
use super::object::{condition_of, extents_of_kind, keys, kind_of, oid_of, punch_of, view_of};
use super::queue::{Callers, QUEUES};
use super::types::{
    talea_container_t, talea_done_fn, talea_epoch_t, talea_extent_t, talea_fetch_t, talea_key_t, talea_oid_t,
    talea_queue_t, talea_snapshot_t, talea_step_t, talea_update_t,
};
use crate::boundary::{bytes, place, public, slice, slice_mut};
use crate::meter;

/// An update that was started and may not have begun: a commit sees it from the start, and its epoch fails if it never begins.
pub(super) struct Started(Option<(Arc<Epoch>, InFlight)>);

impl Started {
    pub(super) fn of(epoch: Option<&Arc<Epoch>>) -> Result<Self, Fault> {
        let Some(epoch) = epoch else { return Ok(Self(None)) };
        let flight = epoch.begin_update().map_err(fault)?;
        Ok(Self(Some((epoch.clone(), flight))))
    }

    /// The update itself is in flight now.
    pub(super) fn has_begun(&mut self) {
        self.0 = None;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some((epoch, _)) = &self.0 {
            epoch.fail();
        }
    }
}

/// An entry of an operation in flight. What is read when it starts is a copy.
pub(super) struct Part {
    pub(super) dkey: Vec<u8>,
    pub(super) akey: Vec<u8>,
    pub(super) kind: ValueKind,
    pub(super) condition: Condition,
    pub(super) extents: Vec<Extent>,
}

impl Part {
    /// # Safety
    /// Keys and extents are valid for reading their sizes.
    pub(super) unsafe fn of(
        key: &talea_key_t,
        record_bytes: u32,
        (extents, extent_count): (*const talea_extent_t, usize),
        condition: u32,
    ) -> Result<Self, Fault> {
        // SAFETY: the caller says so.
        let ((dkey, akey), extents) = unsafe { (keys(key)?, extents_of_kind(record_bytes, extents, extent_count)?) };
        let (kind, condition) = (kind_of(record_bytes), condition_of(condition)?);
        Ok(Self { dkey: dkey.to_vec(), akey: akey.to_vec(), kind, condition, extents })
    }

    fn update<'a>(&'a self, data: &'a [u8]) -> EntryUpdate<'a> {
        let Part { dkey, akey, kind, condition, extents } = self;
        EntryUpdate { dkey, akey, kind: *kind, condition: *condition, extents, data }
    }

    fn fetch<'a>(&'a self, out: &'a mut [u8]) -> EntryFetch<'a> {
        let Part { dkey, akey, kind, extents, .. } = self;
        EntryFetch { dkey, akey, kind: *kind, extents, out, found: false, filled: false, bytes: 0 }
    }
}

/// As `talea_object_update`, but returns at once; `queue` tells its end: calls `done` (if not NULL) with `context`, or gives an
/// event with it. The data stays the library's to read until the end is told.
///
/// Returns an error, and nothing is told later, if the operation could not be started: for a null pointer, a handle that is none,
/// an unknown condition, an extent that is empty or ends beyond 2^64, an epoch that is over. All else is told as its end, with the code
/// that the call without `_start` returns: keys and data of wrong sizes, what is beyond a limit, an object id of no class, and
/// whatever the servers say. So it is for all functions `_start`.
///
/// It ends by its connection's deadline (talea_connect), of which only time counts in which some thread waits in the library: what the
/// program does between two calls is not held against it, but for up to 0.1 s at each poll that only looks: a program that never waits
/// hears of dead servers, too. Such threads, in whatever call, carry it on.
///
/// An update of an epoch is in flight from this call until its end is told: until then the epoch is not committed, and has no summary
/// (TALEA_IN_FLIGHT, and nothing is lost: poll the queue until its updates have ended, then commit).
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size, the data until the operation's end is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_update_start(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    oid: talea_oid_t,
    entries: *const talea_update_t,
    count: usize,
    queue: *mut talea_queue_t,
    done: talea_done_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let (container, operations) = (CONTAINERS.get(container)?, QUEUES.get(queue)?);
        let epoch = if epoch.is_null() { None } else { Some(EPOCHS.get(epoch)?) };
        // SAFETY: the caller's contract.
        let given = unsafe { slice(entries, count, "entries") }?;
        let part = |entry: &talea_update_t| {
            let extents = (entry.extents, entry.extent_count);
            // SAFETY: the caller's contract.
            let (part, data): (_, &'static [u8]) = unsafe {
                let part = Part::of(&entry.key, entry.record_bytes, extents, entry.condition)?;
                (part, bytes(entry.data.cast(), entry.data_bytes, "data")?)
            };
            meter::wrote(data.len());
            Ok((part, data))
        };
        let parts = given.iter().map(part).collect::<Result<Vec<_>, Fault>>()?;
        let object = container.object(oid_of(oid));
        let mut started = Started::of(epoch.as_ref())?;
        operations.start((done, context), async move {
            let updates: Vec<EntryUpdate<'_>> = parts.iter().map(|(part, data)| part.update(data)).collect();
            let write = epoch.as_deref().map_or(Write::Auto, Write::Inside);
            let update = object.update_async(&write, &updates);
            started.has_begun();
            update.await.map_err(fault)
        });
        Ok(())
    })
}

/// As `talea_object_fetch`, but returns at once; see `talea_object_update_start`. The entries and their data stay the library's to
/// write until the end is told.
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size, and the array and the data until the operation's end
/// is told or its queue is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_fetch_start(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    snapshot: *mut talea_snapshot_t,
    oid: talea_oid_t,
    entries: *mut talea_fetch_t,
    count: usize,
    queue: *mut talea_queue_t,
    done: talea_done_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let (container, operations) = (CONTAINERS.get(container)?, QUEUES.get(queue)?);
        let view = view_of(epoch, snapshot)?;
        // SAFETY: the caller's contract.
        let given: &'static mut [talea_fetch_t] = unsafe { slice_mut(entries, count, "entries") }?;
        let part = |entry: &talea_fetch_t| {
            let extents = (entry.extents, entry.extent_count);
            // SAFETY: the caller's contract.
            let (part, out): (_, &'static mut [u8]) = unsafe {
                let part = Part::of(&entry.key, entry.record_bytes, extents, 0)?;
                (part, slice_mut(entry.data.cast(), entry.data_bytes, "place for the data")?)
            };
            meter::read(out.len());
            Ok((part, out))
        };
        let mut parts = given.iter().map(part).collect::<Result<Vec<_>, Fault>>()?;
        let (object, given) = (container.object(oid_of(oid)), Callers(given));
        operations.start((done, context), async move {
            let given = given;
            let mut fetches: Vec<EntryFetch<'_>> = parts.iter_mut().map(|(part, out)| part.fetch(out)).collect();
            object.fetch_async(&view, &mut fetches).await.map_err(fault)?;
            for (entry, fetch) in given.0.iter_mut().zip(&fetches) {
                (entry.found, entry.value_bytes) = (u32::from(fetch.found), fetch.bytes);
            }
            Ok(())
        });
        Ok(())
    })
}

/// As `talea_object_punch`, but returns at once; see `talea_object_update_start`. Everything given is copied.
///
/// # Safety
/// As for `talea_object_punch`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_punch_start(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    oid: talea_oid_t,
    key: *const talea_key_t,
    extent: *const talea_extent_t,
    queue: *mut talea_queue_t,
    done: talea_done_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let (container, operations) = (CONTAINERS.get(container)?, QUEUES.get(queue)?);
        let epoch = if epoch.is_null() { None } else { Some(EPOCHS.get(epoch)?) };
        // SAFETY: the caller's contract.
        let Punch { dkey, akey, extent, condition } = unsafe { punch_of(key, extent) }?;
        let (dkey, akey, object) = (dkey.to_vec(), akey.to_vec(), container.object(oid_of(oid)));
        let mut started = Started::of(epoch.as_ref())?;
        operations.start((done, context), async move {
            let write = epoch.as_deref().map_or(Write::Auto, Write::Inside);
            let punch = Punch { dkey: &dkey, akey: &akey, extent, condition };
            let punched = object.punch_async(&write, &punch);
            started.has_begun();
            punched.await.map_err(fault)
        });
        Ok(())
    })
}

/// As `talea_epoch_commit`, but returns at once: the process computes on while the servers agree. `queue` tells the end, with the code that
/// talea_epoch_commit returns; `step` (or NULL) has been set then. What is refused without any change (TALEA_IN_FLIGHT, TALEA_ARGUMENT)
/// is returned here, and nothing is told later.
///
/// From this call on nothing can be written in the epoch. The handle is closed by talea_epoch_close, before or after the end. If the queue
/// is destroyed before the end, whether there is a step is not known here.
///
/// # Safety
/// Arrays are valid for their sizes, `step` is null or valid for writing until the end is told or the queue is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_epoch_commit_start(
    epoch: *mut talea_epoch_t,
    summary: *const c_void,
    summary_bytes: usize,
    attributes: *const c_void,
    attributes_bytes: usize,
    step: *mut talea_step_t,
    queue: *mut talea_queue_t,
    done: talea_done_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let (epoch, operations) = (EPOCHS.get(epoch)?, QUEUES.get(queue)?);
        // SAFETY: the caller's contract.
        let attributes = unsafe { bytes(attributes.cast(), attributes_bytes, "attributes") }?.to_vec();
        // SAFETY: the caller's contract.
        let merged = unsafe { merged(&epoch, summary, summary_bytes) }?;
        if !step.is_null() {
            place(step, "step")?;
        }
        epoch.can_commit(&merged).map_err(fault)?;
        let step = Callers(step);
        operations.start((done, context), async move {
            let step = step;
            let committed = epoch.commit_async(&merged, &attributes, false).await.committed.map_err(fault)?;
            // SAFETY: null or valid until the end is told, by the caller's contract: this runs before, or not at all.
            if let Some(place) = unsafe { step.0.as_mut() } {
                *place = step_of(&committed);
            }
            Ok(())
        });
        Ok(())
    })
}
