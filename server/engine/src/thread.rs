//! The thread of a target: turns over a real endpoint, one wait a turn, no work when idle (I9).
//!
//! Must never leave a process half alive: a target that panics or fails takes it down, through the caller's `fatal`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use talea_fabric::endpoint::Waker;
use talea_fabric::{Clock, Endpoint};
use talea_model::TargetId;

use crate::driver::{Driver, Mail, TURN_MESSAGES};
use crate::{Effect, Fatal, Target};

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
    let (sender, inbox) = channel();
    let id = target.id();
    let mailbox = Mailbox { target: id, sender, waker: endpoint.waker() };
    let mut driver = Driver::new(target, endpoint, clock);
    let body = move || {
        // The driver is dropped or the process ends: nobody sees it in a broken state.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(&mut driver, &inbox, &hooks)));
        let why = match result {
            Ok(Ok(())) => return,
            Ok(Err(fatal)) => fatal.to_string(),
            Err(panic) => format!("target {id} panicked: {}", panic_text(&*panic)),
        };
        (hooks.fatal)(&why);
        std::process::abort();
    };
    let thread = std::thread::Builder::new().name(format!("target-{id}")).spawn(body)?;
    Ok((mailbox, thread))
}

fn run(driver: &mut Driver, inbox: &Receiver<Mail>, hooks: &Hooks) -> Result<(), Fatal> {
    let id = driver.target().id();
    let mut wants = Vec::new();
    loop {
        loop {
            match inbox.try_recv() {
                Ok(Mail::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                Ok(mail) => driver.mail(mail)?,
                Err(TryRecvError::Empty) => break,
            }
        }
        let events = driver.turn(&mut wants)?;
        wants.drain(..).for_each(|effect| (hooks.want)(id, effect));
        // What arrived meanwhile ends the wait at once: no empty turn is needed to find it.
        if events < TURN_MESSAGES && !driver.is_busy() {
            driver.wait();
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
