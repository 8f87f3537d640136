//! Several targets that share a thread: a turn of each that has something to do, and one wait for all.
//!
//! Must never let one target's work keep another's waiting for longer than a turn.

use std::sync::mpsc::Receiver;

use talea_fabric::{Clock, Member, MuxEndpoint, Together};

use super::{Hooks, Read, read_mail};
use crate::driver::{Driver, Mail, TURN_MESSAGES};
use crate::{Effect, Fatal};

/// After so many rounds that found something the descriptors are looked at, however busy the rings are.
const ROUNDS_PER_LOOK: u32 = 64;

/// A target at this thread.
pub(super) struct Seat {
    pub(super) driver: Driver<MuxEndpoint>,
    pub(super) inbox: Receiver<Mail>,
}

/// What became of a turn.
enum Turn {
    Done,
    /// There may be more to do at once.
    More,
    /// The thread is to end.
    Stop,
}

impl AsRef<MuxEndpoint> for Seat {
    fn as_ref(&self) -> &MuxEndpoint {
        self.driver.endpoint()
    }
}

impl AsMut<MuxEndpoint> for Seat {
    fn as_mut(&mut self) -> &mut MuxEndpoint {
        self.driver.endpoint_mut()
    }
}

impl Seat {
    /// A turn, if there is anything to do.
    fn turn(&mut self, now_ns: u64, wants: &mut Vec<Effect>) -> Result<Turn, Fatal> {
        let read = read_mail(&mut self.driver, &self.inbox)?;
        if read == Read::Stop {
            return Ok(Turn::Stop);
        }
        if read == Read::Nothing && !self.as_mut().ready() && self.driver.next_deadline() > now_ns {
            return Ok(Turn::Done);
        }
        let events = self.driver.turn(wants)?;
        Ok(if events >= TURN_MESSAGES || self.driver.is_busy() { Turn::More } else { Turn::Done })
    }
}

pub(super) fn run(mut seats: Vec<Seat>, mut together: Together, clock: &dyn Clock, hooks: &Hooks) -> Result<(), Fatal> {
    let (mut wants, mut rounds) = (Vec::new(), 0u32);
    loop {
        let now_ns = clock.monotonic_ns();
        let (mut more, mut deadline_ns) = (false, u64::MAX);
        for seat in &mut seats {
            match seat.turn(now_ns, &mut wants)? {
                Turn::Done => {}
                Turn::More => more = true,
                Turn::Stop => return Ok(()),
            }
            deadline_ns = deadline_ns.min(seat.driver.next_deadline());
            let id = seat.driver.target().id();
            wants.drain(..).for_each(|effect| (hooks.want)(id, effect));
        }
        rounds = rounds.wrapping_add(1);
        if !more {
            together.wait(&mut seats, deadline_ns);
        }
        if rounds.is_multiple_of(ROUNDS_PER_LOOK) {
            together.look(&mut seats);
        }
    }
}
