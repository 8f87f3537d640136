//! Nonblocking transfers that go on while the program computes: one thread of the driver's, which never calls MPI.
//!
//! MPI learns of the end in its own progress, on the program's thread: the MPICH family polls the request (`MPIX_Grequest_start`),
//! Open MPI calls a function of ours in each round (`opal_progress_register`, by which its own parts do the same). With an MPI that
//! has neither the transfer is done when the call returns. Owns the thread, its queue and the requests'
//! states. Must never touch the program's memory after a request is complete, nor start a thread before the first large
//! nonblocking transfer on a Talea file.

use std::collections::VecDeque;
use std::ffi::{c_double, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use talea_abi::Piece;

use crate::abi::*;
use crate::error::{Failure, checked, mpi};
use crate::exports::guarded;
use crate::file::OpenFile;
use crate::transfer::{Direction, Pending};
use crate::{real, request, transfer};

/// Transfers below this size in bytes are done at once: handing them over would take longer.
pub(crate) const LEAST_BYTES: u64 = 64 << 10;
/// Pieces of one transfer that are kept for the thread; a finer one is done at once.
pub(crate) const MOST_PIECES: usize = 1 << 20;

type PollFn = unsafe extern "C" fn(*mut c_void, *mut MPI_Status) -> c_int;
type WaitFn = unsafe extern "C" fn(c_int, *mut *mut c_void, c_double, *mut MPI_Status) -> c_int;
type RegisterFn = unsafe extern "C" fn(unsafe extern "C" fn() -> c_int) -> c_int;
type StartFn =
    unsafe extern "C" fn(QueryFn, FreeFn, CancelFn, PollFn, Option<WaitFn>, *mut c_void, *mut MPI_Request) -> c_int;

/// One transfer on its way.
struct Task {
    file: Arc<OpenFile>,
    direction: Direction,
    batches: Vec<Vec<Piece>>,
    state: Arc<State>,
}

// SAFETY: the pieces' memory is the program's, which MPI forbids it to touch until the request is complete.
unsafe impl Send for Task {}

/// What a request waits for.
struct State {
    outcome: Mutex<Option<Result<Pending, Failure>>>,
    ended: Condvar,
    /// MPI's request, once it is known.
    request: Mutex<Option<MPI_Request>>,
    told: AtomicBool,
    /// [`progress`] tells.
    in_rounds: bool,
}

/// The queue and the thread that works it off.
struct Worker {
    tasks: Mutex<VecDeque<Task>>,
    more: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// MPI's function for requests that it polls, if it has one.
fn start_function() -> Option<StartFn> {
    static FOUND: OnceLock<Option<StartFn>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let found = real::lookup(c"PMPIX_Grequest_start");
        let found = if found.is_null() { real::lookup(c"MPIX_Grequest_start") } else { found };
        // SAFETY: MPICH gives the function of this name this type.
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, StartFn>(found) })
    })
}

/// Has Open MPI taken [`progress`] into its rounds? Asks it at the first call.
fn in_rounds() -> bool {
    static TAKEN: OnceLock<bool> = OnceLock::new();
    *TAKEN.get_or_init(|| {
        let found = real::lookup(c"opal_progress_register");
        if found.is_null() {
            return false;
        }
        // SAFETY: Open MPI gives the function of this name this type, in all its releases.
        let register = unsafe { std::mem::transmute::<*mut c_void, RegisterFn>(found) };
        // SAFETY: a function of the type that is asked for; this library is never unloaded.
        unsafe { register(progress) == 0 }
    })
}

/// Requests of Open MPI that are under way.
static UNDER_WAY: Mutex<Vec<Arc<State>>> = Mutex::new(Vec::new());
/// How many of them have ended and are to be told.
static ENDED: AtomicUsize = AtomicUsize::new(0);

