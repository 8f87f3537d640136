//! A request on its way to whoever can answer it, and where its answer goes.

use talea_fabric::PeerId;
use talea_model::{ServerId, SessionId};
use talea_wire::control::Request;

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client whose home this server is.
    Client { peer: PeerId, id: u64 },
    /// A server that passes on its client's request, or asks for itself.
    Server { peer: PeerId, id: u64, server: ServerId },
    /// This server itself.
    Own(Own),
}

/// What this server asks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Registers; nothing follows from the answer.
    Register,
    /// The log's end after a (re)connection: from its answer on, requests are passed on.
    Ready { sent_ns: u64 },
    /// The log's end for those who wait to have caught up.
    CatchUp,
    /// A heartbeat.
    Heartbeat { sent_ns: u64 },
    /// Heartbeats of servers that follow through this one.
    Beats { number: u64 },
    /// The end of a session, or an entry of the leader's own; nothing follows.
    Note,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    pub(super) origin: Origin,
    pub(super) session: SessionId,
    pub(super) sequence: u64,
    pub(super) deadline_ns: u64,
    pub(super) request: Request,
}

impl Question {
    /// Whether asking twice does no harm: it is read-only, idempotent, or deduplicated by its sequence (rule 14).
    pub(super) fn may_repeat(&self) -> bool {
        let is_idempotent = matches!(
            self.request,
            Request::SessionEnded { .. }
                | Request::SessionMove { .. }
                | Request::ServerUp { .. }
                | Request::Horizon { .. }
        );
        self.sequence != 0 || is_idempotent || super::is_read(&self.request)
    }
}
