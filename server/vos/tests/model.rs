//! The store against a small obvious model: a list of operations, replayed for each view.
//!
//! Random transactions, updates of several entries, conditions, punches, snapshots, enumerations that go on while the store
//! changes, aggregation, the end of a container, checkpoints and crashes; after each, every live view must read, list and answer
//! the same from both. A crash may take away what was not flushed, from the end, and nothing else.

mod support;

use proptest::prelude::*;
use support::check::Through;
use support::{Action, Cell, DKEYS, OBJECTS, Who, World};
use talea_tier::Torn;

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        4 => (0u64..3).prop_map(|late| Who::Auto(late * 15)),
        4 => (0usize..4).prop_map(Who::Pending),
        1 => (0usize..4).prop_map(Who::Tied),
    ]
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        4 => (0u64..20, 1u64..8).prop_map(|(index, count)| Cell::Small { index, count }),
        3 => (0u64..20, 1u64..14).prop_map(|(index, count)| Cell::Big { index, count }),
        3 => (0usize..6000).prop_map(|bytes| Cell::Put { bytes }),
        2 => any::<u8>().prop_map(|value| Cell::Max { value }),
    ]
}

/// Mostly none.
fn condition() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0), 1 => 1u8..5]
}

fn through() -> impl Strategy<Value = Through> {
    prop_oneof![
        Just(Through::Objects),
        (0..OBJECTS).prop_map(Through::Dkeys),
        (0..OBJECTS, 0..DKEYS).prop_map(|(object, dkey)| Through::Akeys(object, dkey)),
        (0..OBJECTS, 0..DKEYS, 0usize..2).prop_map(|(object, dkey, akey)| Through::Extents(object, dkey, akey)),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Begin),
        17 => (who(), 0..OBJECTS, prop::collection::vec((0..DKEYS, cell()), 1..4), condition())
            .prop_map(|(who, object, entries, condition)| Action::Update { who, object, entries, condition }),
        4 => (who(), (0..OBJECTS, 0..DKEYS), 0u8..6, 0u64..20, 1u64..8, condition()).prop_map(
            |(who, place, level, index, count, condition)| Action::Punch { who, place, level, index, count, condition }
        ),
        3 => (0usize..4).prop_map(Action::Commit),
        2 => (0usize..4).prop_map(Action::Abort),
        1 => Just(Action::Keep),
        1 => (0usize..4).prop_map(Action::Release),
        2 => any::<u8>().prop_map(Action::Floor),
        5 => (through(), 1usize..4).prop_map(|(through, limit)| Action::Cursor { through, limit }),
        4 => (1usize..40).prop_map(Action::Background),
        3 => Just(Action::Flush),
        1 => Just(Action::Check),
        2 => any::<u64>().prop_map(Action::Crash),
    ]
}

/// Now and then the end of the second container, once.
fn actions() -> impl Strategy<Value = Vec<Action>> {
    let some = || prop::collection::vec(action(), 1..60);
    prop_oneof![
        2 => some(),
        1 => (some(), some()).prop_map(|(mut before, after)| {
            before.push(Action::Destroy);
            before.extend(after);
            before
        }),
    ]
}

fn run(mut world: World, actions: &[Action]) {
    for action in actions {
        world.run(action);
    }
    world.check();
    world.run(&Action::Background(100_000));
    world.check();
    world.run(&Action::Flush);
    world.run(&Action::Crash(0));
    world.check();
}

/// Without a log there is nothing to come back from, and values move while they are read.
fn run_in_memory(actions: &[Action]) {
    let mut world = World::in_memory();
    for action in actions.iter().filter(|action| !matches!(action, Action::Crash(_))) {
        world.run(action);
    }
    world.check();
    world.run(&Action::Background(100_000));
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(192), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_view_reads_as_the_model_says_on_memory(actions in actions()) {
        run(World::new(Torn::Lines), &actions);
    }

    #[test]
    fn every_view_reads_as_the_model_says_on_blocks(actions in actions()) {
        run(World::new(Torn::Sectors), &actions);
    }

    #[test]
    fn every_view_reads_as_the_model_says_on_two_tiers(actions in actions()) {
        run(World::on_two(), &actions);
    }

    #[test]
    fn every_view_reads_as_the_model_says_without_a_log(actions in actions()) {
        run_in_memory(&actions);
    }
}
