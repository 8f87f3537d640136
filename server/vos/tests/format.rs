//! The format on the medium, against bytes that were committed once: what is written today, and that what was written then opens.
//!
//! If this fails, the bytes have changed: if old stores do not open any more, or new ones with old servers, raise the version in
//! `log/header.rs`; tell it in docs/formats.md, and write the bytes anew
//! with `TALEA_WRITE_FORMAT=1 cargo test --workspace --test format`.

mod support;

use std::fmt::Write;
use std::path::PathBuf;

use support::kit::*;
use talea_model::{ContainerId, Order, Position, Stamp, TxId, View};
use talea_tier::{Media, Medium, SimMedium, Torn};
use talea_vos::{Change, Condition, Punch, Store, StoreOptions};

const LOG_BYTES: u64 = 48 << 10;
const BULK_BYTES: u64 = 16 << 10;

fn options() -> StoreOptions {
    StoreOptions { nonce: 0x0123_4567_89ab_cdef, segment_bytes: 4096, checkpoint_bytes: 1, ..StoreOptions::default() }
}

fn media(log: &SimMedium, bulk: &SimMedium) -> Media {
    Media::two(Box::new(log.clone()), Box::new(bulk.clone()))
}

/// Some of everything: transactions, both sizes of values, a punch, a checkpoint, and records behind it.
fn write_all(log: &SimMedium, bulk: &SimMedium) {
    let (mut store, _) = Store::open(media(log, bulk), options()).unwrap();
    store.follow(&[Change::Begin(TxId(1)), Change::Begin(TxId(2))], Position(1)).unwrap();
    put(&mut store, AUTO, 10, b"small", b"a value in the log").unwrap();
    write(&mut store, Order::Pending(TxId(1)), 0, 5, b"records").unwrap();
    put(&mut store, AUTO, 12, b"large", &[0x5a; 5000]).unwrap();
    store.raise_ceiling(Stamp(100)).unwrap();
    store.flush().unwrap();
    while store.background(100).unwrap() {}
    let range = Punch::Range { dkey: b"d", akey: b"a", extent: talea_model::Extent { index: 6, count: 2 } };
    store.punch(at(1), AUTO, Stamp(20), View::Latest, NOBODY, range, Condition::None).unwrap();
    store.follow(&[Change::Commit(TxId(1), Stamp(30)), Change::Keep(ContainerId(1), Stamp(30))], Position(2)).unwrap();
    put(&mut store, Order::Pending(TxId(2)), 0, b"pending", b"of a transaction that is open").unwrap();
    store.flush().unwrap();
}

fn dump(log: &SimMedium, bulk: &SimMedium) -> String {
    let mut text = String::new();
    for (name, image) in [("log", log.image()), ("bulk", bulk.image())] {
        writeln!(text, "{name} {}", image.len()).unwrap();
        for (number, line) in image.chunks(32).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0)) {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{:06x} {hex}", number * 32).unwrap();
        }
    }
    text
}

/// Media that hold what a dump says.
fn load(text: &str) -> (SimMedium, SimMedium) {
    let mut media: Vec<SimMedium> = Vec::new();
    for line in text.lines() {
        let (first, second) = line.split_once(' ').unwrap();
        if first == "log" || first == "bulk" {
            media.push(SimMedium::new(second.parse().unwrap(), Torn::Lines));
            continue;
        }
        let byte = |at: usize| u8::from_str_radix(&second[2 * at..2 * at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..second.len() / 2).map(byte).collect();
        media.last_mut().unwrap().write(u64::from_str_radix(first, 16).unwrap(), &bytes).unwrap();
    }
    let bulk = media.pop().unwrap();
    (media.pop().unwrap(), bulk)
}

fn committed() -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-v4.hex");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (path, text)
}

#[test]
fn the_same_calls_write_the_bytes_that_were_committed() {
    let (log, bulk) = (SimMedium::new(LOG_BYTES, Torn::Lines), SimMedium::new(BULK_BYTES, Torn::Lines));
    write_all(&log, &bulk);
    let (path, text) = committed();
    let written = dump(&log, &bulk);
    if std::env::var_os("TALEA_WRITE_FORMAT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, written).unwrap();
        return;
    }
    let differs = written.lines().zip(text.lines()).find(|(written, committed)| written != committed);
    assert_eq!(differs, None, "the format has changed: see the top of this file");
    assert_eq!(written.len(), text.len(), "the format has changed: see the top of this file");
}

#[test]
fn the_bytes_that_were_committed_open() {
    let (_, text) = committed();
    let (log, bulk) = load(&text);
    let (mut store, recovered) = Store::open(media(&log, &bulk), options()).unwrap();
    assert!(!recovered.fresh && !recovered.lost);
    assert_eq!((recovered.horizon, recovered.ceiling), (Position(2), Stamp(100)));
    assert_eq!(get(&store, View::Latest, b"small").unwrap(), b"a value in the log");
    assert_eq!(get(&store, View::Latest, b"large").unwrap(), [0x5a; 5000]);
    assert_eq!(get(&store, View::Latest, b"pending"), None);
    // The transaction committed at 30, after the punch at 20.
    assert_eq!(read(&store, View::Latest, 5, 7), b"records");
    store.follow(&[Change::Commit(TxId(2), Stamp(40))], Position(3)).unwrap();
    assert_eq!(get(&store, View::Latest, b"pending").unwrap(), b"of a transaction that is open");
    // Another pair of tiers is refused.
    let stranger = SimMedium::new(BULK_BYTES, Torn::Lines);
    let refused = Store::open(media(&log, &stranger), options()).err().unwrap();
    assert!(matches!(refused, talea_vos::StoreError::Bulk(_)), "{refused}");
    let refused = Store::open(Box::new(log.clone()), options()).err().unwrap();
    assert!(matches!(refused, talea_vos::StoreError::Bulk(_)), "{refused}");
}
