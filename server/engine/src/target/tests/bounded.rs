//! No turn grows with what there is: room is made, and what is punched is gone through, in portions; others are served between.

use talea_model::{ContainerId, Extent, SessionId, Stamp, TxId, View};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::request::Head;
use talea_wire::data::{Body, Condition, Entry, EnumerateKind, Prepare, QueryKind, Read, ReadOf};

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

/// An array of many versions, one a record.
fn with_long_array(records: u64) -> Bench {
    let mut bench = Bench::new();
    for n in 0..records / 64 {
        let extents = (0..64).map(|at| Extent { index: n * 64 + at, count: 1 }).collect();
        let entry = Entry { extents, ..array(b"array", Extent { index: 0, count: 1 }, &[7; 64]) };
        let head = bench.head(Some(AUTO), View::Latest);
        assert_eq!(bench.ask(head, Body::Update(vec![entry])), Some(Answer::Done));
    }
    bench
}

/// A fetch that goes through much leaves little of its turn to others like it: they wait for the next one, in their order.
#[test]
fn of_fetches_that_look_at_much_a_turn_serves_few() {
    let records = TURN_LOOKS as u64 * 2;
    let mut bench = with_long_array(records);
    bench.up(2);
    let all = Extent { index: 0, count: records };
    let asked: Vec<u64> = (0..10)
        .map(|_| {
            let head = bench.head(None, View::Latest);
            bench.send(head, Body::Fetch(vec![Entry { checksum: 0, ..array(b"array", all, &[]) }]))
        })
        .collect();
    assert_eq!(bench.target.parked(), 9);
    assert_eq!(bench.target.next_deadline(), 0, "they go on without any event");
    let mut answered = Vec::new();
    for turn in 1..=asked.len() {
        // Somebody else asks in each turn, and comes behind them.
        let mut head = bench.head(None, View::Latest);
        head.session = SessionId(2);
        bench.send(head, Body::Fetch(vec![Entry { checksum: 0, ..array(b"array", all, &[]) }]));
        let answers = bench.finish();
        assert!(answers.len() <= 2, "{} in turn {turn}", answers.len());
        assert!(answers.iter().all(|(_, answer)| *answer == Answer::Fetched(vec![(true, vec![7; records as usize])])));
        answered.extend(answers.into_iter().map(|(id, _)| id));
    }
    answered.retain(|id| asked.contains(id));
    assert_eq!(answered, asked);
}

#[test]
fn where_records_lie_is_looked_for_no_further_than_one_answer_goes() {
    let mut bench = with_long_array(TURN_LOOKS as u64 * 2);
    let stamp = bench.stamp();
    // All of it is punched, and stays for a snapshot.
    bench.later_us(10);
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Punch { dkey: b"array", akey: b"a", extent: None, condition: Condition::None });
    let found = |from| {
        let extent = Extent { index: from, count: u64::MAX - from };
        let store = bench.target.store();
        let at = talea_vos::ObjectRef { container: RUN, oid: oid() };
        store.locate(at, View::Latest, b"array", b"a", extent).unwrap()
    };
    let (mut at, mut answers) = (0, 0);
    while at < u64::MAX {
        let located = found(at);
        assert!(located.end > at && located.spans.is_empty());
        (at, answers) = (located.end, answers + 1);
    }
    assert!((2..=4).contains(&answers), "{answers} answers");
    assert!(stamp < bench.stamp());
}

/// What a transaction says that it has read is gone through once, however often it says so, and in turns.
#[test]
fn what_was_read_is_looked_at_once_and_in_turns() {
    let mut bench = with_long_array(TURN_LOOKS as u64 * 2);
    bench.later_us(10);
    let position = bench.log(&[Change::Begin(TxId(1)), Change::Begin(TxId(2))]);
    let view = inside(1, bench.stamp(), position);
    bench.later_us(10);
    let all = Extent { index: 0, count: u64::MAX };
    let read = || Read {
        oid: oid(),
        of: ReadOf::Akey { dkey: b"array".to_vec(), akey: b"a".to_vec(), extents: vec![all; 40] },
    };
    let until = Stamp::from_unix_us(bench.now.unix_us + 1_000);
    let prepare = || Body::Prepare(Box::new(Prepare { until, reads: (0..100).map(|_| read()).collect() }));
    let head = bench.head(None, view);
    let id = bench.send(head, prepare());
    assert_eq!(bench.target.parked(), 1);
    assert_eq!(bench.target.next_deadline(), 0, "it goes on without any event");
    assert_eq!(bench.get(View::Latest, b"other"), nothing(), "somebody else is served meanwhile");
    let (answer, turns) = turns_until(&mut bench, id);
    assert_eq!(answer, Answer::Prepared(vec![]));
    assert!((2..=4).contains(&turns), "{turns} turns");
    // What is written between two portions, where it has looked already, is later than the bound; who writes where it has not, is named.
    let head = bench.head(None, view);
    let id = bench.send(head, prepare());
    let last = TURN_LOOKS as u64 * 2 - 1;
    for (order, index) in [(AUTO, 0), (AUTO, last), (talea_model::Order::Pending(TxId(2)), last)] {
        let head = bench.head(Some(order), View::Latest);
        bench.send(head, Body::Update(vec![array(b"array", Extent { index, count: 1 }, b"y")]));
    }
    assert_eq!(turns_until(&mut bench, id).0, Answer::Prepared(vec![TxId(2)]));
    // And what was written before the bound is found, wherever.
    bench.later_us(2_000);
    let until = Stamp::from_unix_us(bench.now.unix_us + 1_000);
    let head = bench.head(None, view);
    let id = bench.send(head, Body::Prepare(Box::new(Prepare { until, reads: vec![read()] })));
    assert_eq!(turns_until(&mut bench, id).0, Answer::Refused(RefusalCode::Conflict));
    // More than a message may carry is refused before it costs anything.
    let head = bench.head(None, view);
    let reads = (0..103).map(|_| read()).collect();
    assert_eq!(bench.ask(head, Body::Prepare(Box::new(Prepare { until, reads }))), refused(RefusalCode::Malformed));
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
