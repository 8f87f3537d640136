//! Rule 15, the leader's part: what an independent transaction has read holds up to its bound. And what differs between two
//! snapshots.

use talea_model::{Extent, Order, Stamp, TxId, View};
use talea_tier::{SimMedium, Torn};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition, Diff, DiffPlace, Differences, Differs, Prepare, Read, ReadOf};

use super::bench::*;

const TX: Order = Order::Pending(TxId(1));

fn akey(dkey: &[u8]) -> ReadOf {
    ReadOf::Akey { dkey: dkey.to_vec(), akey: b"a".to_vec(), extents: vec![] }
}

impl Bench {
    fn prepare(&mut self, view: View, until: Stamp, reads: Vec<ReadOf>) -> Option<Answer> {
        let head = self.head(None, view);
        let reads = reads.into_iter().map(|of| Read { oid: oid(), of }).collect();
        self.ask(head, Body::Prepare(Box::new(Prepare { until, reads })))
    }

    fn far(&self) -> Stamp {
        Stamp::from_unix_us(self.now.unix_us + 1_000)
    }
}

/// A target with "k" in the base of transaction 1.
fn with_base() -> (Bench, View) {
    let mut bench = Bench::new();
    bench.put(AUTO, View::Latest, b"k", b"old");
    bench.later_us(10);
    let position = bench.log(&[Change::Begin(TxId(1))]);
    let view = inside(1, bench.stamp(), position);
    bench.later_us(10);
    (bench, view)
}

#[test]
fn what_was_written_since_the_base_is_a_conflict() {
    let (mut bench, view) = with_base();
    let until = bench.far();
    let unread = vec![ReadOf::Dkeys { after: b"l".to_vec(), through: Some(b"n".to_vec()) }, akey(b"other")];
    assert_eq!(bench.prepare(view, until, vec![akey(b"k")]), Some(Answer::Prepared(vec![])));
    let (mut bench, view) = with_base();
    bench.put(AUTO, View::Latest, b"k", b"new");
    for read in [
        akey(b"k"),
        ReadOf::Object,
        ReadOf::Dkey(b"k".to_vec()),
        ReadOf::Dkeys { after: b"a".to_vec(), through: None },
        ReadOf::Dkeys { after: vec![], through: Some(b"k".to_vec()) },
    ] {
        assert_eq!(bench.prepare(view, until, vec![read.clone()]), refused(RefusalCode::Conflict), "{read:?}");
    }
    assert_eq!(bench.prepare(view, until, unread), Some(Answer::Prepared(vec![])));
}

#[test]
fn a_removal_and_a_committed_transaction_are_seen_and_its_own_writes_are_not() {
    let (mut bench, view) = with_base();
    bench.put(TX, view, b"k", b"own");
    let until = bench.far();
    assert_eq!(bench.prepare(view, until, vec![akey(b"k")]), Some(Answer::Prepared(vec![])));
    bench.log(&[Change::Begin(TxId(2))]);
    bench.put(Order::Pending(TxId(2)), view_of_2(&bench), b"k", b"theirs");
    let named = Some(Answer::Prepared(vec![TxId(2)]));
    assert_eq!(bench.prepare(view, until, vec![akey(b"k")]), named, "its fate is the log's to know");
    bench.log(&[Change::Commit(TxId(2), bench.stamp())]);
    assert_eq!(bench.prepare(view, bench.far(), vec![akey(b"k")]), refused(RefusalCode::Conflict));
    let (mut bench, view) = with_base();
    let head = bench.head(Some(AUTO), View::Latest);
    let punch = Body::Punch { dkey: b"k", akey: b"", extent: None, condition: Condition::None };
    assert_eq!(bench.ask(head, punch), Some(Answer::Done));
    assert_eq!(bench.prepare(view, bench.far(), vec![akey(b"k")]), refused(RefusalCode::Conflict));
}

fn view_of_2(bench: &Bench) -> View {
    inside(2, bench.stamp(), bench.position)
}

