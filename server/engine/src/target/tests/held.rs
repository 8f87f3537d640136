//! What one client can make a target hold: answers that it does not take, requests that wait, connections.

use talea_fabric::PeerId;
use talea_model::{Extent, Position, SessionId, View};
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition, Entry};

use super::bench::*;
use crate::Effect;
use crate::outbox::MAX_QUEUED_BYTES;

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
