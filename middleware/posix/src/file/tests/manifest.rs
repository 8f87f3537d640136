//! What a step says of the files that it wrote.

use talea_model::{Manifest, manifest};

use super::*;
use crate::backing::Fetch;

/// Where a file's own records lie.
fn slot(job: &Job, path: &str) -> u32 {
    let oid = job.files[0].stat(path.as_bytes()).unwrap().inode.unwrap().oid;
    job.memory.manifest_slot(oid, inode::META).unwrap()
}

/// The paths that a step names, if the record where it says so is its own. The model's transactions are its epochs, in order.
fn named(job: &Job, step: u64, tx: TxId) -> Option<Vec<String>> {
    let snapshot = job.memory.snapshot(SnapshotAt::Step(Step(step))).unwrap();
    let (slot, mut out) = (manifest::dkey(job.memory.manifest(step)?), vec![0; 4096]);
    let mut fetch =
        [Fetch { dkey: &slot, akey: manifest::AKEY, extents: vec![], out: &mut out, found: false, bytes: 0 }];
    job.memory.fetch(snapshot.view(), manifest::object(), &mut fetch).unwrap();
    let (found, bytes) = (fetch[0].found, fetch[0].bytes);
    let read = found.then(|| Manifest::decode(&out[..bytes]).unwrap()).filter(|manifest| manifest.tx == tx)?;
    Some(read.files.into_iter().map(|file| String::from_utf8(file.path).unwrap()).collect())
}

fn tx_of(job: &Job, handle: &Handle) -> TxId {
    let group = handle.group().unwrap();
    let (blob, ..) = group.shared().unwrap();
    let epoch = Backing::join(&job.memory, &blob).unwrap();
    let tx = epoch.tx();
    epoch.closed();
    tx
}

#[test]
fn a_step_names_the_file_that_it_wrote_and_a_failed_epoch_nothing() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/./f", WRITE);
    let first = tx_of(&job, &writers[0]);
    write(&writers[1], 0, b"a").unwrap();
    commit(&writers, true).unwrap();
    assert_eq!(named(&job, 1, first), Some(vec!["f".to_owned()]));
    assert_eq!(job.memory.manifest(1), Some(slot(&job, "/talea/run/f")), "beside the file's size");
    // Fails after its manifest was written: the step that follows does not show it.
    let failed = tx_of(&job, &writers[0]);
    write(&writers[0], 0, b"b").unwrap();
    writers[1].fail().unwrap();
    assert!(commit(&writers, true).is_err());
    let third = tx_of(&job, &writers[0]);
    write(&writers[0], 0, b"c").unwrap();
    commit(&writers, false).unwrap();
    assert_eq!((named(&job, 2, failed), named(&job, 2, third)), (None, Some(vec!["f".to_owned()])));
    assert_eq!(named(&job, 1, first), Some(vec!["f".to_owned()]), "a step's word stays");
}

#[test]
fn an_epoch_of_several_files_names_those_that_were_written() {
    let job = Job::new(1);
    let files: Vec<Handle> =
        ["/talea/run/a", "/talea/run/b", "/talea/run/c"].map(|path| job.open(path, WRITE).remove(0)).into();
    for file in &files {
        write(file, 0, b"x").unwrap();
        commit(std::slice::from_ref(file), true).unwrap();
    }
    let epoch = job.files[0].epoch_attach(&job.files[0].epoch_begin("run").unwrap()).unwrap();
    for file in &files {
        let told = file.enter(&epoch).unwrap();
        file.advance(&told).unwrap();
    }
    let tx = tx_of(&job, &files[0]);
    write(&files[2], 0, b"y").unwrap();
    write(&files[0], 0, b"y").unwrap();
    let mut sum = epoch.summary().unwrap();
    let parts: Vec<Summary> = files.iter().map(|file| file.seal(file.flush().unwrap()).unwrap()).collect();
    parts.iter().for_each(|part| sum.merge(part));
    let (step, result) = epoch.commit(&sum);
    assert_eq!((step.unwrap(), named(&job, 4, tx)), (Step(4), Some(vec!["a".to_owned(), "c".to_owned()])));
    let beside = [slot(&job, "/talea/run/a"), slot(&job, "/talea/run/c")];
    assert!(beside.contains(&job.memory.manifest(4).unwrap()), "beside the size of a file that was written");
    epoch.advance(&result).unwrap();
    for (file, part) in files.iter().zip(&parts) {
        file.advance(&file.settle(&result, part).unwrap()).unwrap();
    }
    // Objects alone have no names, and what the last epoch wrote is not told again.
    let tx = tx_of(&job, &files[0]);
    let part = Backing::join(&job.memory, &epoch.blob().unwrap()).unwrap();
    part.update(
        Oid::new(ObjectClass::SX, 9),
        &[crate::namespace::value(b"d", b"a", b"v", crate::backing::Condition::None)],
    )
    .unwrap();
    let (step, _) = epoch.commit(&part.summary().unwrap());
    part.closed();
    assert_eq!((step.unwrap(), named(&job, 5, tx)), (Step(5), None));
}

#[test]
fn a_file_that_got_another_name_is_named_by_that() {
    let job = Job::new(1);
    let file = job.open("/talea/run/old", WRITE).remove(0);
    write(&file, 0, b"a").unwrap();
    job.files[0].rename(b"/talea/run/old", b"/talea/run/new").unwrap();
    let tx = tx_of(&job, &file);
    write(&file, 0, b"b").unwrap();
    commit(std::slice::from_ref(&file), false).unwrap();
    assert_eq!(named(&job, 2, tx), Some(vec!["new".to_owned()]));
}
