//! Clients that stand still (SIGSTOP) in the midst of a step that reads in place, while the world goes on (docs/design.md §6, the short
//! way).
//!
//! A step of a program is one poll, and all of it happens at one instant. A program that is to stand still within one takes it on a
//! thread of its own, which waits there until the world lets it go on. Never do two threads run at once, so that the seed still
//! decides everything.

use std::future::poll_fn;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::{self, JoinHandle};

use talea_fabric::{Clock, sim::SimClock};

use crate::time::{Timeline, lock};

/// Steps on threads of their own after which a program that does not come by is left alone.
const PATIENCE: u32 = 200;

/// Where a program can be made to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Between two steps: its messages wait.
    Between,
    /// It knows where the bytes lie, and has not copied them.
    BeforeCopy,
    /// It has copied them, and has not verified them nor looked at the clock.
    AfterCopy,
    /// It has looked at a board, and has not copied yet.
    AtBoard,
}

#[derive(Default)]
struct Inside {
    /// Where it is to stand still, and how often it passes there before.
    armed: Option<(Point, u32)>,
    /// It is in a call that may pass there.
    near: bool,
    patience: u32,
    /// To the world, while a step is taken on a thread of its own.
    line: Option<(Sender<()>, Receiver<()>)>,
    /// Since when it stood, until its step ends, if it does not notice: a planted bug.
    stood_since_ns: Option<u64>,
}

/// What a program passes where it could stand still.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<Inside>>);

impl Gate {
    /// The program is to stand still when it has passed there so often.
    pub(crate) fn arm(&self, point: Point, passes: u32) {
        let mut inside = lock(&self.0);
        (inside.armed, inside.patience) = (Some((point, passes)), PATIENCE);
    }

    fn is_armed(&self) -> bool {
        lock(&self.0).armed.is_some()
    }

    /// Called by the program before a call that may pass there: until what this gives is dropped, its steps are taken on threads of their
    /// own if it is to stand still; the next one is the first.
    pub(crate) async fn near(&self, time: &Timeline) -> Near<'_> {
        if self.is_armed() {
            lock(&self.0).near = true;
            let mut polled = false;
            poll_fn(|_| match std::mem::replace(&mut polled, true) {
                true => Poll::Ready(()),
                false => {
                    time.moved();
                    Poll::Pending
                }
            })
            .await;
        }
        Near(self)
    }

    /// Whether the next step has to be taken on a thread of its own.
    fn takes_thread(&self) -> bool {
        let mut inside = lock(&self.0);
        let takes = inside.armed.is_some() && inside.near;
        inside.patience = inside.patience.saturating_sub(takes.into());
        if inside.patience == 0 {
            inside.armed = None;
        }
        takes
    }

    /// Called by the program; whether it stood still here.
    pub(crate) fn pass(&self, at: Point) -> bool {
        let line = {
            let mut inside = lock(&self.0);
            match &mut inside.armed {
                Some((point, 0)) if *point == at => {}
                Some((point, passes)) if *point == at => {
                    *passes -= 1;
                    return false;
                }
                _ => return false,
            }
            inside.armed = None;
            inside.line.take()
        };
        let Some((stands, go)) = line else { return false };
        let _ = stands.send(());
        if go.recv().is_err() {
            // Killed where it stands.
            resume_unwind(Box::new(()));
        }
        true
    }
}

/// A call that may pass where the program is to stand still.
pub(crate) struct Near<'a>(&'a Gate);

impl Drop for Near<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).near = false;
    }
}

/// A step's result, or a program that stands still within it.
pub(crate) enum Taken<T> {
    Over(T),
    Stands(Standing<T>),
}

/// A program that stands still. Dropped, it is killed there.
pub(crate) struct Standing<T> {
    gate: Gate,
    thread: Option<JoinHandle<T>>,
    go: Option<Sender<()>>,
    stands: Receiver<()>,
}

impl<T> Drop for Standing<T> {
    fn drop(&mut self) {
        drop(self.go.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<T> Standing<T> {
    /// Goes on to the step's end, or to where it stands still again. It has stood since then, and `is_blind`: does not notice.
    pub(crate) fn go_on(self, since_ns: u64, is_blind: bool) -> Taken<T> {
        lock(&self.gate.0).stood_since_ns = is_blind.then_some(since_ns);
        let _ = self.go.as_ref().map(|go| go.send(()));
        self.wait()
    }

    fn wait(mut self) -> Taken<T> {
        if self.stands.recv().is_ok() {
            return Taken::Stands(self);
        }
        let joined = self.thread.take().map(JoinHandle::join);
        lock(&self.gate.0).stood_since_ns = None;
        match joined {
            Some(Ok(result)) => Taken::Over(result),
            Some(Err(panic)) => resume_unwind(panic),
            None => unreachable!("it has a thread until then"),
        }
    }
}

/// Takes a step.
pub(crate) fn take<T: Send + 'static>(gate: &Gate, step: impl FnOnce() -> T + Send + 'static) -> Taken<T> {
    if !gate.takes_thread() {
        return Taken::Over(step());
    }
    let ((says, stands), (go, goes)) = (channel(), channel());
    lock(&gate.0).line = Some((says, goes));
    let its = gate.clone();
    let thread = thread::spawn(move || {
        let result = step();
        // Its end of the line goes, and with that the world knows.
        lock(&its.0).line = None;
        result
    });
    Standing { gate: gate.clone(), thread: Some(thread), go: Some(go), stands }.wait()
}

/// The clock of a program; one with a planted bug does not notice that it stood still.
pub(crate) struct ProgramClock {
    clock: SimClock,
    gate: Gate,
}

impl ProgramClock {
    pub(crate) fn new(clock: SimClock, gate: &Gate) -> Self {
        Self { clock, gate: gate.clone() }
    }
}

impl Clock for ProgramClock {
    fn monotonic_ns(&self) -> u64 {
        lock(&self.gate.0).stood_since_ns.unwrap_or_else(|| self.clock.monotonic_ns())
    }
    fn unix_us(&self) -> u64 {
        self.clock.unix_us()
    }
}
