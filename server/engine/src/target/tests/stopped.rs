//! A process that is stopped in the middle of a turn, and goes on when its lease is over.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use talea_fabric::endpoint::Waker;
use talea_fabric::sim::SimNetwork;
use talea_fabric::{Address, Clock, Endpoint, Event, FabricError, Hello, PeerId, SendError};
use talea_model::View;
use talea_wire::RefusalCode;
use talea_wire::data::{Body, Condition};

use super::bench::*;
use crate::{Driver, Lease, Mail};

/// Stopped for so long after it has taken its first message.
struct Stopping<E> {
    inner: E,
    clock: Arc<Stepping>,
    stopped_ns: u64,
}

/// A clock that others move.
#[derive(Default)]
struct Stepping(AtomicU64);

impl Clock for Stepping {
    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn unix_us(&self) -> u64 {
        START_US
    }
}

impl<E: Endpoint> Endpoint for Stopping<E> {
    fn connect(&mut self, address: &Address, hello: &Hello, deadline_ns: u64) -> Result<PeerId, FabricError> {
        self.inner.connect(address, hello, deadline_ns)
    }

    fn send(&mut self, peer: PeerId, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        self.inner.send(peer, parts)
    }

    fn recv(&mut self) -> Option<Event> {
        let event = self.inner.recv()?;
        if let Event::Message { .. } = event {
            self.clock.0.fetch_add(std::mem::take(&mut self.stopped_ns), Ordering::SeqCst);
        }
        Some(event)
    }

    fn wait(&mut self, deadline_ns: u64) {
        self.inner.wait(deadline_ns);
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.inner.disconnect(peer);
    }

    fn waker(&self) -> Arc<dyn Waker> {
        self.inner.waker()
    }
}

const LEASE_NS: u64 = 2_000_000_000;

/// The answer to a read that arrives while the process is stopped for so long, in the middle of a turn.
fn answer_after(stopped_ns: u64) -> Option<Answer> {
    let mut bench = Bench::new();
    let head = bench.head(None, View::Latest);
    let bytes = encode(head, Body::Fetch(vec![single(b"k", &[], Condition::None)]));
    let network = SimNetwork::new(|| 0);
    let (server, mut client) = (network.endpoint(1), network.endpoint(2));
    let clock = Arc::new(Stepping::default());
    let server = Stopping { inner: server, clock: clock.clone(), stopped_ns };
    let mut driver = Driver::new(bench.target, Box::new(server), clock);
    driver.mail(Mail::Lease(Lease::until(LEASE_NS))).unwrap();
    let hello = Hello { session: 1, pid: 1, server: None };
    let peer = client.connect(&Address::Sim(1), &hello, u64::MAX).unwrap();
    client.send(peer, &[IoSlice::new(&bytes)]).unwrap();
    network.advance(1_000_000);
    assert!(driver.turn(&mut Vec::new()).unwrap() > 0);
    network.advance(2_000_000);
    std::iter::from_fn(|| client.recv()).find_map(|event| match event {
        Event::Message { message, .. } => Some(answer(&message).1),
        _ => None,
    })
}

#[test]
fn a_request_that_came_while_the_process_was_stopped_is_judged_by_the_time_after_it() {
    assert_eq!(answer_after(0), nothing());
    assert_eq!(answer_after(LEASE_NS), refused(RefusalCode::ServerLost));
}
