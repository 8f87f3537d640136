//! Messages of the data plane: requests to one target and their replies.
//!
//! A message is a fixed head, entries of variable length, and the data, in this order; docs/formats.md has the offsets. The
//! decoded forms borrow from the message: no byte of data is copied here.

pub mod diff;
pub mod prepare;
pub mod reply;
pub mod request;

pub use diff::{Diff, DiffPlace, Difference, Differences, Differs};
pub use prepare::{Prepare, Read, ReadOf};
pub use reply::{Fetched, Histogram, Located, Reply, ReplyBody, ReplyHead, Share, Span, StoreStat};
pub use request::{Body, Entry, EnumerateKind, Extents, Head, More, QueryKind, Request};

use crate::WireError;
use talea_model::{LeaseId, Order, Position, Stamp, TxId, View};

/// Kind of an akey's value. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// One blob.
    Single,
    /// One blob, kept only if it is bytewise larger than the present one (sizes as big-endian numbers).
    SingleMax,
    /// Records of a fixed size, addressed by index.
    Array {
        /// Bytes of a record, at least 1.
        record_bytes: u32,
    },
}

/// Condition of an update or punch, judged in the update's own view (rule 16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Condition {
    /// None.
    #[default]
    None = 0,
    /// The akey must not exist.
    Insert = 1,
    /// The akey must exist.
    Update = 2,
    /// The dkey must not exist.
    DkeyInsert = 3,
    /// The dkey must exist.
    DkeyUpdate = 4,
}

impl Condition {
    fn from_u8(number: u8) -> Result<Self, WireError> {
        use Condition::*;
        [None, Insert, Update, DkeyInsert, DkeyUpdate]
            .into_iter()
            .find(|condition| *condition as u8 == number)
            .ok_or(WireError::Malformed("unknown condition"))
    }
}

/// A view or order as it stands in a head: kind, tx, stamp, position, lease.
type Fields = (u8, u64, u64, u64, u64);

pub(crate) fn view_fields(view: View) -> Fields {
    match view {
        View::Latest => (0, 0, 0, 0, 0),
        View::Snapshot { stamp, position, lease } => (1, 0, stamp.0, position.0, lease.0),
        View::Inside { tx, base, position } => (2, tx.0, base.0, position.0, 0),
    }
}

pub(crate) fn view_of((kind, tx, stamp, position, lease): Fields) -> Result<View, WireError> {
    let (stamp, position) = (Stamp(stamp), Position(position));
    match kind {
        0 => Ok(View::Latest),
        1 => Ok(View::Snapshot { stamp, position, lease: LeaseId(lease) }),
        2 if tx != 0 => Ok(View::Inside { tx: TxId(tx), base: stamp, position }),
        _ => Err(WireError::Malformed("unknown view")),
    }
}

pub(crate) fn order_fields(order: Option<Order>) -> (u8, u64) {
    match order {
        None => (0, 0),
        Some(Order::Auto { tied: None }) => (1, 0),
        Some(Order::Auto { tied: Some(tx) }) => (2, tx.0),
        Some(Order::Pending(tx)) => (3, tx.0),
    }
}

pub(crate) fn order_of(kind: u8, tx: u64) -> Result<Option<Order>, WireError> {
    match (kind, tx) {
        (0, _) => Ok(None),
        (1, 0) => Ok(Some(Order::Auto { tied: None })),
        (2, 1..) => Ok(Some(Order::Auto { tied: Some(TxId(tx)) })),
        (3, 1..) => Ok(Some(Order::Pending(TxId(tx)))),
        _ => Err(WireError::Malformed("unknown order")),
    }
}

/// Takes `count` bytes off the front of `bytes`.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], WireError> {
    let (front, rest) = bytes.split_at_checked(count).ok_or(WireError::Malformed("shorter than its lengths say"))?;
    *bytes = rest;
    Ok(front)
}
