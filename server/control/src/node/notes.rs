//! What a server notes durably of its clients: who has joined which transaction (rule 3). A server that comes back knows from it whose
//! end aborts what.
//!
//! Owns the notes on their way: those that come while others are being flushed go together in the next flush. A join is answered when
//! its note is durable. What nobody needs any more is taken back with the next ones: a note too many only aborts too much.

use talea_model::{SessionId, TxId};
use talea_wire::control::Reply;

use super::question::Origin;
use super::{Action, Node};

/// A change of the notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A session's process writes in a transaction.
    Join {
        /// Whose.
        session: SessionId,
        /// In which.
        tx: TxId,
    },
    /// It has no more to do with it.
    Leave {
        /// Whose.
        session: SessionId,
        /// With which.
        tx: TxId,
    },
    /// The session has ended: nothing that it joined matters.
    End {
        /// Which.
        session: SessionId,
    },
}

/// Notes on their way to the medium.
#[derive(Debug, Default)]
pub(super) struct Notes {
    queue: Vec<Note>,
    /// Who waits for what is queued, and for what is being flushed.
    waiting: Vec<Origin>,
    flushing: Option<Vec<Origin>>,
}

impl Node {
    /// Notes a join and answers when that is durable; at once where nothing outlives the process, so that there is nothing to note, and
    /// where the log itself says that the transaction ends with the session: it began it.
    pub(super) fn note_join(&mut self, origin: Origin, session: SessionId, tx: TxId) {
        if !self.config.notes_last || self.pool.owner_of(tx) == Some(session) {
            return self.answer(origin, Ok(Reply::Done));
        }
        self.notes.queue.push(Note::Join { session, tx });
        self.notes.waiting.push(origin);
    }

    /// Takes notes back, some time.
    pub(super) fn unnote(&mut self, note: Note) {
        if self.config.notes_last {
            self.notes.queue.push(note);
        }
    }

    /// Begins a flush if somebody waits for one and none is under way.
    pub(super) fn flush_notes(&mut self) {
        if self.notes.flushing.is_none() && !self.notes.waiting.is_empty() {
            self.notes.flushing = Some(std::mem::take(&mut self.notes.waiting));
            self.actions.push(Action::Note { notes: std::mem::take(&mut self.notes.queue) });
        }
    }

    pub(super) fn notes_flushed(&mut self) {
        for origin in self.notes.flushing.take().unwrap_or_default() {
            self.answer(origin, Ok(Reply::Done));
        }
    }
}
