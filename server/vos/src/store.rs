//! The store: one medium, one index, one log.
//!
//! Owns the calls of a target's thread and what is true between them. Each call's body lies in a module of its own.

mod background;
mod changed;
mod checkpoint;
mod diff;
mod dump;
mod enumerate;
mod fetch;
mod follow;
pub mod fuzz;
pub mod inspect;
mod judge;
mod locate;
mod memory;
mod open;
mod past;
mod punch;
mod query;
mod readset;
mod recover;
mod replay;
mod room;
mod rounds;
mod scrub;
mod state;
mod update;
mod walk;

use checkpoint::Checkpoint;
pub use judge::{Ask, Judged};
use memory::Memory;
pub use readset::ReadSet;
use room::Compaction;
use rounds::Rounds;
use scrub::Scrub;
pub use update::INLINE_BYTES;
use update::Keeping;
pub use walk::{LOOKS, Walk};

use talea_model::{ContainerId, Fate, Ledger, Order, SessionId, Stamp, TxId, View};

use crate::index::lens::Lens;
use crate::index::version::Tag;
use crate::log::bytes::Writer;
use crate::log::header::Superblock;
use crate::log::{Log, Segment};
use crate::spaces::Run;
use crate::{Caller, ObjectRef, Plant, StoreError, StoreOptions, StoreStats};

/// The versioned store of one target.
pub struct Store {
    log: Log,
    memory: Memory,
    superblock: Superblock,
    options: StoreOptions,
    /// The checkpoint that is being written.
    checkpoint: Option<Checkpoint>,
    /// Bytes of the last checkpoint.
    dump_bytes: u64,
    scratch: Writer,
    keeping: Keeping,
    /// Values that are moving together, and what the pass before could not free.
    compaction: Option<Compaction>,
    garbage_left_bytes: u64,
    moving: Vec<u8>,
    /// A request found no room since the last checkpoint or compaction began.
    room_wanted: bool,
    rounds: Rounds,
    /// As little was free when a checkpoint found no room: another waits for more.
    too_little_bytes: Option<u64>,
    /// Blocks that the last checkpoint made free and that are given back in portions.
    returning: Vec<Run>,
    /// Items of background work done since the store was opened.
    items: u64,
    scrub: Scrub,
    /// Segments of the checkpoint that a restart would begin with.
    checkpoint_chain: Vec<Segment>,
    /// A record was found damaged: a checkpoint must take the place of what is on the medium.
    rewrite: bool,
}

impl Store {
    /// What this target knows of the pool's log.
    pub fn ledger(&self) -> &Ledger {
        &self.memory.ledger
    }

    /// Whether this very request was done before (by this target, also before a restart).
    pub fn already_done(&self, caller: &Caller) -> bool {
        caller.session.0 != 0
            && self.options.plant != Plant::ForgetSequences
            && self.memory.done.get(&caller.session).is_some_and(|done| {
                caller.sequence < done.acknowledged_below || done.sequences.contains(&caller.sequence)
            })
    }

    /// Whether so many requests of a session are remembered already, none of which this one lets be forgotten.
    pub fn is_unacknowledged(&self, caller: &Caller, most: usize) -> bool {
        caller.session.0 != 0
            && self.memory.done.get(&caller.session).is_some_and(|done| {
                let first = done.sequences.first();
                done.sequences.len() >= most && first.is_some_and(|first| *first >= caller.acknowledged_below)
            })
    }

    /// Transactions, open as far as the horizon knows, with versions that a latest read or an autocommit of this dkey would
    /// meet: whoever does must know their fates first (docs/design.md §4 rule 8). Without a dkey: of the whole object.
    pub fn pending_on(&self, at: ObjectRef, dkey: Option<&[u8]>) -> Vec<TxId> {
        let Some(object) = self.memory.index.object(at) else { return Vec::new() };
        let index = &self.memory.index;
        let mut found: Vec<TxId> = object.waiting.all().to_vec();
        match dkey {
            Some(dkey) => {
                let node = index.seek(object, dkey).1.and_then(|id| index.dkeys.get(id));
                found.extend(node.iter().flat_map(|node| node.waiting.all()));
            }
            None => found.extend(object.below.all()),
        }
        found.retain(|tx| self.memory.ledger.admits(*tx));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether a transaction wrote here and is not settled yet.
    pub fn has_written(&self, tx: TxId) -> bool {
        self.memory.index.touched.contains_key(&tx)
    }

    /// Transactions that have written here and are not settled, whatever is known of their fates.
    pub fn unsettled(&self) -> impl Iterator<Item = TxId> {
        self.memory.index.touched.keys().copied()
    }

    /// Containers that something is known of here, with the stamps that stay readable below their floors.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerId, impl Iterator<Item = Stamp>)> {
        self.memory.index.containers.iter().map(|(id, container)| (*id, container.kept.keys().copied()))
    }

