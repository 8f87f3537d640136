//! A target on an endpoint: one turn after another, without a thread or a sleep of its own.
//!
//! Owns the order of a turn: mail, messages, finish, replies. Used by the target's thread and by simulations alike.

use std::sync::Arc;

use talea_fabric::{Clock, Endpoint, Event, Message, Wall};
use talea_model::{ContainerId, PoolMap, Position, TargetId};
use talea_wire::data::StoreStat;

use crate::target::PoolChange;
use crate::{Effect, Fatal, Lease, Now, Outbox, Target};

/// Messages that one turn takes at most: they share one flush, and their replies wait for it.
pub(crate) const TURN_MESSAGES: usize = 64;

/// What the control plane tells a target.
#[derive(Clone, Debug)]
pub enum Mail {
    /// The pool's log, applied up to `horizon`.
    Follow {
        /// Changes in the log's order.
        changes: Vec<PoolChange>,
        /// Horizon.
        horizon: Position,
    },
    /// A pool map outside of the log's order.
    Map(Arc<PoolMap>),
    /// The containers there are.
    Containers(Vec<ContainerId>),
    /// The answer to [`Effect::LogEnd`].
    LogEnd {
        /// Token of the question.
        token: u64,
        /// The log's end.
        position: Position,
    },
    /// The server's membership lease, which begins: see [`Tenure`](crate::Tenure).
    Lease(Lease),
    /// Somebody on this server looks: the counters, on this channel.
    Stat(std::sync::mpsc::Sender<(TargetId, StoreStat)>),
    /// Stop serving.
    Stop,
}

/// A target, its endpoint and its replies.
pub struct Driver<E: Endpoint + ?Sized = dyn Endpoint> {
    target: Target,
    clock: Arc<dyn Clock>,
    wall: Wall,
    out: Outbox,
    endpoint: Box<E>,
}

impl Driver {
    /// Joins a target and the endpoint that it listens on.
    pub fn new(target: Target, endpoint: Box<dyn Endpoint>, clock: Arc<dyn Clock>) -> Self {
        Self::join(target, endpoint, clock)
    }
}

impl<E: Endpoint + ?Sized> Driver<E> {
    pub(crate) fn join(target: Target, endpoint: Box<E>, clock: Arc<dyn Clock>) -> Self {
        Driver { target, clock, wall: Wall::default(), out: Outbox::default(), endpoint }
    }

    pub(crate) fn endpoint_mut(&mut self) -> &mut E {
        &mut self.endpoint
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &E {
        &self.endpoint
    }

    /// Takes what the control plane says; its consequences come with the next [`turn`](Self::turn). `Stop` is the caller's.
    pub fn mail(&mut self, mail: Mail) -> Result<(), Fatal> {
        match mail {
            Mail::Follow { changes, horizon } => self.target.follow(changes, horizon)?,
            Mail::Map(map) => self.target.set_map(map),
            Mail::Containers(containers) => self.target.set_containers(containers),
            Mail::LogEnd { token, position } => self.target.log_end(token, position),
            Mail::Lease(lease) => self.target.set_lease(lease),
            // Who does not wait any more gets nothing.
            Mail::Stat(answer) => {
                let now = self.now();
                _ = answer.send((self.target.id(), self.target.looked_at(now)));
            }
            Mail::Stop => {}
        }
        Ok(())
    }

    /// Takes the messages that are there, up to a turn's worth, makes them durable, and sends the replies. Returns how many
    /// events there were.
    pub fn turn(&mut self, wants: &mut Vec<Effect>) -> Result<usize, Fatal> {
        self.target.begin_turn();
        let (mut events, mut last) = (0, None);
        while events < TURN_MESSAGES
            && let Some(event) = self.endpoint.recv()
        {
            events += 1;
            match event {
                Event::Up { peer, hello, .. } => self.target.peer_up(peer, hello, &mut self.out),
                Event::Message { peer, message } => {
                    // Judged by a time after it was taken: the process may have been stopped since the one before.
                    let now = self.now();
                    last = Some(now);
                    match &message {
                        Message::Owned(bytes) => self.target.message(now, peer, bytes, &mut self.out),
                        Message::Received(bytes) => self.target.message(now, peer, bytes, &mut self.out),
                        Message::Lent(bytes) => self.target.shared_message(now, peer, bytes, &mut self.out),
                    }
                }
                // Targets connect to nobody.
                Event::Connected { .. } => {}
                Event::Down { peer } => self.target.peer_down(peer, &mut self.out),
            }
        }
        let now = last.unwrap_or_else(|| self.now());
        self.target.finish(now, &mut self.out)?;
        let watched = self.target.is_watched(now);
        self.out.watch(watched);
        self.out.send(&mut *self.endpoint);
        self.target.sent(&self.out);
        if watched {
            let now_ns = self.clock.monotonic_ns();
            self.out.answered().for_each(|asked| self.target.answered(asked, now_ns));
        }
        for effect in self.target.effects() {
            match effect {
                Effect::Drop { peer } => self.endpoint.disconnect(peer),
                other => wants.push(other),
            }
        }
        Ok(events)
    }

    fn now(&mut self) -> Now {
        let monotonic_ns = self.clock.monotonic_ns();
        Now { monotonic_ns, unix_us: self.wall.unix_us(&*self.clock, monotonic_ns) }
    }

    /// Whether a turn has something to do at once, without any event.
    pub fn is_busy(&self) -> bool {
        self.target.next_deadline() == 0
    }

    /// When a turn has something to do without any event, in monotonic nanoseconds.
    pub fn next_deadline(&self) -> u64 {
        self.target.next_deadline()
    }

    /// Sleeps until there is something to do.
    pub fn wait(&mut self) {
        let deadline_ns = self.target.next_deadline();
        self.endpoint.wait(deadline_ns);
    }
}
