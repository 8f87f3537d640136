//! What files need of a container: the seam between this crate and the client, small enough for an obvious model in tests.
//!
//! The client's implementation is in [`client`]. Nothing here knows what a file is.

use std::sync::Arc;

use talea_model::{Extent, ObjectClass, Oid, Stamp, Step, Summary, TxId, View};
pub use talea_wire::data::{Condition, ValueKind};
pub use talea_wire::log::SnapshotAt;

use crate::Fault;
use crate::inode::SizeRecord;

pub mod client;
#[cfg(test)]
pub(crate) mod memory;

/// The system that a process is connected to.
pub trait System: Send + Sync {
    /// Opens a container by name.
    fn container(&self, name: &str) -> Result<Arc<dyn Backing>, Fault>;
    /// A container that another process opened, from its [`Backing::blob`]; asks nobody.
    fn join(&self, blob: &[u8]) -> Result<Arc<dyn Backing>, Fault>;
}

/// One akey to write.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// Kind of value.
    pub kind: ValueKind,
    /// Condition.
    pub condition: Condition,
    /// Extents of an array, in the order of the data.
    pub extents: Vec<Extent>,
    /// The value, or the extents' records.
    pub data: &'a [u8],
}

/// One akey to read.
#[derive(Debug)]
pub struct Fetch<'a> {
    /// Distribution key.
    pub dkey: &'a [u8],
    /// Attribute key.
    pub akey: &'a [u8],
    /// Extents of an array of bytes; empty for a single value.
    pub extents: Vec<Extent>,
    /// Takes the records (holes as zeros), or the value.
    pub out: &'a mut [u8],
    /// Set: whether there is a value.
    pub found: bool,
    /// Set: bytes of a single value.
    pub bytes: usize,
}

/// What a punch removes.
#[derive(Clone, Copy, Debug)]
pub enum Punch<'a> {
    /// The whole object.
    Object,
    /// A dkey.
    Dkey(&'a [u8]),
    /// A range of an array.
    Range {
        /// Distribution key.
        dkey: &'a [u8],
        /// Attribute key.
        akey: &'a [u8],
        /// Records.
        extent: Extent,
    },
}

/// A portion of an enumeration, in order.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Names.
    pub names: Vec<Vec<u8>>,
    /// Whether more follow.
    pub more: bool,
}

/// A container, as files need it. All calls block until they are done or their deadline has passed.
pub trait Backing: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;
    /// Bytes from which any process of the system can [`System::join`] it.
    fn blob(&self) -> Vec<u8>;
    /// Default class of file data.
    fn default_class(&self) -> ObjectClass;
    /// Default chunk of files in bytes.
    fn default_chunk_bytes(&self) -> u64;
    /// Targets of the pool's map as this process knows it.
    fn targets(&self) -> usize;
    /// This process's clock; carried by reductions (rule 1).
    fn hlc(&self) -> Stamp;
    /// Advances this process's clock past a stamp that another process sent.
    fn observe(&self, stamp: Stamp);
    /// The key for the names of a step's files that lies where a dkey of an object does.
    fn manifest_slot(&self, oid: Oid, dkey: &[u8]) -> Result<u32, Fault>;
    /// An autocommit of one dkey.
    fn update(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault>;
    /// An autocommit that punches; of an object on several targets a transaction.
    fn punch(&self, oid: Oid, what: Punch<'_>, condition: Condition) -> Result<(), Fault>;
    /// Reads.
    fn fetch(&self, view: View, oid: Oid, entries: &mut [Fetch<'_>]) -> Result<(), Fault>;
    /// dkeys of an object after one, in order over all targets.
    fn dkeys(&self, view: View, oid: Oid, after: Option<&[u8]>, limit: usize) -> Result<Names, Fault>;
    /// One past the last record of an array; 0 if there is none.
    fn array_end(&self, view: View, oid: Oid, dkey: &[u8], akey: &[u8]) -> Result<u64, Fault>;
    /// The largest integer dkey that holds the array akey, and one past its last record.
    fn last_array(&self, view: View, oid: Oid, akey: &[u8]) -> Result<Option<(u64, u64)>, Fault>;
    /// Begins a transaction.
    fn begin(&self, collective: bool) -> Result<Box<dyn Epoch>, Fault>;
    /// Begins an independent transaction: what is read in its view and has changed when it commits is a [`Conflict`].
    ///
    /// [`Conflict`]: talea_abi::Code::Conflict
    fn tx_open(&self) -> Result<Box<dyn Epoch>, Fault>;
    /// The epoch that another process's [`Epoch::blob`] names.
    fn join(&self, blob: &[u8]) -> Result<Box<dyn Epoch>, Fault>;
    /// Leases a snapshot.
    fn snapshot(&self, at: SnapshotAt) -> Result<Box<dyn Snapshot>, Fault>;
}

/// A leased snapshot; dropping it ends the lease.
pub trait Snapshot: Send + Sync {
    /// What reads at it carry.
    fn view(&self) -> View;
    /// Last step that it contains.
    fn step(&self) -> Step;
}

/// This process's part of an open transaction. Dropping it without more leaves it.
pub trait Epoch: Send + Sync {
    /// Its transaction.
    fn tx(&self) -> TxId;
    /// What reads inside carry.
    fn view(&self) -> View;
    /// Last step that its base contains.
    fn base_step(&self) -> Step;
    /// Bytes from which any process can [`Backing::join`] it.
    fn blob(&self) -> Vec<u8>;
    /// Writes pending versions; returns when the targets have applied them.
    fn update(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault>;
    /// The same for several objects, together.
    fn update_all(&self, updates: &[(Oid, &[Update<'_>])]) -> Result<(), Fault> {
        updates.iter().try_for_each(|(oid, entries)| self.update(*oid, entries))
    }
    /// An autocommit of one dkey that shares the transaction's fate: latest reads see it at once.
    fn update_tied(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault>;
    /// Punches inside the transaction.
    fn punch(&self, oid: Oid, what: Punch<'_>) -> Result<(), Fault>;
    /// What this process touched in it so far; an error while an update is in flight.
    fn summary(&self) -> Result<Summary, Fault>;
    /// Proposes the commit, with the key under which files were named; an independent transaction takes no summary and no next.
    fn commit(&self, summary: &Summary, manifest: Option<u32>, next: bool) -> Result<Done, Refused>;
    /// Aborts it.
    fn abort(&self, reason: &str) -> Result<(), Fault>;
    /// Tells that its transaction is known to be closed: there is nothing to leave.
    fn closed(self: Box<Self>);
    /// Whether it is no transaction: each update is visible to all when it returns.
    fn autocommits(&self) -> bool {
        false
    }
    /// Another process has set the file's size.
    fn resized(&self, _size: SizeRecord) {}
}

/// A commit that went through.
pub struct Done {
    /// C.
    pub stamp: Stamp,
    /// The container's last step.
    pub step: Step,
    /// The next epoch, if asked for.
    pub next: Option<Box<dyn Epoch>>,
}

/// A commit that did not; its transaction is closed or will be.
pub struct Refused {
    /// Why.
    pub fault: Fault,
    /// The next epoch, if it could be begun all the same.
    pub next: Option<Box<dyn Epoch>>,
}
