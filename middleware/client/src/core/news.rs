//! The pool map as it changes: who is told of a newer one asks for it.
//!
//! Owns when the map was asked for last, so that a thousand failing calls ask once. Must never keep a call from failing for longer than
//! one answer of the home server takes.

use std::task::Waker;

use talea_model::MapVersion;
use talea_wire::codec;
use talea_wire::control::{Body, Reply, Request};

use super::{Outcome, Shared, State, Wakers};

const MS: u64 = 1_000_000;
/// The map is asked for at most this often.
const PAUSE_MS: u64 = 50;

/// What is known of the map's being asked for.
#[derive(Default)]
pub(super) struct News {
    asked_ns: Option<u64>,
    /// One call is asking; the others wait for what comes of it.
    is_asking: bool,
    waiting: Vec<u64>,
}

impl News {
    /// Whether it may be asked for now; it counts as asked then.
    fn may_ask(&mut self, now_ns: u64) -> bool {
        let is_due = self.asked_ns.is_none_or(|asked_ns| now_ns >= asked_ns + PAUSE_MS * MS);
        if is_due {
            self.asked_ns = Some(now_ns);
        }
        is_due
    }
}

impl State {
    /// What the home server says of the map with each of its messages. A session's answer brings the map itself.
    pub(super) fn hear_of_map(&mut self, shared: &Shared, version: MapVersion, body: &Body, wakers: &mut Wakers) {
        match body {
            Body::Reply(Reply::Map(map)) => wakers.extend(self.take_map(map.clone())),
            Body::Reply(Reply::Session { .. }) => {}
            _ if version > self.map.version && self.news.may_ask(shared.now_ns()) => {
                let id = self.number_of_nobody();
                let envelope = self.envelope(shared, id, 0, shared.tuning.connect_ms, Request::Map);
                self.home.put_out(codec::encode(&envelope).unwrap_or_default());
            }
            _ => {}
        }
    }
}

impl Shared {
    /// The pool map may have changed: asks for it, unless that was just done.
    pub(crate) async fn ask_map(&self, deadline_ns: u64) {
        let now_ns = self.now_ns();
        let until_ns = deadline_ns.min(now_ns + self.tuning.connect_ms * MS);
        let ticket = self.ticket();
        let is_first = {
            let mut state = self.lock();
            let is_first = !std::mem::replace(&mut state.news.is_asking, true);
            if !is_first {
                ticket.arm(&mut state, None, until_ns);
                state.news.waiting.push(ticket.id);
            } else if !state.news.may_ask(now_ns) {
                state.news.is_asking = false;
                return;
            }
            is_first
        };
        if !is_first {
            ticket.outcome().await;
            return;
        }
        let _asking = Asking(self);
        if let Ok(Reply::Map(map)) = self.control("asking for the pool map", Request::Map, until_ns).await {
            self.take_map(map);
        }
    }
}

/// Ends the asking, however it ends.
struct Asking<'a>(&'a Shared);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.0.is_foreign() {
            return;
        }
        let mut wakers = Wakers::new();
        let mut state = self.0.lock();
        state.news.is_asking = false;
        let waiting = std::mem::take(&mut state.news.waiting);
        wakers.extend(waiting.into_iter().filter_map(|id| state.complete(id, Outcome::Go)));
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
