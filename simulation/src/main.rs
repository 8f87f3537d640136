//! Runs seeds: `cargo run -p talea-simulation -- --seeds 1000`, or one again: `-- --seed 17`.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use indicatif::ProgressBar;
use talea_simulation::world::Struck;
use talea_simulation::{Plant, Settings, check, groups, run};

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
    /// How many servers; else the seed says
    #[arg(long)]
    servers: Option<u32>,
    /// How many servers each passes the log on to, 0: the leader tells all; else the seed says
    #[arg(long)]
    width: Option<u32>,
    /// Whether targets lie in memory; else the seed says
    #[arg(long)]
    memory: Option<bool>,
    /// Whether what is read in place moves all the time; else the seed says
    #[arg(long)]
    moves: Option<bool>,
    /// No faults
    #[arg(long)]
    calm: bool,
    /// A planted bug
    #[arg(long, default_value = "none")]
    plant: Plant,
    /// Redundancy groups of several members, in a world of their own
    #[arg(long)]
    groups: bool,
}

fn settings(arguments: &Arguments, seed: u64) -> Settings {
    let drawn = Settings::of(seed);
    let servers = arguments.servers.unwrap_or(drawn.servers);
    let width = arguments.width.unwrap_or(drawn.width);
    let memory = arguments.memory.unwrap_or(drawn.memory);
    let moves = arguments.moves.unwrap_or(drawn.moves);
    Settings { servers, width, memory, moves, plant: arguments.plant, calm: arguments.calm, ..drawn }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.first..arguments.first + arguments.seeds,
    };
    if arguments.groups { all_groups(&arguments, seeds) } else { all_clusters(&arguments, seeds) }
}

/// Runs the worlds of redundancy groups.
fn all_groups(arguments: &Arguments, seeds: Range<u64>) -> ExitCode {
    let count = seeds.end - seeds.start;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(count) } else { ProgressBar::hidden() };
    let mut struck = Struck::new();
    let (mut failed, mut messages, mut reads, mut updates, mut refused) = (0, 0, 0, 0, 0);
    let (mut excluded, mut completed, mut complete, mut members) = (0, 0, 0, 0);
    for seed in seeds {
        let settings = groups::Settings { seed, plant: arguments.plant.group(), calm: arguments.calm };
        let run = groups::run(settings);
        bar.inc(1);
        (messages, reads) = (messages + run.messages, reads + run.history.reads.len());
        (updates, refused) = (updates + run.updates, refused + run.refused);
        (excluded, completed) = (excluded + run.excluded, completed + run.completed);
        (complete, members) = (complete + run.complete.0, members + run.complete.1);
        run.struck.iter().for_each(|(name, times)| *struck.entry(*name).or_default() += times);
        if run.violations.is_empty() {
            continue;
        }
        failed += 1;
        println!("seed {seed}: {} violations; replay: {}", run.violations.len(), settings.replay());
        run.violations.iter().take(5).for_each(|violation| println!("  {violation}"));
    }
    bar.finish_and_clear();
    println!("{count} seeds of redundancy groups: {} kept all invariants, {failed} did not", count - failed);
    println!("{updates} updates acknowledged and {refused} refused, {reads} reads, {messages} messages");
    println!(
        "{excluded} servers excluded, {completed} members declared complete again; at the end {complete} of {members} were"
    );
    let struck: Vec<String> = struck.iter().map(|(name, times)| format!("{name} {times}")).collect();
    println!("faults: {}", struck.join(", "));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs whole clusters.
fn all_clusters(arguments: &Arguments, seeds: Range<u64>) -> ExitCode {
    let count = seeds.end - seeds.start;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(count) } else { ProgressBar::hidden() };
    let mut struck = Struck::new();
    let (mut full, mut lost, mut stood, mut overwritten) = (0, 0, 0, 0);
    let (mut failed, mut steps, mut reads, mut messages, mut in_place) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let run = run(settings(arguments, seed));
        bar.inc(1);
        steps += run.history.steps.len();
        reads += run.history.reads.len();
        messages += run.messages;
        in_place += run.in_place;
        (stood, overwritten) = (stood + run.stood.0, overwritten + run.stood.1);
        full += run.history.full;
        lost += run.history.lost_reads;
        run.struck.iter().for_each(|(name, times)| *struck.entry(*name).or_default() += times);
        let violations = check(&run.history);
        if violations.is_empty() {
            continue;
        }
        failed += 1;
        println!("seed {seed}: {} violations; replay: {}", violations.len(), settings(arguments, seed).replay());
        violations.iter().take(5).for_each(|violation| println!("  {violation}"));
        println!("  faults: {}", run.told.join(", "));
    }
    bar.finish_and_clear();
    println!(
        "{count} seeds: {} kept all invariants, {failed} did not ({steps} steps, {reads} reads, {in_place} copies in place, {messages} messages)",
        count - failed
    );
    let struck: Vec<String> = struck.iter().map(|(name, times)| format!("{name} {times}")).collect();
    println!("faults: {}", struck.join(", "));
    println!(
        "clients stood still in {stood} copies in place, and in {overwritten} of them other bytes came to lie there"
    );
    println!("refused: {full} updates for want of room, {lost} reads of what was lost with a medium");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
