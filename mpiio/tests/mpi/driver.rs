//! Manners: what the driver is in programs that are none of its business, and what it is linked with.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::site::{DRIVER, FAMILY, Site, c_program, compiled};

fn output_of(tool: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .arg(file)
        .output()
        .unwrap_or_else(|e| panic!("{tool}: {e}: install binutils"));
    assert!(output.status.success(), "{tool} {}", file.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn exported(file: &Path) -> BTreeSet<String> {
    output_of("nm", &["-D", "--defined-only"], file)
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .collect()
}

#[test]
fn every_file_function_of_the_sites_mpi_is_interposed_under_both_names() {
    let site = Site::new();
    let ours = exported(&site.path(DRIVER));
    let linked = output_of("ldd", &[], &c_program("basic.c"));
    let library =
        linked.split_whitespace().find(|word| word.starts_with('/') && word.contains("libmpi")).expect("libmpich");
    let theirs: BTreeSet<_> = exported(Path::new(library))
        .into_iter()
        .filter(|name| ["MPI_File_", "PMPI_File_", "MPIX_File_"].iter().any(|start| name.starts_with(start)))
        .collect();
    assert!(theirs.len() > 100, "{theirs:?}");
    assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new());
    // Nothing else leaks into the program: only MPI's names, and those of talea_mpi.h.
    let known = |name: &&String| ["MPI_", "PMPI_", "talea_mpi_"].iter().any(|start| name.starts_with(start));
    let others: Vec<_> = ours.iter().filter(|name| !known(name)).collect();
    // The one exception is how MPICH's C++ binding declares its error handlers, for all families hand such calls on.
    assert_eq!(others, ["MPII_Errhandler_set_cxx"]);
}

#[test]
fn the_driver_is_linked_with_neither_mpi_nor_libfabric_nor_libtalea() {
    let site = Site::new();
    let dynamic = output_of("readelf", &["-d"], &site.path(DRIVER));
    let needed: Vec<&str> = dynamic.lines().filter(|line| line.contains("NEEDED")).collect();
    assert!(!needed.is_empty());
    for line in needed {
        assert!(!["mpi", "fabric", "talea"].iter().any(|word| line.contains(word)), "{line}");
    }
    let undefined = output_of("nm", &["-D", "--undefined-only"], &site.path(DRIVER));
    assert!(!undefined.contains("MPI_"), "{undefined}");
}

#[test]
fn files_outside_talea_are_the_real_mpis_and_nothing_is_loaded_for_them() {
    let site = Site::new();
    site.run(2, &c_program("passthrough.c"), &[]).well();
}

#[test]
fn a_program_without_mpi_does_not_notice_the_driver() {
    let site = Site::new();
    let output = site.command(Path::new("/bin/echo")).arg("untouched").output().expect("echo");
    assert!(output.status.success());
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"untouched\n"[..], &b""[..]));
}

#[test]
fn without_libtalea_an_open_fails_with_the_remedy() {
    let site = Site::new();
    std::fs::remove_file(site.path("libtalea.so.0")).expect("remove the library");
    let output = site.run(2, &c_program("remedy.c"), &[]).well();
    assert!(output.contains("talea run"), "{output}");
}

#[test]
fn a_program_under_another_familys_driver_is_served_by_its_own() {
    for program in ["basic.c", "passthrough.c", "handlers.c", "shared.c"] {
        let ranks = if program == "handlers.c" { 1 } else { 2 };
        Site::new().under_another_driver(true).run(ranks, &c_program(program), &[]).well();
    }
    let site = Site::new().under_another_driver(true);
    let plugin = compiled("plugin.c", FAMILY.cc, &["-shared", "-fPIC"]);
    let host = compiled("host.c", "cc", &["-ldl"]);
    site.run(1, &host, &[&plugin.display().to_string()]).well();
    assert_eq!(site.committed("plugin"), Some(5_i32.to_ne_bytes().to_vec()));
}

#[test]
fn another_familys_driver_by_itself_stands_aside_and_names_the_remedy() {
    let site = Site::new().under_another_driver(false);
    let output = site.run(2, &c_program("remedy.c"), &["alone"]).well();
    let wish = if cfg!(family = "mpich") { "TALEA_MPI=mpich" } else { "TALEA_MPI=openmpi" };
    assert!(output.contains("/talea/run/remedy: this program runs with") && output.contains(wish), "{output}");
}

#[test]
fn an_mpi_that_is_loaded_privately_is_found() {
    let site = Site::new();
    let plugin = compiled("plugin.c", FAMILY.cc, &["-shared", "-fPIC"]);
    let host = compiled("host.c", "cc", &["-ldl"]);
    site.run(1, &host, &[&plugin.display().to_string()]).well();
    assert_eq!(site.committed("plugin"), Some(5_i32.to_ne_bytes().to_vec()));
    assert_eq!(std::fs::read(site.path("plugin")).expect("the local file"), 5_i32.to_ne_bytes());
}

#[test]
fn an_interposer_in_front_of_the_driver_sees_every_call_once() {
    let interposer = compiled("interposer.c", FAMILY.cc, &["-shared", "-fPIC"]);
    let site = Site::new().preloading(interposer);
    let output = site.run(2, &c_program("interposed.c"), &[]).well();
    for rank in 0..2 {
        let counted = format!("interposer: rank {rank}: 1 opens, 3 writes, 2 reads, 1 closes");
        assert!(output.contains(&counted), "{output}");
    }
    // It forwarded by the PMPI_ names, and the driver served them: the file is in the container.
    assert_eq!(site.committed("interposed").map(|bytes| bytes.len()), Some(24));
}
