//! Numbers and structures of `talea.h`. Values never change their meaning; structures only change with the soname.

use std::ffi::{c_char, c_int, c_void};

/// What a call returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum talea_code_t {
    /// Done.
    TALEA_OK = 0,
    /// Bad argument: null pointer, unknown flag, wrong size or handle.
    TALEA_ARGUMENT = 1,
    /// The path does not name anything that Talea can open.
    TALEA_PATH = 2,
    /// No such file, directory, object, key, snapshot or step.
    TALEA_NOT_FOUND = 3,
    /// Exists already.
    TALEA_EXISTS = 4,
    /// No such container.
    TALEA_NO_CONTAINER = 5,
    /// No system of this user is running here.
    TALEA_NO_SYSTEM = 6,
    /// Wrong secret, wrong user, or no right to do this.
    TALEA_ACCESS = 7,
    /// Write to a read-only handle, snapshot or step view.
    TALEA_READ_ONLY = 8,
    /// The pool is full.
    TALEA_NO_SPACE = 9,
    /// A server is lost; the text names it.
    TALEA_SERVER_LOST = 10,
    /// The deadline passed.
    TALEA_DEADLINE = 11,
    /// The epoch is aborted or closed.
    TALEA_ABORTED = 12,
    /// Not supported yet.
    TALEA_UNSUPPORTED = 13,
    /// Bytes or log did not verify.
    TALEA_DATA_LOST = 14,
    /// A foreign protocol or library version.
    TALEA_VERSION = 15,
    /// A key, name or request beyond its limit.
    TALEA_TOO_LONG = 16,
    /// The snapshot or step is below retention.
    TALEA_RETENTION = 17,
    /// Outcome of a wait: the deadline passed and the producer may still make steps.
    TALEA_NOT_READY = 18,
    /// Outcome of a wait: no step will follow.
    TALEA_END = 19,
    /// Outcome of a wait: the producer has ended without a word.
    TALEA_PRODUCER_LOST = 20,
    /// A condition of an update did not hold, or a transaction conflicted.
    TALEA_CONFLICT = 21,
    /// Is a directory, or is none.
    TALEA_KIND = 22,
    /// A directory is not empty.
    TALEA_NOT_EMPTY = 23,
    /// Updates of the epoch are in flight; nothing was done: take their ends, then call again.
    TALEA_IN_FLIGHT = 24,
    /// Anything else; the text tells.
    TALEA_OTHER = 99,
}

/// A connection to a system.
pub struct talea_system_t {
    _private: [u8; 0],
}

/// An open container.
pub struct talea_container_t {
    _private: [u8; 0],
}

/// This process's part of an open collective epoch.
pub struct talea_epoch_t {
    _private: [u8; 0],
}

/// A leased snapshot.
pub struct talea_snapshot_t {
    _private: [u8; 0],
}

/// A follower of a container's steps.
pub struct talea_subscription_t {
    _private: [u8; 0],
}

/// Operations in flight.
pub struct talea_queue_t {
    _private: [u8; 0],
}

/// State of a container and of the servers that hold it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct talea_container_info_t {
    /// Servers that serve.
    pub servers: u64,
    /// Targets that serve.
    pub targets: u64,
    /// Last committed step, 0 if there is none.
    pub steps: u64,
    /// Open transactions.
    pub open_epochs: u64,
    /// Updates of open transactions, over all targets.
    pub pending_updates: u64,
    /// Bytes written since the servers started, over all targets.
    pub bytes_written: u64,
}

/// A committed step, as a follower is told of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct talea_step_t {
    /// Its number; the first is 1.
    pub step: u64,
    /// Its stamp: a hybrid logical clock, microseconds since 1970 in the upper 52 bits.
    pub stamp: u64,
    /// The container's last step by now.
    pub latest_step: u64,
}

/// An object id: 32 bits of Talea's (its class) and 96 of the program's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct talea_oid_t {
    /// Upper half; its upper 32 bits are the class.
    pub hi: u64,
    /// Lower half.
    pub lo: u64,
}

/// A run of records of an array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct talea_extent_t {
    /// First record.
    pub index: u64,
    /// Number of records, at least 1.
    pub count: u64,
}

/// A pair of keys; both have 1 to 4096 bytes. In a punch or a list, no bytes stand for "all".
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_key_t {
    /// Distribution key.
    pub dkey: *const c_void,
    /// Its length in bytes.
    pub dkey_bytes: usize,
    /// Attribute key.
    pub akey: *const c_void,
    /// Its length in bytes.
    pub akey_bytes: usize,
}

