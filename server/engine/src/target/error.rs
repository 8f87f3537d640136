//! What a store's error is on the wire.

use talea_model::{KeyError, TargetId};
use talea_tier::TierError;
use talea_vos::StoreError;
use talea_wire::data::request::Head;
use talea_wire::{Refusal, RefusalCode};

/// The refusal that tells a client of an error: what, where and what to do.
pub(super) fn refusal(target: TargetId, head: &Head, error: &StoreError) -> Refusal {
    let code = match error {
        StoreError::NoSpace { .. } | StoreError::Tier(TierError::NoRoom { .. }) => RefusalCode::NoSpace,
        StoreError::RoomToCome { .. } | StoreError::Unacknowledged { .. } => RefusalCode::Busy,
        StoreError::Closed { .. } => RefusalCode::Closed,
        StoreError::Exists => RefusalCode::Exists,
        StoreError::NotFound => RefusalCode::NotFound,
        StoreError::Checksum { .. } => RefusalCode::Checksum,
        StoreError::DataLost { .. } => RefusalCode::DataLost,
        StoreError::BelowFloor { .. } => RefusalCode::Retention,
        StoreError::Key(KeyError::TooLong(_)) => RefusalCode::TooLong,
        StoreError::Key(KeyError::Empty) | StoreError::Bad(_) | StoreError::Kind { .. } => RefusalCode::Argument,
        StoreError::Destroyed(_) => RefusalCode::NoContainer,
        StoreError::Conflict | StoreError::Crowded { .. } => RefusalCode::Conflict,
        StoreError::Unsupported(_) => RefusalCode::Unsupported,
        _ => RefusalCode::Internal,
    };
    Refusal::new(code, format!("target {target}, container {}, object {}: {error}", head.container, head.oid))
}
