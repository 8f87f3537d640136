//! The client's path, measured over real processes: one `talead`, this program as its client, and copies of this program as
//! other clients and as the floors' other ends. Each figure goes with a floor that was measured just before it.
//!
//! Records go to `target/bench-client.json`, one JSON object a line; `tools/bench` merges them. Arguments that are not
//! options choose groups by name: `cargo bench -p talea-client -- latency load`.

mod compute;
mod floor;
mod growth;
mod latency;
mod load;
mod measure;
mod system;
mod worker;

use measure::Report;

type Group = (&'static str, fn(&mut Report));

const GROUPS: [Group; 5] = [
    ("latency", latency::run),
    ("commit", latency::commits),
    ("load", load::run),
    ("growth", growth::run),
    ("compute", compute::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == worker::FLAG) {
        worker::run(&arguments[1..]);
        return;
    }
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut report = Report::create();
    for (name, run) in GROUPS {
        if chosen.is_empty() || chosen.iter().any(|one| *one == name) {
            run(&mut report);
        }
    }
}
