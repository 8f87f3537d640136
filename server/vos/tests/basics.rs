//! What a store does, one rule at a time.

mod support;

use support::kit::*;
use talea_model::{ContainerId, Extent, Order, Position, SessionId, Stamp, TxId, View};
use talea_tier::{RamMedium, SimMedium, Torn};
use talea_vos::{
    Answer, Caller, Change, Condition, EntryUpdate, Enumerate, FetchWhat, ObjectRef, Plant, Punch, Query, Store,
    StoreError, StoreOptions, ValueKind,
};

fn store() -> Store {
    Store::open(Box::new(RamMedium::new(64 << 20).unwrap()), StoreOptions::default()).unwrap().0
}

fn snapshot(stamp: u64) -> View {
    View::Snapshot { stamp: Stamp(stamp), position: Position(0), lease: talea_model::LeaseId(0) }
}

fn inside(tx: u64, base: u64) -> View {
    View::Inside { tx: TxId(tx), base: Stamp(base), position: Position(0) }
}

fn follow(store: &mut Store, changes: &[Change], horizon: u64) {
    store.follow(changes, Position(horizon)).unwrap();
}

#[test]
fn snapshots_stay_while_extents_are_overwritten() {
    let mut store = store();
    write(&mut store, AUTO, 10, 0, b"aaaaaaaa").unwrap();
    write(&mut store, AUTO, 20, 2, b"bbb").unwrap();
    write(&mut store, AUTO, 30, 7, b"cc").unwrap();
    assert_eq!(read(&store, snapshot(9), 0, 3), [0; 3]);
    assert_eq!(read(&store, snapshot(10), 0, 9), b"aaaaaaaa\0");
    assert_eq!(read(&store, snapshot(29), 1, 5), b"abbba");
    assert_eq!(read(&store, View::Latest, 0, 10), b"aabbbaacc\0");
}

#[test]
fn a_commit_shows_everything_at_once_and_an_abort_nothing() {
    let mut store = store();
    write(&mut store, AUTO, 10, 0, b"base").unwrap();
    follow(&mut store, &[Change::Begin(TxId(1)), Change::Begin(TxId(2))], 2);
    write(&mut store, Order::Pending(TxId(1)), 0, 1, b"XX").unwrap();
    write(&mut store, Order::Pending(TxId(2)), 0, 0, b"YYYY").unwrap();
    write(&mut store, Order::Pending(TxId(1)), 0, 2, b"Z").unwrap();
    assert_eq!(read(&store, View::Latest, 0, 4), b"base");
    assert_eq!(read(&store, inside(1, 10), 0, 4), b"bXZe");
    assert_eq!(store.pending_on(at(1), Some(b"d")), [TxId(1), TxId(2)]);
    assert_eq!(store.pending_updates(ContainerId(1)), 3);
    follow(&mut store, &[Change::Commit(TxId(1), Stamp(50)), Change::Abort(TxId(2))], 4);
    for _ in 0..2 {
        assert_eq!(read(&store, snapshot(49), 0, 4), b"base");
        assert_eq!(read(&store, snapshot(50), 0, 4), b"bXZe");
        assert_eq!(read(&store, View::Latest, 0, 4), b"bXZe");
        assert!(store.pending_on(at(1), Some(b"d")).is_empty());
        assert_eq!(store.pending_updates(ContainerId(1)), 0);
        while store.background(1).unwrap() {}
    }
    let refused = write(&mut store, Order::Pending(TxId(2)), 0, 0, b"zombie");
    assert!(matches!(refused, Err(StoreError::Closed { tx: TxId(2), .. })), "{refused:?}");
}

