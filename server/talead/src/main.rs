//! The server process: the control plane and the targets of one server.
//!
//! Owns what only a process can: its configuration, its signals, its directory, its end. It is the one place that knows both
//! the engine and the control plane, and must never hold a rule of either.
#![forbid(unsafe_code)]

mod bridge;
mod config;
mod control;
mod directory;
mod failure;
mod incarnation;
mod inspect;
mod metrics;
mod port;
mod server;
mod stop;
mod targets;

use std::io::{BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use tracing_subscriber::EnvFilter;

use failure::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Talea server. `talea run` and `talea up` start servers; there is rarely a reason to do so by hand.
#[derive(Parser)]
#[command(name = "talead", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until it is told to stop (SIGTERM, SIGINT, or the end of standard input).
    Serve {
        /// File with the configuration (JSON, mode 0600), or - for standard input.
        #[arg(long)]
        config: PathBuf,
    },
    /// Prints the version.
    Version,
    /// Shows what the file of a target's tier holds, and what in it is damaged. Changes nothing; ends with 1 if anything is.
    Inspect(inspect::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve { config } => serve(config),
        Command::Version => {
            println!("talead {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Inspect(arguments) => inspect::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("talead: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn serve(path: PathBuf) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env("TALEA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    // Not std's stdin: its lock and buffer are the whole process's, and a thread will wait on it.
    let stdin = rustix::io::dup(std::io::stdin())
        .map_err(|error| Failure::System { what: "using standard input", source: error.into() })?;
    let mut input = BufReader::new(std::fs::File::from(stdin));
    take_descriptors();
    let settings = config::read(&path, &mut input)?;
    // Before any other thread is there: all have it from this one.
    if let Err(error) = shorten_turns(Duration::from_micros(settings.config.slice_us.into())) {
        tracing::debug!(%error, "the kernel does not take a slice");
    }
    if let Err(error) = keep_to(&settings.config.cores) {
        tracing::warn!(%error, cores = ?settings.config.cores, "these cores are not there: the server runs on all that it may");
    }
    let watched = path.as_os_str() == "-" && !settings.config.detached;
    server::run(settings, watched.then_some(input))
}

/// A local client takes two descriptors of the control plane and three of each target, and the usual soft limit is 1024. It is for programs
/// that use `select`; this one does not.
fn take_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where it is refused the server has as many as before, and says so when they are used up.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

fn keep_to(cores: &[usize]) -> std::io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// It is a wish for speed: what cannot be had is done without.
fn shorten_turns(slice: Duration) -> std::io::Result<()> {
    use talea_fabric::slice;
    if slice.is_zero() || slice::of_this_thread()? <= slice { Ok(()) } else { slice::ask_for(slice) }
}
