//! Operations in flight: started with a queue, and told of when they end, by a call or as an event.
//!
//! Nothing runs between calls: operations go on while any thread waits in the library, in whatever call, and end in `talea_queue_poll`. Keys and
//! extents are copied when an operation starts; data, and the entries of a fetch, stay the caller's until its end is told.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use talea_abi::Code;
use talea_client::{Condition, EntryFetch, EntryUpdate, Epoch, InFlight, Queue, ValueKind, Write};
use talea_model::Extent;
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::epoch::EPOCHS;
use super::object::{condition_of, extents_of_all, keys, kind_of, oid_of, view_of};
use super::system::{SYSTEMS, deadline};
use super::types::{
    talea_container_t, talea_done_fn, talea_epoch_t, talea_event_t, talea_fetch_t, talea_oid_t, talea_queue_t,
    talea_snapshot_t, talea_system_t, talea_update_t,
};
use crate::boundary::{bytes, place, public, put, slice, slice_mut, with_error};
use crate::handles::Handles;

/// Results that one call takes at most, if it only calls functions.
const TAKEN_AT_ONCE: usize = 256;

/// Something of the caller's that only he touches until the operation has ended.
pub(super) struct Callers<T>(pub(super) T);

// SAFETY: a pointer that is carried along and used by whoever polls the queue, one at a time, under the caller's word that it
// is valid until then.
unsafe impl<T> Send for Callers<T> {}

/// An operation that has ended.
struct Ended {
    context: Callers<*mut c_void>,
    done: talea_done_fn,
    result: Result<(), Fault>,
}

/// What has ended and is to be told by events.
#[derive(Default)]
struct Told {
    /// Ended without a function to call, and not told yet.
    untold: VecDeque<Ended>,
    /// Texts of the last events that each thread was given.
    texts: HashMap<ThreadId, Vec<CString>>,
}

/// A queue as its handle stands for it. Nothing here is locked while anybody waits.
pub(crate) struct Operations {
    queue: Queue<'static, Ended>,
    told: Mutex<Told>,
    /// Started and not told.
    pending: AtomicUsize,
}

pub(super) static QUEUES: Handles<talea_queue_t, Operations> = Handles::new("queue");

impl Operations {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an operation whose end `context` and `done` tell.
    pub(super) fn start(
        &self,
        (done, context): (talea_done_fn, *mut c_void),
        operation: impl Future<Output = Result<(), Fault>> + Send + 'static,
    ) {
        let context = Callers(context);
        self.pending.fetch_add(1, SeqCst);
        self.queue.start(async move {
            let result = operation.await;
            Ended { context, done, result }
        });
    }

    /// Waits for ends. Those without a function fill `events`; the others are returned, for their functions to be called.
    fn poll(&self, timeout_ms: u64, events: &mut [talea_event_t]) -> Result<(Vec<Ended>, usize), Fault> {
        let capacity = events.len();
        let has_untold = || capacity > 0 && !self.told().untold.is_empty();
        let ended = self.queue.take_unless(1, capacity.max(TAKEN_AT_ONCE), timeout_ms, has_untold).map_err(fault)?;
        let (calls, others): (Vec<Ended>, Vec<Ended>) = ended.into_iter().partition(|one| one.done.is_some());
        let mut told = self.told();
        let Told { untold, texts } = &mut *told;
        untold.extend(others);
        let count = capacity.min(untold.len());
        let mut of_thread = Vec::new();
        for (event, one) in events.iter_mut().zip(untold.drain(..count)) {
            *event = event_of(&one, &mut of_thread);
        }
        let thread = std::thread::current().id();
        if !of_thread.is_empty() {
            texts.insert(thread, of_thread);
        } else if !texts.is_empty() {
            texts.remove(&thread);
        }
        let is_left = !untold.is_empty();
        drop(told);
        self.pending.fetch_sub(count + calls.len(), SeqCst);
        if is_left {
            // For another thread that has room for them.
            self.queue.look_again();
        }
        Ok((calls, count))
    }
}

/// A queue for operations on containers of `system`.
///
/// # Safety
/// `out` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_queue_create(system: *mut talea_system_t, out: *mut *mut talea_queue_t) -> c_int {
    public(|| {
        place(out, "queue")?;
        let queue = Queue::carried(&SYSTEMS.get(system)?.client);
        let operations = Operations { queue, told: Mutex::default(), pending: AtomicUsize::new(0) };
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, QUEUES.add(operations), "queue") }
    })
}