#[test]
fn a_later_autocommit_does_not_hide_an_earlier_commit_and_order_is_by_stamp() {
    let mut store = store();
    follow(&mut store, &[Change::Begin(TxId(1))], 1);
    write(&mut store, Order::Pending(TxId(1)), 0, 0, b"TT").unwrap();
    write(&mut store, AUTO, 40, 1, b"A").unwrap();
    follow(&mut store, &[Change::Commit(TxId(1), Stamp(30))], 2);
    assert_eq!(read(&store, View::Latest, 0, 2), b"TA");
    assert_eq!(read(&store, snapshot(39), 0, 2), b"TT");
}

#[test]
fn tied_names_are_seen_by_latest_and_vanish_on_abort() {
    let mut store = store();
    follow(&mut store, &[Change::Begin(TxId(1)), Change::Begin(TxId(2))], 2);
    put(&mut store, Order::Auto { tied: Some(TxId(1)) }, 10, b"one", b"1").unwrap();
    put(&mut store, Order::Auto { tied: Some(TxId(2)) }, 11, b"two", b"2").unwrap();
    assert_eq!(get(&store, View::Latest, b"one").unwrap(), b"1");
    assert_eq!(get(&store, snapshot(20), b"one"), None);
    assert_eq!(get(&store, inside(1, 5), b"one").unwrap(), b"1");
    assert_eq!(get(&store, inside(1, 5), b"two"), None);
    let again = EntryUpdate { condition: Condition::Insert, ..entry(b"d", b"one", b"x") };
    let exists = store.update(at(1), AUTO, Stamp(12), View::Latest, NOBODY, &[again]);
    assert!(matches!(exists, Err(StoreError::Exists)));
    follow(&mut store, &[Change::Commit(TxId(1), Stamp(30)), Change::Abort(TxId(2))], 4);
    for _ in 0..2 {
        assert_eq!(get(&store, snapshot(29), b"one"), None);
        assert_eq!(get(&store, snapshot(30), b"one").unwrap(), b"1");
        assert_eq!(get(&store, View::Latest, b"two"), None);
        while store.background(1).unwrap() {}
    }
}

#[test]
fn punches_hide_at_every_level_until_something_new_is_written() {
    let mut store = store();
    let base = View::Latest;
    write(&mut store, AUTO, 10, 0, b"abcdef").unwrap();
    put(&mut store, AUTO, 11, b"v", b"1").unwrap();
    let range = Punch::Range { dkey: b"d", akey: b"a", extent: Extent { index: 1, count: 2 } };
    store.punch(at(1), AUTO, Stamp(20), base, NOBODY, range, Condition::None).unwrap();
    assert_eq!(read(&store, base, 0, 6), b"a\0\0def");
    let akey = Punch::Akey { dkey: b"d", akey: b"v" };
    store.punch(at(1), AUTO, Stamp(21), base, NOBODY, akey, Condition::Update).unwrap();
    assert_eq!(get(&store, base, b"v"), None);
    store.punch(at(1), AUTO, Stamp(22), base, NOBODY, Punch::Dkey(b"d"), Condition::None).unwrap();
    assert_eq!(read(&store, base, 0, 6), [0; 6]);
    assert!(store.enumerate(at(1), base, Enumerate::Dkeys, None, 9).unwrap().is_empty());
    assert_eq!(store.enumerate(at(1), snapshot(21), Enumerate::Dkeys, None, 9).unwrap()[0].key, b"d");
    write(&mut store, AUTO, 23, 9, b"z").unwrap();
    assert_eq!(read(&store, base, 8, 2), b"\0z");
    follow(&mut store, &[Change::Begin(TxId(1))], 1);
    store.punch(at(1), Order::Pending(TxId(1)), Stamp(0), base, NOBODY, Punch::Object, Condition::Update).unwrap();
    write(&mut store, Order::Pending(TxId(1)), 0, 0, b"n").unwrap();
    assert_eq!(read(&store, inside(1, 23), 0, 10), b"n\0\0\0\0\0\0\0\0\0");
    assert_eq!(read(&store, base, 9, 1), b"z");
    follow(&mut store, &[Change::Commit(TxId(1), Stamp(30))], 2);
    assert_eq!(read(&store, base, 0, 10), b"n\0\0\0\0\0\0\0\0\0");
    let missing = store.punch(at(2), AUTO, Stamp(40), base, NOBODY, Punch::Object, Condition::Update);
    assert!(matches!(missing, Err(StoreError::NotFound)));
}

