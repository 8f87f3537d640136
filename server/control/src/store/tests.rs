//! What was stored is read back; what was damaged says so.

use std::os::unix::fs::FileExt;

use super::*;

fn entry(index: u64) -> StoreOp {
    StoreOp::Append { index, bytes: format!("entry {index}, which is of some length").repeat(10).into_bytes() }
}

#[test]
fn what_was_stored_is_read_back_under_the_name_that_it_began_with() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, stored) = FileLog::open(directory.path(), ServerId(0), 17).unwrap();
    assert!(stored.is_empty());
    let ops = [
        vec![StoreOp::Vote(vec![1]), entry(0), entry(1)],
        vec![entry(2), entry(3), StoreOp::Truncate { from: 3 }, entry(3)],
        vec![StoreOp::Vote(vec![2]), StoreOp::Snapshot(vec![9; 100_000]), StoreOp::Purge { through: 1, id: vec![7] }],
    ];
    let mut model = Stored::default();
    for ops in ops {
        log.apply(&ops, &[]).unwrap();
        ops.into_iter().for_each(|op| model.apply(op));
    }
    assert!(matches!(FileLog::open(directory.path(), ServerId(0), 18), Err(StoreError::InUse(_))));
    drop(log);
    let (log, stored) = FileLog::open(directory.path(), ServerId(0), 18).unwrap();
    assert_eq!((log.life(), &stored), (17, &model));
    assert_eq!(stored.entries.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_flipped_byte_in_an_entry_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = FileLog::open(directory.path(), ServerId(0), 1).unwrap();
    log.apply(&[entry(0)], &[]).unwrap();
    drop(log);
    let StoreOp::Append { bytes, .. } = entry(0) else { panic!() };
    let path = directory.path().join(log_file(ServerId(0)));
    let file = fs::read(&path).unwrap();
    let places: Vec<usize> = (0..file.len() - bytes.len()).filter(|at| file[*at..].starts_with(&bytes)).collect();
    assert!(!places.is_empty());
    let handle = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in places {
        handle.write_all_at(&[file[at + 40] ^ 1], at as u64 + 40).unwrap();
    }
    let error = FileLog::open(directory.path(), ServerId(0), 1).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("Restore"), "it says what to do: {error}");
}

#[test]
fn garbage_and_a_hole_are_no_log() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join(log_file(ServerId(0))),
        b"this is not a database, whatever its name says".repeat(100),
    )
    .unwrap();
    let error = FileLog::open(directory.path(), ServerId(0), 1).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");

    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = FileLog::open(directory.path(), ServerId(0), 1).unwrap();
    log.apply(&[entry(1), entry(3)], &[]).unwrap();
    drop(log);
    let error = FileLog::open(directory.path(), ServerId(0), 1).err().unwrap();
    assert!(error.to_string().contains("entry 2 is missing"), "{error}");
}

#[test]
fn servers_share_a_directory_and_an_earlier_log_is_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let (mut first, _) = FileLog::open(directory.path(), ServerId(0), 1).unwrap();
    let (second, stored) = FileLog::open(directory.path(), ServerId(1), 2).unwrap();
    first.apply(&[entry(0)], &[]).unwrap();
    assert!(stored.is_empty() && second.life() == 2);

    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(EARLIER_FILE), b"a log").unwrap();
    let error = FileLog::open(directory.path(), ServerId(0), 1).err().unwrap();
    assert!(error.to_string().contains("earlier release"), "{error}");
}

#[test]
fn notes_outlive_the_process_and_a_new_file_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let note = |session, tx| Note::Join { session: SessionId(session), tx: TxId(tx) };
    let (mut log, _) = FileLog::open(directory.path(), ServerId(0), 1).unwrap();
    assert_eq!(log.joined(), None, "whether there was another file before, nobody can say");
    log.apply(&[], &[note(1, 7), note(1, 8), note(2, 8), note(3, u64::MAX)]).unwrap();
    log.apply(&[entry(0)], &[Note::Leave { session: SessionId(1), tx: TxId(7) }]).unwrap();
    log.apply(&[], &[Note::End { session: SessionId(3) }, Note::End { session: SessionId(9) }]).unwrap();
    drop(log);
    let (log, stored) = FileLog::open(directory.path(), ServerId(0), 1).unwrap();
    let expected = Joined::from([1, 2].map(|session| (SessionId(session), BTreeSet::from([TxId(8)]))));
    assert_eq!((log.joined(), stored.entries.len()), (Some(&expected), 1));
}
