//! The thread of a target, or of several: turns over real endpoints, one wait a turn, no work when idle (I9).
//!
//! Must never leave a process half alive: a target that panics or fails takes it down, through the caller's `fatal`.

mod together;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use talea_fabric::endpoint::Waker;
use talea_fabric::{Clock, Endpoint, MuxEndpoint, Spin, Together};
use talea_model::TargetId;

use crate::driver::{Driver, Mail, TURN_MESSAGES};
use crate::{Effect, Fatal, Target};
use together::Seat;

/// Tells a running target what the control plane knows. Cheap to clone.
#[derive(Clone)]
pub struct Mailbox {
    target: TargetId,
    sender: Sender<Mail>,
    waker: Arc<dyn Waker>,
}

impl Mailbox {
    /// Which target reads it.
    pub fn target(&self) -> TargetId {
        self.target
    }

    /// Sends; what arrives after the target stopped is dropped.
    pub fn send(&self, mail: Mail) {
        if self.sender.send(mail).is_ok() {
            self.waker.wake();
        }
    }
}

/// What the world hears from a target's thread, on that thread: both must return soon.
pub struct Hooks {
    /// The target wants something.
    pub want: Box<dyn Fn(TargetId, Effect) + Send>,
    /// The target failed and cannot go on: end the process. If this returns, the thread ends it.
    pub fatal: Box<dyn Fn(&str) + Send>,
}

/// Starts a target's thread. It ends when [`Mail::Stop`] arrives or the last mailbox is gone.
pub fn spawn(
    target: Target,
    endpoint: Box<dyn Endpoint>,
    clock: Arc<dyn Clock>,
    hooks: Hooks,
) -> std::io::Result<(Mailbox, JoinHandle<()>)> {
    let (mailbox, inbox) = mailbox(&target, &*endpoint);
    let mut driver = Driver::new(target, endpoint, clock);
    let name = mailbox.target.to_string();
    let thread = guarded(name, hooks, move |hooks| run(&mut driver, &inbox, hooks))?;
    Ok((mailbox, thread))
}

/// Starts one thread for several targets: right where they are more than the cores for them, as each turn then takes what has come for
/// all of them. They end together, when one of them is told to stop.
pub fn spawn_together(
    targets: Vec<(Target, MuxEndpoint)>,
    spin: Spin,
    clock: Arc<dyn Clock>,
    hooks: Hooks,
) -> std::io::Result<(Vec<Mailbox>, JoinHandle<()>)> {
    let together = Together::new(targets.iter().map(|(_, endpoint)| endpoint), spin).map_err(std::io::Error::other)?;
    let (mut mailboxes, mut seats) = (Vec::new(), Vec::new());
    for (target, endpoint) in targets {
        let (mailbox, inbox) = mailbox(&target, &endpoint);
        mailboxes.push(mailbox);
        seats.push(Seat { driver: Driver::join(target, Box::new(endpoint), clock.clone()), inbox });
    }
    let end = |mailbox: Option<&Mailbox>| mailbox.map_or(String::new(), |mailbox| mailbox.target.to_string());
    let name = format!("{}-{}", end(mailboxes.first()), end(mailboxes.last()));
    let thread = guarded(name, hooks, move |hooks| together::run(seats, together, &*clock, hooks))?;
    Ok((mailboxes, thread))
}

fn mailbox(target: &Target, endpoint: &dyn Endpoint) -> (Mailbox, Receiver<Mail>) {
    let (sender, inbox) = channel();
    (Mailbox { target: target.id(), sender, waker: endpoint.waker() }, inbox)
}

/// A thread whose failure ends the process.
fn guarded(
    name: String,
    hooks: Hooks,
    run: impl FnOnce(&Hooks) -> Result<(), Fatal> + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(format!("target-{name}"));
    thread.spawn(move || {
        // What it had is dropped or the process ends: nobody sees it in a broken state.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(&hooks)));
        let why = match result {
            Ok(Ok(())) => return,
            Ok(Err(fatal)) => fatal.to_string(),
            Err(panic) => format!("target {name} panicked: {}", panic_text(&*panic)),
        };
        (hooks.fatal)(&why);
        std::process::abort();
    })
}

/// Reads a target's mail.
fn read_mail<E: Endpoint + ?Sized>(driver: &mut Driver<E>, inbox: &Receiver<Mail>) -> Result<Read, Fatal> {
    let mut read = Read::Nothing;
    loop {
        match inbox.try_recv() {
            Ok(Mail::Stop) | Err(TryRecvError::Disconnected) => return Ok(Read::Stop),
            Ok(mail) => driver.mail(mail)?,
            Err(TryRecvError::Empty) => return Ok(read),
        }
        read = Read::Some;
    }
}

/// What was in a mailbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Nothing,
    Some,
    Stop,
}

fn run(driver: &mut Driver, inbox: &Receiver<Mail>, hooks: &Hooks) -> Result<(), Fatal> {
    let id = driver.target().id();
    let mut wants = Vec::new();
    while read_mail(driver, inbox)? != Read::Stop {
        let events = driver.turn(&mut wants)?;
        wants.drain(..).for_each(|effect| (hooks.want)(id, effect));
        // What arrived meanwhile ends the wait at once: no empty turn is needed to find it.
        if events < TURN_MESSAGES && !driver.is_busy() {
            driver.wait();
        }
    }
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