/// As a file's end is kept: one record where it lies, and a punch of all behind it.
#[test]
fn ends_of_arrays_of_several_transactions_come_together() {
    for record_bytes in [1_u32, 8] {
        let mut store = store();
        let mark = |store: &mut Store, tx: u64, index: u64| {
            let (data, extents) = (vec![1; record_bytes as usize], [Extent { index, count: 1 }]);
            let entry = EntryUpdate {
                kind: ValueKind::Array { record_bytes },
                extents: &extents,
                ..entry(b"d", b"end", &data)
            };
            store.update(at(1), Order::Pending(TxId(tx)), Stamp(0), inside(tx, 0), NOBODY, &[entry]).unwrap();
        };
        let cut = |store: &mut Store, tx: u64, from: u64| {
            let extent = Extent { index: from, count: i64::MAX as u64 - from };
            let range = Punch::Range { dkey: b"d", akey: b"end", extent };
            store
                .punch(at(1), Order::Pending(TxId(tx)), Stamp(0), inside(tx, 0), NOBODY, range, Condition::None)
                .unwrap();
        };
        let end =
            |store: &Store, view| store.query(at(1), view, Query::ArrayEnd { dkey: b"d", akey: b"end" }).unwrap().end;
        follow(&mut store, &[1, 2, 3, 4].map(|tx| Change::Begin(TxId(tx))), 1);
        mark(&mut store, 1, (1 << 40) - 1);
        mark(&mut store, 2, 15);
        cut(&mut store, 3, 100);
        mark(&mut store, 3, 99);
        cut(&mut store, 3, 50);
        mark(&mut store, 4, 1 << 50);
        assert_eq!(end(&store, inside(3, 0)), 0, "its own record at 99 is cut as well");
        follow(&mut store, &[Change::Commit(TxId(1), Stamp(10)), Change::Commit(TxId(2), Stamp(20))], 2);
        assert_eq!(end(&store, View::Latest), 1 << 40, "the later one does not make it smaller");
        follow(&mut store, &[Change::Commit(TxId(3), Stamp(30))], 3);
        assert_eq!(end(&store, View::Latest), 16, "all behind 50 is cut");
        while store.background(1).unwrap() {}
        follow(&mut store, &[Change::Commit(TxId(4), Stamp(40))], 4);
        while store.background(1).unwrap() {}
        assert_eq!(end(&store, View::Latest), (1 << 50) + 1);
        assert_eq!([15, 25, 35].map(|stamp| end(&store, snapshot(stamp))), [1 << 40, 1 << 40, 16]);
    }
}

#[test]
fn the_larger_of_two_values_is_kept() {
    let mut store = store();
    let size = |n: u64| n.to_be_bytes();
    let max = |store: &mut Store, order, stamp, base, n: u64| {
        let data = size(n);
        let entry = EntryUpdate { kind: ValueKind::SingleMax, ..entry(b"d", b"size", &data) };
        store.update(at(1), order, Stamp(stamp), base, NOBODY, &[entry]).unwrap();
    };
    max(&mut store, AUTO, 10, View::Latest, 100);
    max(&mut store, AUTO, 11, View::Latest, 50);
    assert_eq!(get(&store, View::Latest, b"size").unwrap(), size(100));
    follow(&mut store, &[Change::Begin(TxId(1))], 1);
    for n in [80, 300, 200] {
        max(&mut store, Order::Pending(TxId(1)), 0, inside(1, 11), n);
    }
    assert_eq!(get(&store, inside(1, 11), b"size").unwrap(), size(300));
    assert_eq!(get(&store, View::Latest, b"size").unwrap(), size(100));
    let other = EntryUpdate { kind: ValueKind::SingleMax, ..entry(b"d", b"size", b"short") };
    assert!(matches!(store.update(at(1), AUTO, Stamp(12), View::Latest, NOBODY, &[other]), Err(StoreError::Bad(_))));
}

