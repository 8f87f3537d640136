//! Every decoder takes any bytes: no panic, no allocation ahead of its checks, and what it takes it gives back.
//! The bodies are shared with the fuzzer (`make fuzz`).

use proptest::prelude::*;
use talea_model::{
    ContainerId, Extent, LeaseId, MapVersion, Oid, Order, Position, SessionId, Stamp, TargetId, TxId, View,
};
use talea_wire::data::{
    Body, Condition, Diff, DiffPlace, Difference, Differences, Differs, Entry, EnumerateKind, Fetched, Head, Prepare,
    QueryKind, Read, ReadOf, Reply, ReplyBody, ReplyHead, Request, ValueKind,
};
use talea_wire::{Refusal, RefusalCode, fuzz};

fn view() -> impl Strategy<Value = View> {
    prop_oneof![
        Just(View::Latest),
        any::<(u64, u64, u64)>().prop_map(|(s, p, l)| View::Snapshot {
            stamp: Stamp(s),
            position: Position(p),
            lease: LeaseId(l)
        }),
        (1u64.., any::<u64>(), any::<u64>()).prop_map(|(t, b, p)| View::Inside {
            tx: TxId(t),
            base: Stamp(b),
            position: Position(p)
        }),
    ]
}

fn head(order: Option<Order>) -> impl Strategy<Value = Head> {
    (any::<[u64; 6]>(), any::<[u32; 3]>(), any::<u128>(), view()).prop_map(move |(n, m, oid, view)| Head {
        id: n[0],
        session: SessionId(n[1]),
        sequence: n[2],
        acknowledged_below: n[3],
        hlc: Stamp(n[4]),
        container: ContainerId(n[5]),
        map_version: MapVersion(m[0]),
        target: TargetId(m[1]),
        deadline_ms: m[2],
        oid: Oid(oid),
        order,
        view,
    })
}

fn round_trip(request: &Request<'_>) -> Result<(), TestCaseError> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    request.data().for_each(|data| bytes.extend_from_slice(data));
    prop_assert_eq!(&Request::decode(&bytes).unwrap(), request);
    for end in 0..bytes.len() {
        prop_assert!(Request::decode(&bytes[..end]).is_err(), "a cut message is refused");
    }
    Ok(())
}

proptest! {
    #[test]
    fn updates_round_trip(
        head in head(Some(Order::Pending(TxId(4)))),
        value in prop::collection::vec(any::<u8>(), 0..40),
        (index, count) in (any::<u32>(), 1u64..5),
    ) {
        let records = vec![7u8; count as usize * 3];
        let entries = vec![
            Entry { dkey: b"d", akey: b"a", kind: ValueKind::Single, condition: Condition::Insert, extents: Default::default(), checksum: 9, data: &value, more: Default::default() },
            Entry { dkey: b"d", akey: b"b", kind: ValueKind::Array { record_bytes: 3 }, condition: Condition::None, extents: [Extent::new(index as u64, count).unwrap()].into_iter().collect(), checksum: 1, data: &records, more: Default::default() },
        ];
        round_trip(&Request { head, body: Body::Update(entries) })?;
    }

    #[test]
    fn reads_round_trip(head in head(None), after in prop::collection::vec(any::<u8>(), 0..20), limit in any::<u16>()) {
        round_trip(&Request { head, body: Body::Enumerate { kind: EnumerateKind::Dkeys, dkey: b"", akey: b"", after: &after, limit } })?;
        round_trip(&Request { head, body: Body::Query { kind: QueryKind::ArrayEnd, dkey: b"x", akey: b"y" } })?;
        round_trip(&Request { head, body: Body::Locate { dkey: b"x", akey: b"y", extent: Extent::new(limit.into(), 9).unwrap() } })?;
        for read_in_place in [0, 7, u64::MAX - 1] {
            round_trip(&Request { head, body: Body::Stat { read_in_place } })?;
        }
        let oid = Oid(u128::from(limit));
        let key = || after.clone();
        let reads = [
            ReadOf::Object,
            ReadOf::Dkeys { after: key(), through: (limit % 2 == 0).then(key) },
            ReadOf::Dkey(key()),
            ReadOf::Akey { dkey: key(), akey: key(), extents: Extent::new(3, limit.into()).into_iter().collect() },
        ];
        let reads = reads.into_iter().map(|of| Read { oid, of }).collect();
        round_trip(&Request { head, body: Body::Prepare(Box::new(Prepare { until: Stamp(u64::from(limit)), reads })) })?;
        let place = DiffPlace { oid, dkey: key(), akey: key(), index: 5 };
        let diff = Diff { from: Stamp(7), position: Position(8), after: (limit % 2 == 0).then_some(place), limit };
        round_trip(&Request { head, body: Body::Diff(Box::new(diff)) })?;
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz::all(&bytes);
    }

    #[test]
    fn almost_right_bytes_are_taken(head in head(None), at in 0usize..200, flip in 1u8..) {
        let entry = Entry { dkey: b"d", akey: b"b", kind: ValueKind::Array { record_bytes: 3 }, condition: Condition::None, extents: [Extent::new(1, 2).unwrap()].into_iter().collect(), checksum: 1, data: b"", more: Default::default() };
        let mut bytes = Vec::new();
        Request { head, body: Body::Fetch(vec![entry]) }.encode(&mut bytes);
        let length = bytes.len();
        bytes[at % length] ^= flip;
        fuzz::all(&bytes);
    }
}

