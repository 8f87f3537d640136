//! Chaos with real processes: five servers, writers and a follower; servers and writers are killed, stopped, and (in network
//! namespaces) cut off from each other, as a seed says. Afterwards every step that was committed is there, once, and holds what it
//! held; what anybody saw meanwhile was that, or a typed error; and every call ended within its deadline.
//!
//! `tools/suites/chaos` and `chaos-root` run it: `cargo test --workspace --test chaos -- loopback --seconds 60 --seed 7`.
#![allow(missing_docs, unreachable_pub)]

mod cluster;
mod faults;
mod random;
mod verify;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

pub const SYSTEM: [u8; 16] = [0xab; 16];
pub const SECRET: [u8; 32] = [0xcd; 32];
pub const SERVERS: u32 = 5;
pub const WRITERS: u32 = 3;
/// Deadline of every call, and what a call may take beyond it on a machine that has other things to do.
pub const DEADLINE_MS: u64 = 4_000;
pub const GRACE_MS: u64 = 3_000;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// All servers on loopback
    Loopback(Chaos),
    /// Each server in a network namespace of its own (needs root)
    Namespaces(Chaos),
    /// A process that commits epochs
    Writer(work::Writer),
    /// A process that follows the steps and reads each
    Follower(work::Follower),
    /// A process that compares what is there with what was said
    Verify(verify::Verify),
}

#[derive(clap::Args)]
struct Chaos {
    /// Which faults strike; else one is drawn
    #[arg(long)]
    seed: Option<u64>,
    /// How many servers each passes the log on to, 0: the leader tells all; else the seed says
    #[arg(long)]
    width: Option<u32>,
    /// How long faults go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where data and logs go; else a directory in memory, which is removed if all is well
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let ended = match Arguments::parse().what {
        None => {
            println!("run by tools/suites/chaos and tools/suites/chaos-root: see --help");
            Ok(())
        }
        Some(What::Loopback(chaos)) => storm(&chaos, false),
        Some(What::Namespaces(chaos)) => storm(&chaos, true),
        Some(What::Writer(writer)) => writer.run(),
        Some(What::Follower(follower)) => follower.run(),
        Some(What::Verify(verify)) => verify.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("chaos: {text}");
            ExitCode::FAILURE
        }
    }
}

fn storm(chaos: &Chaos, namespaces: bool) -> Result<(), String> {
    let drawn = || std::time::UNIX_EPOCH.elapsed().map_or(1, |now| u64::from(now.subsec_nanos()));
    let seed = chaos.seed.unwrap_or_else(drawn);
    // A chain, or two each.
    let width = chaos.width.unwrap_or((seed % 3) as u32);
    let place = if namespaces { "namespaces" } else { "loopback" };
    println!(
        "chaos: seed {seed}; again: cargo test --workspace --test chaos -- {place} --seed {seed} --width {width} --seconds {}",
        chaos.seconds
    );
    // Another user of the machine has no business there, whatever the umask is.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    let temporary = tempfile::Builder::new().prefix("talea-chaos.").permissions(private).tempdir_in("/dev/shm");
    let temporary = temporary.map_err(|error| error.to_string())?;
    let directory = chaos.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    let mut cluster = cluster::Cluster::start(&directory, namespaces, width)?;
    let mut random = random::Random::new(seed);
    let result = faults::rage(&mut cluster, &mut random, Duration::from_secs(chaos.seconds))
        .and_then(|()| cluster.settle())
        .and_then(|()| cluster.verify());
    if result.is_err() {
        println!("chaos: logs are kept in {}", directory.display());
        cluster.tell_last_words();
        let _ = temporary.keep();
    }
    result
}
