//! Several foundings on one file: processes that open it each alone, and commit each its own.

use proptest::prelude::*;

use super::*;

/// Process `number` opens the file alone.
fn alone(job: &Job, number: usize, hints: &str) -> Handle {
    let blob = job.files[number].open(b"/talea/run/f", WRITE, 1, &Hints::parse(hints).unwrap()).unwrap();
    job.files[number].attach(&blob).unwrap()
}

fn sizes(handles: &[Handle]) -> Vec<u64> {
    handles.iter().map(|handle| handle.size().unwrap()).collect()
}

fn committed(job: &Job) -> (u64, Vec<u8>) {
    let reader = &job.open("/talea/run/f", READ)[0];
    (reader.size().unwrap(), read(reader, 0, 64))
}

#[test]
fn whoever_commits_later_does_not_make_a_file_smaller() {
    for syncs in [false, true] {
        let job = Job::new(2);
        let handles = [alone(&job, 0, ""), alone(&job, 1, "")];
        write(&handles[0], 0, b"aa").unwrap();
        write(&handles[1], 8, b"bb").unwrap();
        handles[1].sync().unwrap();
        assert_eq!(sizes(&handles), [2, 10], "the first one's base is from before");
        if syncs {
            handles[0].sync().unwrap();
            assert_eq!(sizes(&handles), [10, 10], "a sync takes over what others have committed");
            assert_eq!(read(&handles[0], 8, 2), b"bb");
            write(&handles[0], 0, b"aa").unwrap();
        }
        handles[0].sync().unwrap();
        assert_eq!(committed(&job), (10, b"aa\0\0\0\0\0\0bb".to_vec()));
    }
}

#[test]
fn a_truncation_cuts_what_was_committed_before_it() {
    let job = Job::new(2);
    let handles = [alone(&job, 0, ""), alone(&job, 1, "")];
    write(&handles[1], 0, b"0123456789").unwrap();
    handles[1].sync().unwrap();
    handles[0].sync().unwrap();
    handles[0].set_size(4).unwrap();
    write(&handles[1], 20, b"x").unwrap();
    handles[1].sync().unwrap();
    handles[0].sync().unwrap();
    assert_eq!(committed(&job), (4, b"0123".to_vec()));
    handles[1].sync().unwrap();
    assert_eq!(sizes(&handles), [4, 4]);
    // In the other order the write is the later one.
    handles[0].set_size(2).unwrap();
    write(&handles[1], 6, b"y").unwrap();
    handles[0].sync().unwrap();
    handles[1].sync().unwrap();
    assert_eq!(committed(&job), (7, b"01\0\0\0\0y".to_vec()));
    // Beyond all data, and to nothing.
    handles[0].sync().unwrap();
    handles[0].set_size(1 << 40).unwrap();
    handles[0].sync().unwrap();
    write(&handles[1], 0, b"z").unwrap();
    handles[1].sync().unwrap();
    assert_eq!(committed(&job).0, 1 << 40);
    handles[0].sync().unwrap();
    handles[0].set_size(0).unwrap();
    handles[0].sync().unwrap();
    assert_eq!(committed(&job), (0, vec![]));
}

#[test]
fn without_epochs_growth_by_others_is_seen_at_once() {
    let job = Job::new(2);
    let handles = [alone(&job, 0, "talea_epoch=none"), alone(&job, 1, "talea_epoch=none")];
    for turn in 0..4_u64 {
        let (from, to) = (&handles[turn as usize % 2], &handles[1 - turn as usize % 2]);
        write(from, 8 * turn, &[turn as u8 + 1; 8]).unwrap();
        assert_eq!((to.size().unwrap(), read(to, 8 * turn, 9)), (8 * turn + 8, vec![turn as u8 + 1; 8]));
    }
}

/// Records of ends that a reader of the newest state would find.
fn ends(job: &Job) -> usize {
    let oid = match job.files[0].stat(b"/talea/run/f").unwrap().inode {
        Some(inode) => inode.oid,
        None => panic!("no file"),
    };
    job.memory.cells(oid, inode::META, inode::END)
}

#[test]
fn a_file_that_grows_again_and_again_does_not_keep_each_end() {
    let job = Job::new(2);
    let handle = alone(&job, 0, "");
    for at in 0..100 {
        write(&handle, at, b"x").unwrap();
        handle.sync().unwrap();
    }
    assert_eq!((committed(&job).0, ends(&job)), (100, 1));
    // Of two that grow it the one with the smaller end sweeps nothing of the other's away.
    let other = alone(&job, 1, "");
    write(&other, 200, b"y").unwrap();
    write(&handle, 150, b"x").unwrap();
    other.sync().unwrap();
    handle.sync().unwrap();
    assert_eq!(committed(&job).0, 201);
    handle.sync().unwrap();
    write(&handle, 300, b"x").unwrap();
    handle.sync().unwrap();
    assert_eq!((committed(&job).0, ends(&job)), (301, 1));

    let job = Job::new(1);
    let log = alone(&job, 0, "talea_epoch=none");
    for at in 0..600 {
        write(&log, at, b"x").unwrap();
    }
    assert_eq!(log.size().unwrap(), 600);
    assert!(ends(&job) < 256, "{}", ends(&job));
}

#[derive(Clone, Debug)]
enum Step {
    Write { process: usize, at: u16, bytes: u16 },
    Sync { process: usize },
    Reopen { process: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0..3usize;
    prop_oneof![
        4 => (process.clone(), 0u16..9000, 1u16..3000)
            .prop_map(|(process, at, bytes)| Step::Write { process, at, bytes }),
        3 => process.clone().prop_map(|process| Step::Sync { process }),
        1 => process.prop_map(|process| Step::Reopen { process }),
    ]
}

/// What a process has written since its last commit, and what it had before it.
#[derive(Clone, Default)]
struct Open {
    base: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>,
}

fn apply(file: &mut Vec<u8>, writes: &[(usize, Vec<u8>)]) {
    for (at, data) in writes {
        file.resize(file.len().max(at + data.len()), 0);
        file[*at..at + data.len()].copy_from_slice(data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Commits come one after the other, whole, and each process sees its own writes over what was committed when its epoch began.
    #[test]
    fn commits_add_up(steps in prop::collection::vec(step(), 1..40)) {
        let job = Job::new(3);
        let mut handles: Vec<Handle> = (0..3).map(|process| alone(&job, process, "")).collect();
        let mut open = vec![Open::default(); 3];
        let mut committed: Vec<u8> = vec![];
        for (number, step) in (1u8..).zip(&steps) {
            match *step {
                Step::Write { process, at, bytes } => {
                    let (at, data) = (at as usize, vec![number; bytes as usize]);
                    write(&handles[process], at as u64, &data).unwrap();
                    open[process].writes.push((at, data));
                }
                Step::Sync { process } | Step::Reopen { process } => {
                    handles[process].sync().unwrap();
                    if let Step::Reopen { .. } = step {
                        handles[process] = alone(&job, process, "");
                    }
                    apply(&mut committed, &open[process].writes);
                    open[process] = Open { base: committed.clone(), writes: vec![] };
                }
            }
            for (handle, open) in handles.iter().zip(&open) {
                let mut wanted = open.base.clone();
                apply(&mut wanted, &open.writes);
                prop_assert_eq!(&read(handle, 0, 15_000), &wanted);
                prop_assert_eq!(handle.size().unwrap(), wanted.len() as u64);
            }
        }
    }
}