#[test]
fn punches_need_their_keys() {
    let order = Some(Order::Auto { tied: None });
    let head = Head {
        id: 1,
        session: SessionId(2),
        sequence: 3,
        acknowledged_below: 3,
        hlc: Stamp(4),
        map_version: MapVersion(1),
        target: TargetId(0),
        deadline_ms: 1,
        container: ContainerId(1),
        oid: Oid(1),
        order,
        view: View::Latest,
    };
    let punch = |dkey, akey, extent| {
        let mut bytes = Vec::new();
        Request { head, body: Body::Punch { dkey, akey, extent, condition: Condition::None } }.encode(&mut bytes);
        Request::decode(&bytes).is_ok()
    };
    assert!(punch(b"", b"", None), "object");
    assert!(punch(b"d", b"", None), "dkey");
    assert!(punch(b"d", b"a", Extent::new(0, 5)), "range");
    assert!(!punch(b"", b"a", None), "an akey lies in a dkey");
    assert!(!punch(b"d", b"", Extent::new(0, 5)), "a range lies in an akey");
}

#[test]
fn replies_round_trip() {
    let head = ReplyHead { id: 5, hlc: Stamp(6), map_version: MapVersion(7) };
    let fetched = Fetched { found: true, filled: false, record_bytes: 1, checksum: 3, data: b"abc" };
    let extent = Extent { index: 1, count: 2 };
    let difference = Difference { place: DiffPlace::default(), record_bytes: 4, extent, how: Differs::Changed };
    let bodies = [
        ReplyBody::Done,
        ReplyBody::Fetched(vec![fetched, Fetched { data: b"", ..fetched }]),
        ReplyBody::Names { names: vec![b"a", b"bb"], more: true },
        ReplyBody::Numbers(1, 2),
        ReplyBody::Stat(Default::default()),
        ReplyBody::Prepared(vec![TxId(3), TxId(9)]),
        ReplyBody::Differences(Box::new(Differences { found: vec![difference], next: Some(DiffPlace::default()) })),
        ReplyBody::Refused(Refusal::new(RefusalCode::NoSpace, "full")),
    ];
    for body in bodies {
        let reply = Reply { head, body };
        let mut bytes = Vec::new();
        reply.encode(&mut bytes).unwrap();
        if let ReplyBody::Fetched(entries) = &reply.body {
            entries.iter().for_each(|entry| bytes.extend_from_slice(entry.data));
        }
        assert_eq!(Reply::decode(&bytes).unwrap(), reply);
    }
}