#[test]
fn enumeration_goes_on_after_its_anchor() {
    let mut store = store();
    for n in 0..10u8 {
        let key = [b'k', n];
        let entry = entry(&key, b"a", b"v");
        store.update(at(n.into()), AUTO, Stamp(10), View::Latest, NOBODY, &[entry]).unwrap();
        store.update(at(77), AUTO, Stamp(10), View::Latest, NOBODY, &[entry]).unwrap();
        let of_one = EntryUpdate { dkey: b"d", akey: &key, ..entry };
        store.update(at(77), AUTO, Stamp(10), View::Latest, NOBODY, &[of_one]).unwrap();
        let extents =
            [Extent { index: u64::from(n) * 10, count: 2 }, Extent { index: u64::from(n) * 10 + 2, count: 1 }];
        let array = EntryUpdate { kind: BYTES, extents: &extents, ..self::entry(b"d", b"array", b"abc") };
        store.update(at(77), AUTO, Stamp(10), View::Latest, NOBODY, &[array]).unwrap();
    }
    let all = |what: Enumerate| {
        let (mut keys, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let page = store.enumerate(at(77), View::Latest, what, after.as_deref(), 3).unwrap();
            let done = page.len() < 3;
            keys.extend(page.into_iter().map(|listed| (listed.key, listed.extent)));
            if done {
                return keys;
            }
            after = keys.last().map(|(key, _)| key.clone());
        }
    };
    assert_eq!(all(Enumerate::Objects).len(), 11);
    assert_eq!(all(Enumerate::Dkeys).len(), 11);
    assert_eq!(all(Enumerate::Akeys { dkey: b"d" }).len(), 11);
    let runs: Vec<Extent> =
        all(Enumerate::Extents { dkey: b"d", akey: b"array" }).into_iter().map(|(_, extent)| extent).collect();
    assert_eq!(runs, (0..10).map(|n| Extent { index: n * 10, count: 3 }).collect::<Vec<_>>());
}

#[test]
fn queries_find_the_ends() {
    let mut store = store();
    for (dkey, index) in [(3u64, 5u64), (7, 2)] {
        let extents = [Extent { index, count: 1 }];
        let dkey = dkey.to_be_bytes();
        let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(&dkey, b"a", b"x") };
        store.update(at(1), AUTO, Stamp(index), View::Latest, NOBODY, &[entry]).unwrap();
    }
    let ask = |view, what| store.query(at(1), view, what).unwrap();
    let key = |n: u64| Some(talea_model::Key::from_u64(n));
    assert_eq!(ask(View::Latest, Query::MaxDkeyArrayEnd { akey: b"a" }), Answer { dkey: key(7), end: 3 });
    assert_eq!(ask(View::Latest, Query::MaxDkey).dkey, key(7));
    assert_eq!(ask(View::Latest, Query::MinDkey).dkey, key(3));
    assert_eq!(ask(snapshot(4), Query::MinDkey).dkey, key(7));
    assert_eq!(ask(snapshot(1), Query::MinDkey).dkey, None);
    let dkey = &3u64.to_be_bytes();
    assert_eq!(ask(View::Latest, Query::ArrayEnd { dkey, akey: b"a" }).end, 6);
}

