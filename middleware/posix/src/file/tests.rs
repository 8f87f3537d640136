//! Shared files over the in-memory seam, against the rules of docs/design.md §7.

use proptest::prelude::*;

use super::*;
use crate::backing::memory::Memory;

mod foundings;
mod manifest;

/// Some processes that share one system.
struct Job {
    memory: Memory,
    files: Vec<Files>,
}

impl Job {
    fn new(processes: usize) -> Self {
        let memory = Memory::default();
        let files = (0..processes).map(|_| Files::new(Arc::new(memory.clone()))).collect();
        Self { memory, files }
    }

    /// A collective open: the first process opens, all attach.
    fn open(&self, path: &str, flags: OpenFlags) -> Vec<Handle> {
        let hints = Hints::parse("").unwrap();
        let blob = self.files[0].open(path.as_bytes(), flags, self.files.len() as u32, &hints).unwrap();
        self.files.iter().map(|files| files.attach(&blob).unwrap()).collect()
    }
}

const WRITE: OpenFlags = OpenFlags { write: true, create: true, exclusive: false, delete_on_close: false };
const READ: OpenFlags = OpenFlags { write: false, create: false, exclusive: false, delete_on_close: false };

/// A collective sync or close: all flush, one reduction, one commit, all advance.
fn commit(handles: &[Handle], next: bool) -> Result<(), Fault> {
    let bytes = handles[0].info().summary_bytes;
    let mut merged = vec![0; bytes];
    Summary::default().encode(&mut merged).unwrap();
    for handle in handles {
        let mut part = vec![0; bytes];
        handle.flush().unwrap().encode(&mut part).unwrap();
        merge_summaries(&mut merged, &part).unwrap();
    }
    let answer = handles[0].commit(Summary::decode(&merged).unwrap(), next)?;
    handles.iter().for_each(|handle| handle.advance(&answer.outcome).unwrap());
    answer.result
}

fn write(handle: &Handle, at: u64, data: &[u8]) -> Result<(), Fault> {
    handle.write(&[(at, data)])
}

fn read(handle: &Handle, at: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0xee; bytes];
    let end = handle.read(&mut [(at, &mut out)]).unwrap();
    out.truncate(end.saturating_sub(at).min(bytes as u64) as usize);
    out
}

fn code<T>(result: Result<T, Fault>) -> Code {
    result.err().map_or(Code::Ok, |fault| fault.code)
}

fn open_code(job: &Job, path: &str, flags: OpenFlags) -> Code {
    code(job.files[0].open(path.as_bytes(), flags, 1, &Hints::default()))
}

#[test]
fn all_ranks_writes_appear_at_one_commit() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/f", WRITE);
    assert!(writers.iter().all(|handle| handle.info().founder && handle.info().writable));
    assert_eq!(open_code(&job, "/talea/run/f", READ), Code::NotFound, "nothing is committed yet");
    write(&writers[0], 0, b"aaaa").unwrap();
    write(&writers[1], 5000, b"bbbb").unwrap();
    assert_eq!(writers[0].size().unwrap(), 5004, "the size covers what other processes wrote");
    assert_eq!(read(&writers[0], 4998, 10), b"\0\0bbbb");
    commit(&writers, true).unwrap();
    let readers = job.open("/talea/run/f", READ);
    write(&writers[1], 0, b"cc").unwrap();
    assert_eq!(read(&readers[1], 0, 4), b"aaaa");
    commit(&writers, false).unwrap();
    assert_eq!(read(&readers[0], 0, 4), b"aaaa", "a base does not move by itself");
    commit(&readers, true).unwrap();
    assert_eq!(read(&readers[1], 0, 4), b"ccaa");
    assert_eq!((job.memory.steps(), job.memory.begins(), job.memory.open_epochs()), (2, 2, 0));
    let step = job.open("/talea/run/.talea/steps/1/f", READ);
    assert_eq!(read(&step[0], 0, 4), b"aaaa");
    commit(&step, true).unwrap();
    assert_eq!(read(&step[0], 0, 4), b"aaaa", "a step view never moves");
    assert_eq!(open_code(&job, "/talea/run/.talea/steps/1/f", WRITE), Code::ReadOnly);
    assert_eq!(code(write(&readers[0], 0, b"x")), Code::ReadOnly);
}