/// What Open MPI calls in each round of its progress. Returns how many requests it completed.
unsafe extern "C" fn progress() -> c_int {
    if ENDED.load(Ordering::Acquire) == 0 {
        return 0;
    }
    catch_unwind(|| {
        let mut ended = Vec::new();
        lock(&UNDER_WAY).retain(|state| {
            let over = lock(&state.outcome).is_some();
            if over {
                ended.push(state.clone());
            }
            !over
        });
        ENDED.fetch_sub(ended.len(), Ordering::AcqRel);
        ended.iter().for_each(|state| {
            tell(state);
        });
        c_int::try_from(ended.len()).unwrap_or(0)
    })
    .unwrap_or(0)
}

/// Can transfers go on in the background with this MPI?
pub(crate) fn available() -> bool {
    (start_function().is_some() || in_rounds()) && worker().is_some()
}

fn worker() -> Option<&'static Worker> {
    static WORKER: Worker = Worker { tasks: Mutex::new(VecDeque::new()), more: Condvar::new() };
    static RUNNING: OnceLock<bool> = OnceLock::new();
    RUNNING
        .get_or_init(|| {
            without_signals(|| {
                std::thread::Builder::new().name("talea-mpiio".to_owned()).spawn(|| WORKER.work()).is_ok()
            })
        })
        .then_some(&WORKER)
}

/// Runs `work` with all signals blocked, which threads inherit: the program's signals are for the program's threads.
fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: fills one set, blocks it in this thread, and keeps the mask that was there.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let done = work();
    // SAFETY: the mask that was there before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    done
}

impl Worker {
    fn work(&self) {
        loop {
            let mut tasks = lock(&self.tasks);
            let task = loop {
                match tasks.pop_front() {
                    Some(task) => break task,
                    None => tasks = self.more.wait(tasks).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(tasks);
            let Task { file, direction, batches, state } = task;
            // SAFETY: the program's memory, until the request is complete.
            let outcome = guarded(|| unsafe { transfer::run_batches(&file, direction, &batches) });
            let outcome = outcome.or_else(|failure| match direction {
                Direction::Read => Err(failure),
                Direction::Write => written_later(&file, failure, &batches),
            });
            file.transfer_ended();
            drop(file);
            // Counted before it can be seen: the count never falls below zero.
            if state.in_rounds {
                ENDED.fetch_add(1, Ordering::AcqRel);
            }
            *lock(&state.outcome) = Some(outcome.map(|bytes| Pending { bytes }));
            state.ended.notify_all();
        }
    }
}

/// A write that failed, as [`OpenFile::postpone`] tells it; its bytes if that is later.
fn written_later(file: &OpenFile, failure: Failure, batches: &[Vec<Piece>]) -> Result<u64, Failure> {
    let pieces = || batches.iter().flatten();
    let from = pieces().map(|piece| piece.offset).min().unwrap_or(0);
    let end = pieces().map(|piece| piece.offset.saturating_add(piece.bytes)).max().unwrap_or(0);
    let kept = file.postpone(failure, Some((from.cast_signed(), end.cast_signed())));
    kept.inspect_err(|failure| file.spoil(failure))?;
    Ok(pieces().map(|piece| piece.bytes).sum())
}

/// Starts a transfer; returns its request.
///
/// # Safety
/// The pieces' memory is the program's, free for the driver until the request is complete.
pub(crate) unsafe fn start(
    file: &OpenFile,
    direction: Direction,
    batches: Vec<Vec<Piece>>,
) -> Result<MPI_Request, Failure> {
    let (Some(worker), Some(file), Ok(mpi)) = (worker(), file.shared(), mpi()) else {
        return Err(Failure::refused(MPI_ERR_INTERN, "no thread for nonblocking transfers"));
    };
    let polled = start_function();
    let state = Arc::new(State {
        outcome: Mutex::new(None),
        ended: Condvar::new(),
        request: Mutex::new(None),
        told: AtomicBool::new(false),
        in_rounds: polled.is_none(),
    });
    let mut made = MPI_REQUEST_NULL();
    let extra = Arc::into_raw(state.clone()).cast_mut().cast();
    // SAFETY: functions of MPI's types; the state lives until `free` takes its reference back.
    let value = unsafe {
        match polled {
            Some(start) => start(query, free, cancel, poll, Some(wait), extra, &raw mut made),
            None => (mpi.MPI_Grequest_start)(query, free, cancel, extra, &raw mut made),
        }
    };
    if let Err(failure) = checked("MPI_Grequest_start", value) {
        // SAFETY: MPI did not take the reference over.
        drop(unsafe { Arc::from_raw(extra.cast_const().cast::<State>()) });
        return Err(failure);
    }
    *lock(&state.request) = Some(made);
    if state.in_rounds {
        lock(&UNDER_WAY).push(state.clone());
    }
    file.transfer_begun();
    lock(&worker.tasks).push_back(Task { file, direction, batches, state });
    worker.more.notify_one();
    Ok(made)
}

/// The state behind MPI's pointer.
///
/// # Safety
/// MPI passes what `start` gave it, before it calls `free`.
unsafe fn state_of<'a>(extra: *mut c_void) -> Option<&'a State> {
    // SAFETY: the caller vouches for it.
    unsafe { extra.cast::<State>().as_ref() }
}

/// Tells MPI, once, that the request is complete.
fn tell(state: &State) -> c_int {
    let (Some(made), Ok(mpi)) = (*lock(&state.request), mpi()) else { return MPI_SUCCESS };
    if state.told.swap(true, Ordering::AcqRel) {
        return MPI_SUCCESS;
    }
    // SAFETY: a request that is under way, completed once.
    unsafe { (mpi.MPI_Grequest_complete)(made) }
}

unsafe extern "C" fn poll(extra: *mut c_void, _: *mut MPI_Status) -> c_int {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as MPI calls it.
        let Some(state) = (unsafe { state_of(extra) }) else { return MPI_ERR_INTERN };
        let ended = lock(&state.outcome).is_some();
        if ended { tell(state) } else { MPI_SUCCESS }
    }))
    .unwrap_or(MPI_ERR_INTERN)
}