#[test]
fn a_request_is_done_once() {
    let mut store = store();
    let caller = |sequence, acknowledged_below| Caller { session: SessionId(9), sequence, acknowledged_below };
    let put = |store: &mut Store, stamp, who, data: &[u8]| {
        store.update(at(1), AUTO, Stamp(stamp), View::Latest, who, &[entry(b"d", b"v", data)]).unwrap();
    };
    put(&mut store, 10, caller(1, 0), b"first");
    put(&mut store, 11, caller(2, 0), b"second");
    put(&mut store, 12, caller(1, 0), b"again");
    assert_eq!(get(&store, View::Latest, b"v").unwrap(), b"second");
    put(&mut store, 13, caller(3, 3), b"third");
    assert!(store.already_done(&caller(2, 0)), "below what the caller has seen");
    assert!(!store.already_done(&caller(4, 3)));
    follow(&mut store, &[Change::EndSession(SessionId(9))], 1);
    assert!(!store.already_done(&caller(3, 0)));
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let mut store = store();
    let mut bad = |entry: EntryUpdate| store.update(at(1), AUTO, Stamp(5), View::Latest, NOBODY, &[entry]).unwrap_err();
    let good = entry(b"d", b"a", b"data");
    assert!(matches!(bad(EntryUpdate { checksum: 1, ..good }), StoreError::Checksum { .. }));
    assert!(matches!(bad(EntryUpdate { dkey: b"", ..good }), StoreError::Key(_)));
    assert!(matches!(bad(EntryUpdate { akey: &[0; 4097], ..good }), StoreError::Key(_)));
    assert!(matches!(bad(EntryUpdate { extents: &[Extent { index: 0, count: 4 }], ..good }), StoreError::Bad(_)));
    assert!(matches!(bad(EntryUpdate { kind: BYTES, ..good }), StoreError::Bad(_)));
    let over = [Extent { index: u64::MAX, count: 4 }];
    assert!(matches!(bad(EntryUpdate { kind: BYTES, extents: &over, ..good }), StoreError::Bad(_)));
    let huge = [Extent { index: 0, count: u64::MAX / 2 }];
    assert!(matches!(bad(EntryUpdate { kind: BYTES, extents: &huge, ..good }), StoreError::Bad(_)));
    let two = [good, EntryUpdate { dkey: b"e", ..good }];
    assert!(matches!(store.update(at(1), AUTO, Stamp(5), View::Latest, NOBODY, &two), Err(StoreError::Bad(_))));
    put(&mut store, AUTO, 5, b"a", b"single").unwrap();
    let error = write(&mut store, AUTO, 6, 0, b"x").unwrap_err();
    assert!(matches!(error, StoreError::Kind { .. }));
    let text = error.to_string();
    assert!(text.contains("holds a single value and was used as an array of single bytes"), "{text}");
    assert_eq!(store.stats().versions, 1);
}

#[test]
fn aggregation_keeps_what_can_be_seen_and_frees_the_rest() {
    let mut store = store();
    let block = vec![7u8; 8192];
    for n in 1..=10 {
        write(&mut store, AUTO, n * 10, 0, &block).unwrap();
    }
    write(&mut store, AUTO, 200, 100, b"split").unwrap();
    let used = store.stats().used_bytes;
    follow(&mut store, &[Change::Keep(ContainerId(1), Stamp(35)), Change::Floor(ContainerId(1), Stamp(95))], 1);
    while store.background(3).unwrap() {}
    assert_eq!(store.stats().versions, 4, "kept at 30, floor at 90, and above it 100 and 200");
    assert!(used - store.stats().used_bytes >= 7 * 8192);
    for stamp in [35, 95, 100] {
        assert_eq!(read(&store, snapshot(stamp), 0, 8192), block);
    }
    let mut out = Vec::new();
    let below = store.fetch(at(1), snapshot(50), b"d", b"a", FetchWhat::Array(&[]), &mut out);
    assert!(matches!(below, Err(StoreError::BelowFloor { .. })));
    store.punch(at(1), AUTO, Stamp(300), View::Latest, NOBODY, Punch::Dkey(b"d"), Condition::None).unwrap();
    let container = ContainerId(1);
    follow(&mut store, &[Change::Release(container, Stamp(35)), Change::Floor(container, Stamp(400))], 2);
    while store.background(3).unwrap() {}
    assert_eq!(store.stats().versions, 0);
}

