//! Pages of which only a part was written: the ends of logs, headers. Kept whole in memory, so that appending to them reads
//! nothing.

use super::PAGE_BYTES;
use super::aligned::Aligned;

/// Pages kept.
const KEPT: usize = 8;

/// A page.
pub(super) struct Page {
    /// Its number on the medium.
    pub(super) number: u64,
    /// Its bytes, whole.
    pub(super) bytes: Aligned,
    /// Not yet sent.
    pub(super) dirty: bool,
}

/// The pages, the one used last at the end.
#[derive(Default)]
pub(super) struct Tails {
    pages: Vec<Page>,
}

impl Tails {
    /// The page, if it is kept.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Page> {
        let at = self.pages.iter().rposition(|page| page.number == number)?;
        if at + 1 != self.pages.len() {
            let page = self.pages.remove(at);
            self.pages.push(page);
        }
        self.pages.last_mut()
    }

    /// Keeps a page; returns the one that has to go for it.
    #[must_use]
    pub(super) fn insert(&mut self, number: u64, bytes: Aligned) -> Option<Page> {
        let old = (self.pages.len() >= KEPT).then(|| self.pages.remove(0));
        self.pages.push(Page { number, bytes, dirty: true });
        old
    }

    /// Forgets pages that were overwritten as a whole.
    pub(super) fn forget(&mut self, first: u64, end: u64) {
        self.pages.retain(|page| page.number < first || page.number >= end);
    }

    /// Whether a page that was not sent lies in a range of pages.
    pub(super) fn is_dirty_in(&self, first: u64, end: u64) -> bool {
        self.pages.iter().any(|page| page.dirty && page.number >= first && page.number < end)
    }

    /// Numbers of the pages that were not sent, ascending.
    pub(super) fn dirty(&self) -> Vec<u64> {
        let mut dirty: Vec<u64> = self.pages.iter().filter(|page| page.dirty).map(|page| page.number).collect();
        dirty.sort_unstable();
        dirty
    }

    /// A fresh page's memory.
    pub(super) fn memory() -> Aligned {
        Aligned::zeroed(PAGE_BYTES as usize)
    }
}
