//! Deadlines of operations in queues, against a target in the endpoint and on a clock that the test moves.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use talea_client::{
    Client, ClientError, Condition, EntryFetch, EntryUpdate, ErrorKind, Object, Queue, ShortWay, Tuning, ValueKind,
    Write,
};
use talea_fabric::endpoint::Waker;
use talea_fabric::{Address, Clock, Endpoint, Event, FabricError, Hello, Message, PeerId, SendError};
use talea_model::{ObjectClass, Oid, TargetState, View};
use talea_wire::codec;
use talea_wire::control::{Body, Envelope};
use talea_wire::data::{self, Fetched, ReplyBody};

#[path = "support/world.rs"]
mod world;

const MS: u64 = 1_000_000;
const DEADLINE_MS: u64 = 3_000;
const IN_FLIGHT: usize = 64;

/// What the test and the endpoint share.
#[derive(Default)]
struct Table {
    now_ns: AtomicU64,
    /// Whether the target answers at once; else answers are held back.
    answers: AtomicBool,
    held: Mutex<Vec<Event>>,
    ready: Mutex<VecDeque<Event>>,
    requests: AtomicUsize,
    /// The least deadline that a request named.
    least_ms: AtomicU64,
}

impl Table {
    /// The program computes.
    fn compute(&self, ms: u64) {
        self.now_ns.fetch_add(ms * MS, SeqCst);
    }

    /// The target answers all that it held back.
    fn release(&self) {
        self.answers.store(true, SeqCst);
        self.ready.lock().unwrap().extend(self.held.lock().unwrap().drain(..));
    }

    fn now_ms(&self) -> u64 {
        self.now_ns.load(SeqCst) / MS
    }
}

struct Hand(Arc<Table>);

impl Clock for Hand {
    fn monotonic_ns(&self) -> u64 {
        self.0.now_ns.load(SeqCst)
    }
    fn unix_us(&self) -> u64 {
        1_000_000_000_000_000 + self.0.now_ns.load(SeqCst) / 1000
    }
}

struct Near(Arc<Table>);

struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

impl Endpoint for Near {
    fn connect(&mut self, _: &Address, _: &Hello, _: u64) -> Result<PeerId, FabricError> {
        Ok(PeerId(self.0.requests.load(SeqCst) as u64 + 1))
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let (answer, at_once) = match codec::decode::<Envelope>(&bytes) {
            Ok(Envelope { id, body: Body::Request(request), .. }) => {
                (world::control_reply(id, &request, world::map(1, TargetState::Up), 9), true)
            }
            _ => {
                self.0.requests.fetch_add(1, SeqCst);
                let request = data::Request::decode(&bytes).unwrap();
                self.0.least_ms.fetch_min(request.head.deadline_ms.into(), SeqCst);
                (answer(&request), self.0.answers.load(SeqCst))
            }
        };
        let event = Event::Message { peer, message: Message::Owned(answer) };
        match at_once {
            true => self.0.ready.lock().unwrap().push_back(event),
            false => self.0.held.lock().unwrap().push(event),
        }
        Ok(())
    }

    fn recv(&mut self) -> Option<Event> {
        self.0.ready.lock().unwrap().pop_front()
    }

    /// Nothing comes by itself: the time passes.
    fn wait(&mut self, deadline_ns: u64) {
        if self.0.ready.lock().unwrap().is_empty() {
            assert_ne!(deadline_ns, u64::MAX, "nothing will ever come");
            self.0.now_ns.fetch_max(deadline_ns, SeqCst);
        }
    }

    fn disconnect(&mut self, _: PeerId) {}

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::new(NoWaker)
    }
}

fn answer(request: &data::Request<'_>) -> Vec<u8> {
    let data::Body::Fetch(entries) = &request.body else { return world::reply(request, ReplyBody::Done) };
    let held = [7u8; 64];
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &held) as u32;
    let one = Fetched { found: true, filled: true, record_bytes: 0, checksum, data: &held };
    world::reply(request, ReplyBody::Fetched(entries.iter().map(|_| one).collect()))
}

fn client(answers: bool) -> (Client, Object, Arc<Table>) {
    let table =
        Arc::new(Table { answers: AtomicBool::new(answers), least_ms: AtomicU64::new(u64::MAX), ..Table::default() });
    table.compute(1_000);
    let tuning =
        Tuning { short_way: ShortWay::Off, deadline_ms: DEADLINE_MS, in_flight: IN_FLIGHT, ..Tuning::default() };
    let (endpoint, clock) = (Box::new(Near(table.clone())), Arc::new(Hand(table.clone())));
    let client = Client::with_endpoint(endpoint, clock, Address::Sim(0), 1, tuning);
    let object = client.container_open("c").unwrap().object(Oid::new(ObjectClass::S1, 1));
    // Connected.
    table.answers.store(true, SeqCst);
    object.update(&Write::Auto, &ENTRY).unwrap();
    table.answers.store(answers, SeqCst);
    table.requests.store(0, SeqCst);
    (client, object, table)
}

const ENTRY: [EntryUpdate<'static>; 1] = [EntryUpdate {
    dkey: b"d",
    akey: b"a",
    kind: ValueKind::Single,
    condition: Condition::None,
    extents: &[],
    data: b"value",
}];

fn take_all<T>(queue: &Queue<'_, T>) -> Vec<T> {
    let mut all = vec![];
    while !queue.is_empty() {
        all.extend(queue.take(1, 1000, 60_000).unwrap());
    }
    all
}

