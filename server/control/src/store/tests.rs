//! What was appended is read back; what was damaged says so.

use std::os::unix::fs::FileExt;

use super::*;
use talea_model::{SessionId, Stamp, TxId};
use talea_wire::log::Entry;

fn record(position: u64) -> (Position, Vec<u8>) {
    let entry = Entry::Abort { tx: TxId(position), reason: "a reason of some length".repeat(10) };
    let position = Position(position);
    let record = Record { position, proposed: Stamp(7), session: SessionId(0), sequence: 0, entry };
    (position, codec::encode(&record).unwrap())
}

#[test]
fn what_was_appended_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, records) = FileLog::open(directory.path()).unwrap();
    assert!(records.is_empty());
    log.append(&[record(1), record(2)]).unwrap();
    log.append(&[record(3)]).unwrap();
    assert!(matches!(FileLog::open(directory.path()), Err(StoreError::InUse(_))));
    drop(log);
    let (log, records) = FileLog::open(directory.path()).unwrap();
    assert_eq!(log.last(), Position(3));
    assert_eq!(records.iter().map(|record| record.position.0).collect::<Vec<_>>(), vec![1, 2, 3]);
}

#[test]
fn a_flipped_byte_in_a_record_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = FileLog::open(directory.path()).unwrap();
    let (position, bytes) = record(1);
    log.append(&[(position, bytes.clone())]).unwrap();
    drop(log);
    let path = directory.path().join(LOG_FILE);
    let file = fs::read(&path).unwrap();
    let places: Vec<usize> = (0..file.len() - bytes.len()).filter(|at| file[*at..].starts_with(&bytes)).collect();
    assert!(!places.is_empty());
    let handle = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in places {
        handle.write_all_at(&[file[at + 40] ^ 1], at as u64 + 40).unwrap();
    }
    let error = FileLog::open(directory.path()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("Restore"), "it says what to do: {error}");
}

#[test]
fn garbage_and_a_hole_are_no_log() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(LOG_FILE), b"this is not a database, whatever its name says".repeat(100)).unwrap();
    let error = FileLog::open(directory.path()).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");

    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = FileLog::open(directory.path()).unwrap();
    log.append(&[record(1), record(3)]).unwrap();
    drop(log);
    let error = FileLog::open(directory.path()).err().unwrap();
    assert!(error.to_string().contains("record 2 is missing"), "{error}");
}
