//! Serving requests: at once, refused, or left to wait; and their replies.
//!
//! Must never let a reply leave: that is the turn's end.

use std::collections::VecDeque;

use talea_fabric::PeerId;
use talea_model::PoolMap;
use talea_vos::{ObjectRef, StoreError};
use talea_wire::data::{Body, Reply, ReplyBody, ReplyHead, Request};
use talea_wire::{Refusal, RefusalCode};

use super::admit::Gate;
use super::arrive::asked;
use super::parked::{ParkedOp, Wait};
use super::read::fetch_what;
use super::{Effect, Now, Target, error};
use crate::outbox::{Asked, Outbox, Outgoing};

impl Target {
    pub(super) fn run_ready(&mut self, now: Now, out: &mut Outbox) {
        let horizon = self.store.ledger().horizon();
        let map = self.map.as_ref().map(|map| map.version);
        let mut ready: VecDeque<_> = self.parked.ready(horizon, map, &self.log_end.answers, out).into();
        let mut begun = 0;
        while let Some(mut op) = {
            begun = self.read_ahead(&ready, begun);
            ready.pop_front()
        } {
            begun = begun.saturating_sub(1);
            let Ok(request) = Request::decode(&op.bytes) else { continue };
            self.parked.walk = op.walk.take();
            self.asked = asked(&request, op.since_ns);
            self.attempt(now, op.peer, &request, Some(op.wait), out);
            let walk = self.parked.walk.take();
            if let Some(wait) = self.take_wait() {
                (op.wait, op.walk) = (wait, walk);
                let (peer, id) = (op.peer, request.head.id);
                if let Err(refusal) = self.parked.push(op) {
                    self.refuse(now, peer, id, refusal, out);
                }
            }
        }
        self.store.forget_ahead();
        let oldest = self.parked.oldest_token();
        self.log_end.answers.retain(|token, _| *token >= oldest);
    }

    /// Has the device read what fetches that come soon need, as far as it takes that; `begun` of them were begun before. Returns how many
    /// are now.
    fn read_ahead(&self, ready: &VecDeque<ParkedOp>, mut begun: usize) -> usize {
        while let Some(op) = ready.get(begun) {
            begun += 1;
            let request = if op.wait == Wait::Device { Request::decode(&op.bytes).ok() } else { None };
            let Some(Request { head, body: Body::Fetch(entries) }) = request else { continue };
            let at = ObjectRef { container: head.container, oid: head.oid };
            let mut wanted = entries.iter().map(|entry| (entry.dkey, entry.akey, fetch_what(entry)));
            if !wanted.all(|(dkey, akey, what)| self.store.read_ahead(at, head.view, dkey, akey, what)) {
                break;
            }
        }
        begun
    }

    /// Serves a request, refuses it, or leaves in `self.parked` what it has to wait for.
    pub(super) fn attempt(
        &mut self,
        now: Now,
        peer: PeerId,
        request: &Request<'_>,
        waited: Option<Wait>,
        out: &mut Outbox,
    ) {
        let id = request.head.id;
        if request.head.order.is_none() && !out.has_room(peer) {
            self.parked.wanted = Some(Wait::Answers);
            return;
        }
        match self.gate(now, peer, request, waited) {
            Gate::Wait(wait) => {
                if let Wait::Horizon(position) = wait
                    && position > self.caught_up_asked
                {
                    self.caught_up_asked = position;
                    self.effects.push(Effect::CatchUp { position });
                }
                self.parked.wanted = Some(wait);
            }
            Gate::Refuse(refusal) => self.refuse(now, peer, id, refusal, out),
            Gate::StaleMap(map) => {
                let map = Box::new(PoolMap::clone(&map));
                self.reply(now, peer, id, ReplyBody::StaleMap(map), out);
            }
            Gate::Go if self.waits_for_turn(request, waited) => self.parked.wanted = Some(Wait::Turn),
            Gate::Go if self.waits_for_device(request, waited) => self.parked.wanted = Some(Wait::Device),
            Gate::Go => {
                self.counters.passed += 1;
                let served = match &request.body {
                    Body::Update(_) | Body::Punch { .. } => self.write(now, request).map(|done| {
                        if done {
                            self.reply(now, peer, id, ReplyBody::Done, out);
                        }
                    }),
                    Body::Stat { read_in_place } => {
                        // Who only tells what it read does not look.
                        if *read_in_place == 0 {
                            self.counters.watch.look(now);
                        }
                        let stat = self.stat(request.head.container);
                        self.reply(now, peer, id, ReplyBody::Stat(Box::new(stat)), out);
                        Ok(())
                    }
                    _ => self.read(now, peer, request, out),
                };
                let served = served.map_err(|error| self.without_hope(error, waited));
                if matches!(served, Err(StoreError::RoomToCome { .. })) {
                    // Whoever waits already has seen the rounds before this one.
                    let since = self.store.room_rounds() + 2;
                    let until_round = if let Some(Wait::Room { until_round }) = waited { until_round } else { since };
                    self.parked.wanted = Some(Wait::Room { until_round });
                } else if let Err(error) = served {
                    // Without an offset all of the log is meant, which is known.
                    if let StoreError::DataLost { offset, .. } = error
                        && offset > 0
                    {
                        self.met_damage(offset);
                    }
                    let refusal = error::refusal(self.id, &request.head, &error);
                    self.refuse(now, peer, id, refusal, out);
                }
            }
        }
    }

