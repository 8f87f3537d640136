//! The tiers of one target under one address space (docs/design.md §5): the log and small values on one, bulk on another.
//!
//! Must never know what the bytes mean, nor choose where something goes: addresses say it.

use crate::{Medium, MediumKind, Share, TierError};

/// Where bytes lie: a tier, and an offset in it. Never a pointer.
///
/// As a number the tier is in the highest byte: an address in the first tier is its offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub u64);

/// Bits of an address that are the offset.
const OFFSET_BITS: u32 = 56;

/// The tiers of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tier {
    /// Holds the log and small values; bulk as well if there is no other.
    Log = 0,
    /// Holds values above the threshold.
    Bulk = 1,
}

impl Address {
    /// The address of a byte of a tier.
    pub const fn new(tier: Tier, offset: u64) -> Self {
        Self((tier as u64) << OFFSET_BITS | offset)
    }

    /// Its tier; `None` if there is none of that number.
    pub const fn tier(self) -> Option<Tier> {
        match self.0 >> OFFSET_BITS {
            0 => Some(Tier::Log),
            1 => Some(Tier::Bulk),
            _ => None,
        }
    }

    /// Its offset in the tier, in bytes.
    pub const fn offset(self) -> u64 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.tier() {
            Some(Tier::Log) => write!(f, "offset {} of the medium", self.offset()),
            Some(Tier::Bulk) => write!(f, "offset {} of the bulk tier", self.offset()),
            None => write!(f, "address {:#x}, in no tier", self.0),
        }
    }
}

/// One or two media. As a [`Medium`] it is that of the log, whose offsets are [`Address`]es of both.
pub struct Media {
    log: Box<dyn Medium>,
    bulk: Option<Box<dyn Medium>>,
    /// Bulk was written since it was flushed.
    bulk_dirty: bool,
}

impl Media {
    /// One tier that holds everything.
    pub fn one(log: Box<dyn Medium>) -> Self {
        Self { log, bulk: None, bulk_dirty: false }
    }

    /// The log and small values on one, bulk on the other.
    pub fn two(log: Box<dyn Medium>, bulk: Box<dyn Medium>) -> Self {
        Self { log, bulk: Some(bulk), bulk_dirty: false }
    }

    /// The medium of a tier, if there is one.
    pub fn medium(&self, tier: Tier) -> Option<&dyn Medium> {
        match tier {
            Tier::Log => Some(&*self.log),
            Tier::Bulk => self.bulk.as_deref(),
        }
    }

    /// Where values above the threshold go.
    pub fn bulk_tier(&self) -> Tier {
        if self.bulk.is_some() { Tier::Bulk } else { Tier::Log }
    }

    /// Bytes of all tiers.
    pub fn total_bytes(&self) -> u64 {
        self.log.capacity_bytes() + self.bulk.as_ref().map_or(0, |bulk| bulk.capacity_bytes())
    }

    fn at(&self, address: u64, len: u64) -> Result<(&dyn Medium, u64), TierError> {
        let address = Address(address);
        let outside = TierError::OutOfRange { offset: address.0, len, capacity_bytes: self.log.capacity_bytes() };
        let medium = address.tier().and_then(|tier| self.medium(tier)).ok_or(outside)?;
        Ok((medium, address.offset()))
    }

    fn at_mut(&mut self, address: u64, len: u64) -> Result<(&mut dyn Medium, u64), TierError> {
        let (address, capacity_bytes) = (Address(address), self.log.capacity_bytes());
        let medium = match (address.tier(), &mut self.bulk) {
            (Some(Tier::Log), _) => &mut *self.log,
            (Some(Tier::Bulk), Some(bulk)) => {
                self.bulk_dirty = true;
                &mut **bulk
            }
            _ => return Err(TierError::OutOfRange { offset: address.0, len, capacity_bytes }),
        };
        Ok((medium, address.offset()))
    }
}

