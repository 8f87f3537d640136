//! Conditions of writes, judged as far as a turn allows; and what changes while one waits for the next turn.
//!
//! Must never let a write go through on a condition that another write may have changed since it was judged.

use std::collections::VecDeque;

use talea_model::View;
use talea_vos::{Ask, Judged, ObjectRef, StoreError};

use super::Target;

/// Changes remembered at most: whoever waits for longer begins anew.
const REMEMBERED: usize = 1024;

/// What was written while conditions are being judged.
#[derive(Default)]
pub(super) struct Changes {
    /// Somebody judges and waits for the next turn.
    wanted: bool,
    next: u64,
    recent: VecDeque<Changed>,
}

/// Where something changed.
struct Changed {
    /// `None`: anywhere.
    at: Option<ObjectRef>,
    /// Empty: anywhere in the object.
    dkey: Vec<u8>,
}

impl Changes {
    /// Something changed in a dkey, or in a whole object.
    pub(super) fn note(&mut self, at: Option<ObjectRef>, dkey: Option<&[u8]>) {
        if !self.wanted {
            return;
        }
        self.next += 1;
        self.recent.push_back(Changed { at, dkey: dkey.unwrap_or_default().to_vec() });
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// From now on changes are remembered; the number of the next one.
    fn remember(&mut self) -> u64 {
        self.wanted = true;
        self.next
    }

    /// Nobody waits any more.
    pub(super) fn forget(&mut self) {
        self.wanted = false;
        self.recent.clear();
    }

    /// Whether anything that is asked of may have changed since the change of that number was the next one.
    fn since(&self, mark: u64, at: ObjectRef, asks: &[Ask<'_>]) -> bool {
        let first = self.next - self.recent.len() as u64;
        let touches = |changed: &Changed| {
            let asked = |ask: &Ask<'_>| changed.dkey.is_empty() || ask.dkey.is_none_or(|dkey| dkey == changed.dkey);
            changed.at.is_none_or(|changed| changed == at) && asks.iter().any(asked)
        };
        mark < first || self.recent.iter().skip((mark - first) as usize).any(touches)
    }
}

impl Target {
    /// Judges the conditions of a write. `None` if that goes on in the next turn.
    pub(super) fn judge(
        &mut self,
        at: ObjectRef,
        base: View,
        asks: &[Ask<'_>],
    ) -> Result<Option<Option<Judged>>, StoreError> {
        if !asks.iter().any(Ask::asks) {
            return Ok(Some(None));
        }
        if self.parked.walk.as_ref().is_some_and(|walk| self.changes.since(walk.mark, at, asks)) {
            self.parked.walk = None;
        }
        let mut judged = None;
        let done = self.walk_on(|store, looks, walk| {
            judged = store.judge_some(at, base, asks, looks, walk)?;
            Ok(judged.is_some())
        })?;
        if done.is_none() {
            let mark = self.changes.remember();
            self.parked.walk.iter_mut().for_each(|walk| walk.mark = mark);
            return Ok(None);
        }
        Ok(Some(judged))
    }
}
