//! Who may ask, and when a request may run.
//!
//! Owns the checks before the store is touched: identity, clock, admission, lease, map, container, horizon, rule 8. Must never
//! make a request wait for a transaction's end or for another client (I3).

use std::sync::Arc;

use talea_fabric::PeerId;
use talea_model::limit::{DEFAULT_DEADLINE_MS, MAX_CLOCK_AHEAD_MS, MAX_IN_FLIGHT};
use talea_model::{MapVersion, Order, PoolMap, View};
use talea_vos::ObjectRef;
use talea_wire::data::request::Head;
use talea_wire::data::{Body, Condition, Entry, Request, ValueKind};
use talea_wire::{Refusal, RefusalCode};

use super::parked::Wait;
use super::{Now, Target};

/// A deadline beyond this, in milliseconds, is taken as this.
const MAX_DEADLINE_MS: u32 = 600_000;

pub(super) enum Gate {
    Go,
    Wait(Wait),
    Refuse(Refusal),
    StaleMap(Arc<PoolMap>),
}

/// Nanoseconds that a request may wait; 0 on the wire means the default.
pub(super) fn deadline_ns(deadline_ms: u32) -> u64 {
    let ms = if deadline_ms == 0 { DEFAULT_DEADLINE_MS } else { deadline_ms.min(MAX_DEADLINE_MS) as u64 };
    ms * 1_000_000
}

impl Target {
    /// What holds for a request once and for all, judged when it arrives.
    pub(super) fn admit(&self, now: Now, peer: PeerId, request: &Request<'_>, waiting: usize) -> Result<(), Refusal> {
        let head = &request.head;
        let refuse = |code, text: String| Err(Refusal::new(code, format!("target {}: {text}", self.id)));
        let Some(known) = self.peers.get(&peer) else {
            return refuse(RefusalCode::Access, "the connection is not known: connect again".to_owned());
        };
        if known.hello.session != head.session.0 {
            let text = format!(
                "the connection belongs to session {}, not to session {}: connect with the session's own number",
                known.hello.session, head.session
            );
            return refuse(RefusalCode::Access, text);
        }
        if known.ended {
            let text = format!("session {} has ended: open a new one", head.session);
            return refuse(RefusalCode::SessionExpired, text);
        }
        if head.target != self.id {
            return refuse(RefusalCode::Argument, format!("the request is for target {}", head.target));
        }
        if waiting + self.parked.of(peer) >= MAX_IN_FLIGHT {
            let text =
                format!("more than {MAX_IN_FLIGHT} requests of one client are in flight: wait for answers first");
            return refuse(RefusalCode::Busy, text);
        }
        if !self.clock.is_plausible(head.hlc, now.unix_us, MAX_CLOCK_AHEAD_MS) {
            let text = format!(
                "the sender's clock {} is more than {MAX_CLOCK_AHEAD_MS} ms ahead of this server's: synchronise the nodes' clocks",
                head.hlc
            );
            return refuse(RefusalCode::Clock, text);
        }
        match (head.order, head.view) {
            (Some(Order::Auto { .. }), View::Snapshot { .. } | View::Inside { .. }) => {
                refuse(RefusalCode::Argument, "an autocommit's conditions are judged in the latest state".to_owned())
            }
            (Some(Order::Pending(tx)), View::Inside { tx: inside, .. }) if inside != tx => {
                refuse(RefusalCode::Argument, format!("a write of transaction {tx} cannot look inside {inside}"))
            }
            _ => Ok(()),
        }
    }

    /// What may change with time: judged when a request arrives, and again each time that what it waited for is there.
    pub(super) fn gate(&self, now: Now, peer: PeerId, request: &Request<'_>, waited: Option<Wait>) -> Gate {
        let head = &request.head;
        let refuse = |code, text: &str| Gate::Refuse(Refusal::new(code, format!("target {}: {text}", self.id)));
        let Some(map) = &self.map else { return Gate::Wait(Wait::Map(head.map_version)) };
        if head.map_version < map.version {
            return Gate::StaleMap(map.clone());
        }
        if head.map_version > map.version {
            return Gate::Wait(Wait::Map(head.map_version));
        }
        if self.peers.get(&peer).is_some_and(|peer| peer.ended) {
            return refuse(RefusalCode::SessionExpired, "the session has ended: open a new one");
        }
        if !self.lease.holds(now.monotonic_ns) {
            let text =
                "its server lost contact with the pool's leader and may not serve until it is back: see `talea status`";
            return refuse(RefusalCode::ServerLost, text);
        }
        if !map.is_up(self.id) {
            let state = map.target(self.id).map_or("unknown", |known| known.state.name());
            let text = format!("the pool map says that it is {state}: see `talea status`");
            return refuse(RefusalCode::ServerLost, &text);
        }
        // Rule 10: before the pool knows that it comes back without something, it must not serve what is left.
        let own = map.target(self.id).map(|known| known.incarnation);
        if self.incarnation.is_some_and(|incarnation| own != Some(incarnation)) {
            return Gate::Wait(Wait::Map(MapVersion(map.version.0 + 1)));
        }
        if matches!(request.body, Body::Stat { .. }) {
            return Gate::Go;
        }
        if now.monotonic_ns < self.alone_ns && self.may_be_read_in_place(head) {
            return refuse(
                RefusalCode::Busy,
                "readers may still rely on what the server before this one said: try again",
            );
        }
        let after_log_end = matches!(waited, Some(Wait::LogEnd(_)));
        let horizon = self.store.ledger().horizon();
        if let Some(position) = needed_horizon(request)
            && horizon < position
        {
            return Gate::Wait(Wait::Horizon(position));
        }
        if let View::Snapshot { stamp, .. } | View::Inside { base: stamp, .. } = head.view
            && !self.clock.is_plausible(stamp, now.unix_us, MAX_CLOCK_AHEAD_MS)
        {
            return refuse(RefusalCode::Clock, "no snapshot of the pool can have such a stamp: use one that it issued");
        }
        let unknown = self.containers.as_ref().is_some_and(|known| !known.contains(&head.container));
        let bound = match &request.body {
            Body::Prepare(prepare) => prepare.until,
            Body::Diff(diff) => diff.from,
            _ => talea_model::Stamp::ZERO,
        };
        if !self.clock.is_plausible(bound, now.unix_us, MAX_CLOCK_AHEAD_MS) {
            return refuse(RefusalCode::Clock, "the request's bound is too far ahead: synchronise the nodes' clocks");
        }
        // Nothing is remembered for a session that there is not; of one that has just been opened the log's end tells.
        let is_news = head.order.is_some() && self.sessions.is_news(head.session);
        if (unknown || is_news || self.meets_pending(request)) && !after_log_end {
            return Gate::Wait(Wait::LogEnd(self.log_end.last + 1));
        }
        if is_news {
            let text = format!("the pool has given out no session {}: open one", head.session);
            return refuse(RefusalCode::SessionExpired, &text);
        }
        if unknown {
            let text = format!("there is no container {}: was it destroyed?", head.container);
            return refuse(RefusalCode::NoContainer, &text);
        }
        if self.meets_prepared(request) {
            // Its fate is decided within a round trip, or its writer is dead and it aborts.
            return refuse(RefusalCode::Busy, "a transaction that is being committed writes the same key: try again");
        }
        Gate::Go
    }

