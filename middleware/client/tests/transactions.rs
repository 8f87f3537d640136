//! Independent transactions, differences and rollbacks against two real servers.

#[path = "support/servers.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::Servers;
use talea_client::{
    Client, Condition, Container, ContainerProperties, Differs, EntryFetch, EntryUpdate, ErrorKind, Object, Punch,
    SnapshotAt, Transaction, ValueKind, Write,
};
use talea_model::{Extent, ObjectClass, Oid, Step, View};

fn run(client: &Client) -> Container {
    client.container_create("run", ContainerProperties::default(), true).unwrap()
}

fn object(container: &Container) -> Object {
    container.object(Oid::new(ObjectClass::SX, 77))
}

fn entry<'a>(dkey: &'a [u8], data: &'a [u8], condition: Condition) -> EntryUpdate<'a> {
    EntryUpdate { dkey, akey: b"a", kind: ValueKind::Single, condition, extents: &[], data }
}

fn put(object: &Object, write: &Write<'_>, dkey: &[u8], value: u64) {
    object.update(write, &[entry(dkey, &value.to_le_bytes(), Condition::None)]).unwrap();
}

fn get(object: &Object, view: &View, dkey: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    object.fetch(view, &mut [EntryFetch::single(dkey, b"a", &mut bytes)]).unwrap();
    u64::from_le_bytes(bytes)
}

/// Reads a key and writes another one, as if the decision rested on it.
fn depend(transaction: &Transaction, object: &Object, read: &[u8], written: &[u8]) {
    let value = get(object, &transaction.view(), read);
    put(object, &transaction.write(), written, value + 1);
}

#[test]
fn of_transactions_that_depend_on_each_other_one_comes_too_late() {
    let servers = Servers::start();
    let client = servers.client();
    let (container, other) = (run(&client), run(&servers.client()));
    let (here, there) = (object(&container), object(&other));
    // Write skew: each reads what the other one writes.
    let (one, two) = (container.tx_open().unwrap(), other.tx_open().unwrap());
    depend(&one, &here, b"left", b"right");
    depend(&two, &there, b"right", b"left");
    let first = one.commit().unwrap();
    assert_eq!(two.commit().unwrap_err().kind(), ErrorKind::Conflict);
    let latest = [b"left".as_slice(), b"right"].map(|key| get(&here, &View::Latest, key));
    assert_eq!(latest, [0, 1], "nothing remains of the one that came too late");
    // An autocommit that came between is a conflict; one beside what was read is none.
    let one = container.tx_open().unwrap();
    depend(&one, &here, b"left", b"x");
    put(&there, &Write::Auto, b"left", 9);
    assert_eq!(one.commit().unwrap_err().kind(), ErrorKind::Conflict);
    let one = container.tx_open().unwrap();
    depend(&one, &here, b"left", b"x");
    put(&there, &Write::Auto, b"beside", 9);
    assert!(one.commit().unwrap().stamp > first.stamp);
    assert_eq!(get(&there, &View::Latest, b"x"), 10);
}

#[test]
fn what_was_listed_and_what_was_not_there_count_as_read() {
    let servers = Servers::start();
    let client = servers.client();
    let container = run(&client);
    let object = object(&container);
    put(&object, &Write::Auto, b"k", 1);
    let listing = |transaction: &Transaction| object.dkeys(&transaction.view(), b"", 100).unwrap().names.len();
    let transaction = container.tx_open().unwrap();
    assert_eq!(listing(&transaction), 1);
    put(&object, &transaction.write(), b"count", 1);
    put(&object, &Write::Auto, b"phantom", 1);
    assert_eq!(transaction.commit().unwrap_err().kind(), ErrorKind::Conflict, "a phantom");
    let transaction = container.tx_open().unwrap();
    let insert = [entry(b"new", b"mine", Condition::Insert)];
    object.update(&transaction.write(), &insert).unwrap();
    object.update(&Write::Auto, &insert).unwrap();
    assert_eq!(transaction.commit().unwrap_err().kind(), ErrorKind::Conflict, "its condition was a read");
    let transaction = container.tx_open().unwrap();
    assert_eq!(get(&object, &transaction.view(), b"k"), 1);
    put(&object, &Write::Auto, b"k", 2);
    assert_eq!(get(&object, &transaction.view(), b"k"), 1, "it goes on to see its base");
    transaction.commit().unwrap();
    let transaction = container.tx_open().unwrap();
    put(&object, &transaction.write(), b"dropped", 1);
    let tx = transaction.tx();
    drop(transaction);
    // Nobody waits for the abort's answer, so the log may be a moment behind.
    let is_open = || client.status().unwrap().transactions.iter().any(|(open, ..)| *open == tx);
    assert!((0..1000).any(|_| !is_open()), "a dropped one is aborted");
    assert_eq!(get(&object, &View::Latest, b"dropped"), 0);
}

