//! Operations in flight against two real servers: what commits make of them, and threads that share a queue.

#[path = "support/servers.rs"]
mod support;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};

use support::Servers;
use talea_client::{
    Client, ClientError, Condition, Container, ContainerProperties, EntryUpdate, Epoch, ErrorKind, Object, Punch,
    Queue, Result, ValueKind, Write,
};
use talea_model::{ObjectClass, Oid, View};

const UPDATES: usize = 200;
const HOUR_MS: u64 = 3_600_000;

fn run(client: &Client) -> (Container, Object) {
    let container = client.container_create("run", ContainerProperties::default(), true).unwrap();
    let object = container.object(Oid::new(ObjectClass::SX, 5));
    (container, object)
}

fn entry(dkey: &[u8]) -> [EntryUpdate<'_>; 1] {
    let (kind, condition) = (ValueKind::Single, Condition::None);
    [EntryUpdate { dkey, akey: b"a", kind, condition, extents: &[], data: b"value" }]
}

fn keys() -> Vec<Vec<u8>> {
    (0..UPDATES).map(|number| format!("k{number}").into_bytes()).collect()
}

/// Dkeys that everybody sees.
fn committed(object: &Object) -> usize {
    object.dkeys(&View::Latest, b"", 1000).unwrap().names.len()
}

fn commit(epoch: &Epoch) -> Result<()> {
    epoch.commit(&epoch.try_summary()?, b"", false).committed.map(drop)
}

/// Neither a summary nor a commit, as so many updates are in flight.
fn refused(epoch: &Epoch, count: usize) {
    let whole = talea_model::Summary::default();
    for error in [epoch.try_summary().unwrap_err(), epoch.commit(&whole, b"", false).committed.unwrap_err()] {
        assert!(matches!(&error, ClientError::InFlight { count: told, .. } if *told == count), "{error}");
        assert!(error.kind() == ErrorKind::InFlight && error.to_string().contains("talea_queue_poll"), "{error}");
    }
    assert_eq!((epoch.in_flight(), epoch.summary().failed), (count, true), "what others could commit with says so");
}

#[test]
fn a_commit_is_refused_while_updates_are_in_flight_and_loses_nothing() {
    let servers = Servers::start();
    let client = servers.client();
    let (container, object) = run(&client);
    let epoch = container.begin(true).unwrap();
    let (write, keys) = (Write::Inside(&epoch), keys());
    let entries: Vec<_> = keys.iter().map(|key| entry(key)).collect();
    object.update(&write, &entry(b"before")).unwrap();
    let queue = Queue::new(&client);
    entries.iter().for_each(|entry| queue.start(object.update_async(&write, entry)));
    // Nobody has received an answer since.
    refused(&epoch, UPDATES);
    let mut ended = 0;
    while !queue.is_empty() {
        let results = queue.take(1, UPDATES, 10_000).unwrap();
        ended += results.len();
        results.into_iter().for_each(Result::unwrap);
    }
    assert_eq!((ended, epoch.in_flight(), committed(&object)), (UPDATES, 0, 0));
    commit(&epoch).unwrap();
    assert_eq!(committed(&object), UPDATES + 1);
    assert_eq!(commit(&epoch).unwrap_err().kind(), ErrorKind::Aborted, "once");
    let late = object.update(&write, &entry(b"late")).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Aborted, "{late}");
}

#[test]
fn what_nobody_has_polled_is_in_flight_and_what_is_given_up_fails_the_epoch() {
    let servers = Servers::start();
    let client = servers.client();
    let (container, object) = run(&client);
    let epoch = container.begin(true).unwrap();
    let write = Write::Inside(&epoch);
    let (first, second) = (entry(b"first"), entry(b"second"));
    object.update(&write, &first).unwrap();
    let unpolled = object.update_async(&write, &second);
    refused(&epoch, 1);
    let punch = Punch { dkey: b"first", ..Punch::default() };
    let unpolled_too = object.punch_async(&write, &punch);
    refused(&epoch, 2);
    drop((unpolled, unpolled_too));
    assert!(!epoch.has_failed(), "nothing was ever sent");
    commit(&epoch).unwrap();
    assert_eq!(committed(&object), 1);

    let epoch = container.begin(true).unwrap();
    let (write, queue) = (Write::Inside(&epoch), Queue::new(&client));
    queue.start(object.update_async(&write, &second));
    refused(&epoch, 1);
    queue.give_up();
    assert_eq!((queue.len(), epoch.in_flight()), (0, 0));
    assert_eq!(commit(&epoch).unwrap_err().kind(), ErrorKind::Aborted, "nobody knows what became of it");
    assert_eq!(committed(&object), 1);
}

