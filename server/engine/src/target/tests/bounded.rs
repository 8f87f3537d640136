//! No turn grows with what there is: room is made, and what is punched is gone through, in portions; others are served between.

use talea_model::{ContainerId, Extent, Stamp, View};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::request::Head;
use talea_wire::data::{Body, Condition, Entry, EnumerateKind, QueryKind};

use super::bench::*;
use crate::target::TURN_LOOKS;

const CONTAINER: ContainerId = RUN;

fn floor(bench: &mut Bench) {
    bench.later_us(1_000_000);
    let stamp = Stamp(bench.stamp().0 + (1 << 20));
    bench.log(&[Change::Floor(CONTAINER, stamp)]);
    bench.later_us(10_000_000);
}

/// Turns until a request is answered, and how many these were.
fn turns_until(bench: &mut Bench, id: u64) -> (Answer, u32) {
    for turns in 1..1000 {
        let items = bench.target.store().stats().items;
        let answers = bench.finish();
        let items = bench.target.store().stats().items - items;
        assert!(items <= 4096, "{items} items in one turn");
        if let Some((_, answer)) = answers.into_iter().find(|(answered, _)| *answered == id) {
            return (answer, turns);
        }
    }
    panic!("no answer in 1000 turns");
}

#[test]
fn an_update_of_a_full_tier_waits_while_room_is_made_in_portions() {
    let mut bench = Bench::new();
    // Small values first, so that there is much to go through, then large ones until nothing fits.
    for n in 0..6_000u32 {
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![single(&(n % 3_000).to_be_bytes(), &[7; 100], Condition::None)]));
        if n % 32 == 31 {
            bench.finish();
        }
    }
    let full = (0..400u32).find_map(|n| {
        let head = bench.head(Some(AUTO), View::Latest);
        let dkey = n.to_be_bytes();
        let id = bench.send(head, Body::Update(vec![single(&dkey[2..], &[1; 60_000], Condition::None)]));
        let (answer, _) = turns_until(&mut bench, id);
        (answer != Answer::Done).then_some(answer)
    });
    assert_eq!(full, Some(Answer::Refused(RefusalCode::NoSpace)));
    assert_eq!(bench.get(View::Latest, &1u32.to_be_bytes()[2..]), value(&[1; 60_000]), "reads go on");
    let head = bench.head(Some(AUTO), View::Latest);
    let id = bench.send(head, Body::Punch { dkey: b"", akey: b"", extent: None, condition: Condition::None });
    assert_eq!(turns_until(&mut bench, id).0, Answer::Done, "punches go on");
    floor(&mut bench);
    // No time for background work in between: the update itself finds that room is to come, and waits for it.
    let head = bench.head(Some(AUTO), View::Latest);
    let id = bench.send(head, Body::Update(vec![single(b"after", &[2; 1_000_000], Condition::None)]));
    let (answer, turns) = turns_until(&mut bench, id);
    assert_eq!(answer, Answer::Done);
    assert!(turns > 1, "{turns} turns: the test sees what it is there for");
    assert_eq!(bench.get(View::Latest, b"after"), value(&[2; 1_000_000]));
    assert_eq!(bench.target.parked(), 0);
}

/// Others make work without an end, and none of it makes the room that an update needs: it is told so, long before its deadline.
#[test]
fn an_update_that_no_work_makes_room_for_does_not_wait_for_its_deadline() {
    let mut bench = Bench::new();
    for n in 0..6_000u64 {
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![array(b"wide", Extent { index: n * 2, count: 1 }, b"x")]));
        if n % 64 == 63 {
            bench.finish();
        }
    }
    let full = (0..400u32).find(|n| {
        let head = bench.head(Some(AUTO), View::Latest);
        let id = bench.send(head, Body::Update(vec![single(&n.to_be_bytes(), &[1; 60_000], Condition::None)]));
        turns_until(&mut bench, id).0 != Answer::Done
    });
    assert!(full.is_some());
    // A record in a wide array is punched, and the floor rises over that: there is always much to look at.
    let busy = |bench: &mut Bench, turn: u32| {
        let extent = Some(Extent { index: u64::from(turn) * 2, count: 1 });
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Punch { dkey: b"wide", akey: b"a", extent, condition: Condition::None });
        bench.later_us(1_000);
        bench.log(&[Change::Floor(CONTAINER, bench.stamp())]);
        bench.later_us(1_000);
    };
    busy(&mut bench, 0);
    let head = Head { deadline_ms: 600_000, ..bench.head(Some(AUTO), View::Latest) };
    let waiting = bench.send(head, Body::Update(vec![single(b"large", &[2; 1_000_000], Condition::None)]));
    for turn in 0..2_000u32 {
        busy(&mut bench, turn);
        if let Some((_, answer)) = bench.finish().into_iter().find(|(id, _)| *id == waiting) {
            assert_eq!(answer, Answer::Refused(RefusalCode::NoSpace));
            assert!(turn > 2, "it waited for what there was to do: {turn} turns");
            assert_eq!(bench.target.parked(), 0);
            return;
        }
        assert!(bench.target.parked() > 0, "{turn} turns");
    }
    panic!("no answer in 2000 turns: {:?}", bench.target.store().stats());
}

