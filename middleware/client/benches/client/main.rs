//! The client's path, measured over real processes: one `talead`, this program as its client, and copies of this program as
//! other clients and as the floors' other ends. Each figure goes with a floor that was measured just before it.
//!
//! Records go to `target/bench-client.json`, one JSON object a line; `tools/bench` merges them. Arguments that are not
//! options choose groups by name, or with a slash figures by a part of theirs: `cargo bench -p talea-client -- latency
//! ring-never/update/64B`.

mod compute;
mod floor;
mod growth;
mod latency;
mod load;
mod measure;
mod provider;
mod system;
mod worker;

use measure::Report;

type Group = (&'static str, fn(&mut Report));

const GROUPS: [Group; 6] = [
    ("latency", latency::run),
    ("durable", latency::durable),
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
    let chosen: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let (figures, groups): (Vec<String>, Vec<String>) = chosen.into_iter().partition(|word| word.contains('/'));
    let mut report = Report::create(figures);
    for (name, run) in GROUPS {
        if groups.is_empty() || groups.iter().any(|one| one == name) {
            run(&mut report);
        }
    }
}
