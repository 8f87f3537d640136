//! Ids, keys, extents, stamps, classes, placement: the vocabulary of Talea (docs/design.md §1).
//!
//! Pure data and arithmetic. Must never do I/O, read a clock or draw randomness, and knows no other crate of Talea.
#![forbid(unsafe_code)]

pub mod class;
pub mod extent;
pub mod id;
pub mod key;
pub mod ledger;
pub mod limit;
pub mod manifest;
pub mod map;
pub mod placement;
pub mod pool_state;
pub mod process;
pub mod size;
pub mod stamp;
pub mod summary;
pub mod view;

pub use class::ObjectClass;
pub use extent::Extent;
pub use id::{ContainerId, LeaseId, Oid, PoolId, Position, ServerId, SessionId, Step, TargetId, TxId};
pub use key::{Key, KeyError};
pub use ledger::{Fate, Ledger};
pub use manifest::{Manifest, WrittenFile};
pub use map::{MapVersion, PoolMap, ServerInfo, TargetInfo, TargetState};
pub use placement::Layout;
pub use pool_state::{ContainerState, PoolState};
pub use process::Process;
pub use stamp::{Hlc, Stamp};
pub use summary::{Cause, Summary, Touched};
pub use view::{Order, View};
