//! What one client can make a target hold: answers that it does not take, requests that wait, connections.

use talea_fabric::PeerId;
use talea_model::{Extent, Position, SessionId, View};
use talea_tier::{SimMedium, Torn};
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition, Entry};

use super::bench::*;
use crate::Effect;
use crate::outbox::MAX_QUEUED_BYTES;
use crate::target::PoolChange;
use crate::target::write::MAX_UNACKNOWLEDGED;

const MIB: usize = 1 << 20;

/// Asks for a mebibyte as a peer.
fn ask_mebibyte(bench: &mut Bench, peer: u64) -> u64 {
    let mut head = bench.head(None, View::Latest);
    head.session = SessionId(peer);
    let extent = Extent::new(0, MIB as u64).unwrap();
    bench.send(head, Body::Fetch(vec![Entry { checksum: 0, ..array(b"d", extent, &[]) }]))
}

fn with_mebibyte() -> Bench {
    let mut bench = Bench::new();
    bench.up(2);
    let (data, head) = (vec![5; MIB], bench.head(Some(AUTO), View::Latest));
    let extent = Extent::new(0, MIB as u64).unwrap();
    assert_eq!(bench.ask(head, Body::Update(vec![array(b"d", extent, &data)])), Some(Answer::Done));
    bench
}

