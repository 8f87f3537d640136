//! A tier file is sparse: the file system below may be full long before the tier is. That refuses the update, and nothing more.

mod support;

use std::path::Path;
use std::process::Command;

use support::kit::*;
use talea_model::{Position, Stamp, TargetId, TxId, View};
use talea_tier::{TiersConfig, open_media};
use talea_vos::{Change, Condition, Punch, Store, StoreError, StoreOptions};

/// Bytes of the tier, and how far its file may be filled.
const CAPACITY: u64 = 32 << 20;
const ROOM: u64 = 12 << 20;
const CHILD: &str = "TALEA_TEST_FULL_MEDIUM";

fn open(kind: &str, dir: &Path) -> Store {
    let config: TiersConfig = format!("{kind}:{}:{}", dir.display(), CAPACITY).parse().unwrap();
    let options = StoreOptions { nonce: 8, segment_bytes: 64 << 10, ..StoreOptions::default() };
    Store::open(open_media(&config, TargetId(0)).unwrap(), options).unwrap().0
}

/// No file of a child may grow beyond `ROOM`, as if the file system ended there.
#[test]
fn a_full_file_system_below_a_sparse_tier_refuses_updates_alone() {
    if let Ok(child) = std::env::var(CHILD) {
        let (kind, dir) = child.split_once(':').unwrap();
        return fill(kind, Path::new(dir));
    }
    for (kind, parent) in [("pmem", "/dev/shm"), ("nvme", "/var/tmp")] {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let mut store = open(kind, dir.path());
        write(&mut store, AUTO, 10, 0, &[7; 100_000]).unwrap();
        store.flush().unwrap();
        drop(store);
        let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" --exact \"$1\" --nocapture", ROOM / 512);
        let this = std::env::current_exe().unwrap();
        let name = "a_full_file_system_below_a_sparse_tier_refuses_updates_alone";
        let mut child = Command::new("sh");
        child.args(["-c", &limited]).arg(this).arg(name).env(CHILD, format!("{kind}:{}", dir.path().display()));
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("filled: "), "{kind}: {text}");
        // With room again, all that was acknowledged is there, and updates go on.
        let mut store = open(kind, dir.path());
        assert!(read(&store, View::Latest, 0, 100_000) == vec![7; 100_000], "{kind}");
        write(&mut store, AUTO, 200_000_000, 0, &vec![9; ROOM as usize / 12]).unwrap();
        store.flush().unwrap();
    }
}

fn fill(kind: &str, dir: &Path) {
    let mut store = open(kind, dir);
    let mut index = 1_000_000;
    let full = loop {
        match write(&mut store, AUTO, index, index, &[3; 60_000]) {
            Ok(()) => index += 60_000,
            Err(StoreError::RoomToCome { .. }) => _ = store.background(64).unwrap(),
            Err(error) => break error,
        }
        store.flush().unwrap();
        assert!(index < 1_000_000 + CAPACITY, "{kind}: it never is full");
    };
    let written = index - 1_000_000;
    assert!(written > ROOM / 2, "{kind}: full after {written} bytes: {full}");
    // What went before stays, fates and punches go on, and what a punch frees can be used.
    assert!(read(&store, View::Latest, 0, 100_000) == vec![7; 100_000], "{kind}");
    assert!(read(&store, View::Latest, 1_000_000, 60_000) == vec![3; 60_000], "{kind}");
    let mut stamp = 100_000_000;
    store.follow(&[Change::Begin(TxId(1)), Change::Abort(TxId(1))], Position(1)).unwrap();
    for n in 0..20 {
        stamp += 1;
        let extent = talea_model::Extent { index: 1_000_000 + n * 60_000, count: 60_000 };
        let range = Punch::Range { dkey: b"d", akey: b"a", extent };
        store.punch(at(1), AUTO, Stamp(stamp), View::Latest, NOBODY, range, Condition::None).unwrap();
    }
    store.follow(&[Change::Floor(at(1).container, Stamp(stamp))], Position(2)).unwrap();
    store.flush().unwrap();
    let mut again = 0;
    for n in 0..60 {
        while store.background(64).unwrap() {}
        again += u64::from(write(&mut store, AUTO, stamp + 1 + n, 1_000_000, &[4; 60_000]).is_ok());
        store.flush().unwrap();
    }
    assert!(again >= 10, "{kind}: {again} updates after 20 of their size were punched");
    println!("filled: {full}");
}
