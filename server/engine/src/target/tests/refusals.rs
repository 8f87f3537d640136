//! Who is refused, and who is told of a new map.

use std::sync::Arc;

use talea_model::{MapVersion, SessionId, Stamp, TargetId, TargetState, View};
use talea_vos::Change;
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition};

use super::bench::*;
use talea_fabric::PeerId;

use crate::{Effect, Tenure};

#[test]
fn a_session_speaks_for_itself_only_and_not_after_its_end() {
    let mut bench = Bench::new();
    let mut head = bench.head(None, View::Latest);
    head.session = SessionId(2);
    let bytes = encode(head, Body::Stat { read_in_place: 0 });
    bench.send_raw(1, &bytes);
    assert_eq!(bench.finish().pop(), Some((head.id, Answer::Refused(RefusalCode::Access))));
    bench.log(&[Change::EndSession(SessionId(1))]);
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"v"), refused(RefusalCode::SessionExpired));
    // Not by a new connection either.
    bench.up(1);
    assert_eq!(bench.get(View::Latest, b"k"), refused(RefusalCode::SessionExpired));
}

#[test]
fn an_old_map_is_answered_with_the_new_one_and_a_newer_one_is_waited_for() {
    let mut bench = Bench::new();
    bench.target.set_map(Arc::new(map(3)));
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"v"), Some(Answer::StaleMap(MapVersion(3))));
    bench.map = map(4);
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"v"), None);
    bench.target.set_map(Arc::new(map(2)));
    assert!(bench.finish().is_empty(), "an older map changes nothing");
    bench.target.set_map(Arc::new(map(4)));
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), Some(Answer::Done));
}

#[test]
fn a_target_that_is_down_or_without_a_lease_serves_nothing() {
    let mut bench = Bench::new();
    let mut tenure = Tenure::default();
    bench.target.set_lease(tenure.set(Some(5_000)).expect("the first one is new"));
    bench.now.monotonic_ns = 4_999;
    assert_eq!(bench.get(View::Latest, b"k"), nothing());
    let passed = bench.target.passed();
    bench.now.monotonic_ns = 5_000;
    assert_eq!(bench.get(View::Latest, b"k"), refused(RefusalCode::ServerLost), "nobody had to say it");
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"v"), refused(RefusalCode::ServerLost));
    assert_eq!(bench.target.passed(), passed, "the store was not asked");
    assert!(tenure.set(Some(6_000)).is_none(), "a renewal is no new lease");
    assert_eq!(bench.get(View::Latest, b"k"), nothing());
    assert!(tenure.set(None).is_none());
    assert_eq!(bench.get(View::Latest, b"k"), refused(RefusalCode::ServerLost));
    let mut down = map(2);
    down.targets[0].state = TargetState::Down;
    bench.target.set_lease(tenure.set(Some(u64::MAX)).expect("the next one is new"));
    bench.target.set_map(Arc::new(down));
    bench.map = map(2);
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"v"), refused(RefusalCode::ServerLost));
}

#[test]
fn a_target_that_is_emptied_serves_and_one_that_is_filled_does_not() {
    let mut bench = Bench::new();
    for (version, state, serves) in [(2, TargetState::Draining, true), (3, TargetState::New, false)] {
        let mut changed = map(version);
        changed.targets[0].state = state;
        bench.map = changed.clone();
        bench.target.set_map(Arc::new(changed));
        let put = bench.put(AUTO, View::Latest, b"k", b"v");
        assert_eq!(put == refused(RefusalCode::ServerLost), !serves, "{state:?}: {put:?}");
        let got = bench.get(View::Latest, b"k");
        assert_eq!(got == refused(RefusalCode::ServerLost), !serves, "{state:?}: {got:?}");
    }
}

#[test]
fn a_lease_that_begins_anew_waits_for_what_was_said_before_it() {
    let mut bench = Bench::new();
    let mut tenure = Tenure::default();
    bench.target.set_lease(tenure.set(Some(5_000)).unwrap());
    tenure.set(None);
    let mut down = map(2);
    down.targets[0].state = TargetState::Down;
    let (mail, next) = (Arc::new(down), tenure.set(Some(u64::MAX)).unwrap());
    // The control plane goes on; the target has not read its mail yet.
    bench.now.monotonic_ns = 4_000;
    assert_eq!(bench.get(View::Latest, b"k"), refused(RefusalCode::ServerLost), "the old one is over for good");
    bench.target.set_map(mail);
    bench.target.set_lease(next);
    assert_eq!(bench.get(View::Latest, b"k"), Some(Answer::StaleMap(MapVersion(2))));
}

#[test]
fn what_waited_is_judged_by_the_lease_when_it_goes_on() {
    let mut bench = Bench::new();
    bench.lease(5_000);
    bench.map = map(2);
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"v"), None, "it waits for the map");
    bench.target.set_map(Arc::new(map(2)));
    bench.now.monotonic_ns = 5_000;
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), refused(RefusalCode::ServerLost));
}

