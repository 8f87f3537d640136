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
    /// Sleep at once: every message costs a wake-up, and waiting nothing.
    Sleep,
}

/// A word that names no wait policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no wait policy: use auto, never, briefly or sleep")]
pub struct UnknownSpin(String);

impl std::str::FromStr for Spin {
    type Err = UnknownSpin;
    fn from_str(text: &str) -> Result<Self, UnknownSpin> {
        match text {
            "auto" => Ok(Spin::Auto),
            "never" => Ok(Spin::Never),
            "briefly" => Ok(Spin::Briefly),
            "sleep" => Ok(Spin::Sleep),
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
/// How often a wait that may not spin lets somebody else have a turn before it sleeps, or gives way in vain.
const YIELDS: u32 = 8;
/// Giving way took so long in nanoseconds: somebody else wanted the core. In vain it takes a tenth of it.
const TURN_NS: u64 = 2_000;
/// How long a wait goes on giving way in vain: longer than a wake-up across cores takes. Two sides that each sleep while the other
/// one wakes up would do so for ever, at ten times the cost of an answer.
const HOPE_NS: u64 = 80_000;
/// Waits of that length in a row for which nothing came, after which most are short.
const MISSES: u32 = 4;
/// One of so many waits hopes even so.
const HOPES_EVERY: u32 = 32;
/// Giving way took so long in nanoseconds: whoever has the core computes. A sleeper gets it back at its wake-up, a yielder
/// only at the end of the other's slice.
const LONG_TURN_NS: u64 = 300_000;
/// Waits that sleep at once after that.
const SLEEPS_AFTER_LONG_TURN: u32 = 1_000;

/// What an endpoint's waits have learned of who shares its core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    sleep_at_once: u32,
    /// Long waits in a row for which nothing came.
    misses: u32,
    waits: u32,
}

/// One wait that gives way before it sleeps.
#[derive(Debug)]
struct Giving {
    hopes: bool,
    /// Turns that others had.
    turns: u32,
    yields: u32,
    took_ns: u64,
}

impl Patience {
    /// Begins a wait; `None`: sleep at once.
    fn begin(&mut self) -> Option<Giving> {
        if self.sleep_at_once > 0 {
            self.sleep_at_once -= 1;
            return None;
        }
        self.waits = self.waits.wrapping_add(1);
        let hopes = self.misses < MISSES || self.waits.is_multiple_of(HOPES_EVERY);
        Some(Giving { hopes, turns: 0, yields: 0, took_ns: 0 })
    }

    /// Gave way for so long, and something came.
    fn came(&mut self, giving: &Giving) {
        if giving.hopes {
            self.misses = 0;
        }
    }

    /// Gave way for so long, and nothing came. Whether to go on.
    fn goes_on(&mut self, giving: &mut Giving, took_ns: u64) -> bool {
        if took_ns > LONG_TURN_NS {
            self.sleep_at_once = SLEEPS_AFTER_LONG_TURN;
            return false;
        }
        giving.yields += 1;
        giving.took_ns += took_ns;
        giving.turns += u32::from(took_ns > TURN_NS);
        let goes_on = match giving.hopes {
            true => giving.turns < YIELDS && giving.took_ns < HOPE_NS,
            false => giving.yields < YIELDS,
        };
        // Where others want the core there is nothing to learn of how long an answer takes.
        if !goes_on && giving.hopes && giving.turns < YIELDS {
            self.misses = self.misses.saturating_add(1);
        }
        goes_on
    }
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

    /// Raw descriptors of connections and listeners, which a forked child closes as it begins; none where a library keeps its own.
    fn descriptors(&self) -> Vec<std::os::fd::RawFd> {
        Vec::new()
    }
}

/// What a wait needs of a member, or of several: see [`Member`].
pub(crate) trait Waits {
    fn ready(&mut self) -> bool;
    fn cores_free(&self) -> bool;
    fn before_sleep(&mut self) -> bool;
    fn sleep(&mut self, timeout_ns: u64);
    fn after_sleep(&mut self);
    fn timer_ns(&self) -> u64;
}

impl<M: Member> Waits for M {
    fn ready(&mut self) -> bool {
        Member::ready(self)
    }

    fn cores_free(&self) -> bool {
        Member::cores_free(self)
    }

    fn before_sleep(&mut self) -> bool {
        Member::before_sleep(self)
    }

    fn sleep(&mut self, timeout_ns: u64) {
        Member::sleep(self, timeout_ns);
    }

    fn after_sleep(&mut self) {
        Member::after_sleep(self);
    }

    fn timer_ns(&self) -> u64 {
        Member::timer_ns(self)
    }
}

/// [`Endpoint::wait`] for any member.
pub(crate) fn wait(member: &mut impl Waits, spin: Spin, patience: &mut Patience, deadline_ns: u64) {
    if member.ready() {
        return;
    }
    let came = match spin {
        Spin::Sleep => false,
        Spin::Briefly => spin_briefly(member, deadline_ns),
        Spin::Auto if member.cores_free() => spin_briefly(member, deadline_ns),
        Spin::Auto | Spin::Never => give_way(member, patience),
    };
    if came {
        return;
    }
    if member.before_sleep() {
        let until_ns = deadline_ns.min(member.timer_ns());
        member.sleep(until_ns.saturating_sub(RealClock.monotonic_ns()));
    }
    member.after_sleep();
}

fn spin_briefly(member: &mut impl Waits, deadline_ns: u64) -> bool {
    // What comes at once comes without a look at the clock.
    let mut until_ns = None;
    loop {
        for _ in 0..LOOKS_PER_YIELD {
            if member.ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let now_ns = RealClock.monotonic_ns();
        if now_ns >= *until_ns.get_or_insert(now_ns.saturating_add(SPIN_NS).min(deadline_ns)) {
            return member.ready();
        }
        rustix::thread::sched_yield();
    }
}

fn give_way(member: &mut impl Waits, patience: &mut Patience) -> bool {
    let Some(mut giving) = patience.begin() else { return false };
    let mut before_ns = RealClock.monotonic_ns();
    loop {
        rustix::thread::sched_yield();
        if member.ready() {
            patience.came(&giving);
            return true;
        }
        let now_ns = RealClock.monotonic_ns();
        if !patience.goes_on(&mut giving, now_ns - before_ns) {
            return false;
        }
        before_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_VAIN_NS: u64 = 300;

    /// How often a wait gives way if each takes so long and nothing comes.
    fn yields(patience: &mut Patience, took_ns: u64) -> u64 {
        let Some(mut giving) = patience.begin() else { return 0 };
        let mut yields = 1;
        while patience.goes_on(&mut giving, took_ns) {
            yields += 1;
        }
        yields
    }

    #[test]
    fn a_wait_on_a_free_core_outlasts_a_wake_up_until_it_was_in_vain_too_often() {
        let mut patience = Patience::default();
        for _ in 0..MISSES {
            assert_eq!(yields(&mut patience, IN_VAIN_NS), HOPE_NS.div_ceil(IN_VAIN_NS));
        }
        let long = (0..10 * HOPES_EVERY).filter(|_| yields(&mut patience, IN_VAIN_NS) > u64::from(YIELDS)).count();
        assert_eq!(long, 10);
    }

    #[test]
    fn one_long_wait_that_paid_makes_all_long_again() {
        let mut patience = Patience::default();
        while patience.misses < MISSES {
            yields(&mut patience, IN_VAIN_NS);
        }
        let giving = loop {
            let giving = patience.begin().unwrap();
            if giving.hopes {
                break giving;
            }
        };
        patience.came(&giving);
        assert!(yields(&mut patience, IN_VAIN_NS) > u64::from(YIELDS));
    }

    #[test]
    fn whoever_else_wants_the_core_gets_it() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            assert_eq!(yields(&mut patience, TURN_NS + 1), u64::from(YIELDS));
        }
        assert_eq!(yields(&mut patience, LONG_TURN_NS + 1), 1, "that one computes");
        let asleep = (0..SLEEPS_AFTER_LONG_TURN).filter(|_| yields(&mut patience, IN_VAIN_NS) == 0).count();
        assert_eq!(asleep, SLEEPS_AFTER_LONG_TURN as usize);
        assert!(yields(&mut patience, IN_VAIN_NS) > 0);
    }
}