    /// Sessions of which requests are remembered.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.memory.done.keys().copied()
    }

    /// Versions of open transactions in a container.
    pub fn pending_updates(&self, container: ContainerId) -> u64 {
        self.memory.index.pending_updates(container, &self.memory.ledger)
    }

    /// Figures.
    pub fn stats(&self) -> StoreStats {
        let capacity_bytes = self.log.capacity_bytes() + self.log.bulk_bytes();
        let (scrubbed_bytes, damaged) = self.scrubbed();
        StoreStats {
            scrubbed_bytes,
            damaged,
            used_bytes: capacity_bytes - self.log.space.free_bytes() - self.log.space.held_since_open_bytes(),
            capacity_bytes,
            bulk_used_bytes: match self.log.bulk_bytes() {
                0 => 0,
                bulk_bytes => bulk_bytes - self.log.space.free_in(talea_tier::Tier::Bulk),
            },
            bulk_capacity_bytes: self.log.bulk_bytes(),
            leased_bytes: self.log.space.held_bytes(),
            returning_bytes: self.log.space.returning_bytes(),
            versions: self.memory.index.versions.len(),
            log_bytes: self.log.since_checkpoint_bytes,
            records: self.log.records(),
            items: self.items,
        }
    }

    /// Makes everything before durable (docs/design.md I4): acknowledge only after it returned.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.log.is_dirty() { self.log.flush() } else { Ok(()) }
    }

    /// The lens of a view of a container, if the view can still be read.
    fn lens(&self, container: ContainerId, view: View) -> Result<Lens<'_>, StoreError> {
        if self.memory.index.destroyed.contains(&container) {
            return Err(StoreError::Destroyed(container));
        }
        if self.memory.lost {
            let what = "part of the target's log, so that nothing on it can be trusted to be the newest".to_owned();
            return Err(StoreError::DataLost { what, offset: 0 });
        }
        if self.memory.past.has_lost(container) {
            let what = format!("what this target held of container {container} before it lost its medium");
            return Err(StoreError::DataLost { what, offset: 0 });
        }
        let lens = Lens::new(&self.memory.ledger, view, self.options.plant == Plant::IgnoreHorizonOnRead);
        let asked = lens.stamp();
        match self.memory.index.containers.get(&container) {
            Some(found) if asked < found.floor && !found.kept.contains_key(&asked) => {
                Err(StoreError::BelowFloor { asked, floor: found.floor })
            }
            _ => Ok(lens),
        }
    }

    /// The tag of new versions, if the transaction takes any.
    fn tag(&self, container: ContainerId, order: Order, stamp: Stamp) -> Result<Tag, StoreError> {
        if self.memory.index.destroyed.contains(&container) {
            return Err(StoreError::Destroyed(container));
        }
        let (tx, tied) = match order {
            Order::Auto { tied } => (tied.unwrap_or(TxId(0)), tied.is_some()),
            Order::Pending(tx) if tx.0 == 0 => return Err(StoreError::Bad("transaction 0 does not exist")),
            Order::Pending(tx) => (tx, false),
        };
        if tx.0 != 0 && !self.memory.ledger.admits(tx) && self.options.plant != Plant::KeepZombie {
            let fate = self.memory.ledger.fate(tx).unwrap_or(Fate::Aborted);
            return Err(StoreError::Closed { tx, fate });
        }
        let stamp = if tx.0 != 0 && !tied { Stamp::ZERO } else { stamp };
        if tx.0 == 0 || tied {
            let floor = self.memory.index.containers.get(&container).map_or(Stamp::ZERO, |c| c.floor);
            if stamp <= floor {
                return Err(StoreError::BelowFloor { asked: stamp, floor });
            }
        }
        let minor = self.log.next_lsn() << 16;
        Ok(Tag { stamp, from: stamp, minor, tx, tied })
    }

    /// The tag of versions that belong to a commit at C that is known already.
    fn tag_committed(&self, container: ContainerId, commit: Stamp) -> Result<Tag, StoreError> {
        if self.memory.index.destroyed.contains(&container) {
            return Err(StoreError::Destroyed(container));
        }
        let minor = self.log.next_lsn() << 16;
        Ok(Tag { stamp: commit, from: commit, minor, tx: TxId(0), tied: false })
    }

    /// Nodes of the index, and keys in them, that a look-up of a record of an akey looks at; for tests.
    #[doc(hidden)]
    pub fn cost_of_lookup(&self, at: ObjectRef, dkey: &[u8], akey: &[u8]) -> Option<(u32, u32)> {
        self.memory.index.cost(at, dkey, akey)
    }

    /// Gives the bytes of versions that are gone back to the medium.
    fn free_gone(&mut self) {
        if self.memory.index.versions.has_freed() {
            for place in self.memory.index.versions.take_freed() {
                self.log.free_value(place.offset, place.len.into(), place.inline);
            }
        }
    }
}
