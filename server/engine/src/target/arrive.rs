//! What arrives at a target: peers, and their requests.
//!
//! Owns what is copied before it is judged, and how many connections a session may have. Must never look twice at memory that its
//! sender can still change.

use talea_fabric::{Hello, PeerId};
use talea_model::SessionId;
use talea_vos::INLINE_BYTES;
use talea_wire::data::{Body, Request, ValueKind, request};
use talea_wire::{Refusal, RefusalCode};

use super::parked::ParkedOp;
use super::{Effect, Now, Target, admit};
use crate::outbox::{Asked, Kind, MAX_QUEUED, Outbox};

/// Connections of one session at most.
const MAX_CONNECTIONS: usize = 4;
/// Connections at most that are of no session as far as this target knows. Clients whose sessions are so new that the log has not told
/// of them are among them, for a moment.
const MAX_STRANGERS: usize = 256;

pub(super) struct Peer {
    pub(super) hello: Hello,
    /// How many connections there had been.
    since: u64,
    /// Whether its session has ended, and when it is closed for that.
    pub(super) ended: bool,
    pub(super) closes_ns: Option<u64>,
}

impl Target {
    /// A peer connected.
    pub fn peer_up(&mut self, peer: PeerId, hello: Hello, out: &mut Outbox) {
        let session = SessionId(hello.session);
        self.bound_connections(session, out);
        if self.sessions.is_nobody(session) {
            self.bound_strangers(out);
        }
        let ended = self.sessions.has_ended(session);
        self.connections += 1;
        self.peers.insert(peer, Peer { hello, since: self.connections, ended, closes_ns: None });
        if ended {
            self.look_for_ended();
        }
    }

    /// A client has one connection to a target, and for a while those that it lost without the target's notice: the oldest go.
    fn bound_connections(&mut self, session: SessionId, out: &mut Outbox) {
        let of_session = self.peers.iter().filter(|(_, known)| known.hello.session == session.0);
        if session.0 == 0 || of_session.clone().count() < MAX_CONNECTIONS {
            return;
        }
        if let Some((&peer, _)) = of_session.min_by_key(|(_, known)| known.since) {
            self.drop_peer(peer, out);
        }
    }

    /// Who has no session asks for nothing here: the oldest such connections make room for others.
    fn bound_strangers(&mut self, out: &mut Outbox) {
        let is_nobody = |known: &Peer| self.sessions.is_nobody(SessionId(known.hello.session));
        let strangers = self.peers.iter().filter(|(_, known)| is_nobody(known));
        let mut oldest: Vec<(u64, PeerId)> = strangers.map(|(peer, known)| (known.since, *peer)).collect();
        if oldest.len() >= MAX_STRANGERS {
            oldest.sort_unstable();
            let over = oldest.len() + 1 - MAX_STRANGERS;
            oldest.into_iter().take(over).for_each(|(_, peer)| self.drop_peer(peer, out));
        }
    }

    /// Ends a connection from this side: nobody tells of its end.
    pub(super) fn drop_peer(&mut self, peer: PeerId, out: &mut Outbox) {
        self.effects.push(Effect::Drop { peer });
        self.peer_down(peer, out);
    }

    /// A peer is gone: so is what it waited for.
    pub fn peer_down(&mut self, peer: PeerId, out: &mut Outbox) {
        self.peers.remove(&peer);
        self.parked.forget(peer);
        out.forget(peer);
    }

    /// A request arrived. The bytes are no longer needed when this returns.
    pub fn message(&mut self, now: Now, peer: PeerId, message: &[u8], out: &mut Outbox) {
        let (front, data) = message.split_at(request::data_at(message));
        self.request(now, peer, (front, data), out);
    }

    /// A request arrived in memory that its sender can still change. What is judged, looked up and logged is a copy; values in blocks of
    /// their own are taken as they are then, and do no harm to others by a checksum that they do not have.
    pub fn shared_message(&mut self, now: Now, peer: PeerId, message: &[u8], out: &mut Outbox) {
        let data_at = request::data_at(message);
        let mut copy = std::mem::take(&mut self.copy);
        copy.clear();
        copy.extend_from_slice(&message[..data_at]);
        let data = &message[data_at..];
        if Request::decode_parts(&copy, data).is_ok_and(|request| has_large_values_alone(&request)) {
            self.request(now, peer, (&copy, data), out);
        } else {
            copy.extend_from_slice(data);
            let (front, data) = copy.split_at(data_at);
            self.request(now, peer, (front, data), out);
        }
        self.copy = copy;
    }

    fn request(&mut self, now: Now, peer: PeerId, (front, data): (&[u8], &[u8]), out: &mut Outbox) {
        self.tick(now);
        let waiting = out.waiting_for(peer);
        if waiting >= MAX_QUEUED {
            self.drop_peer(peer, out);
            return;
        }
        let request = match Request::decode_parts(front, data) {
            Ok(request) => request,
            Err(error) => {
                // The number may be wrong too, but a broken client that gets an answer is easier to mend.
                let id = front.get(8..16).and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes);
                let text = format!("target {}: {error}", self.id);
                self.refuse(now, peer, id, Refusal::new(RefusalCode::Malformed, text), out);
                return;
            }
        };
        self.count_told(peer, &request);
        if let Err(refusal) = self.admit(now, peer, &request, waiting) {
            self.refuse(now, peer, request.head.id, refusal, out);
            return;
        }
        self.clock.observe(request.head.hlc);
        self.asked = asked(&request, now.monotonic_ns);
        self.attempt(now, peer, &request, None, out);
        let walk = self.parked.walk.take();
        if let Some(wait) = self.take_wait() {
            let deadline_ns = now.monotonic_ns.saturating_add(admit::deadline_ns(request.head.deadline_ms));
            let op =
                ParkedOp { peer, since_ns: now.monotonic_ns, bytes: [front, data].concat(), deadline_ns, wait, walk };
            if let Err(refusal) = self.parked.push(op) {
                self.refuse(now, peer, request.head.id, refusal, out);
            }
        }
    }
}

pub(super) fn asked(request: &Request<'_>, since_ns: u64) -> Asked {
    let kind = match &request.body {
        Body::Update(_) | Body::Punch { .. } => Kind::Update,
        Body::Fetch(_) => Kind::Fetch,
        _ => Kind::Other,
    };
    Asked { kind, since_ns }
}

/// Whether a request is an update whose values all lie in blocks of their own: in the log a record's checksum is also that of what
/// follows.
fn has_large_values_alone(request: &Request<'_>) -> bool {
    let Body::Update(entries) = &request.body else { return false };
    entries.iter().all(|entry| match entry.kind {
        ValueKind::Array { record_bytes } => {
            entry.extents.iter().all(|extent| extent.count.saturating_mul(record_bytes.into()) > INLINE_BYTES as u64)
        }
        ValueKind::Single | ValueKind::SingleMax => entry.data.len() as u64 > INLINE_BYTES as u64,
    })
}