/// One value or array of an update.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_update_t {
    /// Where.
    pub key: talea_key_t,
    /// Bytes of a record of an array; 0: a single value.
    pub record_bytes: u32,
    /// Zero, or one of TALEA_IF_*.
    pub condition: u32,
    /// Extents of an array; unused for a single value.
    pub extents: *const talea_extent_t,
    /// Number of extents.
    pub extent_count: usize,
    /// The value, or the extents' records in order.
    pub data: *const c_void,
    /// Length in bytes.
    pub data_bytes: usize,
}

/// What a follower has not received stays, whatever space it takes.
pub const TALEA_LAGGING_KEEP: u32 = 0;
/// It goes, and the follower is told of the gap (TALEA_RETENTION).
pub const TALEA_LAGGING_DROP: u32 = 1;
/// The next commit waits for the follower, as long as it lives.
pub const TALEA_LAGGING_BLOCK: u32 = 2;

/// Condition: the akey must not exist.
pub const TALEA_IF_ABSENT: u32 = 1;
/// Condition: the akey must exist.
pub const TALEA_IF_PRESENT: u32 = 2;

/// One value or array of a fetch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_fetch_t {
    /// Where.
    pub key: talea_key_t,
    /// Bytes of a record of an array; 0: a single value.
    pub record_bytes: u32,
    /// Set: 1 if there is a value.
    pub found: u32,
    /// Extents of an array; unused for a single value.
    pub extents: *const talea_extent_t,
    /// Number of extents.
    pub extent_count: usize,
    /// Takes the value, or the extents' records in order, holes as zeros.
    pub data: *mut c_void,
    /// Its length in bytes.
    pub data_bytes: usize,
    /// Set: bytes of a single value.
    pub value_bytes: usize,
}

/// Gets one name of a list; returns 0 to go on, anything else to stop.
pub type talea_name_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, name: *const c_void, name_bytes: usize) -> c_int>;

/// Called when an operation has ended, by the thread that polls its queue: `code` is a talea_code_t, and `talea_error()` has the
/// text.
pub type talea_done_fn = Option<unsafe extern "C" fn(context: *mut c_void, code: c_int)>;

/// A piece of memory. It is laid out as `struct iovec` of <sys/uio.h>, and an array of those may be given in its place by a cast.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_iovec_t {
    /// Where it begins.
    pub base: *mut c_void,
    /// Its size in bytes; 0 is fine.
    pub bytes: usize,
}

/// As talea_update_t, with the data in several pieces of memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_update_iov_t {
    /// Where.
    pub key: talea_key_t,
    /// Bytes of a record of an array; 0: a single value.
    pub record_bytes: u32,
    /// Zero, or one of TALEA_IF_*.
    pub condition: u32,
    /// Extents of an array; unused for a single value.
    pub extents: *const talea_extent_t,
    /// Number of extents.
    pub extent_count: usize,
    /// The pieces, which are the records of the extents, or the value, one after another. A piece may end anywhere.
    pub iov: *const talea_iovec_t,
    /// Number of pieces.
    pub iov_count: usize,
}

/// As talea_fetch_t, with the data put into several pieces of memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_fetch_iov_t {
    /// Where.
    pub key: talea_key_t,
    /// Bytes of a record of an array; 0: a single value.
    pub record_bytes: u32,
    /// Set: 1 if there is a value, or any record in the extents, else 0.
    pub found: u32,
    /// Extents of an array; unused for a single value.
    pub extents: *const talea_extent_t,
    /// Number of extents.
    pub extent_count: usize,
    /// The pieces that get the records of the extents, whose size they have together (holes read as zeros), or as much of a value as fits.
    pub iov: *const talea_iovec_t,
    /// Number of pieces.
    pub iov_count: usize,
    /// Set: size of the value, also if the pieces are smaller.
    pub value_bytes: usize,
}

/// The end of an operation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_event_t {
    /// What was given when it was started.
    pub context: *mut c_void,
    /// What became of it: a talea_code_t.
    pub code: c_int,
    /// Text for people, NULL if all is well; lives until the next poll of the queue.
    pub text: *const c_char,
}

/// It is only in the later snapshot.
pub const TALEA_ADDED: u32 = 1;
/// It was written between the snapshots.
pub const TALEA_CHANGED: u32 = 2;
/// It is only in the earlier snapshot.
pub const TALEA_REMOVED: u32 = 3;

/// One difference between two snapshots: a value, or a run of records.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct talea_difference_t {
    /// Its object.
    pub oid: talea_oid_t,
    /// Where in it.
    pub key: talea_key_t,
    /// Bytes of a record of an array; 0: a single value.
    pub record_bytes: u32,
    /// TALEA_ADDED, TALEA_CHANGED or TALEA_REMOVED.
    pub how: u32,
    /// The records of an array.
    pub extent: talea_extent_t,
}

/// Gets one difference; returns 0 to go on, anything else to stop.
pub type talea_difference_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, difference: *const talea_difference_t) -> c_int>;
