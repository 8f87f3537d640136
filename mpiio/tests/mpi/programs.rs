//! Fortran, and random views and datatypes against a model.

use crate::site::{FAMILY, Site, c_program, compiled};

#[test]
fn fortran_programs_reach_the_driver_by_both_modules() {
    for flag in ["-DMPIF", "-DF08"] {
        let site = Site::new();
        site.run(2, &compiled("smoke.F90", FAMILY.fortran, &["-cpp", flag]), &[]).well();
        let bytes = site.committed("fortran").expect("the close commits");
        let numbers: Vec<i32> = bytes.chunks_exact(4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_eq!(numbers, [1, 2, 101, 102, 3, 4, 103, 104]);
    }
}

#[test]
fn random_views_and_datatypes_give_the_bytes_of_the_model() {
    let site = Site::new();
    site.run(1, &c_program("views.c"), &["1", "400"]).well();
}

#[test]
fn random_distributed_arrays_give_the_bytes_of_the_model() {
    let site = Site::new();
    site.run(3, &c_program("views.c"), &["2", "20"]).well();
}

#[test]
fn data_representations_and_datatypes_with_large_counts_give_the_bytes_that_they_promise() {
    let site = Site::new();
    site.run(2, &c_program("datarep.c"), &[]).well();
}

#[test]
fn nonblocking_transfers_give_the_bytes_of_blocking_ones() {
    let site = Site::new();
    site.run(2, &c_program("background.c"), &[]).well();
}

#[test]
fn a_large_nonblocking_transfer_goes_on_while_the_program_computes() {
    let gate = "gate";
    let site = Site::new().with("TALEA_MOCK_GATE", gate);
    let gate = site.path("store").join(gate);
    site.run(2, &c_program("background.c"), &[&gate.display().to_string()]).well();
}

#[test]
fn random_interleavings_of_ranks_give_what_mpis_rules_allow() {
    for (ranks, seed) in [(1, "1"), (3, "2"), (4, "3")] {
        let site = Site::new();
        site.run(ranks, &c_program("property.c"), &[seed, "25"]).well();
    }
}
