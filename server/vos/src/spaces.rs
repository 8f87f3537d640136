//! Free space of all tiers of a store, by address.
//!
//! Must never mix them up: each tier has its own rules of when it is full.

use talea_tier::{Address, Tier};

use crate::space::{Overlap, Space};

/// A run of a tier: address and bytes.
pub(crate) type Run = (u64, u64);

/// Free space of the tiers.
#[derive(Debug, Default)]
pub(crate) struct Spaces {
    log: Space,
    bulk: Option<Space>,
}

/// The part of the address space that a tier has for blocks: first byte and end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// First byte of the first block.
    pub(crate) first: u64,
    /// End of the last block.
    pub(crate) end: u64,
}

impl Spaces {
    /// All blocks of the tiers but the runs in `used`.
    pub(crate) fn without(log: Bounds, bulk: Option<Bounds>, used: Vec<Run>) -> Result<Self, Overlap> {
        let (in_log, in_bulk): (Vec<Run>, Vec<Run>) =
            used.into_iter().partition(|(start, _)| Address(*start).tier() == Some(Tier::Log));
        if bulk.is_none()
            && let Some((offset, _)) = in_bulk.first()
        {
            return Err(Overlap { offset: *offset });
        }
        let log = Space::without(log.first, log.end, in_log)?;
        let bulk = bulk.map(|bulk| Space::without(bulk.first, bulk.end, in_bulk)).transpose()?;
        Ok(Self { log, bulk })
    }

    fn of(&mut self, tier: Tier) -> &mut Space {
        match (tier, &mut self.bulk) {
            (Tier::Bulk, Some(bulk)) => bulk,
            _ => &mut self.log,
        }
    }

    fn at(&mut self, address: u64) -> &mut Space {
        self.of(Address(address).tier().unwrap_or(Tier::Log))
    }

