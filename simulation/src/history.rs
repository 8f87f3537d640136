//! What the clients of a simulation did and saw, as they saw it: the checker's only input.
//!
//! Must never hold anything that a real program could not have observed, but for the pool's final word on the outcome of a
//! commit whose answer was lost, and which targets served while they counted as lost.

use std::collections::{BTreeMap, BTreeSet};

use talea_model::{Stamp, Step, TxId};

/// A cell: one record that programs write and read. Small numbers; the workload maps them to objects and keys.
pub type Cell = u32;
/// What a cell holds: unique a write, so that a value tells where it came from. 0: never written.
pub type Value = u64;

/// Outcome of a commit as its caller knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed at C, as a step if it had updates.
    Committed {
        /// C.
        stamp: Stamp,
        /// Its step.
        step: Step,
    },
    /// Refused or aborted.
    Aborted,
    /// No answer, or nobody was left to ask.
    Unknown,
}

/// A transaction as its writers saw it.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Acknowledged writes in the order of their acknowledgement, per cell the last one counts.
    pub writes: BTreeMap<Cell, Value>,
    /// Cells with a write whose answer never came: their value is not known.
    pub uncertain: Vec<Cell>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Default for Transaction {
    fn default() -> Self {
        Self { writes: BTreeMap::new(), uncertain: vec![], outcome: Outcome::Unknown }
    }
}

/// One read of a writer inside of its transaction, of a cell that nobody else writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The transaction.
    pub tx: TxId,
    /// Which cell.
    pub cell: Cell,
    /// What it had written last.
    pub written: Value,
    /// What it saw.
    pub seen: Value,
}

/// One read in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Who read.
    pub reader: u32,
    /// S.
    pub stamp: Stamp,
    /// Which cell.
    pub cell: Cell,
    /// What it held.
    pub value: Value,
}

/// What a program was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// That it is done.
    Done,
    /// That it is not, and will not be.
    Refused,
    /// Nothing: it may be done or not.
    #[default]
    Nothing,
}

/// An independent transaction, or an update without one, as its program saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Optimistic {
    /// What it read, over its base.
    pub reads: Vec<(Cell, Value)>,
    /// What it wrote; each cell once.
    pub writes: Vec<(Cell, Value)>,
    /// What its commit was told.
    pub outcome: Told,
    /// When it was asked for, in nanoseconds of the world's time.
    pub began_ns: u64,
    /// When its commit was answered; `None` for updates without a transaction.
    pub ended_ns: Option<u64>,
}

/// An exclusive creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert {
    /// Which row.
    pub row: u64,
    /// With which value.
    pub value: Value,
    /// What its program was told.
    pub told: Told,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Transactions by number.
    pub transactions: BTreeMap<TxId, Transaction>,
    /// Reads in the order of their answers.
    pub reads: Vec<Read>,
    /// Steps that each follower received, in order.
    pub followed: BTreeMap<u32, Vec<(Step, Stamp)>>,
    /// Steps that the pool says it has, after everything came to rest.
    pub steps: BTreeMap<Step, (TxId, Stamp)>,
    /// Transactions still open after everything came to rest.
    pub open_at_end: Vec<TxId>,
    /// Calls that neither ended nor were cancelled by their process's death by the end of the run.
    pub hanging: Vec<String>,
    /// Independent transactions, and the updates that they may meet.
    pub optimistic: Vec<Optimistic>,
    /// Exclusive creations.
    pub inserts: Vec<Insert>,
    /// What the rows hold after everything came to rest.
    pub rows: BTreeMap<u64, Value>,
    /// How often a transaction was asked for, whatever came of it.
    pub begins_asked: u64,
    /// Number of the last transaction; 0 if nobody has asked.
    pub last_tx: u64,
    /// What a process wrote and was told of, and what it then saw in a new snapshot.
    pub told: Vec<(Value, Value)>,
    /// What a process committed at a stamp, and what it then saw as the latest.
    pub latest: Vec<(Stamp, Value)>,
    /// Transactions that a dead process had written in, and what became of their commit.
    pub orphaned: Vec<(TxId, Told)>,
    /// Rows that are lost, after everything came to rest.
    pub lost_rows: BTreeSet<u64>,
    /// Whether a server lost its media: without that nothing may read as lost.
    pub media_lost: bool,
    /// Reads that were told that what they ask for is lost.
    pub lost_reads: u64,
    /// Updates that were refused because a tier was full.
    pub full: u64,
    /// Reads that were refused although their snapshot was kept.
    pub refused_reads: Vec<String>,
    /// Reads inside of transactions.
    pub inside: Vec<Inside>,
    /// Steps whose files are named where they should not be, or not named.
    pub misnamed: Vec<String>,
    /// Steps whose files were looked up and found.
    pub named: u64,
    /// Values of the short way's programs that nobody wrote where they were seen.
    pub foreign: Vec<String>,
    /// What targets served while the pool's log said that they are down.
    pub served_late: Vec<String>,
    /// Longest time that a reader waited for an answer while all servers were up, in nanoseconds.
    pub longest_read_ns: u64,
}
