//! What an operation costs the client in allocations and copied messages, once the first ones are over: counted, not timed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use talea_client::{
    Client, Condition, EntryFetch, EntryUpdate, Object, PartsFetch, PartsUpdate, Queue, ShortWay, Tuning, ValueKind,
    Write,
};
use talea_fabric::endpoint::Waker;
use talea_fabric::{Address, Endpoint, Event, FabricError, Hello, Message, PeerId, RealClock, SendError};
use talea_model::{Extent, ObjectClass, Oid, TargetState, View};
use talea_wire::codec;
use talea_wire::control::{Body, Envelope};
use talea_wire::data::{self, Fetched, ReplyBody};

#[path = "support/world.rs"]
mod world;

struct Counting;

thread_local! {
    /// The pieces of the last data request, as the endpoint got them.
    static PIECES: std::cell::RefCell<Vec<(usize, usize)>> = const { std::cell::RefCell::new(vec![]) };
    static COUNTED: Cell<u64> = const { Cell::new(0) };
    static PAUSED: Cell<bool> = const { Cell::new(true) };
}

fn count() {
    if !PAUSED.get() {
        COUNTED.set(COUNTED.get() + 1);
    }
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs the test's own part without counting it.
fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    let before = PAUSED.replace(true);
    let result = work();
    PAUSED.set(before);
    result
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNTED.get();
    PAUSED.set(false);
    work();
    PAUSED.set(true);
    COUNTED.get() - before
}

/// A server in the endpoint: each request is answered at once.
struct Loop {
    events: VecDeque<Event>,
    sent: Arc<std::sync::atomic::AtomicU64>,
}

struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

impl Endpoint for Loop {
    fn connect(&mut self, _: &Address, _: &Hello, _: u64) -> Result<PeerId, FabricError> {
        Ok(PeerId(uncounted(|| self.sent.fetch_add(1 << 32, std::sync::atomic::Ordering::Relaxed)) >> 32))
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        uncounted(|| {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let answer = match codec::decode::<Envelope>(&bytes) {
                Ok(Envelope { id, body: Body::Request(request), .. }) => {
                    world::control_reply(id, &request, world::map(1, TargetState::Up), 9)
                }
                _ => {
                    self.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let pieces = parts.iter().map(|part| (part.as_ptr() as usize, part.len())).collect();
                    PIECES.set(pieces);
                    let request = data::Request::decode(&bytes).unwrap();
                    answer(&request)
                }
            };
            self.events.push_back(Event::Message { peer, message: Message::Owned(answer) });
        });
        Ok(())
    }

    fn recv(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn wait(&mut self, _: u64) {
        assert!(!self.events.is_empty(), "nothing will ever come");
    }

    fn disconnect(&mut self, _: PeerId) {}

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::new(NoWaker)
    }
}

fn answer(request: &data::Request<'_>) -> Vec<u8> {
    let data::Body::Fetch(entries) = &request.body else { return world::reply(request, ReplyBody::Done) };
    let held = [7u8; 4096];
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &held) as u32;
    let one = Fetched { found: true, filled: true, record_bytes: 1, checksum, data: &held };
    world::reply(request, ReplyBody::Fetched(entries.iter().map(|_| one).collect()))
}

fn client() -> (Client, Object, Arc<std::sync::atomic::AtomicU64>) {
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let endpoint = Loop { events: VecDeque::new(), sent: sent.clone() };
    let tuning = Tuning { short_way: ShortWay::Off, ..Tuning::default() };
    let client = Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), Address::Sim(0), 1, tuning);
    let object = client.container_open("c").unwrap().object(Oid::new(ObjectClass::S1, 1));
    (client, object, sent)
}

const BYTES: ValueKind = ValueKind::Array { record_bytes: 1 };
const EXTENTS: [Extent; 1] = [Extent { index: 0, count: 4096 }];

fn entry<'a>(akey: &'a [u8], data: &'a [u8]) -> EntryUpdate<'a> {
    EntryUpdate { dkey: b"d", akey, kind: BYTES, condition: Condition::None, extents: &EXTENTS, data }
}