impl From<Box<dyn Medium>> for Media {
    fn from(log: Box<dyn Medium>) -> Self {
        Self::one(log)
    }
}

impl<M: Medium + 'static> From<Box<M>> for Media {
    fn from(log: Box<M>) -> Self {
        Self::one(log)
    }
}

impl Medium for Media {
    fn kind(&self) -> MediumKind {
        self.log.kind()
    }
    fn capacity_bytes(&self) -> u64 {
        self.log.capacity_bytes()
    }
    fn is_persistent(&self) -> bool {
        self.log.is_persistent()
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        let (medium, offset) = self.at_mut(offset, data.len() as u64)?;
        medium.write(offset, data)
    }
    fn write_padded(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        let (medium, offset) = self.at_mut(offset, data.len() as u64)?;
        medium.write_padded(offset, data)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        let (medium, offset) = self.at(offset, out.len() as u64)?;
        medium.read(offset, out)
    }
    fn reads_wait(&self) -> bool {
        self.bulk.as_ref().map_or_else(|| self.log.reads_wait(), |bulk| bulk.reads_wait())
    }
    fn read_ahead(&self, offset: u64, len: u64) -> bool {
        self.at(offset, len).is_ok_and(|(medium, offset)| medium.read_ahead(offset, len))
    }
    fn forget_ahead(&self) {
        self.log.forget_ahead();
        if let Some(bulk) = &self.bulk {
            bulk.forget_ahead();
        }
    }
    fn bytes(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let (medium, offset) = self.at(offset, len).ok()?;
        medium.bytes(offset, len)
    }
    fn reserve(&mut self, offset: u64, len: u64) -> Result<(), TierError> {
        let (medium, offset) = self.at_mut(offset, len)?;
        medium.reserve(offset, len)
    }
    /// Bulk first: when the log is flushed, so is all that it names.
    fn persist(&mut self) -> Result<(), TierError> {
        if let Some(bulk) = self.bulk.as_mut().filter(|_| self.bulk_dirty) {
            bulk.persist()?;
            self.bulk_dirty = false;
        }
        self.log.persist()
    }
    fn undo_open(&mut self) {
        self.log.undo_open();
        if let Some(bulk) = &mut self.bulk {
            bulk.undo_open();
        }
    }
    fn is_persist_costly(&self) -> bool {
        self.log.is_persist_costly()
    }
    /// The log's alone: who reads in place asks for the rest.
    fn share(&self) -> Option<Share> {
        self.log.share()
    }
    fn board(&self) -> Option<Share> {
        self.log.board()
    }
    fn post(&mut self, number: u64) {
        self.log.post(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SimMedium, Torn};

    #[test]
    fn addresses_lead_to_their_tiers_and_what_is_clean_is_not_flushed() {
        let (log, bulk) = (SimMedium::new(8192, Torn::Lines), SimMedium::new(1 << 20, Torn::Sectors));
        let mut media = Media::two(Box::new(log.clone()), Box::new(bulk.clone()));
        let far = Address::new(Tier::Bulk, 100_000);
        assert_eq!((far.tier(), far.offset()), (Some(Tier::Bulk), 100_000));
        media.write(far.0, b"bulk").unwrap();
        media.write(5, b"log").unwrap();
        assert_eq!((bulk.image()[100_000..100_004].to_vec(), &log.image()[5..8]), (b"bulk".to_vec(), &b"log"[..]));
        media.persist().unwrap();
        assert_eq!((bulk.persists(), log.persists()), (1, 1));
        media.persist().unwrap();
        assert_eq!((bulk.persists(), log.persists()), (1, 2), "bulk was clean");
        assert!(matches!(media.write(2 << OFFSET_BITS, b"x"), Err(TierError::OutOfRange { .. })));
        let mut alone = Media::from(Box::new(log));
        assert!(matches!(alone.read(far.0, &mut [0]), Err(TierError::OutOfRange { .. })));
        assert!(matches!(alone.write(far.0, b"x"), Err(TierError::OutOfRange { .. })));
    }
}