#[test]
fn a_destroyed_container_is_gone_and_takes_nothing() {
    let mut store = store();
    follow(&mut store, &[Change::Begin(TxId(1))], 1);
    write(&mut store, AUTO, 10, 0, &[1; 10_000]).unwrap();
    write(&mut store, Order::Pending(TxId(1)), 10, 0, &[1; 10_000]).unwrap();
    follow(&mut store, &[Change::DestroyContainer(ContainerId(1)), Change::Commit(TxId(1), Stamp(20))], 2);
    while store.background(1).unwrap() {}
    assert_eq!(store.stats().versions, 0);
    assert!(matches!(write(&mut store, AUTO, 30, 0, b"x"), Err(StoreError::Destroyed(_))));
    let mut out = Vec::new();
    let gone = store.fetch(at(1), View::Latest, b"d", b"a", FetchWhat::Single, &mut out);
    assert!(matches!(gone, Err(StoreError::Destroyed(_))));
}

/// Rule 10: of a medium that was lost nothing reads as a hole, also after the next restart; what was made since is whole.
#[test]
fn what_an_earlier_medium_held_reads_as_lost() {
    let medium = SimMedium::new(8 << 20, Torn::Lines);
    let open = |medium: &SimMedium| Store::open(Box::new(medium.clone()), StoreOptions::default()).unwrap().0;
    let mut store = open(&medium);
    follow(&mut store, &[Change::Incarnation(1), Change::Container(ContainerId(1)), Change::Incarnation(2)], 1);
    write(&mut store, AUTO, 10, 0, b"new").unwrap();
    let made = ObjectRef { container: ContainerId(2), oid: at(1).oid };
    follow(&mut store, &[Change::Container(ContainerId(2)), Change::Incarnation(2)], 2);
    store.update(made, AUTO, Stamp(20), View::Latest, NOBODY, &[entry(b"d", b"s", b"whole")]).unwrap();
    let fetch = |store: &Store, at| store.fetch(at, View::Latest, b"d", b"s", FetchWhat::Single, &mut Vec::new());
    store.flush().unwrap();
    for _ in 0..2 {
        assert!(matches!(fetch(&store, at(1)), Err(StoreError::DataLost { .. })));
        assert!(fetch(&store, made).is_ok());
        drop(store);
        store = open(&medium);
    }
    follow(&mut store, &[Change::DestroyContainer(ContainerId(1))], 3);
    assert!(matches!(fetch(&store, at(1)), Err(StoreError::Destroyed(_))));
    follow(&mut store, &[Change::Incarnation(3)], 4);
    assert!(matches!(fetch(&store, made), Err(StoreError::DataLost { .. })));
}

#[test]
fn an_answer_that_no_message_carries_is_refused_before_it_is_gathered() {
    let options = StoreOptions { max_answer_bytes: 1 << 20, ..StoreOptions::default() };
    let mut store = Store::open(Box::new(RamMedium::new(64 << 20).unwrap()), options).unwrap().0;
    let records = vec![3; 1 << 20];
    let extents = [Extent { index: 7, count: 1 }];
    let kind = ValueKind::Array { record_bytes: 1 << 20 };
    let entry = EntryUpdate { kind, extents: &extents, ..entry(b"d", b"a", &records) };
    store.update(at(1), AUTO, Stamp(10), View::Latest, NOBODY, &[entry]).unwrap();
    let fetch = |extents: &[Extent], out: &mut Vec<u8>| {
        store.fetch(at(1), View::Latest, b"d", b"a", FetchWhat::Array(extents), out)
    };
    let mut out = Vec::new();
    assert_eq!(fetch(&extents, &mut out).unwrap().bytes, 1 << 20);
    for hostile in [&[Extent { index: 7, count: 2 }][..], &[Extent { index: 0, count: 2000 }], &[extents[0]; 4096]] {
        let mut out = Vec::new();
        assert!(matches!(fetch(hostile, &mut out), Err(StoreError::Bad(_))));
        assert_eq!(out.capacity(), 0, "nothing was gathered");
    }
    assert!(matches!(fetch(&extents, &mut out), Err(StoreError::Bad(_))), "what is there already counts");
    assert_eq!(out.len(), 1 << 20);
}