#[test]
fn an_epoch_without_writes_makes_no_step() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/f", WRITE);
    write(&writers[0], 0, b"a").unwrap();
    commit(&writers, true).unwrap();
    commit(&writers, true).unwrap();
    commit(&writers, false).unwrap();
    assert_eq!(job.memory.steps(), 1);
}

#[test]
fn a_failed_write_fails_the_commit_and_the_next_epoch_goes_on() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/f", WRITE);
    write(&writers[0], 0, b"good").unwrap();
    commit(&writers, true).unwrap();
    write(&writers[0], 0, b"lost").unwrap();
    job.memory.fail_after(Some(0));
    assert_eq!(code(write(&writers[1], 9000, b"x")), Code::NoSpace);
    job.memory.fail_after(None);
    write(&writers[1], 100, b"later").unwrap();
    assert_ne!(code(commit(&writers, true)), Code::Ok);
    assert_eq!(read(&writers[0], 0, 100), b"good");
    assert_eq!(writers[1].size().unwrap(), 4);
    write(&writers[1], 4, b"!").unwrap();
    commit(&writers, false).unwrap();
    assert_eq!(read(&job.open("/talea/run/f", READ)[0], 0, 100), b"good!");
}

#[test]
fn a_file_whose_epoch_is_over_still_tells_what_is_known_of_its_size() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/f", WRITE);
    write(&writers[0], 0, b"good").unwrap();
    commit(&writers, true).unwrap();
    write(&writers[0], 4, b"lost").unwrap();
    assert_eq!(writers[0].read(&mut []).unwrap(), 8);
    writers[0].abort().unwrap();
    assert_eq!(code(writers[0].size()), Code::Aborted);
    assert_eq!(writers[0].read(&mut []).unwrap(), 8);
    assert_eq!((writers[1].info().processes, job.open("/talea/run/f", READ)[0].info().processes), (2, 0));
}

#[test]
fn a_file_whose_first_epoch_failed_leaves_no_step_if_nothing_follows() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/f", WRITE);
    job.memory.fail_after(Some(0));
    assert!(write(&writers[1], 0, b"x").is_err());
    job.memory.fail_after(None);
    assert_eq!(code(commit(&writers, true)), Code::Aborted);
    commit(&writers, true).unwrap();
    assert_eq!(open_code(&job, "/talea/run/f", READ), Code::NotFound, "a sync of nothing makes no file");
    commit(&writers, false).unwrap();
    drop(writers);
    assert_eq!(open_code(&job, "/talea/run/f", READ), Code::NotFound);
    // Nothing is in the way of another one, which a later write makes as ever.
    let writers = job.open("/talea/run/f", WRITE);
    job.memory.fail_after(Some(0));
    assert!(write(&writers[1], 0, b"x").is_err());
    job.memory.fail_after(None);
    assert_eq!(code(commit(&writers, true)), Code::Aborted);
    write(&writers[1], 0, b"yy").unwrap();
    commit(&writers, false).unwrap();
    let readers = job.open("/talea/run/f", READ);
    assert_eq!((read(&readers[0], 0, 4), readers[0].info().step), (b"yy".to_vec(), Step(1)));
}