unsafe extern "C" fn wait(count: c_int, extras: *mut *mut c_void, _: c_double, _: *mut MPI_Status) -> c_int {
    catch_unwind(AssertUnwindSafe(|| {
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: MPI passes an array of `count` states.
            let Some(state) = (unsafe { state_of(*extras.add(index)) }) else { return MPI_ERR_INTERN };
            let mut outcome = lock(&state.outcome);
            while outcome.is_none() {
                outcome = state.ended.wait(outcome).unwrap_or_else(PoisonError::into_inner);
            }
            drop(outcome);
            let value = tell(state);
            if value != MPI_SUCCESS {
                return value;
            }
        }
        MPI_SUCCESS
    }))
    .unwrap_or(MPI_ERR_INTERN)
}

unsafe extern "C" fn query(extra: *mut c_void, status: *mut MPI_Status) -> c_int {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as MPI calls it.
        let Some(state) = (unsafe { state_of(extra) }) else { return MPI_ERR_INTERN };
        let outcome = lock(&state.outcome).clone();
        let filled = match outcome {
            // SAFETY: MPI's own status.
            Some(Ok(done)) => unsafe { request::fill(status, &done) },
            Some(Err(failure)) => Err(failure),
            None => Ok(()),
        };
        filled.map_or_else(|failure| failure.code(), |()| MPI_SUCCESS)
    }))
    .unwrap_or(MPI_ERR_INTERN)
}

unsafe extern "C" fn free(extra: *mut c_void) -> c_int {
    if !extra.is_null() {
        // SAFETY: the reference that `start` gave; MPI calls this once.
        drop(unsafe { Arc::from_raw(extra.cast_const().cast::<State>()) });
    }
    MPI_SUCCESS
}

unsafe extern "C" fn cancel(_: *mut c_void, _: c_int) -> c_int {
    // A transfer on its way is not called back.
    MPI_SUCCESS
}
