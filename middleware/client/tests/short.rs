//! The short way against a scripted server: what is believed, for how long, and what is asked again.

#[path = "support/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use talea_client::{ClientError, EntryFetch, ShortWay};
use talea_fabric::Memory;
use talea_fabric::sim::SimNetwork;
use talea_model::{Extent, LeaseId, Position, Stamp, TxId, View};
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Fetched, Located, ReplyBody, Request, Share, Span};
use world::{World, refuse, reply};

const BYTES: usize = 100;
const MS: u64 = 1_000_000;
const VIEW: View = View::Snapshot { stamp: Stamp(5), position: Position(1), lease: LeaseId(1) };

/// What the server would send: its answers differ from what lies in memory, so that they can be told apart.
const SENT: u8 = b's';
const PLACED: u8 = b'p';

fn crc(data: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32
}

#[derive(Default)]
struct Medium {
    bytes: Mutex<Vec<u8>>,
    copies: AtomicU64,
    /// What its board shows.
    word: AtomicU64,
    /// Virtual time that passes in a copy: the process is stopped there.
    stop: Mutex<Option<(SimNetwork, u64)>>,
}

impl Memory for Medium {
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        self.copies.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.lock().unwrap();
        out.copy_from_slice(&bytes[offset as usize..offset as usize + out.len()]);
        if let Some((network, ns)) = &*self.stop.lock().unwrap() {
            network.advance(network.now_ns() + ns);
        }
        true
    }

    fn word(&self) -> Option<u64> {
        Some(self.word.load(Ordering::Relaxed))
    }
}

fn medium() -> (Arc<Medium>, ShortWay) {
    let medium = Arc::new(Medium { bytes: Mutex::new(vec![PLACED; 4096]), ..Medium::default() });
    let same = medium.clone();
    (medium, ShortWay::Through(Arc::new(move |_| Some(same.clone()))))
}

fn located(generation: u64) -> Located {
    let span =
        Span { index: 0, count: 100, offset: 1000, bytes: 100, skip_bytes: 0, checksums: vec![crc(&[PLACED; 100])] };
    let share = Share { path: "m".into(), device: 1, inode: 2, bytes: 4096 };
    let (granule_bytes, record_bytes, end) = (32768, 1, u64::MAX);
    let (board, change, spans) = (None, 0, vec![span]);
    Located { share, lease_ms: 1000, generation, granule_bytes, record_bytes, end, board, change, spans }
}

fn sent(request: &Request<'_>) -> Vec<u8> {
    let data = &[SENT; BYTES][..];
    let one = Fetched { found: true, filled: true, record_bytes: 1, checksum: crc(data), data };
    reply(request, ReplyBody::Fetched(vec![one]))
}

fn script(answer: impl Fn(usize) -> Located + 'static) -> impl FnMut(usize, &Request<'_>) -> Vec<u8> + 'static {
    let mut asked = 0;
    move |_, request| match request.body {
        Body::Locate { .. } => {
            asked += 1;
            reply(request, ReplyBody::Located(Box::new(answer(asked))))
        }
        _ => sent(request),
    }
}

/// Reads the array; says where it came from, and how many requests that took.
fn read(world: &mut World, object: &talea_client::Object) -> (u8, usize) {
    let before = world.seen.len();
    let mut out = [0; BYTES];
    let extents = [Extent::new(0, BYTES as u64).unwrap()];
    world.run(object.fetch_async(&VIEW, &mut [EntryFetch::array(b"k", b"a", 1, &extents, &mut out)])).unwrap();
    assert!(out.iter().all(|byte| *byte == out[0]));
    (out[0], world.seen.len() - before)
}

#[test]
fn places_are_asked_for_once_a_lease() {
    let (medium, way) = medium();
    let mut world = World::with(way, script(|_| located(1)));
    let object = world.object();
    assert_eq!(read(&mut world, &object), (PLACED, 1));
    for _ in 0..10 {
        assert_eq!(read(&mut world, &object), (PLACED, 0));
    }
    assert_eq!(medium.copies.load(Ordering::Relaxed), 11, "one copy a read");
    world.network.advance(world.network.now_ns() + 1000 * MS);
    assert_eq!(read(&mut world, &object), (PLACED, 1));
}

#[test]
fn of_a_hole_among_other_records_the_target_says_what_is_wrong() {
    let (medium, way) = medium();
    let hole = |_| Located { record_bytes: 8, spans: vec![], ..located(1) };
    let mut world = World::with(way, script(hole));
    let object = world.object();
    assert_eq!(read(&mut world, &object), (SENT, 2), "one question, one fetch");
    assert_eq!(medium.copies.load(Ordering::Relaxed), 0);
}