#[test]
fn punched_keys_and_records_are_gone_through_in_turns() {
    let mut bench = Bench::new();
    let dkeys = TURN_LOOKS as u32 * 3 / 2;
    for n in 0..dkeys {
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![single(&n.to_be_bytes(), b"v", Condition::None)]));
        let extent = Extent { index: u64::from(n) * 2, count: 1 };
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![array(b"array", extent, b"x")]));
        if n % 16 == 15 {
            bench.finish();
        }
    }
    let head = bench.head(Some(AUTO), View::Latest);
    bench.send(head, Body::Punch { dkey: b"", akey: b"", extent: None, condition: Condition::None });
    bench.finish();
    bench.put(AUTO, View::Latest, b"seen", b"v");
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Update(vec![array(b"array", Extent { index: 0, count: 1 }, b"y")]));
    let keys = |kind| Body::Enumerate { kind, dkey: b"", akey: b"", after: b"", limit: 100 };
    let names = Answer::Names(vec![b"array".to_vec(), b"seen".to_vec()], false);
    let end = Body::Query { kind: QueryKind::ArrayEnd, dkey: b"array", akey: b"a" };
    for (body, expected) in [(keys(EnumerateKind::Dkeys), names), (end, Answer::Numbers(1, 1))] {
        let head = bench.head(None, View::Latest);
        let id = bench.send(head, body);
        assert_eq!(bench.target.parked(), 1);
        assert_eq!(bench.target.next_deadline(), 0, "it goes on without any event");
        // Somebody else is served meanwhile.
        assert_eq!(bench.get(View::Latest, b"seen"), value(b"v"));
        let (answer, turns) = turns_until(&mut bench, id);
        assert_eq!(answer, expected);
        assert!(turns <= 8, "{turns} turns");
    }
}

/// What a condition asks of may lie behind much that is punched: that is gone through in turns, and what others write meanwhile counts.
#[test]
fn conditions_are_judged_in_turns_and_in_the_state_that_they_meet() {
    let mut bench = Bench::new();
    for n in 0..TURN_LOOKS as u64 * 3 {
        let extent = Extent { index: n * 2, count: 1 };
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![array(b"array", extent, b"x")]));
        if n % 64 == 63 {
            bench.finish();
        }
    }
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Punch { dkey: b"array", akey: b"", extent: None, condition: Condition::None });
    let far = Extent { index: 0, count: 1 };
    let insert = |bench: &mut Bench, data: &[u8]| {
        let head = Head { deadline_ms: 60_000, ..bench.head(Some(AUTO), View::Latest) };
        let entry = Entry { condition: Condition::DkeyInsert, ..array(b"array", far, data) };
        bench.send(head, Body::Update(vec![entry]))
    };
    // Two who want to be the first: one is.
    let (first, second) = (insert(&mut bench, b"1"), insert(&mut bench, b"2"));
    assert_eq!(bench.target.parked(), 2);
    assert_eq!(bench.target.next_deadline(), 0, "they go on without any event");
    assert_eq!(bench.get(View::Latest, b"other"), nothing(), "somebody else is served meanwhile");
    let (mut answers, mut turns) = (Vec::new(), 0);
    while answers.len() < 2 && turns < 20 {
        answers.extend(bench.finish());
        turns += 1;
    }
    assert_eq!(answers, [(first, Answer::Done), (second, Answer::Refused(RefusalCode::Exists))]);
    assert!(turns > 2, "{turns} turns");
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Punch { dkey: b"array", akey: b"", extent: None, condition: Condition::None });
    // A third one, before whose place (which it has passed) another writes without any condition.
    let third = insert(&mut bench, b"3");
    bench.finish();
    assert_eq!(bench.target.parked(), 1);
    let head = bench.head(Some(AUTO), View::Latest);
    bench.send(head, Body::Update(vec![array(b"array", far, b"4")]));
    assert_eq!(turns_until(&mut bench, third).0, Answer::Refused(RefusalCode::Exists));
    // A punch that asks as well.
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Punch { dkey: b"array", akey: b"", extent: None, condition: Condition::None });
    let head = Head { deadline_ms: 60_000, ..bench.head(Some(AUTO), View::Latest) };
    let id = bench.send(head, Body::Punch { dkey: b"array", akey: b"a", extent: None, condition: Condition::Update });
    assert_eq!(bench.target.parked(), 1);
    assert_eq!(turns_until(&mut bench, id).0, Answer::Refused(RefusalCode::NotFound));
}

#[test]
fn an_idle_target_is_scrubbed_and_rests_when_all_was_seen() {
    let mut bench = Bench::new();
    for n in 0..40u8 {
        bench.put(AUTO, View::Latest, &[n], &[n; 50_000]);
    }
    let (mut wakes, mut asleep_us) = (0, 0);
    while asleep_us < 60_000_000 {
        let deadline_ns = bench.target.next_deadline();
        asleep_us = (deadline_ns.saturating_sub(bench.now.monotonic_ns) / 1000).min(120_000_000);
        bench.later_us(asleep_us);
        bench.finish();
        wakes += 1;
        assert!(wakes < 200, "it never rests");
    }
    let scrubbed = bench.target.store().stats().scrubbed_bytes;
    assert!(scrubbed >= 2 * 40 * 50_000, "{scrubbed} bytes: a whole pass after the last write");
}

#[test]
fn damage_that_a_reader_meets_counts_before_the_scrubber_comes_by() {
    let mut bench = Bench::new();
    bench.put(AUTO, View::Latest, b"k", &[7; 50_000]);
    let image = bench.medium.image();
    let at = image.windows(5_000).position(|bytes| bytes == [7; 5_000]).unwrap();
    bench.medium.corrupt(at as u64 + 100, 1);
    let scrubbed = bench.target.store().stats().scrubbed_bytes;
    assert_eq!(bench.get(View::Latest, b"k"), Some(Answer::Refused(RefusalCode::DataLost)));
    let stats = bench.target.store().stats();
    assert_eq!((stats.damaged, stats.scrubbed_bytes), (1, scrubbed));
    bench.get(View::Latest, b"k");
    assert_eq!(bench.target.store().stats().damaged, 1, "one place, however often it is read");
}
