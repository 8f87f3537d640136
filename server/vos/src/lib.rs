//! The versioned object store of one target (docs/design.md §5).
//!
//! Owns: object → dkey → akey → versions in memory, and the log on a medium from which they can be rebuilt.
//! Must never: read a clock, draw randomness, start a thread, or talk to anybody: stamps and fates are passed in, and the
//! same calls give the same store.
#![forbid(unsafe_code)]

pub mod api;
pub mod checksum;
pub mod error;
mod index;
mod log;
mod space;
mod spaces;
pub mod store;

pub use api::{
    Answer, Caller, Change, Condition, Damage, DamageKind, DiffPlace, Difference, Differs, EntryUpdate, Enumerate,
    FetchWhat, Fetched, Listed, Located, ObjectRef, Plant, Punch, Query, ReadOf, Reader, Recovered, Scrubbed, Span,
    StoreOptions, StoreStats, ValueKind,
};
pub use error::StoreError;
pub use store::{Ask, INLINE_BYTES, Judged, LOOKS, ReadSet, Store, Walk, inspect};
