//! The store: one medium, one index, one log.

use talea_model::{ContainerId, Ledger, Order, Position, Stamp, TxId, View};
use talea_tier::Medium;

use crate::{
    Answer, Caller, Change, Condition, EntryUpdate, Enumerate, FetchWhat, Fetched, Listed, ObjectRef, Punch, Query,
    Recovered, StoreError, StoreOptions, StoreStats,
};

const SOON: StoreError = StoreError::Unsupported("the store's bodies");

/// The versioned store of one target.
pub struct Store {
    medium: Box<dyn Medium>,
    ledger: Ledger,
}

impl Store {
    /// Opens the store on a medium, making it if the medium is empty, and replays its log.
    pub fn open(medium: Box<dyn Medium>, _options: StoreOptions) -> Result<(Store, Recovered), StoreError> {
        let recovered = Recovered { fresh: true, horizon: Position(0), ceiling: Stamp::ZERO, lost: false };
        Ok((Store { medium, ledger: Ledger::default() }, recovered))
    }

    /// What this target knows of the pool's log.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Applies log entries up to `horizon`, in order; durable with the next flush.
    pub fn follow(&mut self, _changes: &[Change], _horizon: Position) -> Result<(), StoreError> {
        Err(SOON)
    }

    /// Raises the ceiling (docs/design.md §4 rule 10); durable with the next flush.
    pub fn raise_ceiling(&mut self, _to: Stamp) -> Result<(), StoreError> {
        Err(SOON)
    }

    /// Stores entries: one call, one log record, all or nothing. `Auto` uses `stamp` and covers one dkey; `Pending` ignores
    /// `stamp`. `base` is the view of the conditions and of [`ValueKind::SingleMax`](crate::ValueKind). A call that
    /// [`already_done`](Self::already_done) knows changes nothing and is well.
    pub fn update(
        &mut self,
        _at: ObjectRef,
        _order: Order,
        _stamp: Stamp,
        _base: View,
        _caller: Caller,
        _entries: &[EntryUpdate],
    ) -> Result<(), StoreError> {
        Err(SOON)
    }

    /// Hides what is there, from this version on. Conditions: `Update` and `DkeyUpdate` ask that it exists.
    #[allow(clippy::too_many_arguments)]
    pub fn punch(
        &mut self,
        _at: ObjectRef,
        _order: Order,
        _stamp: Stamp,
        _base: View,
        _caller: Caller,
        _what: Punch,
        _condition: Condition,
    ) -> Result<(), StoreError> {
        Err(SOON)
    }

    /// Whether this very request was done before (by this target, also before a restart).
    pub fn already_done(&self, _caller: &Caller) -> bool {
        false
    }

    /// Appends what a view sees to `out`; holes are zeros. Every byte was verified against its stored checksum.
    pub fn fetch(
        &self,
        _at: ObjectRef,
        _view: View,
        _dkey: &[u8],
        _akey: &[u8],
        _what: FetchWhat,
        _out: &mut Vec<u8>,
    ) -> Result<Fetched, StoreError> {
        Err(SOON)
    }

    /// At most `limit` things after the anchor, in order. Fewer than `limit` means that there are no more.
    pub fn enumerate(
        &self,
        _at: ObjectRef,
        _view: View,
        _what: Enumerate,
        _after: Option<&[u8]>,
        _limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        Err(SOON)
    }

    /// Answers a question about keys.
    pub fn query(&self, _at: ObjectRef, _view: View, _what: Query) -> Result<Answer, StoreError> {
        Err(SOON)
    }

    /// Transactions, open as far as the horizon knows, with versions that a latest read or an autocommit of this dkey would
    /// meet: whoever does must know their fates first (docs/design.md §4 rule 8). Without a dkey: of the whole object.
    pub fn pending_on(&self, _at: ObjectRef, _dkey: Option<&[u8]>) -> Vec<TxId> {
        Vec::new()
    }

    /// Versions of open transactions in a container.
    pub fn pending_updates(&self, _container: ContainerId) -> u64 {
        0
    }

    /// Figures.
    pub fn stats(&self) -> StoreStats {
        StoreStats { capacity_bytes: self.medium.capacity_bytes(), ..StoreStats::default() }
    }

    /// Makes everything before durable (docs/design.md I4): acknowledge only after it returned.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        Ok(self.medium.persist()?)
    }

    /// Does about `budget_items` of background work: settles closed transactions, aggregates below floors, writes
    /// checkpoints. Returns whether more is left.
    pub fn background(&mut self, _budget_items: usize) -> Result<bool, StoreError> {
        Ok(false)
    }
}