#[test]
fn records_beside_those_that_were_read_do_not_matter() {
    let (mut bench, view) = with_base();
    let extent = |index| Extent { index, count: 4 };
    let head = bench.head(Some(AUTO), View::Latest);
    assert_eq!(bench.ask(head, Body::Update(vec![array(b"array", extent(8), b"abcd")])), Some(Answer::Done));
    let read = |index| ReadOf::Akey { dkey: b"array".to_vec(), akey: b"a".to_vec(), extents: vec![extent(index)] };
    let until = bench.far();
    assert_eq!(bench.prepare(view, until, vec![read(4)]), Some(Answer::Prepared(vec![])));
    assert_eq!(bench.prepare(view, until, vec![read(5)]), refused(RefusalCode::Conflict));
}

#[test]
fn after_it_no_autocommit_gets_a_stamp_up_to_the_bound_not_even_after_a_restart() {
    let (mut bench, view) = with_base();
    let until = bench.far();
    bench.prepare(view, until, vec![akey(b"k")]);
    bench.effects();
    let at_bound = snapshot(until, bench.position);
    bench.put(AUTO, View::Latest, b"k", b"new");
    assert_eq!(bench.get(at_bound, b"k"), value(b"old"));
    let (medium, unix_us) = (bench.medium.crash(&mut || 0), bench.now.unix_us);
    let mut bench = Bench::on(medium, unix_us);
    bench.put(AUTO, View::Latest, b"k", b"newer");
    assert_eq!(bench.get(at_bound, b"k"), value(b"old"), "its clock begins behind the bound");
}

#[test]
fn a_bound_in_the_far_future_is_refused() {
    let (mut bench, view) = with_base();
    let until = Stamp::from_unix_us(bench.now.unix_us + 60_000_000);
    assert_eq!(bench.prepare(view, until, vec![akey(b"k")]), refused(RefusalCode::Clock));
    assert_eq!(bench.prepare(View::Latest, bench.far(), vec![akey(b"k")]), refused(RefusalCode::Argument));
}

#[test]
fn a_condition_does_not_look_past_a_transaction_that_is_being_committed() {
    let (mut bench, view) = with_base();
    bench.put(TX, view, b"new", b"of the transaction");
    bench.prepare(view, bench.far(), vec![akey(b"new")]);
    bench.effects();
    let insert = |bench: &mut Bench| {
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![single(b"new", b"of another", Condition::Insert)]));
        assert!(bench.finish().is_empty(), "first to the log's end");
        let end = bench.position;
        bench.answer_log_end(end);
        bench.finish().pop().map(|(_, answer)| answer)
    };
    assert_eq!(insert(&mut bench), refused(RefusalCode::Busy));
    let commit = bench.stamp();
    bench.log(&[Change::Commit(TxId(1), commit)]);
    let head = bench.head(Some(AUTO), View::Latest);
    let again = Body::Update(vec![single(b"new", b"of another", Condition::Insert)]);
    assert_eq!(bench.ask(head, again), refused(RefusalCode::Exists));
}

fn differences(bench: &mut Bench, from: View, to: View, limit: u16) -> Vec<(Vec<u8>, Extent, Differs)> {
    let View::Snapshot { stamp, position, .. } = from else { panic!("{from:?}") };
    let (mut all, mut after): (Vec<_>, Option<DiffPlace>) = (vec![], None);
    loop {
        let head = bench.head(None, to);
        let diff = Diff { from: stamp, position, after, limit };
        let answer = bench.ask(head, Body::Diff(Box::new(diff)));
        let Some(Answer::Differences(Differences { found, next })) = answer else { panic!("{answer:?}") };
        all.extend(found.into_iter().map(|one| (one.place.dkey, one.extent, one.how)));
        match next {
            Some(_) => after = next,
            None => return all,
        }
    }
}

