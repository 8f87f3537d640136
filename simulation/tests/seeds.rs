//! Many seeds keep all invariants, and each replays identically.

use talea_simulation::{Plant, Settings, check, run};

/// Seeds of each of the two tests, which run beside each other.
const SEEDS: u64 = 500;

fn all_keep_all_invariants(seeds: impl Iterator<Item = u64>) {
    let (mut steps, mut committed, mut refused) = (0, 0, 0);
    for seed in seeds {
        let run = run(Settings { seed, plant: Plant::None, calm: false });
        let violations = check(&run.history);
        assert!(violations.is_empty(), "replay: cargo run -p talea-simulation -- --seed {seed}\n{violations:#?}");
        steps += run.history.steps.len();
        let told = |what| run.history.optimistic.iter().filter(|one| one.outcome == what).count();
        committed += told(talea_simulation::history::Told::Done);
        refused += told(talea_simulation::history::Told::Refused);
    }
    assert!(steps > 1_000, "the programs must get something done: {steps} steps");
    assert!(committed > 1_000 && refused > 100, "so must transactions: {committed} committed, {refused} refused");
}

#[test]
fn odd_seeds_keep_all_invariants() {
    all_keep_all_invariants((1..2 * SEEDS).step_by(2));
}

#[test]
fn even_seeds_keep_all_invariants() {
    all_keep_all_invariants((2..=2 * SEEDS).step_by(2));
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
        assert_eq!(first.history.optimistic, second.history.optimistic, "seed {seed}");
    }
}