#[test]
fn computing_between_start_and_poll_takes_nothing_from_a_deadline() {
    let (client, object, table) = client(true);
    let queue = Queue::new(&client);
    (0..100).for_each(|_| queue.start(object.update_async(&Write::Auto, &ENTRY)));
    assert_eq!(table.requests.load(SeqCst), IN_FLIGHT, "no more may be in flight");
    table.compute(DEADLINE_MS + 1_000);
    take_all(&queue).into_iter().for_each(Result::unwrap);
    // To the last moment of the time in which it was driven, and far beyond of all time.
    table.answers.store(false, SeqCst);
    (0..100).for_each(|_| queue.start(object.update_async(&Write::Auto, &ENTRY)));
    for _ in 0..10 {
        assert_eq!(queue.take(1, 100, DEADLINE_MS / 10 - 1).unwrap().len(), 0);
        table.compute(DEADLINE_MS);
    }
    table.release();
    take_all(&queue).into_iter().for_each(Result::unwrap);
}

#[test]
fn what_is_not_answered_ends_by_its_deadline_and_says_whether_it_was_sent() {
    let (client, object, table) = client(false);
    let queue = Queue::new(&client);
    let began_ms = table.now_ms();
    (0..100).for_each(|_| queue.start(object.update_async(&Write::Auto, &ENTRY)));
    table.compute(4_000);
    assert_eq!(queue.take(1, 100, 1_000).unwrap().len(), 0, "a poll ends by its own deadline");
    let errors: Vec<ClientError> = take_all(&queue).into_iter().map(Result::unwrap_err).collect();
    assert_eq!(table.now_ms() - began_ms, 4_000 + DEADLINE_MS);
    let unsent = errors.iter().filter(|error| matches!(error, ClientError::NotSent { ahead: IN_FLIGHT, .. }));
    assert_eq!((unsent.count(), table.requests.load(SeqCst)), (100 - IN_FLIGHT, IN_FLIGHT));
    for error in errors {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Deadline, "{text}");
        assert_eq!(matches!(error, ClientError::NotSent { .. }), text.contains("was not sent"), "{text}");
        assert!(text.contains("3000 ms"), "{text}");
    }
}

#[test]
fn a_call_gets_through_although_nobody_takes_the_ends_of_others() {
    let (client, object, _) = client(true);
    let queue = Queue::carried(&client);
    for _ in 0..4 * IN_FLIGHT {
        let object = object.clone();
        queue.start(async move { object.update_async(&Write::Auto, &ENTRY).await });
    }
    // It is the last in the line for a place in flight.
    object.update(&Write::Auto, &ENTRY).unwrap();
    assert_eq!(queue.len(), 4 * IN_FLIGHT);
    take_all(&queue).into_iter().for_each(Result::unwrap);
}

#[test]
fn an_answer_after_the_deadline_changes_nothing_in_the_callers_memory() {
    let (client, object, table) = client(false);
    let mut out = [0xee; 64];
    let fetched = object.fetch(&View::Latest, &mut [EntryFetch::single(b"d", b"a", &mut out)]);
    assert!(matches!(fetched, Err(ClientError::Deadline { .. })), "{fetched:?}");
    table.release();
    object.update(&Write::Auto, &ENTRY).unwrap();
    assert_eq!(out, [0xee; 64]);
    // The same for one that was given up.
    table.answers.store(false, SeqCst);
    {
        let mut entries = [EntryFetch::single(b"d", b"a", &mut out)];
        let queue = Queue::new(&client);
        queue.start(object.fetch_async(&View::Latest, &mut entries));
        assert!(queue.take(0, 1, 0).unwrap().is_empty());
        queue.give_up();
    }
    table.release();
    object.update(&Write::Auto, &ENTRY).unwrap();
    assert!(table.held.lock().unwrap().is_empty() && table.ready.lock().unwrap().is_empty(), "they have arrived");
    assert_eq!(out, [0xee; 64]);
    object.fetch(&View::Latest, &mut [EntryFetch::single(b"d", b"a", &mut out)]).unwrap();
    assert_eq!(out, [7; 64]);
}

#[test]
fn what_is_late_is_not_sent() {
    let (_client, object, table) = client(true);
    let late = object.container().with_deadline_ms(0).object(object.oid());
    let error = late.update(&Write::Auto, &ENTRY).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline, "{error}");
    assert_eq!(table.requests.load(SeqCst), 0, "a target takes a deadline of 0 for one of 30 s");
    object.update(&Write::Auto, &ENTRY).unwrap();
    assert!(table.least_ms.load(SeqCst) > 0);
}

#[test]
fn who_only_looks_has_deadlines_too_and_is_given_what_has_come_first() {
    let (client, object, table) = client(false);
    let queue = Queue::new(&client);
    let look = |queue: &Queue<'_, talea_client::Result<()>>| queue.take(0, 100, 0).unwrap();
    queue.start(object.update_async(&Write::Auto, &ENTRY));
    // Whoever computes for long between two looks is charged a little of it: the answer is in time.
    for _ in 0..10 {
        table.compute(20 * DEADLINE_MS);
        assert!(look(&queue).is_empty());
    }
    table.release();
    table.compute(20 * DEADLINE_MS);
    look(&queue).into_iter().for_each(Result::unwrap);
    assert!(queue.is_empty());
    // Who looks often, all of it.
    table.answers.store(false, SeqCst);
    queue.start(object.update_async(&Write::Auto, &ENTRY));
    for _ in 0..DEADLINE_MS / 10 - 1 {
        table.compute(10);
        assert!(look(&queue).is_empty());
    }
    table.compute(20);
    let ended = look(&queue);
    assert!(matches!(ended[..], [Err(ClientError::Deadline { .. })]), "{ended:?}");
}