    /// Free now in all tiers, in bytes.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.log.free_bytes() + self.bulk.as_ref().map_or(0, Space::free_bytes)
    }

    /// Free now in one tier, in bytes.
    pub(crate) fn free_in(&self, tier: Tier) -> u64 {
        match (tier, &self.bulk) {
            (Tier::Bulk, Some(bulk)) => bulk.free_bytes(),
            _ => self.log.free_bytes(),
        }
    }

    /// Free after the next checkpoint, in bytes.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.log.waiting_bytes() + self.bulk.as_ref().map_or(0, Space::waiting_bytes)
    }

    /// Free but for leases, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.log.held_bytes() + self.bulk.as_ref().map_or(0, Space::held_bytes)
    }

    /// Free in one tier but for leases, in bytes.
    pub(crate) fn held_in(&self, tier: Tier) -> u64 {
        match (tier, &self.bulk) {
            (Tier::Bulk, Some(bulk)) => bulk.held_bytes(),
            _ => self.log.held_bytes(),
        }
    }

    /// Whether what waits in some tier is worth a checkpoint: an eighth of it, or half as much as is free.
    pub(crate) fn wants_checkpoint(&self, log_bytes: u64, bulk_bytes: u64) -> bool {
        self.log.waiting_bytes() > log_bytes / 8
            || self.bulk.as_ref().is_some_and(|bulk| bulk.waiting_bytes() > bulk_bytes / 8)
    }

    /// Takes a run of whole blocks that holds `bytes`; its address.
    pub(crate) fn allocate(&mut self, tier: Tier, bytes: u64) -> Option<u64> {
        self.of(tier).allocate(bytes)
    }

    /// Gives a run back that nothing durable names: for use at once, or when all leases granted before have ended.
    pub(crate) fn release(&mut self, start: u64, bytes: u64) {
        self.at(start).release(start, bytes);
    }

    /// Gives a run back that nobody was told of since it was taken: it is free at once, whatever is leased.
    pub(crate) fn untake(&mut self, start: u64, bytes: u64) {
        self.at(start).untake(start, bytes);
    }

    /// Gives a run back that the durable log still names.
    pub(crate) fn retire(&mut self, start: u64, bytes: u64) {
        self.at(start).retire(start, bytes);
    }

    /// What waits now: to be released when a checkpoint begun from here on is durable.
    pub(crate) fn take_waiting(&mut self) -> Vec<Run> {
        let mut waiting = self.log.take_waiting();
        waiting.extend(self.bulk.as_mut().map(Space::take_waiting).unwrap_or_default());
        waiting
    }

    /// Nothing that is in use now is given out again before this time, in whatever unit [`end_leases`](Self::end_leases) uses.
    pub(crate) fn lease(&mut self, until: u64) {
        self.log.lease(until);
        self.bulk.iter_mut().for_each(|bulk| bulk.lease(until));
    }

    /// There is no room below a tier's medium from an address on: see [`Space::withdraw`].
    pub(crate) fn withdraw(&mut self, tier: Tier, from: u64) {
        self.of(tier).withdraw(from);
    }

    /// What was withdrawn is tried again; whether there was any.
    pub(crate) fn restore(&mut self) -> bool {
        let bulk = self.bulk.as_mut().is_some_and(Space::restore);
        self.log.restore() || bulk
    }

    /// Whether anything was withdrawn.
    pub(crate) fn is_cut(&self) -> bool {
        self.log.is_cut() || self.bulk.as_ref().is_some_and(Space::is_cut)
    }

    /// What is free now in the tier that can be mapped is used only from this time on: see [`Space::hold_free`].
    pub(crate) fn hold_free(&mut self, until: u64) {
        self.log.hold_free(until);
    }

    /// Held since the store was opened, in bytes.
    pub(crate) fn held_since_open_bytes(&self) -> u64 {
        self.log.held_since_open_bytes()
    }

    /// Not free yet, though nothing names it any more, in bytes.
    pub(crate) fn returning_bytes(&self) -> u64 {
        self.waiting_bytes() + self.held_bytes() - self.held_since_open_bytes()
    }

    /// When the first of what is held can be used, in the unit of [`end_leases`](Self::end_leases).
    pub(crate) fn first_held_until(&self) -> Option<u64> {
        let all = [self.log.first_held_until(), self.bulk.as_ref().and_then(Space::first_held_until)];
        all.into_iter().flatten().min()
    }

    /// End of the last lease; 0: none that is known to last.
    pub(crate) fn leased_until(&self) -> u64 {
        self.log.leased_until()
    }

    /// Whether the caller's time, as it was told last, has come so far.
    pub(crate) fn is_past(&self, until: u64) -> bool {
        self.log.is_past(until)
    }

    /// Frees what leases held that have ended by now.
    pub(crate) fn end_leases(&mut self, now: u64) {
        self.log.end_leases(now);
        self.bulk.iter_mut().for_each(|bulk| bulk.end_leases(now));
    }

    /// Changes whenever a block is given back.
    pub(crate) fn generation(&self) -> u64 {
        self.log.generation() + self.bulk.as_ref().map_or(0, Space::generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaces() -> Spaces {
        let bulk = Bounds { first: Address::new(Tier::Bulk, 4096).0, end: Address::new(Tier::Bulk, 65_536).0 };
        Spaces::without(Bounds { first: 8192, end: 65_536 }, Some(bulk), vec![(8192, 4096)]).unwrap()
    }

    #[test]
    fn each_tier_has_its_own_room() {
        let mut spaces = spaces();
        let bulk = spaces.allocate(Tier::Bulk, 61_440).unwrap();
        assert_eq!(Address(bulk), Address::new(Tier::Bulk, 4096));
        assert_eq!(spaces.allocate(Tier::Bulk, 1), None, "bulk is full");
        assert_eq!(spaces.allocate(Tier::Log, 1), Some(12_288), "the log is not");
        spaces.retire(bulk, 4096);
        assert_eq!(spaces.waiting_bytes(), 4096);
        for (start, bytes) in spaces.take_waiting() {
            spaces.release(start, bytes);
        }
        assert_eq!(spaces.allocate(Tier::Bulk, 4096), Some(bulk));
        let alone = Spaces::without(Bounds { first: 8192, end: 65_536 }, None, vec![(bulk, 1)]);
        assert!(alone.is_err(), "an address in a tier that is not there");
    }

    #[test]
    fn a_lease_holds_the_blocks_of_all_tiers() {
        let mut spaces = spaces();
        let runs = [Tier::Log, Tier::Bulk].map(|tier| spaces.allocate(tier, 8192).unwrap());
        spaces.lease(100);
        let (free, generation) = (spaces.free_bytes(), spaces.generation());
        runs.iter().for_each(|run| spaces.release(*run, 8192));
        assert_eq!((spaces.held_bytes(), spaces.free_bytes()), (16_384, free));
        assert_ne!(spaces.generation(), generation);
        spaces.end_leases(100);
        assert_eq!((spaces.held_bytes(), spaces.free_bytes()), (0, free + 16_384));
    }
}
