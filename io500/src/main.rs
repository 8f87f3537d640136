//! IO500's access patterns over MPI-IO, data verified, on Talea and on a floor (tmpfs by ROMIO) side by side.
//!
//! An ordinary MPI program: it knows Talea only as a path. Run it under mpiexec, inside `talea run`:
//! `talea run -- mpiexec -n 2 talea-io500`. Must never report a figure of data that it did not verify.
#![deny(unsafe_code)]

mod data;
mod file;
mod pattern;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mpi::traits::Communicator;

use crate::pattern::{Limit, Pattern, Phases};

/// What to measure.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    /// Where the files under test go: a directory of a container, or any other path.
    #[arg(long, default_value = "/talea/run")]
    target: String,
    /// Where the floor's files go; empty: no floor is measured.
    #[arg(long, default_value = "/dev/shm")]
    floor: String,
    /// Patterns to run.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Pattern::Easy, Pattern::Hard])]
    patterns: Vec<Pattern>,
    /// MiB that each rank writes in each pattern.
    #[arg(long, default_value_t = 64)]
    mib: u64,
    /// Stop writing after this many seconds instead; all ranks then write as much as the fastest one.
    #[arg(long)]
    seconds: Option<f64>,
    /// Write the figures there as JSON, as the records of target/bench.json.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Some(universe) = mpi::initialize() else {
        eprintln!("talea-io500: MPI is initialized already");
        return ExitCode::FAILURE;
    };
    let world = universe.world();
    match run(&options, &world) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talea-io500: rank {}: {error}", world.rank());
            // The other ranks may be waiting for this one.
            world.abort(1)
        }
    }
}

fn run(options: &Options, world: &mpi::topology::SimpleCommunicator) -> Result<(), pattern::Error> {
    let limit = match options.seconds {
        Some(seconds) => Limit::Seconds(seconds),
        None => Limit::Bytes(options.mib << 20),
    };
    let mut records = Vec::new();
    for &pattern in &options.patterns {
        let measured = pattern::run(world, pattern, &options.target, limit)?;
        let floor =
            if options.floor.is_empty() { None } else { Some(pattern::run(world, pattern, &options.floor, limit)?) };
        records.extend(report::records(pattern, &measured, floor.as_ref()));
    }
    if world.rank() == 0 {
        print!("{}", report::table(&records, world.size()));
        if let Some(path) = &options.json {
            report::write(path, &records).map_err(|source| pattern::Error::Report { path: path.clone(), source })?;
        }
    }
    Ok(())
}

/// The figures of both phases, for the report.
type Measured = Phases;