#[test]
fn without_epochs_each_write_is_visible_at_once_and_makes_no_step() {
    let job = Job::new(2);
    let hints = Hints::parse("talea_epoch=none").unwrap();
    let blob = job.files[0].open(b"/talea/run/f", WRITE, 2, &hints).unwrap();
    let writers: Vec<Handle> = job.files.iter().map(|files| files.attach(&blob).unwrap()).collect();
    let seen = |at, bytes| read(&job.open("/talea/run/f", READ)[0], at, bytes);
    assert_eq!(seen(0, 4), b"", "the name is there at once");
    write(&writers[1], 0, b"aaaa").unwrap();
    assert_eq!(seen(0, 9), b"aaaa");
    // Over the border of a chunk.
    let chunk = writers[0].info().chunk_bytes;
    write(&writers[0], chunk - 2, b"bbbb").unwrap();
    assert_eq!((seen(chunk - 2, 9), writers[1].size().unwrap()), (b"bbbb".to_vec(), chunk + 2));
    // A cut holds for all processes, and the file grows again from there.
    let cut = writers[0].set_size(2).unwrap();
    writers.iter().for_each(|writer| writer.advance(&cut).unwrap());
    write(&writers[1], 3, b"c").unwrap();
    assert_eq!(seen(0, 9), b"aa\0c");
    job.memory.fail_after(Some(0));
    assert!(write(&writers[1], 0, b"x").is_err());
    job.memory.fail_after(None);
    assert_eq!(code(commit(&writers, true)), Code::Aborted, "the failure is told once");
    commit(&writers, true).unwrap();
    commit(&writers, false).unwrap();
    assert_eq!((seen(0, 9), job.memory.steps(), job.memory.open_epochs()), (b"aa\0c".to_vec(), 0, 0));
}

#[test]
fn a_failed_seal_fails_the_commit() {
    let job = Job::new(1);
    let writers = job.open("/talea/run/f", WRITE);
    write(&writers[0], 0, b"a").unwrap();
    job.memory.fail_after(Some(0));
    assert_eq!(code(commit(&writers, true)), Code::NoSpace);
    job.memory.fail_after(None);
    assert_eq!(job.memory.steps(), 0);
}

#[test]
fn a_second_handle_shares_the_epoch_and_goes_on_alone() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/f", WRITE);
    let begins = job.memory.begins();
    let alone: Vec<Handle> = job
        .files
        .iter()
        .map(|files| files.attach(&files.open(b"/talea/run/f", WRITE, 1, &Hints::default()).unwrap()).unwrap())
        .collect();
    assert_eq!(job.memory.begins(), begins, "no epoch of its own");
    assert!(alone.iter().all(|handle| !handle.info().founder && handle.info().writable));
    write(&alone[0], 0, b"one").unwrap();
    write(&alone[1], 3, b"two").unwrap();
    assert_eq!(read(&writers[1], 0, 6), b"onetwo");
    alone.iter().for_each(|handle| drop(handle.flush().unwrap()));
    assert_eq!(job.memory.steps(), 0, "its sync only flushes");
    assert_eq!(code(alone[0].commit(Summary::default(), true)), Code::Argument);
    commit(&writers, false).unwrap();
    drop(writers);
    assert_eq!(read(&job.open("/talea/run/f", READ)[0], 0, 9), b"onetwo");
    write(&alone[1], 6, b"three").unwrap();
    assert_eq!(alone[1].size().unwrap(), 11);
    alone[1].flush().unwrap();
    assert_eq!(read(&job.open("/talea/run/f", READ)[0], 0, 20), b"onetwothree");
    write(&alone[0], 0, b"never").unwrap();
    drop(alone);
    assert_eq!(read(&job.open("/talea/run/f", READ)[0], 0, 3), b"one");
    assert_eq!(job.memory.open_epochs(), 0);
}

#[test]
fn outsiders_of_a_founding_cannot_share_it() {
    let job = Job::new(2);
    let blob = job.files[0].open(b"/talea/run/f", WRITE, 1, &Hints::default()).unwrap();
    let first = job.files[0].attach(&blob).unwrap();
    // A larger communicator founds its own.
    let all = job.open("/talea/run/f", WRITE);
    assert!(all.iter().all(|handle| handle.info().founder));
    write(&first, 0, b"x").unwrap();
    write(&all[1], 0, b"y").unwrap();
    commit(&all, false).unwrap();
    commit(&[first], false).unwrap();
    assert_eq!(read(&job.open("/talea/run/f", READ)[0], 0, 3), b"x", "the last commit wins");
    // What a process shares with its own founding means nothing to a process outside of it.
    drop(all);
    let _first =
        job.files[0].attach(&job.files[0].open(b"/talea/run/f", WRITE, 1, &Hints::default()).unwrap()).unwrap();
    let second = job.files[0].open(b"/talea/run/f", WRITE, 1, &Hints::default()).unwrap();
    assert_eq!(code(job.files[1].attach(&second)), Code::Conflict);
}

