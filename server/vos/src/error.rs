//! What a store refuses, and why.

use talea_model::{ContainerId, Fate, KeyError, PoolId, Stamp, TargetId, TxId};
use talea_tier::TierError;
use thiserror::Error;

/// Why a call on a store failed. Nothing of a failed update or punch is kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The medium failed.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// The medium is full.
    #[error(
        "no space: {needed_bytes} bytes are needed and {free_bytes} are free: remove data and the steps that still show them (`talea rm --drop-steps`), drop snapshots, keep fewer steps (--keep-steps), or use a larger tier (--capacity)"
    )]
    NoSpace {
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes free.
        free_bytes: u64,
    },
    /// The medium is full and room is being made: the same call may succeed after more [`background`](crate::Store::background)
    /// work.
    #[error("no space for {needed_bytes} bytes yet: room is being made; try again")]
    RoomToCome {
        /// Bytes needed.
        needed_bytes: u64,
    },
    /// The transaction is closed.
    #[error("transaction {tx} is closed ({fate:?}): its writes are refused; begin a new one")]
    Closed {
        /// The transaction.
        tx: TxId,
        /// What became of it.
        fate: Fate,
    },
    /// A condition does not hold.
    #[error("the key exists already")]
    Exists,
    /// A condition does not hold.
    #[error("the key does not exist")]
    NotFound,
    /// The data does not match its checksum.
    #[error(
        "data of {bytes} bytes arrived with checksum {found:#010x} where {expected:#010x} was announced: send it again"
    )]
    Checksum {
        /// Announced.
        expected: u32,
        /// Computed.
        found: u32,
        /// Bytes of the data.
        bytes: u64,
    },
    /// Stored bytes are not what was written.
    #[error("data lost: {what} ({}): restore it from a copy or an earlier step", talea_tier::Address(*offset))]
    DataLost {
        /// What is lost.
        what: String,
        /// Where it lay (a [`talea_tier::Address`]); 0 if the whole log is meant.
        offset: u64,
    },
    /// A view that aggregation may have passed.
    #[error("stamp {asked} lies below the container's floor {floor} and is not kept: use a later snapshot or step")]
    BelowFloor {
        /// The view's stamp.
        asked: Stamp,
        /// The floor.
        floor: Stamp,
    },
    /// What a transaction has read was written since.
    #[error("what the transaction has read was changed by another one: begin it anew")]
    Conflict,
    /// More transactions than a commit can name.
    #[error("more than {most} open transactions write what the transaction has read: begin it anew when they are over")]
    Crowded {
        /// So many can be named.
        most: usize,
    },
    /// A key is none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The request contradicts itself or a limit.
    #[error("bad request: {0}")]
    Bad(&'static str),
    /// The akey holds something else.
    #[error(
        "the akey holds {found} and was used as {asked}: use it as it was created, or punch it and use another akey"
    )]
    Kind {
        /// What it holds.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// As many requests of one session are remembered as may be.
    #[error(
        "its client has not said of {most} updates of its session that it has their answers, and no more are remembered: it says so \
         when the oldest one under way is over, and then this one may be tried again"
    )]
    Unacknowledged {
        /// How many.
        most: usize,
    },
    /// The container is gone.
    #[error("container {0} was destroyed")]
    Destroyed(ContainerId),
    /// The medium holds something else.
    #[error(
        "the medium holds no Talea store and is not empty: give an empty file or device, or remove this one if it is not needed"
    )]
    Foreign,
    /// The superblock is damaged.
    #[error(
        "both superblocks of the store are damaged: restore the medium, or remove it to start with an empty target"
    )]
    Superblock,
    /// Another version of the format.
    #[error("the store has format version {found}, this program reads version {supported}: use the matching Talea")]
    Version {
        /// On the medium.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Another pool's or target's store.
    #[error(
        "the store belongs to target {found_target} of pool {found_pool:x}, not to target {target} of pool {pool:x}: give each target its own path"
    )]
    Mismatch {
        /// Pool on the medium.
        found_pool: PoolIdHex,
        /// Target on the medium.
        found_target: TargetId,
        /// Pool asked for.
        pool: PoolIdHex,
        /// Target asked for.
        target: TargetId,
    },
    /// The medium is smaller than the store on it.
    #[error(
        "the store was made on {made_bytes} bytes and only {found_bytes} are there now: configure the size it was made with"
    )]
    Shrunk {
        /// Bytes when it was made or last written.
        made_bytes: u64,
        /// Bytes now.
        found_bytes: u64,
    },
    /// A medium lost its beginning.
    #[error(
        "the medium's beginning was overwritten with zeros: records of a log lie behind it. It was left as it is: put back a whole copy, or \
         give the server an empty medium (what was here then reads as DATA_LOST)"
    )]
    Beheaded,
    /// A medium lost its end.
    #[error(
        "the {} was cut off: it was made with {made_bytes} bytes and {found_bytes} are left, so that part of the data is gone. It was left as \
         it is: put back a whole copy, or give the server an empty medium (what was here then reads as DATA_LOST)",
        named(.tier)
    )]
    Cut {
        /// Which.
        tier: talea_tier::Tier,
        /// Bytes when it was made or last written.
        made_bytes: u64,
        /// Bytes that were left.
        found_bytes: u64,
    },
    /// A store whose values carry no checksums.
    #[error(
        "the store was made without checksums, for measurements: what is on it cannot be trusted; remove it to start with an empty target"
    )]
    Unsummed,
    /// The tier for bulk is not the one that the log knows.
    #[error("the bulk tier does not fit the store's log: {0}")]
    Bulk(&'static str),
    /// The store's last write failed; what is on the medium is unknown.
    #[error("an earlier write to the medium failed: the store takes no more updates; restart the server")]
    Broken,
    /// Not built yet.
    #[error("not supported yet: {0}")]
    Unsupported(&'static str),
}

/// A pool id that prints in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolIdHex(pub PoolId);

impl std::fmt::LowerHex for PoolIdHex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.0.fmt(f)
    }
}

fn named(tier: &talea_tier::Tier) -> &'static str {
    if *tier == talea_tier::Tier::Bulk { "bulk tier" } else { "medium" }
}
