//! The media of a store under test: one, or the log on one and bulk on another.

use talea_tier::{Address, Media, SimMedium, Tier, Torn};

/// Clones are handles to the same media.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) log: SimMedium,
    pub(crate) bulk: Option<SimMedium>,
}

impl Disk {
    pub(crate) fn one(bytes: u64, torn: Torn) -> Self {
        Self { log: SimMedium::new(bytes, torn), bulk: None }
    }

    /// The log on lines, bulk on sectors.
    pub(crate) fn two(log_bytes: u64, bulk_bytes: u64) -> Self {
        Self { bulk: Some(SimMedium::new(bulk_bytes, Torn::Sectors)), ..Self::one(log_bytes, Torn::Lines) }
    }

    pub(crate) fn media(&self) -> Media {
        let log = Box::new(self.log.clone());
        match self.bulk.clone() {
            Some(bulk) => Media::two(log, Box::new(bulk)),
            None => Media::one(log),
        }
    }

    /// What survives a power loss, as `random` decides.
    pub(crate) fn crash(&self, random: &mut dyn FnMut() -> u64) -> Self {
        Self { log: self.log.crash(random), bulk: self.bulk.as_ref().map(|bulk| bulk.crash(random)) }
    }

    pub(crate) fn corrupt(&self, address: u64, mask: u8) {
        match (Address(address).tier(), &self.bulk) {
            (Some(Tier::Bulk), Some(bulk)) => bulk.corrupt(Address(address).offset(), mask),
            _ => self.log.corrupt(address, mask),
        }
    }

    /// Places in all of what was ever written, `step` bytes apart.
    pub(crate) fn places(&self, step: usize) -> Vec<u64> {
        let used = |medium: &SimMedium| medium.image().iter().rposition(|byte| *byte != 0).unwrap() as u64;
        let of = |tier, medium| (0..used(medium)).step_by(step).map(move |offset| Address::new(tier, offset).0);
        of(Tier::Log, &self.log).chain(self.bulk.iter().flat_map(|bulk| of(Tier::Bulk, bulk))).collect()
    }
}