    /// Whether a write is of a transaction that began before this process did: inside of it somebody may know places on the target from
    /// the process before, whose board shows no change any more.
    fn may_be_read_in_place(&self, head: &Head) -> bool {
        let is_old = |position| self.begins.is_none_or(|begins| position < begins);
        matches!(head.order, Some(Order::Pending(_)))
            && !matches!(head.view, View::Inside { position, .. } if !is_old(position))
    }

    /// Whether a conditional autocommit meets a transaction that was told that nothing here changes up to its commit: what
    /// the condition sees would not be what its own stamp says.
    fn meets_prepared(&self, request: &Request<'_>) -> bool {
        let head = &request.head;
        if self.prepared.is_empty() || !matches!(head.order, Some(Order::Auto { .. })) {
            return false;
        }
        let at = ObjectRef { container: head.container, oid: head.oid };
        let on = |dkey: &[u8]| {
            let pending = self.store.pending_on(at, (!dkey.is_empty()).then_some(dkey));
            pending.iter().any(|tx| self.prepared.contains(tx))
        };
        match &request.body {
            Body::Update(entries) => {
                let judged =
                    |entry: &&Entry<'_>| entry.condition != Condition::None || entry.kind == ValueKind::SingleMax;
                entries.iter().filter(judged).any(|entry| on(entry.dkey))
            }
            Body::Punch { dkey, condition, .. } => *condition != Condition::None && on(dkey),
            _ => false,
        }
    }

    /// Rule 8: whoever meets versions whose fate he may not know brings the horizon up first. He who looks over several dkeys
    /// looks over all of the object's, or of the container's.
    fn meets_pending(&self, request: &Request<'_>) -> bool {
        let head = &request.head;
        let meets = match head.order {
            None => matches!(head.view, View::Latest),
            Some(order) => matches!(order, Order::Auto { .. }),
        };
        if !meets || self.store.pending_updates(head.container) == 0 {
            return false;
        }
        let at = ObjectRef { container: head.container, oid: head.oid };
        let on = |dkey: Option<&[u8]>| !self.store.pending_on(at, dkey).is_empty();
        let key = |dkey: &[u8]| if dkey.is_empty() { on(None) } else { on(Some(dkey)) };
        match &request.body {
            Body::Update(entries) | Body::Fetch(entries) => {
                let mut last: &[u8] = &[];
                entries
                    .iter()
                    .any(|entry| std::mem::replace(&mut last, entry.dkey) != entry.dkey && on(Some(entry.dkey)))
            }
            Body::Punch { dkey, .. } => key(dkey),
            Body::Enumerate { kind: talea_wire::data::EnumerateKind::Objects, .. } => true,
            Body::Enumerate { dkey, .. } => key(dkey),
            Body::Query { dkey, kind: talea_wire::data::QueryKind::ArrayEnd, .. } => key(dkey),
            Body::Query { .. } => on(None),
            Body::Locate { dkey, .. } => on(Some(dkey)),
            Body::Stat { .. } | Body::Prepare(_) | Body::Diff(_) => false,
        }
    }
}

/// The horizon that a request's view needs. A write that asks nothing of its base needs none: its fate is not decided here.
fn needed_horizon(request: &Request<'_>) -> Option<talea_model::Position> {
    let asks = match &request.body {
        Body::Update(entries) => {
            entries.iter().any(|entry| entry.condition != Condition::None || entry.kind == ValueKind::SingleMax)
        }
        Body::Punch { condition, .. } => *condition != Condition::None,
        _ => true,
    };
    let other = if let Body::Diff(diff) = &request.body { diff.position } else { Default::default() };
    match request.head.view {
        View::Snapshot { position, .. } | View::Inside { position, .. } if asks => Some(position.max(other)),
        _ => None,
    }
}
