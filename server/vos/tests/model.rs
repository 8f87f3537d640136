//! The store against a small obvious model: a list of operations, replayed for each view.
//!
//! Random transactions, punches, snapshots, aggregation, checkpoints and crashes; after each, every live view must read the same
//! from both. A crash may take away what was not flushed, from the end, and nothing else.

mod support;

use proptest::prelude::*;
use support::{Action, World};

fn order() -> impl Strategy<Value = support::Who> {
    prop_oneof![
        4 => Just(support::Who::Auto),
        4 => (0usize..4).prop_map(support::Who::Pending),
        1 => (0usize..4).prop_map(support::Who::Tied),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let place = || (0u8..2, 0u8..2);
    prop_oneof![
        3 => Just(Action::Begin),
        10 => (order(), place(), any::<bool>(), 0u64..20, 1u64..8)
            .prop_map(|(who, place, big, index, count)| Action::Write { who, place, big, index, count }),
        4 => (order(), place(), 0usize..6000).prop_map(|(who, place, bytes)| Action::Put { who, place, bytes }),
        2 => (order(), place(), any::<u8>()).prop_map(|(who, place, value)| Action::Max { who, place, value }),
        3 => (order(), place(), 0u8..5, 0u64..20, 1u64..8)
            .prop_map(|(who, place, level, index, count)| Action::Punch { who, place, level, index, count }),
        3 => (0usize..4).prop_map(Action::Commit),
        2 => (0usize..4).prop_map(Action::Abort),
        1 => Just(Action::Keep),
        1 => (0usize..4).prop_map(Action::Release),
        2 => any::<u8>().prop_map(Action::Floor),
        4 => (1usize..40).prop_map(Action::Background),
        3 => Just(Action::Flush),
        1 => Just(Action::Check),
        2 => any::<u64>().prop_map(Action::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(192), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_view_reads_as_the_model_says(actions in prop::collection::vec(action(), 1..90)) {
        let mut world = World::new();
        for action in &actions {
            world.run(action);
        }
        world.check();
        world.run(&Action::Background(100_000));
        world.check();
        world.run(&Action::Flush);
        world.run(&Action::Crash(0));
        world.check();
    }
}
