//! The words of the store's calls. Plain data; nothing here does anything.

use std::fmt;

use talea_model::{ContainerId, Extent, Key, Oid, PoolId, Position, SessionId, Stamp, TargetId, TxId};

/// Planted bugs that tests must catch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// `flush` returns without flushing.
    SkipFlush,
    /// Pending versions are visible to snapshots: a non-atomic commit.
    IgnoreHorizonOnRead,
    /// Writes of closed transactions are taken.
    KeepZombie,
    /// Values reach the medium only after the records that name them.
    LogBeforeData,
    /// Freed blocks are used again although the durable log names them.
    ReuseEarly,
    /// Checkpoints forget the transactions that are open.
    ForgetPending,
    /// The superblock is written before what it points to is durable.
    EarlySuperblock,
    /// Requests that were done before are done again.
    ForgetSequences,
    /// Conditions always hold.
    Unconditional,
    /// What an independent transaction has read counts as unchanged.
    BlindReads,
    /// Open transactions that overlap what an independent one has read are not named.
    Nameless,
    /// Blocks that are leased are used again at once.
    ForgetLeases,
}

/// How to open a store.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// The pool: written into a fresh store, checked in an old one. 0 checks nothing.
    pub pool: PoolId,
    /// The target: written into a fresh store, checked in an old one together with the pool.
    pub target: TargetId,
    /// A number that no earlier store on this medium had (random); only a fresh store takes it.
    pub nonce: u64,
    /// Bytes of a log segment; 0 chooses by capacity.
    pub segment_bytes: u64,
    /// Bytes of log after which a checkpoint is written; 0 chooses by the segments' size.
    pub checkpoint_bytes: u64,
    /// Bytes that the output of a fetch may come to; more is refused before anything is gathered. 0 is 64 MiB.
    pub max_answer_bytes: u64,
    /// For measurements alone: a fresh store neither verifies values nor keeps checksums of them. It cannot be opened again.
    pub unsummed: bool,
    /// A planted bug, for tests only.
    #[doc(hidden)]
    pub plant: Plant,
}

/// What opening found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The medium was empty.
    pub fresh: bool,
    /// Horizon: all fates up to it are known.
    pub horizon: Position,
    /// No stamp above it was served or given before.
    pub ceiling: Stamp,
    /// Part of the log is lost: this target must say so before it serves; reads give [`StoreError::DataLost`](crate::StoreError).
    pub lost: bool,
}

/// Who asks, for exactly-once (docs/design.md §4 rule 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The session; 0 asks for no deduplication.
    pub session: SessionId,
    /// Number of the request in the session.
    pub sequence: u64,
    /// The caller has seen the answers to all requests below it.
    pub acknowledged_below: u64,
}

/// An object of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// The container.
    pub container: ContainerId,
    /// The object.
    pub oid: Oid,
}

/// What must hold in the view for an update or punch to be done (docs/design.md §4 rule 16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The akey has no value (no record, for arrays).
    Insert,
    /// The akey has a value.
    Update,
    /// The dkey has no akey.
    DkeyInsert,
    /// The dkey has an akey.
    DkeyUpdate,
}

/// What an akey holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// One blob.
    Single,
    /// Records of a fixed size, 1 byte to 1 MiB.
    Array {
        /// Bytes of a record.
        record_bytes: u32,
    },
    /// As [`Single`](Self::Single), and an update is kept only if it is bytewise larger than the value in its view; both must
    /// have the same length.
    SingleMax,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueKind::Single | ValueKind::SingleMax => f.write_str("a single value"),
            ValueKind::Array { record_bytes: 1 } => f.write_str("an array of single bytes"),
            ValueKind::Array { record_bytes } => write!(f, "an array with records of {record_bytes} bytes"),
        }
    }
}

/// One akey of an update.
#[derive(Clone, Copy, Debug)]
pub struct EntryUpdate<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// What the akey holds.
    pub kind: ValueKind,
    /// What must hold before.
    pub condition: Condition,
    /// Extents, for arrays only.
    pub extents: &'a [Extent],
    /// The extents' bytes in order, or the value.
    pub data: &'a [u8],
    /// CRC-32C of `data`, verified before anything is stored.
    pub checksum: u32,
}