    /// Whoever found no room before all that could make some was done, and finds none after it, is told that there is none.
    fn without_hope(&self, error: StoreError, waited: Option<Wait>) -> StoreError {
        match (error, waited) {
            // Without needed bytes: it was another's turn.
            (StoreError::RoomToCome { needed_bytes: needed_bytes @ 1.. }, Some(Wait::Room { until_round }))
                if self.store.room_rounds() >= until_round =>
            {
                self.store.no_space(needed_bytes)
            }
            (error, _) => error,
        }
    }

    /// Whether a fetch is better served with others, whose reads the device does at the same time.
    fn waits_for_device(&self, request: &Request<'_>, waited: Option<Wait>) -> bool {
        matches!(request.body, Body::Fetch(_))
            && self.store.reads_wait()
            && !matches!(waited, Some(Wait::Device | Wait::Turn))
    }

    /// Whether a fetch is for the next turn: fetches have looked at as much as one allows. One of those that waited goes on in any turn,
    /// whatever comes.
    fn waits_for_turn(&mut self, request: &Request<'_>, waited: Option<Wait>) -> bool {
        if !matches!(request.body, Body::Fetch(_)) || self.fetch_looks > 0 {
            return false;
        }
        waited != Some(Wait::Turn) || std::mem::replace(&mut self.late_fetch, true)
    }

    pub(super) fn take_wait(&mut self) -> Option<Wait> {
        self.parked.wanted.take()
    }

    pub(super) fn refuse(&mut self, now: Now, peer: PeerId, id: u64, refusal: Refusal, out: &mut Outbox) {
        self.counters.refused += 1;
        self.asked = Asked::default();
        self.reply(now, peer, id, ReplyBody::Refused(refusal), out);
    }

    pub(super) fn reply(&mut self, now: Now, peer: PeerId, id: u64, body: ReplyBody<'_>, out: &mut Outbox) {
        let head = self.encoded(now, id, body, out);
        out.hold(peer, Outgoing { head, data: Vec::new(), asked: self.asked });
    }

    /// A reply's head and entries.
    pub(super) fn encoded(&mut self, now: Now, id: u64, body: ReplyBody<'_>, out: &mut Outbox) -> Vec<u8> {
        let map_version = self.map.as_ref().map_or_else(Default::default, |map| map.version);
        let head = ReplyHead { id, hlc: self.clock.tick(now.unix_us), map_version };
        let mut bytes = out.buffer();
        if let Err(error) = (Reply { head, body }).encode(&mut bytes) {
            bytes.clear();
            let text = format!("target {}: the answer cannot be encoded: {error}", self.id);
            let refused = ReplyBody::Refused(Refusal::new(RefusalCode::Internal, text));
            // A refusal holds nothing that could fail to encode.
            let _ = Reply { head, body: refused }.encode(&mut bytes);
        }
        bytes
    }
}
