//! Calls, errors and epochs.

use crate::site::{FAMILY, Site, c_program, compiled};

#[test]
fn every_kind_of_call_does_what_mpi_says() {
    let site = Site::new();
    site.run(2, &c_program("basic.c"), &[]).well();
    let bytes = site.committed("basic").expect("the close commits");
    assert_eq!(bytes.len(), 20000);
    assert_eq!(bytes[64..68], 10_i32.to_ne_bytes());
}

#[test]
fn a_failed_collective_read_fails_on_all_ranks_and_spoils_no_epoch() {
    let site = Site::new().with("TALEA_MOCK_FAIL", "read:1");
    site.run(3, &c_program("agree.c"), &["read", "1", "read"]).well();
    assert_eq!(site.committed("agree").map(|bytes| bytes.len()), Some(12));
}

/// A preload that counts the driver's collective MPI calls.
fn counter() -> std::path::PathBuf {
    compiled("count.c", FAMILY.cc, &["-shared", "-fPIC", "-ldl"])
}

#[test]
fn a_sync_is_one_reduction_one_commit_and_one_broadcast_and_shows_to_readers_that_sync() {
    let site = Site::new().preloading(counter());
    site.run(3, &c_program("sync.c"), &[]).well();
    let commits: Vec<String> = site.trace().into_iter().filter(|line| line.starts_with("commit")).collect();
    // Writer: sync before any write, sync with 12 bytes, close with none through its own handle. Reader: four times.
    assert_eq!(commits.iter().filter(|line| line.starts_with("commit 1 12")).count(), 1, "{commits:?}");
    assert_eq!(commits.len(), 6, "{commits:?}");
}

#[test]
fn open_modes_and_bad_paths_get_the_classes_that_mpi_has_for_them() {
    Site::new().run(2, &c_program("modes.c"), &[]).well();
}

#[test]
fn a_failure_on_one_rank_gives_all_ranks_the_same_class_and_nobody_hangs() {
    for (call, rank, at, form) in [
        ("open", 0, "open", "explicit"),
        ("attach", 1, "open", "explicit"),
        ("attach", 0, "open", "explicit"),
        ("flush", 2, "sync", "explicit"),
        ("flush", 1, "close", "explicit"),
        ("commit", 0, "sync", "explicit"),
        ("commit", 0, "close", "explicit"),
        ("write", 1, "sync", "alone"),
        ("write", 2, "close", "alone"),
        ("write", 0, "sync", "alone"),
        ("write", 1, "sync", "later"),
        ("write", 1, "sync", "atomic"),
        ("size", 2, "sync", "alone"),
        ("size", 0, "close", "alone"),
        ("write", 1, "sync", "explicit"),
        ("write", 0, "close", "pointer"),
        ("write", 2, "sync", "split"),
    ] {
        let site = Site::new().with("TALEA_MOCK_FAIL", &format!("{call}:{rank}"));
        site.run(3, &c_program("agree.c"), &[call, &rank.to_string(), at, form]).well();
        // After a failed sync the close commits the next epoch, which wrote nothing.
        let there = site.committed("agree").unwrap_or_default();
        assert_eq!(there, b"", "{call} failed on rank {rank}, and yet its epoch is there");
        let left = std::fs::read_dir(site.path("store")).expect("the store").flatten();
        let pending = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".pending")).count();
        assert!(
            pending == 0 || at == "sync" || call == "attach",
            "{call} on rank {rank} at {at} left its epoch behind"
        );
    }
}

#[test]
fn what_a_rank_could_not_write_alone_is_told_to_all_in_every_corner_of_the_rule() {
    for (call, corner, left) in [
        ("counter", "shared", Some(12)),
        ("write", "second", None),
        ("write", "self", Some(12)),
        ("size", "self", Some(12)),
        ("write", "ended", Some(76)),
        ("write", "deleted", None),
        ("size", "end", None),
        ("write", "split", Some(12)),
        ("write", "close", None),
    ] {
        for rank in [0, 1, 2] {
            let site = Site::new().with("TALEA_MOCK_FAIL", &format!("{call}:{rank}"));
            let ended = site.run(3, &c_program("later.c"), &[corner]);
            assert!(ended.success, "{corner}, rank {rank}:\n{}", ended.output);
            let there = site.committed("later").map(|bytes| bytes.len()).filter(|bytes| *bytes > 0);
            assert_eq!(there, left, "{corner}, rank {rank}");
        }
    }
}