#[test]
fn answers_that_a_client_does_not_take_are_few_and_it_gets_all_when_it_does() {
    let mut bench = with_mebibyte();
    let asked: Vec<u64> = (0..60).map(|_| ask_mebibyte(&mut bench, 1)).collect();
    let held = |bench: &Bench| bench.out.waiting_for(PeerId(1));
    let most = MAX_QUEUED_BYTES / MIB + 1;
    assert!(held(&bench) <= most && bench.target.parked() >= 60 - most, "{} made", held(&bench));
    // Another client is served meanwhile, and nothing runs while nothing is taken.
    let other = ask_mebibyte(&mut bench, 2);
    bench.target.finish(bench.now, &mut bench.out).unwrap();
    bench.target.sent(&bench.out);
    assert!(held(&bench) <= most && bench.target.next_deadline() > 0);
    let mut answered = Vec::new();
    for turn in 0.. {
        assert!(turn < 60, "{} of 61 answers", answered.len());
        let taken = bench.finish();
        assert!(taken.iter().all(|(_, answer)| matches!(answer, Answer::Fetched(_))));
        answered.extend(taken.into_iter().map(|(id, _)| id));
        bench.target.sent(&bench.out);
        if bench.target.next_deadline() > 0 {
            break;
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [&asked[..], &[other]].concat());
    assert_eq!(bench.target.parked(), 0);
}

#[test]
fn one_client_has_its_share_of_what_waits_and_no_more() {
    let mut bench = with_mebibyte();
    let later = Position(bench.position.0 + 5);
    let data = vec![7; MIB];
    let extent = Extent::new(0, MIB as u64).unwrap();
    let write = |bench: &mut Bench, peer: u64| {
        let mut head =
            bench.head(Some(talea_model::Order::Pending(talea_model::TxId(9))), inside(9, bench.stamp(), later));
        head.session = SessionId(peer);
        let entry = Entry { condition: Condition::Insert, ..array(b"new", extent, &data) };
        bench.send(head, Body::Update(vec![entry]))
    };
    (0..40).for_each(|_| _ = write(&mut bench, 1));
    let parked = bench.target.parked();
    assert!((7..=8).contains(&parked), "{parked} of one client wait");
    let refused = bench.finish();
    assert!(
        refused.len() == 40 - parked && refused.iter().all(|(_, answer)| *answer == Answer::Refused(RefusalCode::Busy))
    );
    write(&mut bench, 2);
    assert_eq!(bench.target.parked(), parked + 1, "another client's waits as if nobody else were there");
}

#[test]
fn of_many_connections_of_one_session_the_oldest_go() {
    let mut bench = Bench::new();
    (10..14).for_each(|peer| bench.up_in(3, peer));
    bench.up_in(4, 20);
    assert_eq!(bench.effects(), vec![]);
    // Nobody tells of the end of a connection that the target itself ends: it counts no more.
    for (next, oldest) in [(14, 10), (15, 11)] {
        bench.up_in(3, next);
        assert_eq!(bench.effects(), vec![Effect::Drop { peer: PeerId(oldest) }]);
    }
    let head = bench.head(None, View::Latest);
    let Some(Answer::Stat(stat)) = bench.ask(head, Body::Stat { read_in_place: 0 }) else { panic!("no figures") };
    assert_eq!(stat.peers, 1 + 4 + 1);
}

/// What the pool says of sessions.
fn tell(bench: &mut Bench, change: PoolChange) -> Position {
    bench.position = Position(bench.position.0 + 1);
    bench.target.follow(vec![change], bench.position).unwrap();
    bench.finish();
    bench.effects();
    bench.position
}

fn dropped(bench: &mut Bench) -> Vec<u64> {
    let drop = |effect| if let Effect::Drop { peer } = effect { Some(peer.0) } else { None };
    bench.effects().into_iter().filter_map(drop).collect()
}

#[test]
fn of_too_many_connections_without_a_session_the_oldest_go() {
    let mut bench = Bench::new();
    (1000..1256).for_each(|peer| bench.up_in(0, peer));
    bench.up(2);
    assert_eq!(dropped(&mut bench), vec![]);
    bench.up_in(0, 1256);
    assert_eq!(dropped(&mut bench), vec![1000]);
    // A number that the pool has not given out is no session.
    tell(&mut bench, PoolChange::Sessions(SessionId(2), vec![SessionId(1), SessionId(2)]));
    bench.up_in(77, 2000);
    assert_eq!(dropped(&mut bench), vec![1001]);
    bench.up_in(1, 3000);
    assert_eq!(dropped(&mut bench), vec![]);
    // Once it has, it is one.
    tell(&mut bench, PoolChange::OpenSession(SessionId(77)));
    bench.up_in(0, 2001);
    assert_eq!(dropped(&mut bench), vec![]);
    bench.up_in(0, 2002);
    assert_eq!(dropped(&mut bench), vec![1002]);
}

/// An update of a session.
fn update(bench: &mut Bench, session: u64) -> Option<Answer> {
    let mut head = bench.head(Some(AUTO), View::Latest);
    head.session = SessionId(session);
    bench.ask(head, Body::Update(vec![single(b"k", b"v", Condition::None)]))
}

#[test]
fn nothing_is_remembered_for_a_session_that_the_pool_has_not_given_out() {
    let mut bench = Bench::new();
    tell(&mut bench, PoolChange::Sessions(SessionId(1), vec![SessionId(1)]));
    (9..=11).for_each(|session| bench.up(session));
    assert_eq!(update(&mut bench, 9), None, "the log's end may tell of it");
    let end = bench.position;
    bench.answer_log_end(end);
    let answers = bench.finish();
    assert!(matches!(answers[..], [(_, Answer::Refused(RefusalCode::SessionExpired))]), "{answers:?}");
    assert_eq!(bench.target.store().sessions().count(), 0);
    // Of an honest one it does.
    assert_eq!(update(&mut bench, 10), None);
    let asked = bench.effects();
    let end = tell(&mut bench, PoolChange::OpenSession(SessionId(10)));
    assert!(matches!(asked[..], [Effect::LogEnd { .. }]));
    let Effect::LogEnd { token } = asked[0] else { panic!() };
    bench.target.log_end(token, end);
    assert!(matches!(bench.finish()[..], [(_, Answer::Done)]));
    assert_eq!(update(&mut bench, 10), Some(Answer::Done));
    assert_eq!(update(&mut bench, 1), Some(Answer::Done));
    // The log is past that number now: it was given out, and is over.
    bench.up(9);
    assert_eq!(update(&mut bench, 9), refused(RefusalCode::SessionExpired));
    bench.log(&[talea_vos::Change::EndSession(SessionId(10))]);
    assert_eq!(update(&mut bench, 10), refused(RefusalCode::SessionExpired));
}

#[test]
fn updates_whose_answers_nobody_has_seen_are_remembered_up_to_a_bound() {
    let mut bench = Bench::on(SimMedium::new(128 << 20, Torn::Lines), START_US);
    let send = |bench: &mut Bench, sequence: u64, below: u64| {
        let mut head = bench.head(Some(AUTO), View::Latest);
        (head.sequence, head.acknowledged_below) = (sequence, below);
        bench.send(head, Body::Update(vec![single(b"k", b"v", Condition::None)]))
    };
    let most = MAX_UNACKNOWLEDGED as u64;
    for sequence in 1..=most {
        send(&mut bench, sequence, 1);
        if sequence % 64 == 0 {
            let answers = bench.finish();
            assert!(answers.len() == 64 && answers.iter().all(|(_, answer)| *answer == Answer::Done));
        }
    }
    let mut one = |sequence, below| {
        let id = send(&mut bench, sequence, below);
        let answer = bench.finish().into_iter().find(|(answered, _)| *answered == id);
        answer.map(|(_, answer)| answer)
    };
    assert_eq!(one(most + 1, 1), refused(RefusalCode::Busy));
    assert_eq!(one(most + 1, 1), refused(RefusalCode::Busy));
    assert_eq!(one(7, 1), Some(Answer::Done), "what was done before is known as ever");
    assert_eq!(one(most + 1, 2), Some(Answer::Done), "one answer seen is room for one more");
    assert_eq!(one(most + 2, 2), refused(RefusalCode::Busy));
    assert_eq!(one(most + 2, most), Some(Answer::Done));
    assert_eq!(one(most + 3, most), Some(Answer::Done));
}
