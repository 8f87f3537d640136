//! Free space of a medium: which blocks are taken, and which wait before they can be used again: for a checkpoint, or for the
//! end of the leases under which other processes read them in place (docs/design.md §6, the short way).
//!
//! Must never give out a block that the durable log may still name, or that a lease holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Unit of allocation in bytes.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// `bytes` rounded up to whole blocks.
pub(crate) const fn whole_blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// Single blocks that are kept apart.
const SINGLES: usize = 256;
/// Blocks that are taken apart at once when single ones are wanted.
const REFILL: u64 = 16;

/// Runs whose leases have ended that are given back at once.
const ENDED: usize = 1024;

/// Free blocks: by address, to join neighbours, and by length, to fit best (lowest address first among equals).
#[derive(Debug, Default)]
pub(crate) struct Space {
    by_start: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
    /// Free single blocks that are not joined with their neighbours: the one given back last, still in the caches, goes first.
    singles: Vec<u64>,
    free_bytes: u64,
    /// Not referred to any more, but the log that a restart would replay names them.
    waiting: Vec<(u64, u64)>,
    waiting_bytes: u64,
    /// End of the last lease, in the caller's time; 0: none that is known to last.
    leased_until: u64,
    /// Given back while leases lasted: (when all of those have ended, start, length), in the order of that time.
    held: VecDeque<(u64, u64, u64)>,
    held_bytes: u64,
    /// What was free when the store was opened and is held since then: runs at the front of `held`, and their bytes.
    held_since_open: (usize, u64),
    /// Free, but the file system below has no room for it.
    beyond: Vec<(u64, u64)>,
    /// The caller's time, as it was told last.
    now: u64,
    /// Counts what was given back.
    generation: u64,
}

/// Two things claim the same bytes: the medium is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// Where, in bytes.
    pub offset: u64,
}

impl Space {
    /// All of `first..end` but the ranges in `used` (start, length; any order), which must not overlap.
    pub(crate) fn without(first: u64, end: u64, mut used: Vec<(u64, u64)>) -> Result<Self, Overlap> {
        used.sort_unstable();
        let (mut space, mut at) = (Self::default(), first);
        for (start, len) in used {
            let len = whole_blocks(len);
            if start < at || start.checked_add(len).is_none_or(|e| e > end) {
                return Err(Overlap { offset: start });
            }
            space.join(at, start - at);
            at = start + len;
        }
        space.join(at, end - at);
        space.free_bytes = space.by_start.values().sum();
        Ok(space)
    }

    /// Free now, in bytes.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Free after the next checkpoint, in bytes.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// The longest run of free bytes.
    #[cfg(test)]
    pub(crate) fn longest_bytes(&self) -> u64 {
        self.by_len.last().map_or(0, |(len, _)| *len)
    }