/// What to punch.
#[derive(Clone, Copy, Debug)]
pub enum Punch<'a> {
    /// All dkeys.
    Object,
    /// All akeys of a dkey.
    Dkey(&'a [u8]),
    /// One akey.
    Akey {
        /// Distribution key.
        dkey: &'a [u8],
        /// Attribute key.
        akey: &'a [u8],
    },
    /// Records of an array.
    Range {
        /// Distribution key.
        dkey: &'a [u8],
        /// Attribute key.
        akey: &'a [u8],
        /// Records.
        extent: Extent,
    },
}

/// What the pool's log says, as far as a store needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A transaction began.
    Begin(TxId),
    /// It committed at stamp C.
    Commit(TxId, Stamp),
    /// It aborted.
    Abort(TxId),
    /// A container's floor F rose: no view below it except at kept stamps.
    Floor(ContainerId, Stamp),
    /// A stamp below the floor (or later below it) stays readable: named and leased snapshots, bases of open transactions.
    Keep(ContainerId, Stamp),
    /// One [`Keep`](Self::Keep) of the stamp ends; they are counted.
    Release(ContainerId, Stamp),
    /// A container is gone, with all that it held.
    DestroyContainer(ContainerId),
    /// A session ended: its sequence numbers can be forgotten.
    EndSession(SessionId),
    /// A container was made.
    Container(ContainerId),
    /// The pool knows this target under another incarnation from now on. If it knew an earlier one, that one's medium was lost,
    /// and what the containers made so far held here reads as lost, never as a hole (docs/design.md §4 rule 10).
    Incarnation(u64),
}

/// What to fetch of an akey.
#[derive(Clone, Copy, Debug)]
pub enum FetchWhat<'a> {
    /// The value.
    Single,
    /// Records, of whatever size; holes read as zeros.
    Array(&'a [Extent]),
    /// Records of so many bytes: an array of others is not what was asked for, also where it has a hole.
    Records(u32, &'a [Extent]),
}

/// What a fetch found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// A single value: whether there is one. An array: whether any record asked for exists.
    pub found: bool,
    /// Bytes appended to the output.
    pub bytes: u64,
    /// Bytes of a record of the array; 0 for single values, and for arrays that do not exist (nothing is appended then).
    pub record_bytes: u32,
    /// No hole in what was asked for.
    pub filled: bool,
    /// CRC-32C of the bytes appended, made from the stored checksums where it can be.
    pub checksum: u32,
    /// Parts of the index that were looked at for it.
    pub looked: u32,
}

/// What to enumerate.
#[derive(Clone, Copy, Debug)]
pub enum Enumerate<'a> {
    /// Objects of the container (the object asked with is ignored).
    Objects,
    /// Dkeys of the object.
    Dkeys,
    /// Akeys of a dkey.
    Akeys {
        /// Distribution key.
        dkey: &'a [u8],
    },
    /// Runs of records that exist; adjacent ones are joined.
    Extents {
        /// Distribution key.
        dkey: &'a [u8],
        /// Attribute key.
        akey: &'a [u8],
    },
}

/// One thing enumerated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key; an object's id as 16 bytes big-endian; an extent's first record as 8 bytes big-endian. Give the last one as
    /// `after` to go on.
    pub key: Vec<u8>,
    /// The extent, if extents were asked for.
    pub extent: Extent,
    /// What the akey holds, if akeys were asked for (never [`ValueKind::SingleMax`]).
    pub kind: Option<ValueKind>,
}

/// A question about keys.
#[derive(Clone, Copy, Debug)]
pub enum Query<'a> {
    /// The largest dkey.
    MaxDkey,
    /// The smallest dkey.
    MinDkey,
    /// One past the last record of an array.
    ArrayEnd {
        /// Distribution key.
        dkey: &'a [u8],
        /// Attribute key.
        akey: &'a [u8],
    },
    /// The largest integer dkey that holds records of the akey, and one past the last of them.
    MaxDkeyArrayEnd {
        /// Attribute key.
        akey: &'a [u8],
    },
}

/// What an independent transaction has read (docs/design.md §4 rule 15).
#[derive(Clone, Copy, Debug)]
pub enum ReadOf<'a> {
    /// Anything of the object.
    Object,
    /// Which dkeys there are.
    Dkeys {
        /// After this one; empty: from the first.
        after: &'a [u8],
        /// Up to this one, inclusive; `None`: to the last.
        through: Option<&'a [u8]>,
    },
    /// Anything of a dkey.
    Dkey(&'a [u8]),
    /// A value, or records of an array.
    Akey {
        /// Distribution key.
        dkey: &'a [u8],
        /// Attribute key.
        akey: &'a [u8],
        /// Which records; none: all of them.
        extents: &'a [Extent],
    },
}