#[test]
fn an_array_has_records_of_one_size_also_where_it_has_a_hole() {
    let mut store = store();
    write(&mut store, AUTO, 10, 0, b"four").unwrap();
    let fetch = |store: &Store, record_bytes, index| {
        let extents = [Extent { index, count: 4 }];
        let mut out = Vec::new();
        let what = FetchWhat::Records(record_bytes, &extents);
        store.fetch(at(1), View::Latest, b"d", b"a", what, &mut out).map(|fetched| (fetched.found, out))
    };
    assert_eq!(fetch(&store, 1, 0).unwrap(), (true, b"four".to_vec()));
    assert_eq!(fetch(&store, 1, 100).unwrap(), (false, vec![0; 4]));
    for index in [0, 100] {
        assert!(matches!(fetch(&store, 8, index), Err(StoreError::Kind { .. })), "at {index}");
    }
    // One that holds nothing any more may become an array of other records: it is a hole of any size.
    follow(&mut store, &[Change::Begin(TxId(1))], 1);
    let extents = [Extent { index: 0, count: 1 }];
    let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(b"d", b"of no more", b"1") };
    store.update(at(1), Order::Pending(TxId(1)), Stamp(0), View::Latest, NOBODY, &[entry]).unwrap();
    follow(&mut store, &[Change::Abort(TxId(1))], 2);
    while store.background(100).unwrap() {}
    let what = FetchWhat::Records(8, &extents);
    let fetched = store.fetch(at(1), View::Latest, b"d", b"of no more", what, &mut Vec::new()).unwrap();
    assert!(!fetched.found);
}

#[test]
fn planted_bugs_show() {
    let open = |plant| {
        let options = StoreOptions { plant, ..StoreOptions::default() };
        Store::open(Box::new(RamMedium::new(8 << 20).unwrap()), options).unwrap().0
    };
    let mut leaky = open(Plant::IgnoreHorizonOnRead);
    follow(&mut leaky, &[Change::Begin(TxId(1))], 1);
    write(&mut leaky, Order::Pending(TxId(1)), 0, 0, b"dirty").unwrap();
    assert_eq!(read(&leaky, snapshot(50), 0, 5), b"dirty");
    let mut zombie = open(Plant::KeepZombie);
    follow(&mut zombie, &[Change::Begin(TxId(1)), Change::Abort(TxId(1))], 1);
    write(&mut zombie, Order::Pending(TxId(1)), 0, 0, b"brains").unwrap();
}

/// I5, the store's part: what a commit or an abort adds to the log has one size, whatever the transaction wrote.
#[test]
fn a_commit_is_one_record_of_one_size() {
    let medium = SimMedium::new(64 << 20, Torn::Lines);
    let (mut store, _) = Store::open(Box::new(medium.clone()), StoreOptions::default()).unwrap();
    let mut sizes = Vec::new();
    for (tx, updates) in [(1, 1), (2, 5_000), (3, 0)] {
        follow(&mut store, &[Change::Begin(TxId(tx))], tx * 2);
        for n in 0..updates {
            write(&mut store, Order::Pending(TxId(tx)), 0, n * 3, &[1; 2]).unwrap();
        }
        store.flush().unwrap();
        let before = (store.stats(), medium.written_bytes());
        follow(&mut store, &[Change::Commit(TxId(tx), Stamp(100 * tx))], tx * 2 + 1);
        store.flush().unwrap();
        assert_eq!(store.stats().records, before.0.records + 1);
        sizes.push((store.stats().log_bytes - before.0.log_bytes, medium.written_bytes() - before.1));
    }
    assert!(sizes.iter().all(|size| *size == sizes[0] && size.0 < 128), "{sizes:?}");
}

