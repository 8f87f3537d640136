//! Many seeds keep all invariants, and each replays identically.

use talea_simulation::history::Told;
use talea_simulation::world::{FAULTS, Struck};
use talea_simulation::{Settings, check, groups, run};

/// Seeds of each of the four tests, which run beside each other where there are cores for it.
const SEEDS: u64 = 500;

/// Every fourth seed from `first` on. Together they must have met each kind of fault, and got something done all the same.
fn all_keep_all_invariants(first: u64) {
    let (mut steps, mut committed, mut refused, mut struck) = (0, 0, 0, Struck::new());
    let (mut full, mut lost, mut trees, mut named) = (0, 0, 0, 0);
    let (mut in_place, mut inside, mut stood) = (0, 0, 0);
    for seed in (0..SEEDS).map(|number| first + 4 * number) {
        let settings = Settings::of(seed);
        let run = run(settings);
        let violations = check(&run.history);
        assert!(violations.is_empty(), "replay: {}\n{violations:#?}", settings.replay());
        steps += run.history.steps.len();
        trees += u32::from(settings.width > 0 && settings.servers > 2);
        full += run.history.full;
        lost += run.history.lost_reads;
        named += run.history.named;
        in_place += run.in_place;
        stood += run.stood.0;
        inside += run.history.inside.len();
        let told = |what| run.history.optimistic.iter().filter(|one| one.outcome == what).count();
        committed += told(Told::Done);
        refused += told(Told::Refused);
        run.struck.iter().for_each(|(name, times)| *struck.entry(*name).or_default() += times);
    }
    assert!(steps > 500, "the programs must get something done: {steps} steps");
    assert!(committed > 500 && refused > 50, "so must transactions: {committed} committed, {refused} refused");
    assert!(FAULTS.iter().all(|fault| struck.get(fault).is_some_and(|times| *times > 10)), "{struck:?}");
    assert!(trees > 50, "servers follow through others: {trees} times");
    assert!(named > 500, "steps name what they wrote: {named}");
    assert!(inside > 1_000, "writers look at what they wrote: {inside} times");
    assert!(in_place > 10_000, "clients read in place: {in_place} times");
    assert!(stood > 100, "clients stood still in {stood} copies");
    assert!(full > 20 && lost > 50, "{full} updates found a tier full, {lost} reads were told of a loss");
}

macro_rules! quarters {
    ($($test:ident: $first:expr;)*) => { $(#[test] fn $test() { all_keep_all_invariants($first); })* };
}

quarters! {
    seeds_of_the_first_quarter_keep_all_invariants: 1;
    seeds_of_the_second_quarter_keep_all_invariants: 2;
    seeds_of_the_third_quarter_keep_all_invariants: 3;
    seeds_of_the_fourth_quarter_keep_all_invariants: 4;
}

/// Clients stand still in copies until other bytes lie there, and return none of them.
#[test]
fn what_is_written_over_while_a_client_stands_still_is_not_returned() {
    let (mut stood, mut overwritten) = (0, 0);
    for seed in 1..=20 {
        let settings = Settings { servers: 2, width: 0, memory: true, moves: true, ..Settings::of(seed) };
        let run = run(settings);
        let violations = check(&run.history);
        assert!(violations.is_empty(), "replay: {}\n{violations:#?}", settings.replay());
        (stood, overwritten) = (stood + run.stood.0, overwritten + run.stood.1);
    }
    assert!(stood > 30 && overwritten > 2, "clients stood still in {stood} copies, {overwritten} of them written over");
}

#[test]
fn a_calm_run_commits_everything() {
    let run = run(Settings { calm: true, ..Settings::of(5) });
    assert_eq!(check(&run.history), []);
    assert_eq!(run.history.steps.len(), 16, "two jobs of eight epochs");
    assert!(run.history.named > 8, "{} of them name what they wrote", run.history.named);
}

#[test]
fn a_seed_replays_identically() {
    for seed in [3, 4, 5, 6] {
        let settings = Settings::of(seed);
        let (first, second) = (run(settings), run(settings));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!(first.history.reads, second.history.reads, "seed {seed}");
        assert_eq!(first.history.optimistic, second.history.optimistic, "seed {seed}");
    }
}

/// Seeds of each of the two tests of redundancy groups.
const GROUP_SEEDS: u64 = 150;

/// Every second seed from `first` on, of redundancy groups of two and three members.
fn all_groups_keep_all_invariants(first: u64) {
    let (mut updates, mut reads, mut excluded, mut completed, mut struck) = (0, 0, 0, 0, Struck::new());
    let (mut complete, mut members) = (0, 0);
    for seed in (0..GROUP_SEEDS).map(|number| first + 2 * number) {
        let settings = groups::Settings::of(seed);
        let run = groups::run(settings);
        assert!(run.violations.is_empty(), "replay: {}\n{:#?}", settings.replay(), run.violations);
        (updates, reads) = (updates + run.updates, reads + run.history.reads.len());
        (excluded, completed) = (excluded + run.excluded, completed + run.completed);
        (complete, members) = (complete + run.complete.0, members + run.complete.1);
        run.struck.iter().for_each(|(name, times)| *struck.entry(*name).or_default() += times);
    }
    assert!(updates > 50_000 && reads > 100_000, "programs must get something done: {updates} updates, {reads} reads");
    assert!(excluded > 200 && completed > 200, "{excluded} servers excluded, {completed} members complete again");
    assert!(complete > members / 2, "{complete} of {members} members are complete at the end");
    assert!(groups::FAULTS.iter().all(|fault| struck.get(fault).is_some_and(|times| *times > 20)), "{struck:?}");
}

#[test]
fn groups_of_the_first_half_keep_all_invariants() {
    all_groups_keep_all_invariants(1);
}

#[test]
fn groups_of_the_second_half_keep_all_invariants() {
    all_groups_keep_all_invariants(2);
}

#[test]
fn a_calm_group_stays_complete() {
    let run = groups::run(groups::Settings { calm: true, ..groups::Settings::of(5) });
    assert_eq!(run.violations, []);
    assert_eq!((run.excluded, run.complete.0), (0, run.complete.1));
    assert_eq!(run.history.transactions.len(), 80, "two writers of forty epochs");
}

#[test]
fn a_seed_of_groups_replays_identically() {
    for seed in 3..7 {
        let (first, second) = (groups::run(groups::Settings::of(seed)), groups::run(groups::Settings::of(seed)));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!(first.history.reads, second.history.reads, "seed {seed}");
    }
}