#[test]
fn closing_without_a_commit_leaves_nothing() {
    let job = Job::new(2);
    let writers = job.open("/talea/run/f", WRITE);
    write(&writers[1], 0, b"x").unwrap();
    drop(writers);
    assert_eq!((job.memory.open_epochs(), job.memory.steps()), (0, 0));
    assert_eq!(open_code(&job, "/talea/run/f", OpenFlags { create: false, ..WRITE }), Code::NotFound);
}

#[test]
fn delete_on_close_aborts_and_unlinks() {
    let job = Job::new(2);
    commit(&job.open("/talea/run/old", WRITE), false).unwrap();
    for path in ["/talea/run/old", "/talea/run/new"] {
        let handles = job.open(path, OpenFlags { delete_on_close: true, ..WRITE });
        write(&handles[1], 0, b"x").unwrap();
        handles[0].abort().unwrap();
        assert_eq!(code(write(&handles[0], 0, b"x")), Code::Aborted);
        drop(handles);
        assert_eq!(open_code(&job, path, OpenFlags { create: false, ..WRITE }), Code::NotFound, "{path}");
    }
    assert_eq!(job.memory.steps(), 1, "that of the old file's creation");
}

#[test]
fn errors_have_their_codes() {
    let job = Job::new(1);
    let exclusive = OpenFlags { exclusive: true, ..WRITE };
    commit(&job.open("/talea/run/f", exclusive), false).unwrap();
    assert_eq!(open_code(&job, "/talea/run/f", exclusive), Code::Exists);
    assert_eq!(open_code(&job, "/talea/none/f", WRITE), Code::NoContainer);
    assert_eq!(open_code(&job, "/talea/run/d/f", WRITE), Code::NotFound);
    assert_eq!(open_code(&job, "/talea/run/g", OpenFlags { create: false, ..WRITE }), Code::NotFound);
    assert_eq!(open_code(&job, "/talea/run", WRITE), Code::Kind);
    assert_eq!(open_code(&job, "/talea/run", READ), Code::Kind);
    assert_eq!(open_code(&job, "/talea/run/.talea/steps/9/f", READ), Code::NotFound);
    assert_eq!(code(job.files[0].attach(b"\x03garbage")), Code::Argument);
    assert_eq!(job.memory.open_epochs(), 0);
    let handle = &job.open("/talea/run/f", WRITE)[0];
    assert_eq!(code(write(handle, u64::MAX - 1, b"xx")), Code::TooLong);
    assert_eq!(code(handle.set_size(u64::MAX)), Code::TooLong);
}

/// A sparse file may end anywhere: cutting it costs what is there, not how far it reaches.
#[test]
fn a_sparse_file_is_cut_by_what_it_holds() {
    let job = Job::new(1);
    let writers = job.open("/talea/run/f", WRITE);
    write(&writers[0], 0, b"begin").unwrap();
    write(&writers[0], 1 << 40, b"middle").unwrap();
    write(&writers[0], (1 << 62) + 3, b"end").unwrap();
    let outcome = writers[0].set_size((1 << 40) + 3).unwrap();
    writers[0].advance(&outcome).unwrap();
    assert_eq!(writers[0].size().unwrap(), (1 << 40) + 3);
    let outcome = writers[0].set_size(1 << 62 | 6).unwrap();
    writers[0].advance(&outcome).unwrap();
    assert_eq!(read(&writers[0], 1 << 40, 6), b"mid\0\0\0");
    assert_eq!(read(&writers[0], 1 << 62, 6), b"\0\0\0\0\0\0", "what was cut off does not come back");
    let outcome = writers[0].set_size(3).unwrap();
    writers[0].advance(&outcome).unwrap();
    commit(&writers, true).unwrap();
    assert_eq!(read(&writers[0], 0, 9), b"beg");
}