/// The transaction that asks whether what it has read still holds.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// It; its own writes do not count.
    pub tx: TxId,
    /// S of its base: it saw what is visible there.
    pub base: Stamp,
    /// Up to where what it saw has to hold.
    pub until: Stamp,
}

/// How two snapshots differ in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// It is only in the later one.
    Added,
    /// It was written between them; the bytes may be the same.
    Changed,
    /// It is only in the earlier one.
    Removed,
}

/// A place in the order of differences.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiffPlace {
    /// Object.
    pub oid: Oid,
    /// Distribution key.
    pub dkey: Vec<u8>,
    /// Attribute key.
    pub akey: Vec<u8>,
    /// First record of an array, or the last one that is done with, where it says where to go on; the largest number for a single value, and
    /// behind everything of the akey.
    pub index: u64,
}

/// One difference: a value, or a run of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub place: DiffPlace,
    /// Bytes of a record; 0 for a single value.
    pub record_bytes: u32,
    /// The records; of a single value: empty.
    pub extent: Extent,
    /// How.
    pub how: Differs,
}

/// The answer to a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The dkey found, if a dkey was asked for and there is one.
    pub dkey: Option<Key>,
    /// One past the last record; 0 if there is none.
    pub end: u64,
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all tiers that are not free, the log included.
    pub used_bytes: u64,
    /// Bytes of all tiers.
    pub capacity_bytes: u64,
    /// Bytes of the bulk tier that are not free; 0 if there is one tier.
    pub bulk_used_bytes: u64,
    /// Bytes of the bulk tier; 0 if there is one tier.
    pub bulk_capacity_bytes: u64,
    /// Bytes that are free but for leases.
    pub leased_bytes: u64,
    /// Of those in use, bytes that nothing names any more: free after the next checkpoint, or when leases end.
    pub returning_bytes: u64,
    /// Versions in the index.
    pub versions: u64,
    /// Bytes of log that a restart would replay.
    pub log_bytes: u64,
    /// Log records written since the store was opened.
    pub records: u64,
    /// Columns, values and nodes that background work has looked at since the store was opened.
    pub items: u64,
    /// Bytes that the scrubber has verified since the store was opened.
    pub scrubbed_bytes: u64,
    /// Places that the scrubber knows to be damaged.
    pub damaged: u64,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// A superblock; it was written anew.
    Superblock,
    /// The bulk tier's header; it was written anew.
    BulkHeader,
    /// A record of the log; the next checkpoint takes its place.
    Log,
    /// A record of the checkpoint; the next one takes its place.
    Checkpoint,
    /// A value; it reads as DATA_LOST.
    Value,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superblock => "a superblock, which is written anew",
            Self::BulkHeader => "the bulk tier's header, which is written anew",
            Self::Log => "a record of the log, whose place the next checkpoint takes",
            Self::Checkpoint => "a record of the checkpoint, whose place the next one takes",
            Self::Value => "a value, which reads as DATA_LOST; read an earlier step, and check the machine",
        })
    }
}

/// Bytes of the medium that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What they are.
    pub kind: DamageKind,
    /// Where they begin (a [`talea_tier::Address`]).
    pub offset: u64,
    /// How many there may be.
    pub bytes: u64,
}

/// What a portion of scrubbing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes verified, about.
    pub bytes: u64,
    /// Passes over everything that have ended.
    pub passes: u64,
    /// Places known to be damaged now.
    pub damaged: u64,
}

/// Where the records of an array lie on the medium, as a snapshot sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Bytes of a record; 0 if there is no such array.
    pub record_bytes: u32,
    /// One past the last record that this answers for.
    pub end: u64,
    /// What there is, in order; between them are holes.
    pub spans: Vec<Span>,
}

/// Records that lie together, inside one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// First record.
    pub index: u64,
    /// Records, at least 1.
    pub count: u64,
    /// Where the version's first byte lies on the medium.
    pub offset: u64,
    /// Bytes of the version.
    pub bytes: u32,
    /// Bytes of the version before the first record.
    pub skip_bytes: u32,
    /// CRC-32C of those of the version's granules that hold records of the span.
    pub checksums: Vec<u32>,
}