#[test]
fn differences_are_what_was_written_between() {
    let mut bench = Bench::new();
    let extent = |index, count| Extent { index, count };
    for dkey in [b"changed", b"removed", b"stays..", b"twice.."] {
        bench.put(AUTO, View::Latest, dkey, b"1");
    }
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Update(vec![array(b"array", extent(0, 8), b"aaaaaaaa")]));
    let position = bench.log(&[]);
    bench.later_us(10);
    let from = snapshot(bench.stamp(), position);
    bench.get(from, b"k");
    bench.later_us(10);
    bench.put(AUTO, View::Latest, b"added", b"2");
    bench.put(AUTO, View::Latest, b"changed", b"2");
    bench.put(AUTO, View::Latest, b"twice..", b"2");
    bench.put(AUTO, View::Latest, b"twice..", b"3");
    for punch in [
        Body::Punch { dkey: b"removed", akey: b"", extent: None, condition: Condition::None },
        Body::Punch { dkey: b"array", akey: b"a", extent: Some(extent(6, 1)), condition: Condition::None },
    ] {
        let head = bench.head(Some(AUTO), View::Latest);
        assert_eq!(bench.ask(head, punch), Some(Answer::Done));
    }
    let head = bench.head(Some(AUTO), View::Latest);
    bench.ask(head, Body::Update(vec![array(b"array", extent(2, 2), b"bb"), array(b"array", extent(8, 2), b"bb")]));
    bench.later_us(10);
    let to = snapshot(bench.stamp(), bench.position);
    let all = vec![
        (b"added".to_vec(), Extent::default(), Differs::Added),
        (b"array".to_vec(), extent(2, 2), Differs::Changed),
        (b"array".to_vec(), extent(6, 1), Differs::Removed),
        (b"array".to_vec(), extent(8, 2), Differs::Added),
        (b"changed".to_vec(), Extent::default(), Differs::Changed),
        (b"removed".to_vec(), Extent::default(), Differs::Removed),
        (b"twice..".to_vec(), Extent::default(), Differs::Changed),
    ];
    for limit in [1, 2, 3, 100] {
        assert_eq!(differences(&mut bench, from, to, limit), all, "by {limit}");
    }
    assert_eq!(differences(&mut bench, to, to, 100), vec![]);
    let back: Vec<Differs> = differences(&mut bench, to, from, 100).into_iter().map(|(_, _, how)| how).collect();
    assert_eq!(back[0], Differs::Removed, "the other way round: {back:?}");
}

/// Records of an array at these indices, each written by itself.
fn write_records(bench: &mut Bench, indices: &[u64]) {
    for some in indices.chunks(256) {
        let entries = some.iter().map(|index| array(b"long", Extent { index: *index, count: 1 }, b"r")).collect();
        let head = bench.head(Some(AUTO), View::Latest);
        assert_eq!(bench.ask(head, Body::Update(entries)), Some(Answer::Done));
    }
}

fn snapshot_now(bench: &mut Bench) -> View {
    bench.later_us(10);
    let view = snapshot(bench.stamp(), bench.position);
    bench.get(view, b"k");
    bench.later_us(10);
    view
}

#[test]
fn a_page_of_differences_ends_where_a_turn_has_looked_at_enough() {
    const ALIKE: u64 = 20_000;
    let mut bench = Bench::on(SimMedium::new(64 << 20, Torn::Lines), START_US);
    write_records(&mut bench, &(0..ALIKE).map(|n| 2 * n).collect::<Vec<_>>());
    let from = snapshot_now(&mut bench);
    write_records(&mut bench, &[2 * ALIKE - 2]);
    let to = snapshot_now(&mut bench);
    // One in which the others were written again, next to each other: they differ alike, over more than a page looks at.
    write_records(&mut bench, &(0..ALIKE).map(|n| 3 * ALIKE + n).collect::<Vec<_>>());
    let last = snapshot_now(&mut bench);
    let View::Snapshot { stamp, position, .. } = from else { panic!() };
    let head = bench.head(None, to);
    let first = bench.ask(head, Body::Diff(Box::new(Diff { from: stamp, position, after: None, limit: 10 })));
    let Some(Answer::Differences(Differences { found, next })) = first else { panic!("{first:?}") };
    assert!(found.is_empty() && next.is_some_and(|next| next.index < ALIKE), "all of it was looked at in one turn");
    let long = |index, count, how| (b"long".to_vec(), Extent { index, count }, how);
    assert_eq!(differences(&mut bench, from, to, 10), [long(2 * ALIKE - 2, 1, Differs::Changed)]);
    for limit in [1, 10] {
        let pieces = differences(&mut bench, to, last, limit);
        assert!((2..10).contains(&pieces.len()), "{} pieces", pieces.len());
        let mut end = 3 * ALIKE;
        for (_, extent, how) in pieces {
            assert_eq!((extent.index, how), (end, Differs::Added));
            end = extent.end();
        }
        assert_eq!(end, 4 * ALIKE, "without a gap, and nothing twice");
    }
}