/// Gives a queue back, at once. Operations in flight are given up: whether updates among them were done is not known, and an epoch that
/// they belong to fails. Nothing touches their memory afterwards. A null pointer is fine.
///
/// # Safety
/// None: the handle is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_queue_destroy(queue: *mut talea_queue_t) {
    if !queue.is_null() {
        public(|| {
            let operations = QUEUES.remove(queue)?;
            // A poll in another thread still holds it: what is in flight must not outlive this call.
            operations.queue.give_up();
            operations.told().untold.clear();
            Ok(())
        });
    }
}

/// Operations started with a queue whose end was not told yet.
///
/// # Safety
/// `count` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_queue_pending(queue: *mut talea_queue_t, count: *mut usize) -> c_int {
    public(|| {
        let pending = QUEUES.get(queue)?.pending.load(SeqCst);
        // SAFETY: the caller's contract.
        unsafe { put(count, pending, "number of operations") }
    })
}

/// Waits up to `timeout_ms` until an operation has ended, or none is in flight, and tells of those that have: calls the
/// functions of those that have one, and puts up to `capacity` others into `events`; sets `count` to the number of events. With
/// `timeout_ms` 0 it only looks. An event's text lives until the same thread's next poll of the queue, or its destruction.
///
/// Threads may share a queue: while one waits here others start operations, ask for the number pending, poll too, or destroy it (the
/// waiting ones return without events then). Each end is told once, to one of them.
///
/// # Safety
/// `events` is valid for writing `capacity` events, `count` for writing; null pointers are told (`events` is unused if `capacity`
/// is 0). Functions given with operations can be called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_queue_poll(
    queue: *mut talea_queue_t,
    timeout_ms: i64,
    events: *mut talea_event_t,
    capacity: usize,
    count: *mut usize,
) -> c_int {
    public(|| {
        place(count, "number of events")?;
        let timeout_ms = deadline(timeout_ms)?;
        // SAFETY: the caller's contract.
        let events = unsafe { slice_mut(events, capacity, "events") }?;
        let operations = QUEUES.get(queue)?;
        let (calls, told) = operations.poll(timeout_ms, events)?;
        for one in calls {
            let code = one.result.as_ref().err().map_or(Code::Ok, |fault| fault.code);
            with_error(one.result.err());
            if let Some(done) = one.done {
                // SAFETY: the caller's contract.
                unsafe { done(one.context.0, code as c_int) };
            }
        }
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(count, told, "number of events") }
    })
}

fn event_of(one: &Ended, texts: &mut Vec<CString>) -> talea_event_t {
    let mut event = talea_event_t { context: one.context.0, code: 0, text: std::ptr::null() };
    if let Err(fault) = &one.result {
        event.code = fault.code as c_int;
        let text = CString::new(fault.text.replace('\0', "")).unwrap_or_default();
        // The text's bytes do not move with the string.
        event.text = text.as_ptr() as *const c_char;
        texts.push(text);
    }
    event
}

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
/// event with it. Returns an error, and nothing is told later, if the operation could not be started. The data stays the
/// library's to read until the end is told.
///
/// It ends by its connection's deadline (talea_connect), of which only time counts in which some thread waits in the library: what the
/// program does between two calls is not held against it. Such threads, in whatever call, carry it on.
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
        let lists = given.iter().map(|entry| (entry.record_bytes, entry.extents, entry.extent_count));
        // SAFETY: the caller's contract.
        let extents = unsafe { extents_of_all(lists) }?;
        let mut parts = Vec::with_capacity(given.len());
        for (entry, extents) in given.iter().zip(extents) {
            // SAFETY: the caller's contract.
            let ((dkey, akey), data): (_, &'static [u8]) =
                unsafe { (keys(&entry.key)?, bytes(entry.data.cast(), entry.data_bytes, "data")?) };
            let (kind, condition) = (kind_of(entry.record_bytes), condition_of(entry.condition)?);
            parts.push((Part { dkey: dkey.to_vec(), akey: akey.to_vec(), kind, condition, extents }, data));
        }
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
        let lists = given.iter().map(|entry| (entry.record_bytes, entry.extents, entry.extent_count));
        // SAFETY: the caller's contract.
        let extents = unsafe { extents_of_all(lists) }?;
        let mut parts = Vec::with_capacity(given.len());
        for (entry, extents) in given.iter().zip(extents) {
            // SAFETY: the caller's contract.
            let ((dkey, akey), out): (_, &'static mut [u8]) =
                unsafe { (keys(&entry.key)?, slice_mut(entry.data.cast(), entry.data_bytes, "place for the data")?) };
            let (kind, condition) = (kind_of(entry.record_bytes), Condition::None);
            parts.push((Part { dkey: dkey.to_vec(), akey: akey.to_vec(), kind, condition, extents }, out));
        }
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
