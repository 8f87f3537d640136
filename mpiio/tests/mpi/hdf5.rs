//! Parallel HDF5, unmodified.

use std::path::PathBuf;
use std::process::Command;

use crate::site::{Site, compiled};

fn program() -> PathBuf {
    let flags = |what: &str| {
        let output = Command::new("pkg-config").args([what, "hdf5-mpich"]).output();
        let output = output.unwrap_or_else(|e| panic!("pkg-config: {e}: install pkg-config and libhdf5-mpich-dev"));
        assert!(output.status.success(), "libhdf5-mpich-dev is needed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let all = flags("--cflags") + " " + &flags("--libs");
    compiled("smoke.h5.c", "mpicc.mpich", &all.split_whitespace().collect::<Vec<_>>())
}

fn commits(site: &Site) -> usize {
    site.trace().iter().filter(|line| line.starts_with("commit")).count()
}

#[test]
fn each_flush_of_an_hdf5_file_is_one_commit_and_the_file_reads_back() {
    let site = Site::new();
    site.run(2, &program(), &["close"]).well();
    // Three flushes and the close.
    assert_eq!(commits(&site), 4, "{:?}", site.trace());
    assert!(site.committed("smoke.h5").is_some_and(|bytes| bytes.starts_with(b"\x89HDF")));
}

#[test]
fn an_hdf5_file_that_the_library_closes_inside_finalize_is_whole() {
    let site = Site::new();
    let output = site.run(2, &program(), &["leave"]).well();
    assert!(!output.contains("still open"), "{output}");
    assert_eq!(commits(&site), 4, "{:?}", site.trace());
}