/// What is settled of a destroyed container while it is taken apart must not free numbers that the taking apart still holds: another
/// container's object, made meanwhile, took one and was taken apart in its place.
#[test]
fn a_container_s_end_takes_nothing_of_others() {
    let gone = ObjectRef { container: ContainerId(2), oid: at(2).oid };
    // Portions of all sizes, and other transactions to be settled first: the two kinds of work meet at every point.
    for (budget, others) in (1..40).flat_map(|budget| (0..8).map(move |others| (budget, others))) {
        let mut store = store();
        let tx = TxId(others + 1);
        let mut changes: Vec<Change> = (1..=tx.0).map(|tx| Change::Begin(TxId(tx))).collect();
        changes.extend((1..tx.0).map(|tx| Change::Abort(TxId(tx))));
        follow(&mut store, &changes, 1);
        let extents = [Extent { index: 0, count: 1 }, Extent { index: 0, count: 2 }, Extent { index: 1, count: 2 }];
        for extent in extents {
            let data = vec![1; extent.count as usize];
            let extents = [extent];
            let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(b"d", b"a", &data) };
            store.update(gone, Order::Pending(tx), Stamp(0), View::Latest, NOBODY, &[entry]).unwrap();
        }
        follow(&mut store, &[Change::Commit(tx, Stamp(20)), Change::DestroyContainer(ContainerId(2))], 2);
        for n in 0..6 {
            store.background(budget).unwrap();
            put(&mut store, AUTO, 30 + n, &[n as u8], b"kept").unwrap();
            write(&mut store, AUTO, 40 + n, n * 10, b"kept").unwrap();
        }
        while store.background(budget).unwrap() {}
        for n in 0..6 {
            assert_eq!(get(&store, View::Latest, &[n as u8]).unwrap(), b"kept", "with portions of {budget}");
            assert_eq!(read(&store, View::Latest, n * 10, 4), b"kept");
        }
        assert_eq!(store.stats().versions, 12);
    }
}

#[test]
fn what_a_groups_leader_took_before_it_knew_of_a_commit_is_part_of_it() {
    let medium = SimMedium::new(8 << 20, Torn::Lines);
    let open = || Store::open(Box::new(medium.clone()), StoreOptions::default()).unwrap().0;
    let mut store = open();
    let caller = Caller { session: SessionId(7), sequence: 3, acknowledged_below: 1 };
    follow(&mut store, &[Change::Begin(TxId(1))], 1);
    put(&mut store, Order::Pending(TxId(1)), 0, b"k", b"first").unwrap();
    put(&mut store, Order::Pending(TxId(1)), 0, b"gone", b"first").unwrap();
    put(&mut store, AUTO, 40, b"k", b"later").unwrap();
    follow(&mut store, &[Change::Commit(TxId(1), Stamp(30))], 2);
    // Settled and forgotten: who knows the commit's stamp by now is the group's member.
    while store.background(1).unwrap() {}
    store.update_committed(at(1), Stamp(30), caller, &[entry(b"d", b"k", b"second")]).unwrap();
    store.punch_committed(at(1), Stamp(30), NOBODY, Punch::Akey { dkey: b"d", akey: b"gone" }).unwrap();
    store.update_committed(at(1), Stamp(30), caller, &[entry(b"d", b"k", b"again?")]).unwrap();
    store.flush().unwrap();
    for store in [store, open()] {
        assert_eq!(get(&store, snapshot(29), b"k"), None);
        assert_eq!(get(&store, snapshot(30), b"k").unwrap(), b"second", "the order inside the transaction");
        assert_eq!(get(&store, snapshot(30), b"gone"), None);
        assert_eq!(get(&store, snapshot(40), b"k").unwrap(), b"later", "its place among stamps");
        assert!(store.already_done(&caller));
    }
}