#[test]
fn hints_are_checked_and_strangers_ignored() {
    let hints = Hints::parse("cb_nodes=4\ntalea_class=S2\ntalea_chunk_bytes=65536\nnonsense").unwrap();
    assert_eq!((hints.class, hints.chunk_bytes), (Some("S2".parse().unwrap()), Some(65536)));
    assert_eq!(code(Hints::parse("talea_class=Q9")), Code::Argument);
    assert_eq!(code(Hints::parse("talea_chunk_bytes=12")), Code::Argument);
}

#[test]
fn renaming_a_file_of_an_open_epoch_commits_it_first() {
    let job = Job::new(1);
    let writers = job.open("/talea/run/f", WRITE);
    write(&writers[0], 0, b"x").unwrap();
    job.files[0].rename(b"/talea/run/f", b"/talea/run/g").unwrap();
    assert_eq!(read(&job.open("/talea/run/g", READ)[0], 0, 3), b"x");
    write(&writers[0], 1, b"y").unwrap();
    commit(&writers, false).unwrap();
    assert_eq!(read(&job.open("/talea/run/g", READ)[0], 0, 3), b"xy");
    assert_eq!(open_code(&job, "/talea/run/f", READ), Code::NotFound);
}

#[derive(Clone, Debug)]
enum Step {
    Write { process: usize, at: u16, bytes: u16 },
    SetSize { process: usize, bytes: u16 },
    Commit { fail: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0..3usize;
    prop_oneof![
        5 => (process.clone(), 0u16..20_000, 1u16..6000)
            .prop_map(|(process, at, bytes)| Step::Write { process, at, bytes }),
        2 => (process, prop_oneof![Just(0u16), 0u16..25_000]).prop_map(|(process, bytes)| Step::SetSize { process, bytes }),
        2 => any::<bool>().prop_map(|fail| Step::Commit { fail }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Three processes on one file agree with one vector of bytes: inside the epoch, at each commit, and in each step.
    #[test]
    fn agrees_with_a_vector(steps in prop::collection::vec(step(), 1..25)) {
        let job = Job::new(3);
        let handles = job.open("/talea/run/f", WRITE);
        let (mut now, mut committed, mut history) = (Vec::new(), Vec::new(), Vec::new());
        for (number, step) in (1u8..).zip(&steps) {
            match *step {
                Step::Write { process, at, bytes } => {
                    let (at, data) = (at as usize, vec![number; bytes as usize]);
                    now.resize(now.len().max(at + data.len()), 0);
                    now[at..at + data.len()].copy_from_slice(&data);
                    write(&handles[process], at as u64, &data).unwrap();
                }
                Step::SetSize { process, bytes } => {
                    let outcome = handles[process].set_size(bytes as u64).unwrap();
                    handles.iter().for_each(|handle| handle.advance(&outcome).unwrap());
                    now.resize(bytes as usize, 0);
                }
                Step::Commit { fail } => {
                    let before = job.memory.steps();
                    if fail {
                        job.memory.fail_after(Some(0));
                        let _ = write(&handles[1], 0, b"x");
                        job.memory.fail_after(None);
                    }
                    prop_assert_eq!(commit(&handles, true).is_err(), fail);
                    if fail { now = committed.clone() } else { committed = now.clone() }
                    if job.memory.steps() > before {
                        history.push(committed.clone());
                    }
                }
            }
            for handle in &handles {
                prop_assert_eq!(handle.size().unwrap(), now.len() as u64);
                prop_assert_eq!(&read(handle, 0, 30_000), &now);
            }
        }
        for (number, wanted) in (1..).zip(&history) {
            let view = &job.open(&format!("/talea/run/.talea/steps/{number}/f"), READ)[0];
            prop_assert_eq!(&read(view, 0, 30_000), wanted);
        }
    }
}