/// Reads as [`read`], in a view that changes.
fn read_latest(world: &mut World, object: &talea_client::Object) -> (u8, usize) {
    let before = world.seen.len();
    let mut out = [0; BYTES];
    let extents = [Extent::new(0, BYTES as u64).unwrap()];
    let mut entries = [EntryFetch::array(b"k", b"a", 1, &extents, &mut out)];
    world.run(object.fetch_async(&View::Latest, &mut entries)).unwrap();
    assert!(entries[0].found && entries[0].filled && out.iter().all(|byte| *byte == out[0]));
    (out[0], world.seen.len() - before)
}

#[test]
fn long_reads_of_what_changes_ask_each_time() {
    let (medium, way) = medium();
    let whole = |_| Located { end: BYTES as u64, ..located(1) };
    let mut world = World::near(way, BYTES, script(whole));
    let object = world.object();
    for _ in 0..3 {
        assert_eq!(read_latest(&mut world, &object), (PLACED, 1));
    }
    assert_eq!(medium.copies.load(Ordering::Relaxed), 3);
    // A lease that ended meanwhile, and bytes that are not what was said.
    *medium.stop.lock().unwrap() = Some((world.network.clone(), 1000 * MS));
    assert_eq!(read_latest(&mut world, &object), (SENT, 2));
    *medium.stop.lock().unwrap() = None;
    medium.bytes.lock().unwrap()[1050] ^= 1;
    assert_eq!(read_latest(&mut world, &object), (SENT, 2), "one question, one fetch");
}

#[test]
fn short_reads_of_what_changes_and_places_of_a_part_are_fetched() {
    let (_medium, way) = medium();
    let part = |_| Located { end: BYTES as u64 - 1, spans: vec![], ..located(1) };
    let mut world = World::near(way.clone(), BYTES, script(part));
    let object = world.object();
    assert_eq!(read_latest(&mut world, &object), (SENT, 2));
    let mut world = World::near(way, BYTES + 1, script(|_| located(1)));
    let object = world.object();
    assert_eq!(read_latest(&mut world, &object), (SENT, 1));
}

/// Reads as [`read`], inside of a transaction.
fn read_inside(world: &mut World, object: &talea_client::Object, tx: u64) -> (u8, usize) {
    let before = world.seen.len();
    let mut out = [0; BYTES];
    let extents = [Extent::new(0, BYTES as u64).unwrap()];
    let view = View::Inside { tx: TxId(tx), base: Stamp(5), position: Position(1) };
    world.run(object.fetch_async(&view, &mut [EntryFetch::array(b"k", b"a", 1, &extents, &mut out)])).unwrap();
    assert!(out.iter().all(|byte| *byte == out[0]));
    (out[0], world.seen.len() - before)
}

fn with_board(change: u64) -> Located {
    let board = Some(Share { path: "b".into(), device: 1, inode: 3, bytes: 8 });
    Located { board, change, ..located(1) }
}

#[test]
fn inside_of_a_transaction_places_hold_until_the_board_says_otherwise() {
    let (medium, way) = medium();
    let shown = medium.clone();
    let mut world = World::with(way, script(move |_| with_board(shown.word.load(Ordering::Relaxed))));
    let object = world.object();
    for change in 1..4 {
        // Nobody asks where all of it lies while it is being written.
        assert_eq!(read_inside(&mut world, &object, 1), (SENT, 1));
        let (mut asked, mut reads) = (0, 0);
        while asked == 0 && reads < 5 {
            let (from, requests) = read_inside(&mut world, &object, 1);
            assert_eq!(requests, 1);
            asked += usize::from(from == PLACED);
            reads += 1;
        }
        assert_eq!(asked, 1, "after {reads} reads");
        for _ in 0..10 {
            assert_eq!(read_inside(&mut world, &object, 1), (PLACED, 0));
        }
        assert_eq!(read_inside(&mut world, &object, 2), (PLACED, 1), "another one sees something else");
        medium.word.store(change, Ordering::Relaxed);
    }
    // The lease ends all of it, too.
    (0..4).for_each(|_| _ = read_inside(&mut world, &object, 1));
    assert_eq!(read_inside(&mut world, &object, 1), (PLACED, 0));
    world.network.advance(world.network.now_ns() + 1000 * MS);
    assert_eq!(read_inside(&mut world, &object, 1), (PLACED, 1));
}