#[test]
fn an_unknown_container_is_looked_for_in_the_log_before_it_is_refused() {
    let mut bench = Bench::new();
    let mut head = bench.head(Some(AUTO), View::Latest);
    head.container = talea_model::ContainerId(2);
    let body = || Body::Update(vec![single(b"k", b"v", Condition::None)]);
    assert_eq!(bench.ask(head, body()), None);
    let end = bench.position;
    bench.answer_log_end(end);
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), refused(RefusalCode::NoContainer));
    let mut head = bench.head(Some(AUTO), View::Latest);
    head.container = talea_model::ContainerId(2);
    assert_eq!(bench.ask(head, body()), None);
    let end = talea_model::Position(bench.position.0 + 1);
    bench.answer_log_end(end);
    bench.target.follow(vec![crate::PoolChange::Container(head.container)], end).unwrap();
    assert_eq!(bench.finish().pop().map(|(_, answer)| answer), Some(Answer::Done));
}

#[test]
fn clocks_that_run_ahead_and_stamps_that_nobody_issued_are_refused() {
    let mut bench = Bench::new();
    let mut head = bench.head(Some(AUTO), View::Latest);
    head.hlc = Stamp::from_unix_us(bench.now.unix_us + 11_000_000);
    let body = || Body::Update(vec![single(b"k", b"v", Condition::None)]);
    assert_eq!(bench.ask(head, body()), refused(RefusalCode::Clock));
    let forged = snapshot(Stamp(u64::MAX - 1), bench.position);
    assert_eq!(bench.get(forged, b"k"), refused(RefusalCode::Clock));
    // It did not carry the target's own clock away.
    assert_eq!(bench.put(AUTO, View::Latest, b"k", b"v"), Some(Answer::Done));
    assert_eq!(bench.get(snapshot(Stamp::from_unix_us(bench.now.unix_us + 1), bench.position), b"k"), value(b"v"));
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let mut bench = Bench::new();
    let mut head = bench.head(None, View::Latest);
    head.target = TargetId(5);
    assert_eq!(bench.ask(head, Body::Stat { read_in_place: 0 }), refused(RefusalCode::Argument));
    let view = snapshot(bench.stamp(), bench.position);
    assert_eq!(bench.put(AUTO, view, b"k", b"v"), refused(RefusalCode::Argument));
    let head = bench.head(Some(AUTO), View::Latest);
    let two = vec![single(b"k", b"v", Condition::None), single(b"l", b"v", Condition::None)];
    assert_eq!(bench.ask(head, Body::Update(two)), refused(RefusalCode::Argument), "an autocommit covers one dkey");
    let head = bench.head(Some(AUTO), View::Latest);
    let mut bad = single(b"k", b"v", Condition::None);
    bad.checksum ^= 1;
    assert_eq!(bench.ask(head, Body::Update(vec![bad])), refused(RefusalCode::Checksum));
    assert_eq!(bench.get(View::Latest, b"k"), nothing());
}

/// A client tells what it read in place as it ends its session, and waits for nothing: the session's end may be known here first.
#[test]
fn what_was_read_in_place_counts_though_the_session_has_ended() {
    let mut bench = Bench::new();
    let told = |bench: &mut Bench, session: u64, read_in_place| {
        let head = talea_wire::data::request::Head { session: SessionId(session), ..bench.head(None, View::Latest) };
        bench.send_raw(1, &encode(head, Body::Stat { read_in_place }));
        bench.finish();
    };
    told(&mut bench, 1, 1000);
    told(&mut bench, 2, 50_000);
    bench.log(&[Change::EndSession(SessionId(1))]);
    told(&mut bench, 1, 200);
    bench.up(3);
    let head = talea_wire::data::request::Head { session: SessionId(3), ..bench.head(None, View::Latest) };
    match bench.ask(head, Body::Stat { read_in_place: 0 }) {
        Some(Answer::Stat(stat)) => assert_eq!(stat.bytes_in_place, 1200, "its own, and not what it says for others"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_connection_of_an_ended_session_is_closed_after_a_while() {
    let mut bench = Bench::new();
    bench.up(3);
    let closes = |bench: &mut Bench| {
        bench.finish();
        let drops = |effect: &Effect| matches!(effect, Effect::Drop { peer: PeerId(1) });
        bench.effects().iter().filter(|effect| drops(effect)).count()
    };
    let began_ns = bench.now.monotonic_ns;
    bench.log(&[Change::EndSession(SessionId(1))]);
    assert_eq!(closes(&mut bench), 0);
    assert_eq!(bench.get(View::Latest, b"k"), refused(RefusalCode::SessionExpired), "it is told so");
    while bench.target.next_deadline() == 0 {
        bench.finish();
    }
    assert_eq!(bench.target.next_deadline(), began_ns + 2_000_000_000, "and nothing wakes it before");
    bench.now.monotonic_ns += 1_999_999_999;
    assert_eq!(closes(&mut bench), 0);
    bench.now.monotonic_ns += 1;
    assert_eq!(closes(&mut bench), 1);
    assert!(bench.target.next_deadline() > bench.now.monotonic_ns, "nothing is left to do");
    assert_eq!(closes(&mut bench), 0, "once");
    // It comes again with the same session.
    bench.up(1);
    assert_eq!(closes(&mut bench), 0);
    bench.now.monotonic_ns += 2_000_000_000;
    assert_eq!(closes(&mut bench), 1);
}
