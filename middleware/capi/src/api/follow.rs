//! Following a container's steps.

use std::ffi::{c_int, c_void};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use talea_abi::Code;
use talea_client::{Subscription, WaitOutcome as Outcome};
use talea_model::Step;
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::system::deadline;
use super::types::{talea_container_t, talea_name_fn, talea_step_t, talea_subscription_t};
use crate::boundary::{argument, place, public, put, slice_mut, waiting};
use crate::handles::Handles;

static SUBSCRIPTIONS: Handles<talea_subscription_t, Mutex<Subscription>> = Handles::new("subscription");

/// Follows the container's steps after `after_step` (0: all that are retained). Nothing that a follower has not received is
/// given up by retention.
///
/// # Safety
/// `out` is valid for writing; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_subscribe(
    container: *mut talea_container_t,
    after_step: u64,
    out: *mut *mut talea_subscription_t,
) -> c_int {
    public(|| {
        place(out, "subscription")?;
        let subscription = CONTAINERS.get(container)?.subscribe(Step(after_step)).map_err(fault)?;
        // SAFETY: checked above, valid by the caller's contract.
        unsafe { put(out, SUBSCRIPTIONS.add(Mutex::new(subscription)), "subscription") }
    })
}

/// Ends a subscription. A null pointer is fine.
///
/// # Safety
/// None: the handle is checked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_unsubscribe(subscription: *mut talea_subscription_t) {
    if !subscription.is_null() {
        public(|| SUBSCRIPTIONS.remove(subscription).map(drop));
    }
}

/// Waits for the next step, at most `deadline_ms` (0 only looks); threads may share a subscription, and each step is told to one of
/// them. TALEA_OK: `out` has it. TALEA_NOT_READY: the deadline passed and the producer may still make steps. TALEA_END: none will
/// follow. TALEA_PRODUCER_LOST: the producer has ended otherwise. TALEA_RETENTION: steps were given up before they were received; the
/// next wait goes on after the gap.
///
/// # Safety
/// `out` is valid for writing; a null pointer is told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_wait(
    subscription: *mut talea_subscription_t,
    deadline_ms: i64,
    out: *mut talea_step_t,
) -> c_int {
    waiting(|| {
        place(out, "step")?;
        let deadline_ms = deadline(deadline_ms)?;
        let subscription = SUBSCRIPTIONS.get(subscription)?;
        let outcome = |code, text: &str| Err(Fault::new(code, text));
        // Another thread may wait for the same step: each goes by its own deadline.
        let begun = Instant::now();
        let Some(mut subscription) = subscription.try_lock_for(Duration::from_millis(deadline_ms)) else {
            return outcome(Code::NotReady, "another thread has the subscription: wait again");
        };
        let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        match subscription.wait_one(deadline_ms.saturating_sub(waited_ms)).map_err(fault)? {
            Outcome::Steps { steps, latest } => {
                let Some(record) = steps.first() else { return outcome(Code::NotReady, "no step yet") };
                let told = talea_step_t { step: record.step.0, stamp: record.stamp.0, latest_step: latest.0 };
                // SAFETY: checked above, valid by the caller's contract.
                unsafe { put(out, told, "step") }
            }
            Outcome::NotReady => {
                outcome(Code::NotReady, "the deadline passed before there was a next step: wait again")
            }
            Outcome::End => outcome(Code::End, "the producer has said that no step will follow"),
            Outcome::ProducerLost => {
                outcome(Code::ProducerLost, "the producer has ended without a word: no step will follow from it")
            }
            Outcome::Gap { through } => outcome(
                Code::Retention,
                &format!(
                    "the steps up to {through} are not kept any more: subscribe earlier, or keep more (--keep-steps N of talea run and up)"
                ),
            ),
        }
    })
}

/// The attributes that a step was committed with. `attributes` gets as many bytes as fit, `attributes_bytes` (or NULL) how many there are; a
/// NULL buffer of size 0 asks for that alone. TALEA_TOO_LONG: the buffer is too small, and holds the first bytes. TALEA_RETENTION: the step
/// is not kept any more.
///
/// # Safety
/// `attributes` is valid for writing `size` bytes, `attributes_bytes` null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_step_attributes(
    container: *mut talea_container_t,
    step: u64,
    attributes: *mut c_void,
    size: usize,
    attributes_bytes: *mut usize,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        // SAFETY: the caller's contract.
        let room = unsafe { slice_mut(attributes.cast::<u8>(), size, "attributes") }?;
        let told = container.step(Step(step)).map_err(fault)?.attributes;
        let fit = told.len().min(room.len());
        room[..fit].copy_from_slice(&told[..fit]);
        if !attributes_bytes.is_null() {
            // SAFETY: not null, valid by the caller's contract.
            unsafe { put(attributes_bytes, told.len(), "attributes_bytes") }?;
        }
        if size > 0 && fit < told.len() {
            let text = format!("step {step} has {} bytes of attributes, and the buffer {size}: give more", told.len());
            return Err(Fault::new(Code::TooLong, text));
        }
        Ok(())
    })
}

/// Gives the files that a step wrote to `each`, by their names from the container's root on. None if the epoch named none: objects of the
/// program's own, a rollback. `is_whole` (or NULL) gets 0 if there were more than a record holds. TALEA_RETENTION: the step is not kept
/// any more.
///
/// # Safety
/// `each` is a function that can be called with `context`, `is_whole` null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_step_manifest(
    container: *mut talea_container_t,
    step: u64,
    each: talea_name_fn,
    context: *mut c_void,
    is_whole: *mut c_int,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        let each = each.ok_or_else(|| argument("no function to give the files to"))?;
        let record = container.step(Step(step)).map_err(fault)?;
        let manifest = container.manifest(&record).map_err(fault)?.unwrap_or_default();
        if !is_whole.is_null() {
            let whole = c_int::from(manifest.is_whole || manifest.files.is_empty());
            // SAFETY: not null, valid by the caller's contract.
            unsafe { put(is_whole, whole, "is_whole") }?;
        }
        for file in &manifest.files {
            // SAFETY: the caller's contract; the name lives through the call.
            if unsafe { each(context, file.path.as_ptr().cast(), file.path.len()) } != 0 {
                break;
            }
        }
        Ok(())
    })
}