#[test]
fn nothing_gets_lost_where_many_count_together() {
    const EACH: u64 = 25;
    let servers = Servers::start();
    let tries = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (client, tries) = (servers.client(), tries.clone());
            scope.spawn(move || {
                let container = run(&client);
                let object = object(&container);
                for _ in 0..EACH {
                    let count = |transaction: &Transaction| {
                        tries.fetch_add(1, Ordering::Relaxed);
                        let value = get(&object, &transaction.view(), b"counter");
                        put(&object, &transaction.write(), b"counter", value + 1);
                        Ok(())
                    };
                    container.transact(count).unwrap();
                }
            });
        }
    });
    let client = servers.client();
    assert_eq!(get(&object(&run(&client)), &View::Latest, b"counter"), 3 * EACH, "of {tries:?} tries");
}

#[test]
fn a_rollback_is_a_new_step_that_holds_what_an_earlier_one_held() {
    let servers = Servers::start();
    let client = servers.client();
    let container = run(&client);
    let object = object(&container);
    let array = |write: &Write<'_>, index: u64, bytes: &[u8]| {
        let extents = [Extent::new(index, bytes.len() as u64).unwrap()];
        let kind = ValueKind::Array { record_bytes: 1 };
        let entry = EntryUpdate {
            dkey: b"array",
            akey: b"d",
            kind,
            condition: Condition::None,
            extents: &extents,
            data: bytes,
        };
        object.update(write, &[entry]).unwrap();
    };
    let large = vec![7; 100_000];
    let step = |write: &dyn Fn(&Write<'_>)| {
        let epoch = container.begin(true).unwrap();
        write(&Write::Inside(&epoch));
        epoch.commit(&epoch.summary(), b"", false).committed.unwrap().step
    };
    step(&|write| {
        put(&object, write, b"changed", 1);
        put(&object, write, b"removed", 1);
        array(write, 0, b"abcdefgh");
        object.update(write, &[entry(b"large", &large, Condition::None)]).unwrap();
    });
    step(&|write| {
        put(&object, write, b"changed", 2);
        put(&object, write, b"added", 2);
        array(write, 2, b"XY");
        array(write, 8, b"more");
        object.punch(write, &Punch { dkey: b"removed", ..Punch::default() }).unwrap();
        object.punch(write, &Punch { dkey: b"large", ..Punch::default() }).unwrap();
    });
    let at = |step: u64| container.snapshot(SnapshotAt::Step(Step(step))).unwrap();
    let differences = |from: u64, to: u64| {
        let (from, to) = (at(from), at(to));
        let mut found = vec![];
        let mut differences = container.differences(&from.view(), &to.view(), None).unwrap();
        while let Some(one) = differences.next().unwrap() {
            found.push((String::from_utf8(one.place.dkey).unwrap(), one.extent, one.how));
        }
        found
    };
    let none = Extent::default();
    let extent = |index, count| Extent { index, count };
    let expected = [
        ("added", none, Differs::Added),
        ("array", extent(2, 2), Differs::Changed),
        ("array", extent(8, 4), Differs::Added),
        ("changed", none, Differs::Changed),
        ("large", none, Differs::Removed),
        ("removed", none, Differs::Removed),
    ];
    let expected = expected.map(|(dkey, extent, how)| (dkey.to_owned(), extent, how));
    assert_eq!(differences(1, 2), expected);
    let back = container.rollback(SnapshotAt::Step(Step(1)), b"back to 1").unwrap();
    assert_eq!((back.step, back.made_step), (Step(3), true));
    let view = at(3).view();
    assert_eq!(["changed", "removed", "added"].map(|key| get(&object, &view, key.as_bytes())), [1, 1, 0]);
    let (mut bytes, mut whole) = ([9; 12], vec![0; large.len()]);
    let extents = [extent(0, 12)];
    let single = EntryFetch::single(b"large", b"a", &mut whole);
    object.fetch(&view, &mut [EntryFetch::array(b"array", b"d", 1, &extents, &mut bytes), single]).unwrap();
    assert_eq!((&bytes, whole), (b"abcdefgh\0\0\0\0", large));
    assert_eq!(get(&object, &at(2).view(), b"changed"), 2, "what lies between stays readable");
    let again = container.rollback(SnapshotAt::Step(Step(3)), b"").unwrap();
    assert_eq!((again.step, again.made_step), (Step(3), false), "no difference, no step");
    assert_eq!(container.rollback(SnapshotAt::Step(Step(9)), b"").err().map(|e| e.kind()), Some(ErrorKind::NotFound));
}