#[test]
fn an_update_and_a_fetch_allocate_a_handful_of_times() {
    let (_client, object, _) = client();
    let data = [5u8; 4096];
    let mut out = vec![0u8; 4096];
    let update = || object.update(&Write::Auto, &[entry(b"a", &data)]).unwrap();
    let mut fetch = || {
        let mut entries = [EntryFetch::array(b"d", b"a", 1, &EXTENTS, &mut out)];
        object.fetch(&View::Latest, &mut entries).unwrap();
        assert!(entries[0].filled);
    };
    (0..100).for_each(|_| update());
    (0..100).for_each(|_| fetch());
    // The waiting thread's parker and the message's list of entries, and a fetch's answer's.
    let updates = allocations(|| (0..100).for_each(|_| update()));
    let fetches = allocations(|| (0..100).for_each(|_| fetch()));
    assert!(updates <= 200, "{updates} allocations for 100 updates");
    assert!(fetches <= 300, "{fetches} allocations for 100 fetches");
    assert_eq!(out, [7; 4096]);
}

#[test]
fn a_queue_of_operations_allocates_a_task_each() {
    let (client, object, _) = client();
    let data = [5u8; 4096];
    let entries = [entry(b"a", &data)];
    let round = || {
        let queue = Queue::new(&client);
        (0..64).for_each(|_| queue.start(object.update_async(&Write::Auto, &entries)));
        let mut ended = 0;
        while ended < 64 {
            let results = queue.take(1, 64, 10_000).unwrap();
            ended += results.len();
            results.into_iter().for_each(Result::unwrap);
        }
        assert!(queue.is_empty());
    };
    round();
    let counted = allocations(round);
    assert!(counted <= 64 * 4, "{counted} allocations for 64 operations");
}

#[test]
fn many_entries_of_one_call_are_one_message() {
    let (_client, object, sent) = client();
    let data = [5u8; 4096];
    let names: Vec<Vec<u8>> = (0..100u8).map(|number| vec![b'a', number]).collect();
    let entries: Vec<EntryUpdate<'_>> = names.iter().map(|name| entry(name, &data)).collect();
    let count = || sent.load(std::sync::atomic::Ordering::Relaxed) & 0xffff_ffff;
    let before = count();
    object.update(&Write::Auto, &entries).unwrap();
    assert_eq!(count() - before, 1);
    let mut out = vec![0u8; 100 * 4096];
    let places = out.chunks_exact_mut(4096);
    let mut fetches: Vec<EntryFetch<'_>> =
        names.iter().zip(places).map(|(name, place)| EntryFetch::array(b"d", name, 1, &EXTENTS, place)).collect();
    object.fetch(&View::Latest, &mut fetches).unwrap();
    assert_eq!(count() - before, 2);
}

#[test]
fn pieces_of_memory_are_sent_as_they_lie_and_filled_where_they_lie() {
    let (_client, object, _) = client();
    let data: Vec<u8> = (0..4096u32).map(|at| at as u8).collect();
    let parts: Vec<&[u8]> = data.chunks(64).collect();
    let (kind, condition) = (BYTES, Condition::None);
    let entry = [PartsUpdate { dkey: b"d", akey: b"a", kind, condition, extents: &EXTENTS, parts: &parts }];
    let update = || object.update_parts(&Write::Auto, &entry).unwrap();
    update();
    let pieces = PIECES.take();
    let wanted: Vec<(usize, usize)> = parts.iter().map(|part| (part.as_ptr() as usize, part.len())).collect();
    assert_eq!(pieces[1..], wanted, "after the head the caller's own memory, with no copy between");
    let mut out = vec![0u8; 4096];
    let mut fetch = || {
        let mut places: Vec<&mut [u8]> = out.chunks_mut(100).collect();
        let (extents, found, filled, bytes) = (&EXTENTS, false, false, 0);
        let mut entries =
            [PartsFetch { dkey: b"d", akey: b"a", kind, extents, parts: &mut places, found, filled, bytes }];
        object.fetch_parts(&View::Latest, &mut entries).unwrap();
        assert!(entries[0].filled);
    };
    (0..10).for_each(|_| update());
    (0..10).for_each(|_| fetch());
    // As of one piece, and the lists of pieces: of the message, of the caller's places and ours.
    let updates = allocations(|| (0..100).for_each(|_| update()));
    let fetches = allocations(|| (0..100).for_each(|_| fetch()));
    assert!(updates <= 300, "{updates} allocations for 100 updates of 64 pieces");
    assert!(fetches <= 600, "{fetches} allocations for 100 fetches into 41 pieces");
    assert_eq!(out, [7; 4096]);
}