    /// Takes a run of whole blocks that holds `bytes`.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Option<u64> {
        let len = whole_blocks(bytes);
        let start = if len == BLOCK_BYTES { self.take_single() } else { self.take_run(len) };
        self.free_bytes -= start.map_or(0, |_| len);
        start
    }

    fn take_single(&mut self) -> Option<u64> {
        if self.singles.is_empty() {
            let (len, start) = match self.by_len.range((REFILL * BLOCK_BYTES, 0)..).next() {
                Some((_, start)) => (REFILL * BLOCK_BYTES, self.cut(*start, REFILL * BLOCK_BYTES)?),
                None => (BLOCK_BYTES, self.take_run(BLOCK_BYTES)?),
            };
            self.singles.extend((0..len / BLOCK_BYTES).rev().map(|block| start + block * BLOCK_BYTES));
        }
        self.singles.pop()
    }

    fn take_run(&mut self, len: u64) -> Option<u64> {
        while self.by_len.range((len, 0)..).next().is_none() {
            let before = (self.held.len(), self.singles.len());
            self.end_some(ENDED);
            self.join_singles();
            if before == (self.held.len(), 0) {
                return None;
            }
        }
        let (_, start) = *self.by_len.range((len, 0)..).next()?;
        self.cut(start, len)
    }

    /// Takes the first bytes of a free run.
    fn cut(&mut self, start: u64, len: u64) -> Option<u64> {
        let found = self.by_start.get(&start).copied()?;
        self.remove(start, found);
        self.insert(start + len, found - len);
        Some(start)
    }

    fn join_singles(&mut self) {
        for start in std::mem::take(&mut self.singles) {
            self.join(start, BLOCK_BYTES);
        }
    }

    /// Gives a run back that nothing durable names: for use at once, or when all leases granted before have ended.
    pub(crate) fn release(&mut self, start: u64, bytes: u64) {
        self.generation += 1;
        if self.leased_until > 0 {
            self.held.push_back((self.leased_until, start, bytes));
            self.held_bytes += whole_blocks(bytes);
        } else {
            self.give(start, bytes);
        }
    }

    /// Gives a run back that nobody was told of since it was taken: it is free at once, whatever is leased.
    pub(crate) fn untake(&mut self, start: u64, bytes: u64) {
        self.give(start, bytes);
    }

    /// What is free from now on.
    fn give(&mut self, start: u64, bytes: u64) {
        self.free_bytes += whole_blocks(bytes);
        if whole_blocks(bytes) == BLOCK_BYTES && self.singles.len() < SINGLES {
            self.singles.push(start);
        } else {
            self.join(start, bytes);
        }
    }

    /// Nothing that is in use now is given out again before this time, in whatever unit [`end_leases`](Self::end_leases) uses.
    pub(crate) fn lease(&mut self, until: u64) {
        self.leased_until = self.leased_until.max(until);
    }

    /// There is no room below the medium for what lies from `from` on and is free: it is not, until [`restore`](Self::restore).
    pub(crate) fn withdraw(&mut self, from: u64) {
        self.join_singles();
        let from = whole_blocks(from);
        let first = self.by_start.range(..from).next_back().filter(|(start, len)| *start + *len > from);
        let runs: Vec<(u64, u64)> =
            first.into_iter().chain(self.by_start.range(from..)).map(|(s, l)| (*s, *l)).collect();
        for (start, len) in runs {
            self.remove(start, len);
            let below = from.saturating_sub(start);
            self.insert(start, below);
            self.beyond.push((start + below, len - below));
            self.free_bytes -= len - below;
        }
    }

    /// What was withdrawn is tried again; whether there was any.
    pub(crate) fn restore(&mut self) -> bool {
        let beyond = std::mem::take(&mut self.beyond);
        for (start, len) in &beyond {
            self.free_bytes += len;
            self.join(*start, *len);
        }
        !beyond.is_empty()
    }

    /// Whether anything was withdrawn.
    pub(crate) fn is_cut(&self) -> bool {
        !self.beyond.is_empty()
    }

    /// What is free now is used only from this time on: a process before this one may have named it to readers whose leases last
    /// until then. For a store that was just opened, before anything is given back.
    pub(crate) fn hold_free(&mut self, until: u64) {
        self.lease(until);
        self.join_singles();
        self.by_len.clear();
        for (start, bytes) in std::mem::take(&mut self.by_start) {
            self.held.push_back((until, start, bytes));
            self.held_since_open = (self.held_since_open.0 + 1, self.held_since_open.1 + bytes);
            self.held_bytes += bytes;
        }
        self.free_bytes = 0;
    }

    /// Held since the store was opened: as good as free for whoever can wait, in bytes.
    pub(crate) fn held_since_open_bytes(&self) -> u64 {
        self.held_since_open.1
    }

    /// When the first of what is held can be used, in the caller's time.
    pub(crate) fn first_held_until(&self) -> Option<u64> {
        self.held.front().map(|(until, ..)| *until)
    }

    /// End of the last lease, in the caller's time; 0: none that is known to last.
    pub(crate) fn leased_until(&self) -> u64 {
        self.leased_until
    }

    /// Whether the caller's time, as it was told last, has come so far.
    pub(crate) fn is_past(&self, until: u64) -> bool {
        self.now >= until
    }

    /// Frees what leases held that have ended by now: some of it at once, the rest with the next calls or when it is needed.
    pub(crate) fn end_leases(&mut self, now: u64) {
        self.now = now;
        self.end_some(ENDED);
        if self.leased_until <= now {
            self.leased_until = 0;
        }
    }

    fn end_some(&mut self, limit: usize) {
        for _ in 0..limit {
            let Some((_, start, bytes)) = self.held.front().copied().filter(|(until, ..)| *until <= self.now) else {
                return;
            };
            self.held.pop_front();
            self.held_bytes -= whole_blocks(bytes);
            if let (Some(runs), open_bytes) = (self.held_since_open.0.checked_sub(1), self.held_since_open.1) {
                self.held_since_open = (runs, open_bytes - bytes);
            }
            self.give(start, bytes);
        }
    }

    /// Free but for leases, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Changes whenever a block is given back: what was in use under the same number still lies where it lay.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Joins a run with its free neighbours.
    fn join(&mut self, mut start: u64, bytes: u64) {
        let mut len = whole_blocks(bytes);
        if len == 0 {
            return;
        }
        if let Some((before, before_len)) = self.by_start.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + before_len == start
        {
            self.remove(before, before_len);
            (start, len) = (before, before_len + len);
        }
        if let Some(after_len) = self.by_start.get(&(start + len)).copied() {
            self.remove(start + len, after_len);
            len += after_len;
        }
        self.insert(start, len);
    }

    /// Gives a run back that the durable log still names.
    pub(crate) fn retire(&mut self, start: u64, bytes: u64) {
        self.waiting.push((start, bytes));
        self.waiting_bytes += whole_blocks(bytes);
    }

    /// What waits now: to be released when a checkpoint begun from here on is durable.
    pub(crate) fn take_waiting(&mut self) -> Vec<(u64, u64)> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    fn insert(&mut self, start: u64, len: u64) {
        if len > 0 {
            self.by_start.insert(start, len);
            self.by_len.insert((len, start));
        }
    }

    fn remove(&mut self, start: u64, len: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlapping_claims_are_found() {
        assert_eq!(Space::without(0, 1 << 20, vec![(8192, 1), (4096, 4097)]).unwrap_err(), Overlap { offset: 8192 });
        assert!(Space::without(4096, 1 << 20, vec![(0, 1)]).is_err());
        assert!(Space::without(0, 8192, vec![(4096, 4097)]).is_err());
        assert_eq!(Space::without(0, 1 << 20, vec![(8192, 1), (4096, 4096)]).unwrap().free_bytes(), (1 << 20) - 8192);
    }

    #[test]
    fn a_leased_block_is_not_given_out_before_the_lease_has_ended() {
        let mut space = Space::without(0, 8192, vec![]).unwrap();
        let start = space.allocate(8192).unwrap();
        space.lease(100);
        let before = space.generation();
        space.release(start, 4096);
        assert_ne!(space.generation(), before);
        space.lease(200);
        space.release(start + 4096, 4096);
        space.end_leases(99);
        assert_eq!(space.allocate(1), None);
        space.end_leases(100);
        assert_eq!((space.allocate(1), space.allocate(1)), (Some(start), None));
        space.end_leases(200);
        assert_eq!(space.allocate(1), Some(start + 4096));
        space.release(start, 4096);
        assert_eq!(space.allocate(1), Some(start), "without leases it is free at once");
    }

    #[test]
    fn what_has_no_room_below_is_not_free_until_it_is_tried_again() {
        let mut space = Space::without(0, 1 << 20, vec![(8192, 4096)]).unwrap();
        let free = space.free_bytes();
        space.withdraw(20_000);
        assert_eq!((space.free_bytes(), space.is_cut()), (8192 + 8192, true));
        assert_eq!((space.allocate(16_384), space.allocate(8192)), (None, Some(0)));
        space.release(0, 8192);
        assert!(space.restore() && !space.is_cut() && !space.restore());
        assert_eq!((space.free_bytes(), space.allocate(65_536)), (free, Some(12_288)));
    }

    #[test]
    fn what_was_free_at_the_beginning_is_held_and_then_free() {
        let mut space = Space::without(0, 1 << 20, vec![(8192, 4096), (65_536, 4096)]).unwrap();
        let free = space.free_bytes();
        space.hold_free(100);
        assert_eq!((space.free_bytes(), space.held_bytes(), space.held_since_open_bytes()), (0, free, free));
        space.lease(200);
        space.release(8192, 4096);
        space.end_leases(99);
        assert_eq!((space.allocate(1), space.first_held_until()), (None, Some(100)));
        space.end_leases(100);
        assert_eq!((space.free_bytes(), space.held_bytes(), space.held_since_open_bytes()), (free, 4096, 0));
        assert_eq!(space.allocate(8192), Some(0));
    }

    proptest! {
        #[test]
        fn never_gives_a_byte_twice(steps in prop::collection::vec((any::<bool>(), prop_oneof![1u64..4097, 1u64..40_000]), 1..200)) {
            let end = 1 << 20;
            let mut space = Space::without(4096, end, vec![]).unwrap();
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (take, bytes) in steps {
                if take {
                    match space.allocate(bytes) {
                        Some(start) => {
                            prop_assert!(start >= 4096 && start + bytes <= end);
                            prop_assert!(held.iter().all(|(s, l)| start + whole_blocks(bytes) <= *s || s + whole_blocks(*l) <= start));
                            held.push((start, bytes));
                        }
                        None => prop_assert!(space.longest_bytes() < whole_blocks(bytes)),
                    }
                } else if !held.is_empty() {
                    let (start, len) = held.swap_remove(bytes as usize % held.len());
                    space.release(start, len);
                }
                prop_assert_eq!(space.free_bytes, space.by_start.values().sum::<u64>() + 4096 * space.singles.len() as u64);
                let rebuilt = Space::without(4096, end, held.clone()).unwrap();
                prop_assert_eq!(rebuilt.free_bytes(), space.free_bytes());
                if !held.len().is_multiple_of(8) {
                    continue;
                }
                space.join_singles();
                prop_assert_eq!(&rebuilt.by_start, &space.by_start);
            }
        }
    }
}