#[test]
fn a_write_that_failed_and_was_told_keeps_its_epoch_from_committing() {
    for ranks in [1, 3] {
        Site::new().run(ranks, &c_program("failed.c"), &[]).well();
    }
}

#[test]
fn a_mistyped_key_is_told_once_and_by_one_rank() {
    let site = Site::new();
    let hints = site.path("hints");
    std::fs::write(&hints, "talea_epohc close\ncb_nodes 1\n").expect("a file of hints");
    let output = site.with("ROMIO_HINTS", &hints.display().to_string()).run(2, &c_program("basic.c"), &[]).well();
    let told: Vec<_> = output.lines().filter(|line| line.contains("talea_epohc")).collect();
    assert_eq!(told.len(), 1, "{output}");
    assert!(told[0].contains("is talea_epoch meant?"), "{told:?}");
}

#[test]
fn files_left_open_at_finalize_commit_with_a_warning_after_libraries_have_closed_theirs() {
    let site = Site::new();
    let output = site.run(3, &c_program("finalize.c"), &["finalize"]).well();
    assert_eq!(site.committed("forgotten").as_deref(), Some(&b"xxx"[..]));
    // What the library wrote last, inside MPI_Finalize, is there: the driver did not close the file under it.
    assert_eq!(site.committed("library").as_deref(), Some(&b"LLLyyy"[..]));
    let warned = output.lines().filter(|line| line.contains("still open at MPI_Finalize")).count();
    // forgotten and the reading handle once, own-2-1 by its only rank.
    assert_eq!(warned, 3, "{output}");
}

#[test]
fn a_program_that_ends_without_finalize_commits_nothing() {
    for end in ["abort", "exit", "signal"] {
        let site = Site::new();
        let ended = site.run(2, &c_program("finalize.c"), &[end]);
        assert!(!ended.success || end == "exit", "{}", ended.output);
        assert_eq!(site.committed("forgotten"), None, "{end}");
        assert_eq!(site.committed("library").as_deref(), Some(&b"xx"[..]), "what was synced stays, {end}");
    }
}

#[test]
fn error_handlers_are_the_programs() {
    let site = Site::new();
    site.run(1, &c_program("handlers.c"), &[]).well();
    // Without mpiexec: it may lose the last lines of a program that aborts.
    let ended = site.command(&c_program("handlers.c")).args(["-", "fatal"]).output().expect("run the program alone");
    assert!(!ended.status.success());
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(text.contains("open for writing only"), "{text}");
}

#[cfg(family = "mpich")]
#[test]
fn error_handlers_in_cxx_are_called_once_through_their_binding() {
    let program = compiled("handlers.cxx", "mpicxx.mpich", &["-Wno-literal-suffix"]);
    Site::new().run(1, &program, &[]).well();
}

#[test]
fn a_forked_childs_copy_is_dead_and_the_parents_lives() {
    let site = Site::new();
    site.run(1, &c_program("forked.c"), &[]).well();
    assert_eq!(site.committed("forked"), Some(7_i32.to_ne_bytes().to_vec()));
}

#[test]
fn shared_pointers_and_atomic_mode_keep_mpis_promises_and_leave_nothing() {
    for ranks in [1, 3] {
        let site = Site::new();
        site.run(ranks, &c_program("shared.c"), &[]).well();
        let left = std::fs::read_dir(site.path("store")).expect("the store").flatten();
        let counters = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".counter")).count();
        assert_eq!(counters, 0, "a close forgets what shared pointers needed");
    }
}

#[test]
fn thousands_of_small_pieces_of_a_collective_call_become_a_few() {
    let pieces_of = |hint: &str| {
        let site = Site::new().preloading(counter());
        site.run(4, &c_program("fine.c"), &[hint]).well();
        assert_eq!(site.committed("fine").map(|bytes| bytes.len()), Some(16 * 16 * 16 * 8));
        let writes: Vec<usize> =
            site.trace().iter().filter_map(|line| line.strip_prefix("write ")?.parse().ok()).collect();
        (writes.len(), writes.iter().sum::<usize>())
    };
    // One chunk: the rank whose it is writes it whole. Without buffering each rank brings its own pieces.
    assert_eq!(pieces_of("automatic"), (1, 1));
    assert_eq!(pieces_of("disable"), (4, 4096));
}
