//! `talead inspect` on files that a store wrote, whole and damaged.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use talea_model::{ContainerId, ObjectClass, Oid, Order, Position, Stamp, TargetId, TxId, View};
use talea_tier::{TiersConfig, open_media};
use talea_vos::checksum::crc32c;
use talea_vos::{Caller, Change, Condition, EntryUpdate, ObjectRef, Store, StoreOptions, ValueKind};

fn inspect(dir: &Path, more: &[&str]) -> (Output, String) {
    let (log, bulk) = (dir.join("target-0"), dir.join("target-0.bulk"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_talead"));
    command.arg("inspect").arg(log).arg("--bulk").arg(bulk).args(more);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// A store on two tiers with a checkpoint, an open transaction and values of both sizes.
fn fill(dir: &Path) {
    fill_as(dir, false);
}

fn fill_as(dir: &Path, unsummed: bool) {
    let path = dir.display();
    let config: TiersConfig = format!("pmem:{path}:2M,nvme:{path}:4M").parse().unwrap();
    let media = open_media(&config, TargetId(0)).unwrap();
    let options = StoreOptions { nonce: 9, checkpoint_bytes: 1, unsummed, ..StoreOptions::default() };
    let (mut store, _) = Store::open(media, options).unwrap();
    let at = ObjectRef { container: ContainerId(7), oid: Oid::new(ObjectClass::S1, 1) };
    let put = |store: &mut Store, order, key: &[u8], data: &[u8]| {
        let (kind, condition, checksum) = (ValueKind::Single, Condition::None, crc32c(data));
        let entry = EntryUpdate { dkey: b"d", akey: key, kind, condition, extents: &[], data, checksum };
        store.update(at, order, Stamp(10), View::Latest, Caller::default(), &[entry]).unwrap();
    };
    store.follow(&[Change::Begin(TxId(1))], Position(1)).unwrap();
    put(&mut store, Order::Auto { tied: None }, b"old", b"before the checkpoint");
    store.flush().unwrap();
    while store.background(100).unwrap() {}
    put(&mut store, Order::Pending(TxId(1)), b"small", b"small value in the log");
    put(&mut store, Order::Auto { tied: None }, b"large", &[5; 100_000]);
    store.flush().unwrap();
    put(&mut store, Order::Auto { tied: None }, b"last", b"proves what was before");
    store.flush().unwrap();
}

/// Flips a bit of the first place that holds `pattern`.
fn damage(path: &Path, pattern: &[u8]) {
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(pattern.len()).position(|window| window == pattern).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
}

#[test]
fn a_whole_store_is_shown_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let before = std::fs::read(dir.path().join("target-0")).unwrap();
    let (output, text) = inspect(dir.path(), &[]);
    assert!(output.status.success(), "{text}");
    for word in [
        "whole, generation",
        "belongs to this store",
        "1 open transactions",
        "DKEY",
        "\"d\".\"small\" 22 bytes here",
        "100000 bytes at offset",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (output, text) = inspect(dir.path(), &["--json"]);
    assert!(output.status.success());
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["record"]["kind"] == "UPDATE"));
    let (_, text) = inspect(dir.path(), &["--json", "--summary"]);
    assert!(!text.contains("\"record\"") && text.contains("\"end\""));
    assert!(before == std::fs::read(dir.path().join("target-0")).unwrap(), "looking changes nothing");
}

#[test]
fn a_log_and_a_checkpoint_of_several_segments_are_whole() {
    for (checkpoint_bytes, chain) in [(1 << 30, "log"), (1, "checkpoint")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let config: TiersConfig = format!("pmem:{path}:8M,nvme:{path}:4M").parse().unwrap();
        let options = StoreOptions { nonce: 9, checkpoint_bytes, ..StoreOptions::default() };
        let (mut store, _) = Store::open(open_media(&config, TargetId(0)).unwrap(), options).unwrap();
        let at = ObjectRef { container: ContainerId(7), oid: Oid::new(ObjectClass::S1, 1) };
        for key in 0..2000u32 {
            let (key, data) = (key.to_le_bytes(), [key as u8; 100]);
            let (kind, condition, checksum) = (ValueKind::Single, Condition::None, crc32c(&data));
            let entry = EntryUpdate { dkey: &key, akey: b"a", kind, condition, extents: &[], data: &data, checksum };
            let order = Order::Auto { tied: None };
            store.update(at, order, Stamp(10), View::Latest, Caller::default(), &[entry]).unwrap();
        }
        store.flush().unwrap();
        while store.background(100).unwrap() {}
        store.flush().unwrap();
        drop(store);
        let (output, text) = inspect(dir.path(), &["--json"]);
        assert!(
            output.status.success(),
            "{chain}: {}",
            text.lines().filter(|l| l.contains("problem")).collect::<String>()
        );
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let leads_on = |line: &&serde_json::Value| line["record"]["kind"] == "NEXT" && line["record"]["chain"] == chain;
        assert!(lines.iter().filter(leads_on).count() > 1, "{chain}: {text}");
    }
}

#[test]
fn what_is_damaged_is_named() {
    for (file, pattern, word) in [
        ("target-0", &b"small value in the log"[..], "are damaged or missing"),
        ("target-0.bulk", &[5; 5000], "a value of 100000 bytes"),
        ("target-0.bulk", b"TALEBULK", "the bulk tier's header cannot be used"),
        ("target-0", b"TALESPER", "this superblock cannot be used"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        damage(&dir.path().join(file), pattern);
        let (output, text) = inspect(dir.path(), &[]);
        assert_eq!(output.status.code(), Some(1), "{word}: {text}");
        assert!(text.contains("PROBLEM") && text.contains(word), "{word}: {text}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("problems found: "));
    }
}

#[test]
fn damaged_headers_of_segments_and_media_that_were_cut_off_are_named() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (log, bulk) = (dir.path().join("target-0"), dir.path().join("target-0.bulk"));
    let whole = std::fs::read(&log).unwrap();
    let mut image = whole.clone();
    // Those that nothing leads to any more, too.
    for at in (0..image.len() - 8).step_by(4096).filter(|at| whole[*at..].starts_with(b"TALEASEG")) {
        image[at + 20] ^= 1;
    }
    assert_ne!(image, whole);
    std::fs::write(&log, &image).unwrap();
    let (output, text) = inspect(dir.path(), &[]);
    assert!(output.status.code() == Some(1) && text.contains("the header of segment"), "{text}");
    std::fs::write(&log, &whole[..whole.len() / 2]).unwrap();
    std::fs::File::options().write(true).open(&bulk).unwrap().set_len(1 << 20).unwrap();
    let (_, text) = inspect(dir.path(), &[]);
    let cut = text.lines().filter(|line| line.contains("the medium ends here")).count();
    assert_eq!(cut, 2, "{text}");
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("target-0"), [7; 10_000]).unwrap();
    let talead = || Command::new(env!("CARGO_BIN_EXE_talead"));
    let output = talead().arg("inspect").arg(dir.path().join("target-0")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not Talea's"));
    let output = talead().arg("inspect").arg(dir.path().join("missing")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing"));
}

/// Damage in a value cannot be seen there, and that is said.
#[test]
fn a_store_without_checksums_says_so() {
    let dir = tempfile::tempdir().unwrap();
    fill_as(dir.path(), true);
    let (output, text) = inspect(dir.path(), &[]);
    assert!(output.status.success() && text.contains("values without checksums"), "{text}");
    let (_, text) = inspect(dir.path(), &["--json", "--summary"]);
    assert!(text.contains("\"unsummed\":true"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let (_, text) = inspect(dir.path(), &["--json", "--summary"]);
    assert!(text.contains("\"unsummed\":false"), "{text}");
}