#[test]
fn whose_places_never_last_is_asked_for_them_less_and_less() {
    let (medium, way) = medium();
    let (shown, asked) = (medium.clone(), Arc::new(AtomicU64::new(0)));
    let count = asked.clone();
    let answer = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        with_board(shown.word.load(Ordering::Relaxed))
    };
    let mut world = World::with(way, script(answer));
    let object = world.object();
    for change in 1..200 {
        (0..5).for_each(|_| _ = read_inside(&mut world, &object, 1));
        medium.word.store(change, Ordering::Relaxed);
    }
    assert!(asked.load(Ordering::Relaxed) <= 2, "{asked:?} times");
    // It is asked again when it has been quiet for long enough.
    while read_inside(&mut world, &object, 1) != (PLACED, 0) {}
}

#[test]
fn inside_of_a_transaction_an_answer_that_was_overtaken_or_has_no_board_is_not_kept() {
    for board in [true, false] {
        let (medium, way) = medium();
        let answer = move |_| if board { with_board(0) } else { located(1) };
        let mut world = World::with(way, script(answer));
        medium.word.store(7, Ordering::Relaxed);
        let object = world.object();
        for _ in 0..10 {
            assert_eq!(read_inside(&mut world, &object, 1).0, SENT);
        }
    }
}

#[test]
fn a_process_that_was_stopped_in_a_copy_does_not_believe_it() {
    let (medium, way) = medium();
    let mut world = World::with(way, script(|_| located(1)));
    let object = world.object();
    assert_eq!(read(&mut world, &object), (PLACED, 1));
    *medium.stop.lock().unwrap() = Some((world.network.clone(), 1000 * MS));
    assert_eq!(read(&mut world, &object), (SENT, 1), "the lease ended meanwhile");
}

#[test]
fn bytes_that_are_not_what_was_said_are_fetched() {
    let (medium, way) = medium();
    let mut world = World::with(way, script(|_| located(1)));
    let object = world.object();
    medium.bytes.lock().unwrap()[1050] ^= 1;
    assert_eq!(read(&mut world, &object), (SENT, 2), "one question, one fetch");
}

#[test]
fn a_tier_that_cannot_be_mapped_is_asked_once() {
    let (_medium, way) = medium();
    let mut world = World::with(way, |_, request| match request.body {
        Body::Locate { .. } => refuse(request, RefusalCode::Unsupported),
        _ => sent(request),
    });
    let object = world.object();
    assert_eq!(read(&mut world, &object), (SENT, 2));
    assert_eq!(read(&mut world, &object), (SENT, 1));
}

#[test]
fn an_answer_that_makes_no_sense_is_not_followed() {
    let change: [fn(&mut Located); 6] = [
        |all| all.spans[0].offset = 4000,
        |all| all.spans[0].skip_bytes = 1,
        |all| all.spans[0].count = u64::MAX,
        |all| all.spans[0].checksums.clear(),
        |all| all.end = 0,
        |all| all.granule_bytes = 0,
    ];
    for change in change {
        let (_medium, way) = medium();
        let mut world = World::with(
            way,
            script(move |_| {
                let mut wrong = located(1);
                change(&mut wrong);
                wrong
            }),
        );
        let object = world.object();
        assert_eq!(read(&mut world, &object).0, SENT);
    }
}

#[test]
fn places_given_back_meanwhile_are_asked_for_anew() {
    let (_medium, way) = medium();
    // The second answer, about another array, tells of blocks given back.
    let mut world = World::with(way, script(|asked| located(asked as u64)));
    let object = world.object();
    assert_eq!(read(&mut world, &object), (PLACED, 1));
    let other = world.object();
    assert_eq!(read(&mut world, &other), (PLACED, 1));
    assert_eq!(read(&mut world, &object), (PLACED, 1), "its places may have been given back");
    assert_eq!(read(&mut world, &object), (PLACED, 0));
}

#[test]
fn a_call_of_many_arrays_has_one_deadline() {
    let (_medium, way) = medium();
    let mut world = World::with(way, |_, _| vec![]);
    let object = world.object();
    let began_ns = world.network.now_ns();
    let extents = [Extent::new(0, BYTES as u64).unwrap()];
    let keys: Vec<Vec<u8>> = (0..5).map(|number| vec![number]).collect();
    let mut outs = vec![[0; BYTES]; keys.len()];
    let parts = keys.iter().zip(&mut outs);
    let mut entries: Vec<_> = parts.map(|(key, out)| EntryFetch::array(key, b"a", 1, &extents, out)).collect();
    let error = world.run(object.fetch_async(&VIEW, &mut entries)).unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    assert_eq!(world.network.now_ns() - began_ns, 2_000 * MS);
}
