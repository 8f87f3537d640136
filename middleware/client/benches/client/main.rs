//! The client's path, measured over real processes: one `talead`, this program as its client, and copies of this program as
//! other clients and as the floors' other ends. Each figure goes with a floor that was measured just before it.
//!
//! Records go to standard output, and when all are there to `target/bench-client.json`, one JSON object a line; `tools/bench` merges
//! them. Arguments choose groups by name, and figures: a figure's whole name that figure alone, a part of names all that have it; with
//! groups, among theirs. A word that chooses nothing is an error (2), and so is another run at the same time.
//!
//!     cargo build --release --workspace --bin talead
//!     cargo bench --workspace --bench client -- latency ring-never/update/64B
//!     cargo bench --workspace --bench client -- --list load        # names, and measures nothing

mod choice;
mod compute;
mod durable;
mod floor;
mod growth;
mod latency;
mod load;
mod measure;
mod provider;
mod system;
mod worker;

use std::process::ExitCode;

use measure::Report;

struct Group {
    name: &'static str,
    figures: fn() -> Vec<String>,
    run: fn(&mut Report),
}

const GROUPS: [Group; 6] = [
    Group { name: "latency", figures: latency::figures, run: latency::run },
    Group { name: "durable", figures: durable::figures, run: durable::run },
    Group { name: "commit", figures: latency::commit_figures, run: latency::commits },
    Group { name: "load", figures: load::figures, run: load::run },
    Group { name: "growth", figures: growth::figures, run: growth::run },
    Group { name: "compute", figures: compute::figures, run: compute::run },
];

fn refuse(why: &str) -> ExitCode {
    eprintln!("bench client: {why}");
    ExitCode::from(2)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == worker::FLAG) {
        worker::run(&arguments[1..]);
        return ExitCode::SUCCESS;
    }
    let (options, words): (Vec<String>, Vec<String>) = arguments.into_iter().partition(|word| word.starts_with('-'));
    // Cargo itself says `--bench`.
    if let Some(option) = options.iter().find(|option| !["--bench", "--list"].contains(&option.as_str())) {
        return refuse(&format!("there is no option {option}: words choose groups and figures, --list names them"));
    }
    let names: Vec<choice::Names<'_>> = GROUPS.iter().map(|group| (group.name, (group.figures)())).collect();
    let chosen = match choice::choose(&names, &words) {
        Ok(chosen) => chosen,
        Err(why) => return refuse(&why),
    };
    if options.iter().any(|option| option == "--list") {
        chosen.iter().for_each(|figure| println!("{figure}"));
        return ExitCode::SUCCESS;
    }
    let Some(mut report) = Report::create(chosen) else {
        return refuse("another run measures at this time (target/bench-client.lock)");
    };
    for (group, (_, figures)) in GROUPS.iter().zip(&names) {
        if figures.iter().any(|figure| report.wants(figure)) {
            (group.run)(&mut report);
        }
    }
    report.finish();
    ExitCode::SUCCESS
}
