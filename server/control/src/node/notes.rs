//! What a server notes durably of its clients: who has joined which transaction (rule 3). A server that comes back knows from it whose
//! end aborts what.
//!
//! Owns the notes on their way: those that come while others are being flushed go together in the next flush. A join is answered when
//! its note is durable. What nobody needs any more is taken back with the next ones: a note too many only aborts too much.

use std::collections::BTreeSet;

use talea_model::{SessionId, TxId};
use talea_wire::control::Reply;

use super::question::{Origin, Question};
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

/// Who waits for a flush.
#[derive(Debug)]
enum Waiter {
    /// To be told that it is done.
    Asker(Origin),
    /// To be asked for on the strength of it.
    Question(Question),
}

/// Notes on their way to the medium.
#[derive(Debug, Default)]
pub(super) struct Notes {
    queue: Vec<Note>,
    /// Who waits for what is queued, and for what is being flushed.
    waiting: Vec<Waiter>,
    flushing: Option<Vec<Waiter>>,
}

impl Node {
    /// Notes a join and answers when that is durable; at once where nothing outlives the process, so that there is nothing to note, and
    /// where the log itself says that the transaction ends with the session: it began it.
    pub(super) fn note_join(&mut self, origin: Origin, session: SessionId, tx: TxId) {
        if !self.config.notes_last || self.pool.owner_of(tx) == Some(session) {
            return self.answer(origin, Ok(Reply::Done));
        }
        self.notes.queue.push(Note::Join { session, tx });
        self.notes.waiting.push(Waiter::Asker(origin));
    }

    /// Notes what a session has joined that is about to live here, and asks for that when it is durable.
    pub(super) fn note_arrival(&mut self, session: SessionId, joined: &BTreeSet<TxId>, question: Question) {
        if !self.config.notes_last || joined.is_empty() {
            return self.ask(question);
        }
        self.notes.queue.extend(joined.iter().map(|tx| Note::Join { session, tx: *tx }));
        self.notes.waiting.push(Waiter::Question(question));
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
        for waiter in self.notes.flushing.take().unwrap_or_default() {
            match waiter {
                Waiter::Asker(origin) => self.answer(origin, Ok(Reply::Done)),
                Waiter::Question(question) => self.ask(question),
            }
        }
    }
}
