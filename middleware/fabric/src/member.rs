//! What an endpoint over real descriptors offers so that it can sleep alone or beside others in a [`crate::mux`].
//!
//! Owns the rule of who spins (docs/design.md §6). Must never sleep after a member said that something is there.

use std::os::fd::BorrowedFd;

use crate::{Address, Clock, Endpoint, RealClock};

/// Whether a wait may burn processor time before it sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spin {
    /// As [`Never`](Self::Never) or [`Briefly`](Self::Briefly), by whether cores are free now: clients and targets of this
    /// node are fewer than the cores that the process may use. A target knows that, and tells its clients in their rings.
    #[default]
    Auto,
    /// Give way a few times, then sleep: right when ranks and targets are as many as the cores or more.
    Never,
    /// Look again for a short time before sleeping: right only if cores are free.
    Briefly,
}

/// A word that names no wait policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no wait policy: use auto, never or briefly")]
pub struct UnknownSpin(String);

impl std::str::FromStr for Spin {
    type Err = UnknownSpin;
    fn from_str(text: &str) -> Result<Self, UnknownSpin> {
        match text {
            "auto" => Ok(Spin::Auto),
            "never" => Ok(Spin::Never),
            "briefly" => Ok(Spin::Briefly),
            other => Err(UnknownSpin(other.to_owned())),
        }
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How long [`Spin::Briefly`] looks, in nanoseconds: about what a wake-up across cores costs.
const SPIN_NS: u64 = 40_000;
/// Looks between two turns that a spinning wait gives to whoever else wants its core: the other side may be one of them.
const LOOKS_PER_YIELD: u32 = 64;
/// How often a wait that may not spin gives way before it sleeps: a few microseconds if nobody wants the core, and then a
/// wake-up costs more; somebody's turn if somebody does.
const YIELDS: u32 = 8;
/// Giving way took so long in nanoseconds: whoever has the core computes. A sleeper gets it back at its wake-up, a yielder
/// only at the end of the other's slice.
const LONG_TURN_NS: u64 = 300_000;
/// Waits that sleep at once after that.
const SLEEPS_AFTER_LONG_TURN: u32 = 1_000;

/// What an endpoint's waits have learned of who shares its core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    sleep_at_once: u32,
}

/// An endpoint that can tell when it is worth looking at.
pub trait Member: Endpoint {
    /// Whether this member reaches addresses of this form.
    fn reaches(&self, address: &Address) -> bool;

    /// A descriptor that becomes readable when something may have happened.
    fn wait_fd(&self) -> BorrowedFd<'_>;

    /// Looks without a system call whether [`Endpoint::recv`] would give an event or a full peer has room again.
    fn ready(&mut self) -> bool;

    /// Whether only the descriptor tells when something is to be had: then there is no use in asking [`Endpoint::recv`]
    /// again and again.
    fn is_quiet(&self) -> bool;

    /// Says to all peers that we are about to sleep and looks once more; false means: do not sleep.
    fn before_sleep(&mut self) -> bool;

    /// Sleeps on [`wait_fd`](Self::wait_fd) for up to `timeout_ns` (0: only collects what is ready). True if the waker was used.
    fn sleep(&mut self, timeout_ns: u64) -> bool;

    /// Says to all peers that we are awake.
    fn after_sleep(&mut self);

    /// When this member has something to do by itself next, in monotonic nanoseconds.
    fn timer_ns(&self) -> u64;

    /// Whether spinning would take no core from anybody, as far as this member knows (for [`Spin::Auto`]).
    fn cores_free(&self) -> bool {
        false
    }

    /// Raw descriptors that a forked child must close, so that it does not keep connections of its parent alive.
    fn descriptors(&self) -> Vec<std::os::fd::RawFd>;
}

/// [`Endpoint::wait`] for any member.
pub(crate) fn wait(member: &mut dyn Member, spin: Spin, patience: &mut Patience, deadline_ns: u64) {
    if member.ready() {
        return;
    }
    let briefly = match spin {
        Spin::Never => false,
        Spin::Briefly => true,
        Spin::Auto => member.cores_free(),
    };
    let came = if briefly { spin_briefly(member, deadline_ns) } else { give_way(member, patience) };
    if came {
        return;
    }
    if member.before_sleep() {
        let until_ns = deadline_ns.min(member.timer_ns());
        member.sleep(until_ns.saturating_sub(RealClock.monotonic_ns()));
    }
    member.after_sleep();
}

fn spin_briefly(member: &mut dyn Member, deadline_ns: u64) -> bool {
    let until_ns = RealClock.monotonic_ns().saturating_add(SPIN_NS).min(deadline_ns);
    while RealClock.monotonic_ns() < until_ns {
        for _ in 0..LOOKS_PER_YIELD {
            if member.ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        rustix::thread::sched_yield();
    }
    member.ready()
}

fn give_way(member: &mut dyn Member, patience: &mut Patience) -> bool {
    if patience.sleep_at_once > 0 {
        patience.sleep_at_once -= 1;
        return false;
    }
    let mut before_ns = RealClock.monotonic_ns();
    for _ in 0..YIELDS {
        rustix::thread::sched_yield();
        if member.ready() {
            return true;
        }
        let now_ns = RealClock.monotonic_ns();
        if now_ns - before_ns > LONG_TURN_NS {
            patience.sleep_at_once = SLEEPS_AFTER_LONG_TURN;
            return false;
        }
        before_ns = now_ns;
    }
    false
}