#[test]
fn a_summary_from_before_the_last_update_commits_nothing() {
    let servers = Servers::start();
    let client = servers.client();
    let (container, object) = run(&client);
    let epoch = container.begin(true).unwrap();
    let write = Write::Inside(&epoch);
    object.update(&write, &entry(b"one")).unwrap();
    let old = epoch.try_summary().unwrap();
    object.update(&write, &entry(b"two")).unwrap();
    let error = epoch.commit(&old, b"", false).committed.map(drop).unwrap_err();
    assert!(error.kind() == ErrorKind::Argument && error.to_string().contains("anew"), "{error}");
    commit(&epoch).unwrap();
    assert_eq!(committed(&object), 2);
}

#[test]
fn an_independent_transaction_is_not_committed_under_its_updates_either() {
    let servers = Servers::start();
    let client = servers.client();
    let (container, object) = run(&client);
    let transaction = container.tx_open().unwrap();
    let (write, entry) = (transaction.write(), entry(b"t"));
    let queue = Queue::new(&client);
    queue.start(object.update_async(&write, &entry));
    let error = transaction.commit_independent().map(drop).unwrap_err();
    assert!(matches!(error, ClientError::InFlight { count: 1, .. }), "{error}");
    assert_eq!(queue.take(1, 1, 10_000).unwrap().len(), 1);
    transaction.commit_independent().unwrap();
    assert_eq!(committed(&object), 1);
}

/// An operation that ends when it is told to.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<(Option<u32>, Option<Waker>)>>);

impl Told {
    async fn end(self) -> u32 {
        poll_fn(|context| {
            let mut inside = self.0.lock().unwrap();
            inside.1 = Some(context.waker().clone());
            inside.0.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn tell(&self, number: u32) {
        let mut inside = self.0.lock().unwrap();
        inside.0 = Some(number);
        inside.1.take().into_iter().for_each(Waker::wake);
    }
}

#[test]
fn threads_start_count_and_give_up_while_another_one_waits() {
    let servers = Servers::start();
    let client = servers.client();
    let queue: Queue<'_, u32> = Queue::new(&client);
    let (told, unending) = (Told::default(), Told::default());
    let (waits, has_begun) = mpsc::channel();
    queue.start(told.clone().end());
    std::thread::scope(|scope| {
        // If a wait held the queue, each of the lines below would last an hour.
        let waiting = || {
            let (waits, is_told) = (waits.clone(), AtomicBool::new(false));
            let asked = move || !is_told.swap(true, Relaxed) && waits.send(()).is_err();
            let queue = &queue;
            scope.spawn(move || queue.take_unless(1, 10, HOUR_MS, asked).unwrap())
        };
        let one = waiting();
        has_begun.recv().unwrap();
        assert_eq!(queue.len(), 1);
        queue.start(async { 7 });
        assert_eq!(one.join().unwrap(), [7], "started and ended under the wait");
        let (one, two) = (waiting(), waiting());
        has_begun.recv().unwrap();
        has_begun.recv().unwrap();
        told.tell(8);
        let mut both = [one.join().unwrap(), two.join().unwrap()];
        both.sort();
        assert_eq!(both, [vec![], vec![8]], "told once, and the other one has nothing to wait for");
        queue.start(unending.clone().end());
        let one = waiting();
        has_begun.recv().unwrap();
        queue.give_up();
        assert_eq!((one.join().unwrap(), queue.len()), (vec![], 0));
    });
}
