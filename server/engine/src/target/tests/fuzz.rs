//! Hostile bytes: a target answers or drops, and never panics.

use proptest::prelude::*;
use talea_model::{Extent, Order, TxId, View};
use talea_vos::Change;
use talea_wire::data::{Body, Condition, EnumerateKind, QueryKind};

use super::bench::*;

fn seeds(bench: &mut Bench) -> Vec<Vec<u8>> {
    let base = snapshot(bench.stamp(), bench.position);
    let pending = Order::Pending(TxId(1));
    let own = inside(1, bench.stamp(), bench.position);
    let extent = Extent::new(3, 5).unwrap();
    let mut all = Vec::new();
    let bodies: Vec<(Option<Order>, View, Body<'static>)> = vec![
        (Some(AUTO), View::Latest, Body::Update(vec![single(b"k", b"value", Condition::Insert)])),
        (Some(pending), own, Body::Update(vec![array(b"d", extent, b"12345"), single(b"k", b"w", Condition::None)])),
        (None, base, Body::Fetch(vec![array(b"d", extent, &[]), single(b"k", &[], Condition::None)])),
        (
            Some(AUTO),
            View::Latest,
            Body::Punch { dkey: b"d", akey: b"a", extent: Some(extent), condition: Condition::None },
        ),
        (
            None,
            View::Latest,
            Body::Enumerate { kind: EnumerateKind::Extents, dkey: b"d", akey: b"a", after: b"x", limit: 9 },
        ),
        (None, own, Body::Query { kind: QueryKind::MaxDkeyArrayEnd, dkey: b"d", akey: b"a" }),
        (None, View::Latest, Body::Stat { read_in_place: 0 }),
    ];
    for (order, view, body) in bodies {
        let head = bench.head(order, view);
        let body = match body {
            Body::Fetch(mut entries) => {
                entries.iter_mut().for_each(|entry| entry.checksum = 0);
                Body::Fetch(entries)
            }
            other => other,
        };
        all.push(encode(head, body));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_break_a_target(
        edits in prop::collection::vec((0usize..7, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)), 1..24),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bench = Bench::new();
        bench.log(&[Change::Begin(TxId(1))]);
        let seeds = seeds(&mut bench);
        for (which, edits) in edits {
            let mut bytes = seeds[which].clone();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bench.send_raw(1, &bytes);
        }
        bench.send_raw(1, &noise);
        bench.finish();
        bench.later_us(700_000_000);
        bench.finish();
        prop_assert_eq!(bench.target.parked(), 0, "no deadline lasts longer than ten minutes");
        // It still works.
        bench.lease(u64::MAX);
        let answer = bench.get(snapshot(bench.stamp(), bench.position), b"fresh");
        prop_assert_eq!(answer, nothing());
    }
}
