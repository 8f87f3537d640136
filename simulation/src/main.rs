//! Runs seeds: `cargo run -p talea-simulation -- --seeds 1000`, or one again: `-- --seed 17`.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use indicatif::ProgressBar;
use talea_simulation::{Plant, Settings, check, run};

/// Runs the simulated cluster over many seeds and checks every run.
#[derive(Parser)]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// No faults
    #[arg(long)]
    calm: bool,
    /// A planted bug
    #[arg(long, default_value = "none")]
    plant: Plant,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.first..arguments.first + arguments.seeds,
    };
    let count = seeds.end - seeds.start;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(count) } else { ProgressBar::hidden() };
    let (mut failed, mut steps, mut reads, mut messages) = (0, 0, 0, 0);
    for seed in seeds {
        let run = run(Settings { seed, plant: arguments.plant, calm: arguments.calm });
        bar.inc(1);
        steps += run.history.steps.len();
        reads += run.history.reads.len();
        messages += run.messages;
        let violations = check(&run.history);
        if violations.is_empty() {
            continue;
        }
        failed += 1;
        println!(
            "seed {seed}: {} violations; replay: cargo run -p talea-simulation -- --seed {seed} --plant {}",
            violations.len(),
            arguments.plant.name()
        );
        violations.iter().take(5).for_each(|violation| println!("  {violation}"));
    }
    bar.finish_and_clear();
    println!(
        "{count} seeds: {} kept all invariants, {failed} did not ({steps} steps, {reads} reads, {messages} messages)",
        count - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
