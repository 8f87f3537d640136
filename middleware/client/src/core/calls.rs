//! The calls in flight: a fixed place each, used again when it is free, and their timers.
//!
//! Owns the numbers of calls: a number is never given twice, so that a late answer finds nobody. Must never iterate in an
//! order that a seed does not determine, and takes no memory for a call once there were as many before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;

use talea_fabric::PeerId;

use super::Outcome;

/// Timers that no longer count are thrown out when there are this many more than calls.
const STALE_TIMERS: usize = 64;
const INDEX_BITS: u32 = 32;

#[derive(Default)]
pub(super) struct Call {
    pub(super) peer: Option<PeerId>,
    timer_ns: Option<u64>,
    pub(super) waker: Option<Waker>,
    pub(super) outcome: Option<Outcome>,
}

#[derive(Default)]
struct Slot {
    /// How often it was given out.
    uses: u32,
    call: Option<Call>,
}

#[derive(Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// (when, whose); one counts if its call still has it.
    timers: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Calls {
    /// A new call's number.
    pub(super) fn add(&mut self) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.uses += 1;
        slot.call = Some(Call::default());
        u64::from(slot.uses) << INDEX_BITS | u64::from(index)
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id as u32 as usize)?;
        (slot.uses == (id >> INDEX_BITS) as u32).then_some(slot)
    }

    pub(super) fn get(&mut self, id: u64) -> Option<&mut Call> {
        self.slot(id)?.call.as_mut()
    }

    /// Ends a call. Returns its outcome if nobody has taken it.
    pub(super) fn remove(&mut self, id: u64) -> Option<Outcome> {
        let slot = self.slot(id)?;
        let left = slot.call.as_mut()?.outcome.take();
        slot.call = None;
        // A place whose number would begin again is not used any more.
        if slot.uses < u32::MAX {
            self.free.push(id as u32);
        }
        left
    }

    /// The numbers of all calls that wait for a peer.
    pub(super) fn of_peer(&self, peer: PeerId) -> Vec<u64> {
        let numbered = self.slots.iter().enumerate();
        let waits = |slot: &Slot| slot.call.as_ref().is_some_and(|call| call.peer == Some(peer));
        numbered
            .filter(|(_, slot)| waits(slot))
            .map(|(index, slot)| u64::from(slot.uses) << INDEX_BITS | index as u64)
            .collect()
    }

    /// The call's timer goes off at `at_ns`, and at no other time.
    pub(super) fn set_timer(&mut self, id: u64, at_ns: u64) {
        let Some(call) = self.get(id) else { return };
        if call.timer_ns.replace(at_ns) == Some(at_ns) {
            return;
        }
        self.timers.push(Reverse((at_ns, id)));
        if self.timers.len() > STALE_TIMERS + 2 * (self.slots.len() - self.free.len()) {
            let mut timers = std::mem::take(&mut self.timers);
            timers.retain(|Reverse((at_ns, id))| self.counts(*at_ns, *id));
            self.timers = timers;
        }
    }

    pub(super) fn stop_timer(&mut self, id: u64) {
        if let Some(call) = self.get(id) {
            call.timer_ns = None;
        }
    }

    fn counts(&mut self, at_ns: u64, id: u64) -> bool {
        self.get(id).is_some_and(|call| call.timer_ns == Some(at_ns))
    }

    /// When the next timer goes off; `u64::MAX`: none is set.
    pub(super) fn next_timer_ns(&mut self) -> u64 {
        while let Some(Reverse((at_ns, id))) = self.timers.peek().copied() {
            if self.counts(at_ns, id) {
                return at_ns;
            }
            self.timers.pop();
        }
        u64::MAX
    }

    /// A call whose timer has gone off by now; the timer is gone with this.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<u64> {
        if self.next_timer_ns() > now_ns {
            return None;
        }
        let Reverse((_, id)) = self.timers.pop()?;
        self.stop_timer(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_given_twice_and_a_late_answer_finds_nobody() {
        let mut calls = Calls::default();
        let first = calls.add();
        calls.get(first).unwrap().outcome = Some(Outcome::Go);
        assert!(calls.remove(first).is_some() && calls.remove(first).is_none());
        let second = calls.add();
        assert!(first != second && calls.get(first).is_none() && calls.get(second).is_some());
        assert!(calls.get(u64::MAX).is_none() && calls.get(0).is_none());
    }

    #[test]
    fn timers_go_off_in_order_once_and_only_while_they_count() {
        let mut calls = Calls::default();
        let ids: Vec<u64> = (0..3).map(|_| calls.add()).collect();
        calls.set_timer(ids[0], 30);
        calls.set_timer(ids[1], 20);
        calls.set_timer(ids[2], 10);
        calls.set_timer(ids[0], 5);
        calls.remove(ids[2]);
        assert_eq!((calls.next_timer_ns(), calls.due(4)), (5, None));
        assert_eq!((calls.due(100), calls.due(100), calls.due(100)), (Some(ids[0]), Some(ids[1]), None));
        assert_eq!(calls.next_timer_ns(), u64::MAX);
    }

    #[test]
    fn what_is_over_takes_no_memory() {
        let mut calls = Calls::default();
        for number in 0..100_000 {
            let id = calls.add();
            calls.set_timer(id, 1_000_000 + number);
            calls.remove(id);
        }
        assert!(calls.slots.len() == 1 && calls.timers.len() <= STALE_TIMERS + 3);
    }
}
