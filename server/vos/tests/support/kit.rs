//! Short words for the calls that tests make.

use talea_model::{ContainerId, Extent, ObjectClass, Oid, Order, SessionId, Stamp, View};
use talea_vos::checksum::crc32c;
use talea_vos::{Caller, Condition, EntryUpdate, FetchWhat, ObjectRef, Store, StoreError, ValueKind};

pub(crate) const BYTES: ValueKind = ValueKind::Array { record_bytes: 1 };
pub(crate) const AUTO: Order = Order::Auto { tied: None };
pub(crate) const NOBODY: Caller = Caller { session: SessionId(0), sequence: 0, acknowledged_below: 0 };

pub(crate) fn at(user: u128) -> ObjectRef {
    ObjectRef { container: ContainerId(1), oid: Oid::new(ObjectClass::S1, user) }
}

pub(crate) fn entry<'a>(dkey: &'a [u8], akey: &'a [u8], data: &'a [u8]) -> EntryUpdate<'a> {
    let (kind, condition) = (ValueKind::Single, Condition::None);
    EntryUpdate { dkey, akey, kind, condition, extents: &[], data, checksum: crc32c(data) }
}

pub(crate) fn write(store: &mut Store, order: Order, stamp: u64, index: u64, data: &[u8]) -> Result<(), StoreError> {
    let extents = [Extent { index, count: data.len() as u64 }];
    let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(b"d", b"a", data) };
    store.update(at(1), order, Stamp(stamp), View::Latest, NOBODY, &[entry])
}

pub(crate) fn read(store: &Store, view: View, index: u64, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let what = [Extent { index, count }];
    let fetched = store.fetch(at(1), view, b"d", b"a", FetchWhat::Array(&what), &mut out).unwrap();
    assert_eq!(fetched.bytes, out.len() as u64);
    if fetched.record_bytes > 0 {
        assert_eq!(fetched.checksum, crc32c(&out));
    }
    out
}

pub(crate) fn put(store: &mut Store, order: Order, stamp: u64, key: &[u8], data: &[u8]) -> Result<(), StoreError> {
    store.update(at(1), order, Stamp(stamp), View::Latest, NOBODY, &[entry(b"d", key, data)])
}

pub(crate) fn get(store: &Store, view: View, key: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    store.fetch(at(1), view, b"d", key, FetchWhat::Single, &mut out).unwrap().found.then_some(out)
}
