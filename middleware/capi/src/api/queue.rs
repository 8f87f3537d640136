//! Queues: operations in flight, told of when they end, by a call or as an event.
//!
//! Nothing runs between calls: operations go on while any thread waits in the library, in whatever call, and end in `talea_queue_poll`.
//! What starts them is in `start` and `pieces`.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use talea_abi::Code;
use talea_client::Queue;
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::system::{SYSTEMS, deadline};
use super::types::{talea_done_fn, talea_event_t, talea_queue_t, talea_system_t};
use crate::boundary::{place, public, put, slice_mut, with_error};
use crate::handles::Handles;

mod calling;

use calling::Calling;

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
    calling: Calling,
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

    /// Waits for ends, and tells of them: calls the functions of those that have one, and fills `events` with others. Returns how many those
    /// are.
    ///
    /// # Safety
    /// Functions given with operations can be called.
    unsafe fn poll(&self, timeout_ms: u64, events: &mut [talea_event_t]) -> Result<usize, Fault> {
        let capacity = events.len();
        let has_untold = || capacity > 0 && !self.told().untold.is_empty();
        let ended = self.queue.take_unless(1, capacity.max(TAKEN_AT_ONCE), timeout_ms, has_untold).map_err(fault)?;
        let (calls, others): (Vec<Ended>, Vec<Ended>) = ended.into_iter().partition(|one| one.done.is_some());
        let is_for_others = !calls.is_empty() && !others.is_empty();
        self.told().untold.extend(others);
        if is_for_others {
            // Nobody has to wait for the functions.
            self.queue.look_again();
        }
        for one in calls {
            self.pending.fetch_sub(1, SeqCst);
            let code = one.result.as_ref().err().map_or(Code::Ok, |fault| fault.code);
            let is_called = self.calling.call(|| {
                with_error(one.result.err());
                if let Some(done) = one.done {
                    // SAFETY: the caller says so.
                    unsafe { done(one.context.0, code as c_int) };
                }
            });
            if !is_called {
                break;
            }
        }
        Ok(self.tell(events))
    }

    /// Fills `events`; a queue that is destroyed has none. After the functions, for one of them may have polled in this thread, and what
    /// it was told is over with it.
    fn tell(&self, events: &mut [talea_event_t]) -> usize {
        let mut told = self.told();
        if self.calling.is_over() {
            return 0;
        }
        let Told { untold, texts } = &mut *told;
        let count = events.len().min(untold.len());
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
        self.pending.fetch_sub(count, SeqCst);
        if is_left {
            // For another thread that has room for them.
            self.queue.look_again();
        }
        count
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
        let (told, calling, pending) = (Mutex::default(), Calling::default(), AtomicUsize::new(0));
        let operations = Operations { queue, told, calling, pending };
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, QUEUES.add(operations), "queue") }
    })
}

/// Gives a queue back, at once. Operations in flight are given up: whether updates among them were done is not known, and an epoch that
/// they belong to fails. Nothing touches their memory afterwards, and no function is called: if one runs in another thread, this waits for
/// its end. A function may destroy its own queue. A null pointer is fine.
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
            operations.calling.end();
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
/// `timeout_ms` 0 it only looks. An event's text lives until the same thread's next poll of the queue, or its destruction; of a poll in
/// a function until that function returns.
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
        // SAFETY: the caller's contract.
        let told = unsafe { operations.poll(timeout_ms, events) }?;
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
