//! Calls, errors and epochs.

use crate::site::{Site, c_program, compiled};

#[test]
fn every_kind_of_call_does_what_mpi_says() {
    let site = Site::new();
    site.run(2, &c_program("basic.c"), &[]).well();
    let bytes = site.committed("basic").expect("the close commits");
    assert_eq!(bytes.len(), 20000);
    assert_eq!(bytes[64..68], 10_i32.to_ne_bytes());
}

/// A preload that counts the driver's collective MPI calls.
fn counter() -> std::path::PathBuf {
    compiled("count.c", "mpicc.mpich", &["-shared", "-fPIC", "-ldl"])
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
