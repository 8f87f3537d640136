//! Driving: takes what the endpoint has, and gives it to those who wait.

use std::task::Waker;

use talea_fabric::{Event, Message, PeerId};
use talea_wire::codec;
use talea_wire::control::{Body, Envelope};
use talea_wire::data::reply;

use super::driven::LOOK_NS;
use super::link::PeerKey;
use super::{Outcome, Shared, State, Wakers};

/// Replies up to this size are copied out of the endpoint's buffers at once.
const SMALL_BYTES: usize = 4096;
/// Timers are looked at in one of so many rounds in which something came.
const ROUNDS_PER_CLOCK: u32 = 16;

impl Shared {
    /// Receives everything that is ready and wakes who waits for it. Returns whether there was anything.
    pub(crate) fn drive(&self) -> bool {
        self.drive_after(0)
    }

    /// The same for who does not wait after it: what it finds late was asked for long enough before.
    pub(crate) fn look(&self) -> bool {
        self.drive_after(LOOK_NS)
    }

    fn drive_after(&self, most_ns: u64) -> bool {
        let mut state = self.lock();
        self.go_after(&state, most_ns);
        // Without the endpoint here somebody else drives.
        let wakers = if state.endpoint.is_some() { state.receive(self, true) } else { Wakers::new() };
        drop(state);
        let any = !wakers.is_empty();
        wakers.into_iter().for_each(Waker::wake);
        any
    }
}

impl State {
    /// Takes all events and due timers. `waited`: there may be room in connections that were full.
    pub(super) fn receive(&mut self, shared: &Shared, waited: bool) -> Wakers {
        let mut wakers = Wakers::new();
        let mut any = waited;
        self.own_loans();
        self.offer_places(&mut wakers);
        while let Some(event) = self.endpoint.as_deref_mut().and_then(|endpoint| endpoint.recv()) {
            any = true;
            match event {
                Event::Up { .. } => {}
                Event::Connected { peer, outcome } => self.dialed(shared, peer, outcome, &mut wakers),
                Event::Message { peer, message } => self.message(shared, peer, message, &mut wakers),
                Event::Down { peer } => self.peer_down(peer, shared.now_ns(), &mut wakers),
            }
        }
        if any && !self.full.is_empty() {
            let full = std::mem::take(&mut self.full);
            wakers.extend(full.into_iter().filter_map(|id| self.complete(id, Outcome::Go)));
        }
        self.flush_outbox();
        // Before a sleep the timers say how long it may be. As long as answers come, some wait for a few more: a look at the clock
        // costs as much as anything here.
        self.rounds = if waited && wakers.is_empty() { 0 } else { self.rounds.wrapping_add(1) };
        if self.rounds.is_multiple_of(ROUNDS_PER_CLOCK) && self.calls.next_timer_ns() < u64::MAX {
            let now_ns = shared.now_ns();
            while let Some(id) = self.calls.due(now_ns) {
                wakers.extend(self.complete(id, Outcome::Timer));
            }
        }
        self.loans.round_over();
        if wakers.is_empty() {
            // Whoever drives is about to sleep, and nothing may come as long as they lie there.
            self.own_loans();
        }
        wakers
    }

    fn message(&mut self, shared: &Shared, peer: PeerId, message: Message, wakers: &mut Wakers) {
        let Some(key) = self.peers.get(&peer) else { return };
        match key {
            PeerKey::Home => {
                let Ok(envelope) = codec::decode::<Envelope>(&message) else { return };
                self.hlc.observe(envelope.hlc);
                self.home.pinged_ns = None;
                self.hear_of_map(shared, envelope.map_version, &envelope.body, wakers);
                match envelope.body {
                    // Servers ask clients nothing.
                    Body::Request(_) | Body::Batch(_) => {}
                    body => wakers.extend(self.complete(envelope.id, Outcome::Control(Box::new(body)))),
                }
            }
            PeerKey::Target(_) => {
                let Some((id, hlc)) = reply::id_and_hlc(&message) else { return };
                self.hlc.observe(hlc);
                self.loans.came(message.len());
                let message = match message {
                    Message::Lent(lent) if lent.len() <= SMALL_BYTES || self.loans.is_full() => {
                        Message::Owned(lent.to_vec())
                    }
                    message => message,
                };
                wakers.extend(self.complete(id, Outcome::Data(message)));
            }
        }
    }
}
