//! The last updates of a group, as one member holds them.

use std::collections::VecDeque;

use talea_model::Stamp;
use talea_wire::group::{Entry, Place};

pub(super) struct Tail {
    /// The place before the first entry.
    base: Place,
    entries: VecDeque<Entry>,
    /// Largest stamp that was seen among them.
    highest: Stamp,
}

impl Tail {
    pub(super) fn new(base: Place, entries: Vec<Entry>) -> Self {
        let highest = entries.iter().map(|entry| entry.stamp).max().unwrap_or_default();
        Tail { base, entries: entries.into(), highest }
    }

    pub(super) fn last(&self) -> Place {
        self.entries.back().map_or(self.base, |entry| entry.place)
    }

    pub(super) fn highest(&self) -> Stamp {
        self.highest
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        std::iter::once(self.base).chain(self.entries.iter().map(|entry| entry.place))
    }

    /// The place with a number, if it is known.
    pub(super) fn place_at(&self, seq: u64) -> Option<Place> {
        match seq.checked_sub(self.base.seq)? {
            0 => Some(self.base),
            at => self.entries.get(at as usize - 1).map(|entry| entry.place),
        }
    }

    /// Appends the next entry.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.place.seq, self.last().seq + 1);
        self.highest = self.highest.max(entry.stamp);
        self.entries.push_back(entry);
    }

    /// Entries after a number, which is the base's or later.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        let skip = seq.saturating_sub(self.base.seq) as usize;
        self.entries.range(skip.min(self.entries.len())..)
    }

    /// Entries after a number, as many as one message takes.
    pub(super) fn batch(&self, seq: u64) -> Vec<Entry> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.request.len();
            // One that is larger than a batch goes alone.
            bytes <= super::BATCH_BYTES || bytes == entry.request.len()
        };
        self.after(seq).take(super::BATCH_ENTRIES).take_while(fits).cloned().collect()
    }

    /// Forgets entries up to a number; says whether there were any.
    pub(super) fn trim(&mut self, through: u64) -> Option<Place> {
        let mut trimmed = None;
        while self.entries.front().is_some_and(|entry| entry.place.seq <= through) {
            if let Some(entry) = self.entries.pop_front() {
                self.base = entry.place;
                trimmed = Some(entry.place);
            }
        }
        trimmed
    }
}
