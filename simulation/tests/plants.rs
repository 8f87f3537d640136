//! Every planted bug is found: a checker that finds none checks nothing.

use talea_engine::group::Plant as GroupPlant;
use talea_simulation::{Plant, Settings, check, groups, run};

/// Seeds that are tried until one shows the bug.
const SEEDS: u64 = 300;

/// Groups of several members have a world of their own.
fn is_caught_in_groups(plant: Plant, by: &[&str]) -> bool {
    (1..=SEEDS).any(|seed| {
        let run = groups::run(groups::Settings { plant: plant.group(), ..groups::Settings::of(seed) });
        run.violations.iter().any(|violation| by.contains(&violation.invariant))
    })
}

fn is_caught(plant: Plant, by: &[&str]) {
    if plant.group() != GroupPlant::None {
        assert!(is_caught_in_groups(plant, by), "no seed shows the planted bug '{}' as one of {by:?}", plant.name());
        return;
    }
    // Servers follow through others only where there are several.
    let moves = matches!(plant, Plant::ForgetLeases | Plant::BlindCopy);
    let memory = moves || plant == Plant::StuckBoard;
    let (servers, width, first) = match plant {
        Plant::SkipEntry | Plant::EarlyEnd => (5, 1, 1),
        // Those who lose their leases have to be cut off together with the one that they follow through.
        Plant::OwnWord => (5, 1, 90),
        _ => (2, 0, 1),
    };
    let caught = (first..=SEEDS).any(|seed| {
        let violations = check(&run(Settings { servers, width, memory, moves, plant, ..Settings::of(seed) }).history);
        violations.iter().any(|violation| by.contains(&violation.invariant))
    });
    assert!(caught, "no seed shows the planted bug '{}' as one of {by:?}", plant.name());
}

macro_rules! plants {
    ($($test:ident: $plant:ident by $by:expr;)*) => {
        $(#[test] fn $test() { is_caught(Plant::$plant, &$by); })*

        #[test]
        fn every_plant_has_a_test() {
            let tested = [$(Plant::$plant),*];
            let missing: Vec<&str> = Plant::all().filter(|plant| !tested.contains(plant)).map(Plant::name).collect();
            assert!(missing.is_empty(), "not tested: {missing:?}");
        }
    };
}

plants! {
    rule_1_clocks_that_are_not_carried: NoClock by ["told"];
    rule_2_a_commit_below_a_served_snapshot: LateStamp by ["I1", "I2"];
    rule_3_a_join_that_is_not_noted: NoJoin by ["I6"];
    rule_3_joins_that_are_forgotten_over_a_restart: ForgetJoins by ["I6"];
    rule_4_an_update_that_was_acknowledged_and_not_flushed: SkipFlush by ["I1", "I2", "once", "told", "serial"];
    rule_5_a_commit_that_is_one_on_some_targets_only: HalfCommit by ["I1"];
    rule_6_a_stale_table_of_transactions: StaleTable by ["I1"];
    rule_6_pending_versions_that_are_seen: SplitCommit by ["I1", "I2"];
    rule_7_a_zombie_write: Zombie by ["I1", "I2"];
    rule_7_commits_that_are_not_passed_on: SkipEntry by ["I1", "I2", "steps", "I8"];
    rule_8_an_end_that_nobody_asked_the_leader_for: EarlyEnd by ["told"];
    rule_8_latest_reads_that_do_not_catch_up: NoCatchUp by ["told"];
    rule_9_snapshots_that_are_served_without_a_mark: Unmarked by ["I2"];
    rule_9_updates_that_are_acknowledged_before_all_have_them: EarlyDone by ["I1", "told"];
    rule_9_new_leaders_that_do_not_take_what_others_hold: NoCopy by ["I2", "order"];
    rule_9_new_leaders_that_stamp_below_the_map: LowStamp by ["I2", "told"];
    rule_9_old_leaders_that_are_not_refused: OldLeader by ["I1", "I2", "order"];
    rule_9_marks_before_updates_of_closed_transactions: EarlyPosition by ["I2"];
    rule_9_marks_before_stamped_updates: EarlyStamp by ["I2"];
    rule_9_members_that_count_though_they_missed_something: Incomplete by ["I1", "I2", "told"];
    rule_9_members_that_count_too_early: EarlyComplete by ["I1", "I2", "told", "order"];
    rule_7_updates_that_a_member_refuses_its_leader: OwnFate by ["I1", "I2"];
    rule_14_sessions_that_groups_share: SharedSessions by ["I1", "I2", "told"];
    rule_10_a_target_that_lost_its_log_and_does_not_say_so: SilentLoss by ["I1", "I2", "serial", "told"];
    rule_11_targets_that_serve_without_a_lease: EndlessLease by ["lease"];
    rule_11_heartbeats_that_the_leader_did_not_hear: OwnWord by ["lease"];
    rule_12_deaths_that_nobody_notices: Deaf by ["I6"];
    rule_13_kept_snapshots_that_are_not_kept: NothingKept by ["kept", "I1", "I2"];
    rule_14_updates_that_are_done_twice: ForgetSequences by ["once"];
    rule_14_entries_that_are_made_twice: Twice by ["once", "I1"];
    rule_14_requests_of_a_resumed_session_that_are_done_twice: ResumeTwice by ["once", "I1"];
    rule_15_reads_that_are_not_checked: BlindReads by ["serial"];
    rule_15_open_transactions_that_are_not_named: Nameless by ["serial"];
    rule_16_conditions_that_are_not_looked_at: Unconditional by ["once"];
    rule_17_a_step_that_is_not_told: SkipStep by ["steps", "I1", "I8"];
    rule_4_a_board_that_does_not_show_what_was_written: StuckBoard by ["own"];
    i2_blocks_that_are_used_again_under_their_leases: ForgetLeases by ["I2", "place"];
    i2_a_client_that_believes_what_it_copied_before_it_stood_still: BlindCopy by ["I2", "place"];
}
