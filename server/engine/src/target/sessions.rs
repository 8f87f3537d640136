//! Which sessions the pool has given out, and which of those are over.
//!
//! Owns that nothing is remembered for a session that there never was. Must never take an open session for one that has ended: what
//! a target has not heard of yet it asks the log's end for.

use std::collections::BTreeSet;

use talea_model::SessionId;

/// Ended sessions remembered so that their late requests are refused, as long as nobody has said which are open.
const ENDED_SESSIONS: usize = 65_536;

/// See the module's description.
#[derive(Default)]
pub(super) struct Sessions {
    /// The last one that was opened and those that are open, once somebody has said so.
    known: Option<(SessionId, BTreeSet<SessionId>)>,
    ended: BTreeSet<SessionId>,
}

impl Sessions {
    /// All that there are.
    pub(super) fn tell(&mut self, last: SessionId, open: impl IntoIterator<Item = SessionId>) {
        self.known = Some((last, open.into_iter().collect()));
        self.ended.clear();
    }

    /// One more.
    pub(super) fn open(&mut self, session: SessionId) {
        if let Some((last, open)) = &mut self.known {
            *last = session.max(*last);
            open.insert(session);
        }
    }

    /// One less.
    pub(super) fn end(&mut self, session: SessionId) {
        match &mut self.known {
            Some((_, open)) => _ = open.remove(&session),
            None => {
                self.ended.insert(session);
                if self.ended.len() > ENDED_SESSIONS {
                    self.ended.pop_first();
                }
            }
        }
    }

    pub(super) fn has_ended(&self, session: SessionId) -> bool {
        match &self.known {
            Some((last, open)) => session.0 != 0 && session <= *last && !open.contains(&session),
            None => self.ended.contains(&session),
        }
    }

    /// Whether the pool has not given out a session, as far as this target has followed the log.
    pub(super) fn is_news(&self, session: SessionId) -> bool {
        self.known.as_ref().is_some_and(|(last, _)| session > *last)
    }

    /// Whether who names this session may be anybody: it is none that is open. If nobody has said which are, it may be.
    pub(super) fn is_nobody(&self, session: SessionId) -> bool {
        session.0 == 0 || self.known.as_ref().is_some_and(|(_, open)| !open.contains(&session))
    }
}
