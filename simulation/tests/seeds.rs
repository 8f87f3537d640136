//! Hundreds of seeds keep all invariants, each replays identically, and every planted bug is found.

use talea_simulation::{Plant, Settings, check, run};

const SEEDS: u64 = 300;

#[test]
fn seeds_keep_all_invariants() {
    let mut steps = 0;
    for seed in 1..=SEEDS {
        let run = run(Settings { seed, plant: Plant::None, calm: false });
        let violations = check(&run.history);
        assert!(violations.is_empty(), "replay: cargo run -p talea-simulation -- --seed {seed}\n{violations:#?}");
        steps += run.history.steps.len();
    }
    assert!(steps > 1_000, "the programs must get something done: {steps} steps");
}

#[test]
fn a_calm_run_commits_everything() {
    let run = run(Settings { seed: 5, plant: Plant::None, calm: true });
    assert_eq!(check(&run.history), []);
    assert_eq!(run.history.steps.len(), 16, "two jobs of eight epochs");
}

#[test]
fn a_seed_replays_identically() {
    for seed in [3, 4, 5] {
        let settings = Settings { seed, plant: Plant::None, calm: false };
        let (first, second) = (run(settings), run(settings));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!(first.history.reads, second.history.reads, "seed {seed}");
    }
}

/// Seeds that are tried until one shows the bug.
fn is_caught(plant: Plant) {
    let caught = (1..=100).any(|seed| !check(&run(Settings { seed, plant, calm: false }).history).is_empty());
    assert!(caught, "no seed shows the planted bug '{}'", plant.name());
}

#[test]
fn a_commit_below_a_served_snapshot_is_caught() {
    is_caught(Plant::LateStamp);
}

#[test]
fn a_zombie_write_is_caught() {
    is_caught(Plant::Zombie);
}

#[test]
fn a_stale_table_of_transactions_is_caught() {
    is_caught(Plant::StaleTable);
}

#[test]
fn a_split_commit_is_caught() {
    is_caught(Plant::SplitCommit);
}
