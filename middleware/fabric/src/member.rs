//! What an endpoint over real descriptors offers so that it can sleep alone or beside others in a [`crate::mux`].
//!
//! Owns the rule of who spins (docs/design.md §6). Must never sleep after a member said that something is there.

use std::os::fd::BorrowedFd;

use crate::{Address, Clock, Endpoint, RealClock};

/// Whether a wait may burn processor time before it sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spin {
    /// Yield once, then sleep: right when ranks and targets are as many as the cores or more.
    #[default]
    Never,
    /// Look again for a short time before sleeping: right only if cores are free.
    Briefly,
}

/// How long [`Spin::Briefly`] looks, in nanoseconds: about what a wake-up across cores costs.
const SPIN_NS: u64 = 40_000;

/// An endpoint that can tell when it is worth looking at.
pub trait Member: Endpoint {
    /// Whether this member reaches addresses of this form.
    fn reaches(&self, address: &Address) -> bool;

    /// A descriptor that becomes readable when something may have happened.
    fn wait_fd(&self) -> BorrowedFd<'_>;

    /// Looks without a system call whether [`Endpoint::recv`] would give an event or a full peer has room again.
    fn ready(&mut self) -> bool;

    /// Says to all peers that we are about to sleep and looks once more; false means: do not sleep.
    fn before_sleep(&mut self) -> bool;

    /// Sleeps on [`wait_fd`](Self::wait_fd) for up to `timeout_ns` (0: only collects what is ready). True if the waker was used.
    fn sleep(&mut self, timeout_ns: u64) -> bool;

    /// Says to all peers that we are awake.
    fn after_sleep(&mut self);

    /// When this member has something to do by itself next, in monotonic nanoseconds.
    fn timer_ns(&self) -> u64;

    /// Raw descriptors that a forked child must close, so that it does not keep connections of its parent alive.
    fn descriptors(&self) -> Vec<std::os::fd::RawFd>;
}

/// [`Endpoint::wait`] for any member.
pub(crate) fn wait(member: &mut dyn Member, spin: Spin, deadline_ns: u64) {
    if member.ready() {
        return;
    }
    match spin {
        Spin::Never => rustix::thread::sched_yield(),
        Spin::Briefly => {
            let until_ns = RealClock.monotonic_ns().saturating_add(SPIN_NS).min(deadline_ns);
            while RealClock.monotonic_ns() < until_ns {
                for _ in 0..64 {
                    if member.ready() {
                        return;
                    }
                    std::hint::spin_loop();
                }
            }
        }
    }
    if member.before_sleep() {
        let until_ns = deadline_ns.min(member.timer_ns());
        member.sleep(until_ns.saturating_sub(RealClock.monotonic_ns()));
    }
    member.after_sleep();
}
